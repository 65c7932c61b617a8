//! What the service manager sees of a worker.

use std::os::unix::net::UnixDatagram;

use serde_json::json;

use crate::support::{PATIENCE, Place, Process, Site, wait_for};

/// Everything that a worker tells its manager, until it has said `last`.
fn told(socket: &UnixDatagram, last: &str) -> Vec<String> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
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
    let site = Site::new();
    let place = &*site;
    let manager = UnixDatagram::bind(place.at("notify")).unwrap();
    let mut command = place.command("run");
    command.env("NOTIFY_SOCKET", place.at("notify"));
    let run = Process::start(&mut command);
    told(&manager, "READY=1");
    place.worker("tenants pause acme").expect(0);
    let status = told(&manager, "STATUS=");
    assert!(
        status.last().unwrap().contains("0 chunks waiting"),
        "{status:?}"
    );
    run.terminate();
    told(&manager, "STOPPING=1");
    run.wait().expect(0);
}

#[test]
fn an_interrupted_drain_ends_with_75_and_frees_the_store() {
    let site = Site::new();
    let place = &*site;
    site.sandbox
        .tenant("acme", json!({"token_endpoint": "down"}));
    place.write("a.mp4", b"bytes");
    place
        .worker("enqueue --tenant acme --session s1 a.mp4")
        .expect(0);
    let drain = place.start("drain --patience 10min");
    place.wait_for_holder();
    drain.terminate();
    let ran = drain.wait().expect(75);
    assert!(
        ran.err.contains("drain interrupted; run again"),
        "{}",
        ran.err
    );
    place.worker("--stats --wait 0s").expect(0);
}

#[test]
fn a_held_store_is_named_with_its_holder_and_given_up_after_the_wait() {
    let place = Place::configured();
    place.worker("stats").expect(0);
    let lock = std::fs::OpenOptions::new()
        .write(true)
        .open(place.at("store/lock"))
        .unwrap();
    lock.try_lock().unwrap();
    std::fs::write(
        place.at("store/lock"),
        format!("{} worker enqueue\n", std::process::id()),
    )
    .unwrap();
    let ran = place.worker("stats --wait 200ms").expect(75);
    let named = format!(
        "held by worker enqueue (pid {}); waited ",
        std::process::id()
    );
    assert!(ran.err.contains(&named), "{}", ran.err);
    let waiting = place.start("stats --wait 20s");
    // Free again while it waits.
    wait_for("the wait to begin", || Some(()));
    lock.unlock().unwrap();
    waiting.wait().expect(0);
}
