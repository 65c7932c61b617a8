//! How requests leave the host: through a proxy that wants a password, to a platform behind an authority of its own that
//! wants a certificate. The real binary, and every hop on this machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
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

/// Only who shows a certificate of the authority is let through to `to`.
async fn front(to: String) -> u16 {
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
                let mut outside = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    port
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
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match inside.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
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
    let site = Site::new();
    let hops = tokio::runtime::Runtime::new().unwrap();
    let tunnels = Arc::<AtomicU64>::default();
    let (front, proxy) = hops.block_on(async {
        let front = front(site.sandbox.address().to_owned()).await;
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
        let text = text.replace(&plain, &format!("https://127.0.0.1:{front}"));
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

#[test]
fn a_platform_behind_proxy_authority_and_certificate_is_reached() {
    for transport in ["json", "binary"] {
        let Way { site, tunnels, .. } = &way(transport, &format!("{PROXY}{TRUST}{IDENTITY}"));
        let run = site.run_with(&mut site.command(&["run", "--log", "trace"]));
        site.wait_stats("delivery", |told| told.balance("delivered") == 2);
        run.terminate();
        let log = run.wait().expect(0).err;
        assert!(!log.contains("canary"), "a secret was logged: {log}");
        assert!(!log.contains("dXNlcjpjYW5hcnk"), "a secret was logged");
        site.assert_all_delivered(2);
        // The token endpoint and the platform, each through its own.
        assert!(tunnels.load(Ordering::Relaxed) >= 2);
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
