//! What a store owes to those it answered: every chunk's possible states, from what a driver said before the fault,
//! compared with what the store says after it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Absent,
    Live,
    Delivered,
    Dead,
    Purged,
}

/// What the fault may take back although it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Kill,
    /// An ack that no sync covered yet: its chunk is sent again.
    PowerCut,
}

type Name = (String, u64);
type Check = Result<(), String>;

#[derive(Clone)]
pub struct Account {
    fault: Fault,
    chunks: BTreeMap<Name, BTreeSet<State>>,
    report: Report,
    /// Reports that were compared.
    pub reports: u64,
}

/// What a store says of itself.
#[derive(Clone, Default)]
struct Report {
    accepted: BTreeSet<Name>,
    owed: BTreeSet<Name>,
    dead: BTreeSet<Name>,
    damaged: Vec<String>,
    balance: Value,
}

impl Account {
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            chunks: BTreeMap::new(),
            report: Report::default(),
            reports: 0,
        }
    }

    /// The facts in what a driver said; a line that a kill cut is none.
    pub fn facts(out: &str) -> Vec<&str> {
        let whole = out
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        // The test harness ends no line of its own before the first of ours.
        whole
            .filter_map(|line| Some(line.split_once("~ ")?.1.trim_end()))
            .collect()
    }

    /// Chunks that were answered with yes and not since taken back.
    pub fn promised(&self) -> usize {
        let sure = |states: &&BTreeSet<State>| !states.contains(&State::Absent);
        self.chunks.values().filter(sure).count()
    }

    /// Hears everything that a driver said.
    pub fn hear(&mut self, out: &str) -> Check {
        Self::facts(out)
            .into_iter()
            .try_for_each(|fact| self.fact(fact))
    }

    pub fn fact(&mut self, fact: &str) -> Check {
        let words: Vec<&str> = fact.split(' ').collect();
        if words[0] == "=" {
            return self.reported(&words[1..], fact);
        }
        let Some(name) = name_of(&words) else {
            return Ok(());
        };
        if matches!(words[0], "wrong" | "twice") {
            return Err(format!("{fact}: delivered wrong or accepted twice"));
        }
        let fault = self.fault;
        self.try_fact(&words);
        let states = self.chunks.entry(name).or_default();
        let only = match words[0] {
            "yes" => {
                states.remove(&State::Absent);
                None
            }
            "acked" if fault == Fault::Kill => Some(State::Delivered),
            "buried" => Some(State::Dead),
            "redriven" => Some(State::Live),
            "purged" => Some(State::Purged),
            _ => None,
        };
        if let Some(only) = only {
            *states = BTreeSet::from([only]);
        }
        Ok(())
    }

    /// The same for what may have happened: only what was tried counts.
    pub fn perhaps(&mut self, fact: &str) {
        let words: Vec<&str> = fact.split(' ').collect();
        self.try_fact(&words);
    }

    fn try_fact(&mut self, words: &[&str]) {
        let Some(name) = name_of(words) else { return };
        let known = self.chunks.contains_key(&name);
        let possible = match words[0] {
            "offer" if !known => &[State::Absent, State::Live][..],
            "ack?" => &[State::Delivered],
            "bury?" => &[State::Dead],
            "redrive?" => &[State::Live],
            "purge?" => &[State::Purged],
            _ => return,
        };
        self.chunks.entry(name).or_default().extend(possible);
    }

    fn reported(&mut self, words: &[&str], fact: &str) -> Check {
        let report = &mut self.report;
        let set = match words[0] {
            "accepted" => &mut report.accepted,
            "owed" => &mut report.owed,
            "dead" => &mut report.dead,
            "damaged" => {
                report.damaged.push(fact.to_owned());
                return Ok(());
            }
            "balance" => {
                report.balance = serde_json::from_str(words[1]).expect("a balance is JSON");
                return Ok(());
            }
            _ => {
                let report = std::mem::take(report);
                return self.compare(&report);
            }
        };
        let low: u64 = words[2].parse().expect("a sequence");
        let high: u64 = words[3].parse().expect("a sequence");
        set.extend((low..=high).map(|sequence| (words[1].to_owned(), sequence)));
        Ok(())
    }

    fn compare(&mut self, report: &Report) -> Check {
        self.reports += 1;
        if let Some(damage) = report.damaged.first() {
            return Err(format!("damaged: {damage}"));
        }
        let strange = report
            .accepted
            .iter()
            .find(|name| !self.chunks.contains_key(*name));
        if let Some(name) = strange {
            return Err(format!("{name:?} was never offered"));
        }
        for (name, states) in &mut self.chunks {
            let found: &[State] = match () {
                () if !report.accepted.contains(name) => &[State::Absent],
                () if report.dead.contains(name) => &[State::Dead],
                () if report.owed.contains(name) => &[State::Live],
                () => &[State::Delivered, State::Purged],
            };
            let fits: BTreeSet<State> = states
                .iter()
                .copied()
                .filter(|state| found.contains(state))
                .collect();
            if fits.is_empty() {
                return Err(format!(
                    "{name:?} is {found:?} and must be one of {states:?}"
                ));
            }
            *states = fits;
        }
        // What was offered and did not arrive may be offered again.
        self.chunks
            .retain(|_, states| !states.contains(&State::Absent));
        balance(report)
    }
}

fn name_of(words: &[&str]) -> Option<Name> {
    let sequence = words.get(2)?.parse().ok()?;
    Some((words[1].to_owned(), sequence))
}

fn balance(report: &Report) -> Check {
    let told = |what: &str| report.balance[what].as_u64();
    let settled = report.accepted.len() - report.owed.len() - report.dead.len();
    let sums = told("enqueued") == Some(report.accepted.len() as u64)
        && told("backlog") == Some(report.owed.len() as u64)
        && told("dead") == Some(report.dead.len() as u64)
        && told("delivered").zip(told("purged")).map(|(d, p)| d + p) == Some(settled as u64);
    if sums && report.balance["balanced"] == true {
        return Ok(());
    }
    let counts = (report.accepted.len(), report.owed.len(), report.dead.len());
    Err(format!(
        "{counts:?} chunks and a balance of {}",
        report.balance
    ))
}
