//! The slot's transitions as tables: what happens, in order, and where that leads.

use secrecy::SecretString;

use super::*;
use crate::auth::Claims;
use crate::auth::grant::{MintFailure, Refusal};
use crate::model::{FailureClass, FailureRecord, Timestamp};

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A caller comes.
    Want,
    /// The request under way gives a token that lives for so many seconds.
    Minted(u64),
    Fail(Failing),
    /// The session's delivery is answered 401 with the newest token.
    Reject(&'static str),
    /// The same, where no other session has work.
    RejectOnly(&'static str),
    /// The same, with the token before the newest.
    RejectOld(&'static str),
    Accept(&'static str),
    /// Seconds.
    Pass(u64),
    Resume,
}

#[derive(Debug, Clone, Copy)]
enum Failing {
    Down,
    Throttled(u64),
    WrongSecret,
}

use Event::{Accept, Fail, Minted as Mints, Pass, Reject, RejectOld, RejectOnly, Resume, Want};
use Failing::{Down, Throttled, WrongSecret};

struct Bench {
    slot: SlotState,
    now: Instant,
    /// What the last event returned, in a word.
    said: String,
    mint: Option<Mint>,
    requests: u32,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        let now = Instant(secs(1_000_000));
        let about = About {
            endpoint: "https://login.example/oauth/token".to_owned(),
            client_id: "5b1c9e".to_owned(),
            ..About::default()
        };
        let at = Moment {
            now,
            wall: Timestamp(0),
            draw: 0.999,
        };
        Self {
            slot: SlotState::new(rules, about, at),
            now,
            said: String::new(),
            mint: None,
            requests: 0,
        }
    }

    fn after(rules: Rules, events: &[Event]) -> Self {
        let mut bench = Self::new(rules);
        for event in events {
            bench.meet(*event);
        }
        bench
    }

    fn at(&self) -> Moment {
        let wall = i64::try_from(self.now.0.as_millis()).unwrap();
        Moment {
            now: self.now,
            wall: Timestamp(wall),
            draw: 0.999,
        }
    }

    fn flight(&self) -> Flight {
        match self.slot.phase {
            Phase::Fetching(flight) | Phase::Refreshing(flight) => flight,
            _ => self.mint.expect("a request was made").flight,
        }
    }

    fn meet(&mut self, event: Event) {
        let at = self.at();
        self.said = match event {
            Want => {
                let wanted = self.slot.want(at, Standing::New);
                if let Some(mint) = wanted.mint {
                    self.requests += 1;
                    self.mint = Some(mint);
                }
                match wanted.answer {
                    Answer::Use(token) => format!("use {}", token.generation.0),
                    Answer::Wait => "wait".to_owned(),
                    Answer::Held(hold) => format!("held {:?}", hold.kind),
                }
            }
            Mints(life) => {
                let minted = Minted {
                    access_token: SecretString::from("canary"),
                    lifetime: secs(life),
                    scopes: None,
                    claims: Claims::default(),
                };
                match self.slot.minted(self.flight(), minted, self.now, at) {
                    Some(generation) => format!("minted {}", generation.0),
                    None => "ignored".to_owned(),
                }
            }
            Fail(failing) => {
                let diagnosis = failing.diagnosis(self.slot.about());
                match self.slot.failed(self.flight(), diagnosis, at) {
                    Some(before) => format!("failed {before}"),
                    None => "ignored".to_owned(),
                }
            }
            Reject(session) => self.reject(session, false, 0),
            RejectOnly(session) => self.reject(session, true, 0),
            RejectOld(session) => self.reject(session, false, 1),
            Accept(name) => {
                let generation = self.slot.generation();
                let ended = self.slot.accepted(generation, &session(name));
                format!("ended {ended}")
            }
            Pass(seconds) => {
                self.now = self.now.saturating_add(secs(seconds));
                String::new()
            }
            Resume => {
                self.slot.retry_now(self.now);
                String::new()
            }
        };
    }

    fn reject(&mut self, name: &str, only_session: bool, back: u64) -> String {
        let generation = Generation(self.slot.generation().0 - back);
        let rejection = Rejection {
            generation,
            session: session(name),
            only_session,
            record: record(),
        };
        let rejected = self.slot.reject(&rejection, self.at());
        format!("{:?}", rejected.after)
    }

    fn phase(&self) -> &'static str {
        match self.slot.phase {
            Phase::Empty => "empty",
            Phase::Fetching(_) => "fetching",
            Phase::Valid => "valid",
            Phase::Refreshing(_) => "refreshing",
            Phase::Waiting => "waiting",
            Phase::Blocked => "blocked",
        }
    }
}

impl Failing {
    fn diagnosis(self, about: &About) -> Diagnosis {
        let failure = match self {
            Down => MintFailure::Unreachable {
                cause: "connection refused".to_owned(),
            },
            Throttled(hint) => MintFailure::Refused(Box::new(Refusal {
                status: 429,
                retry_after: Some(secs(hint)),
                ..Refusal::default()
            })),
            WrongSecret => MintFailure::Refused(Box::new(Refusal {
                status: 401,
                error: Some("invalid_client".to_owned()),
                ..Refusal::default()
            })),
        };
        Diagnosis::of_mint(&failure, about, Timestamp(0))
    }
}

fn session(name: &str) -> SessionKey {
    SessionKey {
        tenant: "acme".parse().unwrap(),
        session: name.parse().unwrap(),
    }
}

fn record() -> FailureRecord {
    FailureRecord {
        at: Timestamp(0),
        class: FailureClass::Unauthorized,
        status: Some(401),
        code: Some("bad.credentials".to_owned()),
        correlation_id: None,
        fields: Vec::new(),
        missing: None,
        message: "Invalid login credentials.".to_owned(),
        body: String::new(),
        token_generation: None,
        token_fingerprint: None,
        attempt: 1,
        next_try_at: None,
    }
}

/// Two tokens that two sessions were refused with: the second was asked for after a refusal.
const BLOCKED: [Event; 8] = [
    Want,
    Mints(3600),
    Reject("a"),
    Reject("b"),
    Want,
    Mints(3600),
    Reject("a"),
    Reject("b"),
];

/// Events, then what the last one returned, the phase, and the token requests made.
type Row = (&'static [Event], &'static str, &'static str, u32);

fn check(rules: Rules, rows: &[Row]) {
    for (events, said, phase, requests) in rows {
        let bench = Bench::after(rules.clone(), events);
        assert_eq!(bench.said, *said, "{events:?}");
        assert_eq!(bench.phase(), *phase, "{events:?}");
        assert_eq!(bench.requests, *requests, "{events:?}");
    }
}

#[test]
fn a_token_is_fetched_once_used_renewed_and_ends() {
    check(
        Rules::default(),
        &[
            (&[], "", "empty", 0),
            (&[Want], "wait", "fetching", 1),
            (&[Want, Want], "wait", "fetching", 1),
            (&[Want, Mints(3600)], "minted 1", "valid", 1),
            (&[Want, Mints(3600), Want], "use 1", "valid", 1),
            (&[Want, Mints(3600), Pass(3290), Want], "use 1", "valid", 1),
            (
                &[Want, Mints(3600), Pass(3310), Want],
                "use 1",
                "refreshing",
                2,
            ),
            (
                &[Want, Mints(3600), Pass(3310), Want, Want],
                "use 1",
                "refreshing",
                2,
            ),
            (
                &[Want, Mints(3600), Pass(3310), Want, Mints(3600), Want],
                "use 2",
                "valid",
                2,
            ),
            (
                &[Want, Mints(3600), Pass(3310), Want, Pass(400), Want],
                "wait",
                "fetching",
                2,
            ),
            (
                &[Want, Mints(3600), Pass(3600), Want],
                "wait",
                "fetching",
                2,
            ),
        ],
    );
}

#[test]
fn under_on_401_a_token_is_used_until_the_platform_refuses_it() {
    let rules = Rules {
        refresh: RefreshPolicy::On401,
        ..Rules::default()
    };
    check(
        rules.clone(),
        &[
            (&[Want, Mints(5), Pass(4), Want], "use 1", "valid", 1),
            (&[Want, Mints(5), Pass(9_999), Want], "use 1", "valid", 1),
            (&[Want, Mints(5), Pass(6), Reject("a")], "Retry", "empty", 1),
            (
                &[Want, Mints(5), Pass(6), Reject("a"), Want, Mints(5), Want],
                "use 2",
                "valid",
                2,
            ),
        ],
    );
}

#[test]
fn a_probe_that_needs_a_younger_token_gets_one_under_either_policy_and_delays_nobody() {
    for refresh in [RefreshPolicy::Ahead, RefreshPolicy::On401] {
        let rules = Rules {
            refresh,
            ..Rules::default()
        };
        let mut bench = Bench::after(rules, &[Want, Mints(9_999), Pass(60)]);
        assert!(bench.slot.renew(Generation(0), bench.now), "an older one");
        bench.meet(Want);
        assert_eq!((bench.said.as_str(), bench.requests), ("use 1", 1));
        assert!(bench.slot.renew(Generation(1), bench.now));
        bench.meet(Want);
        assert_eq!(
            (bench.said.as_str(), bench.phase()),
            ("use 1", "refreshing")
        );
        for event in [Fail(Down), Pass(9), Want] {
            bench.meet(event);
        }
        assert_eq!(bench.said, "use 1", "the present one stays");
        bench.slot.renew(Generation(1), bench.now);
        for event in [Want, Mints(9_999), Want] {
            bench.meet(event);
        }
        assert_eq!(bench.said, "use 2");
    }
}

#[test]
fn a_session_that_meets_every_expiry_is_never_held_for_it() {
    let rules = Rules {
        refresh: RefreshPolicy::On401,
        ..Rules::default()
    };
    let mut bench = Bench::new(rules.clone());
    for _ in 0..50 {
        for event in [Want, Mints(5), Want, Accept("a"), Pass(6), RejectOnly("a")] {
            bench.meet(event);
        }
        assert_eq!(bench.said, "Retry");
    }
    // Also where the endpoint overstates the life, and where uploads take longer than a token lives.
    for life in [86_400, 5] {
        let mut bench = Bench::new(rules.clone());
        for _ in 0..50 {
            for event in [Want, Mints(life), Accept("a"), Accept("b"), Pass(6)] {
                bench.meet(event);
            }
            bench.meet(Reject("a"));
            assert_eq!(bench.said, "Retry");
        }
    }
}

#[test]
fn a_failure_without_a_token_holds_and_its_deadline_lets_one_try_through() {
    check(
        Rules::default(),
        &[
            (&[Want, Fail(Down)], "failed 0", "waiting", 1),
            (&[Want, Fail(Down), Want], "held Outage", "waiting", 1),
            (&[Want, Fail(Down), Pass(2), Want], "wait", "fetching", 2),
            (
                &[Want, Fail(Down), Pass(2), Want, Fail(Down), Pass(2), Want],
                "held Outage",
                "waiting",
                2,
            ),
            (
                &[Want, Fail(Throttled(3600)), Pass(3599), Want],
                "held Throttled",
                "waiting",
                1,
            ),
            (
                &[Want, Fail(Throttled(3600)), Pass(3606), Want],
                "wait",
                "fetching",
                2,
            ),
            (
                &[Want, Fail(WrongSecret), Want],
                "held Blocked",
                "blocked",
                1,
            ),
            (
                &[Want, Fail(WrongSecret), Pass(2), Want, Mints(60), Want],
                "use 1",
                "valid",
                2,
            ),
            (
                &[Want, Fail(WrongSecret), Resume, Want],
                "wait",
                "fetching",
                2,
            ),
        ],
    );
}

#[test]
fn who_waited_learns_of_the_failure_even_if_the_next_try_is_due() {
    let mut bench = Bench::after(Rules::default(), &[Want, Fail(Down), Pass(3600)]);
    let wanted = bench.slot.want(bench.at(), Standing::Waited);
    assert!(matches!(wanted.answer, Answer::Held(_)), "{wanted:?}");
    assert_eq!(wanted.mint, None);
    bench.meet(Want);
    assert_eq!(bench.said, "wait", "who comes now sets off the next try");
}

#[test]
fn a_failed_refresh_displaces_no_token_and_is_remembered_when_it_ends() {
    for failing in [Down, Throttled(3600), WrongSecret] {
        let mut bench = Bench::after(
            Rules::default(),
            &[Want, Mints(3600), Pass(3310), Want, Fail(failing), Want],
        );
        assert_eq!(bench.said, "use 1", "{failing:?}");
        assert_eq!(bench.phase(), "valid", "{failing:?}: tried again at once");
        assert_eq!(bench.slot.hold(bench.now), None, "{failing:?}");
        bench.meet(Pass(3600 - 3310 - 1));
        bench.meet(Want);
        assert_eq!(bench.said, "use 1", "{failing:?}");
    }
    check(
        Rules::default(),
        &[
            // The endpoint asked for an hour: also the end of the token does not break that.
            (
                &[
                    Want,
                    Mints(3600),
                    Pass(3310),
                    Want,
                    Fail(Throttled(3600)),
                    Pass(300),
                    Want,
                ],
                "held Throttled",
                "waiting",
                2,
            ),
            // Nor does a 401.
            (
                &[
                    Want,
                    Mints(3600),
                    Accept("a"),
                    Pass(3310),
                    Want,
                    Fail(Throttled(3600)),
                    Reject("a"),
                ],
                "Blocked",
                "waiting",
                2,
            ),
        ],
    );
}

#[test]
fn a_401_invalidates_the_newest_generation_only() {
    check(
        Rules::default(),
        &[
            (
                &[Want, Mints(3600), Accept("a"), Reject("a"), Want],
                "wait",
                "fetching",
                2,
            ),
            (
                &[
                    Want,
                    Mints(3600),
                    Accept("a"),
                    Reject("a"),
                    Want,
                    Reject("b"),
                    Reject("c"),
                ],
                "Retry",
                "fetching",
                2,
            ),
            (
                &[
                    Want,
                    Mints(3600),
                    Accept("a"),
                    Reject("a"),
                    Want,
                    Mints(3600),
                    RejectOld("b"),
                ],
                "Retry",
                "valid",
                2,
            ),
            // A refresh under way is the forced request.
            (
                &[
                    Want,
                    Mints(3600),
                    Accept("a"),
                    Pass(3310),
                    Want,
                    Reject("a"),
                    Want,
                ],
                "wait",
                "fetching",
                2,
            ),
        ],
    );
}

#[test]
fn tokens_asked_for_after_a_refusal_and_refused_for_two_sessions_or_the_only_one_block() {
    check(
        Rules::default(),
        &[
            (&[Want, Mints(3600), Reject("a")], "Retry", "empty", 1),
            // The first one may have ended since it was given, for all of them.
            (
                &[Want, Mints(3600), Reject("a"), Reject("b")],
                "Retry",
                "empty",
                1,
            ),
            (&[Want, Mints(3600), RejectOnly("a")], "Retry", "empty", 1),
            (
                &[
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Reject("b"),
                    Want,
                    Mints(3600),
                    Reject("b"),
                ],
                "Retry",
                "empty",
                2,
            ),
            (
                &[
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Want,
                    Mints(3600),
                    Reject("b"),
                    Reject("a"),
                ],
                "Blocked",
                "blocked",
                2,
            ),
            (
                &[
                    Want,
                    Mints(3600),
                    RejectOnly("a"),
                    Want,
                    Mints(3600),
                    RejectOnly("a"),
                ],
                "Blocked",
                "blocked",
                2,
            ),
            // Two sessions on two generations are evidence too.
            (
                &[
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Want,
                    Mints(3600),
                    Reject("b"),
                ],
                "Blocked",
                "blocked",
                3,
            ),
            // A delivery between them is evidence to the contrary.
            (
                &[
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Want,
                    Mints(3600),
                    Accept("c"),
                    Reject("b"),
                ],
                "Retry",
                "empty",
                2,
            ),
            // Also for the generations after it.
            (
                &[
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Want,
                    Mints(3600),
                    Accept("c"),
                    Reject("b"),
                    Want,
                    Mints(3600),
                    Reject("b"),
                ],
                "Retry",
                "empty",
                3,
            ),
            // An unused token that may have died of idleness is no evidence.
            (
                &[Want, Mints(86_400), Pass(301), RejectOnly("a")],
                "Retry",
                "empty",
                1,
            ),
            // What arrives after the block neither shortens nor repeats it.
            (
                &[
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Reject("b"),
                    Reject("c"),
                    Accept("d"),
                    Want,
                ],
                "held Blocked",
                "blocked",
                2,
            ),
        ],
    );
}

/// Seen: all tokens were revoked while the youngest, renewed ahead, had not been used yet. Two sessions met that at
/// once, and the slot blocked as if new tokens were refused, until its probe found the scope that was missing.
#[test]
fn a_token_renewed_ahead_and_never_used_is_no_evidence_against_the_next() {
    const RENEWED: [Event; 6] = [
        Want,
        Mints(3600),
        Accept("a"),
        Pass(3310),
        Want,
        Mints(3600),
    ];
    let mut bench = Bench::after(Rules::default(), &RENEWED);
    for name in ["a", "b", "c"] {
        bench.meet(Reject(name));
        assert_eq!((bench.said.as_str(), bench.phase()), ("Retry", "empty"));
    }
    bench.meet(Want);
    bench.meet(Mints(3600));
    assert_eq!(bench.requests, 3, "one for all that were refused");
    // This one was asked for when the trouble was known.
    bench.meet(Reject("a"));
    bench.meet(Reject("b"));
    assert_eq!((bench.said.as_str(), bench.phase()), ("Blocked", "blocked"));

    // A renewal that was under way when the trouble began may have been given before it.
    const UNDER_WAY: [Event; 8] = [
        Want,
        Mints(3600),
        Accept("a"),
        Pass(3310),
        Want,
        Reject("a"),
        Reject("b"),
        Mints(3600),
    ];
    let mut bench = Bench::after(Rules::default(), &UNDER_WAY);
    bench.meet(Reject("a"));
    bench.meet(Reject("b"));
    assert_eq!((bench.said.as_str(), bench.phase()), ("Retry", "empty"));
    for event in [Want, Mints(3600), Reject("a"), Reject("b")] {
        bench.meet(event);
    }
    assert_eq!((bench.said.as_str(), bench.phase()), ("Blocked", "blocked"));
    assert_eq!(bench.requests, 3);
}

#[test]
fn a_block_after_failed_refreshes_is_probed_as_soon_as_any_other() {
    const RENEWED: [Event; 6] = [Want, Mints(60), RejectOnly("a"), Want, Mints(60), Pass(31)];
    let mut bench = Bench::after(Rules::default(), &RENEWED);
    for _ in 0..4 {
        for event in [Want, Fail(WrongSecret), Pass(3)] {
            bench.meet(event);
        }
    }
    bench.meet(RejectOnly("a"));
    assert_eq!(bench.said, "Blocked");
    let hold = bench.slot.hold(bench.now).expect("blocked");
    assert!(hold.until.since(bench.now) <= secs(2), "{hold:?}");
    assert_eq!(hold.probes_failed, 0);
}

#[test]
fn refusals_of_what_was_sent_before_a_block_do_not_lengthen_it() {
    let mut bench = Bench::after(Rules::default(), &BLOCKED);
    let hold = bench.slot.hold(bench.now);
    for late in ["c", "d", "e"] {
        bench.meet(Reject(late));
        assert_eq!(bench.said, "Blocked");
    }
    assert_eq!(bench.slot.hold(bench.now), hold);
}

#[test]
fn a_probe_that_is_refused_blocks_again_and_one_that_delivers_opens() {
    let mut bench = Bench::after(Rules::default(), &BLOCKED);
    for failed in 0..5 {
        let hold = bench.slot.hold(bench.now).expect("blocked");
        assert_eq!(hold.probes_failed, failed);
        bench.now = hold.until;
        for event in [Want, Mints(3600), Want, Reject("c")] {
            bench.meet(event);
        }
        assert_eq!(bench.said, "Blocked");
    }
    bench.now = bench.slot.hold(bench.now).expect("blocked").until;
    for event in [Want, Mints(3600), Accept("d")] {
        bench.meet(event);
    }
    assert_eq!(bench.said, "ended true");
    bench.meet(Reject("e"));
    assert_eq!(bench.said, "Retry");
}

#[test]
fn a_session_refused_alone_three_times_is_held_alone() {
    // While others deliver with the same tokens.
    let mut bench = Bench::new(Rules::default());
    for expected in ["Retry", "Retry", "HoldSession"] {
        for event in [Want, Mints(3600), Want, Accept("b"), Reject("a")] {
            bench.meet(event);
        }
        assert_eq!(bench.said, expected);
    }
    assert_eq!(bench.phase(), "valid", "the others keep their token");
    assert_eq!(bench.requests, 3);
    // Each probe of the session is refused again without costing a token.
    bench.meet(Pass(60));
    bench.meet(Reject("a"));
    assert_eq!(
        (bench.said.as_str(), bench.phase()),
        ("HoldSession", "valid")
    );
    // Once it is the only one with work, there is nobody to keep the token for.
    bench.meet(RejectOnly("a"));
    assert_eq!((bench.said.as_str(), bench.phase()), ("Retry", "empty"));
    bench.meet(Want);
    bench.meet(Mints(3600));
    // Its own delivery ends that.
    bench.meet(Accept("a"));
    bench.meet(Reject("a"));
    assert_eq!(bench.said, "Retry");

    // While nobody else tries.
    let mut bench = Bench::new(Rules::default());
    for expected in ["Retry", "Retry", "HoldSession"] {
        for event in [Want, Mints(3600), Want, Reject("a")] {
            bench.meet(event);
        }
        assert_eq!(bench.said, expected);
    }
    bench.meet(Reject("b"));
    assert_eq!(bench.said, "Blocked");
}

#[test]
fn retry_on_401_off_blocks_at_the_first_401_and_probes() {
    let rules = Rules {
        retry_on_401: false,
        ..Rules::default()
    };
    check(
        rules.clone(),
        &[
            (
                &[Want, Mints(3600), Accept("a"), Pass(60), Reject("a")],
                "Blocked",
                "blocked",
                1,
            ),
            (
                &[
                    Want,
                    Mints(3600),
                    Reject("a"),
                    Pass(2),
                    Want,
                    Mints(60),
                    Want,
                ],
                "use 2",
                "valid",
                2,
            ),
        ],
    );
    let bench = Bench::after(
        rules.clone(),
        &[Want, Mints(86_400), Accept("a"), Pass(900), Reject("a")],
    );
    let hold = bench.slot.hold(bench.now).unwrap();
    assert_eq!(
        hold.reason,
        "its token was revoked early, perhaps by an idle timeout, 15 min into a stated life of 24 h \
         (401 bad.credentials: Invalid login credentials) and retry_on_401 is false"
    );
    assert_eq!(
        hold.remedy,
        "Set retry_on_401 = true to renew tokens at once"
    );
}

#[test]
fn results_of_an_abandoned_request_count_for_nothing() {
    const EVENTS: [Event; 9] = [
        Want,
        Mints(3600),
        Reject("a"),
        Want,
        Mints(3600),
        Reject("a"),
        Want,
        Reject("b"),
        Mints(3600),
    ];
    check(Rules::default(), &[(&EVENTS, "ignored", "blocked", 3)]);
    let mut bench = Bench::after(Rules::default(), &EVENTS);
    bench.meet(Fail(Down));
    assert_eq!((bench.said.as_str(), bench.phase()), ("ignored", "blocked"));
}

#[test]
fn requests_are_a_second_apart_and_slow_down_while_new_tokens_are_refused() {
    let mut bench = Bench::new(Rules::default());
    let mut gaps = Vec::new();
    let mut last = None;
    for _ in 0..4 {
        bench.meet(Want);
        let mint = bench.mint.expect("a request");
        if let Some(last) = last {
            gaps.push(mint.not_before.since(last).as_secs());
        }
        last = Some(mint.not_before);
        bench.now = mint.not_before;
        // Each token ends at once without a delivery, for one session that is not alone.
        bench.meet(Mints(1));
        bench.meet(Pass(1));
        bench.meet(Reject("a"));
        assert_eq!(bench.said, "Retry");
    }
    assert_eq!(gaps, [2, 4, 8]);
    for event in [Want, Mints(3600), Accept("b"), Reject("b"), Want] {
        bench.meet(event);
    }
    let mint = bench.mint.expect("a request");
    let delivered = mint.not_before.since(last.expect("a request before"));
    assert!(delivered <= secs(17), "a delivery ends the slowing down");
}

#[test]
fn a_hold_says_since_when_until_when_and_how_often_it_was_tried() {
    let mut bench = Bench::after(Rules::default(), &[Want, Fail(Down)]);
    let began = bench.slot.hold(bench.now).unwrap().since;
    for failed in 0..4 {
        let hold = bench.slot.hold(bench.now).unwrap();
        assert_eq!((hold.probes_failed, hold.since), (failed, began));
        bench.now = hold.until;
        bench.meet(Want);
        bench.meet(Fail(Down));
    }
    bench.now = bench.slot.hold(bench.now).unwrap().until;
    bench.meet(Want);
    bench.meet(Fail(WrongSecret));
    let hold = bench.slot.hold(bench.now).unwrap();
    assert_eq!(hold.probes_failed, 0, "another hold begins");
    assert!(hold.since > began);
}

#[test]
fn a_slow_endpoint_and_a_short_life_still_give_a_usable_token() {
    let mut bench = Bench::after(Rules::default(), &[Want]);
    let asked_at = bench.now;
    bench.meet(Pass(25));
    let minted = Minted {
        access_token: SecretString::from("canary"),
        lifetime: secs(5),
        scopes: None,
        claims: Claims::default(),
    };
    let (flight, at) = (bench.flight(), bench.at());
    bench.slot.minted(flight, minted, asked_at, at).unwrap();
    bench.meet(Want);
    assert_eq!(bench.said, "use 1");
    bench.meet(Pass(1));
    bench.meet(Want);
    assert_eq!(bench.said, "wait", "its life counts from the request");
}

#[test]
fn the_view_is_what_stats_shows() {
    let view = |events: &[Event]| {
        let bench = Bench::after(Rules::default(), events);
        let view = bench.slot.view(bench.now);
        (view.state, view.expires_in_s, view.generation)
    };
    assert_eq!(view(&[]), ("none".into(), None, 0));
    assert_eq!(view(&[Want]), ("fetching".into(), None, 0));
    assert_eq!(
        view(&[Want, Mints(3600), Pass(60)]),
        ("valid".into(), Some(3540), 1)
    );
    assert_eq!(view(&[Want, Fail(Down)]), ("none".into(), None, 0));
    assert_eq!(
        view(&[Want, Fail(WrongSecret)]),
        ("blocked".into(), None, 0)
    );
}

fn claims(organization: &str, purviews: &[&str]) -> Claims {
    Claims {
        organization: (!organization.is_empty()).then(|| organization.to_owned()),
        purviews: purviews.iter().map(|name| (*name).to_owned()).collect(),
        expires_at_s: None,
    }
}

#[test]
fn the_organisation_that_is_stated_or_seen_first_is_held_to() {
    for (stated, shown, stranger) in [
        (Some("a"), vec![claims("a", &[])], false),
        (Some("a"), vec![claims("b", &[])], true),
        (Some("a"), vec![claims("", &[])], false),
        (Some("a"), vec![claims("b", &["b", "a"])], false),
        (None, vec![claims("b", &[])], false),
        (None, vec![claims("b", &[]), claims("b", &["c"])], false),
        (None, vec![claims("b", &[]), claims("c", &[])], true),
        // Several organisations pin none.
        (None, vec![claims("", &["b", "c"]), claims("d", &[])], false),
        (
            None,
            vec![claims("", &[]), claims("b", &[]), claims("c", &[])],
            true,
        ),
    ] {
        let rules = Rules {
            organization: stated.map(str::to_owned),
            ..Rules::default()
        };
        let mut bench = Bench::new(rules);
        let mut last = false;
        for claims in &shown {
            last = bench.slot.stranger(claims, true).is_some();
        }
        assert_eq!(last, stranger, "{stated:?} {shown:?}");
    }
}

/// Seen: a check found a token of another organisation while the gate was open and chunks went out with it.
#[test]
fn what_the_platform_says_of_a_live_token_pins_and_blocks_like_what_it_shows() {
    let mut bench = Bench::after(Rules::default(), &[Want, Mints(3600)]);
    let at = bench.at();
    assert!(!bench.slot.asks_whose(&Claims::default()));
    assert!(
        !bench.slot.told(Generation(1), "org-a", at),
        "the first seen"
    );
    assert_eq!(bench.slot.organization(), Some("org-a"));
    assert!(bench.slot.asks_whose(&Claims::default()), "it is told here");
    assert!(!bench.slot.asks_whose(&claims("org-a", &[])));
    for event in [
        RejectOnly("s1"),
        RejectOnly("s1"),
        Pass(60),
        Want,
        Mints(3600),
    ] {
        bench.meet(event);
    }
    let (newest, at) = (bench.slot.generation(), bench.at());
    assert!(
        !bench.slot.told(Generation(1), "org-b", at),
        "of an old one"
    );
    assert!(bench.slot.told(newest, "org-b", at));
    let hold = bench.slot.hold(bench.now).expect("it is blocked");
    assert_eq!(
        hold.reason,
        "its token belongs to organisation org-b, not org-a"
    );
    assert!(hold.remedy.contains("organization = \"org-b\""));
    bench.meet(Want);
    assert_eq!(bench.said, "held Blocked");
    // The next token is looked at like any.
    for event in [Resume, Want, Mints(3600), Want] {
        bench.meet(event);
    }
    assert!(bench.said.starts_with("use"), "{}", bench.said);
}

#[test]
fn a_static_token_that_is_refused_blocks_at_once_and_is_tried_again_at_the_pace_of_probes() {
    let rules = Rules {
        is_static: true,
        ..Rules::default()
    };
    let mut bench = Bench::after(rules, &[Want]);
    let at = bench.at();
    let minted = || Minted {
        access_token: SecretString::from("canary"),
        lifetime: UNTIL_REFUSED,
        scopes: None,
        claims: Claims::default(),
    };
    let flight = bench.flight();
    bench.slot.minted(flight, minted(), bench.now, at).unwrap();
    bench.meet(Pass(400 * 86_400));
    bench.meet(Want);
    assert_eq!(bench.said, "use 1", "nobody stated its end");
    assert_eq!(bench.slot.view(bench.now).expires_in_s, None);
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.meet(RejectOnly("s1"));
        assert_eq!(bench.said, "Blocked");
        let hold = bench.slot.hold(bench.now).expect("it is blocked");
        waits.push(hold.until.since(bench.now).as_secs());
        bench.meet(Want);
        assert_eq!(bench.said, "held Blocked");
        bench.meet(Pass(15 * 60));
        bench.meet(Want);
        assert_eq!(bench.said, "wait");
        let (flight, at) = (bench.flight(), bench.at());
        bench.slot.minted(flight, minted(), bench.now, at).unwrap();
    }
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits[0] <= 2 && waits[11] > 7 * 60, "{waits:?}");
    bench.meet(Accept("s1"));
    assert!(bench.slot.hold(bench.now).is_none());
}

#[test]
fn a_complaint_about_a_generation_ends_that_generation_only() {
    let mut bench = Bench::after(Rules::default(), &[Want, Mints(3600), Pass(2)]);
    assert!(bench.slot.invalidate(Generation(1), bench.now));
    bench.meet(Want);
    assert_eq!(bench.said, "wait");
    bench.meet(Mints(3600));
    assert!(
        bench.slot.invalidate(Generation(1), bench.now),
        "late, and a younger one is there"
    );
    bench.meet(Want);
    assert_eq!(bench.said, "use 2");
    bench.meet(Pass(3600));
    bench.meet(Want);
    bench.meet(Fail(Down));
    assert!(
        !bench.slot.invalidate(Generation(2), bench.now),
        "none will come now"
    );
}

#[test]
fn a_static_token_that_never_worked_for_one_session_is_judged_by_the_next() {
    let rules = Rules {
        is_static: true,
        ..Rules::default()
    };
    let mut bench = Bench::after(rules, &[Want, Mints(3600), Reject("s1")]);
    assert_eq!(bench.said, "HoldSession");
    bench.meet(Want);
    assert_eq!(bench.said, "use 1", "the others are served");
    bench.meet(Reject("s2"));
    assert_eq!(bench.said, "Blocked");
}

/// Seen: the second refusal of a token in a file had forgotten that it had worked, and for how long.
#[test]
fn a_token_that_a_file_gives_again_is_still_one_that_ended() {
    let rules = Rules {
        is_static: true,
        ..Rules::default()
    };
    let mut bench = Bench::after(rules, &[Want]);
    let give = |bench: &mut Bench, secret: &str| {
        let minted = Minted {
            access_token: SecretString::from(secret),
            lifetime: UNTIL_REFUSED,
            scopes: None,
            claims: Claims::default(),
        };
        let (flight, at) = (bench.flight(), bench.at());
        bench.slot.minted(flight, minted, bench.now, at).unwrap()
    };
    let after = secs(60);
    give(&mut bench, "canary-1");
    for event in [
        Accept("s1"),
        Pass(after.as_secs()),
        Reject("s1"),
        Pass(900),
        Want,
    ] {
        bench.meet(event);
    }
    let again = give(&mut bench, "canary-1");
    let fate = bench.slot.fate(again, bench.now);
    assert_eq!(fate.as_deref(), Some("ended after 1 min of use"));
    for event in [Reject("s1"), Pass(900), Want] {
        bench.meet(event);
    }
    let newer = give(&mut bench, "canary-2");
    assert_eq!(bench.slot.fate(newer, bench.now), None, "another token");
}
