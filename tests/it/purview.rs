//! The second seed thread with the real binary: recordings an hour and a day old, an exchanged token that is refused with
//! 422 for its purview, cured by a scope, by a token that acts for a user, by waiting, and not at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::{Site, wait_for};

/// What every tenant is asked for.
const IDS: [&str; 2] = ["hour-1", "day-1"];

/// Tenants that exchange a partner's service token for their own.
fn exchanging(tenants: usize) -> Site {
    let site = Site::granted("token_exchange", tenants, "1h");
    site.configure(|text| {
        text.replace(
            "\"screenshare:read\"]",
            "\"screenshare:read\", \"screenshare:write\"]",
        )
    });
    site
}

/// A token that acts for a user, for recordings of this tenant.
fn fallback(site: &Site, tenant: &str) {
    let key = include_str!("../../src/sandbox/fixtures/rsa.pem");
    let file = site.path().join(format!("{tenant}.pem"));
    fs::write(&file, format!("canary-{tenant}\n{key}")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    site.configure(|text| {
        format!(
            "{text}\n[tenants.{tenant}.auth.fallback]\ngrant = \"jwt_bearer\"\nclient_id = \"client-{tenant}\"\n\
             user = \"recorder@{tenant}\"\nkey_file = \"{tenant}.pem\"\nscopes = [\"screenshare:read\"]\n"
        )
    });
}

/// Its recordings, and what those of yesterday want.
fn archive(site: &Site, tenant: &str, history: &str, purview_delay_ms: Option<u64>) {
    let add = json!([{"id": "hour-1", "age_ms": 3_600_000}, {"id": "day-1", "age_ms": 90_000_000}]);
    let recordings = json!({"history": history, "purview_delay_ms": purview_delay_ms, "add": add});
    site.sandbox
        .tenant(tenant, json!({"recordings": recordings}));
}

fn ask(site: &Site, tenant: &str) {
    let words = ["recordings", "fetch", "--tenant", tenant];
    site.worker([&words[..], &IDS].concat().as_slice())
        .expect(0);
}

fn recording(site: &Site, tenant: &str, id: &str) -> Value {
    let words = ["recordings", "list", "--json", "--tenant", tenant];
    let told = site.worker(&words).expect(0).json();
    let found = told["recordings"].as_array().unwrap().iter();
    let mut found = found.filter(|one| one["recording"] == id);
    found
        .next()
        .unwrap_or_else(|| panic!("{id} in {told}"))
        .clone()
}

#[track_caller]
fn wait_state(site: &Site, tenant: &str, id: &str, state: &str) {
    wait_for(&format!("{tenant}: {id} to be {state}"), || {
        (recording(site, tenant, id)["state"] == state).then_some(())
    });
}

fn shown(site: &Site, tenant: &str) -> String {
    let words = ["recordings", "show", "--tenant", tenant, "day-1"];
    site.worker(&words).expect(0).out
}

#[test]
fn recordings_of_yesterday_are_cured_by_scope_by_another_token_by_waiting_and_not_at_all() {
    let site = exchanging(4);
    let narrow = ["analytics:screenrecordings:write", "screenshare:read"];
    let whole = [&narrow[..], &["screenshare:write"]].concat();
    archive(&site, "acme", "scope", None);
    site.sandbox.tenant("acme", json!({"scopes": narrow}));
    archive(&site, "globex", "user", None);
    archive(&site, "initech", "refused", Some(200));
    archive(&site, "t4", "refused", None);
    for tenant in ["globex", "t4"] {
        fallback(&site, tenant);
    }
    let run = site.run();
    for tenant in ["acme", "globex", "initech", "t4"] {
        ask(&site, tenant);
        site.enqueue(tenant, "s1", 0);
    }
    for tenant in ["acme", "globex", "initech", "t4"] {
        wait_state(&site, tenant, "hour-1", "fetched");
    }
    // By another token: at once, and nobody had to do anything.
    wait_state(&site, "globex", "day-1", "fetched");
    // By a scope: it is named, and the recording goes on once it is there.
    let told = site.wait_stats("the scope to be named", |told| {
        let mut holds = told.holds("acme").into_iter();
        holds.any(|(_, reason)| {
            reason.contains("recordings: its token lacks the scope screenshare:write")
        })
    });
    for tenant in ["globex", "initech", "t4"] {
        assert_eq!(told.holds(tenant), [], "{}", told.0);
    }
    site.sandbox.tenant("acme", json!({"scopes": whole}));
    site.worker(&["tenants", "resume", "acme"]).expect(0);
    wait_state(&site, "acme", "day-1", "fetched");
    // By waiting: whoever asks again does not wait for the five minutes.
    wait_for("the purview to open", || {
        ask(&site, "initech");
        (recording(&site, "initech", "day-1")["state"] == "fetched").then_some(())
    });
    // Not at all: it waits with its reason, holds nobody, and its other token was tried once.
    let told = shown(&site, "t4");
    assert!(told.contains("422") && told.contains("purview"), "{told}");
    assert_eq!(recording(&site, "t4", "day-1")["state"], "wanted");
    site.wait_stats("the uploads", |told| told.balance("delivered") == 4);
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(4);
    // One refusal of globex' exchanged token; one each of t4's two tokens, whatever else happened.
    assert_eq!(site.sandbox.counted_of("globex", "purview_refusals"), 1);
    assert_eq!(site.sandbox.counted_of("t4", "purview_refusals"), 2);
}

#[test]
fn the_other_token_of_recordings_is_used_for_no_upload() {
    let site = exchanging(1);
    fallback(&site, "acme");
    archive(&site, "acme", "user", None);
    site.sandbox.tenant("acme", json!({"needs_user": true}));
    site.enqueue("acme", "s1", 0);
    let run = site.run();
    ask(&site, "acme");
    wait_state(&site, "acme", "day-1", "fetched");
    site.wait_stats("the upload to be refused", |told| {
        let mut holds = told.holds("acme").into_iter();
        holds.any(|(_, reason)| reason.contains("wants a token that acts for a user"))
    });
    assert_eq!(site.stats().chunks("acme", "delivered"), 0);
    site.sandbox.tenant("acme", json!({"needs_user": false}));
    site.worker(&["tenants", "resume", "acme"]).expect(0);
    site.wait_stats("the upload", |told| told.balance("delivered") == 1);
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(1);
}

#[test]
fn a_platform_that_wants_a_users_token_is_asked_for_recordings_with_the_fallback() {
    let site = exchanging(2);
    fallback(&site, "acme");
    for tenant in ["acme", "globex"] {
        archive(&site, tenant, "open", None);
        site.sandbox
            .tenant(tenant, json!({"fetch_needs_user": true}));
    }
    let run = site.run();
    for tenant in ["acme", "globex"] {
        ask(&site, tenant);
        site.enqueue(tenant, "s1", 0);
    }
    for id in IDS {
        wait_state(&site, "acme", id, "fetched");
    }
    // Whoever has none is told where to put one, and goes on uploading.
    let told = site.wait_stats("the fallback to be named", |told| {
        told.holds("globex").into_iter().any(|(_, reason)| {
            reason.contains("Configure [tenants.globex.auth.fallback] with grant")
        })
    });
    assert_eq!(told.holds("acme"), [], "{}", told.0);
    site.wait_stats("the uploads", |told| told.balance("delivered") == 2);
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(2);
}

#[test]
fn a_users_token_that_cannot_be_had_is_named_and_holds_nobody_else() {
    let site = exchanging(1);
    fallback(&site, "acme");
    archive(&site, "acme", "user", None);
    site.sandbox.tenant("acme", json!({"users": []}));
    let run = site.run();
    ask(&site, "acme");
    wait_state(&site, "acme", "hour-1", "fetched");
    let sentence = "does not let client client-acme act for recorder@acme";
    wait_for("the reason", || {
        let told = shown(&site, "acme");
        (told.contains(sentence) && told.contains("422")).then_some(())
    });
    // Nobody else needs that token.
    site.enqueue("acme", "s1", 0);
    site.wait_stats("the upload", |told| told.balance("delivered") == 1);
    assert_eq!(site.stats().holds("acme"), []);
    site.sandbox
        .tenant("acme", json!({"users": ["recorder@acme"]}));
    wait_for("the cure", || {
        site.worker(&["tenants", "resume", "acme"]).expect(0);
        ask(&site, "acme");
        (recording(&site, "acme", "day-1")["state"] == "fetched").then_some(())
    });
    run.terminate();
    run.wait().expect(0);
}
