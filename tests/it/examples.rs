//! Every `--help` has one example that can be pasted, and each of them works.

use std::process::Command;

use crate::place::{Place, Platform, Ran, WORKER, eventually, payload};

/// The words that name every command, found by asking each for its help.
fn commands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![Vec::new()];
    while let Some(path) = open.pop() {
        let mut inside = false;
        for line in help(&path).lines() {
            match line {
                "Commands:" => inside = true,
                "" => inside = false,
                line if inside && line.starts_with("  ") && !line.starts_with("   ") => {
                    let name = line.split_whitespace().next().unwrap();
                    let mut sub = path.clone();
                    sub.push(name.to_owned());
                    open.push(sub);
                }
                _ => {}
            }
        }
        found.push(path);
    }
    found
}

fn help(path: &[String]) -> String {
    let ran = Ran::from(
        Command::new(WORKER)
            .args(path)
            .arg("--help")
            .output()
            .unwrap(),
    )
    .exits(0);
    ran.out
}

fn example(path: &[String]) -> String {
    let text = help(path);
    let (_, after) = text
        .split_once("Example:\n")
        .unwrap_or_else(|| panic!("{path:?} has no example"));
    let lines: Vec<_> = after
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(lines.len(), 1, "{path:?}: {lines:?}");
    let line = lines[0]
        .strip_prefix("worker ")
        .expect("it begins with worker");
    line.to_owned()
}

/// A platform that refuses sequence 7 of s1, beside good ones.
fn platform() -> Platform {
    let platform = Platform::start("");
    platform.faults(
        r#"[{"tenant": "acme", "session": "s1", "sequence": 7, "times": "forever",
             "action": {"status": 422, "body": "{\"code\": \"validation\", \"status\": 422, \"message\": \"too odd\"}"}}]"#,
    );
    // Sequences 2 to 6 never come; nobody should wait minutes for them.
    let config = std::fs::read_to_string(platform.place.path("worker.toml")).unwrap();
    let config = format!("{config}\n[tenants.acme.delivery]\ngap_wait = \"100ms\"\n");
    platform.place.write("worker.toml", config.as_bytes());
    for number in 0..2 {
        platform
            .place
            .write(&format!("part-{number}.mp4"), &payload(number, 10_000));
    }
    platform
}

/// Makes s1/7 a dead letter, whatever became of it before.
fn dead_letter(place: &Place) {
    if place.worker("dead show acme s1 7").code == 0 {
        return;
    }
    place.write("seven.mp4", &payload(7, 10_000));
    let mut run = place.start("run");
    place.wait_for_holder();
    place
        .worker("enqueue --tenant acme --session s1 --sequence 7 seven.mp4")
        .exits(0);
    eventually("a refusal of sequence 7", || {
        let why = place.worker("why acme s1 7 --json").exits(0).objects();
        why[0]["last_failure"].is_object().then_some(())
    });
    // A later delivery on the same route is the evidence against it.
    place
        .worker("enqueue --tenant acme --session s2 --append part-0.mp4")
        .exits(0);
    eventually("a dead letter", || {
        (place.worker("dead show acme s1 7").code == 0).then_some(())
    });
    run.terminate();
    run.ended().exits(0);
}

/// Runs until it is ready, then asks it to end.
fn until_ready(place: &Place, arguments: &str, ready: impl Fn() -> bool) -> Ran {
    let mut started = place.start(arguments);
    eventually("it to be ready", || ready().then_some(()));
    started.terminate();
    started.ended()
}

#[test]
fn every_example_of_every_help_works() {
    let platform = platform();
    let place = &platform.place;
    let mut seen = 0;
    let mut lines: Vec<_> = commands().iter().map(|path| example(path)).collect();
    // Last, because a purged chunk's number is taken for good.
    lines.sort_by_key(|line| line.starts_with("dead purge"));
    for line in lines {
        let verb = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let ran = match verb.as_str() {
            _ if line.starts_with("init") => Place::new().worker(&line),
            _ if line.starts_with("run") => until_ready(place, &line, || {
                std::os::unix::net::UnixStream::connect(place.path("store/control.sock")).is_ok()
            }),
            _ if line.starts_with("sandbox") => {
                until_ready(place, &line, || place.path("sandbox/worker.toml").exists())
            }
            // Run by a test of its own: it takes half a minute.
            _ if line.starts_with("demo") => continue,
            "dead show" | "dead redrive" | "dead export" | "dead purge" => {
                dead_letter(place);
                place.worker(&line)
            }
            "recordings show" => {
                let asked = "recordings fetch --tenant acme r-1";
                place.worker(asked).exits(0);
                place.worker(&line)
            }
            _ => place.worker(&line),
        };
        assert!(
            ran.code == 0 || (line.starts_with("drain") && ran.code == 65),
            "worker {line}: {ran:#?}"
        );
        seen += 1;
    }
    assert!(seen > 15, "only {seen} commands were found");
}
