//! Chains of slots in virtual time, over scripted endpoints: how many requests each link costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tokio::task::JoinSet;

use crate::auth::claims::Claims;
use crate::auth::grant::{About, Grant, MintFailure, Minted, Minting};
use crate::auth::{Rules, Slot, TokenSource};
use crate::chance::Chance;
use crate::clock::RuntimeClock;
use crate::model::Timestamp;

/// One link: it answers after 100 ms, out of a subject's token where it has one.
struct Link {
    subject: Option<Arc<dyn TokenSource>>,
    requests: AtomicU32,
    down: AtomicBool,
    life: Duration,
}

impl Grant for Link {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            let mut life = self.life;
            if let Some(subject) = &self.subject {
                let token = subject.token().await;
                token.map_err(|hold| MintFailure::Subject(Box::new(hold)))?;
                let left = subject.view().expires_in_s.unwrap_or(u64::MAX);
                life = life.min(Duration::from_secs(left));
            }
            self.requests.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.down.load(Ordering::SeqCst) {
                return Err(MintFailure::Unreachable {
                    cause: "connection refused".to_owned(),
                });
            }
            Ok(Minted {
                access_token: SecretString::from("canary"),
                lifetime: life,
                scopes: None,
                claims: Claims::default(),
            })
        })
    }

    fn about(&self) -> About {
        About::default()
    }

    fn requests(&self) -> u32 {
        4
    }
}

fn slot(grant: &Arc<Link>) -> Arc<Slot> {
    let clock = RuntimeClock::starting_at(Timestamp(1_700_000_000_000));
    let (clock, chance) = (Arc::new(clock), Arc::new(Chance::seeded(7)));
    let grant = Arc::clone(grant);
    Arc::new(Slot::new(grant, Rules::default(), clock, chance))
}

fn link(subject: Option<Arc<dyn TokenSource>>, life_s: u64) -> Arc<Link> {
    Arc::new(Link {
        subject,
        requests: AtomicU32::new(0),
        down: AtomicBool::new(false),
        life: Duration::from_secs(life_s),
    })
}

fn asked(links: &[&Arc<Link>]) -> Vec<u32> {
    links
        .iter()
        .map(|link| link.requests.load(Ordering::SeqCst))
        .collect()
}

async fn crowd(slots: &[Arc<Slot>], tasks: usize) {
    let mut waiting = JoinSet::new();
    for number in 0..tasks {
        let slot = Arc::clone(&slots[number % slots.len()]);
        waiting.spawn(async move { slot.token().await.map(|token| token.generation.0) });
    }
    while let Some(had) = waiting.join_next().await {
        had.unwrap().expect("a token");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_tasks_and_an_expired_chain_cost_one_request_a_slot() {
    let service = link(None, 60);
    let subject: Arc<dyn TokenSource> = slot(&service);
    // Two tenants, one service token.
    let (acme, globex) = (
        link(Some(Arc::clone(&subject)), 3600),
        link(Some(Arc::clone(&subject)), 3600),
    );
    let slots = [slot(&acme), slot(&globex)];
    for round in 1..=3 {
        crowd(&slots, 1_000).await;
        assert_eq!(asked(&[&service, &acme, &globex]), [round; 3]);
        // The whole chain has ended: none outlives the service's token.
        tokio::time::sleep(Duration::from_secs(61)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_without_the_service_costs_its_endpoint_one_request_a_backoff_step_and_the_others_none()
 {
    let service = link(None, 3600);
    let subject: Arc<dyn TokenSource> = slot(&service);
    let tenant = link(Some(Arc::clone(&subject)), 3600);
    let exchanged = slot(&tenant);
    crowd(std::slice::from_ref(&exchanged), 10).await;
    service.down.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3601)).await;
    let before = asked(&[&service, &tenant]);
    let mut steps = 0;
    let end = tokio::time::Instant::now() + Duration::from_secs(24 * 3600);
    while tokio::time::Instant::now() < end {
        // Whoever wants one asks again as soon as the hold lets it.
        if let Err(hold) = exchanged.token().await {
            steps += 1;
            assert!(
                hold.reason.contains("connection refused"),
                "{}",
                hold.reason
            );
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let after = asked(&[&service, &tenant]);
    assert_eq!(after[1], before[1], "nothing was there to exchange");
    let requests = after[0] - before[0];
    // Doubling from 2 s to 5 min, never less than half of it: 24 h hold at most 576 + 9 steps.
    assert!(requests <= 585, "{requests} of {steps}");
    assert!(
        requests >= 24 * 12,
        "it is still tried every five minutes: {requests}"
    );
    service.down.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(601)).await;
    crowd(&[exchanged], 1_000).await;
    let cured = asked(&[&service, &tenant]);
    assert!(
        cured[0] - after[0] <= 2 && cured[1] - after[1] == 1,
        "{cured:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_subject_that_is_about_to_end_does_not_make_the_exchange_spin() {
    let service = link(None, 1);
    let subject: Arc<dyn TokenSource> = slot(&service);
    let tenant = link(Some(subject), 3600);
    let exchanged = slot(&tenant);
    for _ in 0..600 {
        let _token = exchanged.token().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = asked(&[&service, &tenant]);
    // Both take at least a second between two requests.
    assert!(asked.iter().all(|count| *count <= 75), "{asked:?}");
}
