//! Servers that mean no good, against the real binary: platforms behind a websocket and behind HTTP, token endpoints and
//! archives. Each costs its own tenant time, and nobody a chunk, a retry or memory. `src/platform/tests/hostile.rs` and
//! `src/platform/websocket/tests/hostile.rs` have the whole tables.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::support::{Process, Site, wait_for};

mod questions;

/// What a server does with a connection; it counts what it got rid of.
type Play = fn(&mut TcpStream, &AtomicU64) -> io::Result<()>;

struct Server {
    url: String,
    sent: Arc<AtomicU64>,
}

/// Serves every connection alike, until the test's process ends.
fn server(play: Play) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&sent);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counted) = (stream.unwrap(), Arc::clone(&counted));
            // Whoever is hung up on has done its part.
            std::thread::spawn(move || drop(play(&mut stream, &counted)));
        }
    });
    Server { url, sent }
}

/// A request up to its body.
fn head(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// The key of the handshake.
fn key(stream: &mut TcpStream) -> io::Result<String> {
    let key = head(stream)?.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.trim().to_owned())
    });
    key.ok_or_else(|| io::Error::other("no handshake"))
}

fn upgrade(stream: &mut TcpStream) -> io::Result<()> {
    let accept = derive_accept_key(key(stream)?.as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: reelay.v1\r\n\r\n"
    )
}

fn for_ever(stream: &mut TcpStream, bytes: &[u8], sent: &AtomicU64) -> io::Result<()> {
    loop {
        stream.write_all(bytes)?;
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

fn endless_headers(stream: &mut TcpStream, sent: &AtomicU64) -> io::Result<()> {
    let switching = head(stream)?.contains("Upgrade: websocket");
    let status: &[u8] = match switching {
        true => b"HTTP/1.1 101 Switching Protocols\r\n",
        false => b"HTTP/1.1 200 OK\r\n",
    };
    stream.write_all(status)?;
    for_ever(
        stream,
        b"X-Filler: 0123456789012345678901234567890123456789\r\n",
        sent,
    )
}

fn endless_body(stream: &mut TcpStream, sent: &AtomicU64) -> io::Result<()> {
    head(stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n")?;
    for_ever(stream, &[b'z'; 65_536], sent)
}

fn dripping(stream: &mut TcpStream, _: &AtomicU64) -> io::Result<()> {
    head(stream)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
    loop {
        stream.write_all(b"z")?;
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

fn page(stream: &mut TcpStream, _: &AtomicU64) -> io::Result<()> {
    head(stream)?;
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n<html>Sign in</html>",
    )?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn another_key(stream: &mut TcpStream, _: &AtomicU64) -> io::Result<()> {
    key(stream)?;
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: reelay.v1\r\n\r\n",
    )
}

fn elsewhere(stream: &mut TcpStream, _: &AtomicU64) -> io::Result<()> {
    head(stream)?;
    stream.write_all(
        b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    )
}

fn garbage(stream: &mut TcpStream, _: &AtomicU64) -> io::Result<()> {
    upgrade(stream)?;
    stream.write_all(b"\x81\x03[[[")?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn endless_fragments(stream: &mut TcpStream, sent: &AtomicU64) -> io::Result<()> {
    upgrade(stream)?;
    stream.write_all(b"\x01\x00")?;
    let fragment = [&[0, 126, 0xea, 0x60][..], &[b'z'; 60_000]].concat();
    for_ever(stream, &fragment, sent)
}

/// Wants an answer to each and takes none.
fn pings(stream: &mut TcpStream, sent: &AtomicU64) -> io::Result<()> {
    upgrade(stream)?;
    let ping = [&[0x89, 125][..], &[b'z'; 125]].concat();
    for_ever(stream, &ping.repeat(100), sent)
}

/// Sends `tenant` to another platform than the others.
fn redirect(site: &Site, tenant: &str, url: &str) {
    let real = site.sandbox.url();
    let wrong = format!("api_url = \"{url}\"");
    rewrite(site, tenant, &format!("api_url = \"{real}\""), &wrong);
}

/// Changes a line of a tenant's table.
fn rewrite(site: &Site, tenant: &str, line: &str, to: &str) {
    site.configure(|text| {
        let at = text.find(&format!("[tenants.{tenant}]")).unwrap();
        let (before, table) = text.split_at(at);
        let changed = table.replacen(line, to, 1);
        assert_ne!(table, changed, "{tenant} has no {line}");
        format!("{before}{changed}")
    });
}

fn site(tenants: usize) -> Site {
    let site = Site::granted("client_credentials", tenants, "1h");
    site.configure(|text| text.replace("transport = \"json\"", "transport = \"websocket\""));
    site
}

/// The most memory that the process ever had, in bytes.
fn peak(run: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{status}"));
    kib * 1024
}

#[test]
fn a_hostile_server_costs_its_own_tenant_time_and_nobody_anything_else() {
    let hostile: [(&str, Play, &str); 5] = [
        ("acme", endless_headers, "opening a socket: "),
        (
            "globex",
            another_key,
            "what answers is not the platform (101",
        ),
        (
            "initech",
            elsewhere,
            "what answers is not the platform (307",
        ),
        ("t4", garbage, "is not of the protocol"),
        ("t5", endless_fragments, "Space limit exceeded"),
    ];
    let site = site(6);
    let mut sent = Vec::new();
    for (tenant, play, _) in hostile {
        let server = server(play);
        redirect(&site, tenant, &server.url);
        site.enqueue(tenant, "s1", 0);
        sent.push((tenant, server));
    }
    site.enqueue("t6", "s1", 0);
    let run = site.run();
    site.wait_stats("t6 to be served", |told| {
        told.chunks("t6", "delivered") == 1
    });
    for (tenant, _, words) in hostile {
        wait_for(&format!("{tenant}: {words}"), || {
            let why = site.worker(&["why", tenant, "s1"]).expect(0).out;
            why.contains(words).then_some(())
        });
        let why = site.worker(&["why", tenant, "s1", "--json"]).expect(0);
        assert_eq!(why.json()["session"]["failures"], 0, "{}", why.out);
    }
    // Somebody is served all the time.
    site.enqueue("t6", "s1", 1);
    site.wait_stats("t6 to be served", |told| {
        told.chunks("t6", "delivered") == 2
    });
    run.terminate();
    run.wait().expect(0);
    for (tenant, server) in sent {
        redirect_back(&site, tenant, &server.url);
    }
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(7);
}

fn redirect_back(site: &Site, tenant: &str, url: &str) {
    let real = site.sandbox.url();
    site.configure(|text| text.replace(url, &real));
    let text = std::fs::read_to_string(site.config()).unwrap();
    assert!(!text.contains(url), "{tenant} is still sent elsewhere");
}

/// Whoever answers each ping keeps what the other side does not take: it once grew by what was asked for.
#[test]
fn a_flood_of_pings_that_takes_no_answer_is_thrown_away() {
    const FLOOD: u64 = 64 << 20;
    let site = site(2);
    site.enqueue("globex", "s1", 0);
    let server = server(pings);
    redirect(&site, "acme", &server.url);
    let run = site.run();
    site.wait_stats("globex to be served", |told| {
        told.chunks("globex", "delivered") == 1
    });
    let before = peak(&run);
    site.enqueue("acme", "s1", 0);
    wait_for("the flood", || {
        (server.sent.load(Ordering::Relaxed) >= FLOOD).then_some(())
    });
    site.enqueue("globex", "s1", 1);
    site.wait_stats("globex to be served", |told| {
        told.chunks("globex", "delivered") == 2
    });
    let grown = peak(&run).saturating_sub(before);
    assert!(grown < FLOOD / 4, "{grown} bytes more");
    assert_eq!(site.stats().chunks("acme", "dead"), 0);
    run.terminate();
    run.wait().expect(0);
}

/// Of a worker that meets any number of them, in bytes.
const MOST: u64 = 64 << 20;

fn ends_within_bounds(run: Process) {
    let most = peak(&run);
    assert!(most < MOST, "{most} bytes");
    run.terminate();
    run.wait().expect(0);
}

/// The control of every bound on memory here.
#[test]
fn a_worker_that_keeps_what_a_server_says_is_noticed() {
    let site = Site::new().sabotaged("HoardAnswers");
    let server = server(endless_body);
    lead_astray(&site, "acme", &Meets::Json, &server.url);
    let run = site.run();
    wait_for("its memory to grow", || (peak(&run) >= MOST).then_some(()));
    run.kill();
}

/// Where a tenant meets its hostile server.
enum Meets {
    Json,
    Binary,
    Token,
    Archive,
}

fn lead_astray(site: &Site, tenant: &str, meets: &Meets, url: &str) {
    match meets {
        Meets::Token => {
            let real = format!("token_url = \"{}/", site.sandbox.url());
            rewrite(site, tenant, &real, &format!("token_url = \"{url}/"));
        }
        _ => redirect(site, tenant, url),
    }
    if let Meets::Binary = meets {
        rewrite(
            site,
            tenant,
            "transport = \"json\"",
            "transport = \"binary\"",
        );
    }
    match meets {
        Meets::Archive => {
            let wish = ["recordings", "fetch", "--tenant", tenant, "rec-1"];
            site.worker(wish.as_slice()).expect(0);
        }
        _ => site.enqueue(tenant, "s1", 0),
    }
}

#[test]
fn hostile_platforms_token_endpoints_and_archives_cost_their_own_tenant_time_and_no_memory() {
    use Meets::{Archive, Binary, Json, Token};
    let hostile: [(&str, Meets, Play, &str); 10] = [
        ("acme", Json, endless_headers, "message head is too large"),
        ("globex", Json, endless_body, "no stated type is no receipt"),
        ("initech", Json, page, "200 with text/html is no receipt"),
        ("t4", Binary, endless_body, "no stated type is no receipt"),
        ("t5", Binary, elsewhere, "307 is no receipt"),
        ("t6", Token, endless_headers, "message head is too large"),
        (
            "t7",
            Token,
            endless_body,
            "answers with far more than a token",
        ),
        ("t9", Token, page, "a web page instead of a token"),
        (
            "t10",
            Archive,
            endless_body,
            "no stated type is no recording",
        ),
        // Is given 30 s.
        ("t8", Token, dripping, "no answer in time"),
    ];
    let site = Site::granted("client_credentials", 11, "1h");
    let servers: Vec<Server> = hostile
        .iter()
        .map(|(tenant, meets, play, _)| {
            let server = server(*play);
            lead_astray(&site, tenant, meets, &server.url);
            server
        })
        .collect();
    site.enqueue("t11", "s1", 0);
    let run = site.run();
    site.wait_stats("t11 to be served", |told| {
        told.chunks("t11", "delivered") == 1
    });
    for (tenant, meets, _, words) in &hostile {
        let asked = match meets {
            Archive => &["recordings", "show", "rec-1"][..],
            _ => &["why", tenant, "s1"],
        };
        wait_for(&format!("{tenant}: {words}"), || {
            let told = site.worker(asked).expect(0).out;
            told.contains(words).then_some(())
        });
        assert_eq!(site.stats().chunks(tenant, "dead"), 0, "{tenant}");
    }
    site.enqueue("t11", "s1", 1);
    site.wait_stats("t11 to be served", |told| {
        told.chunks("t11", "delivered") == 2
    });
    ends_within_bounds(run);
    for server in &servers {
        redirect_back(&site, "everybody", &server.url);
    }
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(11);
}
