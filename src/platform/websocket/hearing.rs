//! What the server's messages do to the lane.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::lane::Lane;
use super::order::{Action, End, Event, Outcome};
use super::socket::{SocketId, Step};
use super::wire::{self, Heard, Interval, Named, Said};
use crate::model::ChunkMeta;
use crate::platform::classify::Sent;

impl Lane {
    pub fn event(&mut self, socket: SocketId, event: Event, now: Duration) {
        let Some(at) = self.at(socket) else {
            // It was hung up; its last words are not waited for.
            return;
        };
        match event {
            Event::Opened => {
                self.sockets[at].opened(now);
                self.place_pending(now);
            }
            Event::Refused(refusal) => self.refused(at, &refusal, now),
            Event::Written => {
                self.sockets[at].written(now);
                self.flush(now);
            }
            Event::Alive => self.sockets[at].alive(now),
            Event::Text(text) => {
                self.sockets[at].alive(now);
                match wire::read(&text) {
                    Ok(heard) => self.heard(at, heard, now),
                    Err(error) => self.hang(at, &End::broken(error.to_string()), now),
                }
            }
            Event::Ended { closed, message } => {
                let offered = self.sockets[at].reauth.is_some();
                let code = closed.as_ref().map(|(code, _)| *code);
                let end = End {
                    message,
                    said: closed.and_then(|(code, reason)| wire::closed(code, &reason)),
                    // Some servers answer the offer of a token by dropping the socket.
                    orderly: offered || matches!(code, Some(1000 | 1001)),
                };
                self.ended(at, &end, now);
            }
        }
    }

    /// We end the socket.
    pub(super) fn hang(&mut self, at: usize, end: &End, now: Duration) {
        self.act(Action::Hang(self.sockets[at].id));
        self.ended(at, end, now);
    }

    fn heard(&mut self, at: usize, heard: Heard, now: Duration) {
        match heard {
            Heard::Opened {
                channel,
                session,
                persisted,
                digests,
            } => self.opened(at, channel, &session, &persisted, digests, now),
            Heard::Ack {
                channel,
                known,
                said,
            } => self.ack(at, channel, known, said, now),
            Heard::Refused { channel, said } => {
                if let Some(upload) = self.sockets[at].upload(channel) {
                    let (order, sent) = (upload.order, upload.sent());
                    self.sockets[at].drop_channel(channel, now);
                    self.sockets[at].answered_at = now;
                    self.settle(order, sent, Outcome::Said(said));
                } else {
                    self.sockets[at].drop_channel(channel, now);
                }
            }
            Heard::Throttle(said) => self.throttle(said, now),
            Heard::Reauthed { accepted } => self.reauthed(at, accepted, now),
            Heard::Disconnect { orderly, said } => {
                let end = End {
                    message: "the server disconnected".into(),
                    said,
                    orderly,
                };
                self.hang(at, &end, now);
            }
            Heard::Unknown => {}
        }
        self.place_pending(now);
    }

    /// A receipt settles only what was sent. One for what the server had already may have been said before the last byte
    /// came, and nobody here can tell: the channel ends with it on both sides, or the next chunk would get no answer.
    fn ack(&mut self, at: usize, channel: u32, known: bool, said: Said, now: Duration) {
        let Some(upload) = self.sockets[at].upload(channel) else {
            return;
        };
        let (order, sent) = (upload.order, upload.sent());
        let ends = self.orders[&order].metas.iter().any(|meta| meta.last);
        match sent {
            Sent::Nothing => return,
            Sent::All if !known && !ends => self.sockets[at].free(channel, now),
            Sent::Part | Sent::All => self.sockets[at].abandon(channel, now),
        }
        self.acked(at, now);
        self.settle(order, sent, Outcome::Said(said));
    }

    fn reauthed(&mut self, at: usize, accepted: bool, now: Duration) {
        let Some((generation, _)) = self.sockets[at].reauth.take() else {
            return;
        };
        if accepted {
            self.sockets[at].generation = generation;
        } else {
            self.leave(at, now);
        }
    }

    /// What the server has of a chunk with the same digest is delivered; the rest is sent.
    fn opened(
        &mut self,
        at: usize,
        channel: u32,
        session: &str,
        persisted: &[Interval],
        digests: Vec<Named>,
        now: Duration,
    ) {
        let Some(upload) = self.sockets[at].upload(channel) else {
            return;
        };
        if !matches!(upload.step, Step::Opening { .. }) {
            return;
        }
        let id = upload.order;
        let order = self
            .orders
            .get_mut(&id)
            .expect("an order lives until it is settled");
        if order.session().1.as_str() != session {
            let why = "the server opened another session than was asked for";
            return self.hang(at, &End::broken(why), now);
        }
        let has = |sequence: u64| {
            let mut intervals = persisted.iter();
            intervals.any(|i| (i.first..=i.last).contains(&sequence))
        };
        let digests = digests.into_iter().filter(|named| has(named.sequence));
        match compare(&order.metas, digests) {
            Persisted::Otherwise(parts) => {
                self.sockets[at].abandon(channel, now);
                let said = Said::new(409, receipt(session, &parts));
                self.settle(id, Sent::Nothing, Outcome::Said(said));
            }
            Persisted::Whole(parts) => {
                self.sockets[at].free(channel, now);
                let said = Said::new(208, receipt(session, &parts));
                self.settle(id, Sent::Nothing, Outcome::Said(said));
            }
            Persisted::Partly(left) => {
                order.metas.retain(|meta| left.contains(&meta.key.sequence));
                let bytes = order.bytes();
                let (first, last) = left.into_inner();
                self.act(Action::Keep {
                    order: id,
                    first,
                    last,
                });
                self.sockets[at].announce(channel, bytes);
            }
            Persisted::Nothing => {
                let bytes = order.bytes();
                self.sockets[at].announce(channel, bytes);
            }
        }
    }
}

/// What a server has of an order.
#[derive(Debug, PartialEq, Eq)]
enum Persisted {
    Nothing,
    /// These sequences are left.
    Partly(RangeInclusive<u64>),
    Whole(Vec<Named>),
    /// Other bytes.
    Otherwise(Vec<Named>),
}

fn compare(metas: &[ChunkMeta], digests: impl Iterator<Item = Named>) -> Persisted {
    let first = metas[0].key.sequence;
    let mut known = vec![false; metas.len()];
    let (mut alike, mut other) = (Vec::new(), Vec::new());
    for named in digests {
        let index = named.sequence.checked_sub(first).map(usize::try_from);
        let Some(Ok(index)) = index.filter(|index| matches!(index, Ok(i) if *i < metas.len()))
        else {
            continue;
        };
        // A digest of another kind says nothing: the chunk is sent, and the server compares.
        match named.digest.parse() {
            Ok(digest) if metas[index].digest == digest => {
                known[index] = true;
                alike.push(named);
            }
            Ok(_) => other.push(named),
            Err(_) => {}
        }
    }
    if !other.is_empty() {
        return Persisted::Otherwise(other);
    }
    let missing = |known: &bool| !known;
    let (Some(from), Some(to)) = (
        known.iter().position(missing),
        known.iter().rposition(missing),
    ) else {
        return Persisted::Whole(alike);
    };
    if from == 0 && to + 1 == metas.len() {
        return Persisted::Nothing;
    }
    Persisted::Partly(metas[from].key.sequence..=metas[to].key.sequence)
}

/// What `opened` says, in the words of a receipt.
fn receipt(session: &str, parts: &[Named]) -> String {
    let parts = parts.iter().map(|named| {
        serde_json::json!({"sequence": named.sequence, "digest": named.digest, "status": "duplicate"})
    });
    serde_json::json!({"session": session, "parts": parts.collect::<Vec<_>>()}).to_string()
}
