//! A backlog moves from one host to another with the real binary, and the platform cannot tell the difference.

use std::fs::{self, File, OpenOptions};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Ended, Place, SESSIONS, Site, WORKER, film, session_files};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const CHUNKS: u64 = 36;

/// The recording enqueued, its first chunks delivered.
fn begun() -> (Site, u64) {
    let site = Site::with("1h", "[tenants.acme.delivery]\ngroup = \"off\"\n");
    for (tenant, session) in TENANTS.into_iter().zip(SESSIONS) {
        let mut command = site.command(&["enqueue", "--last", "--duration", "1500ms"]);
        command
            .args(["--tenant", tenant, "--session", session])
            .args(session_files(session));
        let enqueued = crate::support::Process::start(&mut command);
        enqueued.wait().expect(0);
    }
    // acme: five chunks, then an outage longer than anybody waits.
    let outage = json!({"tenant": "acme", "after": 5, "times": "forever",
        "action": {"status": 503, "headers": {"Retry-After": "3600"}}});
    site.sandbox.fault(outage);
    site.worker("drain --tenant acme --json --patience 1s");
    let delivered = site.stats().balance("delivered");
    assert_eq!(delivered, 5);
    site.sandbox.no_faults();
    (site, delivered)
}

/// Another host with the same tenants and another name.
fn other_host(site: &Site) -> Place {
    let place = Place::new();
    for entry in fs::read_dir(site.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), place.at(entry.file_name().to_str().unwrap())).unwrap();
        }
    }
    let store = site.store().display().to_string();
    place.configure(|text| {
        assert!(text.contains("name = \"rec-1\""), "{text}");
        text.replace("name = \"rec-1\"", "name = \"rec-2\"")
            .replace(&store, &place.store().display().to_string())
    });
    place
}

fn moved(site: &Site, place: &Place) -> Value {
    let exported = site
        .worker("store export backlog.reelay --json")
        .expect(0)
        .json();
    assert_eq!(exported["chunks"], CHUNKS - 5);
    fs::copy(site.at("backlog.reelay"), place.at("backlog.reelay")).unwrap();
    exported
}

fn assert_arrived_once(site: &Site) {
    for (tenant, session) in TENANTS.into_iter().zip(SESSIONS) {
        assert!(
            site.sandbox.film(tenant, session) == film(session),
            "{session}"
        );
        let sequences: Vec<u64> = (0..12).collect();
        assert_eq!(site.sandbox.sequences(tenant, session), sequences);
    }
    let ledger = site.sandbox.ledger();
    assert_eq!(ledger["delivered"], CHUNKS, "{ledger}");
    for fault in [
        "order_inversions",
        "conflicts",
        "undeclared_gaps",
        "after_last",
        "gaps",
    ] {
        assert_eq!(ledger[fault], 0, "{fault}: {ledger}");
    }
}

#[test]
fn a_backlog_exported_here_is_drained_there_and_arrives_once() {
    let (site, delivered) = begun();
    let place = other_host(&site);
    moved(&site, &place);
    let told = place
        .worker("store import backlog.reelay --json")
        .expect(0)
        .json();
    assert_eq!(told["from"], "rec-1");
    assert_eq!(told["chunks"], CHUNKS - delivered);
    let again = place
        .worker("store import backlog.reelay --json")
        .expect(0)
        .json();
    assert_eq!(
        (&again["chunks"], &again["known"]),
        (&json!(0), &json!(CHUNKS - delivered))
    );
    place.worker("drain").expect(0);
    assert_arrived_once(&site);
    assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
    // An old host that is started all the same sends what the platform has by the same keys: nothing is stored twice.
    site.worker("tenants resume acme").expect(0);
    site.worker("drain").expect(0);
    assert_arrived_once(&site);
    assert_eq!(
        site.sandbox.counted("duplicates_suppressed"),
        CHUNKS - delivered
    );
}

#[test]
fn an_import_killed_on_its_way_is_repeated_and_nothing_is_lost() {
    let (site, delivered) = begun();
    let place = other_host(&site);
    moved(&site, &place);
    let whole = fs::read(place.at("backlog.reelay")).unwrap();
    place.write("torn.reelay", &whole[..whole.len() / 2]);
    let torn = place
        .worker("store import torn.reelay --json")
        .expect(65)
        .json_lines();
    assert_eq!(torn[0]["complete"], false);
    assert_eq!(torn[1]["error"]["code"], "damaged");
    let before = torn[0]["chunks"].as_u64().unwrap();
    assert!((1..CHUNKS - delivered).contains(&before), "{torn:?}");
    assert_eq!(place.fsck().balance("backlog"), before);
    let mut flipped = whole.clone();
    flipped[whole.len() * 3 / 4] ^= 4;
    place.write("flipped.reelay", &flipped);
    place.worker("store import flipped.reelay").expect(65);
    let told = place
        .worker("store import backlog.reelay --json")
        .expect(0)
        .json();
    let sum = told["chunks"].as_u64().unwrap() + told["known"].as_u64().unwrap();
    assert_eq!(sum, CHUNKS - delivered);
    place.worker("drain").expect(0);
    assert_arrived_once(&site);
}

#[test]
fn an_export_needs_the_store_alone_room_and_a_name_that_is_free() {
    let (site, _) = begun();
    let place = other_host(&site);
    let run = site.run();
    let held = site.worker("store export backlog.reelay").expect(75);
    assert!(held.err.contains("stop it, then export"), "{}", held.err);
    assert!(!site.at("backlog.reelay").exists());
    run.terminate();
    run.wait();
    site.worker("store export backlog.reelay").expect(0);
    let taken = site.worker("store export backlog.reelay").expect(74);
    assert!(taken.err.contains("File exists"), "{}", taken.err);
    // A pipe from host to host.
    let mut export = site
        .command("store export -")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stream = export.stdout.take().unwrap();
    let import = place
        .command("store import - --json")
        .stdin(stream)
        .output()
        .unwrap();
    assert!(export.wait().unwrap().success());
    let told: Value = serde_json::from_slice(&import.stdout).unwrap();
    assert_eq!(told["complete"], true, "{told}");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = to(&mut site.command("store export -"), full);
    assert_eq!(ended.code, Some(74), "{}", ended.err);
    assert!(
        ended.err.contains("No space left on device"),
        "{}",
        ended.err
    );
}

#[test]
fn an_import_into_a_full_store_says_so_and_goes_on_when_there_is_room() {
    let (site, delivered) = begun();
    let place = other_host(&site);
    moved(&site, &place);
    let roomy = fs::read_to_string(place.config()).unwrap();
    place.configure(|text| {
        assert!(text.contains("max_bytes = \"4GiB\""), "{text}");
        text.replace("max_bytes = \"4GiB\"", "max_bytes = \"16MiB\"")
    });
    for (tenant, kib) in [("initech", 11 << 10), ("acme", 4 << 10), ("globex", 512)] {
        place.write("filler", &vec![7; kib << 10]);
        place
            .worker(&format!(
                "enqueue --tenant {tenant} --session filler filler"
            ))
            .expect(0);
    }
    let full = place.worker("store import backlog.reelay --json");
    assert_eq!(full.code, Some(75), "{full:?}");
    assert!(full.err.contains("store full"), "{}", full.err);
    let before = full.json_lines()[0]["chunks"].as_u64().unwrap();
    place.configure(|_| roomy);
    let told = place
        .worker("store import backlog.reelay --json")
        .expect(0)
        .json();
    assert_eq!(told["known"], before);
    assert_eq!(told["chunks"], CHUNKS - delivered - before);
}

fn to(command: &mut Command, file: File) -> Ended {
    assert!(command.get_program() == WORKER);
    let done = command.stdout(file).output().unwrap();
    Ended {
        code: done.status.code(),
        out: String::new(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}
