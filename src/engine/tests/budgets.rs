//! What uploads and fetches make of the one request budget that they share, measured in virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::meter::{Meter, Window};
use super::stage::{HOUR, MINUTE, Stage, pass};
use crate::auth::{Rules, Slot};
use crate::chance::Chance;
use crate::engine::fetch::{FetchDeps, FetchLane, Fetcher};
use crate::model::{FailureClass, FailureRecord, RecordingId, Route, Timestamp};
use crate::platform::Failure;
use crate::platform::fetch::{Archive, Fetch, FetchAnswer, Fetched, Fetching, Source};

const MINUTES: u64 = 22;
const ALLOWED: u64 = 300;
/// Whose requests the meter counted.
const UPLOADS: u64 = 1;
const FETCHES: u64 = 2;

/// Metadata behind the quota of the uploads.
struct Metered {
    meter: Arc<Mutex<Meter>>,
    jitter: Mutex<fastrand::Rng>,
    started: tokio::time::Instant,
}

impl Archive for Metered {
    fn fetch(&self, _: Fetch) -> Fetching<'_> {
        Box::pin(async move {
            let (there, back) = {
                let mut random = self.jitter.lock().unwrap();
                (random.u64(10..200), random.u64(10..200))
            };
            tokio::time::sleep(Duration::from_millis(there)).await;
            let now = self.started.elapsed();
            let (within, limits) = self.meter.lock().unwrap().count(now, FETCHES);
            tokio::time::sleep(Duration::from_millis(back)).await;
            let fetched = match within {
                true => Fetched::One(Box::default()),
                false => Fetched::Failed(Box::new(throttled(limits.reset_in))),
            };
            FetchAnswer { fetched, limits }
        })
    }
}

fn throttled(retry_after: Option<Duration>) -> Failure {
    Failure {
        record: FailureRecord {
            at: Timestamp(0),
            class: FailureClass::Throttled,
            status: Some(429),
            code: None,
            correlation_id: None,
            fields: vec![],
            missing: None,
            message: "no".into(),
            body: String::new(),
            token_generation: None,
            token_fingerprint: None,
            attempt: 1,
            next_try_at: None,
        },
        retry_after,
        conflict: false,
        route: Route::Fetch,
    }
}

/// Tenants of one client, and the fetches of each.
struct Both {
    stage: Stage,
    fetcher: Fetcher,
    meter: Arc<Mutex<Meter>>,
}

impl Both {
    async fn start(window: Window, chunks: u64, recordings: u64) -> Self {
        let tenants = ["acme", "globex"];
        let mut stage = Stage::new(&tenants);
        stage.requests_take(Duration::from_millis(400));
        let meter = Arc::new(Mutex::new(Meter::new(window, ALLOWED)));
        let started = tokio::time::Instant::now();
        let wanted: Vec<RecordingId> = (0..recordings)
            .map(|n| format!("r{n}").parse().unwrap())
            .collect();
        for (tenant, grant) in tenants.into_iter().zip(&stage.grants) {
            *grant.client.lock().unwrap() = "one-client".to_owned();
            stage.meter(tenant, &meter);
            stage.accept_all(tenant, 100, 0..chunks, 16);
            let (records, now) = (stage.store().records(), Timestamp(0));
            records
                .want(&tenant.parse().unwrap(), &wanted, now)
                .unwrap();
        }
        stage.start().await;
        let clock: Arc<dyn crate::clock::Clock> = stage.clock.clone();
        let chance = Arc::new(Chance::seeded(5));
        let lanes = tenants.into_iter().zip(&stage.grants);
        let lanes = lanes.map(|(tenant, grant)| FetchLane {
            source: Arc::new(Source {
                tenant: tenant.parse().unwrap(),
                api_url: "https://api.test".into(),
                path: "/recordings".into(),
                list_path: None,
            }),
            token: Arc::new(Slot::new(
                grant.clone(),
                Rules::default(),
                clock.clone(),
                chance.clone(),
            )),
            fallback: None,
            archive: Arc::new(Metered {
                meter: Arc::clone(&meter),
                jitter: Mutex::new(fastrand::Rng::with_seed(3)),
                started,
            }),
            organization: None,
            verify: false,
            session_idle: HOUR,
        });
        let fetcher = Fetcher::start(FetchDeps {
            store: stage.store().clone(),
            lanes: lanes.collect(),
            clock: clock.clone(),
            chance: chance.clone(),
            pace: stage.engine().budgets(),
        });
        Self {
            stage,
            fetcher,
            meter,
        }
    }

    async fn stop(mut self) {
        self.fetcher.stop(MINUTE).await;
        self.stage.stop(MINUTE).await;
    }

    /// Who was counted in each whole minute: uploads, fetches.
    fn by_minute(&self) -> Vec<(u64, u64)> {
        let meter = self.meter.lock().unwrap();
        let mut minutes = vec![(0, 0); MINUTES as usize];
        for (at, of) in &meter.accepted {
            if let Some(minute) = minutes.get_mut((at.as_secs() / 60) as usize) {
                minute.0 += u64::from(*of == UPLOADS);
                minute.1 += u64::from(*of == FETCHES);
            }
        }
        minutes
    }
}

async fn both_are_deep(window: Window) {
    let both = Both::start(window, 40, 900).await;
    pass(MINUTE * (MINUTES as u32)).await;
    let minutes = both.by_minute();
    let (used, refused) = {
        let meter = both.meter.lock().unwrap();
        (meter.used(1, MINUTES - 1), meter.refused_part())
    };
    println!("{window:?}: used {used:.4}, refused {refused:.4}, {minutes:?}");
    for (uploads, fetches) in &minutes[1..MINUTES as usize - 1] {
        let part = *fetches as f64 / (uploads + fetches) as f64;
        assert!((0.05..=0.20).contains(&part), "{part}: {minutes:?}");
    }
    assert!(used >= 0.97, "{used}");
    assert!(refused <= 0.005, "{refused}");
    assert_eq!(both.stage.inside_forbidden(), 0);
    both.stop().await;
}

#[tokio::test(start_paused = true)]
async fn fetching_gets_between_a_twentieth_and_a_fifth_of_a_fixed_windows_quota_beside_uploads() {
    both_are_deep(Window::Fixed).await;
}

#[tokio::test(start_paused = true)]
async fn fetching_gets_between_a_twentieth_and_a_fifth_of_a_sliding_windows_quota_beside_uploads() {
    both_are_deep(Window::Sliding).await;
}

#[tokio::test(start_paused = true)]
async fn fetching_has_the_whole_quota_once_nothing_is_to_be_uploaded() {
    let both = Both::start(Window::Fixed, 2, 900).await;
    pass(MINUTE * 6).await;
    let minutes = both.by_minute();
    println!("{minutes:?}");
    assert_eq!(
        minutes[3..6]
            .iter()
            .map(|(uploads, _)| uploads)
            .sum::<u64>(),
        0
    );
    assert!(
        minutes[3..5].iter().all(|(_, fetches)| *fetches >= 270),
        "{minutes:?}"
    );
    let refused = both.meter.lock().unwrap().refused_part();
    assert!(refused <= 0.005, "{refused}");
    both.stop().await;
}
