//! The worker pool: the one loop that begins turns, and the owner of every task of the engine.
//!
//! | task | waits for | ends by |
//! |---|---|---|
//! | the pool itself | arrivals, settled turns, the next deadline | an order |
//! | a turn | store, platform | its settling; the abort after the grace period |
//! | a token wait | its slot | a token; nobody wanting one; an order |
//! | a report poll, a lane | its interval, the platform | an order |
//! | the index watch | its interval | an order |

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::confirm;
use super::scheduler::{Pick, Rest, Turn};
use super::shared::{End, Order, Shared};
use super::token::{self, Tokens};
use super::worker;
use crate::clock::Instant;
use crate::model::{SessionKey, Token};
use crate::store::{Head, StoreError};

/// Heads read from the store in one call: enough to keep it busy, few enough to begin turns in between.
const HEADS_AT_ONCE: usize = 256;
/// After the store could not say what is next.
const READ_REST: Duration = Duration::from_secs(1);
/// A session whose turn panicked is left alone so long.
const PANIC_REST: Duration = Duration::from_secs(60);
/// What giving chunks back may take after the grace period.
const RELEASE_TIME: Duration = Duration::from_secs(5);
enum Job {
    Turn(Turn),
    TokenWait,
    IndexWatch,
    ReportPoll,
}

pub struct Pool {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    jobs: HashMap<Id, (Job, AbortHandle)>,
    /// The store is not asked what is next before then.
    reads_rest_until: Instant,
}

impl Pool {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            tasks: JoinSet::new(),
            jobs: HashMap::new(),
            reads_rest_until: Instant::default(),
        }
    }

    /// Ends by an order.
    pub async fn run(mut self) -> End {
        let mut orders = self.shared.order.subscribe();
        let watch = watch_index(Arc::clone(&self.shared));
        self.spawn(Job::IndexWatch, watch);
        for lane in 0..self.shared.lanes.len() {
            if let Some(every) = self.shared.lanes[lane].platform.confirms() {
                let poll = confirm::poll(Arc::clone(&self.shared), lane, every);
                self.spawn(Job::ReportPoll, poll);
            }
        }
        while !self.shared.is_stopping() {
            let until = self.round().await;
            if !self.shared.is_stopping() {
                self.wait(until, &mut orders).await;
            }
        }
        self.wind_down(&mut orders).await
    }

    /// Reads what arrived and begins every turn that can begin. When to look again, if nothing happens before.
    async fn round(&mut self) -> Option<Instant> {
        let again = self.read_heads().await;
        let until = self.begin_turns();
        if self.shared.has_news() {
            let told = self.shared.blocking(Shared::tell_holds).await;
            // It was logged; the hold is in force all the same.
            let _ = told;
        }
        [again, until].into_iter().flatten().min()
    }

    async fn wait(&mut self, until: Option<Instant>, orders: &mut watch::Receiver<Option<Order>>) {
        let shared = Arc::clone(&self.shared);
        let deadline = async {
            match until {
                Some(until) => shared.clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        // An order goes first: nothing is begun once it is given.
        tokio::select! {
            biased;
            _ = orders.changed() => {}
            Some(ended) = self.tasks.join_next_with_id() => self.note_end(ended),
            () = shared.wake.notified() => {}
            () = deadline => {}
        }
    }

    /// When to go on reading; `None` if everything is read.
    async fn read_heads(&mut self) -> Option<Instant> {
        let shared = Arc::clone(&self.shared);
        if shared.arrived.swap(false, Ordering::AcqRel) {
            shared.blocking(Shared::take_arrivals).await;
        }
        if shared.clock.now() < self.reads_rest_until {
            return Some(self.reads_rest_until);
        }
        let unread = shared.core().take_unread(HEADS_AT_ONCE);
        if unread.is_empty() {
            return None;
        }
        let heads = shared
            .blocking(move |shared| {
                unread
                    .into_iter()
                    .map(|(lane, session)| {
                        let head = shared.store.head(&session);
                        (lane, session, head)
                    })
                    .collect::<Vec<_>>()
            })
            .await;
        for (lane, session, head) in heads {
            self.look(lane, session, head);
        }
        Some(shared.clock.now().max(self.reads_rest_until))
    }

    fn look(&mut self, lane: usize, session: SessionKey, head: Result<Option<Head>, StoreError>) {
        let at = self.shared.moment();
        match head {
            Ok(head) => {
                let mut core = self.shared.core();
                core.look(lane, &session.session, head.as_ref(), at);
            }
            Err(error) => {
                tracing::error!(
                    session.id = %session,
                    error = &error as &dyn std::error::Error,
                    "the store cannot say what is next"
                );
                self.shared.heed(&error);
                self.shared.core().arrived(session, at);
                self.reads_rest_until = at.now.saturating_add(READ_REST);
            }
        }
    }

    /// When the next turn may begin by itself.
    fn begin_turns(&mut self) -> Option<Instant> {
        loop {
            let (pick, gave_way) = {
                let mut core = self.shared.core();
                (core.pick(self.shared.clock.now()), core.take_gave_way())
            };
            if gave_way {
                self.shared.tell_change();
            }
            let turn = match pick {
                Pick::Turn(turn) => turn,
                Pick::Wait(until) => return until,
            };
            let token = match token::at_once(&self.shared, &turn) {
                Tokens::Now(token) => token,
                Tokens::Later(younger_than) => {
                    self.shared.core().token_awaited(turn.lane);
                    let shared = Arc::clone(&self.shared);
                    self.spawn(Job::TokenWait, token::wait(shared, turn.lane, younger_than));
                    continue;
                }
            };
            if self.shared.core().begin_if_unchanged(&turn) {
                let turning = serve(Arc::clone(&self.shared), turn.clone(), token);
                self.spawn(Job::Turn(turn), turning);
            }
        }
    }

    fn spawn(&mut self, job: Job, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(task);
        self.jobs.insert(handle.id(), (job, handle));
    }

    /// No task ends unnoticed.
    fn note_end(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match &ended {
            Ok((id, ())) => (*id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let job = self.jobs.remove(&id).map(|(job, _)| job);
        if !panicked {
            return;
        }
        match job {
            Some(Job::Turn(turn)) => {
                tracing::error!(chunk.id = %turn.chunk_key(), "a delivery panicked; its chunk is released");
                let at = self.shared.moment();
                let rest = Err(Rest(PANIC_REST));
                self.shared.core().finish(&turn, rest, at);
                self.shared.stir();
            }
            Some(Job::TokenWait | Job::IndexWatch | Job::ReportPoll) | None => {
                self.shared.give_order(Order {
                    grace: RELEASE_TIME,
                    end: End::Fault("a task of the engine panicked".to_owned()),
                });
            }
        }
    }

    /// In-flight turns get the grace period; the rest is given back.
    async fn wind_down(mut self, orders: &mut watch::Receiver<Option<Order>>) -> End {
        for (job, handle) in self.jobs.values() {
            if !matches!(job, Job::Turn(_)) {
                handle.abort();
            }
        }
        let order = |orders: &mut watch::Receiver<Option<Order>>| {
            let order = orders.borrow_and_update().clone();
            order.expect("the pool winds down by an order")
        };
        let grace = order(orders).grace;
        self.settle_until(self.shared.clock.now().saturating_add(grace))
            .await;
        self.shared.abort.cancel();
        let released = self.shared.clock.now().saturating_add(RELEASE_TIME);
        self.settle_until(released).await;
        // What is left hangs in the platform or the store; dropping it gives its chunk back.
        self.tasks.shutdown().await;
        order(orders).end
    }

    async fn settle_until(&mut self, until: Instant) {
        let shared = Arc::clone(&self.shared);
        let deadline = shared.clock.sleep_until(until);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.note_end(ended),
                    None => return,
                },
                () = &mut deadline => return,
            }
        }
    }
}

/// One turn from begin to finish.
async fn serve(shared: Arc<Shared>, turn: Turn, token: Token) {
    let next = worker::send(&shared, &turn, token).await;
    let at = shared.moment();
    let head = next.as_ref().map(Option::as_ref).map_err(|rest| *rest);
    shared.core().finish(&turn, head, at);
    shared.stir();
}

/// Asks the index something cheap now and then, so that its loss is noticed on an idle host too.
async fn watch_index(shared: Arc<Shared>) {
    loop {
        let next = shared
            .clock
            .now()
            .saturating_add(shared.settings.index_watch);
        shared.clock.sleep_until(next).await;
        if let Err(error) = shared.blocking(Shared::ask_index).await {
            shared.heed(&error);
        }
    }
}
