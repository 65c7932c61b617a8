//! Group commit: what waits while one commit syncs is the next commit. There is no timer.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::error::{EnqueueError, StoreError};
use super::frame::Kind;
use super::inner::{Inner, SegmentSlot};
use super::layout::{ALIGN, PAGE, Position, align};
use super::plan::{Planned, What, plan};
use super::queue::{Committed, NoteAt, Request};
use super::roll;
use super::word::Word;
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
                    What::Chunk { meta, reply } => {
                        // A replacement that was not written may be tried again.
                        inner.is_not_replaced(&meta.key);
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
