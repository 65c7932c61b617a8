//! Input that no honest command line gives: over the socket of a holder, and a file that changes under the reader.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{Place, Site};

/// Everything under the store that holds bytes, with its length.
fn files(place: &Place) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![place.store().join("segments")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let length = entry.metadata().unwrap().len();
                found.push((entry.file_name().into_string().unwrap(), length));
            }
        }
    }
    found.sort();
    found
}

/// One request to the holder's socket; its status line and body.
fn ask(place: &Place, target: &str, body: &[u8]) -> (u16, String) {
    let mut socket = UnixStream::connect(place.store().join("control.sock")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let head = format!(
        "PUT {target} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    // A refusal may come before the body is taken.
    let _ = socket.write_all(body);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{answer:?}")), answer)
}

#[test]
fn names_that_no_shell_could_pass_are_refused_by_the_socket_too() {
    let site = Site::new();
    site.enqueue("acme", "s1", 0);
    site.worker("tenants pause acme").expect(0);
    let run = site.run();
    let query = "started_at=2026-03-01T10:00:00Z&duration_ms=30000&media_type=video/mp4";
    let target = |tenant: &str, session: &str, chunk: &str| {
        format!("/v1/tenants/{tenant}/sessions/{session}/chunks/{chunk}?{query}")
    };
    // The control: a good name over the same socket is taken.
    let (status, answer) = ask(&site, &target("acme", "s2", "next"), b"bytes");
    assert_eq!(status, 201, "{answer}");
    let (before, files_before) = (site.stats().0["balance"].clone(), files(&site));
    let long = "s".repeat(10_000);
    for (tenant, session, chunk) in [
        ("acme", "a%00b", "next"),
        ("acme", "%2E%2E", "next"),
        ("acme", "..", "next"),
        ("acme", "a%2Fb", "next"),
        ("acme", "a%0Ab", "next"),
        ("acme", "%FF", "next"),
        ("acme", "", "next"),
        ("acme", long.as_str(), "next"),
        ("%00", "s3", "next"),
        ("..", "s3", "next"),
        ("acm", "s3", "next"),
        ("acme", "s3", "-1"),
        ("acme", "s3", "18446744073709551616"),
        ("acme", "s3", "first"),
    ] {
        let (status, answer) = ask(&site, &target(tenant, session, chunk), b"bytes");
        let name = &session[..session.len().min(20)];
        assert!(
            (400..500).contains(&status),
            "{tenant} {name} {chunk}: {answer}"
        );
        assert!(
            answer.len() < 2_000,
            "{tenant} {name}: echoed {} bytes",
            answer.len()
        );
    }
    assert_eq!(site.stats().0["balance"], before);
    assert_eq!(files(&site), files_before);
    run.terminate();
    run.wait().expect(0);
    let stored: Vec<_> = site.fsck().0["balance"]
        .as_object()
        .unwrap()
        .clone()
        .into_iter()
        .collect();
    assert!(
        stored.contains(&("enqueued".to_owned(), 2.into())),
        "{stored:?}"
    );
}

#[test]
fn a_refused_name_is_not_echoed_whole() {
    let place = Place::configured();
    place.write("a.ts", b"bytes");
    let long = "n".repeat(10_000);
    for arguments in [
        &["enqueue", "--tenant", &long, "--session", "s", "a.ts"][..],
        &["enqueue", "--tenant", "acme", "--session", &long, "a.ts"],
        &["enqueue", "--tenant", "acme", "--session", "s", &long],
        &[
            "enqueue",
            "--tenant",
            "acme",
            "--session",
            "s",
            "--sequence",
            &long,
            "a.ts",
        ],
        &[
            "enqueue",
            "--tenant",
            "acme",
            "--session",
            "s",
            "--started-at",
            &long,
            "a.ts",
        ],
        &[
            "enqueue",
            "--tenant",
            "acme",
            "--session",
            "s",
            "--duration",
            &long,
            "a.ts",
        ],
        &[
            "enqueue",
            "--tenant",
            "acme",
            "--session",
            "s",
            "--media-type",
            &long,
            "a.ts",
        ],
        &["--config", &long, "stats"],
        &["why", &long],
        &["dead", "show", "acme", &long],
        &["tenants", "pause", &long],
        &[&long],
        &["--stats", &long],
        &[&format!("--{long}")],
    ] {
        for json in [&[][..], &["--json"]] {
            let ended = place.worker(&[json, arguments].concat()[..]);
            let shown = &arguments[..arguments.len().min(2)];
            assert!(
                matches!(ended.code, Some(64 | 78)),
                "{json:?} {:?} {shown:?}",
                ended.code
            );
            for said in [&ended.err, &ended.out] {
                assert!(said.len() < 3_000, "{} bytes for {shown:.80?}", said.len());
                assert!(!said.contains(&long), "{shown:.80?}");
            }
            assert!(!ended.err.is_empty());
        }
    }
    assert!(!place.store().exists());
}

/// Appends to a file until it is dropped.
struct Growing<'a> {
    stop: &'a AtomicBool,
}

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The command, while its file is appended to from before its start until after its end.
fn beside_a_writer(site: &Site, file: &str, arguments: &str) -> crate::support::Ended {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut writer = OpenOptions::new().append(true).open(site.at(file)).unwrap();
        let stopped = &stop;
        scope.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                writer.write_all(b"more").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _growing = Growing { stop: &stop };
        site.start(arguments).wait()
    })
}

#[test]
fn a_file_that_grows_while_it_is_read_is_refused_and_leaves_nothing() {
    let site = Site::new();
    site.enqueue("acme", "s1", 0);
    site.worker("tenants pause acme").expect(0);
    // Long enough that it grows between the first byte read and the last, whatever the disk.
    site.file("live.ts", 24 << 20);
    let (before, files_before) = (site.stats().0["balance"].clone(), files(&site));
    let enqueue = "enqueue --json --tenant acme --session s2 --sequence 0 live.ts";
    for held in [false, true] {
        let run = held.then(|| site.run());
        let ended = beside_a_writer(&site, "live.ts", enqueue).expect(64);
        assert!(
            ended.err.contains("grew while it was read"),
            "{}",
            ended.err
        );
        assert_eq!(ended.json()["error"]["code"], "changed", "{}", ended.out);
        assert_eq!(site.stats().0["balance"], before, "held: {held}");
        if let Some(run) = run {
            run.terminate();
            run.wait().expect(0);
        }
        assert_eq!(files(&site), files_before, "held: {held}");
    }
    // Steady again, it is taken whole.
    let accepted = site.worker(enqueue).expect(0).json();
    assert_eq!(accepted["known"], false);
    site.fsck();
}

#[test]
fn plain_http_to_another_host_is_refused_for_every_url() {
    let place = Place::configured();
    let good = fs::read_to_string(place.config()).unwrap();
    for key in ["api_url", "token_url"] {
        let line = good.lines().find(|line| line.starts_with(key)).unwrap();
        let number = good.lines().position(|of| of == line).unwrap() + 1;
        for url in [
            "http://example.com",
            "http://10.0.0.1:9",
            "http://127.0.0.1.example.com",
            "ftp://127.0.0.1",
        ] {
            let wrong = format!("{key} = \"{url}\"");
            place.write("worker.toml", good.replacen(line, &wrong, 1).as_bytes());
            for command in ["stats", "run", "drain", "check"] {
                let ended = place.worker(command).expect(78);
                let said = format!("{}{}", ended.err, ended.out);
                assert!(
                    said.contains(&format!("worker.toml:{number}: {key}")),
                    "{said}"
                );
                assert!(said.contains("must start with https://"), "{said}");
            }
        }
    }
    assert!(!place.store().exists());
    place.write("worker.toml", good.as_bytes());
    place.worker("stats").expect(0);
}
