//! The websocket transport with the real binary: everything arrives byte for byte, in order, once, whatever becomes of
//! its sockets and tokens.

use serde_json::{Value, json};

use crate::support::{Process, SESSIONS, Site, film, session_files};

/// Acme and its fellows deliver over sockets, at the path that is the transport's own.
fn site(token_life: &str) -> Site {
    // Chunk by chunk, so that a socket lives long enough to be troubled.
    site_with(token_life, "group = \"off\"\n")
}

fn site_with(token_life: &str, group: &str) -> Site {
    let delivery = format!("[tenants.acme.delivery]\ngap_wait = \"1s\"\n{group}");
    let site = Site::with(token_life, &delivery);
    site.configure(|text| text.replace("transport = \"json\"", "transport = \"websocket\""));
    site
}

/// The recording in acme's queue.
fn loaded(token_life: &str) -> Site {
    let site = site(token_life);
    load(&site);
    site
}

fn load(site: &Site) {
    for session in SESSIONS {
        let mut command = site.command(&["enqueue", "--tenant", "acme", "--session", session]);
        command
            .args(["--sequence", "0"])
            .args(session_files(session));
        Process::start(&mut command).wait().expect(0);
    }
}

fn trouble(site: &Site, times: Value, action: Value) {
    let rule = json!({"route": "socket", "tenant": "acme", "times": times, "action": action});
    site.sandbox.fault(rule);
}

/// All of it, once, and the journal agrees.
#[track_caller]
fn arrived(site: &Site) {
    site.assert_all_delivered(36);
    for session in SESSIONS {
        assert!(
            site.sandbox.film("acme", session) == film(session),
            "{session}"
        );
        let why = site.worker(&["why", "acme", session, "--json"]).expect(0);
        assert_eq!(why.json()["session"]["failures"], 0, "{}", why.out);
    }
    assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
    assert_eq!(site.sandbox.counted("gaps"), 0);
}

/// Drains under a trouble of its sockets; gives how many there were.
#[track_caller]
fn drains_under(times: Value, action: Value) -> u64 {
    let site = loaded("1h");
    trouble(&site, times, action);
    let ended = site.worker(&["drain"]).expect(0);
    assert!(!ended.err.contains("canary"), "a secret was logged");
    arrived(&site);
    site.sandbox.counted("sockets")
}

#[test]
fn a_recording_goes_over_one_socket_byte_for_byte() {
    let site = loaded("1h");
    site.worker(&["drain"]).expect(0);
    arrived(&site);
    assert_eq!(site.sandbox.counted("sockets"), 1);
    assert_eq!(site.sandbox.counted("token_requests"), 1);
}

#[test]
fn sockets_that_are_cut_again_and_again_cost_nothing() {
    let sockets = drains_under(json!(6), json!({"socket": "cut", "after_messages": 21}));
    assert_eq!(sockets, 7);
    let sockets = drains_under(json!(4), json!({"socket": "cut", "after_bytes": 150_001}));
    assert_eq!(sockets, 5);
}

#[test]
fn groups_whose_sockets_are_cut_arrive_whole_and_nothing_that_is_persisted_comes_again() {
    for action in [
        json!({"socket": "cut", "after_bytes": 150_001}),
        json!({"socket": "cut", "after_messages": 21}),
    ] {
        let site = site_with("1h", "");
        load(&site);
        trouble(&site, json!(4), action);
        site.worker(&["drain"]).expect(0);
        // Duplicates would have been counted part by part.
        arrived(&site);
        assert!(site.sandbox.counted("sockets") >= 2);
    }
}

#[test]
fn a_server_that_sends_garbage_or_too_much_is_left_for_another_socket() {
    for action in [
        json!({"socket": "garbage", "after_messages": 9}),
        json!({"socket": "huge", "bytes": 3_000_000, "after_messages": 9}),
        json!({"socket": "disconnect", "reason": "reconnect", "after_messages": 9}),
    ] {
        assert_eq!(drains_under(json!(1), action), 2);
    }
}

#[test]
fn a_throttle_in_band_is_kept_to() {
    let site = loaded("1h");
    let throttle = json!({"socket": "throttle", "retry_after": "PT2S", "after_messages": 9});
    trouble(&site, json!(1), throttle);
    let run = site.run();
    site.wait_stats("the throttle", |told| {
        let holds = told.holds("acme");
        holds
            .iter()
            .any(|(kind, reason)| kind == "throttled" && reason.contains("429"))
    });
    site.wait_stats("delivery to resume", |told| told.balance("delivered") == 36);
    run.terminate();
    run.wait().expect(0);
    arrived(&site);
    assert_eq!(site.sandbox.counted("inside_forbidden_window"), 0);
    assert_eq!(site.sandbox.counted("sockets"), 1);
}

/// Tokens of two seconds, renewed ahead, under a platform that takes its time.
#[track_caller]
fn renews_under(trouble_of_sockets: Option<&str>) -> (u64, u64) {
    let site = loaded("2s");
    if let Some(word) = trouble_of_sockets {
        trouble(&site, json!("forever"), json!({"socket": word}));
    }
    site.sandbox
        .fault(json!({"tenant": "acme", "times": "forever", "action": {"stall_ms": 300}}));
    // No filter brings a token into the log, the frames' own crate asked for by name included.
    let ended = site
        .worker(&["--log", "trace,tungstenite=trace", "drain"])
        .expect(0);
    assert!(ended.err.contains("TRACE"), "{}", ended.err);
    assert!(!ended.err.contains("canary"), "a secret was logged");
    arrived(&site);
    assert_eq!(site.sandbox.counted("unauthorized"), 0);
    assert!(site.sandbox.counted("tokens_issued") >= 2);
    (
        site.sandbox.counted("sockets"),
        site.sandbox.counted("reauthed"),
    )
}

#[test]
fn tokens_change_in_band_under_a_running_socket() {
    let (sockets, reauthed) = renews_under(None);
    assert_eq!(sockets, 1);
    assert!(reauthed >= 1);
}

#[test]
fn a_server_that_takes_no_token_in_band_gets_a_second_socket_before_the_first_ends() {
    let (sockets, _) = renews_under(Some("reauth_refuse"));
    assert!(sockets >= 2);
}

#[test]
fn a_server_that_drops_the_socket_at_refresh_loses_nothing() {
    let (sockets, _) = renews_under(Some("reauth_drop"));
    assert!(sockets >= 2);
}

#[test]
fn a_close_for_credentials_brings_a_new_token_and_costs_no_retry() {
    let site = loaded("1h");
    let close = json!({"socket": "close", "code": 4401, "after_messages": 40});
    trouble(&site, json!(1), close);
    site.worker(&["drain"]).expect(0);
    arrived(&site);
    assert!(site.sandbox.counted("tokens_issued") >= 2);
    assert_eq!(site.sandbox.counted("sockets"), 2);
}

#[test]
fn a_scope_that_is_missing_is_named_at_the_handshake() {
    let site = site("1h");
    site.enqueue("acme", "s1", 0);
    site.sandbox
        .tenant("acme", json!({"scopes": ["screenshare:write"]}));
    let report = site.worker(&["drain", "--json"]).expect(69);
    assert_eq!(report.json()["outcome"], "blocked");
    let holds = site.stats().holds("acme");
    let scope = "lacks the scope analytics:screenrecordings:write";
    assert!(
        holds.iter().any(|(_, reason)| reason.contains(scope)),
        "{holds:?}"
    );
}

#[test]
fn an_upload_endpoint_that_opens_no_socket_is_named() {
    let site = site("1h");
    site.enqueue("acme", "s1", 0);
    site.configure(|text| {
        let path = "path = \"/api/v2/analytics/screenrecordings\"\ntransport = \"websocket\"";
        text.replace("transport = \"websocket\"", path)
    });
    site.worker(&["drain"]).expect(69);
    let holds = site.stats().holds("acme");
    assert!(
        holds.iter().any(|(_, reason)| reason.contains("405")),
        "{holds:?}"
    );
}

#[test]
fn a_kill_under_way_sends_again_only_what_was_not_persisted() {
    let site = loaded("1h");
    site.sandbox
        .fault(json!({"tenant": "acme", "after": 9, "times": 1, "action": "hold"}));
    let run = site.run();
    site.sandbox.wait_held(1);
    run.kill();
    site.sandbox.release();
    site.worker(&["drain"]).expect(0);
    arrived(&site);
}

#[test]
fn a_kill_behind_a_group_leaves_no_chunk_without_its_answer() {
    let site = site_with("1h", "");
    load(&site);
    // Every part is stored, and the worker never hears of it: it sends them again, each by itself.
    site.sandbox
        .fault(json!({"tenant": "acme", "action": "hold_reply"}));
    let run = site.run();
    site.sandbox.wait_held(1);
    run.kill();
    site.sandbox.release();
    let run = site.run();
    site.wait_stats("delivery", |told| told.balance("delivered") == 36);
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(36);
    for session in SESSIONS {
        assert!(
            site.sandbox.film("acme", session) == film(session),
            "{session}"
        );
    }
    assert!(site.sandbox.counted("duplicates_suppressed") > 0);
    // Of each worker one: none was left for its silence.
    assert_eq!(site.sandbox.counted("sockets"), 2);
}
