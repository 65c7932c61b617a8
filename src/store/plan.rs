//! Deciding what one commit writes: which chunks are new, which were accepted before, which sequence each gets, and how
//! much fits the segment.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::SyncSender;

use super::commit::Active;
use super::error::{EnqueueError, Full, StoreError};
use super::frame::Kind;
use super::inner::Inner;
use super::layout::PAGE;
use super::moving::{Copied, CopyRequest, Source};
use super::queue::{ChunkRequest, Committed, NoteAt, Request};
use super::record::{ChunkRecord, Note};
use super::reserve::or_with_reserve;
use super::roll;
use super::segment::NewFrame;
use super::types::SequenceChoice;
use crate::model::{ChunkMeta, Timestamp};

/// One frame of the commit under way and who waits for it.
pub struct Planned {
    pub frame: NewFrame,
    pub what: What,
}

/// A planned frame's content in the program's words, and where its answer goes.
pub enum What {
    Chunk {
        meta: ChunkMeta,
        reply: SyncSender<Result<Committed, EnqueueError>>,
    },
    Note {
        note: Note,
        reply: SyncSender<Result<NoteAt, StoreError>>,
    },
    Copy {
        source: Source,
        reply: SyncSender<Result<Copied, StoreError>>,
    },
}

impl What {
    /// Whether it takes a word of the state table.
    fn has_word(&self) -> bool {
        !matches!(self, Self::Note { .. })
    }
}

/// Decides what each request is, in order, until the segment is full.
pub fn plan(
    inner: &Inner,
    active: &mut Option<Active>,
    mut requests: VecDeque<Request>,
) -> (Vec<Planned>, VecDeque<Request>) {
    let mut planned: Vec<Planned> = Vec::new();
    let mut deferred = VecDeque::new();
    let now = inner.clock.wall();
    let mut end = active.as_ref().map_or(0, |active| active.end);
    while let Some(request) = requests.pop_front() {
        let prepared = match request {
            Request::Note(note, reply) => Some(plan_note(inner, *note, reply, now)),
            Request::Copy(copy, reply) => {
                let CopyRequest { frame, source } = *copy;
                let what = What::Copy { source, reply };
                Some(Planned { frame, what })
            }
            Request::Chunk(chunk, reply) => match plan_chunk(inner, chunk, reply, now) {
                Decision::Write(planned) => Some(*planned),
                Decision::Answered => None,
                Decision::Later(request) => {
                    deferred.push_back(request);
                    None
                }
            },
        };
        let Some(frame) = prepared else { continue };
        let room = active
            .as_ref()
            .is_some_and(|active| fits(active, end, &planned, &frame));
        if !room {
            if !planned.is_empty() {
                requests.push_front(unplan(inner, frame));
                break;
            }
            // The next segment's header says where this one ends.
            inner.stage.wait_until_idle();
            if inner.latched().is_some() {
                requests.push_front(unplan(inner, frame));
                break;
            }
            // What is owed may use the last space; what is new may not.
            let opened = match frame.what {
                What::Chunk { .. } => roll::open_active(inner, active),
                _ => or_with_reserve(inner, || roll::open_active(inner, active)),
            };
            if let Err(error) = opened {
                refuse(inner, frame, error);
                continue;
            }
            end = active.as_ref().expect("opened above").end;
        }
        end += frame.frame.bytes();
        planned.push(frame);
    }
    deferred.append(&mut requests);
    (planned, deferred)
}

fn fits(active: &Active, end: u64, planned: &[Planned], next: &Planned) -> bool {
    let layout = active.slot.segment.layout;
    match next.what {
        What::Note { .. } => end + next.frame.bytes() + PAGE <= layout.segment_bytes,
        What::Chunk { .. } | What::Copy { .. } => {
            let chunks = planned.iter().filter(|p| p.what.has_word()).count();
            let words_left = layout.words() - active.next_ordinal;
            (chunks as u32) < words_left && end + next.frame.bytes() + PAGE <= layout.chunk_end()
        }
    }
}

fn unplan(inner: &Inner, planned: Planned) -> Request {
    match planned.what {
        What::Note { note, reply } => Request::Note(Box::new(note), reply),
        What::Copy { source, reply } => {
            let frame = planned.frame;
            Request::Copy(Box::new(CopyRequest { frame, source }), reply)
        }
        What::Chunk { meta, reply } => {
            let Kind::Chunk { solo, .. } = planned.frame.kind else {
                unreachable!("a chunk's frame is a chunk")
            };
            let choice = SequenceChoice::Exactly(meta.key.sequence);
            let NewFrame {
                block_crcs,
                payload,
                accepted_at,
                ..
            } = planned.frame;
            let replaces = inner.is_not_replaced(&meta.key);
            inner.under_way().remove(&meta.key);
            let chunk = ChunkRequest {
                meta,
                choice,
                block_crcs,
                payload,
                solo,
                replaces,
                accepted_at: Some(accepted_at),
            };
            Request::Chunk(Box::new(chunk), reply)
        }
    }
}

fn refuse(inner: &Inner, planned: Planned, error: io::Error) {
    match planned.what {
        What::Note { reply, .. } => drop(reply.send(Err(StoreError::Io(error)))),
        What::Copy { reply, .. } => drop(reply.send(Err(StoreError::Io(error)))),
        What::Chunk { meta, reply } => {
            inner.is_not_replaced(&meta.key);
            inner.under_way().remove(&meta.key);
            let refusal = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    EnqueueError::Full(Full {
                        what: format!("no space left on {}", inner.dir.display()),
                        refused: meta.bytes,
                        most: String::new(),
                        holder: None,
                    })
                }
                _ => EnqueueError::Io(error),
            };
            drop(reply.send(Err(refusal)));
        }
    }
}

fn plan_note(
    inner: &Inner,
    note: Note,
    reply: SyncSender<Result<NoteAt, StoreError>>,
    now: Timestamp,
) -> Planned {
    let frame = NewFrame {
        kind: Kind::Note,
        record: note.encode(),
        block_crcs: Vec::new(),
        payload: Vec::new(),
        number: inner.next_number(),
        accepted_at: now,
    };
    Planned {
        frame,
        what: What::Note { note, reply },
    }
}

enum Decision {
    Write(Box<Planned>),
    Answered,
    /// The same key is in the commit under way: decided once that is durable.
    Later(Request),
}

fn plan_chunk(
    inner: &Inner,
    mut chunk: Box<ChunkRequest>,
    reply: SyncSender<Result<Committed, EnqueueError>>,
    now: Timestamp,
) -> Decision {
    let session = chunk.meta.key.session_key();
    let mut under_way = inner.under_way();
    let mut sessions = inner.sessions();
    let state = sessions.entry(&session);
    let accepted = &state.accepted;
    match chunk.choice {
        SequenceChoice::Exactly(sequence) => chunk.meta.key.sequence = sequence,
        SequenceChoice::Next { .. } => {
            let mut sequence = accepted.highest().map_or(0, |highest| highest + 1);
            chunk.meta.key.sequence = sequence;
            while under_way.contains(&chunk.meta.key) {
                sequence += 1;
                chunk.meta.key.sequence = sequence;
            }
        }
    }
    let sequence = chunk.meta.key.sequence;
    if under_way.contains(&chunk.meta.key) {
        return Decision::Later(Request::Chunk(chunk, reply));
    }
    if accepted.contains(sequence) && !(chunk.replaces && inner.replaced(&chunk.meta.key)) {
        drop(reply.send(Ok(Committed::Member)));
        return Decision::Answered;
    }
    if !accepted.has_room_for(sequence) {
        drop(reply.send(Err(EnqueueError::TooManyGaps {
            session: session.session.to_string(),
            limit: super::intervals::INTERVALS_MAX,
        })));
        return Decision::Answered;
    }
    drop(sessions);
    under_way.insert(chunk.meta.key.clone());
    drop(under_way);
    let ChunkRequest {
        meta,
        block_crcs,
        payload,
        solo,
        accepted_at,
        ..
    } = *chunk;
    let frame = NewFrame {
        // The ordinal is given when the frame gets its place.
        kind: Kind::Chunk {
            ordinal: 0,
            payload_bytes: meta.bytes,
            solo,
        },
        record: ChunkRecord::encode(&meta),
        block_crcs,
        payload,
        number: inner.next_number(),
        accepted_at: accepted_at.unwrap_or(now),
    };
    Decision::Write(Box::new(Planned {
        frame,
        what: What::Chunk { meta, reply },
    }))
}
