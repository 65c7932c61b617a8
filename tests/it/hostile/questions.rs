//! Hostile answers to what is asked behind the uploads: the upload report of `confirm = "ingested"` and the recording that
//! `verify` compares; and to everything there is, headers that drip without end. With the real binary.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::json;

use super::{
    Play, Server, elsewhere, endless_body, endless_headers, ends_within_bounds, head, page,
    redirect, redirect_back, rewrite, server,
};
use crate::support::{Site, wait_for, wait_within};

/// A header that never ends, a byte now and then.
fn dripped_headers(stream: &mut TcpStream, _: &AtomicU64) -> io::Result<()> {
    head(stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nX-Drip: ")?;
    loop {
        stream.write_all(b"z")?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What a tenant asks its hostile server, all that it uploads being there already.
#[derive(Clone, Copy, PartialEq)]
enum Asks {
    Report,
    Recording,
}

fn prepare(site: &Site, tenant: &str, asks: Asks) {
    match asks {
        Asks::Report => {
            let keys = "transport = \"presigned\"\nconfirm = \"ingested\"\nconfirm_every = \"1s\"";
            rewrite(site, tenant, "transport = \"json\"", keys);
            site.sandbox.tenant(tenant, json!({"ingestion": "Pending"}));
        }
        Asks::Recording => {
            let verify = format!("\n[tenants.{tenant}.recordings]\nverify = true\n");
            site.configure(|text| text + &verify);
        }
    }
    site.enqueue(tenant, "s1", 0);
}

/// The recording that a tenant's only session became.
fn recording(site: &Site, tenant: &str) -> String {
    let list = ["recordings", "list", "--tenant", tenant, "--json"];
    let told = site.worker(list.as_slice()).expect(0).json();
    told["recordings"][0]["recording"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn hostile_answers_to_a_report_and_to_a_comparison_cost_nothing_and_are_told() {
    use Asks::{Recording, Report};
    let hostile: [(&str, Asks, Play, &str); 8] = [
        ("acme", Report, endless_headers, "message head is too large"),
        ("globex", Report, endless_body, "is no upload report"),
        ("initech", Report, page, "is no upload report"),
        ("t4", Report, elsewhere, "status 307"),
        (
            "t5",
            Recording,
            endless_headers,
            "message head is too large",
        ),
        (
            "t6",
            Recording,
            endless_body,
            "no stated type is no recording",
        ),
        ("t7", Recording, page, "200 with text/html is no recording"),
        ("t8", Recording, elsewhere, "status 307"),
    ];
    let site = Site::granted("client_credentials", 9, "1h");
    for (tenant, asks, ..) in hostile {
        prepare(&site, tenant, asks);
    }
    site.worker(&["drain"]).expect(0);
    assert_eq!(site.stats().balance("delivered"), 4);
    let servers: Vec<Server> = hostile
        .iter()
        .map(|(tenant, _, play, _)| {
            let server = server(*play);
            redirect(&site, tenant, &server.url);
            server
        })
        .collect();

    let run = site.run();
    for (tenant, asks, ..) in hostile {
        if asks == Recording {
            site.worker(&["sessions", "end", tenant, "s1"]).expect(0);
        }
    }
    for (tenant, asks, _, words) in hostile {
        let recording = (asks == Recording).then(|| recording(&site, tenant));
        let asked: Vec<&str> = match &recording {
            Some(id) => vec!["recordings", "show", id],
            None => vec!["why", tenant],
        };
        wait_for(&format!("{tenant}: {words}"), || {
            let told = site.worker(asked.as_slice()).expect(0).out;
            told.contains(words).then_some(())
        });
        assert_eq!(site.stats().chunks(tenant, "dead"), 0, "{tenant}");
    }
    // Stored there, and nobody claims more.
    assert_eq!(site.stats().chunks("acme", "confirming"), 1);
    site.enqueue("t9", "s1", 0);
    site.wait_stats("t9 to be served", |told| {
        told.chunks("t9", "delivered") == 1
    });
    ends_within_bounds(run);

    for server in &servers {
        redirect_back(&site, "everybody", &server.url);
    }
    for (tenant, ..) in hostile {
        site.sandbox.tenant(tenant, json!({"ingestion": "Success"}));
    }
    let run = site.run();
    site.wait_stats("all to be confirmed", |told| told.balance("delivered") == 9);
    for (tenant, asks, ..) in hostile {
        if asks == Recording {
            let id = recording(&site, tenant);
            wait_for(&format!("{tenant} to be compared"), || {
                let told = site.worker(&["recordings", "show", &id]).expect(0).out;
                told.contains("verified").then_some(())
            });
        }
    }
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(9);
}

#[test]
fn headers_that_drip_without_end_are_left_whatever_was_asked() {
    // The longest is a handshake's.
    const PATIENCE: Duration = Duration::from_secs(150);
    let hostile: [(&str, &str, &str); 4] = [
        ("acme", "json", "no answer for 60s"),
        ("globex", "binary", "no answer for 60s"),
        ("initech", "presigned", "no answer for 60s"),
        ("t4", "websocket", "no answer to the handshake for 70s"),
    ];
    let site = Site::granted("client_credentials", 7, "1h");
    let mut servers = Vec::new();
    for (tenant, transport, _) in hostile {
        let server = server(dripped_headers);
        redirect(&site, tenant, &server.url);
        let transport = format!("transport = \"{transport}\"");
        if transport != "transport = \"json\"" {
            rewrite(&site, tenant, "transport = \"json\"", &transport);
        }
        site.enqueue(tenant, "s1", 0);
        servers.push(server);
    }
    let token = server(dripped_headers);
    let real = format!("token_url = \"{}/", site.sandbox.url());
    rewrite(&site, "t5", &real, &format!("token_url = \"{}/", token.url));
    site.enqueue("t5", "s1", 0);
    let archive = server(dripped_headers);
    redirect(&site, "t6", &archive.url);
    site.worker(&["recordings", "fetch", "--tenant", "t6", "rec-1"])
        .expect(0);

    let run = site.run();
    let rows = hostile.map(|(tenant, _, words)| (vec!["why", tenant, "s1"], words));
    let others = [
        (vec!["why", "t5", "s1"], "no answer in time"),
        (vec!["recordings", "show", "rec-1"], "no answer"),
    ];
    for (asked, words) in rows.into_iter().chain(others) {
        let said = || site.worker(asked.as_slice()).expect(0).out;
        let found = || said().contains(words).then_some(());
        assert!(
            wait_within(PATIENCE, found).is_some(),
            "{words}: {}",
            said()
        );
    }
    site.enqueue("t7", "s1", 0);
    site.wait_stats("t7 to be served", |told| {
        told.chunks("t7", "delivered") == 1
    });
    for tenant in ["acme", "globex", "initech", "t4", "t5"] {
        let why = site.worker(&["why", tenant, "s1", "--json"]).expect(0);
        assert_eq!(why.json()["session"]["failures"], 0, "{}", why.out);
    }
    ends_within_bounds(run);
    servers.extend([token, archive]);
    for server in &servers {
        redirect_back(&site, "everybody", &server.url);
    }
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(6);
}
