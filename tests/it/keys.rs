//! The settings that people bring along from elsewhere, each with the effect that its name promises; and groups, from the
//! configuration to the platform's ledger.

use serde_json::json;

use crate::support::{Site, wait_for};

/// A site whose acme has these lines in its delivery table.
fn with(token_life: &str, lines: &str) -> Site {
    Site::with(
        token_life,
        &format!("[tenants.acme.delivery]\ngap_wait = \"1s\"\n{lines}\n"),
    )
}

/// So many chunks of 30 s of one session.
fn record(site: &Site, session: &str, chunks: usize) {
    let files = (0..chunks).map(|n| site.file(&format!("{session}-{n}.ts"), 3000));
    let mut command = site.command(&["enqueue", "--tenant", "acme", "--session", session]);
    command.args(["--duration", "30s", "--sequence", "0"]);
    command.args(files);
    crate::support::Process::start(&mut command)
        .wait()
        .expect(0);
}

#[test]
fn a_backlog_goes_out_in_few_requests_and_arrives_chunk_by_chunk() {
    let site = with("1h", "");
    site.sandbox.count_requests("acme");
    record(&site, "s1", 20);
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(20);
    assert_eq!(site.sandbox.requests(), 1);
}

#[test]
fn group_off_sends_chunk_by_chunk() {
    let site = with("1h", "group = \"off\"");
    site.sandbox.count_requests("acme");
    record(&site, "s1", 5);
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(5);
    assert_eq!(site.sandbox.requests(), 5);
}

#[test]
fn interval_seconds_is_the_longest_recording_in_a_request() {
    let site = with("1h", "intervalSeconds = 90");
    site.sandbox.count_requests("acme");
    record(&site, "s1", 6);
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(6);
    assert_eq!(site.sandbox.requests(), 2, "three chunks of 30 s each");
}

#[test]
fn max_retries_is_how_often_a_chunk_may_fail() {
    for retries in [1, 3] {
        let lines = format!("maxRetries = {retries}\nmin_retry_span = \"0s\"");
        let site = with("1h", &lines);
        site.sandbox.fault(json!({"tenant": "acme", "session": "s1", "times": "forever", "action": {"status": 500}}));
        record(&site, "s1", 1);
        let run = site.run();
        // Its first failure finds it alone and counts; a later one does if another session was served meanwhile.
        let (mut served, mut counted) = (0, 0);
        wait_for("the chunk to be dead", || {
            if site.stats().chunks("acme", "dead") == 1 {
                return Some(());
            }
            if site.sandbox.asked(0) > 0 {
                record(&site, &format!("served-{served}"), 1);
                served += 1;
            }
            let why = site
                .worker(&["why", "acme", "s1", "0", "--json"])
                .expect(0)
                .json();
            if why["session"]["state"] == "Live" {
                counted = counted.max(why["session"]["failures"].as_u64().unwrap());
            }
            None
        });
        run.terminate();
        run.wait().expect(0);
        assert!(counted < retries, "{counted} failures and alive");
        assert!(site.sandbox.asked(0) >= retries, "dead too early");
    }
}

#[test]
fn retry_on_401_says_whether_a_rejected_token_is_replaced_at_once() {
    for (retry, blocks) in [("false", true), ("true", false)] {
        let site = with("1h", &format!("retryOn401 = {retry}"));
        record(&site, "s1", 1);
        let run = site.run();
        site.wait_stats("the first chunk", |told| told.balance("delivered") == 1);
        site.sandbox.tenant("acme", json!({"revoke": true}));
        record(&site, "s2", 1);
        if blocks {
            site.wait_stats("the block", |told| {
                told.holds("acme").iter().any(|(kind, _)| kind == "blocked")
            });
            assert_eq!(site.sandbox.counted_of("acme", "unauthorized"), 1);
        }
        site.wait_stats("both chunks", |told| told.balance("delivered") == 2);
        run.terminate();
        run.wait().expect(0);
        site.assert_all_delivered(2);
    }
}

#[test]
fn refresh_policy_on_401_keeps_a_token_until_the_platform_refuses_it() {
    let site = with("1s", "refresh_policy = \"on_401\"");
    let run = site.run();
    let mut chunks = 0;
    // Ahead of its end a token is replaced unseen; here the platform has to say so.
    wait_for("a refused token", || {
        record(&site, &format!("s{chunks}"), 1);
        chunks += 1;
        (site.sandbox.counted_of("acme", "unauthorized") > 0).then_some(())
    });
    site.wait_stats("all chunks", |told| told.balance("delivered") == chunks);
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(chunks);
}
