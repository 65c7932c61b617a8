//! SIGKILL at any moment: of whoever takes chunks in and of whoever delivers them, half at random moments, half at
//! points where a debug build stops and says so. Nothing accepted is missing afterwards, nothing is stored twice,
//! and nobody had to repair anything.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use crate::support::{Ended, Process, Site, complaint, number, payload, seed};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const SESSIONS: [&str; 2] = ["morning", "noon"];
/// Where a round of the second half kills, in turn.
const POINTS: [Point; 5] = [
    Point::Intake("writing"),
    Point::Intake("between_sync_and_yes"),
    Point::Wire,
    Point::Ack,
    Point::Intake("between_frames_and_words"),
];
/// Five crashes set a chunk apart; before that a drain is left in peace.
const KILLS_IN_A_ROW: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The debug build stops there while it takes a chunk in.
    Intake(&'static str),
    /// The platform has the whole request and has not answered.
    Wire,
    /// The platform's answer is there and not yet written down.
    Ack,
}

impl Point {
    /// The four regions that must all be hit.
    fn region(self) -> &'static str {
        match self {
            Self::Intake("between_sync_and_yes") => "between sync and yes",
            Self::Intake(_) => "writing",
            Self::Wire => "on the wire",
            Self::Ack => "between the reply and the ack",
        }
    }
}

/// One recording, as its capture knows it.
struct Film {
    tenant: &'static str,
    session: &'static str,
    /// The chunks below were answered with yes.
    answered: u64,
    /// The chunks below were offered, perhaps without an answer.
    offered: u64,
}

impl Film {
    fn name(&self, sequence: u64) -> String {
        format!("{}-{}-{sequence}.ts", self.tenant, self.session)
    }

    /// Of its own bytes; one in nine is too large to stand among the frames of a small segment.
    fn chunk(&self, sequence: u64) -> Vec<u8> {
        let name = self.name(sequence);
        let draw = crc32fast::hash(name.as_bytes()) as usize;
        let bytes = if draw.is_multiple_of(9) {
            220_000
        } else {
            1 + draw % 40_000
        };
        payload(&name, bytes)
    }
}

struct Campaign {
    site: Site,
    random: Rng,
    films: Vec<Film>,
    histogram: BTreeMap<String, u64>,
    kills_in_a_row: u32,
    sabotage: &'static str,
}

impl Campaign {
    fn new(seed: u64, sabotage: &'static str) -> Self {
        let quick = |tenant| format!("[tenants.{tenant}.delivery]\ngap_wait = \"1s\"\n");
        let films = TENANTS.into_iter().flat_map(|tenant| {
            SESSIONS.map(|session| Film {
                tenant,
                session,
                answered: 0,
                offered: 0,
            })
        });
        Self {
            site: Site::with("2s", &TENANTS.map(quick).concat()),
            random: Rng::with_seed(seed),
            films: films.collect(),
            histogram: BTreeMap::new(),
            kills_in_a_row: 0,
            sabotage,
        }
    }

    fn count(&mut self, what: &str) {
        *self.histogram.entry(what.to_owned()).or_default() += 1;
    }

    fn command(&self, arguments: &[&str], stop_at: &str) -> std::process::Command {
        let mut command = self.site.command(arguments);
        command
            .env("REELAY_STOP_AT", stop_at)
            .env("REELAY_SABOTAGE", self.sabotage);
        command
    }

    /// Offers a film's next few chunks, beginning with those that were offered before without an answer.
    fn offer(&mut self, which: usize, stop_at: &str) -> Process {
        let count = self.random.u64(2..6);
        let film = &mut self.films[which];
        let first = film.answered;
        let end = film.offered.max(first + count);
        film.offered = end;
        let film = &self.films[which];
        let files = (first..end).map(|sequence| {
            let path = self.site.path().join(film.name(sequence));
            if !path.exists() {
                fs::write(&path, film.chunk(sequence)).unwrap();
            }
            path
        });
        let files: Vec<PathBuf> = files.collect();
        let sequence = first.to_string();
        let mut command = self.command(&["enqueue", "--json", "--sequence", &sequence], stop_at);
        command
            .args(["--tenant", film.tenant, "--session", film.session])
            .args(files);
        Process::start(&mut command)
    }

    /// A printed line is a yes, however the process ended.
    fn heard(&mut self, film: usize, ended: &Ended) {
        let film = &mut self.films[film];
        for line in ended.json_lines() {
            if line.get("error").is_some() {
                continue;
            }
            assert_eq!(line["sequence"], film.answered, "{line}");
            film.answered += 1;
        }
    }

    fn any_film(&mut self) -> usize {
        self.random.usize(..self.films.len())
    }

    /// Something to deliver in every tenant, more than one request of it.
    fn fill(&mut self) {
        let second = self.random.usize(..SESSIONS.len());
        for tenant in 0..TENANTS.len() {
            self.take_in(tenant * SESSIONS.len() + second);
        }
    }

    fn take_in(&mut self, film: usize) {
        let ended = self.offer(film, "").wait().expect(0);
        self.heard(film, &ended);
    }

    fn drain_in_peace(&mut self) {
        let drained = self.command(&["drain", "--json"], "");
        Process::start(&mut { drained }).wait().expect(0);
        self.kills_in_a_row = 0;
    }

    fn at_point(&mut self, point: Point) {
        match point {
            Point::Intake(name) if self.random.bool() => self.kill_an_enqueue_at(name),
            Point::Intake(name) => self.kill_a_holder_at(name),
            Point::Wire => self.kill_on_the_wire(),
            Point::Ack => self.kill_before_the_ack(),
        }
        self.count(point.region());
    }

    fn kill_an_enqueue_at(&mut self, name: &str) {
        let film = self.any_film();
        let mut process = self.offer(film, name);
        process.wait_until_told(&format!("stopped at {name}"));
        let ended = process.kill();
        self.heard(film, &ended);
    }

    /// The enqueue goes through the socket of a `worker run`, which dies of it.
    fn kill_a_holder_at(&mut self, name: &str) {
        let mut run = self.site.run_with(&mut self.command(&["run"], name));
        let film = self.any_film();
        let enqueue = self.offer(film, "");
        run.wait_until_told(&format!("stopped at {name}"));
        run.kill();
        let ended = enqueue.wait();
        self.heard(film, &ended);
    }

    fn kill_on_the_wire(&mut self) {
        self.fill();
        let after = self.random.u64(..3);
        self.site
            .sandbox
            .fault(json!({"after": after, "times": "forever", "action": "hold"}));
        let drain = Process::start(&mut self.command(&["drain"], ""));
        self.site.sandbox.wait_held(1);
        drain.kill();
        self.site.sandbox.no_faults();
        // What was whole on the wire is stored after all.
        self.site.sandbox.release();
        self.kills_in_a_row += 1;
    }

    fn kill_before_the_ack(&mut self) {
        self.fill();
        let mut drain = Process::start(&mut self.command(&["drain"], "between_reply_and_ack"));
        drain.wait_until_told("stopped at between_reply_and_ack");
        drain.kill();
        self.kills_in_a_row += 1;
    }

    fn at_random(&mut self) {
        let film = self.any_film();
        match self.random.u8(..3) {
            0 => {
                let process = self.offer(film, "");
                self.let_live(60);
                let ended = process.kill();
                self.note_random("enqueue", &ended);
                self.heard(film, &ended);
            }
            1 => {
                self.fill();
                let drain = self.slow_drain();
                self.let_live(300);
                let ended = drain.kill();
                self.site.sandbox.no_faults();
                self.note_random("drain", &ended);
                self.kills_in_a_row += 1;
            }
            _ => {
                let run = self.site.run_with(&mut self.command(&["run"], ""));
                let enqueue = self.offer(film, "");
                self.let_live(80);
                let ended = run.kill();
                self.note_random("run", &ended);
                let ended = enqueue.wait();
                self.heard(film, &ended);
                self.kills_in_a_row += 1;
            }
        }
    }

    fn slow_drain(&self) -> Process {
        let stall = json!({"stall_ms": 15});
        self.site
            .sandbox
            .fault(json!({"times": "forever", "action": stall}));
        Process::start(&mut self.command(&["drain"], ""))
    }

    /// The moment of the fault itself: nothing is waited for.
    fn let_live(&mut self, at_most_ms: u64) {
        std::thread::sleep(Duration::from_micros(self.random.u64(..at_most_ms * 1000)));
    }

    fn note_random(&mut self, what: &str, ended: &Ended) {
        let state = if ended.code.is_none() {
            "killed"
        } else {
            "had ended"
        };
        self.count(&format!("random: {what} {state}"));
    }

    fn run(&mut self, rounds: u64) {
        for round in 0..rounds {
            if round % 2 == 0 {
                self.at_point(POINTS[(round / 2) as usize % POINTS.len()]);
            } else {
                self.at_random();
            }
            if self.kills_in_a_row >= KILLS_IN_A_ROW {
                self.drain_in_peace();
            }
        }
        println!("{:#?}", self.histogram);
    }

    /// What was never answered is offered again, the rest is delivered, and all of it compared.
    fn account(&mut self) {
        for film in 0..self.films.len() {
            if self.films[film].answered < self.films[film].offered {
                self.take_in(film);
            }
        }
        self.drain_in_peace();
        for film in &self.films {
            if film.offered == 0 {
                continue;
            }
            let whole: Vec<u8> = (0..film.answered).flat_map(|n| film.chunk(n)).collect();
            let there = self.site.sandbox.film(film.tenant, film.session);
            assert!(there == whole, "{} {}", film.tenant, film.session);
        }
        let chunks = self.films.iter().map(|film| film.answered).sum();
        self.site.assert_all_delivered(chunks);
        assert_eq!(self.site.sandbox.counted("late"), 0);
    }
}

#[test]
fn nothing_accepted_is_lost_or_stored_twice_however_the_worker_is_killed() {
    let rounds = number("REELAY_KILLS", 50);
    let mut campaign = Campaign::new(seed(), "");
    campaign.run(rounds);
    campaign.account();
    for point in POINTS {
        let hits = campaign.histogram.get(point.region()).copied();
        let hits = hits.unwrap_or_default();
        // Rounded down: half of the rounds are at points, taken in turn.
        assert!(hits >= rounds / 10, "{hits} of {rounds} {}", point.region());
    }
}

#[test]
fn the_account_sees_a_worker_that_says_yes_before_it_writes() {
    // Whether the early answer gets out before the kill is the scheduler's choice: a few campaigns, not one.
    let noticed = |seed| {
        let complaint = complaint(|| {
            let mut campaign = Campaign::new(seed, "AnswerBeforeWrite");
            campaign.run(10);
            campaign.account();
        });
        // A chunk that is not there, and not a machine that was too slow.
        complaint.is_some_and(|complaint| {
            println!("seed {seed}: {complaint}");
            !complaint.starts_with("waited ") && !complaint.starts_with("still running")
        })
    };
    assert!((7..15).any(noticed));
}

/// Delivers a session, kills the worker once it says so, delivers again; what the platform got twice.
fn sent_again(sabotage: &str) -> u64 {
    let site = Site::new();
    for sequence in 0..5 {
        site.enqueue("acme", "s1", sequence);
    }
    let mut command = site.command(&["run"]);
    let run = site.run_with(command.env("REELAY_SABOTAGE", sabotage));
    site.wait_stats("five deliveries", |told| told.balance("delivered") == 5);
    run.kill();
    site.worker(&["drain"]).expect(0);
    site.assert_all_delivered(5);
    site.sandbox.counted("duplicates_suppressed")
}

#[test]
fn what_was_acked_before_a_kill_is_not_sent_again() {
    assert_eq!(sent_again(""), 0);
    assert_ne!(sent_again("ForgetWord"), 0, "went unnoticed");
}
