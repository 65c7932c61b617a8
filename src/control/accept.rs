//! Taking one chunk in, and one dead letter's payload out: the two operations that stream. Blocking.

use std::io::{Read, Write};

use crate::model::{ChunkKey, ChunkMeta, ChunkState, HoldView, Timestamp};
use crate::store::{EnqueueError, Enqueued, NewChunk, Outcome};

use super::answer::{snapshot, unknown_tenant};
use super::refusal::{Code, Refusal};
use super::running::Holder;
use super::why;
use super::wire::EnqueuedView;
use super::words;

/// The parts of [`EnqueueError::Full`]'s message that the store cannot know.
struct FullWords<'a> {
    what: &'a str,
    refused: u64,
    most: &'a str,
    hold: Option<&'a HoldView>,
    now: Timestamp,
}

/// Durable when it returns `Ok`.
///
/// # Errors
/// A refusal; the source stays where it is and nothing of it was accepted.
pub fn accept(
    holder: &Holder,
    chunk: NewChunk,
    payload: &mut dyn Read,
) -> Result<EnqueuedView, Refusal> {
    if !holder.config.tenants.contains_key(&chunk.tenant) {
        return Err(unknown_tenant(holder, chunk.tenant.as_str()));
    }
    match holder.store.enqueue(chunk, payload) {
        Ok(enqueued) => Ok(view(enqueued)),
        Err(EnqueueError::Full(full)) => {
            let snapshot = snapshot(holder);
            let of_holder = full
                .holder
                .as_ref()
                .and_then(|tenant| snapshot.tenants.get(tenant.as_str()));
            let message = full_message(&FullWords {
                what: &full.what,
                refused: full.refused,
                most: &full.most,
                hold: of_holder.and_then(|view| why::strongest(&view.gate)),
                now: holder.clock.wall(),
            });
            Err(Refusal::new(Code::Full, message))
        }
        Err(error) => Err(error.into()),
    }
}

/// `store full: 50.0 of 50.0 GiB; 262,144 more bytes refused; nothing was removed. Most is acme: 41 GiB, blocked since 02:14Z`
fn full_message(full: &FullWords<'_>) -> String {
    let mut text = format!(
        "store full: {}; {} more bytes refused; nothing was removed",
        full.what,
        words::count(full.refused)
    );
    let most = full.most.trim().trim_end_matches('.');
    if most.is_empty() {
        return text;
    }
    text.push_str(". ");
    text.push_str(most);
    if let Some(hold) = full.hold {
        let word = match hold.kind.as_str() {
            "operator" => "paused",
            "not_configured" => "not configured",
            kind => kind,
        };
        text.push_str(&format!(", {word}"));
        if let Some(since) = &hold.since {
            text.push_str(&format!(" since {}", words::moment_of(since, full.now)));
        }
    }
    text
}

fn view(enqueued: Enqueued) -> EnqueuedView {
    let state = match enqueued.outcome {
        Outcome::Accepted => None,
        Outcome::Known(state) => Some(state_word(state).to_owned()),
    };
    EnqueuedView {
        tenant: enqueued.key.tenant,
        session: enqueued.key.session,
        sequence: enqueued.key.sequence,
        bytes: enqueued.bytes,
        known: state.is_some(),
        state,
    }
}

pub fn state_word(state: ChunkState) -> &'static str {
    match state {
        ChunkState::Live | ChunkState::Moved => "waiting",
        ChunkState::Confirming => "confirming",
        ChunkState::Delivered => "delivered",
        ChunkState::Dead => "dead",
        ChunkState::Purged => "purged",
    }
}

/// Opens a dead letter's payload, verified as it is read.
///
/// # Errors
/// Not dead, or not readable.
pub fn dead_payload(
    holder: &Holder,
    key: &ChunkKey,
) -> Result<(ChunkMeta, Box<dyn Read + Send>), Refusal> {
    holder
        .store
        .dead_payload(key)?
        .ok_or_else(|| Refusal::new(Code::NotFound, format!("{key} is not a dead letter")))
}

/// # Errors
/// The reader's complaint (damaged payload) or the writer's.
pub fn copy(payload: &mut dyn Read, to: &mut dyn Write) -> Result<u64, Refusal> {
    std::io::copy(payload, to)
        .map_err(|error| Refusal::new(Code::Storage, format!("payload copy: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_says_by_how_much_who_holds_most_and_why_it_does_not_move() {
        let hold = HoldView {
            kind: "blocked".into(),
            route: None,
            reason: String::new(),
            until: None,
            since: Some("2026-03-01T02:14:00.000Z".into()),
            last: None,
        };
        let mut full = FullWords {
            what: "50.0 of 50.0 GiB",
            refused: 262_144,
            most: " Most is acme: 41 GiB",
            hold: Some(&hold),
            now: Timestamp::parse("2026-03-01T12:00:00Z").unwrap(),
        };
        assert_eq!(
            full_message(&full),
            "store full: 50.0 of 50.0 GiB; 262,144 more bytes refused; nothing was removed. \
             Most is acme: 41 GiB, blocked since 02:14Z"
        );
        full.hold = None;
        full.most = "";
        assert!(full_message(&full).ends_with("nothing was removed"));
    }
}
