//! Group commit: what waits while one commit syncs is the next commit. There is no timer.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::error::{EnqueueError, Full, StoreError};
use super::frame::Kind;
use super::inner::{Inner, SegmentSlot};
use super::layout::{ALIGN, PAGE, Position, align};
use super::queue::{ChunkRequest, Committed, NoteAt, Request};
use super::record::{ChunkRecord, Note};
use super::roll;
use super::segment::NewFrame;
use super::types::SequenceChoice;
use super::word::Word;
use crate::model::{ChunkKey, ChunkMeta, Timestamp};
use crate::sabotage::{Sabotage, stop_at};

/// The segment that this opening writes, owned by the committer.
pub struct Active {
    pub slot: Arc<SegmentSlot>,
    /// Where the next commit begins.
    pub end: u64,
    pub next_ordinal: u32,
}

/// The committer's thread: runs until the queue is closed and empty. A panic closes the queue, so that nobody waits for
/// an answer that cannot come, and takes the index with it, so that the process ends by itself.
pub fn run(inner: &Inner) {
    let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(inner)));
    if served.is_err() {
        inner.commits.close();
        inner.commits.abandon();
        inner
            .index
            .lose(&super::index::IndexFault::CommitterPanicked);
    }
}

fn serve(inner: &Inner) {
    let mut active: Option<Active> = None;
    let mut backlog = VecDeque::new();
    let mut retry = Duration::from_millis(100);
    loop {
        if inner.latched().is_some() {
            match roll::open_active(inner, &mut active) {
                Ok(()) => {
                    inner.unlatch();
                    retry = Duration::from_millis(100);
                }
                Err(_) => {
                    let Some(taken) = inner.commits.take(Some(retry)) else {
                        return;
                    };
                    refuse_latched(inner, taken);
                    retry = (retry * 2).min(Duration::from_secs(5));
                    continue;
                }
            }
        }
        if backlog.is_empty() {
            match inner.commits.take(None) {
                Some(taken) => backlog = taken,
                None => return,
            }
        }
        backlog = commit(inner, &mut active, backlog);
        if inner.latched().is_some() {
            refuse_latched(inner, std::mem::take(&mut backlog));
        }
    }
}

fn refuse_latched(inner: &Inner, requests: VecDeque<Request>) {
    if let Some(latched) = inner.latched() {
        for request in requests {
            request.latched(&latched);
        }
    }
}

/// One frame of the commit under way and who waits for it.
struct Planned {
    frame: NewFrame,
    what: What,
}

enum What {
    Chunk {
        meta: ChunkMeta,
        reply: SyncSender<Result<Committed, EnqueueError>>,
    },
    Note {
        note: Note,
        reply: SyncSender<Result<NoteAt, StoreError>>,
    },
}

/// Writes as many of the requests as one commit takes and returns the rest.
fn commit(
    inner: &Inner,
    active: &mut Option<Active>,
    requests: VecDeque<Request>,
) -> VecDeque<Request> {
    let (planned, rest) = plan(inner, active, requests);
    if planned.is_empty() {
        return rest;
    }
    let current = active.as_mut().expect("a plan has a segment");
    match write(inner, current, &planned) {
        Ok(placed) => publish(inner, current, planned, &placed),
        Err(error) => {
            let latched = inner.latch(&error, &current.slot);
            *active = None;
            for Planned { what, .. } in planned {
                match what {
                    What::Chunk { reply, .. } => {
                        drop(reply.send(Err(EnqueueError::Latched(latched.clone()))));
                    }
                    What::Note { reply, .. } => {
                        drop(reply.send(Err(StoreError::Latched(latched.clone()))));
                    }
                }
            }
        }
    }
    rest
}

/// Decides what each request is, in order, until the segment is full.
fn plan(
    inner: &Inner,
    active: &mut Option<Active>,
    mut requests: VecDeque<Request>,
) -> (Vec<Planned>, VecDeque<Request>) {
    let mut planned: Vec<Planned> = Vec::new();
    let mut under_way: HashSet<ChunkKey> = HashSet::new();
    let mut deferred = VecDeque::new();
    let now = inner.clock.wall();
    let mut end = active.as_ref().map_or(0, |active| active.end);
    while let Some(request) = requests.pop_front() {
        let prepared = match request {
            Request::Note(note, reply) => Some(plan_note(inner, *note, reply, now)),
            Request::Chunk(chunk, reply) => {
                match plan_chunk(inner, chunk, reply, now, &under_way) {
                    Decision::Write(planned) => Some(*planned),
                    Decision::Answered => None,
                    Decision::Later(request) => {
                        deferred.push_back(request);
                        None
                    }
                }
            }
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
            if let Err(error) = roll::open_active(inner, active) {
                refuse(inner, frame, error);
                continue;
            }
            end = active.as_ref().expect("opened above").end;
        }
        end += frame.frame.bytes();
        if let What::Chunk { meta, .. } = &frame.what {
            under_way.insert(meta.key.clone());
        }
        planned.push(frame);
    }
    deferred.append(&mut requests);
    (planned, deferred)
}

fn fits(active: &Active, end: u64, planned: &[Planned], next: &Planned) -> bool {
    let layout = active.slot.segment.layout;
    match next.what {
        What::Note { .. } => end + next.frame.bytes() + PAGE <= layout.segment_bytes,
        What::Chunk { .. } => {
            let chunks = planned
                .iter()
                .filter(|p| matches!(p.what, What::Chunk { .. }))
                .count();
            let words_left = layout.words() - active.next_ordinal;
            (chunks as u32) < words_left && end + next.frame.bytes() + PAGE <= layout.chunk_end()
        }
    }
}

fn unplan(inner: &Inner, planned: Planned) -> Request {
    match planned.what {
        What::Note { note, reply } => Request::Note(Box::new(note), reply),
        What::Chunk { meta, reply } => {
            let Kind::Chunk { solo, .. } = planned.frame.kind else {
                unreachable!("a chunk's frame is a chunk")
            };
            let choice = SequenceChoice::Exactly(meta.key.sequence);
            let NewFrame {
                block_crcs,
                payload,
                ..
            } = planned.frame;
            let replaces = inner.is_not_replaced(&meta.key);
            let chunk = ChunkRequest {
                meta,
                choice,
                block_crcs,
                payload,
                solo,
                replaces,
            };
            Request::Chunk(Box::new(chunk), reply)
        }
    }
}

fn refuse(inner: &Inner, planned: Planned, error: io::Error) {
    match planned.what {
        What::Note { reply, .. } => drop(reply.send(Err(StoreError::Io(error)))),
        What::Chunk { meta, reply } => {
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
    under_way: &HashSet<ChunkKey>,
) -> Decision {
    let session = chunk.meta.key.session_key();
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
    let ChunkRequest {
        meta,
        block_crcs,
        payload,
        solo,
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
        accepted_at: now,
    };
    Decision::Write(Box::new(Planned {
        frame,
        what: What::Chunk { meta, reply },
    }))
}

/// One vectored write, the words, one sync, then the synced word, which needs none.
fn write(inner: &Inner, active: &mut Active, planned: &[Planned]) -> io::Result<Vec<u32>> {
    const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
    let segment = &active.slot.segment;
    let synced = Position {
        segment: segment.id,
        offset: active.end as u32,
    };
    let mut starts = Vec::with_capacity(planned.len());
    let mut heads = Vec::with_capacity(planned.len());
    let mut words = Vec::new();
    let mut at = active.end;
    for (index, Planned { frame, .. }) in planned.iter().enumerate() {
        let mut kind = frame.kind;
        if let Kind::Chunk { ordinal, .. } = &mut kind {
            *ordinal = active.next_ordinal + words.len() as u32;
            words.push(Word::new(at as u32));
        }
        let ends_commit = index + 1 == planned.len();
        heads.push(frame.encode_as(kind, segment.nonce, at, synced, ends_commit));
        starts.push(at as u32);
        at += frame.bytes();
    }
    let mut parts: Vec<&[u8]> = Vec::with_capacity(3 * planned.len());
    for (head, Planned { frame, .. }) in heads.iter().zip(planned) {
        let padding = frame.bytes() as usize - head.len() - frame.payload.len();
        parts.extend([head.as_slice(), &frame.payload, &ZEROS[..padding]]);
    }
    let end = align(at, PAGE);
    if inner.sabotaged.is(Sabotage::AnswerBeforeWrite) {
        answer_early(planned);
    }
    stop_at("writing");
    segment.file()?.write_at(&parts, active.end)?;
    stop_at("between_frames_and_words");
    if !words.is_empty() {
        segment.write_words(active.next_ordinal, &words)?;
    }
    if inner.sabotaged.is(Sabotage::AckBeforeSync) {
        answer_early(planned);
    }
    if !inner.sabotaged.is(Sabotage::SkipSync) {
        match segment.sync() {
            Err(_) if inner.sabotaged.is(Sabotage::TrustFailedSync) => {}
            other => other?,
        }
    }
    segment.write_synced(end as u32)?;
    stop_at("between_sync_and_yes");
    active.end = end;
    active.next_ordinal += words.len() as u32;
    Ok(starts)
}

/// A deliberate defect, for a test that must see it.
fn answer_early(planned: &[Planned]) {
    for Planned { what, .. } in planned {
        if let What::Chunk { meta, reply } = what {
            drop(reply.try_send(Ok(Committed::Accepted(meta.key.sequence))));
        }
    }
}

/// Makes the commit visible, then answers.
fn publish(inner: &Inner, active: &Active, planned: Vec<Planned>, starts: &[u32]) {
    let chunks = planned
        .iter()
        .filter(|p| matches!(p.what, What::Chunk { .. }))
        .count() as u32;
    let mut ordinal = active.next_ordinal - chunks;
    inner.grow(&active.slot, active.end as u32, chunks);
    for (Planned { frame, what }, &start) in planned.into_iter().zip(starts) {
        match what {
            What::Chunk { meta, reply } => {
                inner.accepted(&active.slot, ordinal, start, &frame, &meta);
                ordinal += 1;
                // A producer that went away has its chunk accepted all the same.
                drop(reply.try_send(Ok(Committed::Accepted(meta.key.sequence))));
            }
            What::Note { note, reply } => {
                let at = NoteAt {
                    segment: active.slot.segment.id,
                    start,
                };
                inner.noted(note, at);
                drop(reply.send(Ok(at)));
            }
        }
    }
}
