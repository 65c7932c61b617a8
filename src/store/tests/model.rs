//! The store against a small model, over a disk that loses what it may lose.
//!
//! A history is a run of random operations: accepting (also several at once), leasing and every way of settling, verbs on
//! dead letters, housekeeping, closing, ending like a killed process, power cuts at any write, failed syncs; after each
//! start the index is kept, deleted or replaced by an older copy. The model knows what was answered. What was not answered
//! is tried again. In the end everything is drained and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use super::support::{copy_dir, failure, key, new_chunk, payload_of, seed, session, settings};
use crate::clock::SystemClock;
use crate::disk::simulated::{Faults, SimulatedDisk};
use crate::model::{ChunkKey, ChunkState, DeadReason, Timestamp};
use crate::sabotage::{Sabotage, Sabotaged};
use crate::store::recover::read_chunk;
use crate::store::scan::{Found, walk};
use crate::store::{
    DeadFilter, Ending, EnqueueError, HoldKey, Lease, NewChunk, Outcome, Redriven, SequenceChoice,
    SessionFilter, Settings, Store, StoredHold, keeper, moving,
};

const SESSIONS: [&str; 3] = ["s1", "s2", "long-name:3"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Live,
    Delivered,
    /// Acknowledged, and then the power went: a suppressed duplicate may follow.
    LiveOrDelivered,
    Dead,
    Purged,
}

/// What the store has promised.
#[derive(Default)]
struct Model {
    fates: BTreeMap<(usize, u64), Fate>,
    /// Enqueued, and the answer was an error that leaves the outcome open.
    open: BTreeSet<(usize, u64)>,
    /// Settled by a word since the last sync that is sure: a power cut may undo it.
    unsure: BTreeSet<(usize, u64)>,
    hold: Option<String>,
    /// Sessions whose end was answered, and those whose end may have happened.
    ended: BTreeSet<usize>,
    perhaps_ended: BTreeSet<usize>,
}

/// The sequence that is enqueued as its session's last; later ones come all the same.
const LAST: u64 = 33;

struct History {
    random: fastrand::Rng,
    disk: SimulatedDisk,
    dir: tempfile::TempDir,
    settings: Settings,
    store: Option<Store>,
    model: Model,
    old_index: Option<tempfile::TempDir>,
    trace: Vec<String>,
}

type Check = Result<(), String>;

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}

impl History {
    fn new(seed: u64, sabotaged: Sabotaged) -> Self {
        let mut history = Self {
            random: fastrand::Rng::with_seed(seed),
            disk: SimulatedDisk::new(seed ^ 0xd15c),
            dir: tempfile::tempdir().unwrap(),
            settings: Settings {
                sabotaged,
                ..settings()
            },
            store: None,
            model: Model::default(),
            old_index: None,
            trace: Vec::new(),
        };
        history.start();
        history
    }

    fn start(&mut self) {
        let disk = Arc::new(self.disk.clone());
        let clock = Arc::new(SystemClock);
        let opened = Store::open_on(self.dir.path(), self.settings.clone(), clock, disk);
        self.store = Some(opened.unwrap_or_else(|error| panic!("start failed: {error:?}")));
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("open between operations")
    }

    fn payload(&self, (session, sequence): (usize, u64)) -> Vec<u8> {
        // Some are large enough for a file of their own.
        let mut payload = payload_of(SESSIONS[session], sequence);
        if sequence % 11 == 10 {
            payload.resize(200_000, sequence as u8);
        }
        payload
    }

    fn chunk(at: (usize, u64)) -> NewChunk {
        let mut chunk = new_chunk("acme", SESSIONS[at.0], SequenceChoice::Exactly(at.1));
        chunk.last = at.1 == LAST;
        chunk
    }

    fn enqueue(&mut self, at: (usize, u64)) -> Check {
        let payload = self.payload(at);
        let chunk = Self::chunk(at);
        let answer = self.store().enqueue(chunk, &mut payload.as_slice());
        self.note_answer(at, answer.map(|enqueued| enqueued.outcome))
    }

    fn note_answer(&mut self, at: (usize, u64), answer: Result<Outcome, EnqueueError>) -> Check {
        let known = self.model.fates.contains_key(&at);
        let open = self.model.open.contains(&at);
        match answer {
            Ok(Outcome::Accepted) => {
                ensure!(!known, "{at:?} was accepted twice");
                if at.1 == LAST {
                    self.model.ended.insert(at.0);
                }
                self.model.fates.insert(at, Fate::Live);
                self.model.open.remove(&at);
            }
            Ok(Outcome::Known(state)) => {
                ensure!(known || open, "{at:?} is known, and was never enqueued");
                if at.1 == LAST {
                    self.model.ended.insert(at.0);
                }
                let fate = self.model.fates.entry(at).or_insert(Fate::Live);
                if *fate == Fate::LiveOrDelivered {
                    let live = state == ChunkState::Live;
                    *fate = if live { Fate::Live } else { Fate::Delivered };
                }
                self.model.open.remove(&at);
            }
            Err(EnqueueError::Latched(_) | EnqueueError::Io(_) | EnqueueError::Closing) => {
                if !known {
                    self.model.open.insert(at);
                    if at.1 == LAST {
                        self.model.perhaps_ended.insert(at.0);
                    }
                }
            }
            // A digest of a delivered chunk may go with the index.
            Err(EnqueueError::CannotTell { .. })
                if matches!(
                    self.model.fates.get(&at),
                    Some(Fate::Delivered | Fate::LiveOrDelivered | Fate::Purged)
                ) => {}
            Err(error) => return Err(format!("{at:?}: {error}")),
        }
        Ok(())
    }

    /// Several producers at once, so that a commit has several frames.
    fn enqueue_together(&mut self) -> Check {
        let mut keys = BTreeSet::new();
        for _ in 0..self.random.usize(2..6) {
            keys.insert((self.random.usize(0..SESSIONS.len()), self.random.u64(0..40)));
        }
        let work: Vec<_> = keys.into_iter().map(|at| (at, self.payload(at))).collect();
        let store = self.store().clone();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = work
                .iter()
                .map(|(at, payload)| {
                    let store = &store;
                    let chunk = Self::chunk(*at);
                    scope.spawn(move || store.enqueue(chunk, &mut payload.as_slice()))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        for ((at, _), answer) in work.into_iter().zip(answers) {
            self.note_answer(at, answer.map(|enqueued| enqueued.outcome))?;
        }
        Ok(())
    }

    fn lease_and_settle(&mut self) -> Check {
        let index = self.random.usize(0..SESSIONS.len());
        let name = session(SESSIONS[index]);
        let Some(mut lease) = self
            .store()
            .lease(&name)
            .map_err(|e| format!("lease: {e}"))?
        else {
            let live = self
                .model
                .fates
                .iter()
                .find(|((s, _), f)| *s == index && **f == Fate::Live);
            ensure!(live.is_none(), "{live:?} is owed and cannot be leased");
            return Ok(());
        };
        let at = (index, lease.meta().key.sequence);
        let fate = self.model.fates.get(&at).copied();
        ensure!(
            matches!(fate, Some(Fate::Live | Fate::LiveOrDelivered))
                || self.model.open.contains(&at),
            "leased {at:?}, which is {fate:?}"
        );
        let lowest = self
            .model
            .fates
            .iter()
            .find(|((s, _), f)| *s == index && **f == Fate::Live);
        let lower = lowest.is_some_and(|((_, sequence), _)| *sequence < at.1);
        ensure!(!lower, "leased {at:?} before {lowest:?}");
        let mut bytes = Vec::new();
        lease.sending().map_err(|e| e.to_string())?;
        let reader = lease.payload();
        reader
            .and_then(|mut reader| reader.read_to_end(&mut bytes))
            .map_err(|error| format!("{at:?}: {error}"))?;
        ensure!(bytes == self.payload(at), "{at:?} has other bytes");
        self.model.open.remove(&at);
        self.model.fates.insert(at, Fate::Live);
        if self.random.u32(0..3) == 0 {
            self.lease_company(index, &lease)?;
        }
        let settled = match self.random.u32(0..10) {
            0 => lease.release(),
            1 => lease.nack(Duration::from_secs(60), true, Some(failure(503))),
            2 => {
                let buried = lease.bury(DeadReason::Rejected, Some(failure(422)));
                if buried.is_ok() {
                    self.model.fates.insert(at, Fate::Dead);
                }
                buried
            }
            3 => {
                drop(lease);
                Ok(())
            }
            _ => {
                self.model.fates.insert(at, Fate::Delivered);
                self.model.unsure.insert(at);
                lease.ack()
            }
        };
        settled.map_err(|error| format!("settle {at:?}: {error}"))
    }

    /// The chunks behind a leased one, for the same request; they end before it does.
    fn lease_company(&mut self, index: usize, first: &Lease) -> Check {
        let mut company: Vec<Lease> = Vec::new();
        while company.len() < 5 {
            let last = company.last().unwrap_or(first);
            let wanted = last.meta().key.sequence + 1;
            let next = last
                .following(|head, _| head.sequence == wanted)
                .map_err(|error| format!("following: {error}"))?;
            let Some(next) = next else { break };
            company.push(next);
        }
        for mut lease in company {
            let at = (index, lease.meta().key.sequence);
            let fate = self.model.fates.get(&at).copied();
            let owed = matches!(fate, Some(Fate::Live | Fate::LiveOrDelivered));
            ensure!(
                owed || self.model.open.contains(&at),
                "leased {at:?} in company, which is {fate:?}"
            );
            self.model.open.remove(&at);
            self.model.fates.insert(at, Fate::Live);
            lease.sending().map_err(|error| error.to_string())?;
            let settled = match self.random.u32(0..3) {
                0 => lease.release(),
                1 => {
                    drop(lease);
                    Ok(())
                }
                _ => {
                    self.model.fates.insert(at, Fate::Delivered);
                    self.model.unsure.insert(at);
                    lease.ack()
                }
            };
            settled.map_err(|error| format!("settle {at:?}: {error}"))?;
        }
        Ok(())
    }

    fn turn_a_dead_letter(&mut self) -> Check {
        let dead = self
            .model
            .fates
            .iter()
            .find(|(_, fate)| **fate == Fate::Dead);
        let Some((&at, _)) = dead else { return Ok(()) };
        let name = key(SESSIONS[at.0], at.1);
        let (turned, fate) = if self.random.bool() {
            (self.store().redrive(&name), Fate::Live)
        } else {
            (self.store().purge(&name), Fate::Purged)
        };
        ensure!(matches!(turned, Ok(Redriven::Done)), "{at:?}: {turned:?}");
        self.model.fates.insert(at, fate);
        Ok(())
    }

    fn set_hold(&mut self) -> Check {
        let hold_key = HoldKey {
            tenant: "acme".parse().unwrap(),
            name: "operator".into(),
        };
        let reason = format!("because {}", self.random.u32(..));
        let hold = StoredHold {
            key: hold_key.clone(),
            set_at: crate::model::Timestamp(0),
            left: None,
            reason: reason.clone(),
        };
        if self.random.bool() {
            self.store().put_hold(hold).map_err(|e| e.to_string())?;
            self.model.hold = Some(reason);
        } else {
            self.store()
                .remove_hold(&hold_key)
                .map_err(|e| e.to_string())?;
            self.model.hold = None;
        }
        Ok(())
    }

    /// Every second time the power goes meanwhile.
    fn end_session(&mut self) -> Check {
        let index = self.random.usize(0..SESSIONS.len());
        let cut = self.random.bool();
        if cut {
            self.disk.cut_power_after(self.random.u32(0..6));
        }
        let known = self.model.fates.keys().any(|(s, _)| *s == index);
        let open = self.model.open.iter().any(|(s, _)| *s == index);
        match self
            .store()
            .end_session(&session(SESSIONS[index]), Timestamp(1))
        {
            Ok(Ending::Ended | Ending::EndedBefore(_)) => {
                ensure!(known || open, "{index} was ended and never began");
                self.model.ended.insert(index);
            }
            Ok(Ending::Unknown) => ensure!(!known, "{index} is not known"),
            Err(error) if cut => {
                self.trace.push(format!("no end: {error}"));
                self.model.perhaps_ended.insert(index);
            }
            Err(error) => return Err(format!("end {index}: {error}")),
        }
        if cut {
            self.store.take().expect("open").abandon();
            self.power_cut();
            self.meddle_with_index();
            self.start();
            self.check_after_start()?;
        }
        Ok(())
    }

    fn check_ends(&self) -> Check {
        let filter = SessionFilter {
            limit: SESSIONS.len(),
            ..SessionFilter::default()
        };
        for found in self.store().sessions(&filter).sessions {
            let index = SESSIONS
                .iter()
                .position(|s| *s == found.key.session.as_str());
            let index = index.expect("one of ours");
            let fits = match found.ended_at {
                Some(_) => {
                    self.model.ended.contains(&index) || self.model.perhaps_ended.contains(&index)
                }
                None => !self.model.ended.contains(&index),
            };
            ensure!(fits, "{index}: ended at {:?}", found.ended_at);
        }
        Ok(())
    }

    /// Ends the store one way or another and starts it again.
    fn restart(&mut self) -> Check {
        let store = self.store.take().expect("open between operations");
        match self.random.u32(0..4) {
            0 => {
                self.trace.push("close".into());
                store.close().map_err(|error| format!("close: {error}"))?;
            }
            1 => {
                self.trace.push("kill".into());
                store.abandon();
            }
            _ => {
                self.trace.push("power cut at rest".into());
                store.abandon();
                self.power_cut();
            }
        }
        self.meddle_with_index();
        self.start();
        self.check_after_start()
    }

    fn power_cut(&mut self) {
        self.disk.restart_after_power_cut();
        for at in std::mem::take(&mut self.model.unsure) {
            if self.model.fates.get(&at) == Some(&Fate::Delivered) {
                self.model.fates.insert(at, Fate::LiveOrDelivered);
            }
        }
    }

    /// Power goes at some write among concurrent enqueues; what was answered must be there afterwards.
    fn cut_power_under_way(&mut self) -> Check {
        self.disk.cut_power_after(self.random.u32(0..12));
        let done = self.enqueue_together();
        self.store
            .take()
            .expect("open between operations")
            .abandon();
        self.power_cut();
        self.meddle_with_index();
        self.start();
        done?;
        self.check_after_start()
    }

    /// A sync fails, the process restarts over a cache that hides it, everything unanswered is retried, the power goes.
    fn fail_a_sync(&mut self) -> Check {
        // With a restart to come, no successor must be made before it: it would say where the tail ends.
        let restarts = self.random.bool();
        self.disk
            .fail_next_syncs(if restarts { 1_000_000 } else { 1 });
        self.enqueue_together()?;
        if restarts {
            self.store
                .take()
                .expect("open between operations")
                .abandon();
            self.meddle_with_index();
        }
        self.disk.fail_next_syncs(0);
        if restarts {
            self.start();
        }
        self.retry_open()?;
        self.store
            .take()
            .expect("open between operations")
            .abandon();
        self.power_cut();
        self.start();
        self.check_after_start()
    }

    fn retry_open(&mut self) -> Check {
        for at in self.model.open.clone() {
            // A latch lifts by itself; until then the answer stays the same.
            for _ in 0..500 {
                self.enqueue(at)?;
                if !self.model.open.contains(&at) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Moves whatever is owed out of every segment but the active one. Every second time the power goes meanwhile.
    fn move_chunks(&mut self) -> Check {
        let cut = self.random.bool();
        if cut {
            self.disk.cut_power_after(self.random.u32(0..24));
        }
        let moved = self.empty_all();
        if !cut {
            return moved;
        }
        self.store.take().expect("open").abandon();
        self.power_cut();
        self.meddle_with_index();
        self.start();
        self.check_after_start()
    }

    fn empty_all(&self) -> Check {
        let inner = &self.store().inner;
        let active = *inner.active.lock().unwrap();
        let all: Vec<_> = inner.segments().values().cloned().collect();
        for slot in all.iter().filter(|it| Some(it.segment.id) != active) {
            moving::empty(inner, slot).map_err(|error| format!("moving: {error}"))?;
        }
        keeper::round(inner).map_err(|error| format!("keeper: {error}"))
    }

    fn meddle_with_index(&mut self) {
        let index = self.dir.path().join("index");
        match self.random.u32(0..4) {
            0 => {
                self.trace.push("index deleted".into());
                std::fs::remove_dir_all(&index).unwrap();
            }
            1 if self.old_index.is_some() => {
                self.trace.push("older index".into());
                std::fs::remove_dir_all(&index).unwrap();
                copy_dir(self.old_index.as_ref().unwrap().path(), &index);
            }
            2 => {
                let copy = tempfile::tempdir().unwrap();
                copy_dir(&index, copy.path());
                self.old_index = Some(copy);
            }
            _ => {}
        }
    }

    fn check_after_start(&mut self) -> Check {
        let letters = self.store().dead(&DeadFilter::default());
        let letters = letters.map_err(|error| error.to_string())?;
        for letter in &letters {
            ensure!(
                !letter.history.is_empty(),
                "{} lost its history",
                letter.key
            );
        }
        let dead: BTreeSet<ChunkKey> = letters.into_iter().map(|letter| letter.key).collect();
        let expected: BTreeSet<ChunkKey> = self
            .model
            .fates
            .iter()
            .filter(|(_, fate)| **fate == Fate::Dead)
            .map(|((session, sequence), _)| key(SESSIONS[*session], *sequence))
            .collect();
        ensure!(
            dead == expected,
            "dead letters are {dead:?}, not {expected:?}"
        );
        let hold = self
            .store()
            .holds()
            .into_iter()
            .next()
            .map(|hold| hold.reason);
        ensure!(
            hold == self.model.hold,
            "hold is {hold:?}, not {:?}",
            self.model.hold
        );
        let balance = self.store().view().balance;
        ensure!(balance.balanced && balance.lost.is_none(), "{balance:?}");
        self.check_ends()?;
        self.retry_open()?;
        // What the model knows to be accepted, the store knows too.
        for (at, fate) in self.model.fates.clone() {
            let payload = self.payload(at);
            let chunk = Self::chunk(at);
            let answer = self.store().enqueue(chunk, &mut payload.as_slice());
            let state = match &answer {
                Ok(enqueued) => match enqueued.outcome {
                    Outcome::Known(state) => Some(state),
                    Outcome::Accepted => return Err(format!("{at:?} ({fate:?}) was forgotten")),
                },
                Err(EnqueueError::CannotTell { .. }) => None,
                Err(error) => return Err(format!("after a start, {at:?} ({fate:?}): {error}")),
            };
            let fits = match fate {
                Fate::Live => state == Some(ChunkState::Live),
                Fate::Dead => state == Some(ChunkState::Dead),
                // The index may have gone, and with it what is known of settled chunks.
                Fate::Delivered => matches!(state, None | Some(ChunkState::Delivered)),
                Fate::LiveOrDelivered => state != Some(ChunkState::Dead),
                // An older copy of the index knows the digest and not the purge.
                Fate::Purged => !matches!(state, Some(ChunkState::Live | ChunkState::Dead)),
            };
            ensure!(fits, "after a start, {at:?} ({fate:?}) is {state:?}");
        }
        Ok(())
    }

    fn step(&mut self) -> Check {
        let choice = self.random.u32(0..100);
        let name = match choice {
            0..30 => "enqueue",
            30..40 => "enqueue together",
            40..72 => "lease and settle",
            72..76 => "turn a dead letter",
            76..79 => "hold",
            79..81 => "end a session",
            81..83 => "keeper",
            83..87 => "move",
            87..92 => "restart",
            92..96 => "power cut under way",
            _ => "failed sync",
        };
        self.trace.push(name.into());
        match choice {
            0..30 => {
                let at = (self.random.usize(0..SESSIONS.len()), self.random.u64(0..40));
                self.enqueue(at)
            }
            30..40 => self.enqueue_together(),
            40..72 => self.lease_and_settle(),
            72..76 => self.turn_a_dead_letter(),
            76..79 => self.set_hold(),
            79..81 => self.end_session(),
            81..83 => {
                keeper::round(&self.store().inner).map_err(|error| format!("keeper: {error}"))
            }
            83..87 => self.move_chunks(),
            87..92 => self.restart(),
            92..96 => self.cut_power_under_way(),
            _ => self.fail_a_sync(),
        }
    }

    /// Where the journal has a chunk.
    fn places(&self, (session, sequence): (usize, u64)) -> String {
        let wanted = key(SESSIONS[session], sequence);
        let mut places = String::new();
        for slot in self.store().inner.segments().values() {
            let end = slot.book().end;
            let look = |found| {
                if let Found::Chunk { head, word, .. } = found
                    && read_chunk(&head).is_some_and(|meta| meta.key == wanted)
                {
                    let number = head.header.number;
                    places += &format!(" {} {number} {word:?};", slot.segment.id);
                }
                Ok(())
            };
            walk(&slot.segment, Some(end), look).unwrap();
        }
        places
    }

    /// Drains what is owed; every byte is compared.
    fn finish(&mut self) -> Check {
        self.retry_open()?;
        for (index, name) in SESSIONS.iter().enumerate() {
            while let Some(lease) = self
                .store()
                .lease(&session(name))
                .map_err(|e| e.to_string())?
            {
                let at = (index, lease.meta().key.sequence);
                let fate = self.model.fates.get(&at).copied();
                let owed = matches!(fate, Some(Fate::Live | Fate::LiveOrDelivered));
                ensure!(
                    owed,
                    "{at:?} is leased and is {fate:?}: {}",
                    self.places(at)
                );
                let mut bytes = Vec::new();
                lease
                    .payload()
                    .and_then(|mut reader| reader.read_to_end(&mut bytes))
                    .map_err(|error| format!("{at:?} ({fate:?}): {error}"))?;
                ensure!(bytes == self.payload(at), "{at:?} has other bytes");
                lease.ack().map_err(|error| error.to_string())?;
                self.model.fates.insert(at, Fate::Delivered);
            }
        }
        let owed = self
            .model
            .fates
            .iter()
            .find(|(_, fate)| **fate == Fate::Live);
        ensure!(owed.is_none(), "{owed:?} was never leased");
        let balance = self.store().view().balance;
        let accepted = self.model.fates.len() as u64;
        ensure!(
            balance.enqueued == accepted && balance.balanced,
            "{accepted}: {balance:?}"
        );
        self.store
            .take()
            .expect("open")
            .close()
            .map_err(|error| error.to_string())?;
        self.start();
        self.check_ends()?;
        let again = self.store().view().balance;
        ensure!(
            again == balance,
            "after a clean close {again:?}, not {balance:?}"
        );
        Ok(())
    }
}

fn run(seed: u64, sabotaged: Sabotaged) -> Result<Faults, String> {
    let mut history = History::new(seed, sabotaged);
    let steps = history.random.usize(10..50);
    for _ in 0..steps {
        if let Err(fault) = history.step() {
            return Err(format!("{fault}; seed {seed}, after {:?}", history.trace));
        }
    }
    history
        .finish()
        .map_err(|fault| format!("{fault}; seed {seed}, after {:?}", history.trace))?;
    Ok(history.disk.faults())
}

fn histories() -> u64 {
    std::env::var("REELAY_HISTORIES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(500)
}

#[test]
fn the_store_agrees_with_the_model_through_every_history() {
    let first = seed();
    println!(
        "{} histories from seed {first} (REELAY_SEED, REELAY_HISTORIES)",
        histories()
    );
    let mut sum = Faults::default();
    for seed in first..first + histories() {
        let faults = run(seed, Sabotaged::NONE).unwrap_or_else(|fault| panic!("{fault}"));
        sum.power_cuts += faults.power_cuts;
        sum.sectors_lost += faults.sectors_lost;
        sum.names_lost += faults.names_lost;
        sum.syncs_failed += faults.syncs_failed;
        sum.operations_refused += faults.operations_refused;
    }
    println!("faults that landed: {sum:?}");
    assert!(
        sum.power_cuts > 0 && sum.sectors_lost > 0 && sum.syncs_failed > 0,
        "{sum:?}"
    );
}

/// A history that is all about failed syncs, behind a commit that went well.
fn run_failing_syncs(seed: u64, sabotaged: Sabotaged) -> Result<Faults, String> {
    let mut history = History::new(seed, sabotaged);
    for _ in 0..6 {
        history.enqueue_together()?;
        history.fail_a_sync()?;
    }
    history.finish()?;
    Ok(history.disk.faults())
}

/// A history that is all about segments that are let go, with the power failing in the middle of it.
fn run_retiring(seed: u64, sabotaged: Sabotaged) -> Result<Faults, String> {
    let mut history = History::new(seed, sabotaged);
    for _ in 0..6 {
        history.enqueue_together()?;
        for _ in 0..12 {
            history.lease_and_settle()?;
        }
        // The next opening writes a segment of its own; only then does the last one go.
        history
            .store
            .take()
            .expect("open between operations")
            .abandon();
        history.start();
        history.enqueue_together()?;
        history.disk.cut_power_after(history.random.u32(0..16));
        // It stops where the power does.
        let _ = keeper::round(&history.store().inner);
        history
            .store
            .take()
            .expect("open between operations")
            .abandon();
        history.power_cut();
        history.start();
        history.check_after_start()?;
    }
    history.finish()?;
    Ok(history.disk.faults())
}

/// A history that is all about chunks that move, with the power failing in the middle of it.
fn run_moving(seed: u64, sabotaged: Sabotaged) -> Result<Faults, String> {
    let mut history = History::new(seed, sabotaged);
    for _ in 0..6 {
        history.enqueue_together()?;
        for _ in 0..4 {
            history.lease_and_settle()?;
        }
        // The next opening writes a segment of its own: where the chunks move to.
        history.store.take().expect("open").abandon();
        history.meddle_with_index();
        history.start();
        history.enqueue_together()?;
        history.disk.cut_power_after(history.random.u32(0..24));
        // It stops where the power does.
        let _ = history.empty_all();
        history.store.take().expect("open").abandon();
        history.power_cut();
        history.meddle_with_index();
        history.start();
        history.check_after_start()?;
    }
    history.finish()?;
    Ok(history.disk.faults())
}

/// Whether some history of a few hundred notices the defect.
fn is_noticed(sabotage: Sabotage) -> bool {
    let run = match sabotage {
        Sabotage::TrustFailedSync | Sabotage::TrustPageCache => run_failing_syncs,
        Sabotage::UnlinkFirst | Sabotage::ForgetNotes => run_retiring,
        Sabotage::MoveBeforeCopy => run_moving,
        _ => run,
    };
    let noticed = |seed| {
        let history = std::panic::catch_unwind(|| run(seed, Sabotaged::NONE.with(sabotage)));
        // What the model found, and not some panic on the way.
        matches!(history, Ok(Err(_)))
    };
    (0..300).any(noticed)
}

#[test]
fn the_histories_made_for_single_defects_find_none_in_a_sound_store() {
    for seed in 0..10 {
        for run in [run_failing_syncs, run_retiring, run_moving] {
            run(seed, Sabotaged::NONE).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        }
    }
}

#[test]
fn every_defect_of_durability_turns_the_model_test_red() {
    for sabotage in [
        Sabotage::SkipSync,
        Sabotage::AckBeforeSync,
        Sabotage::ForgetWord,
        Sabotage::TrustFailedSync,
        Sabotage::TrustPageCache,
        Sabotage::UnlinkFirst,
        Sabotage::ForgetNotes,
        Sabotage::MoveBeforeCopy,
    ] {
        assert!(is_noticed(sabotage), "{sabotage:?} went unnoticed");
    }
}
