//! How requests leave the host: through a proxy that wants a password, to a platform behind an authority of its own that
//! wants a certificate. The real binary, and every hop on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::Site;

/// `user:canary-proxy`.
const CREDENTIALS: &str = "Basic dXNlcjpjYW5hcnktcHJveHk=";
const PASSWORD: &str = "canary-proxy\n";
const SESSIONS: [&str; 2] = ["s1", "s2"];

fn tls_file(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Below which paths a gateway has the platform's API and its login.
const API: &str = "/gateway/api";
const LOGIN: &str = "/gateway/login";

/// Only who shows a certificate of the authority is let through to `to`, and only below `prefixes`, which end here.
async fn front(to: String, prefixes: &'static [&'static str]) -> u16 {
    let authority = CertificateDer::from_pem_file(tls_file("ca.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let chain = vec![CertificateDer::from_pem_file(tls_file("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                let Ok(mut inside) = acceptor.accept(stream).await else {
                    return;
                };
                let head = read_head(&mut inside).await;
                let Some(head) = head.and_then(|head| passed_on(&head, prefixes)) else {
                    let refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                    let _ = inside.write_all(refusal).await;
                    return;
                };
                let mut outside = TcpStream::connect(to).await.unwrap();
                outside.write_all(head.as_bytes()).await.unwrap();
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    port
}

async fn read_head(from: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(from.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// The head as the platform gets it: without the gateway's prefix, told that the way was secure, and the only one of its
/// connection unless it opens a socket. An upload URL leads to the storage host, which has no prefix, and takes no header
/// that was not signed.
fn passed_on(head: &str, prefixes: &[&str]) -> Option<String> {
    let (line, fields) = head.split_once("\r\n")?;
    let (method, path) = line.split_once(' ')?;
    if path.starts_with("/_store/") {
        return Some(head.to_owned());
    }
    let below = |prefix: &&str| {
        path.strip_prefix(*prefix)
            .filter(|rest| rest.starts_with('/'))
    };
    let path = prefixes.iter().find_map(below)?;
    let is_upgrade = fields.to_lowercase().contains("upgrade: websocket");
    let alone = if is_upgrade {
        ""
    } else {
        "Connection: close\r\n"
    };
    Some(format!(
        "{method} {path}\r\nX-Forwarded-Proto: https\r\n{alone}{fields}"
    ))
}

/// Tunnels for whoever knows the password, and counts the tunnels.
async fn proxy(tunnels: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(tunnel(stream, Arc::clone(&tunnels)));
        }
    });
    port
}

async fn tunnel(mut inside: TcpStream, tunnels: Arc<AtomicU64>) {
    let Some(head) = read_head(&mut inside).await else {
        return;
    };
    let knows = head
        .to_lowercase()
        .contains(&format!("proxy-authorization: {CREDENTIALS}").to_lowercase());
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next());
    let Some(target) = target.filter(|_| knows) else {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        let _ = inside.write_all(refusal).await;
        return;
    };
    tunnels.fetch_add(1, Ordering::Relaxed);
    let mut outside = TcpStream::connect(target).await.unwrap();
    let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
    inside.write_all(established).await.unwrap();
    let _ = copy_bidirectional(&mut inside, &mut outside).await;
}

struct Way {
    site: Site,
    tunnels: Arc<AtomicU64>,
    /// Keeps the hops alive.
    _hops: tokio::runtime::Runtime,
}

/// A site whose platform and token endpoint are behind both hops. `http` is the rest of the common table.
fn way(transport: &str, http: &str) -> Way {
    way_below(transport, http, &[""])
}

/// `prefixes` of the API and, where they are two, of the login.
fn way_below(transport: &str, http: &str, prefixes: &'static [&'static str]) -> Way {
    let site = Site::new();
    let hops = tokio::runtime::Runtime::new().unwrap();
    let tunnels = Arc::<AtomicU64>::default();
    let (front, proxy) = hops.block_on(async {
        let front = front(site.sandbox.address().to_owned(), prefixes).await;
        (front, proxy(Arc::clone(&tunnels)).await)
    });
    let private = |name: &str, bytes: &[u8]| {
        let path = site.path().join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    private("proxy.password", PASSWORD.as_bytes());
    private("wrong.password", b"canary-wrong\n");
    private("client.key", &fs::read(tls_file("client.key")).unwrap());
    for name in ["client.pem", "ca.pem"] {
        fs::copy(tls_file(name), site.path().join(name)).unwrap();
    }
    let plain = format!("http://{}", site.sandbox.address());
    site.configure(|text| {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("path = \"/api"));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        let (api, login) = (prefixes[0], prefixes[prefixes.len() - 1]);
        let secure = format!("https://127.0.0.1:{front}");
        let text = text.replace(
            &format!("api_url = \"{plain}"),
            &format!("api_url = \"{secure}{api}"),
        );
        let text = text.replace(&plain, &format!("{secure}{login}"));
        let transport = format!("transport = \"{transport}\"");
        let text = text.replace("transport = \"json\"", &transport);
        format!("{text}\n[http]\nproxy_url = \"http://user@127.0.0.1:{proxy}\"\n{http}\n")
    });
    for session in SESSIONS {
        site.enqueue("acme", session, 0);
    }
    Way {
        site,
        tunnels,
        _hops: hops,
    }
}

const PROXY: &str = "proxy_password_file = \"proxy.password\"\n";
const TRUST: &str = "ca_file = \"ca.pem\"\n";
const IDENTITY: &str =
    "client_certificate_file = \"client.pem\"\nclient_key_file = \"client.key\"\n";

const TRANSPORTS: [&str; 4] = ["json", "binary", "presigned", "websocket"];

/// Everything arrives, through so many tunnels at least, and no log at all tells a secret.
#[track_caller]
fn delivers(way: &Way, at_least: u64) {
    let site = &way.site;
    let run = site.run_with(&mut site.command(&["run", "--log", "trace"]));
    site.wait_stats("delivery", |told| told.balance("delivered") == 2);
    run.terminate();
    let log = run.wait().expect(0).err;
    assert!(log.contains("TRACE"), "{log}");
    site.assert_all_delivered(2);
    for session in SESSIONS {
        assert!(site.sandbox.film("acme", session) == site.enqueued("acme", session, 0));
    }
    let tunnels = way.tunnels.load(Ordering::Relaxed);
    assert!(tunnels >= at_least, "{tunnels} tunnels");
}

#[test]
fn a_platform_behind_proxy_authority_and_certificate_is_reached() {
    for transport in TRANSPORTS {
        println!("transport {transport}");
        let way = way(transport, &format!("{PROXY}{TRUST}{IDENTITY}"));
        // The token endpoint and the platform, each through its own; two wishes, and the storage host once at least.
        delivers(&way, if transport == "presigned" { 4 } else { 2 });
        let sockets = way.site.sandbox.counted("sockets");
        assert_eq!(sockets, u64::from(transport == "websocket"));
    }
}

#[test]
fn a_gateway_has_api_and_login_below_paths_of_their_own() {
    for transport in TRANSPORTS {
        println!("transport {transport}");
        let http = format!("{PROXY}{TRUST}{IDENTITY}");
        let way = way_below(transport, &http, &[API, LOGIN]);
        let site = &way.site;
        let told = site.worker(&["check", "--online"]).expect(0).out;
        let had = "tenant acme: token: had, valid for 59 min, of organisation org-acme";
        assert!(told.contains(had), "{told}");
        delivers(&way, 2);
        let archive = json!({"recordings": {"add": [{"id": "r-1", "age_ms": 1000}]}});
        site.sandbox.tenant("acme", archive);
        site.worker(&["recordings", "fetch", "--tenant", "acme", "r-1"])
            .expect(0);
        site.worker(&["drain"]).expect(0);
        let shown = site.worker(&["recordings", "show", "r-1", "--json"]);
        assert!(shown.expect(0).out.contains("fetched"));
    }
}

#[test]
fn a_wrong_prefix_is_named_and_costs_nothing() {
    let http = format!("{PROXY}{TRUST}{IDENTITY}");
    for transport in ["json", "websocket"] {
        let way = way_below(transport, &http, &[API, LOGIN]);
        let site = &way.site;
        site.configure(|text| text.replace(API, "/elsewhere"));
        let run = site.run();
        site.wait_stats("the refusal", |told| {
            let mut holds = told.holds("acme").into_iter();
            holds.any(|(kind, reason)| kind == "blocked" && reason.contains("404"))
        });
        run.terminate();
        run.wait().expect(0);
        site.configure(|text| text.replace("/elsewhere", API));
        delivers(&way, 2);
    }
}

#[test]
fn whoever_is_not_let_through_waits_with_the_reason_and_is_never_unverified() {
    let wrong = "proxy_password_file = \"wrong.password\"\n";
    for (http, words) in [
        (
            format!("{wrong}{TRUST}{IDENTITY}"),
            "proxy authorization required",
        ),
        (format!("{PROXY}{IDENTITY}"), "certificate"),
        (format!("{PROXY}{TRUST}"), "certificate"),
    ] {
        let Way { site, .. } = &way("json", &http);
        let run = site.run();
        site.wait_stats(words, |told| {
            let holds = told.holds("acme");
            holds
                .iter()
                .any(|(kind, reason)| kind == "outage" && reason.to_lowercase().contains(words))
        });
        run.terminate();
        run.wait().expect(0);
        assert_eq!(site.sandbox.counted("token_requests"), 0);
        assert_eq!(site.stats().balance("backlog"), 2);
    }
}

#[test]
fn files_that_cannot_be_used_are_found_before_anything_is_sent() {
    let Way { site, .. } = &way("json", &format!("{PROXY}{TRUST}{IDENTITY}"));
    let key = site.path().join("client.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let check = site.worker(&["check"]).expect(78);
    let said = format!("{}{}", check.out, check.err);
    assert!(
        said.contains("client.key is readable by others (0644)"),
        "{said}"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(site.path().join("ca.pem"), "canary").unwrap();
    let check = site.worker(&["check"]).expect(78);
    let said = format!("{}{}", check.out, check.err);
    assert!(
        said.contains("ca_file holds no certificate in PEM"),
        "{said}"
    );
    assert!(!said.contains("canary"), "{said}");
    assert_eq!(site.worker(&["run"]).code, Some(78));
}
