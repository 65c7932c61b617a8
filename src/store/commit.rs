//! Group commit, its first half: takes what waits, decides, writes. What is written while one sync is under way shares
//! the next ([`super::durable`]). There is no timer.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::durable::{self, Written};
use super::frame::Kind;
use super::inner::{Inner, SegmentSlot};
use super::layout::{ALIGN, PAGE, Position, align};
use super::plan::{Planned, What, plan};
use super::queue::{Committed, Request};
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
    inner.stage.close();
}

fn serve(inner: &Inner) {
    let mut active: Option<Active> = None;
    let mut backlog = VecDeque::new();
    let mut sync = false;
    let mut retry = Duration::from_millis(100);
    loop {
        if inner.latched().is_some() {
            active = None;
            // Nothing of the abandoned segment is answered after the latch is lifted.
            inner.stage.wait_until_idle();
            match roll::open_active(inner, &mut active) {
                Ok(()) => {
                    inner.unlatch();
                    retry = Duration::from_millis(100);
                }
                Err(_) => {
                    let Some(taken) = inner.commits.take_latched(retry) else {
                        return;
                    };
                    refuse_latched(inner, taken);
                    retry = (retry * 2).min(Duration::from_secs(5));
                    continue;
                }
            }
        }
        if backlog.is_empty() {
            match inner.commits.take(&inner.stage, inner.clock.as_ref()) {
                Some(batch) => (backlog, sync) = (batch.requests, batch.sync),
                None => return,
            }
        }
        if inner.stage.is_closed() {
            // The syncer panicked: dropping what waits tells its producers.
            return;
        }
        backlog = commit(inner, &mut active, backlog);
        if sync && backlog.is_empty() {
            durable::begin_sync(inner);
        }
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

/// Writes as many of the requests as one write takes and returns the rest.
fn commit(
    inner: &Inner,
    active: &mut Option<Active>,
    requests: VecDeque<Request>,
) -> VecDeque<Request> {
    let (mut planned, rest) = plan(inner, active, requests);
    if planned.is_empty() {
        // What is left waits for the answer to an equal key, or for a segment that was given up.
        if !rest.is_empty() {
            inner.stage.wait_until_idle();
        }
        return rest;
    }
    let current = active.as_mut().expect("a plan has a segment");
    let (first_ordinal, from) = (current.next_ordinal, current.end);
    match write(inner, current, &planned) {
        Ok(starts) => {
            for Planned { frame, .. } in &mut planned {
                frame.payload = Vec::new();
            }
            inner.stage.push(Written {
                slot: Arc::clone(&current.slot),
                planned,
                starts,
                first_ordinal,
                end: current.end,
                bytes: current.end - from,
            });
        }
        Err(error) => {
            // What was written before may still become durable.
            inner.stage.wait_until_idle();
            let latched = inner.latch(&error, &current.slot);
            *active = None;
            durable::refuse(inner, planned, &latched);
        }
    }
    rest
}

/// One vectored write, then the words.
fn write(inner: &Inner, active: &mut Active, planned: &[Planned]) -> io::Result<Vec<u32>> {
    const ZEROS: [u8; ALIGN as usize] = [0; ALIGN as usize];
    let segment = &active.slot.segment;
    let synced = Position {
        segment: segment.id,
        offset: active.slot.book().end,
    };
    let mut starts = Vec::with_capacity(planned.len());
    let mut heads = Vec::with_capacity(planned.len());
    let mut words = Vec::new();
    let mut at = active.end;
    for (index, Planned { frame, what }) in planned.iter().enumerate() {
        let mut kind = frame.kind;
        if let Kind::Chunk { ordinal, .. } = &mut kind {
            *ordinal = active.next_ordinal + words.len() as u32;
            let start = at as u32;
            words.push(match what {
                What::Copy { source, .. } => Word {
                    start,
                    ..source.word
                },
                _ => Word::new(start),
            });
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
    let file = segment.file()?;
    file.write_at(&parts, active.end)?;
    file.begin_writing(active.end, end - active.end);
    stop_at("between_frames_and_words");
    if !words.is_empty() {
        segment.write_words(active.next_ordinal, &words)?;
    }
    if inner.sabotaged.is(Sabotage::AckBeforeSync) {
        answer_early(planned);
    }
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
