//! How far a drain is, for whoever watches it: a moving line on a terminal, else a plain line now and then on standard error.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, Instant};
use crate::control::words;
use crate::model::{GapWaitView, GateState, Snapshot, TenantId, TenantView, Timestamp};

use super::desk::Desk;
use super::out::Out;
use super::progress::Progress;

/// Between two lines about the same.
const PACE: Duration = Duration::from_secs(30);
/// Waits that are told in one go; the others are counted.
const WAITS_TOLD: usize = 5;

pub struct Meter {
    out: Out,
    clock: Arc<dyn Clock>,
    progress: Progress,
    told: Mutex<Told>,
}

impl Meter {
    /// `only`: the drain is of this tenant alone.
    pub fn new(desk: &Desk, only: Option<TenantId>) -> Self {
        Self {
            out: desk.out,
            clock: Arc::clone(&desk.clock),
            progress: Progress::of_chunks(desk.out, 0),
            told: Mutex::new(Told {
                only,
                ..Told::default()
            }),
        }
    }

    /// Looks at the numbers of the whole store.
    pub fn show(&self, snapshot: &Snapshot) {
        let mut told = self.told.lock().expect("no look panics");
        if self.out.shows_progress() {
            let (done, left) = told.count(snapshot);
            let message = told.message(snapshot, self.clock.wall());
            self.progress.set(done, done + left, message);
            return;
        }
        for line in told.lines(snapshot, self.clock.now(), self.clock.wall()) {
            self.out.remark(&line);
        }
    }
}

/// What was said, and what numbers of the whole store are in numbers of this drain.
#[derive(Debug, Default)]
struct Told {
    only: Option<TenantId>,
    delivered_before: Option<u64>,
    progress_at: Option<Instant>,
    waits_at: Option<Instant>,
}

impl Told {
    fn tenants<'a>(
        &self,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = (&'a String, &'a TenantView)> + use<'a> {
        let only = self.only.clone();
        let of_drain =
            move |name: &&String| only.as_ref().is_none_or(|it| it.as_str() == name.as_str());
        snapshot
            .tenants
            .iter()
            .filter(move |(name, _)| of_drain(name))
    }

    /// Delivered since the first look, and left.
    fn count(&mut self, snapshot: &Snapshot) -> (u64, u64) {
        let (mut delivered, mut left) = (0, 0);
        for (_, view) in self.tenants(snapshot) {
            delivered += view.counts.delivered.chunks;
            left += view.counts.backlog().chunks;
        }
        let before = *self.delivered_before.get_or_insert(delivered);
        (delivered.saturating_sub(before), left)
    }

    fn held(&self, snapshot: &Snapshot) -> String {
        let waits = self
            .tenants(snapshot)
            .filter(|(_, view)| view.gate.state != GateState::Open)
            .map(|(tenant, _)| tenant.as_str());
        let waits: Vec<_> = waits.collect();
        match waits.len() {
            0 => String::new(),
            count => format!("{} held: {}", words::count(count as u64), waits.join(", ")),
        }
    }

    /// What stands behind the moving line.
    fn message(&self, snapshot: &Snapshot, now: Timestamp) -> String {
        let mut parts = vec![self.held(snapshot)];
        let mut tenants = self.tenants(snapshot);
        let wait = tenants.find_map(|(tenant, view)| Some((tenant, view.gap_wait.as_ref()?)));
        parts.extend(wait.map(|(tenant, wait)| wait_words(tenant, wait, now)));
        parts.retain(|part| !part.is_empty());
        parts.join("; ")
    }

    /// What is to be said at this look: a wait when it begins, and everything at a slow pace.
    fn lines(&mut self, snapshot: &Snapshot, now: Instant, wall: Timestamp) -> Vec<String> {
        let (done, left) = self.count(snapshot);
        let due = |at: Option<Instant>| at.is_none_or(|at| now.since(at) >= PACE);
        let mut lines = Vec::new();
        // A short drain needs no word before its report.
        if due(Some(*self.progress_at.get_or_insert(now))) {
            self.progress_at = Some(now);
            let held = match self.held(snapshot) {
                held if held.is_empty() => held,
                held => format!("; {held}"),
            };
            let of = words::chunks(done + left);
            lines.push(format!("{} of {of} delivered{held}", words::count(done)));
        }
        let waits = self
            .tenants(snapshot)
            .filter_map(|(tenant, view)| Some((tenant.as_str(), view.gap_wait.as_ref()?)));
        let waits: Vec<_> = waits.collect();
        if !waits.is_empty() && due(self.waits_at) {
            self.waits_at = Some(now);
            let told = waits.iter().take(WAITS_TOLD);
            lines.extend(told.map(|(tenant, wait)| wait_line(tenant, wait, wall)));
            if let Some(more @ 1..) = waits.len().checked_sub(WAITS_TOLD) {
                lines.push(format!("{more} more tenants wait for missing sequences"));
            }
        }
        lines
    }
}

/// `acme waits for sequences 4 to 6 of session s1 until 12:03:20Z, as do 2 more of its sessions; what is missing then is
/// declared as a gap`
fn wait_line(tenant: &str, wait: &GapWaitView, now: Timestamp) -> String {
    let others = match wait.sessions.saturating_sub(1) {
        0 => String::new(),
        1 => ", as does 1 more of its sessions".to_owned(),
        more => format!(", as do {} more of its sessions", words::count(more)),
    };
    let waits = wait_words(tenant, wait, now);
    format!("{waits}{others}; what is missing then is declared as a gap")
}

fn wait_words(tenant: &str, wait: &GapWaitView, now: Timestamp) -> String {
    let sequences = match (wait.first, wait.last) {
        (first, last) if first == last => format!("sequence {first}"),
        (first, last) => format!("sequences {first} to {last}"),
    };
    format!(
        "{tenant} waits for {sequences} of session {} until {}",
        wait.session,
        words::moment_of(&wait.until, now)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Count, Counts, GateView};

    fn chunks(chunks: u64) -> Count {
        Count { chunks, bytes: 0 }
    }

    fn view(delivered: u64, ready: u64) -> TenantView {
        TenantView {
            counts: Counts {
                delivered: chunks(delivered),
                ready: chunks(ready),
                ..Counts::default()
            },
            ..TenantView::default()
        }
    }

    fn snapshot(tenants: Vec<(&str, TenantView)>) -> Snapshot {
        let tenants = tenants.into_iter();
        Snapshot {
            tenants: tenants
                .map(|(name, view)| (name.to_owned(), view))
                .collect(),
            ..Snapshot::default()
        }
    }

    fn waiting(view: TenantView, last: u64, sessions: u64) -> TenantView {
        let wait = GapWaitView {
            session: "s1".parse().unwrap(),
            first: 4,
            last,
            until: "2026-03-01T12:01:40Z".to_owned(),
            sessions,
        };
        TenantView {
            gap_wait: Some(wait),
            ..view
        }
    }

    /// Looks after so many seconds.
    fn lines(told: &mut Told, snapshot: &Snapshot, seconds: u64) -> Vec<String> {
        let now = Instant(Duration::from_secs(1_000 + seconds));
        let wall = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        told.lines(snapshot, now, wall)
    }

    #[test]
    fn a_wait_is_told_when_it_begins_and_then_at_a_slow_pace() {
        let mut told = Told::default();
        let works = snapshot(vec![("acme", view(3, 4))]);
        let waits = snapshot(vec![("acme", waiting(view(5, 2), 4, 1))]);
        assert!(lines(&mut told, &works, 0).is_empty(), "nothing to say yet");
        let line = "acme waits for sequence 4 of session s1 until 12:01:40Z; what is missing then is declared as a gap";
        assert_eq!(lines(&mut told, &waits, 2), [line]);
        assert!(lines(&mut told, &waits, 4).is_empty());
        assert_eq!(lines(&mut told, &waits, 30), ["2 of 4 chunks delivered"]);
        assert_eq!(lines(&mut told, &waits, 32), [line]);
        // Another wait that begins meanwhile has to bide its time: there may be a thousand.
        let others = snapshot(vec![("globex", waiting(view(5, 2), 6, 3))]);
        assert!(lines(&mut told, &others, 40).is_empty());
        let both = [
            "0 of 4 chunks delivered",
            "globex waits for sequences 4 to 6 of session s1 until 12:01:40Z, as do 2 more of its sessions; what is missing then is declared as a gap",
        ];
        told.delivered_before = None;
        assert_eq!(lines(&mut told, &others, 70)[1], both[1]);
    }

    #[test]
    fn the_moving_line_says_what_is_held_and_what_is_waited_for() {
        let held = TenantView {
            gate: GateView {
                state: GateState::Paused,
                holds: Vec::new(),
            },
            ..view(0, 1)
        };
        let both = snapshot(vec![("acme", held), ("globex", waiting(view(0, 1), 4, 1))]);
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        assert_eq!(
            Told::default().message(&both, now),
            "1 held: acme; globex waits for sequence 4 of session s1 until 12:01:40Z"
        );
        assert_eq!(Told::default().message(&Snapshot::default(), now), "");
    }

    #[test]
    fn a_drain_of_one_tenant_tells_of_no_other() {
        let mut told = Told {
            only: Some("acme".parse().unwrap()),
            ..Told::default()
        };
        let held = TenantView {
            gate: GateView {
                state: GateState::Paused,
                holds: Vec::new(),
            },
            ..waiting(view(0, 9), 4, 1)
        };
        let all = |delivered| {
            let acme = view(delivered, 10 - delivered);
            snapshot(vec![("acme", acme), ("globex", held.clone())])
        };
        assert!(lines(&mut told, &all(0), 0).is_empty());
        assert_eq!(lines(&mut told, &all(7), 31), ["7 of 10 chunks delivered"]);
        told.only = None;
        let text = lines(&mut told, &all(8), 62);
        assert_eq!(text[0], "8 of 19 chunks delivered; 1 held: globex");
    }

    #[test]
    fn the_waits_of_many_tenants_are_counted() {
        let names: Vec<_> = (0..9).map(|n| format!("t{n}")).collect();
        let tenants = names
            .iter()
            .map(|name| (name.as_str(), waiting(view(0, 1), 4, 1)));
        let lines = lines(&mut Told::default(), &snapshot(tenants.collect()), 0);
        assert_eq!(lines.len(), WAITS_TOLD + 1);
        assert_eq!(lines[5], "4 more tenants wait for missing sequences");
    }
}
