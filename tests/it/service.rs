//! What the service manager sees of a worker.

use std::os::unix::net::UnixDatagram;

use crate::place::{EVENTUALLY, Place, Platform, WORKER, eventually};

/// Everything that a worker tells its manager, until it has said `last`.
fn told(socket: &UnixDatagram, last: &str) -> Vec<String> {
    socket.set_read_timeout(Some(EVENTUALLY)).unwrap();
    let mut told = Vec::new();
    let mut buffer = [0; 4096];
    while told.last().is_none_or(|line: &String| !line.contains(last)) {
        let length = socket
            .recv(&mut buffer)
            .expect("the worker goes on telling");
        told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    told
}

#[test]
fn a_worker_is_ready_when_it_listens_shows_its_status_and_says_when_it_stops() {
    let platform = Platform::start("");
    let place = &platform.place;
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    let mut command = place.command("run");
    command.env("NOTIFY_SOCKET", place.path("notify"));
    let mut run = place.spawn(command);
    told(&manager, "READY=1");
    place.worker("tenants pause acme").exits(0);
    let status = told(&manager, "STATUS=");
    assert!(
        status.last().unwrap().contains("0 chunks waiting"),
        "{status:?}"
    );
    run.terminate();
    told(&manager, "STOPPING=1");
    run.ended().exits(0);
}

/// Each segment of a backlog may be open, and each upload, and the system's usual limit is 1,024.
#[test]
fn a_worker_takes_as_many_open_files_as_it_may_have() {
    let platform = Platform::start("");
    let place = &platform.place;
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -Sn 64; ulimit -Hn 512; exec \"$0\" run"])
        .arg(WORKER)
        .current_dir(place.dir.path());
    let mut run = place.spawn(command);
    place.wait_for_holder();
    let lock = std::fs::read_to_string(place.path("store/lock")).unwrap();
    let pid = lock.split(' ').next().unwrap();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|it| it.starts_with("Max open files"));
    let soft = files.and_then(|it| it.split_whitespace().nth(3));
    assert_eq!(soft, Some("512"), "{limits}");
    run.terminate();
    run.ended().exits(0);
}

#[test]
fn an_interrupted_drain_ends_with_75_and_frees_the_store() {
    let platform = Platform::start("");
    let place = &platform.place;
    platform.change("acme", r#"{"token_endpoint": "down"}"#);
    place.write("a.mp4", b"bytes");
    place
        .worker("enqueue --tenant acme --session s1 a.mp4")
        .exits(0);
    let mut drain = place.start("drain --patience 10min");
    place.wait_for_holder();
    drain.terminate();
    let ran = drain.ended().exits(75);
    assert!(
        ran.err.contains("drain interrupted; run again"),
        "{}",
        ran.err
    );
    place.worker("--stats --wait 0s").exits(0);
}

#[test]
fn a_held_store_is_named_with_its_holder_and_given_up_after_the_wait() {
    let place = Place::configured();
    place.worker("stats").exits(0);
    let lock = std::fs::OpenOptions::new()
        .write(true)
        .open(place.path("store/lock"))
        .unwrap();
    lock.try_lock().unwrap();
    std::fs::write(
        place.path("store/lock"),
        format!("{} worker enqueue\n", std::process::id()),
    )
    .unwrap();
    let ran = place.worker("stats --wait 200ms").exits(75);
    let named = format!(
        "held by worker enqueue (pid {}); waited ",
        std::process::id()
    );
    assert!(ran.err.contains(&named), "{}", ran.err);
    let waiting = place.start("stats --wait 20s");
    // Free again while it waits.
    eventually("the wait to begin", || Some(()));
    lock.unlock().unwrap();
    waiting.ended().exits(0);
}
