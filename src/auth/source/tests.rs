//! The shell in virtual time, over a scripted grant.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::SecretString;

use super::*;
use crate::auth::grant::{About, Minting, Refusal};
use crate::auth::{CredentialHoldKind, RefreshPolicy};
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
    asked_at: Mutex<Vec<tokio::time::Instant>>,
}

impl ScriptedGrant {
    fn new(script: &[Step], habit: Step) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.iter().copied().collect()),
            habit: Mutex::new(habit),
            requests: AtomicU32::new(0),
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

impl Grant for ScriptedGrant {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
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
                }),
                Step::Down => Err(MintFailure::Unreachable {
                    cause: "connection refused".to_owned(),
                }),
                Step::WrongSecret => Err(MintFailure::Refused(Refusal {
                    status: 401,
                    error: Some("invalid_client".to_owned()),
                    ..Refusal::default()
                })),
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
async fn a_thousand_tasks_meeting_an_expired_token_make_one_token_request() {
    let grant = ScriptedGrant::new(&[Step::Token(secs(60))], Step::Token(secs(3600)));
    let slot = slot(&grant);
    slot.token().await.unwrap();
    tokio::time::sleep(secs(61)).await;

    let callers: Vec<_> = (0..1000)
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
