//! The main job: a real recording goes through the queue across token expiry and arrives byte for byte.

use serde_json::json;

use crate::support::{Process, SESSIONS, Site, film, session_files};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];

/// Sends the whole recording while tokens of 2 s end under way, each answer held back for `stall_ms`; the sessions that
/// did not arrive byte for byte.
fn lost_of_the_recording(site: &Site, stall_ms: u64, sabotage: &str) -> Vec<&'static str> {
    for (tenant, session) in TENANTS.into_iter().zip(SESSIONS) {
        let mut command = site.command(&["enqueue", "--json", "--last", "--duration", "1500ms"]);
        command
            .args(["--tenant", tenant, "--session", session])
            .args(["--started-at", "2026-03-01T10:00:00+01:00"])
            .args(session_files(session));
        let told = Process::start(&mut command).wait().expect(0).json_lines();
        let sequences = told.iter().map(|line| line["sequence"].clone());
        assert_eq!(sequences.collect::<Vec<_>>(), (0..12).collect::<Vec<u64>>());
    }
    let stall = json!({"stall_ms": stall_ms});
    site.sandbox
        .fault(json!({"times": "forever", "action": stall}));
    let mut command = site.command(&["drain", "--json"]);
    let report = Process::start(command.env("REELAY_SABOTAGE", sabotage))
        .wait()
        .expect(0)
        .json();
    assert_eq!(report["outcome"], "drained");
    assert_eq!(report["delivered"]["chunks"], 36);
    let sent = TENANTS.into_iter().zip(SESSIONS);
    sent.filter(|(tenant, session)| site.sandbox.film(tenant, session) != film(session))
        .map(|(_, session)| session)
        .collect()
}

/// One tenant waits for the platform's 401 instead of renewing ahead. Chunk by chunk, so that tokens end under way.
const ON_401: &str = "\
[tenants.acme.delivery]
group = \"off\"
[tenants.globex.delivery]
group = \"off\"
refresh_policy = \"on_401\"
[tenants.initech.delivery]
group = \"off\"
";

#[test]
fn a_recording_outlives_its_tokens_and_arrives_byte_for_byte() {
    let site = Site::with("2s", ON_401);
    // Slow enough that every token ends while its tenant is owed chunks.
    let lost = lost_of_the_recording(&site, 600, "");
    assert_eq!(lost, [""; 0]);
    for (tenant, session) in TENANTS.into_iter().zip(SESSIONS) {
        let sequences: Vec<u64> = (0..12).collect();
        assert_eq!(site.sandbox.sequences(tenant, session), sequences);
        let ended = &site.sandbox.ledger()["tenants"][tenant]["sessions"][session]["ended"];
        assert_eq!(ended, true, "{session}");
    }
    site.assert_all_delivered(36);
    let expired = site.sandbox.counted("expired_tokens");
    assert!(expired >= 3, "{expired} tokens ended under way");
    assert!(site.sandbox.counted_of("globex", "unauthorized") >= 1);
    assert_eq!(site.sandbox.counted_of("acme", "unauthorized"), 0);
    assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
    assert_eq!(site.sandbox.counted("gaps"), 0);
}

#[test]
fn the_comparison_sees_a_worker_that_drops_what_met_an_expired_token() {
    let site = Site::with("2s", ON_401);
    let lost = lost_of_the_recording(&site, 300, "DropOnUnauthorized");
    assert_eq!(lost, ["desk-2"]);
}

#[test]
fn an_enqueue_repeated_whole_is_known_and_stored_once() {
    let site = Site::new();
    let repeat = || {
        let mut command = site.command(&["enqueue", "--json", "--tenant", "acme"]);
        command
            .args(["--session", "desk-1", "--sequence", "0"])
            .args(session_files("desk-1"));
        Process::start(&mut command).wait().expect(0)
    };
    assert!(
        repeat()
            .json_lines()
            .iter()
            .all(|line| line["known"] == false)
    );
    assert!(
        repeat()
            .json_lines()
            .iter()
            .all(|line| line["known"] == true)
    );
    site.worker(&["drain"]).expect(0);
    // Also after its delivery.
    assert!(
        repeat()
            .json_lines()
            .iter()
            .all(|line| line["known"] == true)
    );
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(12);
    assert!(site.sandbox.film("acme", "desk-1") == film("desk-1"));
}
