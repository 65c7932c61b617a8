//! The messages of the websocket transport, as docs/PROTOCOL.md has them: what is sent is built here,
//! what is heard is read here, and nothing is decided.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{ChunkMeta, Gap, Token};
use crate::platform::limits::LONGEST;
use crate::platform::wire::prefix;

pub const SUBPROTOCOL: &str = "reelay.v1";
/// What stands before the payload of a frame.
pub const FRAME_HEAD: usize = 4;
/// A frame with its head.
pub const FRAME_MAX: usize = 64 * 1024;
/// No message of the server may be larger.
pub const HEARD_MAX: usize = 1024 * 1024;

/// One message to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Reauth(Secret),
    /// A frame's head and payload.
    Payload(Vec<u8>),
    Ping,
}

/// A token as it goes into a message; its text is made when it is written.
#[derive(Debug, Clone)]
pub struct Secret(pub Token);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.generation == other.0.generation
    }
}

impl Eq for Secret {}

impl Secret {
    /// The whole message.
    pub fn message(&self) -> String {
        let token = Value::from(self.0.expose());
        format!(r#"{{"type":"reauth","token":{token}}}"#)
    }
}

#[derive(Serialize)]
struct Open<'a> {
    r#type: &'static str,
    channel: u32,
    host: &'a str,
    session: &'a str,
    first: u64,
    last: u64,
}

/// Asks for a channel on behalf of the chunks that are to go over it.
///
/// # Panics
/// If `metas` is empty.
pub fn open(channel: u32, metas: &[ChunkMeta]) -> String {
    let (Some(first), Some(last)) = (metas.first(), metas.last()) else {
        panic!("a channel is opened for a chunk");
    };
    json(&Open {
        r#type: "open",
        channel,
        host: first.host.as_str(),
        session: first.key.session.as_str(),
        first: first.key.sequence,
        last: last.key.sequence,
    })
}

/// Announces the payload that follows.
pub fn chunk(channel: u32, metas: &[ChunkMeta], gaps: &[Gap], late: bool) -> String {
    let metas: Vec<&ChunkMeta> = metas.iter().collect();
    let prefix = prefix(&metas, gaps, late);
    let json = String::from_utf8(prefix.json).expect("JSON is UTF-8");
    let members = json
        .strip_prefix('{')
        .and_then(|json| json.strip_suffix(r#","payload":""#))
        .expect("a request begins as an object and ends where its payload begins");
    let key = prefix.idempotency_key;
    format!(r#"{{"type":"chunk","channel":{channel},"idempotencyKey":"{key}",{members}}}"#)
}

pub fn close(channel: u32) -> String {
    format!(r#"{{"type":"close","channel":{channel}}}"#)
}

fn json(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("strings and numbers serialise")
}

/// An answer within the socket, in the shape of an HTTP one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub status: u16,
    /// `Retry-After` and limits, as far as the message has them.
    pub headers: HeaderMap,
    pub body: String,
}

impl Said {
    pub fn new(status: u16, body: String) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body,
        }
    }

    /// The same with another wait; part of a second is a whole one, so that nobody is early.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        self
    }

    pub fn wait(&self) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        text.parse().ok().map(Duration::from_secs)
    }
}

/// One text message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Opened {
        channel: u32,
        session: String,
        persisted: Vec<Interval>,
        digests: Vec<Named>,
    },
    /// A receipt.
    Ack {
        channel: u32,
        /// The server had every part before.
        known: bool,
        said: Said,
    },
    /// A refusal of one chunk, throttles included.
    Refused {
        channel: u32,
        said: Said,
    },
    /// A throttle of the whole socket.
    Throttle(Said),
    Reauthed {
        accepted: bool,
    },
    Disconnect {
        orderly: bool,
        /// Where it speaks of credentials, rights or limits.
        said: Option<Said>,
    },
    /// Of a later version of the protocol.
    Unknown,
}

/// Sequences, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Interval {
    pub first: u64,
    pub last: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Named {
    pub sequence: u64,
    pub digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    r#type: String,
    channel: Option<u32>,
    session: Option<String>,
    #[serde(default)]
    persisted: Vec<Interval>,
    #[serde(default)]
    digests: Vec<Named>,
    /// Of a receipt; whether it is a good one is judged elsewhere.
    #[serde(default)]
    parts: Value,
    accepted: Option<bool>,
    reason: Option<String>,
    status: Option<u16>,
    retry_after: Option<Value>,
    limits: Option<Value>,
}

/// A message that no server of this protocol sends; the text says what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server's message {0}")]
pub struct NotOurs(&'static str);

const KINDS: [&str; 6] = [
    "opened",
    "ack",
    "error",
    "throttle",
    "reauthed",
    "disconnect",
];

/// # Errors
/// [`NotOurs`]; the socket is of no use then.
pub fn read(text: &str) -> Result<Heard, NotOurs> {
    let shapeless = NotOurs("is not of the protocol");
    let value: Value = serde_json::from_str(text).map_err(|_| shapeless)?;
    let kind = value.get("type").and_then(Value::as_str).ok_or(shapeless)?;
    if !KINDS.contains(&kind) {
        return Ok(Heard::Unknown);
    }
    let message: Message = serde_json::from_value(value).map_err(|_| shapeless)?;
    let channel = || message.channel.ok_or(NotOurs("names no channel"));
    Ok(match message.r#type.as_str() {
        "opened" => Heard::Opened {
            channel: channel()?,
            session: message.session.unwrap_or_default(),
            persisted: message.persisted,
            digests: message.digests,
        },
        "ack" => Heard::Ack {
            channel: channel()?,
            known: all_known(&message.parts),
            said: said(&message, 200, text),
        },
        "error" => {
            let status = message
                .status
                .filter(|status| (400..600).contains(status))
                .ok_or(NotOurs("is an error without the status of one"))?;
            Heard::Refused {
                channel: channel()?,
                said: said(&message, status, text),
            }
        }
        "throttle" => match message.channel {
            Some(channel) => Heard::Refused {
                channel,
                said: said(&message, 429, text),
            },
            None => Heard::Throttle(said(&message, 429, text)),
        },
        "reauthed" => Heard::Reauthed {
            accepted: message.accepted == Some(true),
        },
        _ => disconnect(&message, text),
    })
}

fn all_known(parts: &Value) -> bool {
    let parts = parts.as_array().map_or(&[][..], Vec::as_slice);
    !parts.is_empty() && parts.iter().all(|part| part["status"] == "duplicate")
}

fn disconnect(message: &Message, text: &str) -> Heard {
    let reason = message.reason.as_deref();
    let status = match (reason, message.status) {
        (Some("unauthorized"), _) => Some(401),
        (_, status) => status.filter(|status| [401, 403, 429, 503].contains(status)),
    };
    Heard::Disconnect {
        orderly: matches!(reason, Some("reconnect" | "completed")),
        said: status.map(|status| said(message, status, text)),
    }
}

/// What a close frame says of credentials, rights or limits.
pub fn closed(code: u16, reason: &str) -> Option<Said> {
    let status = match code {
        3000 | 4401 => 401,
        3003 | 4403 => 403,
        4429 => 429,
        _ => return None,
    };
    Some(match serde_json::from_str::<Message>(&typed(reason)) {
        Ok(message) => said(&message, status, reason),
        Err(_) => Said::new(status, reason.to_owned()),
    })
}

/// A close reason has no type, and needs none.
fn typed(reason: &str) -> String {
    match reason.trim_start().strip_prefix('{') {
        Some(members) if !members.trim_start().starts_with('}') => {
            format!(r#"{{"type":"close",{members}"#)
        }
        _ => r#"{"type":"close"}"#.to_owned(),
    }
}

fn said(message: &Message, status: u16, text: &str) -> Said {
    let mut headers = HeaderMap::new();
    for (member, header) in [
        ("allowed", "x-ratelimit-limit"),
        ("remaining", "x-ratelimit-remaining"),
        ("reset", "x-ratelimit-reset"),
    ] {
        let number = message
            .limits
            .as_ref()
            .and_then(|limits| limits.get(member)?.as_u64());
        if let Some(number) = number {
            headers.insert(HeaderName::from_static(header), HeaderValue::from(number));
        }
    }
    let said = Said {
        status,
        headers,
        body: text.to_owned(),
    };
    match message.retry_after.as_ref().and_then(wait) {
        Some(wait) => said.with_wait(wait),
        None => said,
    }
}

/// Seconds as a number, or an ISO 8601 duration of hours, minutes and seconds; never longer than a header's.
fn wait(value: &Value) -> Option<Duration> {
    told(value).map(|wait| wait.min(LONGEST))
}

fn told(value: &Value) -> Option<Duration> {
    match value {
        Value::Number(seconds) => span(seconds.as_f64()?),
        Value::String(text) => {
            let mut rest = text.strip_prefix("PT").filter(|rest| !rest.is_empty())?;
            let mut sum = Duration::ZERO;
            while !rest.is_empty() {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
                let number: f64 = rest[..end].parse().ok()?;
                let unit = match rest.as_bytes()[end] {
                    b'H' => 3600.0,
                    b'M' => 60.0,
                    b'S' => 1.0,
                    _ => return None,
                };
                sum = sum.saturating_add(span(number * unit)?);
                rest = &rest[end + 1..];
            }
            Some(sum)
        }
        _ => None,
    }
}

fn span(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}
