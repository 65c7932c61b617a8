//! What the store keeps of a slot that gives no token, and what is made of it after a restart.

use std::time::Duration;

use super::stage::{HOUR, MINUTE, Reply, Stage, pass};
use crate::auth::Refusal;
use crate::engine::{DrainOutcome, stored_hold_view};
use crate::model::{FailureClass as C, GateState, HoldView, TenantId, Timestamp};

fn wrong_secret() -> Refusal {
    Refusal {
        status: 401,
        error: Some("invalid_client".into()),
        description: Some("client not found".into()),
        correlation_id: Some("c-7".into()),
        ..Refusal::default()
    }
}

fn throttle(retry_after: Duration) -> Refusal {
    Refusal {
        status: 429,
        retry_after: Some(retry_after),
        ..Refusal::default()
    }
}

impl Stage {
    fn token_endpoint_refuses(&self, refusal: impl Into<Option<Refusal>>) {
        *self.grants[0].refusal.lock().unwrap() = refusal.into();
    }

    fn token_endpoint_is_down(&self, down: bool) {
        *self.grants[0].down.lock().unwrap() = down;
    }

    /// What a command without a worker sees.
    fn stored_holds(&self) -> Vec<HoldView> {
        let holds = self.store().holds();
        holds
            .iter()
            .map(|hold| stored_hold_view(hold, Timestamp(0)))
            .collect()
    }

    fn shown_holds(&self) -> Vec<HoldView> {
        let acme: TenantId = "acme".parse().unwrap();
        self.engine().lanes()[&acme].gate.holds.clone()
    }

    /// Drains, and opens the store as the next command does.
    async fn drained_and_closed(&mut self) -> DrainOutcome {
        self.start().await;
        let report = self.drain().await;
        self.stop(Duration::ZERO).await;
        self.reopen();
        report.outcome
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_outlives_the_drain_that_it_ended() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    stage.token_endpoint_refuses(wrong_secret());
    assert_eq!(stage.drained_and_closed().await, DrainOutcome::Blocked);
    let holds = stage.stored_holds();
    let [hold] = &holds[..] else {
        panic!("{holds:?}");
    };
    assert_eq!((hold.kind.as_str(), hold.route), ("blocked", None));
    assert!(
        hold.reason.contains("does not accept client 5b1c9e"),
        "{}",
        hold.reason
    );
    assert!(hold.reason.contains(". Put the secret"), "{}", hold.reason);
    assert_eq!(hold.until, None, "nobody tries by itself");
    let last = hold.last.as_ref().unwrap();
    assert_eq!(last.status, Some(401));
    assert_eq!(last.code.as_deref(), Some("invalid_client"));
    assert_eq!(last.correlation_id.as_deref(), Some("c-7"));

    stage.token_endpoint_refuses(None);
    assert_eq!(stage.drained_and_closed().await, DrainOutcome::Drained);
    assert_eq!(stage.stored_holds(), []);
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_is_down_or_throttles_outlives_the_drain_too() {
    for (refusal, kind, outcome) in [
        (None, "outage", DrainOutcome::Unreachable),
        (Some(throttle(HOUR)), "throttled", DrainOutcome::Throttled),
    ] {
        let mut stage = Stage::new(&["acme"]);
        stage.fill("acme", &["a"], 3);
        stage.token_endpoint_is_down(refusal.is_none());
        stage.token_endpoint_refuses(refusal);
        assert_eq!(stage.drained_and_closed().await, outcome);
        let holds = stage.stored_holds();
        assert_eq!(holds[0].kind, kind, "{holds:?}");
        assert!(holds[0].reason.contains("login.test"), "{holds:?}");
        assert_eq!(holds[0].until.is_some(), kind == "throttled", "{holds:?}");
        stage.token_endpoint_is_down(false);
        stage.token_endpoint_refuses(None);
        assert_eq!(stage.drained_and_closed().await, DrainOutcome::Drained);
        assert_eq!(stage.stored_holds(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_without_patience_tells_of_an_outage_that_has_just_begun() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 1);
    stage.token_endpoint_is_down(true);
    stage.start().await;
    let report = stage.drain_with(None, Duration::ZERO).await;
    assert_eq!(report.outcome, DrainOutcome::Unreachable);
    stage.stop(Duration::ZERO).await;
    assert_eq!(stage.stored_holds().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_the_platform_refuses_are_told_of_after_the_drain_and_forgotten_with_the_cure()
{
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a", "b"], 3);
    stage.script(|_| Reply::fail(C::Unauthorized, Some(401)));
    assert_eq!(stage.drained_and_closed().await, DrainOutcome::Blocked);
    let holds = stage.stored_holds();
    assert_eq!(holds.len(), 1, "{holds:?}");
    assert!(
        holds[0].reason.contains("the platform refuses tokens"),
        "{holds:?}"
    );
    assert_eq!(holds[0].last.as_ref().unwrap().status, Some(401));
    stage.all_is_well();
    assert_eq!(stage.drained_and_closed().await, DrainOutcome::Drained);
    assert_eq!(stage.stored_holds(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stored_hold_is_shown_at_the_start_and_keeps_no_slot_from_trying() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    stage.token_endpoint_refuses(wrong_secret());
    stage.drained_and_closed().await;
    let since = stage.stored_holds()[0].since.clone();

    stage.token_endpoint_refuses(None);
    *stage.grants[0].hangs.lock().unwrap() = true;
    stage.start().await;
    let shown = stage.shown_holds();
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0].since, since);
    assert_eq!(stage.gate("acme"), GateState::Blocked);

    *stage.grants[0].hangs.lock().unwrap() = false;
    stage.restart().await;
    pass(Duration::from_secs(5)).await;
    assert_eq!(stage.stored("acme", "a"), [0, 1, 2]);
    assert_eq!(stage.shown_holds(), []);
    assert_eq!(stage.stored_holds(), []);
}

#[tokio::test(start_paused = true)]
async fn a_cause_that_outlasts_restarts_is_told_since_it_began() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    stage.token_endpoint_refuses(wrong_secret());
    stage.drained_and_closed().await;
    let since = stage.stored_holds()[0].since.clone();
    for _ in 0..3 {
        pass(HOUR).await;
        stage.drained_and_closed().await;
        assert_eq!(stage.stored_holds()[0].since, since);
    }
    stage.start().await;
    pass(MINUTE).await;
    assert_eq!(stage.shown_holds()[0].since, since);
    let disabled = Refusal {
        description: Some("client is disabled".into()),
        ..wrong_secret()
    };
    stage.token_endpoint_refuses(disabled);
    pass(HOUR).await;
    assert_ne!(stage.shown_holds()[0].since, since);
    assert_eq!(stage.stored_holds().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_has_told_the_store_before() {
    let mut stage = Stage::new(&["acme"]);
    stage.fill("acme", &["a"], 3);
    stage.token_endpoint_refuses(wrong_secret());
    stage.start().await;
    pass(MINUTE).await;
    // No word of farewell: what is there now is what a kill leaves.
    assert_eq!(stage.stored_holds().len(), 1);
}
