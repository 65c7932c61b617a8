//! Pacers against platforms that count, in steps of a few milliseconds.

use std::collections::VecDeque;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn told(allowed: u64, remaining: u64, reset: u64) -> Told {
    Told {
        allowed: Some(allowed),
        remaining: Some(remaining),
        reset_in: Some(Duration::from_secs(reset)),
    }
}

/// How a platform counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// From its first request.
    Fixed,
    /// By its own clock.
    Aligned,
    /// The last minute; told is when the oldest leaves.
    Sliding,
    /// The same; told is always the whole minute.
    SlidingBluntly,
}

struct Platform {
    counts: Counts,
    allowed: u64,
    opened: Option<Duration>,
    counted: VecDeque<Duration>,
    refused: Vec<Duration>,
    accepted: Vec<Duration>,
}

impl Platform {
    fn new(counts: Counts, allowed: u64) -> Self {
        Self {
            counts,
            allowed,
            opened: None,
            counted: VecDeque::new(),
            refused: Vec::new(),
            accepted: Vec::new(),
        }
    }

    /// What a request is told that is counted now, and whether it was within the quota.
    fn ask(&mut self, now: Duration) -> (Told, bool) {
        match self.counts {
            Counts::Fixed if self.opened.is_none_or(|at| now >= at + MINUTE) => {
                self.opened = Some(now);
                self.counted.clear();
            }
            Counts::Aligned => {
                let minute = Duration::from_secs(now.as_secs() / 60 * 60);
                if self.opened != Some(minute) {
                    self.opened = Some(minute);
                    self.counted.clear();
                }
            }
            Counts::Sliding | Counts::SlidingBluntly => {
                while self.counted.front().is_some_and(|at| *at + MINUTE <= now) {
                    self.counted.pop_front();
                }
            }
            Counts::Fixed => {}
        }
        let within = (self.counted.len() as u64) < self.allowed;
        if within {
            self.counted.push_back(now);
            self.accepted.push(now);
        } else {
            self.refused.push(now);
        }
        let ends = match self.counts {
            Counts::Fixed | Counts::Aligned => self.opened.unwrap() + MINUTE,
            Counts::Sliding => self.counted.front().map_or(now, |at| *at + MINUTE),
            Counts::SlidingBluntly => now + MINUTE,
        };
        let reset = (ends - now).as_millis().div_ceil(1000) as u64;
        let left = self.allowed - self.counted.len() as u64;
        (told(self.allowed, left, reset), within)
    }
}

/// A request under way.
struct Flight {
    of: usize,
    number: u64,
    counted: Duration,
    heard: Duration,
    told: Option<(Told, bool)>,
}

/// Clients with endless work, each with so many requests on the wire at most.
fn contest(platform: &mut Platform, clients: usize, minutes: u64, seed: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pacers = vec![Pacer::default(); clients];
    let mut sent = vec![0; clients];
    let mut number = 0;
    let mut wire: Vec<Flight> = Vec::new();
    let mut now = ms(7_000);
    while now < MINUTE * u32::try_from(minutes).unwrap() {
        now += ms(5);
        for flight in &mut wire {
            if flight.told.is_none() && flight.counted <= now {
                flight.told = Some(platform.ask(now));
            }
        }
        for at in (0..wire.len()).rev() {
            if wire[at].heard <= now {
                let flight = wire.swap_remove(at);
                let (told, within) = flight.told.unwrap();
                pacers[flight.of].heard(flight.number, told, now);
                if within {
                    let inside = now >= MINUTE && now < MINUTE * (minutes as u32 - 1);
                    sent[flight.of] += u64::from(inside);
                } else {
                    pacers[flight.of].pause(now + told.reset_in.unwrap());
                }
            }
        }
        for (of, pacer) in pacers.iter_mut().enumerate() {
            let flying = wire.iter().filter(|flight| flight.of == of).count();
            if flying < 8 && pacer.next(now) == Next::Now {
                number += 1;
                pacer.begin(number, Route::Deliver, now);
                let counted = now + ms(random.u64(5..60));
                wire.push(Flight {
                    of,
                    number,
                    counted,
                    heard: counted + ms(random.u64(5..200)),
                    told: None,
                });
            }
        }
    }
    sent
}

/// The part of the quota that was used, without the first and the last minute.
fn used(platform: &Platform, minutes: u64) -> f64 {
    let inside = MINUTE..MINUTE * (minutes as u32 - 1);
    let accepted = platform.accepted.iter().filter(|at| inside.contains(at));
    accepted.count() as f64 / (platform.allowed * (minutes - 2)) as f64
}

fn refused(platform: &Platform) -> f64 {
    let refused = platform.refused.len() as f64;
    refused / (refused + platform.accepted.len() as f64)
}

#[test]
fn one_client_uses_the_quota_of_every_kind_of_window_and_is_hardly_ever_refused() {
    for counts in [
        Counts::Fixed,
        Counts::Aligned,
        Counts::Sliding,
        Counts::SlidingBluntly,
    ] {
        for allowed in [60, 300, 1200] {
            let mut platform = Platform::new(counts, allowed);
            contest(&mut platform, 1, 24, 7);
            let (used, refused) = (used(&platform, 24), refused(&platform));
            println!("{counts:?} {allowed}: used {used:.4}, refused {refused:.4}");
            // Told nothing of what leaves, a small budget takes some minutes to find out that its window slides.
            let wanted = match (counts, allowed) {
                (Counts::SlidingBluntly, 60) => 0.90,
                _ => 0.97,
            };
            assert!(used >= wanted, "{counts:?} {allowed}: {used}");
            assert!(refused <= 0.005, "{counts:?} {allowed}: {refused}");
        }
    }
}

#[test]
fn four_clients_that_know_nothing_of_each_other_share_a_quota() {
    for counts in [Counts::Fixed, Counts::Aligned, Counts::Sliding] {
        for seed in 0..5 {
            let mut platform = Platform::new(counts, 300);
            let sent = contest(&mut platform, 4, 22, seed);
            let (used, refused) = (used(&platform, 22), refused(&platform));
            let all: u64 = sent.iter().sum();
            println!("{counts:?} {seed}: used {used:.4}, refused {refused:.4}, {sent:?}");
            assert!(used >= 0.90, "{counts:?} {seed}: {used}");
            assert!(refused <= 0.01, "{counts:?} {seed}: {refused}");
            for of in sent {
                let part = of as f64 / all as f64;
                assert!((0.125..=0.375).contains(&part), "{counts:?} {seed}: {part}");
            }
        }
    }
}

#[test]
fn nothing_is_held_back_while_no_header_was_seen() {
    let mut pacer = Pacer::default();
    for number in 1..1000 {
        assert_eq!(pacer.next(SECOND), Next::Now);
        pacer.begin(number, Route::Deliver, SECOND);
        pacer.heard(number, Told::default(), SECOND);
    }
}

#[test]
fn an_older_answer_that_comes_later_gives_nothing_back() {
    let mut pacer = Pacer::default();
    for number in 1..=3 {
        pacer.begin(number, Route::Deliver, SECOND);
    }
    pacer.heard(3, told(10, 2, 50), SECOND * 2);
    pacer.heard(1, told(10, 4, 50), SECOND * 3);
    let budget = pacer.budget.unwrap();
    assert_eq!(budget.left, 2);
    assert_eq!(pacer.usable(&budget), 1, "the second is on the wire");
}

#[test]
fn nothing_left_waits_for_the_window_and_not_longer() {
    let mut pacer = Pacer::default();
    pacer.begin(1, Route::Deliver, SECOND);
    pacer.heard(1, told(300, 0, 40), SECOND * 2);
    assert_eq!(pacer.next(SECOND * 3), Next::At(SECOND * 42));
    assert_eq!(pacer.next(SECOND * 42), Next::Now);
}

#[test]
fn a_window_is_spent_evenly_and_not_in_a_burst() {
    let mut pacer = Pacer::default();
    pacer.begin(1, Route::Deliver, SECOND);
    pacer.heard(1, told(300, 299, 60), SECOND);
    let Next::At(at) = pacer.next(SECOND) else {
        panic!("a burst");
    };
    assert_eq!((at - SECOND).as_millis(), 200);
    assert_eq!(pacer.next(SECOND * 20), Next::Now, "time that was not used");
}

#[test]
fn after_a_pause_one_request_goes_until_it_is_answered() {
    let mut pacer = Pacer::default();
    pacer.begin(1, Route::Deliver, SECOND);
    pacer.begin(2, Route::Deliver, SECOND);
    pacer.heard(1, told(300, 0, 60), SECOND * 2);
    pacer.pause(SECOND * 65);
    pacer.pause(SECOND * 30);
    pacer.heard(2, told(300, 0, 60), SECOND * 3);
    assert_eq!(pacer.next(SECOND * 64), Next::At(SECOND * 65));
    assert_eq!(pacer.next(SECOND * 65), Next::Now);
    pacer.begin(3, Route::Deliver, SECOND * 65);
    assert_eq!(pacer.next(SECOND * 66), Next::Event);
    pacer.end(3);
    assert_eq!(pacer.next(SECOND * 66), Next::Now, "it never was answered");
}

#[test]
fn a_budget_that_is_configured_holds_before_any_answer() {
    let mut pacer = Pacer::with_budget(60, MINUTE);
    let start = SECOND * 1000;
    assert_eq!(pacer.next(start), Next::Now);
    pacer.begin(1, Route::Deliver, start);
    let Next::At(at) = pacer.next(start) else {
        panic!("a burst");
    };
    assert!(at - start >= ms(900), "{:?}", at - start);
}

#[test]
fn whatever_headers_say_there_is_a_next_time() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut pacer = Pacer::default();
    let mut now = SECOND;
    for number in 1..20_000 {
        let wild = [0, 1, 2, 300, u64::MAX];
        let mut pick = || (!random.bool()).then(|| wild[random.usize(0..wild.len())]);
        let told = Told {
            allowed: pick(),
            remaining: pick(),
            reset_in: pick().map(|seconds| Duration::from_secs(seconds.min(86_400))),
        };
        pacer.begin(number, Route::Deliver, now);
        pacer.heard(number, told, now);
        match pacer.next(now) {
            Next::At(at) => {
                assert!(at <= now + SECOND * 86_401, "{number}: {told:?}");
                now = at;
            }
            Next::Now => {}
            Next::Event => panic!("nothing is on the wire"),
        }
    }
}

/// Uploads and some who fetch on one budget, in steps of 5 ms; whoever has nothing to do comes and goes.
struct Both {
    pacer: Pacer,
    random: fastrand::Rng,
    /// Whether each who fetches waits at present.
    waiting: Vec<bool>,
    begun: Vec<Route>,
    wire: Vec<(Duration, u64)>,
}

impl Both {
    fn new(seed: u64, fetches: usize) -> Self {
        Self {
            pacer: Pacer::with_budget(300, MINUTE),
            random: fastrand::Rng::with_seed(seed),
            waiting: vec![false; fetches],
            begun: Vec::new(),
            wire: Vec::new(),
        }
    }

    fn step(&mut self, now: Duration, uploads: bool, wants: &[bool]) {
        let ended: Vec<u64> = {
            let ended = self.wire.iter().filter(|(at, _)| *at <= now);
            ended.map(|(_, number)| *number).collect()
        };
        self.wire.retain(|(at, _)| *at > now);
        for number in ended {
            self.pacer.heard(number, Told::default(), now);
        }
        if uploads && self.pacer.next_upload(now) == Next::Now {
            self.begin(Route::Deliver, now);
        }
        for (of, wants) in wants.iter().enumerate() {
            if *wants && self.pacer.next_fetch(uploads, now) == Next::Now {
                if std::mem::take(&mut self.waiting[of]) {
                    self.pacer.fetch_withdraws();
                }
                self.begin(Route::Fetch, now);
            } else if *wants != self.waiting[of] {
                self.waiting[of] = *wants;
                match *wants {
                    true => self.pacer.fetch_waits(),
                    false => self.pacer.fetch_withdraws(),
                }
            }
        }
    }

    fn begin(&mut self, route: Route, now: Duration) {
        self.begun.push(route);
        let number = self.begun.len() as u64;
        self.pacer.begin(number, route, now);
        self.wire.push((now + ms(self.random.u64(5..600)), number));
    }

    fn fetched(&self) -> usize {
        let fetched = self.begun.iter().filter(|route| **route == Route::Fetch);
        fetched.count()
    }
}

#[test]
fn where_both_always_wait_fetching_gets_between_a_twentieth_and_a_fifth_of_every_hundred_requests()
{
    for seed in 0..6 {
        let fetches = 1 + seed as usize % 3;
        let mut both = Both::new(seed, fetches);
        let wants = vec![true; fetches];
        for step in 0..120_000u64 {
            both.step(ms(7_000 + step * 5), true, &wants);
        }
        assert!(both.begun.len() >= 2800, "{} requests", both.begun.len());
        for part in both.begun.windows(100) {
            let fetched = part.iter().filter(|route| **route == Route::Fetch).count();
            assert!((5..=20).contains(&fetched), "seed {seed}: {fetched} of 100");
        }
        let in_a_row = both.begun.windows(2).any(|two| two == [Route::Fetch; 2]);
        assert!(!in_a_row, "seed {seed}: an upload waited for two fetches");
    }
}

#[test]
fn without_uploads_fetching_has_all_of_the_budget() {
    let mut both = Both::new(1, 2);
    for step in 0..60_000u64 {
        both.step(ms(7_000 + step * 5), false, &[true, true]);
    }
    assert_eq!(both.fetched(), both.begun.len());
    assert!(
        both.fetched() >= 290 * 5,
        "{} in five minutes",
        both.fetched()
    );
}

#[test]
fn slow_uploads_leave_a_twentieth_of_the_budget_to_fetching() {
    let mut both = Both::new(1, 1);
    // An upload in 20 s; in between they are under way.
    for step in 0..120_000u64 {
        let now = ms(7_000 + step * 5);
        let asks = step % 4000 == 0;
        if asks && both.pacer.next_upload(now) == Next::Now {
            both.begin(Route::Deliver, now);
        }
        if both.pacer.next_fetch(true, now) == Next::Now {
            both.begin(Route::Fetch, now);
        }
        both.step(now, false, &[]);
    }
    let fetched = both.fetched();
    assert!((140..=160).contains(&fetched), "{fetched} in ten minutes");
}

#[test]
fn whoever_comes_and_goes_the_budget_is_kept_and_nobody_waits_for_ever() {
    for seed in 0..60 {
        let fetches = 1 + seed as usize % 4;
        let mut both = Both::new(seed, fetches);
        let (mut uploads, mut wants) = (true, vec![true; fetches]);
        let mut waited = [0u64; 2];
        for step in 0..40_000u64 {
            if both.random.u64(0..400) == 0 {
                uploads = both.random.bool();
                for wants in &mut wants {
                    *wants = both.random.bool();
                }
            }
            let now = ms(7_000 + step * 5);
            if both.random.u64(0..8_000) == 0 {
                both.pacer.pause(now + SECOND * 3);
            }
            let before = both.begun.len();
            both.step(now, uploads, &wants);
            for route in &both.begun[before..] {
                waited[usize::from(*route == Route::Fetch)] = 0;
            }
            waited[0] = if uploads { waited[0] + 1 } else { 0 };
            waited[1] = if wants.contains(&true) {
                waited[1] + 1
            } else {
                0
            };
            // 10 s: a pause, an answer and some turns.
            assert!(
                waited.iter().all(|steps| *steps < 2000),
                "seed {seed}: {waited:?}"
            );
        }
        // Four windows were touched.
        assert!(
            both.begun.len() <= 1200,
            "seed {seed}: {}",
            both.begun.len()
        );
    }
}
