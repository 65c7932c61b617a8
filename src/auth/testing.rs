//! A token endpoint over loopback for tests of grants: it says what it is told to say and keeps what it was sent.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::endpoint::{TokenEndpoint, token_client};
use super::secret::{SecretPlaces, SecretSource};
use crate::clock::SystemClock;
use crate::model::{FailureClass, FailureRecord, Timestamp};

pub const GOOD: &str =
    r#"{"access_token":"canary-token","token_type":"bearer","expires_in":3600,"scope":"a:b c"}"#;

/// An endpoint that gives the same bytes to everyone and keeps what it was sent.
pub struct Endpoint {
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    pub async fn answering(status: &str, headers: &str, body: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n{body}",
            body.len()
        );
        Self::sending(vec![answer.into_bytes()]).await
    }

    /// Answers one after another, then the last one for ever.
    pub async fn in_turn(answers: &[(&str, &str)]) -> Self {
        let rendered = |(status, body): &(&str, &str)| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
        };
        let answers: Vec<String> = answers.iter().map(rendered).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oauth/token", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                let turn = {
                    let mut log = log.lock().unwrap();
                    log.push(request);
                    log.len() - 1
                };
                let answer = &answers[turn.min(answers.len() - 1)];
                let _cut = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, seen, task }
    }

    /// Refuses everyone and repeats all that it was sent, as it came and decoded.
    pub async fn echoing(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oauth/token", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                let said: Vec<String> = form(&request).into_values().rev().collect();
                let said = said.join(" ");
                let body = serde_json::json!({"error": "invalid_grant", "error_description": said, "echo": request});
                let body = body.to_string();
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                log.lock().unwrap().push(request);
                let _cut = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, seen, task }
    }

    /// Sends the last piece again and again.
    pub async fn sending(pieces: Vec<Vec<u8>>) -> Self {
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

    pub fn seen(&self) -> Vec<String> {
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

pub fn http(url: &str) -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    token_client(&crate::http::Reach::default().with_tls(tls), url).unwrap()
}

pub fn endpoint(url: &str) -> TokenEndpoint {
    TokenEndpoint::try_new(url, http(url), Arc::new(SystemClock)).unwrap()
}

/// A file of the operator's in `directory`.
pub fn file(directory: &std::path::Path, name: &str) -> SecretSource {
    SecretSource {
        name: name.into(),
        places: SecretPlaces {
            beside_config: directory.to_owned(),
            credentials: None,
        },
    }
}

/// Writes it as an operator does: in place, private.
pub fn write(directory: &std::path::Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The form that a request carried.
pub fn form(request: &str) -> std::collections::BTreeMap<String, String> {
    let body = request.split_once("\r\n\r\n").unwrap().1;
    let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
    url.query_pairs().into_owned().collect()
}

/// What a platform says to a token that it does not take.
pub fn unauthorized() -> FailureRecord {
    FailureRecord {
        at: Timestamp(0),
        class: FailureClass::Unauthorized,
        status: Some(401),
        code: Some("bad.credentials".to_owned()),
        correlation_id: None,
        fields: Vec::new(),
        missing: None,
        message: "Invalid login credentials.".to_owned(),
        body: String::new(),
        token_generation: None,
        token_fingerprint: None,
        attempt: 1,
        next_try_at: None,
    }
}
