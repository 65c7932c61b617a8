//! The real pool over the real record log, in virtual time, against an archive that follows a script. The second seed
//! thread is here: recordings an hour and a day old, 422 for the older, cured by scope, by another token, by waiting, and
//! not at all.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use tokio::sync::watch;

use super::*;
use crate::auth::{About, Claims, Grant, Minted, Minting, Rules, Slot};
use crate::clock::{Instant, RuntimeClock};
use crate::model::{
    FailureClass, FailureRecord, RecordingCounts, RecordingFacts, RecordingState, Route, Timestamp,
};
use crate::platform::fetch::{Fetch, FetchAnswer, Fetched, Fetching, Wish};
use crate::platform::{Failure, Limits};
use crate::policy::pacing::{Next, Pacer};
use crate::sabotage::Sabotaged;
use crate::store::records::Recording;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What opens a recording that is older than a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    Scope,
    User,
    /// A user's token, for whatever is asked, however young.
    UserAlways,
    /// So long after the start.
    Time(Duration),
    Never,
}

#[derive(Debug, Clone)]
struct Seen {
    id: String,
    token: String,
    at: Duration,
}

/// The platform: what it has is as old as its name says.
struct Service {
    history: Mutex<History>,
    seen: Mutex<Vec<Seen>>,
    /// Answered before anything is looked at, so many times.
    first: Mutex<Vec<Failure>>,
    started: tokio::time::Instant,
}

fn failure(class: FailureClass, status: u16, code: &str) -> Failure {
    Failure {
        record: FailureRecord {
            at: Timestamp(0),
            class,
            status: Some(status),
            code: Some(code.into()),
            correlation_id: Some("c-1".into()),
            fields: vec!["purview".into()],
            missing: None,
            message: "The provided purview ID does not match the token's scope.".into(),
            body: String::new(),
            token_generation: None,
            token_fingerprint: None,
            attempt: 1,
            next_try_at: None,
        },
        retry_after: None,
        conflict: false,
        route: crate::model::Route::Fetch,
    }
}

fn answer(fetched: Fetched) -> FetchAnswer {
    FetchAnswer {
        fetched,
        limits: Limits::default(),
    }
}

impl Service {
    fn decide(&self, id: &str, token: &str) -> Fetched {
        if let Some(failure) = self.first.lock().unwrap().pop() {
            return Fetched::Failed(Box::new(failure));
        }
        let refuse = |class, status, code| Fetched::Failed(Box::new(failure(class, status, code)));
        if *self.history.lock().unwrap() == History::UserAlways && !token.contains("user") {
            let mut wanted = failure(FailureClass::Forbidden, 400, "bad.request");
            wanted.record.message = "This request requires a user context.".into();
            return Fetched::Failed(Box::new(wanted));
        }
        if id.starts_with("lost") {
            return refuse(FailureClass::Endpoint, 404, "not.found");
        }
        let open = match *self.history.lock().unwrap() {
            History::Scope => token.contains("screenshare:write"),
            History::User | History::UserAlways => token.contains("user"),
            History::Time(after) => self.started.elapsed() >= after,
            History::Never => false,
        };
        if id.starts_with("day") && !open {
            return refuse(FailureClass::PurviewPending, 422, "purview.mismatch");
        }
        Fetched::One(Box::new(RecordingFacts {
            session: Some(format!("of-{id}")),
            ..RecordingFacts::default()
        }))
    }
}

impl Archive for Service {
    fn fetch(&self, fetch: Fetch) -> Fetching<'_> {
        Box::pin(async move {
            let Wish::One(id) = &fetch.wish else {
                panic!("nothing lists here")
            };
            let seen = Seen {
                id: id.to_string(),
                token: fetch.token.expose().to_owned(),
                at: self.started.elapsed(),
            };
            self.seen.lock().unwrap().push(seen);
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer(self.decide(id.as_str(), fetch.token.expose()))
        })
    }
}

/// A token endpoint whose tokens say who they are for.
struct Issuer {
    who: &'static str,
    scopes: Mutex<Option<Vec<String>>>,
    claims: &'static str,
    minted: Mutex<u32>,
}

impl Grant for Issuer {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async move {
            let mut minted = self.minted.lock().unwrap();
            *minted += 1;
            let scopes = self.scopes.lock().unwrap().clone();
            let told = scopes.clone().unwrap_or_default().join("+");
            let claims = URL_SAFE_NO_PAD.encode(self.claims);
            let token = format!("{}-{told}-{minted}.{claims}.sig", self.who);
            Ok(Minted {
                access_token: SecretString::from(token),
                lifetime: HOUR,
                scopes,
                claims: Claims::default(),
            })
        })
    }

    fn about(&self) -> About {
        About {
            endpoint: "https://login.test".into(),
            client_id: "5b1c9e".into(),
            grant: "client_credentials",
            ..About::default()
        }
    }
}

fn issuer(who: &'static str, scopes: Option<&[&str]>) -> Arc<Issuer> {
    let scopes = scopes.map(|list| list.iter().map(|s| (*s).to_owned()).collect());
    Arc::new(Issuer {
        who,
        scopes: Mutex::new(scopes),
        claims: r#"{"purviews":["org-acme"],"purview_id":"org-acme"}"#,
        minted: Mutex::default(),
    })
}

/// One client's budget, which no header tells, with or without uploads that wait for theirs and never get any.
struct Budgeted {
    uploads: bool,
    pacer: Mutex<Pacer>,
    begun: Mutex<u64>,
    changes: watch::Sender<u64>,
}

impl Budgeted {
    fn new(uploads: bool) -> Arc<Self> {
        Arc::new(Self {
            uploads,
            pacer: Mutex::default(),
            begun: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }
}

impl Pace for Budgeted {
    fn begin(&self, tenant: &TenantId, now: Instant) -> Result<u64, Option<Instant>> {
        let next = self.pacer.lock().unwrap().next_fetch(self.uploads, now.0);
        match next {
            Next::Now => Ok(self.charge(tenant, now)),
            Next::At(at) => Err(Some(Instant(at))),
            Next::Event => Err(None),
        }
    }

    fn charge(&self, _: &TenantId, now: Instant) -> u64 {
        let mut begun = self.begun.lock().unwrap();
        *begun += 1;
        let mut pacer = self.pacer.lock().unwrap();
        pacer.begin(*begun, Route::Fetch, now.0);
        *begun
    }

    fn wait(&self, _: &TenantId) {
        self.pacer.lock().unwrap().fetch_waits();
    }

    fn withdraw(&self, _: &TenantId) {
        self.pacer.lock().unwrap().fetch_withdraws();
    }

    fn heard(&self, _: &TenantId, _: u64, _: &Limits, _: Instant) {}

    fn refused(&self, _: &TenantId, _: Instant) {}

    fn end(&self, _: &TenantId, number: u64) {
        self.pacer.lock().unwrap().end(number);
        self.changes.send_modify(|count| *count += 1);
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

struct Stage {
    _dir: tempfile::TempDir,
    store: Store,
    clock: Arc<RuntimeClock>,
    service: Arc<Service>,
    fetcher: Fetcher,
}

struct Setting {
    history: History,
    issuer: Arc<Issuer>,
    fallback: Option<Arc<Issuer>>,
    uploads: bool,
    organization: &'static str,
}

impl Setting {
    fn of(history: History, issuer: Arc<Issuer>) -> Self {
        Self {
            history,
            issuer,
            fallback: None,
            uploads: false,
            organization: "org-acme",
        }
    }

    fn start(self) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let wall = Timestamp::parse("2026-03-01T10:00:00Z").unwrap();
        let clock = Arc::new(RuntimeClock::starting_at(wall));
        let store = open(dir.path(), &clock);
        let service = Arc::new(Service {
            history: Mutex::new(self.history),
            seen: Mutex::default(),
            first: Mutex::default(),
            started: tokio::time::Instant::now(),
        });
        let chance = Arc::new(Chance::seeded(1));
        let slot = |issuer: &Arc<Issuer>| -> Arc<dyn TokenSource> {
            let (grant, rules) = (Arc::clone(issuer), Rules::default());
            Arc::new(Slot::new(grant, rules, clock.clone(), Arc::clone(&chance)))
        };
        let fetcher = Fetcher::start(FetchDeps {
            store: store.clone(),
            lanes: vec![FetchLane {
                source: Arc::new(Source {
                    tenant: acme(),
                    api_url: "https://api.test".into(),
                    path: "/recordings".into(),
                    list_path: None,
                }),
                token: slot(&self.issuer),
                fallback: self.fallback.as_ref().map(slot),
                archive: service.clone(),
                organization: Some(self.organization.to_owned()),
                verify: false,
                session_idle: HOUR,
            }],
            clock: clock.clone(),
            chance: Arc::clone(&chance),
            pace: Budgeted::new(self.uploads),
        });
        Stage {
            _dir: dir,
            store,
            clock,
            service,
            fetcher,
        }
    }
}

fn open(dir: &Path, clock: &Arc<RuntimeClock>) -> Store {
    let settings = crate::store::Settings {
        segment_bytes: 1 << 20,
        max_bytes: u64::MAX,
        min_free_bytes: 0,
        max_chunk_bytes: 1 << 20,
        remember: DAY * 7,
        tenants: vec![acme()],
        host: "rec-017".parse().unwrap(),
        sabotaged: Sabotaged::NONE,
    };
    Store::open(dir, settings, clock.clone()).unwrap()
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

impl Stage {
    fn want(&self, ids: &[&str]) {
        let ids: Vec<RecordingId> = ids.iter().map(|id| id.parse().unwrap()).collect();
        let records = self.store.records();
        records.want(&acme(), &ids, self.clock.wall()).unwrap();
    }

    fn recording(&self, id: &str) -> Recording {
        self.store
            .records()
            .get(&acme(), &id.parse().unwrap())
            .unwrap()
    }

    fn state(&self, id: &str) -> RecordingState {
        self.recording(id).state
    }

    fn requests(&self, id: &str) -> Vec<Seen> {
        let seen = self.service.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.id == id).cloned().collect()
    }

    fn holds(&self) -> Vec<String> {
        let holds = self.fetcher.holds(&acme());
        holds
            .into_iter()
            .map(|hold| format!("{}: {}", hold.kind, hold.reason))
            .collect()
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const NARROW: &[&str] = &["screenshare:read"];
const WHOLE: &[&str] = &["screenshare:read", "screenshare:write"];

#[tokio::test(start_paused = true)]
async fn a_day_old_recording_that_is_never_given_dies_after_two_days_and_takes_nothing_with_it() {
    let stage = Setting::of(History::Never, issuer("exchanged", Some(WHOLE))).start();
    stage.want(&["day-1", "hour-1"]);
    pass(HOUR * 47).await;
    assert_eq!(stage.state("hour-1"), RecordingState::Fetched);
    assert_eq!(stage.state("day-1"), RecordingState::Wanted);
    assert_eq!(stage.holds(), [""; 0], "the route is open");
    pass(HOUR * 14).await;
    let dead = stage.recording("day-1");
    assert_eq!(dead.state, RecordingState::Dead);
    let job = dead.job.unwrap();
    assert!(job.tries >= 8 && job.waited_ms >= 48 * 3_600_000, "{job:?}");
    assert_eq!(job.last.unwrap().status, Some(422));
    let requests = stage.requests("day-1");
    assert!(requests.len() < 20, "{} requests", requests.len());
    pass(DAY * 3).await;
    assert_eq!(stage.requests("day-1").len(), requests.len());
    stage.want(&["day-1"]);
    pass(MINUTE).await;
    assert_eq!(
        stage.state("day-1"),
        RecordingState::Wanted,
        "asked for anew"
    );
}

#[tokio::test(start_paused = true)]
async fn a_day_old_recording_is_cured_by_the_missing_scope() {
    let grant = issuer("exchanged", Some(NARROW));
    let stage = Setting::of(History::Scope, Arc::clone(&grant)).start();
    stage.want(&["hour-1", "day-1", "day-2"]);
    pass(MINUTE).await;
    assert_eq!(stage.state("hour-1"), RecordingState::Fetched);
    let held = stage.holds();
    assert_eq!(
        held,
        [
            "blocked: recordings: its token lacks the scope screenshare:write (granted: screenshare:read). Add it to client 5b1c9e"
        ]
    );
    let asked = stage.requests("day-1").len() + stage.requests("day-2").len();
    assert!(asked <= 10, "{asked} requests in a minute");
    *grant.scopes.lock().unwrap() = Some(WHOLE.iter().map(|s| (*s).to_owned()).collect());
    // By itself: a probe asks for a token that may carry it.
    pass(MINUTE * 15).await;
    for id in ["day-1", "day-2"] {
        assert_eq!(stage.state(id), RecordingState::Fetched, "{id}");
    }
    assert_eq!(stage.holds(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_day_old_recording_is_cured_by_a_token_that_speaks_for_a_user() {
    let mut setting = Setting::of(History::User, issuer("exchanged", Some(WHOLE)));
    setting.fallback = Some(issuer("user", None));
    let stage = setting.start();
    stage.want(&["hour-1", "day-1", "day-2"]);
    pass(MINUTE).await;
    for id in ["day-1", "day-2"] {
        assert_eq!(stage.state(id), RecordingState::Fetched, "{id}");
        let tokens: Vec<_> = stage
            .requests(id)
            .into_iter()
            .map(|seen| seen.token)
            .collect();
        assert_eq!(tokens.len(), 2, "{tokens:?}");
        assert!(
            tokens[0].starts_with("exchanged") && tokens[1].starts_with("user"),
            "{tokens:?}"
        );
    }
    let hour = stage.requests("hour-1");
    assert_eq!(hour.len(), 1);
    assert!(
        hour[0].token.starts_with("exchanged"),
        "never a switch of the lane"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_user_that_does_not_help_is_tried_once() {
    let mut setting = Setting::of(History::Never, issuer("exchanged", Some(WHOLE)));
    setting.fallback = Some(issuer("user", None));
    let stage = setting.start();
    stage.want(&["day-1"]);
    pass(DAY).await;
    let users = stage
        .requests("day-1")
        .into_iter()
        .filter(|seen| seen.token.starts_with("user"));
    assert_eq!(users.count(), 1);
    assert!(stage.recording("day-1").job.unwrap().fallback_tried);
}

/// Seen: the route was blocked, and the fallback that was configured for it never asked.
#[tokio::test(start_paused = true)]
async fn what_only_a_users_token_may_ask_is_asked_with_the_fallback_and_holds_nobody() {
    let mut setting = Setting::of(History::UserAlways, issuer("exchanged", Some(WHOLE)));
    setting.fallback = Some(issuer("user", None));
    let stage = setting.start();
    stage.want(&["lost-1"]);
    pass(MINUTE).await;
    // The user's token was told that there is no such recording, which is no trouble of the route.
    assert_eq!(stage.holds(), [""; 0]);
    stage.want(&["hour-1", "day-1"]);
    pass(MINUTE).await;
    for id in ["hour-1", "day-1"] {
        assert_eq!(stage.state(id), RecordingState::Fetched, "{id}");
        assert_eq!(stage.requests(id).len(), 2, "{id}: once with each token");
    }
    assert_eq!(stage.state("lost-1"), RecordingState::Wanted);
    pass(DAY * 4).await;
    assert_eq!(stage.state("lost-1"), RecordingState::Dead);
    let job = stage.recording("lost-1").job.unwrap();
    assert_eq!(job.last.unwrap().status, Some(404), "the fallback's word");
    assert_eq!(stage.holds(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn without_a_users_token_the_route_is_blocked_with_where_to_configure_one() {
    let stage = Setting::of(History::UserAlways, issuer("exchanged", Some(WHOLE))).start();
    stage.want(&["hour-1"]);
    pass(MINUTE).await;
    let held = stage.holds().join("");
    assert!(
        held.contains("Configure [tenants.acme.auth.fallback] with grant"),
        "{held}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_day_old_recording_is_cured_by_waiting() {
    let opens = HOUR * 3;
    let stage = Setting::of(History::Time(opens), issuer("exchanged", Some(WHOLE))).start();
    stage.want(&["day-1", "hour-1"]);
    pass(HOUR * 6).await;
    assert_eq!(stage.state("day-1"), RecordingState::Fetched);
    let at: Vec<_> = stage.requests("day-1").iter().map(|seen| seen.at).collect();
    for pair in at.windows(2) {
        assert!(
            pair[1] - pair[0] >= MINUTE * 5 - Duration::from_secs(1),
            "{at:?}"
        );
    }
    assert!(at.len() <= 8, "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_organisation_blocks_the_route_with_its_name() {
    let mut setting = Setting::of(History::Never, issuer("exchanged", Some(WHOLE)));
    setting.organization = "org-globex";
    let stage = setting.start();
    stage.want(&["day-1"]);
    pass(MINUTE).await;
    let held = stage.holds().join("");
    assert!(
        held.contains("its token speaks for org-acme, org-acme, the tenant is org-globex"),
        "{held}"
    );
    assert_eq!(stage.recording("day-1").job.unwrap().tries, 0);
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_is_not_there_yet_holds_nobody() {
    let stage = Setting::of(History::Never, issuer("exchanged", None)).start();
    stage.want(&["lost-1"]);
    pass(MINUTE).await;
    stage.want(&["hour-1"]);
    pass(MINUTE).await;
    assert_eq!(stage.state("hour-1"), RecordingState::Fetched);
    assert_eq!(stage.requests("lost-1").len(), 1);
    pass(DAY * 4).await;
    assert_eq!(stage.state("lost-1"), RecordingState::Dead);
}

#[tokio::test(start_paused = true)]
async fn a_401_is_answered_by_a_younger_token_and_costs_nothing() {
    let grant = issuer("exchanged", None);
    let stage = Setting::of(History::Never, Arc::clone(&grant)).start();
    let unauthorized = failure(FailureClass::Unauthorized, 401, "bad.credentials");
    stage.service.first.lock().unwrap().push(unauthorized);
    stage.want(&["hour-1"]);
    pass(MINUTE).await;
    assert_eq!(stage.state("hour-1"), RecordingState::Fetched);
    let tokens: Vec<_> = stage
        .requests("hour-1")
        .into_iter()
        .map(|seen| seen.token)
        .collect();
    assert_eq!(tokens.len(), 2);
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(*grant.minted.lock().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_throttle_is_waited_out_by_all_of_them() {
    let stage = Setting::of(History::Never, issuer("exchanged", None)).start();
    let mut throttled = failure(FailureClass::Throttled, 429, "too.many.requests");
    throttled.retry_after = Some(HOUR);
    stage.service.first.lock().unwrap().push(throttled);
    stage.want(&["hour-1", "hour-2", "hour-3"]);
    pass(MINUTE * 59).await;
    assert_eq!(stage.service.seen.lock().unwrap().len(), 1);
    pass(MINUTE * 3).await;
    assert_eq!(
        stage.store.records().counts(&acme()),
        RecordingCounts {
            fetched: 3,
            ..RecordingCounts::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn an_operators_pause_holds_recordings_too_and_a_resume_lets_them_go() {
    let stage = Setting::of(History::Never, issuer("exchanged", None)).start();
    stage.fetcher.pause(&acme());
    stage.want(&["hour-1"]);
    pass(HOUR).await;
    assert_eq!(stage.requests("hour-1").len(), 0);
    assert_eq!(
        stage.store.holds(),
        [],
        "the engine stores the operator's hold"
    );
    stage.fetcher.resume(&acme());
    pass(MINUTE).await;
    assert_eq!(stage.state("hour-1"), RecordingState::Fetched);
}

#[tokio::test(start_paused = true)]
async fn fetches_give_way_to_uploads_and_are_never_starved() {
    let mut setting = Setting::of(History::Never, issuer("exchanged", None));
    setting.uploads = true;
    let stage = setting.start();
    let ids: Vec<String> = (0..100).map(|n| format!("hour-{n}")).collect();
    stage.want(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    pass(MINUTE * 2).await;
    let asked = stage.service.seen.lock().unwrap().len();
    // A twentieth of 300 a minute.
    assert!((25..=32).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_when_what_is_left_waits_longer_than_its_patience() {
    let stage = Setting::of(History::Never, issuer("exchanged", Some(WHOLE))).start();
    stage.want(&["hour-1", "hour-2", "day-1"]);
    let drained = stage
        .fetcher
        .drain(&Marks::default(), None, None, MINUTE)
        .await;
    let acme = &drained[&acme()];
    assert_eq!((acme.fetched, acme.left, acme.dead), (2, 1, 0));
    assert!(
        acme.reason.contains("asked for again") && acme.until.is_some(),
        "{acme:?}"
    );
    stage.fetcher.stop(MINUTE).await;
}
