//! The index's one thread and the handle that everyone else holds.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::IndexFault;
use super::tables::{Change, Tables};
use crate::model::SessionKey;
use crate::sabotage::{Sabotage, Sabotaged};

/// The index is lost when it says nothing for so long.
pub const SILENCE: Duration = Duration::from_secs(5);
/// A large index may take its time to open.
const OPEN_SILENCE: Duration = Duration::from_secs(60);
/// What reads or syncs everything may take so long on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);
/// The last sync has little left to write, and a process that ends must not hang on it: an index that is not closed by
/// then is made anew. With [`SILENCE`] before or after it that stays below 15 s.
const CLOSING: Duration = Duration::from_secs(8);
/// Changes that may wait; beyond it the journal waits for the index, up to [`SILENCE`].
const QUEUE_MAX: usize = 16 * 1024;
/// Changes applied in one go.
const BATCH_MAX: usize = 512;
/// Changes that nobody asks behind are gathered so long; a batch a commit was more work than the journal.
const GATHER: Duration = Duration::from_millis(50);

type Question = Box<dyn FnOnce(&mut Tables) -> Result<(), IndexFault> + Send>;

enum Job {
    Change(Box<Change>),
    Ask { question: Question, patient: bool },
    Close(SyncSender<()>),
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Questions, and the close, among the jobs.
    asked: usize,
    /// A question that may take longer is being answered; until then silence means nothing.
    patient: bool,
    /// Why the index is lost.
    lost: Option<String>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something to do, or lost.
    filled: Condvar,
    /// Room again, or lost.
    drained: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder panics")
    }

    fn lose(&self, cause: &IndexFault) {
        let mut queue = self.lock();
        if queue.lost.is_none() {
            tracing::error!(cause = %cause, "index lost; nothing is leased until the next start");
            queue.lost = Some(cause.to_string());
        }
        queue.jobs.clear();
        queue.asked = 0;
        drop(queue);
        self.filled.notify_all();
        self.drained.notify_all();
    }
}

/// What it means that no answer comes in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silent {
    Lost,
    LostAfterPatience,
    NotNow,
}

/// A handle on the index. Calls block until the thread answers, at most [`SILENCE`].
#[derive(Clone)]
pub struct Index {
    shared: Arc<Shared>,
    sabotaged: Sabotaged,
}

/// An index and how it was found.
pub struct Opened {
    pub index: Index,
    pub path: PathBuf,
    /// The mark of the clean close that it belongs to.
    pub clean_mark: Option<u64>,
}

impl Index {
    /// Opens the index at `path` in a thread of its own. `arrived` is called from there with the sessions that got work.
    pub fn open(
        path: &Path,
        sabotaged: Sabotaged,
        arrived: impl Fn(Vec<SessionKey>) + Send + 'static,
    ) -> Result<Opened, IndexFault> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
        });
        let (report, reported) = sync_channel(1);
        let place = path.to_owned();
        let inside = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("index".into())
            .spawn(move || {
                let opened = catch_unwind(|| {
                    let tables = Tables::open(&place)?;
                    let mark = tables.clean_mark()?;
                    // Whoever opens it makes it unclean until it is closed again.
                    tables.set_clean_mark(0)?;
                    Ok((tables, mark))
                });
                match opened.unwrap_or(Err(IndexFault::Panicked)) {
                    Ok((tables, mark)) => {
                        if report.send(Ok(mark)).is_ok() {
                            serve(&inside, tables, sabotaged, &arrived);
                        }
                    }
                    Err(fault) => {
                        let _ = report.send(Err(fault));
                    }
                }
            })?;
        let clean_mark = match reported.recv_timeout(OPEN_SILENCE) {
            Ok(result) => result?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(IndexFault::Silent(OPEN_SILENCE.as_secs()));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(IndexFault::Panicked),
        };
        Ok(Opened {
            index: Self { shared, sabotaged },
            path: path.to_owned(),
            clean_mark,
        })
    }

    /// Why the index is lost, if it is.
    pub fn lost(&self) -> Option<String> {
        self.shared.lock().lost.clone()
    }

    /// Declares the index lost, because it contradicts the journal.
    pub fn lose(&self, fault: &IndexFault) {
        self.shared.lose(fault);
    }

    /// Hands facts over. A lost index takes nothing, and nobody is told: the journal has them.
    pub fn change(&self, changes: impl IntoIterator<Item = Change>) {
        let mut queue = self.shared.lock();
        // Else the thread gathers, or has not looked yet.
        let mut wake = false;
        for change in changes {
            while queue.jobs.len() >= QUEUE_MAX && queue.lost.is_none() {
                self.shared.filled.notify_one();
                let waited = self.shared.drained.wait_timeout(queue, SILENCE);
                let (again, timeout) = waited.expect("no holder panics");
                queue = again;
                if timeout.timed_out() && queue.jobs.len() >= QUEUE_MAX && !queue.patient {
                    drop(queue);
                    self.shared.lose(&IndexFault::Silent(SILENCE.as_secs()));
                    return;
                }
            }
            if queue.lost.is_some() || queue.closed {
                return;
            }
            queue.jobs.push_back(Job::Change(Box::new(change)));
            wake |= matches!(queue.jobs.len(), 1 | BATCH_MAX);
        }
        drop(queue);
        if wake {
            self.shared.filled.notify_one();
        }
    }

    /// Asks a question, behind every change handed over before.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Tables) -> Result<T, IndexFault> + Send + 'static,
    ) -> Result<T, IndexFault> {
        self.ask_within(SILENCE, Silent::Lost, question)
    }

    /// Like [`Self::ask`], for what reads or syncs everything.
    pub fn ask_patiently<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Tables) -> Result<T, IndexFault> + Send + 'static,
    ) -> Result<T, IndexFault> {
        self.ask_within(PATIENCE, Silent::LostAfterPatience, question)
    }

    /// Like [`Self::ask`]; an answer that does not come in time is the caller's matter, not the end of the index.
    pub fn ask_briefly<T: Send + 'static>(
        &self,
        patience: Duration,
        question: impl FnOnce(&mut Tables) -> Result<T, IndexFault> + Send + 'static,
    ) -> Result<T, IndexFault> {
        self.ask_within(patience, Silent::NotNow, question)
    }

    fn ask_within<T: Send + 'static>(
        &self,
        patience: Duration,
        silent: Silent,
        question: impl FnOnce(&mut Tables) -> Result<T, IndexFault> + Send + 'static,
    ) -> Result<T, IndexFault> {
        let (reply, answer) = sync_channel(1);
        {
            let mut queue = self.shared.lock();
            if let Some(cause) = &queue.lost {
                return Err(IndexFault::LostBefore(cause.clone()));
            }
            let question: Question = Box::new(move |tables| {
                let value = question(tables)?;
                let _ = reply.send(value);
                Ok(())
            });
            let patient = silent == Silent::LostAfterPatience;
            queue.jobs.push_back(Job::Ask { question, patient });
            queue.asked += 1;
        }
        self.shared.filled.notify_one();
        loop {
            match answer.recv_timeout(patience) {
                Ok(value) => return Ok(value),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(IndexFault::LostBefore(self.why_lost()));
                }
                Err(RecvTimeoutError::Timeout) if silent == Silent::Lost && self.is_patient() => {}
                Err(RecvTimeoutError::Timeout) => {
                    let fault = IndexFault::Silent(patience.as_secs());
                    if silent != Silent::NotNow {
                        self.shared.lose(&fault);
                    }
                    return Err(fault);
                }
            }
        }
    }

    fn is_patient(&self) -> bool {
        self.shared.lock().patient
    }

    /// The thread let go of a question: it is about to say why, unless it was closed.
    fn why_lost(&self) -> String {
        let queue = self.shared.lock();
        let (queue, _) = self
            .shared
            .drained
            .wait_timeout_while(queue, SILENCE, |queue| {
                queue.lost.is_none() && !queue.closed
            })
            .expect("no holder panics");
        queue.lost.clone().unwrap_or_else(|| "closed".into())
    }

    /// Applies and syncs everything, leaves the mark, and ends the thread. sled is dropped there and nowhere else.
    pub fn close(&self, mark: u64) -> Result<(), IndexFault> {
        // Behind every change: an index that hangs over one is lost as soon as anywhere else.
        self.ask(|_| Ok(()))?;
        let sabotaged = self.sabotaged;
        self.ask_within(CLOSING, Silent::LostAfterPatience, move |tables| {
            tables.set_clean_mark(mark)?;
            sabotaged.misbehave(Sabotage::PanicClose, Sabotage::HangClose);
            tables.sync()
        })?;
        let (reply, closed) = sync_channel(1);
        {
            let mut queue = self.shared.lock();
            queue.closed = true;
            queue.jobs.push_back(Job::Close(reply));
            queue.asked += 1;
        }
        self.shared.filled.notify_one();
        match closed.recv_timeout(SILENCE) {
            Ok(()) => Ok(()),
            Err(_) => Err(IndexFault::Silent(SILENCE.as_secs())),
        }
    }
}

/// The thread. It ends by a close, or when the index is lost; then sled is leaked, because dropping it could block or
/// panic again.
fn serve(
    shared: &Shared,
    tables: Tables,
    sabotaged: Sabotaged,
    arrived: &(impl Fn(Vec<SessionKey>) + Send),
) {
    let mut tables = ManuallyDrop::new(tables);
    let end = catch_unwind(AssertUnwindSafe(|| {
        work(shared, &mut tables, sabotaged, arrived)
    }));
    match end {
        Ok(Ok(Some(reply))) => {
            drop(ManuallyDrop::into_inner(tables));
            let _ = reply.send(());
        }
        Ok(Ok(None)) => {}
        Ok(Err(fault)) => shared.lose(&fault),
        Err(_) => shared.lose(&IndexFault::Panicked),
    }
}

fn work(
    shared: &Shared,
    tables: &mut Tables,
    sabotaged: Sabotaged,
    arrived: &impl Fn(Vec<SessionKey>),
) -> Result<Option<SyncSender<()>>, IndexFault> {
    let mut applied = false;
    loop {
        let Some((changes, next)) = take(shared, applied) else {
            return Ok(None);
        };
        applied = !changes.is_empty();
        if applied {
            sabotaged.misbehave(Sabotage::PanicIndex, Sabotage::HangIndex);
            tables.apply(&changes)?;
            let mut sessions: Vec<_> = changes
                .iter()
                .filter_map(Change::arrival)
                .cloned()
                .collect();
            sessions.sort_unstable();
            sessions.dedup();
            if !sessions.is_empty() {
                arrived(sessions);
            }
        }
        match next {
            None => {}
            Some(Job::Ask { question, patient }) => {
                shared.lock().patient = patient;
                question(tables)?;
                shared.lock().patient = false;
            }
            Some(Job::Close(reply)) => return Ok(Some(reply)),
            Some(Job::Change(_)) => unreachable!("changes are taken in batches"),
        }
    }
}

/// The next changes, and the question or the close behind them. `gather`: changes alone wait a little. `None`: the
/// index is lost.
fn take(shared: &Shared, gather: bool) -> Option<(Vec<Change>, Option<Job>)> {
    let mut queue = shared.lock();
    if gather {
        let quiet = |queue: &mut Queue| {
            queue.lost.is_none() && queue.asked == 0 && queue.jobs.len() < BATCH_MAX
        };
        let waited = shared.filled.wait_timeout_while(queue, GATHER, quiet);
        queue = waited.expect("no holder panics").0;
    }
    while queue.jobs.is_empty() && queue.lost.is_none() {
        queue = shared.filled.wait(queue).expect("no holder panics");
    }
    if queue.lost.is_some() {
        return None;
    }
    let mut changes = Vec::new();
    let mut next = None;
    while changes.len() < BATCH_MAX {
        match queue.jobs.pop_front() {
            Some(Job::Change(change)) => changes.push(*change),
            other => {
                next = other;
                break;
            }
        }
    }
    queue.asked -= usize::from(next.is_some());
    drop(queue);
    shared.drained.notify_all();
    Some((changes, next))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use super::super::Owed;
    use super::*;
    use crate::model::Timestamp;
    use crate::store::layout::SegmentId;

    #[test]
    fn what_nobody_asks_for_is_gathered_and_a_question_sees_all_of_it() {
        const CHANGES: u64 = 400;
        let dir = tempfile::tempdir().unwrap();
        let batches = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&batches);
        let opened = Index::open(&dir.path().join("1"), Sabotaged::NONE, move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let index = opened.unwrap().index;
        let session = SessionKey {
            tenant: "acme".parse().unwrap(),
            session: "s1".parse().unwrap(),
        };
        let began = Instant::now();
        for sequence in 0..CHANGES {
            let owed = Owed {
                sequence,
                number: sequence + 1,
                ordinal: sequence as u32,
                start: 0,
                bytes: 1,
                accepted_at: Timestamp(0),
                segment: SegmentId(1),
                print: 0,
            };
            index.change([Change::Owe {
                session: session.clone(),
                owed,
            }]);
            // As far apart as commits.
            std::thread::sleep(Duration::from_micros(200));
        }
        assert_eq!(index.ask(|tables| tables.owed_count()).unwrap(), CHANGES);
        // One at once, one a span, one for the question, however slow the machine is.
        let most = 2 + began.elapsed().as_millis() / GATHER.as_millis();
        let batches = batches.load(Ordering::Relaxed);
        assert!(
            u128::from(batches) <= most,
            "{batches} batches, {most} at most"
        );
        index.close(0).unwrap();
    }

    #[test]
    fn more_changes_than_may_wait_are_taken_in_as_soon_as_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let opened = Index::open(&dir.path().join("1"), Sabotaged::NONE, |_| {});
        let index = opened.unwrap().index;
        let key = |n: usize| crate::model::ChunkKey {
            tenant: "acme".parse().unwrap(),
            session: format!("s{}", n % 7).parse().unwrap(),
            sequence: n as u64,
        };
        // One handing over that fills the queue, and one behind it that nobody asks for.
        index.change((0..QUEUE_MAX + 100).map(|n| Change::Purged { key: key(n) }));
        index.change([Change::Purged {
            key: key(QUEUE_MAX + 100),
        }]);
        assert_eq!(index.lost(), None);
        let last = key(QUEUE_MAX + 100);
        assert!(
            index
                .ask_patiently(move |tables| tables.is_purged(&last))
                .unwrap()
        );
        index.close(0).unwrap();
    }
}
