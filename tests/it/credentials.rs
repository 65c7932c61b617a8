//! A drain that a credential ended is over; a command in another process still says what blocks, and what to do.

use serde_json::{Value, json};

use crate::support::Site;

/// The one hold of acme, as a process without a worker shows it.
fn hold(site: &Site) -> Value {
    let stats = site.stats().0;
    let holds = &stats["tenants"]["acme"]["gate"]["holds"];
    assert_eq!(holds.as_array().map(Vec::len), Some(1), "{holds:#}");
    holds[0].clone()
}

/// Nobody promises what nobody will do.
fn assert_nobody_delivers(site: &Site, remedy: &str) -> Value {
    let why = site.worker("why acme --json").expect(0).json();
    let next = why["next"].as_str().unwrap();
    assert!(
        next.starts_with("nobody delivers now: no worker runs"),
        "{next}"
    );
    assert_eq!(why["remedy"], remedy);
    assert_eq!(why["last_failure"]["next_try_at"], Value::Null, "{why:#}");
    for text in [
        site.worker("why acme").expect(0).out,
        site.worker("stats").expect(0).out,
    ] {
        assert!(!text.contains("by itself"), "{text}");
        assert!(text.contains("worker run, or once: worker drain"), "{text}");
    }
    why
}

fn assert_cured(site: &Site) {
    site.worker("drain").expect(0);
    let why = site.worker("why acme --json").expect(0).json();
    assert_eq!(why["gate"], json!({"state": "open", "holds": []}));
    assert_eq!(why.get("last_failure"), None, "{why:#}");
    site.assert_all_delivered(1);
}

#[test]
fn a_wrong_secret_is_named_after_the_drain_that_it_ended_until_it_is_cured() {
    let site = Site::new();
    site.enqueue("acme", "s1", 0);
    let secret = std::fs::read(site.at("acme.secret")).unwrap();
    site.write("acme.secret", b"another");
    let report = site.worker("drain --json").expect(69).json();
    assert_eq!(report["outcome"], "blocked");
    let drained = site.worker("drain").expect(69).out;
    assert!(
        !drained.contains("blocked until"),
        "nobody tries then: {drained}"
    );

    let hold = hold(&site);
    assert_eq!(
        (&hold["kind"], &hold["until"]),
        (&json!("blocked"), &Value::Null)
    );
    let reason = hold["reason"].as_str().unwrap();
    assert!(
        reason.contains("does not accept client client-acme with its secret"),
        "{reason}"
    );
    assert!(
        reason.contains("Put the secret of client client-acme into acme.secret"),
        "{reason}"
    );
    assert!(hold["since"].is_string(), "{hold:#}");
    let remedy = "cure what the reason names; then: worker run, or once: worker drain";
    let why = assert_nobody_delivers(&site, remedy);
    let last = &why["last_failure"];
    assert_eq!(
        (&last["status"], &last["code"]),
        (&json!(401), &json!("invalid_client"))
    );
    assert!(last["correlation_id"].is_string(), "{last:#}");
    assert!(last["at"].as_str().unwrap().ends_with('Z'), "{last:#}");

    site.write("acme.secret", &secret);
    assert_cured(&site);
}

#[test]
fn a_token_endpoint_that_is_down_or_throttles_is_named_after_the_drain() {
    for (state, outcome, code, kind) in [
        ("down", "unreachable", 69, "outage"),
        ("throttled", "throttled", 75, "throttled"),
    ] {
        let site = Site::new();
        site.enqueue("acme", "s1", 0);
        site.sandbox
            .tenant("acme", json!({"token_endpoint": state}));
        let report = site
            .worker("drain --json --patience 1s")
            .expect(code)
            .json();
        assert_eq!(report["outcome"], outcome);
        let hold = hold(&site);
        assert_eq!(hold["kind"], kind, "{hold:#}");
        assert!(
            hold["reason"]
                .as_str()
                .unwrap()
                .starts_with("token endpoint http://"),
            "{hold:#}"
        );
        assert_nobody_delivers(&site, "worker run, or once: worker drain");
        site.sandbox.tenant("acme", json!({"token_endpoint": "up"}));
        assert_cured(&site);
    }
}

#[test]
fn a_check_that_has_a_token_takes_back_what_was_said_of_the_secret() {
    let site = Site::new();
    site.enqueue("acme", "s1", 0);
    let secret = std::fs::read(site.at("acme.secret")).unwrap();
    site.write("acme.secret", b"another");
    site.worker("drain").expect(69);
    assert_eq!(site.worker("check --online").code, Some(69));
    assert_eq!(hold(&site)["kind"], "blocked");

    site.write("acme.secret", &secret);
    let told = site.worker("check --online").expect(0).out;
    assert!(told.contains("ok      tenant acme: token: had"), "{told}");
    assert!(!told.contains("does not accept client"), "{told}");
    let why = site.worker("why acme --json").expect(0).json();
    assert_eq!(why["gate"], json!({"state": "open", "holds": []}));
    assert_eq!(why["next"], "nothing is sent: no worker runs on this store");
    assert_cured(&site);
}

#[test]
fn a_worker_that_is_killed_has_told_before() {
    let site = Site::new();
    site.enqueue("acme", "s1", 0);
    site.write("acme.secret", b"another");
    let run = site.run();
    site.wait_stats("the block", |told| !told.holds("acme").is_empty());
    // Stored within the same moment; a second look is behind it.
    site.enqueue("acme", "s1", 1);
    run.kill();
    assert_eq!(hold(&site)["kind"], "blocked");
}
