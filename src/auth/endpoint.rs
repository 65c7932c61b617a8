//! The one request that every grant makes: a form to a token endpoint, with a bounded answer.

use std::fmt;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::answer::{self, ANSWER_BYTES_MAX, RawAnswer};
use super::grant::{MintFailure, Minted};
use crate::http::Reach;

/// The whole request, from the first byte to the last. The slot has the same deadline around it.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CAUSE_CHARS_MAX: usize = 200;

/// Why a text is no token endpoint. Does not repeat the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("token_url is not a URL such as https://login.example.com/oauth/token")]
    Malformed,
    #[error("token_url begins with https:// or http://, not {scheme}://")]
    Scheme { scheme: String },
    #[error("token_url holds a user name or password: name a client_secret_file instead")]
    Credentials,
}

/// A token endpoint and the client that talks to it.
#[derive(Clone)]
pub struct TokenEndpoint {
    url: reqwest::Url,
    http: reqwest::Client,
}

/// A client fit for token requests to `url`: no redirects, which could carry a secret elsewhere, no
/// retries of its own, bounded in time; by the tenant's own way.
///
/// # Errors
/// Where the TLS configuration is unusable.
pub fn token_client(reach: &Reach, url: &str) -> Result<reqwest::Client, reqwest::Error> {
    reach
        .builder(url)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .build()
}

impl fmt::Debug for TokenEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenEndpoint({})", self.shown())
    }
}

impl TokenEndpoint {
    /// `http` should come from [`token_client`].
    ///
    /// # Errors
    /// A text that is no `http` or `https` URL, or one with credentials in it.
    pub fn try_new(url: &str, http: reqwest::Client) -> Result<Self, EndpointError> {
        let url = reqwest::Url::parse(url).map_err(|_| EndpointError::Malformed)?;
        if !matches!(url.scheme(), "https" | "http") {
            let scheme = url.scheme().to_owned();
            return Err(EndpointError::Scheme { scheme });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        Ok(Self { url, http })
    }

    /// For messages: without query and fragment.
    pub fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.into()
    }

    /// Posts `form` with HTTP Basic authentication and reads the answer.
    ///
    /// # Errors
    /// No answer, or one without a token.
    pub async fn request(
        &self,
        client_id: &str,
        secret: &SecretString,
        form: &[(&str, &str)],
    ) -> Result<Minted, MintFailure> {
        let response = self
            .http
            .post(self.url.clone())
            .header(AUTHORIZATION, basic(client_id, secret))
            .header(ACCEPT, "application/json")
            .form(form)
            .timeout(REQUEST_TIMEOUT)
            .send()
            .await
            .map_err(unreachable)?;
        let raw = receive(response).await?;
        let forms = sent_forms(client_id, secret);
        let forms: Vec<&str> = forms.iter().map(|form| form.as_str()).collect();
        answer::read(&raw, &forms)
    }
}

async fn receive(mut response: reqwest::Response) -> Result<RawAnswer, MintFailure> {
    let mut raw = RawAnswer {
        status: response.status().as_u16(),
        content_type: text(response.headers(), CONTENT_TYPE.as_str()),
        retry_after: text(response.headers(), RETRY_AFTER.as_str()),
        date: text(response.headers(), DATE.as_str()),
        correlation_id: text(response.headers(), "ININ-Correlation-Id"),
        ..RawAnswer::default()
    };
    while let Some(piece) = response.chunk().await.map_err(unreachable)? {
        let room = ANSWER_BYTES_MAX - raw.body.len();
        raw.body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            raw.cut = true;
            break;
        }
    }
    Ok(raw)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// RFC 6749 section 2.3.1: both parts form-encoded, then joined.
fn credentials(client_id: &str, secret: &SecretString) -> Zeroizing<String> {
    let secret = Zeroizing::new(form_encoded(secret.expose_secret()));
    let pair = Zeroizing::new(format!("{}:{}", form_encoded(client_id), *secret));
    Zeroizing::new(STANDARD.encode(pair.as_bytes()))
}

fn basic(client_id: &str, secret: &SecretString) -> HeaderValue {
    let value = Zeroizing::new(format!("Basic {}", *credentials(client_id, secret)));
    let mut header = HeaderValue::from_str(&value).expect("base64 is header text");
    header.set_sensitive(true);
    header
}

/// How the secret may come back in an answer: as it is, encoded as it was sent, or escaped in JSON.
fn sent_forms(client_id: &str, secret: &SecretString) -> [Zeroizing<String>; 4] {
    let plain = secret.expose_secret();
    let escaped = Zeroizing::new(serde_json::Value::from(plain).to_string());
    [
        Zeroizing::new(plain.to_owned()),
        Zeroizing::new(form_encoded(plain)),
        credentials(client_id, secret),
        Zeroizing::new(escaped[1..escaped.len() - 1].to_owned()),
    ]
}

fn form_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes all text"),
        }
    }
    encoded
}

fn unreachable(error: reqwest::Error) -> MintFailure {
    // The URL is said elsewhere, without its query.
    let error = error.without_url();
    MintFailure::Unreachable {
        cause: cause(&error),
    }
}

/// The innermost error in a few words: the outer ones only say that sending a request failed.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let words = match innermost.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
        Some(io::ErrorKind::ConnectionReset) => "connection reset".to_owned(),
        Some(io::ErrorKind::ConnectionAborted) => "connection aborted".to_owned(),
        Some(io::ErrorKind::UnexpectedEof) => "connection closed early".to_owned(),
        Some(io::ErrorKind::TimedOut) => "no answer in time".to_owned(),
        Some(io::ErrorKind::HostUnreachable) => "host unreachable".to_owned(),
        Some(io::ErrorKind::NetworkUnreachable) => "network unreachable".to_owned(),
        _ => innermost.to_string(),
    };
    words
        .chars()
        .filter(|c| !c.is_control())
        .take(CAUSE_CHARS_MAX)
        .collect()
}
