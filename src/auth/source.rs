//! A slot on a runtime: performs what `slot` decides. One lock around plain data, never held across an
//! await; one task for the request under way, which no caller can cancel.

mod whose;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::diagnosis::{Circumstance, Diagnosis};
use super::endpoint::REQUEST_TIMEOUT;
use super::grant::{Grant, MintFailure, Minted};
use super::secret::SecretSource;
use super::slot::{Answer, Flight, Mint, Moment, Rules, SlotState, Standing};
use super::witness::Witness;
use super::{AfterRejection, CredentialHold, Rejection, TokenResult, TokenSource, watch as files};
use crate::chance::Chance;
use crate::clock::{Clock, Instant};
use crate::model::{FailureRecord, Generation, SessionKey, Token, TokenView};

/// For each request that a grant may do.
const MINT_TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_add(Duration::from_secs(1));

/// A token slot, shared by cloning its `Arc` as a [`TokenSource`].
pub struct Slot {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    grant: Arc<dyn Grant>,
    witness: Option<Arc<dyn Witness>>,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    state: Mutex<State>,
    /// Counts changes; a caller that saw a count waits for the next.
    changes: watch::Sender<u64>,
}

struct State {
    slot: SlotState,
    request: Option<AbortHandle>,
    /// Somebody watches the grant's files.
    watched: bool,
}

impl Slot {
    pub fn new(
        grant: Arc<dyn Grant>,
        rules: Rules,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
    ) -> Self {
        Self::witnessed(grant, None, rules, clock, chance)
    }

    /// With somebody who knows whose tokens are that do not show it.
    pub fn witnessed(
        grant: Arc<dyn Grant>,
        witness: Option<Arc<dyn Witness>>,
        rules: Rules,
        clock: Arc<dyn Clock>,
        chance: Arc<Chance>,
    ) -> Self {
        let at = Moment {
            now: clock.now(),
            wall: clock.wall(),
            draw: chance.draw(),
        };
        let rules = Rules {
            is_static: grant.is_static(),
            ..rules
        };
        let slot = SlotState::new(rules, grant.about(), at);
        Self {
            inner: Arc::new(Inner {
                grant,
                witness,
                clock,
                chance,
                state: Mutex::new(State {
                    slot,
                    request: None,
                    watched: false,
                }),
                changes: watch::Sender::new(0),
            }),
        }
    }

    async fn wait_for_token(&self) -> Result<Token, CredentialHold> {
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
        self.inner.grant.retry_now();
        self.inner.retry_now();
    }

    fn invalidate(&self, generation: Generation) -> bool {
        let now = self.inner.clock.now();
        let comes = self.inner.lock().slot.invalidate(generation, now);
        self.inner.announce();
        comes
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

    fn organization(&self) -> Option<String> {
        self.inner.lock().slot.organization().map(str::to_owned)
    }

    fn fate(&self, generation: Generation) -> Option<String> {
        self.inner
            .lock()
            .slot
            .fate(generation, self.inner.clock.now())
    }

    fn told(&self, generation: Generation, organization: &str) -> Option<CredentialHold> {
        self.inner.told(generation, organization)
    }

    fn explain(&self, record: &FailureRecord) -> (String, String) {
        let wall = self.inner.clock.wall();
        let state = self.inner.lock();
        let diagnosis = state.slot.diagnosed(record, Circumstance::Fresh, wall);
        (diagnosis.reason(Duration::ZERO), diagnosis.remedy)
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

    fn retry_now(&self) {
        let now = self.clock.now();
        self.lock().slot.retry_now(now);
        self.announce();
    }

    /// The operator wrote one of the grant's files.
    pub(super) fn files_changed(&self) {
        let now = self.clock.now();
        let mut state = self.lock();
        if self.grant.is_static() {
            let generation = state.slot.generation();
            state.slot.renew(generation, now);
        }
        drop(state);
        self.grant.retry_now();
        self.retry_now();
    }

    /// Whether a change of the grant's files matters now.
    pub(super) fn follows_files(&self) -> bool {
        self.grant.is_static() || self.lock().slot.is_troubled()
    }

    pub(super) fn files(&self) -> Vec<SecretSource> {
        self.grant.files()
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn want(self: &Arc<Self>, standing: Standing) -> Answer {
        let at = self.moment();
        let (wanted, unwatched) = {
            let mut state = self.lock();
            let unwatched = !std::mem::replace(&mut state.watched, true);
            (state.slot.want(at, standing), unwatched)
        };
        if unwatched && !self.grant.files().is_empty() {
            tokio::spawn(files::watch(Arc::downgrade(self)));
        }
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
        let minted = result.as_ref().ok();
        let stranger = minted.and_then(|minted| state.slot.stranger(&minted.claims, true));
        let result = match (result, stranger) {
            (Ok(minted), None) => Ok(minted),
            (Ok(_), Some(diagnosis)) => Err(Box::new(diagnosis)),
            (Err(failure), _) => {
                let diagnosis = Diagnosis::of_mint(&failure, state.slot.about(), at.wall);
                Err(Box::new(diagnosis))
            }
        };
        match result {
            Ok(minted) => {
                let generation = state.slot.minted(flight, minted, asked_at, at);
                drop(state);
                if let Some(generation) = generation {
                    tracing::debug!(generation = generation.0, "token minted");
                }
            }
            Err(diagnosis) => {
                let reason = diagnosis.reason(Duration::ZERO);
                let before = state.slot.failed(flight, *diagnosis, at);
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
        let deadline = asked_at.saturating_add(MINT_TIMEOUT * inner.grant.requests());
        let result = tokio::select! {
            result = inner.grant.mint() => result,
            () = inner.clock.sleep_until(deadline) => Err(MintFailure::Unreachable {
                cause: "no answer in time".to_owned(),
            }),
        };
        let result = match result {
            Ok(minted) => {
                let ripening = mint.ripening_of(minted.lifetime);
                let ripe_at = inner.clock.now().saturating_add(ripening);
                inner.clock.sleep_until(ripe_at).await;
                Ok(inner.asked_whose(minted).await)
            }
            failed => failed,
        };
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
