//! The three tenants of a mixed configuration, each on another grant: all deliver; each is broken in turn from the platform's
//! side; and what `worker check --online` and `worker why` say is what an operator has to change.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Site, wait_for};

/// Everything that `worker check --online` says, however it exits.
fn checked(site: &Site) -> String {
    site.worker(&["check", "--online"]).out
}

#[track_caller]
fn says(site: &Site, sentence: &str) {
    let told = checked(site);
    // A gate that says it already is not repeated by its token.
    let by_gate = sentence.replacen(": token: ", ": ", 1);
    assert!(
        told.contains(sentence) || told.contains(&by_gate),
        "{sentence}\nin\n{told}"
    );
}

/// Breaks a tenant, reads what is said, and mends it.
#[track_caller]
fn broken(site: &Site, tenant: &str, change: Value, says_what: &str, mend: Value) {
    site.sandbox.tenant(tenant, change);
    says(site, says_what);
    site.sandbox.tenant(tenant, mend);
}

#[test]
fn a_tenant_of_each_grant_delivers_and_keeps_delivering_after_its_token_was_revoked() {
    let site = Site::granted("mixed", 5, "1h");
    for (turn, sequence) in [(0, 0), (1, 1)] {
        for tenant in ["acme", "globex", "initech", "t5"] {
            site.enqueue(tenant, "s1", sequence);
            if turn == 1 {
                site.sandbox.tenant(tenant, json!({"revoke": true}));
            }
        }
        site.worker(&["drain"]).expect(0);
    }
    site.enqueue("t4", "s1", 0);
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(9);
    assert_eq!(site.sandbox.counted("token_refusals"), 0);
}

#[test]
fn an_exchange_that_is_broken_says_which_link_and_what_to_change() {
    let site = Site::granted("mixed", 3, "1h");
    let url = site.sandbox.url();
    for (tenant, change, sentence, mend) in [
        (
            "acme",
            json!({"disabled": true}),
            "tenant acme: token: client client-acme is disabled (400 unauthorized_client: client is disabled). Have client client-acme activated where it was made".to_owned(),
            json!({"disabled": false}),
        ),
        (
            "acme",
            json!({"secret": "canary-other"}),
            format!("tenant acme: token: token endpoint {url}/oauth/token does not accept client client-acme with its secret (401 invalid_client: client authentication failed). Put the secret of client client-acme into acme.secret"),
            json!({"secret": secret(&site, "acme")}),
        ),
        (
            "acme",
            json!({"organization": "org-moved"}),
            format!("tenant acme: token: token endpoint {url}/oauth/token knows no audience org-acme (400 invalid_target: the audience is no organisation of this client). Check audience and resource"),
            json!({"organization": "org-acme"}),
        ),
        (
            "acme",
            json!({"grants": ["client_credentials"]}),
            "tenant acme: token: client client-acme may not use the grant token_exchange (400 unauthorized_client: the client may not use this grant). Allow it for client client-acme, or configure another grant".to_owned(),
            json!({"grants": ["client_credentials", "token_exchange"]}),
        ),
        (
            "acme",
            json!({"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"}),
            "gives a token of another type than asked for (200: urn:ietf:params:oauth:token-type:id_token). Check requested_token_type".to_owned(),
            json!({"issued_token_type": null}),
        ),
        (
            "partner",
            json!({"disabled": true}),
            "tenant acme: token: the token to exchange is not to be had: client client-partner is disabled (400 unauthorized_client: client is disabled). Have client client-partner activated where it was made".to_owned(),
            json!({"disabled": false}),
        ),
        (
            "acme",
            json!({"scopes": ["screenshare:read"]}),
            "had, and lacks analytics:screenrecordings:write (granted: screenshare:read)".to_owned(),
            json!({"scopes": ["analytics:screenrecordings:write", "screenshare:read"]}),
        ),
    ] {
        broken(&site, tenant, change, &sentence, mend);
    }
    says(&site, "tenant acme: token: had, valid for");
}

fn secret(site: &Site, tenant: &str) -> String {
    let text = fs::read_to_string(site.path().join(format!("{tenant}.secret"))).unwrap();
    text.trim_end().to_owned()
}

#[test]
fn an_assertion_that_is_refused_says_whether_clock_key_user_or_audience_is_wrong() {
    let site = Site::granted("mixed", 3, "1h");
    let url = site.sandbox.url();
    let endpoint = format!("tenant globex: token: token endpoint {url}/oauth/token");
    for (change, sentence, mend) in [
        (
            json!({"clock_offset_s": -420}),
            format!("{endpoint} refuses the assertion of client client-globex, and this host's clock is 7 min ahead of the token endpoint's (400 invalid_grant: "),
            json!({"clock_offset_s": 0}),
        ),
        (
            json!({"clock_offset_s": 420}),
            "this host's clock is 7 min behind the token endpoint's (400 invalid_grant: the assertion has expired). Set this host's clock".to_owned(),
            json!({"clock_offset_s": 0}),
        ),
        (
            json!({"key_id": "k2"}),
            format!("{endpoint} does not know the key in globex.pem (400 invalid_grant: no key is registered under the assertion's kid). Register the public half of globex.pem for client client-globex, or set key_id"),
            json!({"key_id": null}),
        ),
        (
            json!({"users": []}),
            format!("{endpoint} does not let client client-globex act for recorder@globex (400 invalid_grant: the user of the assertion is unknown to this client). Check user, and that client client-globex may act for it"),
            json!({"users": ["recorder@globex"]}),
        ),
        (
            json!({"token_endpoint": "throttled"}),
            format!("{endpoint} throttles (400 invalid_request: rate limit exceeded; try again in 1 seconds)"),
            json!({"token_endpoint": "up"}),
        ),
        (
            json!({"token_endpoint": "down"}),
            format!("{endpoint} unreachable ("),
            json!({"token_endpoint": "up"}),
        ),
    ] {
        broken(&site, "globex", change, &sentence, mend);
    }
    let wrong = "http://127.0.0.1:1/elsewhere";
    let user = "user = \"recorder@globex\"";
    site.configure(|text| text.replace(user, &format!("{user}\naudience = \"{wrong}\"")));
    says(
        &site,
        &format!(
            "{endpoint} is not the audience {wrong} of the assertion (400 invalid_grant: the aud of the assertion is not this token endpoint). Set audience to what the token endpoint calls itself"
        ),
    );
}

#[test]
fn a_refresh_token_that_was_revoked_is_named_and_a_new_one_cures_it_at_once() {
    let site = Site::granted("mixed", 3, "1h");
    says(&site, "tenant initech: token: had, valid for");
    let fresh = site.sandbox.sign_in("initech");
    site.enqueue("initech", "s1", 0);
    let run = site.run();
    let blocked = "the refresh token of client client-initech was used before, was revoked or has expired (400 invalid_grant: the refresh token is invalid, expired or revoked). Write a new refresh token into initech.refresh";
    site.wait_stats("initech to be blocked", |told| {
        told.holds("initech")
            .iter()
            .any(|(_, reason)| reason == blocked)
    });
    let why = site.worker(&["why", "initech"]).out;
    assert!(
        why.contains("Write a new refresh token into initech.refresh"),
        "{why}"
    );
    fs::write(
        site.path().join("initech.refresh"),
        fresh["refresh_token"].as_str().unwrap(),
    )
    .unwrap();
    site.wait_stats("initech to deliver", |told| told.balance("backlog") == 0);
    drop(run);
    site.assert_all_delivered(1);
}

#[test]
fn a_crash_between_the_endpoints_answer_and_our_write_costs_the_refresh_token_and_no_chunk() {
    let site = Site::granted("mixed", 3, "1h");
    site.enqueue("initech", "s1", 0);
    let mut command = site.command(&["drain"]);
    command.env("REELAY_STOP_AT", "refresh_token_answered");
    let mut drain = crate::support::Process::start(&mut command);
    wait_for("the answer to have come", || {
        assert!(drain.ended().is_none(), "{}", drain.err());
        drain
            .err()
            .contains("stopped at refresh_token_answered")
            .then_some(())
    });
    drain.kill();
    let ended = site.worker(&["drain"]).expect(69);
    assert!(
        ended
            .out
            .contains("Write a new refresh token into initech.refresh"),
        "{}",
        ended.out
    );
    let fresh = site.sandbox.sign_in("initech");
    fs::write(
        site.path().join("initech.refresh"),
        fresh["refresh_token"].as_str().unwrap(),
    )
    .unwrap();
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(1);
}

#[test]
fn a_token_in_a_file_blocks_when_it_is_refused_and_goes_on_with_a_newer_file() {
    let site = Site::granted("static", 1, "1h");
    site.enqueue("acme", "s1", 0);
    let run = site.run();
    site.wait_stats("the first to be delivered", |told| {
        told.balance("delivered") == 1
    });
    let fresh = site.sandbox.sign_in("acme");
    site.enqueue("acme", "s1", 1);
    let told = site.wait_stats("acme to be blocked", |told| !told.holds("acme").is_empty());
    let (kind, reason) = &told.holds("acme")[0];
    assert_eq!(kind, "blocked");
    assert!(reason.starts_with("the platform refuses the token in acme.token (401 bad.credentials: Invalid login credentials"), "{reason}");
    assert!(
        reason.ends_with(". Write a newer token into acme.token"),
        "{reason}"
    );
    fs::write(
        site.path().join("acme.token"),
        fresh["access_token"].as_str().unwrap(),
    )
    .unwrap();
    site.wait_stats("the rest to be delivered", |told| {
        told.balance("delivered") == 2
    });
    drop(run);
    site.assert_all_delivered(2);
}

#[test]
fn what_the_platform_refuses_is_told_apart_from_what_the_endpoint_refuses() {
    let site = Site::granted("client_credentials", 3, "1h");
    for (tenant, change) in [
        ("acme", json!({"permissions": []})),
        ("globex", json!({"needs_user": true})),
        ("initech", json!({"scopes": ["screenshare:write"]})),
    ] {
        site.sandbox.tenant(tenant, change);
        site.enqueue(tenant, "s1", 0);
    }
    let _run = site.run();
    for (tenant, sentence) in [
        (
            "acme",
            "its client lacks the permission admin:screen_recording. Add it to a role of client client-acme",
        ),
        (
            "globex",
            "the platform wants a token that acts for a user, and that of client client-globex is a service token",
        ),
        (
            "initech",
            "its token lacks the scope analytics:screenrecordings:write (granted: screenshare:write). Add it to client client-initech",
        ),
    ] {
        site.wait_stats(sentence, |told| {
            told.holds(tenant)
                .iter()
                .any(|(_, reason)| reason.contains(sentence))
        });
        let why = site.worker(&["why", tenant]).out;
        assert!(why.contains(sentence), "{why}");
        says(&site, sentence);
    }
}

#[test]
fn a_token_of_another_organisation_is_not_sent_anywhere() {
    let site = Site::granted("mixed", 3, "1h");
    for (tenant, claims) in [("globex", "jwt"), ("initech", "answer")] {
        site.sandbox.tenant(tenant, json!({"claims": claims}));
        site.configure(|text| {
            let table = format!("[tenants.{tenant}]");
            text.replace(&table, &format!("{table}\norganization = \"org-wanted\""))
        });
        site.enqueue(tenant, "s1", 0);
    }
    for tenant in ["globex", "initech"] {
        let sentence = format!(
            "tenant {tenant}: token: its token belongs to organisation org-{tenant}, not org-wanted; nothing was sent. Check client client-{tenant}"
        );
        says(&site, &sentence);
    }
    site.worker(&["drain"]).expect(69);
    assert_eq!(
        site.sandbox.counted("delivered") + site.sandbox.counted("unauthorized"),
        0
    );
    site.sandbox
        .tenant("globex", json!({"purviews": ["org-globex", "org-wanted"]}));
    site.sandbox
        .tenant("initech", json!({"organization": "org-wanted"}));
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(2);
}

/// It was once pinned in the process alone, and forgotten with it.
#[test]
fn the_first_organisation_that_delivered_is_kept_over_a_restart() {
    let site = Site::granted("mixed", 3, "1h");
    site.sandbox.tenant("globex", json!({"claims": "jwt"}));
    site.enqueue("globex", "s1", 0);
    site.worker(&["drain"]).expect(0);
    site.sandbox
        .tenant("globex", json!({"organization": "org-moved"}));
    site.enqueue("globex", "s1", 1);
    site.worker(&["drain"]).expect(69);
    let why = site.worker(&["why", "globex"]).out;
    let sentence = "its token belongs to organisation org-moved, not org-globex";
    assert!(why.contains(sentence), "{why}");
    assert_eq!(site.sandbox.counted("delivered"), 1);
    site.configure(|text| {
        let table = "[tenants.globex]";
        text.replace(table, &format!("{table}\norganization = \"org-moved\""))
    });
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(2);
}

/// Seen: a token that showed nothing was used for whatever organisation its client had been moved to.
#[test]
fn a_token_that_does_not_show_whose_it_is_is_asked_about_before_it_is_used() {
    let site = Site::granted("mixed", 5, "1h");
    let run = site.run();
    site.enqueue("t5", "s1", 0);
    site.wait_stats("the first", |told| told.balance("delivered") == 1);
    let moved = json!({"organization": "org-other", "revoke": true});
    site.sandbox.tenant("t5", moved);
    site.enqueue("t5", "s1", 1);
    let sentence = "its token belongs to organisation org-other, not org-t5";
    site.wait_stats("the block", |told| {
        let mut holds = told.holds("t5").into_iter();
        holds.any(|(_, reason)| reason.contains(sentence))
    });
    // What the check finds is what the gate does, and is told once.
    let told = checked(&site);
    assert_eq!(told.matches(sentence).count(), 1, "{told}");
    assert_eq!(site.sandbox.counted("delivered"), 1);
    site.sandbox.tenant("t5", json!({"organization": "org-t5"}));
    site.worker(&["tenants", "resume", "t5"]).expect(0);
    site.wait_stats("the second", |told| told.balance("delivered") == 2);
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(2);
}

#[test]
fn a_check_that_finds_another_organisation_closes_the_gate() {
    let site = Site::granted("client_credentials", 1, "1h");
    site.configure(|text| text.replace("owner_path", "# owner_path"));
    let run = site.run();
    site.enqueue("acme", "s1", 0);
    site.wait_stats("the first", |told| told.balance("delivered") == 1);
    says(&site, "of organisation org-acme");
    site.sandbox
        .tenant("acme", json!({"organization": "org-other"}));
    let sentence = "its token belongs to organisation org-other, not org-acme";
    says(&site, sentence);
    site.enqueue("acme", "s1", 1);
    site.wait_stats("the block", |told| {
        let mut holds = told.holds("acme").into_iter();
        holds.any(|(_, reason)| reason.contains(sentence))
    });
    // The next token is asked about too, now that the platform is known to tell.
    site.worker(&["tenants", "resume", "acme"]).expect(0);
    says(&site, sentence);
    assert_eq!(site.sandbox.counted("delivered"), 1);
    site.sandbox
        .tenant("acme", json!({"organization": "org-acme"}));
    site.worker(&["tenants", "resume", "acme"]).expect(0);
    site.wait_stats("the second", |told| told.balance("delivered") == 2);
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(2);
}

#[test]
fn a_token_that_idles_out_early_is_renewed_without_loss() {
    let site = Site::granted("mixed", 3, "1h");
    for tenant in ["acme", "globex", "initech"] {
        site.sandbox.tenant(tenant, json!({"idle_timeout_ms": 500}));
    }
    let run = site.run();
    for sequence in 0..2 {
        for tenant in ["acme", "globex", "initech"] {
            site.enqueue(tenant, "s1", sequence);
        }
        site.wait_stats("all to be delivered", |told| told.balance("backlog") == 0);
        std::thread::sleep(std::time::Duration::from_millis(700));
    }
    drop(run);
    site.assert_all_delivered(6);
    assert!(
        site.sandbox.counted("unauthorized") > 0,
        "the positive control"
    );
}

#[test]
fn a_check_asks_the_platform_what_it_thinks_of_the_token() {
    let site = Site::granted("client_credentials", 4, "1h");
    let elsewhere = Site::granted("client_credentials", 1, "1h");
    let (url, other) = (site.sandbox.url(), elsewhere.sandbox.url());
    let nobody = "http://127.0.0.1:1";
    for (tenant, from, to) in [
        (
            "globex",
            format!("api_url = \"{url}\""),
            format!("api_url = \"{other}\""),
        ),
        (
            "initech",
            format!("api_url = \"{url}\""),
            format!("api_url = \"{nobody}\""),
        ),
        (
            "t4",
            "transport".to_owned(),
            "organization = \"org-wanted\"\ntransport".to_owned(),
        ),
    ] {
        site.configure(|text| {
            let at = text.find(&format!("[tenants.{tenant}]")).unwrap();
            let (before, table) = text.split_at(at);
            format!("{before}{}", table.replacen(&from, &to, 1))
        });
    }
    let told = checked(&site);
    for sentence in [
        "tenant acme: token: had, valid for 59 min, of organisation org-acme; its rights to upload show at the first chunk\n".to_owned(),
        format!("tenant globex: token: the platform refuses tokens fresh from {url}/oauth/token (401 bad.credentials: Invalid login credentials). Check that token_url and api_url belong to one region and organisation, and that client client-globex is active\n"),
        format!("tenant initech: token: had, and the platform at {nobody} is unreachable (Connection refused"),
        "its token belongs to organisation org-t4, not org-wanted; nothing was sent. Check client client-t4; if org-t4 is right, set organization = \"org-t4\"\n".to_owned(),
    ] {
        assert!(told.contains(&sentence), "{sentence}\nin\n{told}");
    }
}

/// Seen: the platform's "Invalid login credentials" was all that was left of it, and the check called it fine.
#[test]
fn a_token_that_died_early_is_told_of_after_it_was_replaced() {
    let site = Site::granted("client_credentials", 1, "1h");
    let run = site.run();
    let fate = "was revoked early, ";
    let delivered = |count| {
        site.enqueue("acme", "s1", count - 1);
        site.wait_stats("the chunk", |told| told.balance("delivered") == count);
    };
    delivered(1);
    site.sandbox.tenant("acme", json!({"revoke": true}));
    let told = checked(&site);
    let before = format!("of organisation org-acme; the one before {fate}");
    assert!(told.contains(&before), "{told}");
    assert!(!told.contains("its rights to upload"), "{told}");
    delivered(2);
    site.sandbox.tenant("acme", json!({"revoke": true}));
    delivered(3);
    let why = site.worker(&["why", "acme"]).out;
    assert!(why.contains(&format!("(its token {fate}")), "{why}");
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(3);
}

#[test]
fn a_check_in_a_running_worker_notices_a_dead_token_and_has_it_renewed() {
    let site = Site::granted("mixed", 3, "1h");
    let _run = site.run();
    says(&site, "tenant initech: token: had, valid for");
    site.sandbox.tenant("initech", json!({"revoke": true}));
    says(
        &site,
        "tenant initech: token: had, valid for 59 min, of organisation org-initech",
    );
    site.enqueue("initech", "s1", 0);
    site.wait_stats("the chunk to be delivered", |told| {
        told.balance("backlog") == 0
    });
    assert_eq!(
        site.sandbox.counted("unauthorized"),
        0,
        "no delivery met it"
    );
}

#[test]
fn a_fallback_is_checked_beside_the_token_that_it_stands_in_for() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::granted("client_credentials", 1, "1h");
    let token = site.sandbox.sign_in("acme")["access_token"].clone();
    let file = site.path().join("acme.token");
    fs::write(&file, token.as_str().unwrap()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    site.configure(|text| {
        format!("{text}\n[tenants.acme.auth.fallback]\ngrant = \"static\"\ntoken_file = \"acme.token\"\n")
    });
    says(
        &site,
        "tenant acme: fallback token: had, of organisation org-acme",
    );
    site.sandbox.sign_in("acme");
    says(
        &site,
        "tenant acme: fallback token: the platform refuses the token in acme.token (401 bad.credentials: Invalid login credentials). Write a newer token into acme.token",
    );
    says(&site, "tenant acme: token: had, valid for");
}
