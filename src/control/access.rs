//! Getting at a store from a short command: open it if nobody holds it, ask its holder if somebody does,
//! wait if the holder does not listen yet.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Instant};
use crate::config::Config;
use crate::model::ChunkKey;
use crate::store::{NewChunk, OpenError, Store};

use super::accept;
use super::answer::answer;
use super::client::Client;
use super::refusal::{Code, Refusal};
use super::running::Holder;
use super::wire::{EnqueuedView, Ping, Reply, Request};

/// Short commands hold a store for so long; nobody needs to hear of it.
const SILENT: Duration = Duration::from_secs(2);
/// From letting go of a store to being asked by its next holder: recovery of a large one takes seconds.
const SUCCESSION: Duration = Duration::from_secs(10);
/// Between two looks at a held store.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// How to get at a store.
#[derive(Clone)]
pub struct Reach {
    pub config: Arc<Config>,
    pub clock: Arc<dyn Clock>,
    /// How long to wait for another short command.
    pub wait: Duration,
    /// Where the wait is announced.
    pub notice: Arc<dyn Fn(&str) + Send + Sync>,
}

/// A store that answers.
pub enum Access {
    /// Opened by this process.
    Open(Box<Holder>),
    /// Held by another process that listens.
    Asked(Box<Client>, Ping),
}

impl Reach {
    /// # Errors
    /// The store cannot be opened, or its holder neither answers nor ends within the wait.
    pub fn reach(&self) -> Result<Access, Refusal> {
        let start = self.clock.now();
        let mut announced = false;
        loop {
            let held = match self.open() {
                Ok(holder) => return Ok(Access::Open(Box::new(holder))),
                Err(error @ OpenError::Held { .. }) => error,
                Err(error) => return Err(error.into()),
            };
            if let Some((client, ping)) = self.holder() {
                return Ok(Access::Asked(Box::new(client), ping));
            }
            self.wait_a_little(start, &held, &mut announced)?;
        }
    }

    /// Opens the store for an engine of our own; `busy` says what to do about a holder that listens.
    ///
    /// # Errors
    /// As [`Reach::reach`], and what `busy` says.
    pub fn open_alone(
        &self,
        mut busy: impl FnMut(&Client, &Ping) -> Result<(), Refusal>,
    ) -> Result<Holder, Refusal> {
        let start = self.clock.now();
        let mut announced = false;
        loop {
            let held = match self.open() {
                Ok(holder) => return Ok(holder),
                Err(error @ OpenError::Held { .. }) => error,
                Err(error) => return Err(error.into()),
            };
            if let Some((client, ping)) = self.holder() {
                busy(&client, &ping)?;
            }
            self.wait_a_little(start, &held, &mut announced)?;
        }
    }

    /// Gives the process that asked for the store the time to take it.
    pub fn wait_for_successor(&self) {
        let start = self.clock.now();
        while self.holder().is_none() && self.clock.now().since(start) < SUCCESSION {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn open(&self) -> Result<Holder, OpenError> {
        let settings = self.config.store_settings();
        let store = Store::open(&self.config.store.path, settings, Arc::clone(&self.clock))?;
        Ok(Holder {
            store,
            config: Arc::clone(&self.config),
            clock: Arc::clone(&self.clock),
            running: None,
            trend: Arc::default(),
        })
    }

    fn holder(&self) -> Option<(Client, Ping)> {
        let client = Client::of_store(&self.config.store.path).ok()?;
        let ping = client.ping()?;
        Some((client, ping))
    }

    fn wait_a_little(
        &self,
        start: Instant,
        held: &OpenError,
        announced: &mut bool,
    ) -> Result<(), Refusal> {
        let waited = self.clock.now().since(start);
        if waited >= self.wait {
            let message = format!("{held}; waited {}", super::words::span(waited));
            return Err(Refusal::new(Code::Held, message));
        }
        if waited >= SILENT && !*announced {
            *announced = true;
            (self.notice)(&format!("{held}; waiting for it"));
        }
        std::thread::sleep(LOOK_AGAIN);
        Ok(())
    }

    /// Reaches the store, asks one thing, and lets go of it.
    ///
    /// # Errors
    /// The answer's refusal. A holder that goes away is followed by its successor.
    pub fn ask(&self, request: &Request) -> Result<Reply, Refusal> {
        let start = self.clock.now();
        loop {
            let access = self.reach()?;
            let answer = access.ask(request);
            access.close()?;
            match answer {
                Err(refusal)
                    if refusal.code == Code::Closing
                        && self.clock.now().since(start) < self.wait =>
                {
                    std::thread::sleep(LOOK_AGAIN);
                }
                answer => return answer,
            }
        }
    }
}

impl Access {
    /// # Errors
    /// The operation's refusal.
    pub fn ask(&self, request: &Request) -> Result<Reply, Refusal> {
        match self {
            Self::Open(holder) => answer(holder, request.clone()),
            Self::Asked(client, _) => client.ask(request),
        }
    }

    /// Durable when it returns `Ok`.
    ///
    /// # Errors
    /// The chunk's refusal; nothing of it was accepted.
    pub fn enqueue(
        &self,
        chunk: NewChunk,
        mut source: Box<dyn Read + Send>,
    ) -> Result<EnqueuedView, Refusal> {
        match self {
            Self::Open(holder) => accept::accept(holder, chunk, &mut *source),
            Self::Asked(client, _) => client.enqueue(&chunk, source),
        }
    }

    /// # Errors
    /// Not dead, damaged, or the writer's error.
    pub fn dead_payload(&self, key: &ChunkKey, to: &mut dyn Write) -> Result<u64, Refusal> {
        match self {
            Self::Open(holder) => {
                let (_, mut payload) = accept::dead_payload(holder, key)?;
                accept::copy(&mut *payload, to)
            }
            Self::Asked(client, _) => client.dead_payload(key, to),
        }
    }

    /// Lets go of the store. What was accepted is in its index when this returns.
    ///
    /// # Errors
    /// The store's error on closing; what was answered stays true.
    pub fn close(self) -> Result<(), Refusal> {
        match self {
            Self::Open(holder) => Ok(holder.store.close()?),
            Self::Asked(..) => Ok(()),
        }
    }
}
