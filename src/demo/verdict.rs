//! What the demo ends with; pure. The originals say what should have arrived, the platform's ledger and its reassembled
//! sessions say what did, and the faults must have happened: a demo in which nothing went wrong shows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;

use super::cast::{Cast, Part};

const EXPIRED_MIN: u64 = 5;
const LEASED_MIN: u64 = 1;
const WAITING_MIN: u64 = 10;

/// The whole, as `worker demo --json` prints it.
#[derive(Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub took_ms: u64,
    pub tenants: BTreeMap<String, Row>,
    pub faults: Faults,
    /// Captured = delivered, byte for byte.
    pub identical: bool,
    pub recordings: Vec<Take>,
    /// Where configuration, store, logs and recordings are.
    pub kept: PathBuf,
    /// Empty if everything is as it must be.
    pub failures: Vec<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Chunks that were recorded, by the originals.
    pub captured: u64,
    /// Captured chunks that the platform has.
    pub delivered: u64,
    pub unauthorized: u64,
    pub throttled: u64,
    pub lost: u64,
    /// Stored more than once, or never captured.
    pub doubled: u64,
    /// Sent again after an answer was lost, and recognised by its key.
    pub sent_again: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Faults {
    pub expired_tokens: u64,
    /// 401s of the tenant that renews at a 401 only.
    pub unauthorized: u64,
    /// 429s of the tenant with a quota.
    pub throttled: u64,
    /// 403s of the tenant that lost its scope.
    pub forbidden: u64,
    pub scope_blocked: bool,
    pub scope_cured: bool,
    pub kill: Option<Kill>,
}

/// What stood in the store when the worker was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Kill {
    pub leased: u64,
    pub waiting: u64,
}

/// One session, captured and delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Take {
    pub tenant: String,
    pub session: String,
    pub bytes: u64,
    /// Of the originals.
    pub sha256: String,
    pub identical: bool,
    /// What arrived, as a film.
    pub path: PathBuf,
}

/// What was seen on the way and cannot be read from the ledger.
#[derive(Debug, Default)]
pub(super) struct Witness {
    pub(super) scope_blocked: bool,
    pub(super) scope_cured: bool,
    pub(super) kill: Option<Kill>,
    /// Commands that did not end as they should have.
    pub(super) failures: Vec<String>,
}

/// One session as it arrived.
pub(super) struct Arrived {
    pub(super) part: Part,
    pub(super) bytes: Vec<u8>,
    pub(super) path: PathBuf,
}

impl Arrived {
    /// Against the originals.
    pub(super) fn take(&self) -> Take {
        let original = self.part.recording.chunks.concat();
        let sum = digest(&SHA256, &original);
        Take {
            tenant: self.part.tenant.to_owned(),
            session: self.part.recording.session.to_owned(),
            bytes: original.len() as u64,
            sha256: sum.as_ref().iter().map(|b| format!("{b:02x}")).collect(),
            identical: self.bytes == original,
            path: self.path.clone(),
        }
    }
}

pub(super) fn faults(cast: &Cast, ledger: &Value, witness: &Witness) -> Faults {
    Faults {
        expired_tokens: count(&ledger["expired_tokens"]),
        unauthorized: count(&ledger["tenants"][cast.reactive]["unauthorized"]),
        throttled: count(&ledger["tenants"][cast.throttled]["throttled"]),
        forbidden: count(&ledger["tenants"][cast.unscoped]["forbidden"]),
        scope_blocked: witness.scope_blocked,
        scope_cured: witness.scope_cured,
        kill: witness.kill,
    }
}

/// A row a tenant: what was captured by the originals, what arrived by the ledger.
pub(super) fn rows(cast: &Cast, ledger: &Value) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut present: BTreeMap<&str, u64> = BTreeMap::new();
    for part in &cast.parts {
        let entry = &ledger["tenants"][part.tenant];
        let captured: BTreeSet<u64> = (0..part.recording.chunks.len() as u64).collect();
        let arrived = sequences(&entry["sessions"][part.recording.session]["sequences"]);
        let row = rows.entry(part.tenant.to_owned()).or_default();
        row.captured += captured.len() as u64;
        row.delivered += captured.intersection(&arrived).count() as u64;
        row.lost += captured.difference(&arrived).count() as u64;
        row.doubled += arrived.difference(&captured).count() as u64;
        *present.entry(part.tenant).or_default() += arrived.len() as u64;
    }
    for (tenant, row) in &mut rows {
        let entry = &ledger["tenants"][tenant.as_str()];
        row.unauthorized = count(&entry["unauthorized"]);
        row.throttled = count(&entry["throttled"]);
        row.sent_again = count(&entry["duplicates_suppressed"]);
        // Everything that was stored beyond one of each.
        let stored = count(&entry["delivered"]);
        row.doubled += stored.saturating_sub(present[tenant.as_str()]);
    }
    rows
}

/// Every reason why the demo did not show what it promises.
pub(super) fn failures(
    rows: &BTreeMap<String, Row>,
    takes: &[Take],
    faults: &Faults,
) -> Vec<String> {
    let mut found = Vec::new();
    for (tenant, row) in rows {
        if row.lost > 0 {
            found.push(format!(
                "{} of {} captured chunks of {tenant} did not arrive",
                row.lost, row.captured
            ));
        }
        if row.doubled > 0 {
            found.push(format!("{tenant} has {} chunks too many", row.doubled));
        }
    }
    for take in takes.iter().filter(|take| !take.identical) {
        found.push(format!(
            "session {} of {} arrived with other bytes than were captured",
            take.session, take.tenant
        ));
    }
    found.extend(missing(faults));
    found
}

/// The faults that did not happen.
fn missing(faults: &Faults) -> Vec<String> {
    let kill = faults.kill.unwrap_or(Kill {
        leased: 0,
        waiting: 0,
    });
    let checks = [
        (
            faults.expired_tokens >= EXPIRED_MIN,
            format!(
                "only {} of {EXPIRED_MIN} tokens expired under way",
                faults.expired_tokens
            ),
        ),
        (
            faults.unauthorized >= 1,
            "the tenant that renews at a 401 never saw one".to_owned(),
        ),
        (
            faults.throttled >= 1,
            "the tenant with a quota never saw a 429".to_owned(),
        ),
        (
            faults.scope_blocked && faults.forbidden >= 1,
            "the tenant that lost its scope was not blocked".to_owned(),
        ),
        (
            faults.scope_cured,
            "the tenant that got its scope back did not go on".to_owned(),
        ),
        (
            kill.leased >= LEASED_MIN && kill.waiting >= WAITING_MIN,
            format!(
                "the worker was to be killed with at least {LEASED_MIN} chunk on the wire and {WAITING_MIN} waiting, not {} and {}",
                kill.leased, kill.waiting
            ),
        ),
    ];
    let failed = checks.into_iter().filter(|(happened, _)| !happened);
    failed.map(|(_, what)| what).collect()
}

pub(super) fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn sequences(value: &Value) -> BTreeSet<u64> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults() -> Faults {
        Faults {
            expired_tokens: 5,
            unauthorized: 1,
            throttled: 1,
            forbidden: 1,
            scope_blocked: true,
            scope_cured: true,
            kill: Some(Kill {
                leased: 1,
                waiting: 10,
            }),
        }
    }

    /// A ledger in which everything arrived.
    fn ledger(cast: &Cast) -> Value {
        let mut tenants = json!({});
        for part in &cast.parts {
            let all: Vec<usize> = (0..part.recording.chunks.len()).collect();
            let entry = &mut tenants[part.tenant];
            let delivered = count(&entry["delivered"]) + all.len() as u64;
            entry["delivered"] = json!(delivered);
            entry["sessions"][part.recording.session] = json!({"sequences": all});
        }
        json!({"tenants": tenants, "expired_tokens": 7})
    }

    fn arrived(part: Part) -> Arrived {
        Arrived {
            part,
            bytes: part.recording.chunks.concat(),
            path: PathBuf::from("film.ts"),
        }
    }

    #[test]
    fn what_arrived_whole_and_met_every_fault_is_green() {
        let cast = Cast::new(0);
        let takes: Vec<_> = cast.parts.iter().map(|p| arrived(*p).take()).collect();
        let rows = rows(&cast, &ledger(&cast));
        assert_eq!(failures(&rows, &takes, &faults()), Vec::<String>::new());
        assert!(
            rows.values()
                .all(|row| (row.captured, row.delivered) == (24, 24))
        );
    }

    #[test]
    fn a_chunk_that_is_missing_doubled_or_altered_turns_it_red() {
        let cast = Cast::new(0);
        let part = cast.parts[0];
        let session = part.recording.session;
        let row = |ledger: &Value| rows(&cast, ledger)[part.tenant];

        let mut lacking = ledger(&cast);
        let entry = &mut lacking["tenants"][part.tenant];
        entry["delivered"] = json!(23);
        entry["sessions"][session]["sequences"]
            .as_array_mut()
            .unwrap()
            .remove(3);
        assert_eq!((row(&lacking).lost, row(&lacking).doubled), (1, 0));

        let mut twice = ledger(&cast);
        twice["tenants"][part.tenant]["delivered"] = json!(25);
        assert_eq!((row(&twice).lost, row(&twice).doubled), (0, 1));

        let mut foreign = ledger(&cast);
        let entry = &mut foreign["tenants"][part.tenant];
        entry["delivered"] = json!(25);
        entry["sessions"][session]["sequences"]
            .as_array_mut()
            .unwrap()
            .push(json!(12));
        assert_eq!((row(&foreign).lost, row(&foreign).doubled), (0, 1));

        for wrong in [&lacking, &twice, &foreign] {
            assert_eq!(failures(&rows(&cast, wrong), &[], &faults()).len(), 1);
        }
        let mut altered = arrived(part);
        altered.bytes[1000] ^= 1;
        assert_eq!(
            failures(&BTreeMap::new(), &[altered.take()], &faults()).len(),
            1
        );
    }

    #[test]
    fn each_fault_that_did_not_happen_turns_it_red_and_is_named() {
        let kill = |leased, waiting| Some(Kill { leased, waiting });
        let with = |change: &dyn Fn(&mut Faults)| {
            let mut faults = faults();
            change(&mut faults);
            faults
        };
        let cases = [
            (with(&|f| f.expired_tokens = 4), "expired"),
            (with(&|f| f.unauthorized = 0), "401"),
            (with(&|f| f.throttled = 0), "429"),
            (with(&|f| f.forbidden = 0), "scope was not blocked"),
            (with(&|f| f.scope_blocked = false), "scope was not blocked"),
            (with(&|f| f.scope_cured = false), "did not go on"),
            (with(&|f| f.kill = None), "killed"),
            (with(&|f| f.kill = kill(0, 10)), "killed"),
            (with(&|f| f.kill = kill(1, 9)), "killed"),
        ];
        for (faults, word) in cases {
            let found = failures(&BTreeMap::new(), &[], &faults);
            assert!(
                matches!(found.as_slice(), [one] if one.contains(word)),
                "{word}: {found:?}"
            );
        }
    }

    #[test]
    fn faults_are_counted_where_they_were_made() {
        let cast = Cast::new(0);
        let mut ledger = ledger(&cast);
        ledger["tenants"][cast.reactive]["unauthorized"] = json!(3);
        ledger["tenants"][cast.throttled]["throttled"] = json!(2);
        ledger["tenants"][cast.unscoped]["forbidden"] = json!(1);
        let counted = super::faults(&cast, &ledger, &Witness::default());
        assert_eq!(
            (
                counted.expired_tokens,
                counted.unauthorized,
                counted.throttled,
                counted.forbidden
            ),
            (7, 3, 2, 1)
        );
    }
}
