//! Platforms that mean no good behind a websocket, against the real binary: each costs its own tenant time, and nobody
//! a chunk, a retry or memory. `src/platform/websocket/tests/hostile.rs` has the whole table.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::support::{Process, Site, wait_for};

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

/// The key of the handshake.
fn key(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let key = head.lines().find_map(|line| {
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
    key(stream)?;
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n")?;
    for_ever(
        stream,
        b"X-Filler: 0123456789012345678901234567890123456789\r\n",
        sent,
    )
}

fn another_key(stream: &mut TcpStream, _: &AtomicU64) -> io::Result<()> {
    key(stream)?;
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: reelay.v1\r\n\r\n",
    )
}

fn elsewhere(stream: &mut TcpStream, _: &AtomicU64) -> io::Result<()> {
    key(stream)?;
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
    let real = format!("api_url = \"{}\"", site.sandbox.url());
    site.configure(|text| {
        let at = text.find(&format!("[tenants.{tenant}]")).unwrap();
        let (before, table) = text.split_at(at);
        let table = table.replacen(&real, &format!("api_url = \"{url}\""), 1);
        format!("{before}{table}")
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
