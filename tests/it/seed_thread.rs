//! The thread that this program began with, as one script: "failing right after the first 15 minutes", "X-RateLimit-Remaining:
//! 0 a few seconds before the drop", "once the refresh hits, the WebSocket connection drops", "if the token refresh fails
//! once", "the queue backlog is already piling up". Fifteen minutes are a few seconds here. The operator is told what is
//! going on at each step, a tenant beside it notices nothing, and everything arrives in order, once, at no cost of retries.

use serde_json::json;

use crate::support::{Process, SESSIONS, Site, film, session_files, wait_for};

/// Over a socket, by requests, and beside them.
const SOCKET: &str = "acme";
const REQUESTS: &str = "globex";
const BESIDE: &str = "initech";

/// The recorded chunks of a session from `first` on, `count` of them.
fn capture(site: &Site, tenant: &str, session: &str, first: usize, count: usize) {
    let mut command = site.command(&["enqueue", "--tenant", tenant, "--session", session]);
    let files = session_files(session);
    command
        .args(["--sequence", &first.to_string()])
        .args(&files[first..first + count]);
    Process::start(&mut command).wait().expect(0);
}

fn site() -> Site {
    let delivery = |tenant| format!("[tenants.{tenant}.delivery]\ngroup = \"off\"\n");
    let site = Site::with("1h", &[SOCKET, REQUESTS, BESIDE].map(delivery).concat());
    // Acme's is the first.
    site.configure(|text| text.replacen("transport = \"json\"", "transport = \"websocket\"", 1));
    site
}

fn why(site: &Site, tenant: &str) -> String {
    let said = site.worker(&["why", tenant]).expect(0).out;
    println!("worker why {tenant}\n{said}");
    said
}

#[test]
fn the_first_seed_thread_ends_well() {
    let site = site();
    // The socket is dropped when it is given another token.
    site.sandbox
        .fault(json!({"route": "socket", "tenant": SOCKET, "action": {"socket": "reauth_drop"}}));
    let troubled = [(SOCKET, SESSIONS[0]), (REQUESTS, SESSIONS[1])];

    // "Initial handshake works fine."
    for (tenant, session) in troubled {
        capture(&site, tenant, session, 0, 3);
    }
    let run = site.run();
    let told = site.wait_stats("the first chunks", |told| told.balance("delivered") == 6);
    for (tenant, _) in troubled {
        let token = &told.0["tenants"][tenant]["token"];
        assert_eq!(token["state"], "valid", "{token}");
        // It says that it lives on for an hour.
        assert!(token["expires_in_s"].as_u64() > Some(3000), "{token}");
        assert_eq!(told.holds(tenant), []);
    }

    // "X-RateLimit-Remaining: 0 a few seconds before the drop", and a backlog.
    for (tenant, session) in troubled {
        let quota = json!({"requests": 1, "window_ms": 8000, "dialect": "x"});
        site.sandbox.tenant(tenant, json!({"quota": quota}));
        capture(&site, tenant, session, 3, 9);
    }
    for (tenant, _) in troubled {
        let told = site.wait_stats("nothing to be left of the budget", |told| {
            told.0["tenants"][tenant]["pace"]["remaining"] == 0
        });
        assert!(told.balance("backlog") >= 10, "{}", told.0);
    }
    for (tenant, _) in troubled {
        wait_for("the budget to be named", || {
            let shown = site.worker(&["tenants", "show", tenant]).expect(0).out;
            let said = why(&site, tenant);
            let words = "its request budget is used up (0 of 1 left): it goes on in";
            (shown.contains("0 of 1 left") && said.contains(words)).then_some(())
        });
    }

    // The drop: the tokens are revoked, and no other is to be had at first.
    for (tenant, _) in troubled {
        let quota = json!({"requests": 300, "window_ms": 8000, "dialect": "x"});
        let ends = json!({"revoke": true, "quota": quota, "token_endpoint": "down"});
        site.sandbox.tenant(tenant, ends);
    }
    for (tenant, _) in troubled {
        let told = site.wait_stats("the token endpoint's outage", |told| {
            let holds = told.holds(tenant);
            let outage =
                |(kind, why): &(String, String)| kind == "outage" && why.contains("token endpoint");
            holds.iter().any(outage)
        });
        let waiting = told.chunks(tenant, "held") + told.chunks(tenant, "delayed");
        assert!(waiting >= 5, "{}", told.0);
        assert_eq!(told.0["tenants"][tenant]["dead"]["chunks"], 0);
        assert_eq!(told.0["tenants"][tenant]["retries_used"], 0, "{}", told.0);
        let said = why(&site, tenant);
        for words in ["token endpoint", "next"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(site.sandbox.counted_of(tenant, "unauthorized") >= 1);
    }
    // Beside them nothing happened.
    capture(&site, BESIDE, SESSIONS[2], 0, 12);
    let told = site.wait_stats("the tenant beside them", |told| {
        told.chunks(BESIDE, "delivered") == 12
    });
    assert_eq!(told.holds(BESIDE), []);
    for (tenant, _) in troubled {
        assert_eq!(
            told.0["tenants"][tenant]["gate"]["state"], "paused",
            "{}",
            told.0
        );
    }

    // The refresh works, the socket drops at it, and nobody has to do anything.
    for (tenant, _) in troubled {
        site.sandbox.tenant(tenant, json!({"token_endpoint": "up"}));
    }
    let told = site.wait_stats("delivery", |told| told.balance("delivered") == 36);
    for (tenant, session) in [troubled[0], troubled[1], (BESIDE, SESSIONS[2])] {
        assert_eq!(told.holds(tenant), [], "{}", told.0);
        assert_eq!(told.0["tenants"][tenant]["retries_used"], 0, "{}", told.0);
        let said = why(&site, tenant);
        assert!(said.contains("nothing waits to be delivered"), "{said}");
        // The last failure's own promise has passed.
        assert!(!said.contains("next try at"), "{said}");
        assert!(
            site.sandbox.film(tenant, session) == film(session),
            "{session}"
        );
    }
    run.terminate();
    let ended = run.wait().expect(0);
    assert!(!ended.err.contains("canary"), "a secret was logged");
    site.assert_all_delivered(36);
    assert_eq!(site.sandbox.counted("duplicates_suppressed"), 0);
    assert_eq!(site.sandbox.counted("gaps"), 0);
    assert_eq!(site.sandbox.counted_of(SOCKET, "sockets"), 2);
    assert_eq!(site.sandbox.counted_of(SOCKET, "faults"), 1);
    assert_eq!(site.sandbox.counted_of(BESIDE, "unauthorized"), 0);
}
