//! An HTTP answer in the words of a socket.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sandbox::fields::Fields;
use crate::sandbox::reply::{Content, Reply};
use crate::sandbox::world::World;

use super::talk::Breach;

/// What `reply` says to a chunk of `tenant` on `channel`, under the socket's token.
pub(super) fn message(
    world: &World,
    (tenant, token): (&str, &str),
    channel: u32,
    reply: &Reply,
    now: Duration,
) -> Value {
    let kind = match reply.status {
        200..300 => "ack",
        429 => "throttle",
        _ => "error",
    };
    let mut message = json!({"type": kind, "channel": channel, "status": reply.status});
    match &reply.content {
        Content::Json(Value::Object(body)) => {
            for (name, value) in body {
                message[name] = value.clone();
            }
        }
        _ => message["message"] = Value::from(String::from_utf8_lossy(&reply.rendered().0)),
    }
    if kind == "ack" {
        // A receipt has no status of its own; its parts have.
        message.as_object_mut().expect("it is one").remove("status");
    }
    if let Some(wait) = reply.header("Retry-After") {
        message["retryAfter"] = wait.parse::<u64>().map_or(Value::from(wait), Value::from);
    }
    if let Some(quota) = &world.tenants[tenant].settings.quota
        && let Some(limits) = quota.limits(Some(token), now)
    {
        message["limits"] = limits;
    }
    message
}

/// A receipt for what was there already ends its channel, whether or not the payload came first.
pub(super) fn all_known(reply: &Reply) -> bool {
    let Content::Json(body) = &reply.content else {
        return false;
    };
    let parts = body["parts"].as_array().map_or(&[][..], Vec::as_slice);
    !parts.is_empty() && parts.iter().all(|part| part["status"] == "duplicate")
}

pub(super) fn channel(fields: &Fields<'_>) -> Result<u32, Breach> {
    let number = fields
        .count("channel")
        .map_err(|reply| Breach(reply.message()))?;
    u32::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| Breach(format!("{number} is no channel")))
}

pub(super) fn in_progress(session: &str) -> Reply {
    let message = format!("Session {session} has an unpersisted chunk on another channel.");
    Reply::error(409, "request.in.progress", &message)
}
