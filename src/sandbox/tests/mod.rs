//! The emulator over real loopback sockets: what a sender sees, and what the ledger says about it afterwards.

mod delivering;
mod faults;
mod refusing;
mod starting;
mod tokens;
mod uploading;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::keys::{self, Origin};
use super::{Options, Running, start};

const SCOPE: &str = "analytics:screenrecordings:write";
const UPLOADS: &str = "/api/v2/analytics/screenrecordings";

/// A started emulator and a client that follows nothing and retries nothing.
struct Rig {
    sandbox: Running,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
struct Seen {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
    text: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status and `code` (or OAuth `error`).
    fn said(&self) -> (u16, &str) {
        let code = self.body["code"].as_str();
        (
            self.status,
            code.or(self.body["error"].as_str()).unwrap_or(""),
        )
    }

    fn field(&self) -> &str {
        self.body["details"][0]["fieldName"].as_str().unwrap_or("")
    }
}

/// A client for plain HTTP that needs neither a certificate store nor an installed TLS provider.
fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

impl Rig {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        Self {
            sandbox: start(&options).await.unwrap(),
            http: client(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.sandbox.base_url())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Seen, reqwest::Error> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = String::from_utf8_lossy(&response.bytes().await?).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Seen {
            status,
            headers,
            body,
            text,
        })
    }

    async fn get(&self, path: &str) -> Seen {
        self.send(self.http.get(self.url(path))).await.unwrap()
    }

    async fn ledger(&self) -> Value {
        self.get("/_sandbox/ledger").await.body
    }

    /// A control request that has to succeed.
    async fn control(&self, path: &str, body: Value) -> Value {
        let seen = self
            .send(self.http.post(self.url(path)).json(&body))
            .await
            .unwrap();
        assert_eq!(seen.status, 200, "{}", seen.text);
        seen.body
    }

    async fn change(&self, tenant: &str, change: Value) {
        self.control(&format!("/_sandbox/tenants/{tenant}"), change)
            .await;
    }

    async fn fault(&self, rules: Value) {
        self.control("/_sandbox/faults", rules).await;
    }

    fn basic(&self, tenant: &str) -> String {
        let (id, secret) = self.sandbox.credentials(tenant).unwrap();
        format!(
            "Basic {}",
            STANDARD.encode(format!("{}:{}", encode(&id), encode(&secret)))
        )
    }

    fn token_request(&self, authorization: &str, form: &str) -> reqwest::RequestBuilder {
        self.http
            .post(self.url("/oauth/token"))
            .header("Authorization", authorization)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form.to_owned())
    }

    async fn ask_token(&self, tenant: &str) -> Result<Seen, reqwest::Error> {
        let form = "grant_type=client_credentials";
        self.send(self.token_request(&self.basic(tenant), form))
            .await
    }

    async fn token(&self, tenant: &str) -> String {
        let seen = self.ask_token(tenant).await.unwrap();
        assert_eq!(seen.status, 200, "{}", seen.text);
        seen.body["access_token"].as_str().unwrap().to_owned()
    }

    fn upload(&self, token: &str, body: &Value) -> reqwest::RequestBuilder {
        let keys: Vec<&str> = body["parts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|part| part["idempotencyKey"].as_str())
            .collect();
        let key = keys::request_key(keys.into_iter());
        self.http
            .post(self.url(UPLOADS))
            .bearer_auth(token)
            .header("Idempotency-Key", format!("\"{key}\""))
            .json(body)
    }

    async fn deliver(&self, token: &str, body: &Value) -> Seen {
        self.send(self.upload(token, body)).await.unwrap()
    }
}

/// Form encoding of everything but letters and digits.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// `sequence` seconds after the start of 2026-03-01, ten seconds a chunk.
fn at(sequence: u64, end: bool) -> String {
    let seconds = sequence % 8000 * 10 + u64::from(end) * 10;
    format!(
        "2026-03-01T{:02}:{:02}:{:02}.000Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// A correct request of acme, host rec-1, session s1.
fn body(first: u64, payloads: &[&[u8]]) -> Value {
    body_of("acme", "s1", first, payloads)
}

fn body_of(tenant: &str, session: &str, first: u64, payloads: &[&[u8]]) -> Value {
    let origin = Origin {
        tenant,
        host: "rec-1",
        session,
    };
    let parts: Vec<Value> = payloads
        .iter()
        .enumerate()
        .map(|(index, payload)| {
            let sequence = first + index as u64;
            let digest = blake3::hash(payload);
            json!({
                "sequence": sequence,
                "bytes": payload.len(),
                "digest": format!("blake3:{}", digest.to_hex()),
                "idempotencyKey": keys::part_key(origin, sequence, digest.as_bytes()),
                "startTime": at(sequence, false),
                "endTime": at(sequence, true),
            })
        })
        .collect();
    json!({
        "host": "rec-1",
        "session": session,
        "sequence": first,
        "startTime": at(first, false),
        "endTime": at(first + (payloads.len() as u64 - 1), true),
        "intervalSeconds": 10 * payloads.len(),
        "mediaType": "video/mp4",
        "last": false,
        "late": false,
        "gaps": [],
        "parts": parts,
        "payload": STANDARD.encode(payloads.concat()),
    })
}

fn sha256(bytes: &[u8]) -> String {
    keys::hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn basic_of(joined: &str) -> String {
    format!("Basic {}", STANDARD.encode(joined))
}
