//! What platforms, token endpoints and networks do to a recording host, over real sockets: no chunk loses a retry,
//! none is dropped or acked wrongly, other tenants go on, and delivery resumes by itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{Process, Site, Told, complaint, wait_for};

/// Of acme, which meets the trouble; globex beside it does not.
const SESSIONS: [&str; 3] = ["s1", "s2", "s3"];
const ACME: u64 = 6;
const ALL: u64 = ACME + 2;

fn filled() -> Site {
    let site = Site::with("1h", "[tenants.acme.delivery]\ngap_wait = \"1s\"\n");
    for sequence in 0..2 {
        for session in SESSIONS {
            site.enqueue("acme", session, sequence);
        }
        site.enqueue("globex", "s1", sequence);
    }
    site
}

/// Every answer to acme's uploads.
fn always(site: &Site, action: Value) {
    site.sandbox
        .fault(json!({"tenant": "acme", "times": "forever", "action": action}));
}

fn is_held(told: &Told, kind: &str, words: &str) -> bool {
    let mut holds = told.holds("acme").into_iter();
    holds.any(|(of, reason)| of == kind && reason.contains(words))
}

/// No retry used, nothing dead, nothing taken for delivered.
#[track_caller]
fn assert_untouched(site: &Site) {
    let told = site.stats();
    assert_eq!(told.chunks("acme", "delivered"), 0, "{}", told.0);
    assert_eq!(told.chunks("acme", "dead"), 0, "{}", told.0);
    for session in SESSIONS {
        let why = site.worker(&["why", "acme", session, "--json"]).expect(0);
        assert_eq!(why.json()["session"]["failures"], 0, "{}", why.out);
    }
}

/// The trouble is there from the start; once it holds the tenant, with these words, it is cured.
#[track_caller]
fn waits_and_resumes(
    site: Site,
    (kind, words): (&str, &str),
    trouble: impl FnOnce(&Site),
    cure: impl FnOnce(&Site),
) {
    trouble(&site);
    let run = site.run();
    site.wait_stats(&format!("{kind}: {words}"), |told| {
        is_held(told, kind, words)
    });
    site.wait_stats("globex to go on", |told| {
        told.chunks("globex", "delivered") == 2
    });
    assert_untouched(&site);
    assert_eq!(site.sandbox.counted_of("acme", "delivered"), 0);
    cure(&site);
    resumed(&site, run);
}

/// Everything arrives, and nothing else happened to it.
#[track_caller]
fn resumed(site: &Site, run: Process) {
    let told = site.wait_stats("delivery to resume", |told| {
        told.balance("delivered") == ALL
    });
    assert_eq!(told.holds("acme"), [], "{}", told.0);
    run.terminate();
    let ended = run.wait().expect(0);
    assert!(!ended.err.contains("canary"), "a secret was logged");
    site.assert_all_delivered(ALL);
    for session in SESSIONS {
        assert!(site.sandbox.film("acme", session) == site.enqueued("acme", session, 1));
    }
}

#[test]
fn a_token_endpoint_that_is_down_is_waited_for() {
    waits_and_resumes(
        filled(),
        ("outage", "token endpoint"),
        |site| {
            site.sandbox
                .tenant("acme", json!({"token_endpoint": "down"}))
        },
        |site| site.sandbox.tenant("acme", json!({"token_endpoint": "up"})),
    );
}

#[test]
fn a_wrong_secret_is_read_again_once_it_is_cured() {
    let site = filled();
    let secret = site.path().join("acme.secret");
    let right = fs::read(&secret).unwrap();
    waits_and_resumes(
        site,
        ("blocked", "client-acme"),
        |_| fs::write(&secret, "canary-secret-wrong\n").unwrap(),
        |_| fs::write(&secret, right).unwrap(),
    );
}

#[test]
fn a_platform_that_accepts_no_token_is_waited_for() {
    waits_and_resumes(
        filled(),
        ("blocked", "401"),
        |site| always(site, json!({"status": 401})),
        |site| site.sandbox.no_faults(),
    );
}

#[test]
fn a_scope_that_is_taken_away_is_named_and_waited_for() {
    let scope = "analytics:screenrecordings:write";
    waits_and_resumes(
        filled(),
        (
            "blocked",
            "lacks the scope analytics:screenrecordings:write",
        ),
        |site| {
            site.sandbox
                .tenant("acme", json!({"scopes": ["screenshare:write"]}))
        },
        |site| {
            let told = site.stats();
            let (_, reason) = told.holds("acme").remove(0);
            assert_eq!(
                reason,
                format!(
                    "its token lacks the scope {scope} (granted: screenshare:write). Add it to client client-acme"
                )
            );
            site.sandbox.tenant("acme", json!({"scopes": [scope]}));
            // An operator who does not want to wait for the probe.
            site.worker(&["tenants", "resume", "acme"]).expect(0);
        },
    );
}

#[test]
fn an_intercepting_proxy_is_not_taken_for_the_platform() {
    waits_and_resumes(
        filled(),
        ("blocked", "what answers is not the platform (200"),
        |site| always(site, json!("html_200")),
        |site| site.sandbox.no_faults(),
    );
}

#[test]
fn a_captive_portal_is_not_followed() {
    waits_and_resumes(
        filled(),
        ("blocked", "what answers is not the platform (302"),
        |site| always(site, json!("redirect_302")),
        |site| site.sandbox.no_faults(),
    );
}

#[test]
fn a_platform_that_validates_nothing_any_more_buries_no_backlog() {
    waits_and_resumes(
        filled(),
        ("blocked", "422"),
        |site| always(site, json!({"status": 422})),
        |site| site.sandbox.no_faults(),
    );
}

#[test]
fn a_platform_that_answers_503_is_waited_for() {
    waits_and_resumes(
        filled(),
        ("outage", "503"),
        |site| always(site, json!({"status": 503})),
        |site| site.sandbox.no_faults(),
    );
}

#[test]
fn an_outage_that_costs_retries_is_noticed() {
    let complaint = complaint(|| {
        waits_and_resumes(
            filled().sabotaged("CountOutageAsFailure"),
            ("outage", "503"),
            |site| always(site, json!({"status": 503})),
            |site| site.sandbox.no_faults(),
        );
    });
    let complaint = complaint.expect("it passed");
    // A used retry, and neither a slow machine nor a worker that does not start.
    let compared = complaint.starts_with("assertion `left == right` failed");
    assert!(
        compared && complaint.contains("\"failures\":"),
        "{complaint}"
    );
}

#[test]
fn a_wrong_path_holds_until_the_configuration_is_corrected() {
    let site = filled();
    let right = "transport = \"json\"\n";
    let wrong = "transport = \"json\"\npath = \"/api/v2/analytics/screenrecording\"\n";
    site.configure(|text| text.replacen(right, wrong, 1));
    let run = site.run();
    site.wait_stats("the endpoint's refusal", |told| {
        is_held(told, "blocked", "the platform refuses its uploads (404")
    });
    assert_untouched(&site);
    run.terminate();
    run.wait().expect(0);
    // The hold outlives the process, and its reason with it.
    assert!(is_held(&site.stats(), "blocked", "404"));
    site.configure(|text| text.replacen(wrong, right, 1));
    let run = site.run();
    resumed(&site, run);
}

#[test]
fn a_throttle_is_kept_to_and_costs_nothing() {
    let site = filled();
    let action = json!({"status": 429, "headers": {"Retry-After": "2"}});
    site.sandbox
        .fault(json!({"tenant": "acme", "times": 1, "action": action}));
    let run = site.run();
    site.wait_stats("the throttle", |told| is_held(told, "throttled", "429"));
    resumed(&site, run);
    assert!(site.sandbox.counted_of("acme", "throttled") >= 1);
    assert_eq!(site.sandbox.counted("inside_forbidden_window"), 0);
}

#[test]
fn a_retry_after_of_an_hour_survives_a_kill_and_a_restart() {
    let site = filled();
    let action = json!({"status": 429, "headers": {"Retry-After": "3600"}});
    site.sandbox
        .fault(json!({"tenant": "acme", "times": 1, "action": action}));
    let until = |told: &Told| {
        let holds = &told.0["tenants"]["acme"]["gate"]["holds"];
        holds[0]["until"].as_str().map(str::to_owned)
    };
    let run = site.run();
    let first = wait_for("the throttle", || until(&site.stats()));
    site.wait_stats("what was in flight", |told| {
        told.chunks("acme", "leased") == 0
    });
    let delivered = site.sandbox.counted_of("acme", "delivered");
    run.kill();
    // Nobody holds the store, and it still says why nothing is sent.
    let told = site.stats();
    assert!(is_held(&told, "throttled", "429"), "{}", told.0);
    let report = site.worker(&["drain", "--json"]).expect(75).json();
    assert_eq!(report["outcome"], "throttled");
    assert_eq!(
        report["tenants"]["acme"]["left"]["chunks"],
        ACME - delivered
    );
    let last = until(&site.stats()).expect("the throttle holds");
    // By the minute: the rest of the hour is counted on another clock than the day's.
    assert_eq!(first[..14], last[..14], "{first} {last}");
    assert_eq!(site.sandbox.counted_of("acme", "delivered"), delivered);
    assert_eq!(site.sandbox.counted("inside_forbidden_window"), 0);
}

#[test]
fn a_reply_lost_after_storing_leads_to_one_chunk() {
    let site = filled();
    site.sandbox
        .fault(json!({"tenant": "acme", "times": 3, "action": "lose_reply"}));
    let run = site.run();
    resumed(&site, run);
    assert!(site.sandbox.counted("duplicates_suppressed") >= 1);
}

#[test]
fn a_refused_chunk_ends_dead_and_its_session_goes_on_without_it() {
    let site = filled();
    let poison = json!({"tenant": "acme", "session": "s1", "sequence": 0, "times": "forever",
        "action": {"status": 422}});
    site.sandbox.fault(poison);
    let report = site.worker(&["drain", "--json"]).expect(65).json();
    assert_eq!(report["outcome"], "dead_left");
    let told = site.stats();
    assert_eq!(told.balance("delivered"), ALL - 1);
    assert_eq!(told.balance("dead"), 1);
    assert!(told.is_balanced());
    let dead = site.worker(&["dead", "show", "acme", "s1", "0", "--json"]);
    let dead = &dead.expect(0).json()["dead"][0];
    assert_eq!(dead["reason"], "rejected");
    assert_eq!(dead["history"][0]["status"], 422);
    assert_eq!(site.sandbox.sequences("acme", "s1"), [1]);
    let gaps = &site.sandbox.ledger()["tenants"]["acme"]["sessions"]["s1"]["gaps"];
    assert_eq!(*gaps, json!([{"first": 0, "last": 0}]));
    // What is exported is for its owner, like the store.
    site.worker("dead export acme s1 0 --to out").expect(0);
    for name in ["out", "out/acme-s1-0.json", "out/acme-s1-0.payload"] {
        let about = fs::metadata(site.at(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o077, 0, "{name}");
    }
    // Redriven after the cure, it arrives late and says so.
    site.sandbox.no_faults();
    site.worker(&["dead", "redrive", "acme", "s1", "0"])
        .expect(0);
    site.worker(&["drain"]).expect(0);
    assert_eq!(site.sandbox.sequences("acme", "s1"), [0, 1]);
    assert_eq!(site.sandbox.counted("late"), 1);
    site.assert_all_delivered(ALL);
}

#[test]
fn a_chunk_that_a_firewall_refuses_delays_only_its_session() {
    let site = filled();
    let firewall = json!({"tenant": "acme", "session": "s1", "sequence": 0, "times": "forever",
        "action": {"status": 403, "body": "<h1>blocked by policy</h1>"}});
    site.sandbox.fault(firewall);
    let run = site.run();
    site.wait_stats("every other session", |told| {
        told.chunks("acme", "delivered") == ACME - 2
    });
    let told = site.stats();
    assert_eq!(told.chunks("acme", "dead"), 0);
    assert_eq!(site.sandbox.sequences("acme", "s1"), [0; 0]);
    site.sandbox.no_faults();
    site.worker(&["tenants", "resume", "acme"]).expect(0);
    resumed(&site, run);
}
