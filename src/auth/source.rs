//! A slot on a runtime: performs what `slot` decides. One lock around plain data, never held across an
//! await; one task for the request under way, which no caller can cancel.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::diagnosis::Diagnosis;
use super::endpoint::REQUEST_TIMEOUT;
use super::grant::{Grant, MintFailure, Minted};
use super::slot::{Answer, Flight, Mint, Moment, Rules, SlotState, Standing};
use super::{AfterRejection, CredentialHold, Rejection, TokenResult, TokenSource};
use crate::chance::Chance;
use crate::clock::{Clock, Instant};
use crate::model::{Generation, SessionKey, TokenView};

/// A grant may do more than one request; all of it fits in here.
const MINT_TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_add(Duration::from_secs(1));

/// A token slot, shared by cloning its `Arc` as a [`TokenSource`].
pub struct Slot {
    inner: Arc<Inner>,
}

struct Inner {
    grant: Arc<dyn Grant>,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    state: Mutex<State>,
    /// Counts changes; a caller that saw a count waits for the next.
    changes: watch::Sender<u64>,
}

struct State {
    slot: SlotState,
    request: Option<AbortHandle>,
}

impl Slot {
    pub fn new(
        grant: Arc<dyn Grant>,
        rules: Rules,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
    ) -> Self {
        let at = Moment {
            now: clock.now(),
            wall: clock.wall(),
            draw: chance.draw(),
        };
        let slot = SlotState::new(rules, grant.about(), at);
        Self {
            inner: Arc::new(Inner {
                grant,
                clock,
                chance,
                state: Mutex::new(State {
                    slot,
                    request: None,
                }),
                changes: watch::Sender::new(0),
            }),
        }
    }

    async fn wait_for_token(&self) -> Result<crate::model::Token, CredentialHold> {
        let inner = &self.inner;
        let mut changes = inner.changes.subscribe();
        let mut standing = Standing::New;
        loop {
            changes.mark_unchanged();
            match inner.want(standing) {
                Answer::Use(token) => return Ok(token),
                Answer::Held(hold) => return Err(*hold),
                Answer::Wait => {}
            }
            standing = Standing::Waited;
            changes
                .changed()
                .await
                .expect("the slot outlives its callers");
        }
    }
}

impl TokenSource for Slot {
    fn token(&self) -> TokenResult<'_> {
        Box::pin(self.wait_for_token())
    }

    fn reject(&self, rejection: Rejection) -> AfterRejection {
        self.inner.reject(&rejection)
    }

    fn accepted(&self, generation: Generation, session: &SessionKey) {
        if self.inner.lock().slot.accepted(generation, session) {
            tracing::info!(
                client = %self.inner.grant.about().client_id,
                "the platform accepts tokens again"
            );
            self.inner.announce();
        }
    }

    fn retry_now(&self) {
        let now = self.inner.clock.now();
        self.inner.lock().slot.retry_now(now);
        self.inner.announce();
    }

    fn renew(&self, generation: Generation) -> bool {
        let now = self.inner.clock.now();
        self.inner.lock().slot.renew(generation, now)
    }

    fn hold(&self) -> Option<CredentialHold> {
        self.inner.lock().slot.hold(self.inner.clock.now())
    }

    fn view(&self) -> TokenView {
        self.inner.lock().slot.view(self.inner.clock.now())
    }

    fn granted_scopes(&self) -> Option<Vec<String>> {
        self.inner.lock().slot.scopes().map(<[String]>::to_vec)
    }

    fn client_id(&self) -> Option<String> {
        let client = self.inner.lock().slot.about().client_id.clone();
        (!client.is_empty()).then_some(client)
    }

    fn changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut changes = self.inner.changes.subscribe();
        Box::pin(async move {
            // Only a dropped sender fails, and `self` holds it.
            let _ended = changes.changed().await;
        })
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no transition panics")
    }

    fn moment(&self) -> Moment {
        Moment {
            now: self.clock.now(),
            wall: self.clock.wall(),
            draw: self.chance.draw(),
        }
    }

    fn announce(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn want(self: &Arc<Self>, standing: Standing) -> Answer {
        let at = self.moment();
        let wanted = self.lock().slot.want(at, standing);
        if let Some(mint) = wanted.mint {
            let request = Request {
                inner: Arc::clone(self),
                flight: mint.flight,
                answered: false,
            };
            // Not under the lock: a runtime that is going down drops the task here, which takes it.
            let request = tokio::spawn(request.run(mint)).abort_handle();
            self.watch_over(mint.flight, request);
        }
        wanted.answer
    }

    /// Keeps the handle of a request, unless it ended or was abandoned meanwhile.
    fn watch_over(&self, flight: Flight, request: AbortHandle) {
        let mut state = self.lock();
        if state.slot.awaits(flight) {
            state.request = Some(request);
            return;
        }
        drop(state);
        request.abort();
    }

    fn reject(&self, rejection: &Rejection) -> AfterRejection {
        let at = self.moment();
        let mut state = self.lock();
        let rejected = state.slot.reject(rejection, at);
        let request = state.request.take_if(|_| rejected.abandon);
        let hold = state.slot.hold(at.now);
        drop(state);
        if let Some(request) = request {
            request.abort();
        }
        let Some(seen) = rejected.seen else {
            return rejected.after;
        };
        tracing::debug!(
            generation = rejection.generation.0,
            session = %rejection.session,
            after = ?rejected.after,
            "401: {}",
            seen.sentence()
        );
        if let (AfterRejection::Blocked, Some(hold)) = (rejected.after, hold) {
            // A person must act, and is told once.
            if hold.probes_failed == 0 {
                tracing::error!(remedy = %hold.remedy, "token slot blocked: {}", hold.reason);
            }
        }
        self.announce();
        rejected.after
    }

    fn settle(&self, flight: Flight, result: Result<Minted, MintFailure>, asked_at: Instant) {
        let at = self.moment();
        let mut state = self.lock();
        match result {
            Ok(minted) => {
                let generation = state.slot.minted(flight, minted, asked_at, at);
                drop(state);
                if let Some(generation) = generation {
                    tracing::debug!(generation = generation.0, "token minted");
                }
            }
            Err(failure) => {
                let diagnosis = Diagnosis::of_mint(&failure, state.slot.about(), at.wall);
                let reason = diagnosis.reason(Duration::ZERO);
                let before = state.slot.failed(flight, diagnosis, at);
                drop(state);
                match before {
                    Some(0) => tracing::warn!("no new token: {reason}"),
                    Some(before) => tracing::debug!(before, "still no new token: {reason}"),
                    None => {}
                }
            }
        }
        self.announce();
    }
}

/// The request under way. However it ends, also by a panic, its slot learns of it.
struct Request {
    inner: Arc<Inner>,
    flight: Flight,
    answered: bool,
}

impl Request {
    async fn run(mut self, mint: Mint) {
        let inner = Arc::clone(&self.inner);
        inner.clock.sleep_until(mint.not_before).await;
        let asked_at = inner.clock.now();
        let deadline = asked_at.saturating_add(MINT_TIMEOUT);
        let result = tokio::select! {
            result = inner.grant.mint() => result,
            () = inner.clock.sleep_until(deadline) => Err(MintFailure::Unreachable {
                cause: "no answer in time".to_owned(),
            }),
        };
        if let Ok(minted) = &result {
            let ripe_at = inner
                .clock
                .now()
                .saturating_add(mint.ripening_of(minted.lifetime));
            inner.clock.sleep_until(ripe_at).await;
        }
        self.answered = true;
        inner.settle(self.flight, result, asked_at);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.answered {
            let failure = MintFailure::Unreachable {
                cause: "the request ended without an answer".to_owned(),
            };
            let now = self.inner.clock.now();
            self.inner.settle(self.flight, Err(failure), now);
        }
    }
}

#[cfg(test)]
mod tests;
