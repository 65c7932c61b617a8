//! The real request, over loopback.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::auth::{EndpointError, RefusalKind, Rules, Slot, TokenSource, token_client};
use crate::chance::Chance;
use crate::clock::SystemClock;

const GOOD: &str =
    r#"{"access_token":"canary-token","token_type":"bearer","expires_in":3600,"scope":"a:b c"}"#;

/// An endpoint that gives the same bytes to everyone and keeps what it was sent.
struct Endpoint {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    async fn answering(status: &str, headers: &str, body: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
            body.len()
        );
        Self::sending(vec![answer.into_bytes()]).await
    }

    /// Sends the last piece again and again.
    async fn sending(pieces: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oauth/token", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                log.lock().unwrap().push(request);
                for piece in &pieces {
                    let _cut = stream.write_all(piece).await;
                }
                if let [_, .., last] = pieces.as_slice() {
                    while stream.write_all(last).await.is_ok() {}
                }
            }
        });
        Self { url, seen, task }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).await.unwrap_or(0);
        request.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse::<usize>().ok())?
            });
            body.len() >= length.unwrap_or(0)
        });
        if count == 0 || whole {
            return text;
        }
    }
}

fn http(url: &str) -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    token_client(&crate::http::Reach::default().with_tls(tls), url).unwrap()
}

struct Fixture {
    directory: tempfile::TempDir,
    grant: ClientCredentials,
}

impl Fixture {
    fn new(url: &str, secret: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let grant = ClientCredentials {
            endpoint: TokenEndpoint::try_new(url, http(url)).unwrap(),
            client_id: "5b1c9e".to_owned(),
            secret_file: "acme.secret".into(),
            places: SecretPlaces {
                beside_config: directory.path().to_owned(),
                credentials: None,
            },
            scopes: vec!["a:b".to_owned(), "c".to_owned()],
        };
        let fixture = Self { directory, grant };
        fixture.write(secret, 0o600);
        fixture
    }

    fn write(&self, secret: &str, mode: u32) {
        let path = self.directory.path().join("acme.secret");
        fs::write(&path, secret).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[tokio::test]
async fn the_request_is_the_one_of_the_protocol_page() {
    let endpoint = Endpoint::answering("200 OK", "", GOOD).await;
    let fixture = Fixture::new(&endpoint.url, "p:ss wörd\n");
    let minted = fixture.grant.mint().await.unwrap();
    assert_eq!(minted.access_token.expose_secret(), "canary-token");
    assert_eq!(minted.lifetime, Duration::from_secs(3600));
    assert_eq!(minted.scopes.unwrap(), ["a:b", "c"]);

    let seen = endpoint.seen();
    let (head, body) = seen[0].split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /oauth/token http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-www-form-urlencoded"));
    assert_eq!(body, "grant_type=client_credentials&scope=a%3Ab+c");
    // 5b1c9e:p%3Ass+w%C3%B6rd
    let basic = "Authorization: Basic NWIxYzllOnAlM0Fzcyt3JUMzJUI2cmQ=";
    assert!(head.contains(&basic.to_ascii_lowercase()), "{head}");
    assert!(seen[0].contains("NWIxYzllOnAlM0Fzcyt3JUMzJUI2cmQ="));
}

#[tokio::test]
async fn without_scopes_the_server_chooses() {
    let endpoint = Endpoint::answering("200 OK", "", GOOD).await;
    let mut fixture = Fixture::new(&endpoint.url, "s3cret");
    fixture.grant.scopes.clear();
    fixture.grant.mint().await.unwrap();
    assert!(endpoint.seen()[0].ends_with("\r\n\r\ngrant_type=client_credentials"));
}

#[tokio::test]
async fn a_rotated_secret_is_used_by_the_next_request() {
    let endpoint = Endpoint::answering("200 OK", "", GOOD).await;
    let fixture = Fixture::new(&endpoint.url, "old");
    fixture.grant.mint().await.unwrap();
    fixture.write("new", 0o600);
    fixture.grant.mint().await.unwrap();
    let seen = endpoint.seen();
    assert!(seen[0].contains("NWIxYzllOm9sZA=="), "{}", seen[0]);
    assert!(seen[1].contains("NWIxYzllOm5ldw=="), "{}", seen[1]);
}

#[tokio::test]
async fn a_secret_that_others_may_read_is_not_sent() {
    let endpoint = Endpoint::answering("200 OK", "", GOOD).await;
    let fixture = Fixture::new(&endpoint.url, "canary-secret");
    fixture.write("canary-secret", 0o644);
    let clock = Arc::new(SystemClock);
    let chance = Arc::new(Chance::seeded(1));
    let slot = Slot::new(Arc::new(fixture.grant), Rules::default(), clock, chance);
    let hold = slot.token().await.unwrap_err();
    assert_eq!(
        hold.reason,
        "acme.secret is readable by others (0644): chmod 600 acme.secret"
    );
    assert_eq!(endpoint.seen().len(), 0);
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    let elsewhere = Endpoint::answering("200 OK", "", GOOD).await;
    for status in ["302 Found", "307 Temporary Redirect"] {
        let location = format!("location: {}\r\n", elsewhere.url);
        let endpoint = Endpoint::answering(status, &location, "").await;
        let fixture = Fixture::new(&endpoint.url, "canary-secret");
        match fixture.grant.mint().await.unwrap_err() {
            MintFailure::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::Redirect),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(elsewhere.seen().len(), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"access_token\":\"".to_vec();
    let endpoint = Endpoint::sending(vec![head, vec![b'a'; 16 * 1024]]).await;
    let fixture = Fixture::new(&endpoint.url, "s3cret");
    let asked = fixture.grant.mint();
    let failure = tokio::time::timeout(Duration::from_secs(10), asked).await;
    match failure.expect("it ends").unwrap_err() {
        MintFailure::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::TooLarge),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_named_with_its_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://{}/oauth/token?key=canary",
        listener.local_addr().unwrap()
    );
    drop(listener);
    let fixture = Fixture::new(&url, "canary-secret");
    let failure = fixture.grant.mint().await.unwrap_err();
    match &failure {
        MintFailure::Unreachable { cause } => assert_eq!(cause, "connection refused"),
        other => panic!("{other:?}"),
    }
    let shown = format!("{:?} {:?}", fixture.grant, fixture.grant.about());
    assert!(!shown.contains("canary"), "{shown}");

    let endpoint = Endpoint::sending(vec![Vec::new()]).await;
    let fixture = Fixture::new(&endpoint.url, "canary-secret");
    let failure = fixture.grant.mint().await.unwrap_err();
    assert!(
        matches!(failure, MintFailure::Unreachable { .. }),
        "{failure:?}"
    );
    assert!(!format!("{failure:?}").contains("canary"), "{failure:?}");
}

#[tokio::test]
async fn a_secret_shows_nowhere_even_if_the_endpoint_echoes_the_whole_request() {
    let secret = "canary/x\"fishy";
    let encoded = "canary%2Fx%22fishy";
    let header = "NWIxYzllOmNhbmFyeSUyRnglMjJmaXNoeQ==";
    let body = format!(
        r#"{{"error":"invalid_client","error_description":"canary/x\"fishy {encoded} {header}"}}"#
    );
    let echo = format!("ININ-Correlation-Id: {encoded}\r\n");
    for status in ["401 Unauthorized", "200 OK", "500 Oops"] {
        let endpoint = Endpoint::answering(status, &echo, &body).await;
        let fixture = Fixture::new(&endpoint.url, secret);
        let failure = fixture.grant.mint().await.unwrap_err();
        assert!(endpoint.seen()[0].contains(header), "the positive control");
        let clock = Arc::new(SystemClock);
        let chance = Arc::new(Chance::seeded(1));
        let shown = format!("{:?} {failure:?}", fixture.grant);
        let slot = Slot::new(Arc::new(fixture.grant), Rules::default(), clock, chance);
        let hold = slot.token().await.unwrap_err();
        let shown = format!("{shown} {hold:?} {:?}", slot.view());
        for leak in ["canary", "fishy", header] {
            assert!(!shown.contains(leak), "{status}: {leak} in {shown}");
        }
    }
}

#[tokio::test]
async fn what_is_no_token_url_is_refused_without_repeating_it() {
    let cases = [
        ("login.example.com", EndpointError::Malformed),
        ("", EndpointError::Malformed),
        ("https://", EndpointError::Malformed),
        (
            "ftp://login.example.com/",
            EndpointError::Scheme {
                scheme: "ftp".to_owned(),
            },
        ),
        (
            "https://me:canary@login.example.com/",
            EndpointError::Credentials,
        ),
    ];
    for (url, want) in cases {
        let error = TokenEndpoint::try_new(url, http(url)).unwrap_err();
        assert_eq!(error, want, "{url}");
        assert!(!error.to_string().contains("canary"));
    }
}
