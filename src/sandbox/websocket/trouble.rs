//! What a fault rule makes of a socket: it is opened like any other, and goes wrong after so many messages.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::fields::Fields;
use crate::sandbox::reply::Reply;

/// One rule's `{"socket": …}`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::sandbox) enum Trouble {
    /// When so many messages went in both directions together.
    After(u64, Deed),
    /// The connection is reset after so many bytes of it, wherever that is.
    CutAfterBytes(u64),
    /// Chunks are stored and never acknowledged.
    NoAcks,
    SlowAcks(Duration),
    Reauth(OnReauth),
}

#[derive(Debug, Clone, PartialEq)]
pub(in crate::sandbox) enum Deed {
    Cut,
    Close(u16, String),
    Say(Value),
    /// A message, and then the end that it announces.
    Disconnect(Value),
    /// Bytes that are no frame.
    Garbage,
    /// A text message of this size.
    Huge(usize),
    /// Nothing is read or written any more.
    Deaf,
}

/// What a rule for deliveries does after half of a chunk's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtHalf {
    Cut,
    /// The token that covers the socket ends, and the socket with it.
    Expire,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum OnReauth {
    Drop,
    Refuse,
    Ignore,
}

impl Trouble {
    pub(in crate::sandbox) fn read(value: &Value, at: &str) -> Result<Self, Reply> {
        let prefix = format!("{at}.");
        let known = [
            "socket",
            "after_messages",
            "after_bytes",
            "code",
            "reason",
            "status",
            "retry_after",
            "bytes",
            "ms",
            "message",
        ];
        let fields = Fields::of(value, &prefix, &known)?;
        let word = fields.text("socket")?;
        let deed = match word {
            "no_acks" => return Ok(Self::NoAcks),
            "slow_acks" => {
                let pause = Duration::from_millis(fields.count("ms")?);
                return Ok(Self::SlowAcks(pause));
            }
            "reauth_drop" => return Ok(Self::Reauth(OnReauth::Drop)),
            "reauth_refuse" => return Ok(Self::Reauth(OnReauth::Refuse)),
            "reauth_ignore" => return Ok(Self::Reauth(OnReauth::Ignore)),
            "cut" if fields.optional("after_bytes").is_some() => {
                return Ok(Self::CutAfterBytes(fields.count("after_bytes")?));
            }
            "cut" => Deed::Cut,
            "close" => close(&fields)?,
            "disconnect" => disconnect(&fields)?,
            "throttle" => Deed::Say(json!({
                "type": "throttle",
                "retryAfter": fields.value("retry_after")?,
                "code": "too.many.requests",
                "message": "Rate limit exceeded the maximum.",
            })),
            "say" => Deed::Say(fields.value("message")?.clone()),
            "garbage" => Deed::Garbage,
            "huge" => {
                let bytes = usize::try_from(fields.count("bytes")?);
                let bytes = bytes.ok().filter(|bytes| *bytes <= HUGE_MAX);
                Deed::Huge(bytes.ok_or_else(|| fields.refuse("bytes", "are too many"))?)
            }
            "deaf" => Deed::Deaf,
            _ => return Err(fields.refuse("socket", "is no known trouble")),
        };
        let after = fields
            .optional("after_messages")
            .map(|_| fields.count("after_messages"))
            .transpose()?;
        Ok(Self::After(after.unwrap_or(0), deed))
    }
}

/// Larger than anything a client may take.
const HUGE_MAX: usize = 64 * 1024 * 1024;
/// As much as a close frame carries.
const REASON_MAX: usize = 123;

fn close(fields: &Fields<'_>) -> Result<Deed, Reply> {
    let code = u16::try_from(fields.count("code")?);
    let code = code.ok().filter(|code| (1000..5000).contains(code));
    let code = code.ok_or_else(|| fields.refuse("code", "is no close code"))?;
    let reason = fields.optional("reason").map(|_| fields.text("reason"));
    let reason = reason.transpose()?.unwrap_or_default();
    if reason.len() > REASON_MAX {
        return Err(fields.refuse("reason", "is longer than a close frame"));
    }
    Ok(Deed::Close(code, reason.to_owned()))
}

fn disconnect(fields: &Fields<'_>) -> Result<Deed, Reply> {
    let mut message = json!({"type": "disconnect", "reason": fields.text("reason")?});
    for (member, named) in [("status", "status"), ("retry_after", "retryAfter")] {
        if let Some(value) = fields.optional(member) {
            message[named] = value.clone();
        }
    }
    Ok(Deed::Disconnect(message))
}
