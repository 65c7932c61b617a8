//! What a running request knows of itself: how much of its body was handed over, when, and whether
//! its payload failed. The body writes it, the watcher and the verdict read it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::body::PayloadFault;
use super::classify::Sent;

/// How long a request may go without progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the connection, TLS included, stands.
    pub connect: Duration,
    /// Without a byte of the body accepted.
    pub stall: Duration,
    /// From the body's last byte to the answer's headers.
    pub headers: Duration,
    /// From the answer's headers to its end.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            headers: Duration::from_secs(60),
            answer: Duration::from_secs(30),
        }
    }
}

/// Which wait was too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    Upload,
    Headers,
}

#[derive(Debug)]
struct State {
    handed: u64,
    moved_at: Instant,
    abandoned: bool,
    fault: Option<PayloadFault>,
}

/// Shared between a request's body and its watcher.
#[derive(Debug, Clone)]
pub struct Progress {
    total: u64,
    state: Arc<Mutex<State>>,
}

impl Progress {
    pub fn of(total: u64) -> Self {
        let state = State {
            handed: 0,
            moved_at: Instant::now(),
            abandoned: false,
            fault: None,
        };
        Self {
            total,
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn handed(&self) -> u64 {
        self.lock().handed
    }

    /// How long the connection was not ready for these.
    pub fn hand_over(&self, bytes: usize) -> Duration {
        let now = Instant::now();
        let mut state = self.lock();
        state.handed += bytes as u64;
        now.duration_since(std::mem::replace(&mut state.moved_at, now))
    }

    pub fn fail(&self, fault: PayloadFault) {
        self.lock().fault.get_or_insert(fault);
    }

    pub fn take_fault(&self) -> Option<PayloadFault> {
        self.lock().fault.take()
    }

    /// Nobody waits for the answer any more: the body ends at its next slice.
    pub fn abandon(&self) {
        self.lock().abandoned = true;
    }

    pub fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    pub fn sent(&self) -> Sent {
        self.sent_of(self.handed())
    }

    fn sent_of(&self, handed: u64) -> Sent {
        match handed {
            0 => Sent::Nothing,
            handed if handed < self.total => Sent::Part,
            _ => Sent::All,
        }
    }

    /// Ends when a wait was too long. Cancel safe.
    pub async fn overdue(&self, timeouts: &Timeouts) -> Overdue {
        loop {
            let (moved_at, handed) = {
                let state = self.lock();
                (state.moved_at, state.handed)
            };
            let (overdue, patience) = match self.sent_of(handed) {
                Sent::All => (Overdue::Headers, timeouts.headers),
                Sent::Nothing | Sent::Part => (Overdue::Upload, timeouts.stall),
            };
            let deadline = moved_at + patience;
            if Instant::now() >= deadline {
                return overdue;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}
