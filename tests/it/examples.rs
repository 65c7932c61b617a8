//! Every `--help` has one example that can be pasted, and each of them works.

use std::process::Command;

use serde_json::json;

use crate::support::{Ended, Place, Process, Site, WORKER, payload, wait_for};

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
    let mut command = Command::new(WORKER);
    let help = Process::start(command.args(path).arg("--help"));
    help.wait().expect(0).out
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
fn platform() -> Site {
    // Sequences 2 to 6 never come; nobody should wait minutes for them.
    let site = Site::with("1h", "[tenants.acme.delivery]\ngap_wait = \"100ms\"\n");
    site.sandbox.fault(json!({"tenant": "acme", "session": "s1", "sequence": 7, "times": "forever",
             "action": {"status": 422, "body": "{\"code\": \"validation\", \"status\": 422, \"message\": \"too odd\"}"}}));
    for number in 0..2 {
        let bytes = payload(&number.to_string(), 10_000);
        site.write(&format!("part-{number}.mp4"), &bytes);
    }
    site
}

/// Makes s1/7 a dead letter, whatever became of it before.
fn dead_letter(place: &Place) {
    if place.worker("dead show acme s1 7").code == Some(0) {
        return;
    }
    place.write("seven.mp4", &payload("7", 10_000));
    let run = place.start("run");
    place.wait_for_holder();
    place
        .worker("enqueue --tenant acme --session s1 --sequence 7 seven.mp4")
        .expect(0);
    wait_for("a refusal of sequence 7", || {
        let why = place.worker("why acme s1 7 --json").expect(0).json_lines();
        why[0]["last_failure"].is_object().then_some(())
    });
    // A later delivery on the same route is the evidence against it.
    place
        .worker("enqueue --tenant acme --session s2 --append part-0.mp4")
        .expect(0);
    wait_for("a dead letter", || {
        (place.worker("dead show acme s1 7").code == Some(0)).then_some(())
    });
    run.terminate();
    run.wait().expect(0);
}

/// Runs until it is ready, then asks it to end.
fn until_ready(place: &Place, arguments: &str, ready: impl Fn() -> bool) -> Ended {
    let started = place.start(arguments);
    wait_for("it to be ready", || ready().then_some(()));
    started.terminate();
    started.wait()
}

#[test]
fn every_example_of_every_help_works() {
    let site = platform();
    let place = &*site;
    let mut seen = 0;
    let mut lines: Vec<_> = commands().iter().map(|path| example(path)).collect();
    // Last, because a purged chunk's number is taken for good.
    lines.sort_by_key(|line| line.starts_with("dead purge"));
    for line in lines {
        let verb = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let ran = match verb.as_str() {
            _ if line.starts_with("init") => Place::new().worker(&line),
            _ if line.starts_with("run") => until_ready(place, &line, || {
                std::os::unix::net::UnixStream::connect(place.at("store/control.sock")).is_ok()
            }),
            _ if line.starts_with("sandbox") => {
                until_ready(place, &line, || place.at("sandbox/worker.toml").exists())
            }
            // Run by a test of its own: it takes half a minute.
            _ if line.starts_with("demo") => continue,
            "dead show" | "dead redrive" | "dead export" | "dead purge" | "sessions show"
            | "sessions end" | "sessions promote" => {
                dead_letter(place);
                place.worker(&line)
            }
            "recordings show" => {
                let asked = "recordings fetch --tenant acme r-1";
                place.worker(asked).expect(0);
                place.worker(&line)
            }
            "store import" => {
                let export = line.replace("import", "export");
                let _ = std::fs::remove_file(place.at("backlog.reelay"));
                place.worker(&export).expect(0);
                place.worker(&line)
            }
            "store export" => {
                let _ = std::fs::remove_file(place.at("backlog.reelay"));
                place.worker(&line)
            }
            _ => place.worker(&line),
        };
        assert!(
            ran.code == Some(0) || (line.starts_with("drain") && ran.code == Some(65)),
            "worker {line}: {ran:#?}"
        );
        seen += 1;
    }
    assert!(seen > 15, "only {seen} commands were found");
}
