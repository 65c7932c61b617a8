//! The shell in virtual time, over a scripted grant.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::SecretString;

use super::*;
use crate::auth::answer::{self, RawAnswer};
use crate::auth::grant::{About, Minting, Proof, Refusal};
use crate::auth::witness::{self, Told};
use crate::auth::{Claims, CredentialHoldKind, RefreshPolicy, Witnessing};
use crate::clock::RuntimeClock;
use crate::model::{FailureClass, FailureRecord, Timestamp, Token};

const CANARY: &str = "canary-token";

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What the scripted endpoint does with one request.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A token of this life.
    Token(Duration),
    /// A token whose answer states this `expires_in`, read as in life.
    Stating(&'static str),
    Down,
    WrongSecret,
    Hang,
    Panic,
}

/// An endpoint that answers after 100 ms: by its script, then always by its habit.
struct ScriptedGrant {
    script: Mutex<VecDeque<Step>>,
    habit: Mutex<Step>,
    requests: AtomicU32,
    under_way: AtomicU32,
    asked_at: Mutex<Vec<tokio::time::Instant>>,
}

impl ScriptedGrant {
    fn new(script: &[Step], habit: Step) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.iter().copied().collect()),
            habit: Mutex::new(habit),
            requests: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
            asked_at: Mutex::new(Vec::new()),
        })
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    fn becomes(&self, habit: Step) {
        *self.habit.lock().unwrap() = habit;
    }
}

/// Counts a request as long as it is not answered or dropped.
struct UnderWay<'a>(&'a AtomicU32);

impl<'a> UnderWay<'a> {
    fn on(count: &'a AtomicU32) -> Self {
        let before = count.fetch_add(1, Ordering::SeqCst);
        assert_eq!(before, 0, "two token requests at once");
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Grant for ScriptedGrant {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            let _under_way = UnderWay::on(&self.under_way);
            let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
            self.asked_at
                .lock()
                .unwrap()
                .push(tokio::time::Instant::now());
            let scripted = self.script.lock().unwrap().pop_front();
            let step = scripted.unwrap_or(*self.habit.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(100)).await;
            match step {
                Step::Token(lifetime) => Ok(Minted {
                    access_token: SecretString::from(format!("{CANARY}-{number}")),
                    lifetime,
                    scopes: Some(vec!["a".to_owned()]),
                    claims: Claims::default(),
                }),
                Step::Stating(life) => {
                    let body = format!(r#"{{"access_token":"{CANARY}","expires_in":{life}}}"#);
                    let raw = RawAnswer {
                        status: 200,
                        body: body.into_bytes(),
                        ..RawAnswer::default()
                    };
                    answer::read(&raw, &[], Proof::Nothing).map(|granted| granted.minted)
                }
                Step::Down => Err(MintFailure::Unreachable {
                    cause: "connection refused".to_owned(),
                }),
                Step::WrongSecret => Err(MintFailure::Refused(Box::new(Refusal {
                    status: 401,
                    error: Some("invalid_client".to_owned()),
                    ..Refusal::default()
                }))),
                Step::Hang => std::future::pending().await,
                Step::Panic => panic!("scripted"),
            }
        })
    }

    fn about(&self) -> About {
        About {
            endpoint: "https://login.example/oauth/token".to_owned(),
            client_id: "5b1c9e".to_owned(),
            ..About::default()
        }
    }
}

fn slot_under(rules: Rules, grant: &Arc<ScriptedGrant>) -> Arc<Slot> {
    let clock = RuntimeClock::starting_at(Timestamp(1_700_000_000_000));
    Arc::new(Slot::new(
        Arc::clone(grant) as Arc<dyn Grant>,
        rules,
        Arc::new(clock),
        Arc::new(Chance::seeded(7)),
    ))
}

fn slot(grant: &Arc<ScriptedGrant>) -> Arc<Slot> {
    slot_under(Rules::default(), grant)
}

fn session(name: &str) -> SessionKey {
    SessionKey {
        tenant: "acme".parse().unwrap(),
        session: name.parse().unwrap(),
    }
}

fn rejection(token: &Token, name: &str) -> Rejection {
    Rejection {
        generation: token.generation,
        session: session(name),
        only_session: false,
        record: FailureRecord {
            at: Timestamp(0),
            class: FailureClass::Unauthorized,
            status: Some(401),
            code: Some("bad.credentials".to_owned()),
            correlation_id: None,
            fields: Vec::new(),
            missing: None,
            message: "Invalid login credentials.".to_owned(),
            body: String::new(),
            token_generation: Some(token.generation.0),
            token_fingerprint: None,
            attempt: 1,
            next_try_at: None,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn twelve_thousand_tasks_meeting_an_expired_token_make_one_token_request() {
    let grant = ScriptedGrant::new(&[Step::Token(secs(60))], Step::Token(secs(3600)));
    let slot = slot(&grant);
    slot.token().await.unwrap();
    tokio::time::sleep(secs(61)).await;

    let callers: Vec<_> = (0..12_000)
        .map(|_| {
            let slot = Arc::clone(&slot);
            tokio::spawn(async move { slot.token().await.unwrap().generation })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Generation(2));
    }
    assert_eq!(grant.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_cancels_nothing() {
    let grant = ScriptedGrant::new(&[], Step::Token(secs(3600)));
    let slot = slot(&grant);
    let gave_up = tokio::time::timeout(Duration::from_millis(50), slot.token()).await;
    assert!(gave_up.is_err(), "the first caller did not wait");
    assert_eq!(slot.token().await.unwrap().generation, Generation(1));
    assert_eq!(grant.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_waiter_learns_of_a_failure() {
    let grant = ScriptedGrant::new(&[Step::Down], Step::Token(secs(3600)));
    let slot = slot(&grant);
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let slot = Arc::clone(&slot);
            tokio::spawn(async move { slot.token().await.unwrap_err() })
        })
        .collect();
    for caller in callers {
        let hold = caller.await.unwrap();
        assert_eq!(hold.kind, CredentialHoldKind::Outage);
        assert!(hold.reason.contains("connection refused"), "{hold:?}");
    }
    assert_eq!(grant.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_ahead_without_making_anyone_wait() {
    let grant = ScriptedGrant::new(&[], Step::Token(secs(3600)));
    let slot = slot(&grant);
    slot.token().await.unwrap();
    tokio::time::sleep(secs(3600 - 140)).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(slot.token().await.unwrap().generation, Generation(1));
    assert_eq!(asked.elapsed(), Duration::ZERO);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(slot.token().await.unwrap().generation, Generation(2));
    assert_eq!(grant.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_wants_the_slot_so_nothing_is_renewed() {
    let grant = ScriptedGrant::new(&[], Step::Token(secs(60)));
    let slot = slot(&grant);
    slot.token().await.unwrap();
    tokio::time::sleep(secs(24 * 3600)).await;
    assert_eq!(grant.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_live_token_whatever_the_error() {
    for failure in [Step::Down, Step::WrongSecret, Step::Hang, Step::Panic] {
        let grant = ScriptedGrant::new(&[Step::Token(secs(3600))], failure);
        let slot = slot(&grant);
        slot.token().await.unwrap();
        tokio::time::sleep(secs(3600 - 140)).await;
        for _ in 0..139 {
            let token = slot.token().await;
            assert_eq!(token.unwrap().generation, Generation(1), "{failure:?}");
            assert_eq!(slot.hold(), None, "{failure:?}");
            tokio::time::sleep(secs(1)).await;
        }
        assert!(grant.requests() > 1, "{failure:?}: no refresh was tried");
        tokio::time::sleep(secs(2)).await;
        let ended = slot.token().await;
        assert!(ended.is_err(), "{failure:?}: used past its end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_ends_by_its_deadline() {
    let grant = ScriptedGrant::new(&[Step::Hang], Step::Token(secs(3600)));
    let slot = slot(&grant);
    let asked = tokio::time::Instant::now();
    let hold = slot.token().await.unwrap_err();
    assert!(asked.elapsed() <= secs(32), "{:?}", asked.elapsed());
    assert!(hold.reason.contains("no answer in time"), "{hold:?}");
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_panics_leaves_a_slot_that_recovers() {
    let grant = ScriptedGrant::new(&[Step::Panic], Step::Token(secs(3600)));
    let slot = slot(&grant);
    let hold = slot.token().await.unwrap_err();
    assert!(hold.reason.contains("without an answer"), "{hold:?}");
    tokio::time::sleep(secs(3)).await;
    assert!(slot.token().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_revoked_early_is_replaced_by_one_request() {
    let grant = ScriptedGrant::new(&[], Step::Token(secs(86_400)));
    let slot = slot(&grant);
    let token = slot.token().await.unwrap();
    slot.accepted(token.generation, &session("s1"));
    tokio::time::sleep(secs(900)).await;
    for number in 0..16 {
        let after = slot.reject(rejection(&token, &format!("s{number}")));
        assert_eq!(after, AfterRejection::Retry);
    }
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let slot = Arc::clone(&slot);
            tokio::spawn(async move { slot.token().await.unwrap().generation })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Generation(2));
    }
    assert_eq!(grant.requests(), 2);
    let late = slot.reject(rejection(&token, "s99"));
    assert_eq!(late, AfterRejection::Retry);
    assert_eq!(slot.token().await.unwrap().generation, Generation(2));
}

#[tokio::test(start_paused = true)]
async fn two_sessions_refused_with_a_token_got_after_a_refusal_block_until_a_probe_after_the_cure()
{
    let grant = ScriptedGrant::new(&[], Step::Token(secs(86_400)));
    let slot = slot(&grant);
    let first = slot.token().await.unwrap();
    for session in ["s1", "s2"] {
        assert_eq!(
            slot.reject(rejection(&first, session)),
            AfterRejection::Retry,
            "it may have ended before it was used"
        );
    }
    let token = slot.token().await.unwrap();
    assert_eq!(grant.requests(), 2);
    assert_eq!(
        slot.reject(rejection(&token, "s1")),
        AfterRejection::Retry,
        "one session is no evidence against the slot"
    );
    assert_eq!(
        slot.reject(rejection(&token, "s2")),
        AfterRejection::Blocked
    );
    let hold = slot.hold().expect("a blocked slot has a hold");
    assert_eq!(hold.kind, CredentialHoldKind::Blocked);
    assert!(hold.reason.contains("bad.credentials"), "{}", hold.reason);
    assert_eq!(slot.token().await.unwrap_err(), hold);
    assert_eq!(slot.view().state, "blocked");

    let mut waits = Vec::new();
    for probe in 0..10 {
        let hold = slot.token().await.unwrap_err();
        assert_eq!(hold.probes_failed, probe);
        let from = tokio::time::Instant::now();
        slot.inner.clock.sleep_until(hold.until).await;
        waits.push(from.elapsed());
        assert_eq!(slot.hold(), None, "the deadline has come");
        let probe = slot.token().await.unwrap();
        assert_eq!(
            slot.reject(rejection(&probe, "s3")),
            AfterRejection::Blocked,
            "a probe needs no second witness"
        );
    }
    assert!(waits[0] <= secs(2) && waits[1] > secs(4), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= secs(900)), "{waits:?}");
    assert!(waits[9] >= secs(450), "{waits:?}");

    let hold = slot.token().await.unwrap_err();
    slot.inner.clock.sleep_until(hold.until).await;
    let cured = slot.token().await.unwrap();
    slot.accepted(cured.generation, &session("s4"));
    assert_eq!(slot.hold(), None);
    assert_eq!(
        slot.reject(rejection(&cured, "s5")),
        AfterRejection::Retry,
        "after a delivery a 401 is an ordinary one again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_block_ends_the_request_under_way() {
    let grant = ScriptedGrant::new(
        &[Step::Token(secs(3600)), Step::Token(secs(3600)), Step::Hang],
        Step::Token(secs(3600)),
    );
    let slot = slot(&grant);
    let first = slot.token().await.unwrap();
    slot.reject(rejection(&first, "s1"));
    let token = slot.token().await.unwrap();
    slot.reject(rejection(&token, "s1"));
    let waiter = tokio::spawn({
        let slot = Arc::clone(&slot);
        async move { slot.token().await.map(|token| token.generation) }
    });
    tokio::time::sleep(secs(5)).await;
    assert_eq!(grant.requests(), 3);
    slot.reject(rejection(&token, "s2"));
    let hold = waiter.await.unwrap().unwrap_err();
    assert_eq!(hold.kind, CredentialHoldKind::Blocked);
    assert_eq!(grant.under_way.load(Ordering::SeqCst), 0);
    slot.inner.clock.sleep_until(hold.until).await;
    let probe = slot.token().await.unwrap();
    assert_eq!(probe.generation, Generation(3), "the hung request is gone");
}

#[tokio::test(start_paused = true)]
async fn an_operator_ends_a_block_at_once() {
    let grant = ScriptedGrant::new(
        &[Step::WrongSecret, Step::WrongSecret, Step::WrongSecret],
        Step::Token(secs(3600)),
    );
    let slot = slot(&grant);
    for _ in 0..3 {
        let hold = slot.token().await.unwrap_err();
        slot.inner.clock.sleep_until(hold.until).await;
        slot.retry_now();
    }
    let changed = slot.changed();
    slot.retry_now();
    tokio::time::timeout(secs(1), changed)
        .await
        .expect("hinted");
    assert_eq!(slot.hold(), None);
    assert!(slot.token().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_day_without_token_endpoint_costs_one_request_per_backoff_step() {
    let grant = ScriptedGrant::new(&[], Step::Down);
    let slot = slot(&grant);
    let began = tokio::time::Instant::now();
    let lanes: Vec<_> = (0..50)
        .map(|_| {
            let slot = Arc::clone(&slot);
            tokio::spawn(async move {
                loop {
                    match slot.token().await {
                        Ok(token) => return token.generation,
                        Err(hold) => slot.inner.clock.sleep_until(hold.until).await,
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(secs(24 * 3600)).await;
    let hold = slot.hold().expect("still down");
    assert!(hold.reason.contains("unreachable for 23 h") || hold.reason.contains("for 24 h"));
    let asked = grant.asked_at.lock().unwrap().clone();
    let mut step = secs(2);
    for (number, pair) in asked.windows(2).enumerate() {
        let gap = pair[1] - pair[0];
        assert!(gap >= step / 2, "step {number}: {gap:?} after {step:?}");
        step = (step * 2).min(secs(300));
    }
    let least = (asked.len() as u64 - 1) * 150;
    assert!(least <= 24 * 3600 + 300, "{} requests", asked.len());

    grant.becomes(Step::Token(secs(3600)));
    for lane in lanes {
        assert_eq!(lane.await.unwrap(), Generation(1));
    }
    assert!(began.elapsed() <= secs(24 * 3600 + 301), "noticed too late");
}

#[tokio::test(start_paused = true)]
async fn the_shortest_life_costs_one_request_a_second_at_most() {
    let grant = ScriptedGrant::new(&[], Step::Token(secs(1)));
    let slot = slot(&grant);
    let until = tokio::time::Instant::now() + secs(60);
    let mut served = 0;
    while tokio::time::Instant::now() < until {
        slot.token().await.expect("a token is given");
        served += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(grant.requests() <= 61, "{} requests", grant.requests());
    assert!(served > 3_000, "{served} served");
}

#[tokio::test(start_paused = true)]
async fn no_silly_lifetime_makes_a_loop() {
    let silly = [
        "0",
        "1",
        "-1",
        "null",
        "\"0\"",
        "\"3600\"",
        "\"soon\"",
        "2147483648",
        "18446744073709551616",
        "1e999",
        "0.5",
        "1e-300",
        "[]",
        "false",
    ];
    for life in silly {
        let grant = ScriptedGrant::new(&[], Step::Stating(life));
        let slot = slot(&grant);
        let until = tokio::time::Instant::now() + secs(60);
        while tokio::time::Instant::now() < until {
            let token = slot.token().await;
            assert!(token.is_ok(), "{life}: {token:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(
            grant.requests() <= 61,
            "{life}: {} requests",
            grant.requests()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_that_nobody_accepts_slow_down_to_one_a_minute() {
    let grant = ScriptedGrant::new(&[], Step::Token(secs(1)));
    let rules = Rules {
        refresh: RefreshPolicy::On401,
        ..Rules::default()
    };
    let slot = slot_under(rules, &grant);
    let until = tokio::time::Instant::now() + secs(3600);
    let mut sessions = 0_u64;
    while tokio::time::Instant::now() < until {
        match slot.token().await {
            Ok(token) => {
                tokio::time::sleep(secs(2)).await;
                sessions += 1;
                slot.reject(rejection(&token, &format!("s{sessions}")));
            }
            Err(hold) => slot.inner.clock.sleep_until(hold.until).await,
        }
    }
    assert!(grant.requests() <= 20, "{} requests", grant.requests());
    assert!(slot.view().state == "blocked", "{:?}", slot.view());
}

#[tokio::test(start_paused = true)]
async fn many_slots_that_start_together_spread_their_first_requests() {
    let rules = Rules {
        start_spread: secs(10),
        ..Rules::default()
    };
    let clock = Arc::new(RuntimeClock::starting_at(Timestamp(0)));
    let chance = Arc::new(Chance::seeded(3));
    let began = tokio::time::Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..100 {
        let grant = ScriptedGrant::new(&[], Step::Token(secs(60)));
        let slot = Slot::new(grant, rules.clone(), clock.clone(), chance.clone());
        tasks.push(tokio::spawn(async move {
            slot.token().await.unwrap();
            tokio::time::Instant::now()
        }));
    }
    let mut seconds = std::collections::BTreeSet::new();
    for task in tasks {
        seconds.insert((task.await.unwrap() - began).as_secs());
    }
    assert!(seconds.len() >= 9, "{seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn no_secret_shows_in_debug_output_holds_or_views() {
    let grant = ScriptedGrant::new(&[], Step::Token(secs(3600)));
    let slot = slot(&grant);
    let token = slot.token().await.unwrap();
    assert!(token.expose().contains(CANARY), "the positive control");
    slot.reject(rejection(&token, "s1"));
    slot.reject(rejection(&token, "s2"));
    let state = slot.inner.lock();
    let shown = format!(
        "{token:?} {:?} {:?} {:?}",
        state.slot,
        state.slot.hold(slot.inner.clock.now()),
        state.slot.view(slot.inner.clock.now())
    );
    assert!(!shown.contains(CANARY), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_learns_of_new_tokens_late_does_not_block_for_ever() {
    let grant = ScriptedGrant::new(&[], Step::Token(secs(3600)));
    let slot = slot(&grant);
    let until = tokio::time::Instant::now() + secs(300);
    let mut delivered = false;
    while !delivered && tokio::time::Instant::now() < until {
        match slot.token().await {
            Ok(token) => {
                let asked_at = *grant.asked_at.lock().unwrap().last().unwrap();
                if asked_at.elapsed() >= secs(3) {
                    slot.accepted(token.generation, &session("a"));
                    delivered = true;
                } else {
                    let mut refused = rejection(&token, "a");
                    refused.only_session = true;
                    slot.reject(refused);
                }
            }
            Err(hold) => slot.inner.clock.sleep_until(hold.until).await,
        }
    }
    assert!(delivered);
}

/// Knows whose every token is, or says what it is told to.
struct ScriptedWitness {
    says: Mutex<Told>,
    /// Never answers.
    hangs: bool,
    asked: AtomicU32,
}

impl Witness for ScriptedWitness {
    fn whose<'a>(&'a self, token: &'a Token) -> Witnessing<'a> {
        Box::pin(async move {
            assert!(token.expose().starts_with(CANARY));
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.hangs {
                std::future::pending::<()>().await;
            }
            self.says.lock().unwrap().clone()
        })
    }
}

fn witnessed(says: Told, hangs: bool) -> (Arc<ScriptedWitness>, Arc<Slot>) {
    let witness = Arc::new(ScriptedWitness {
        says: Mutex::new(says),
        hangs,
        asked: AtomicU32::new(0),
    });
    let rules = Rules {
        asks_whose: true,
        ..Rules::default()
    };
    let slot = Slot::witnessed(
        ScriptedGrant::new(&[], Step::Token(secs(3600))),
        Some(Arc::clone(&witness) as Arc<dyn Witness>),
        rules,
        Arc::new(RuntimeClock::starting_at(Timestamp(1_700_000_000_000))),
        Arc::new(Chance::seeded(7)),
    );
    (witness, Arc::new(slot))
}

/// Seen: opaque tokens pinned nothing, and the next one delivered to another organisation without a word.
#[tokio::test(start_paused = true)]
async fn a_token_that_shows_nothing_is_asked_about_before_anybody_has_it() {
    let (witness, slot) = witnessed(Told::Organization("org-a".to_owned()), false);
    let token = slot.token().await.unwrap();
    assert_eq!(slot.organization().as_deref(), Some("org-a"));
    assert!(slot.invalidate(token.generation));
    *witness.says.lock().unwrap() = Told::Organization("org-b".to_owned());
    let hold = slot.token().await.unwrap_err();
    assert_eq!(hold.kind, CredentialHoldKind::Blocked);
    assert_eq!(
        hold.reason,
        "its token belongs to organisation org-b, not org-a; nothing was sent"
    );
    assert_eq!(witness.asked.load(Ordering::SeqCst), 2, "once a token");
}

#[tokio::test(start_paused = true)]
async fn a_platform_that_cannot_say_whose_a_token_is_keeps_nobody_waiting() {
    let (witness, slot) = witnessed(Told::Nothing, true);
    let began = tokio::time::Instant::now();
    slot.token().await.unwrap();
    assert!(began.elapsed() <= witness::PATIENCE + secs(1));
    assert_eq!(slot.organization(), None);
    drop(witness);
    let (witness, slot) = witnessed(Told::Silent, false);
    for _ in 0..3 {
        let token = slot.token().await.unwrap();
        slot.invalidate(token.generation);
    }
    let asked = witness.asked.load(Ordering::SeqCst);
    assert_eq!(asked, 1, "it said that it never will");
}
