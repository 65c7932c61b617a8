//! The token-rotation matrix: what becomes of a token × how the bytes travel × what waits to be sent, 72 cells. One
//! worker and one platform a load, with a tenant for each of the other 24 combinations beside each other: so no tenant's
//! trouble is another's either. Whatever happens to a token, every byte arrives in order, once, and costs no retry.
//!
//! Real time, with tokens of 2 and 3 s. Where a token is renewed ahead, the platform takes it for 2 s longer than it said,
//! as platforms do for clocks that differ: so a loaded machine makes no 401, and a token that is not renewed still does.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Process, Site, Told, payload, wait_within};

/// A run has many tenants, and other work may have the machine.
const PATIENCE: Duration = Duration::from_secs(240);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// None: every token is renewed before its end.
    Ahead,
    /// Its life is over although the token said an hour.
    ExpiredAtSend,
    /// Its life ends while a body arrives.
    ExpiredMidBody,
    Revoked,
    /// The first request for another token is answered 503.
    RefreshFailsOnce,
    /// No request for another token is answered until all other tenants are through.
    RefreshDown,
}

const FAULTS: [(Fault, &str); 6] = [
    (Fault::Ahead, "refresh ahead"),
    (Fault::ExpiredAtSend, "expired at send"),
    (Fault::ExpiredMidBody, "expired mid-body"),
    (Fault::Revoked, "revoked"),
    (Fault::RefreshFailsOnce, "refresh fails once"),
    (Fault::RefreshDown, "refresh down"),
];

const TRANSPORTS: [&str; 4] = ["json", "binary", "presigned", "websocket"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    /// A chunk every so often.
    Idle,
    /// All waits before the worker starts, and the platform takes its time.
    Backlog,
    /// The same under a quota of two requests a second.
    Throttled,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Backlog => "backlog",
            Self::Throttled => "throttled",
        }
    }

    /// Sessions, and chunks of each at the start.
    fn shape(self) -> (usize, u64) {
        match self {
            Self::Idle => (1, 0),
            Self::Backlog => (2, 16),
            Self::Throttled => (2, 10),
        }
    }
}

const DIALECTS: [&str; 5] = ["inin", "x", "x-epoch", "ratelimit", "none"];

/// One combination, which is one tenant of its run.
struct Cell {
    tenant: String,
    fault: Fault,
    name: String,
    transport: &'static str,
    load: Load,
    /// Chunks enqueued, a session.
    chunks: u64,
    /// Its tokens could not be renewed, and it said so.
    was_held: bool,
}

impl Cell {
    fn new(
        number: usize,
        (fault, what): (Fault, &str),
        transport: &'static str,
        load: Load,
    ) -> Self {
        let tenant = match number {
            0 => "acme".to_owned(),
            1 => "globex".to_owned(),
            2 => "initech".to_owned(),
            later => format!("t{}", later + 1),
        };
        Self {
            tenant,
            fault,
            name: format!("{what} × {transport} × {}", load.name()),
            transport,
            load,
            chunks: 0,
            was_held: false,
        }
    }

    fn sessions(&self) -> Vec<String> {
        let (sessions, _) = self.load.shape();
        (1..=sessions).map(|number| format!("s{number}")).collect()
    }

    /// Several frames and several reads, where something has to happen in their middle.
    fn bytes(&self) -> usize {
        match self.fault {
            Fault::ExpiredMidBody => 80_000,
            _ => 3_000,
        }
    }

    fn file(&self, session: &str, sequence: u64) -> String {
        format!("{}-{session}-{sequence}.ts", self.tenant)
    }

    fn film(&self, session: &str) -> Vec<u8> {
        let files = (0..self.chunks).map(|sequence| self.file(session, sequence));
        files
            .flat_map(|file| payload(&file, self.bytes()))
            .collect()
    }

    /// Enqueues so many more of each session, in one command a session.
    fn enqueue(&mut self, site: &Site, count: u64) {
        for session in self.sessions() {
            let arguments = ["enqueue", "--tenant", &self.tenant, "--session", &session];
            let mut command = site.command(&arguments);
            command.args(["--sequence", &self.chunks.to_string()]);
            let sequences = self.chunks..self.chunks + count;
            let files: Vec<PathBuf> = sequences
                .map(|sequence| site.file(&self.file(&session, sequence), self.bytes()))
                .collect();
            Process::start(command.args(files)).wait().expect(0);
        }
        self.chunks += count;
    }

    fn owed_in_all(&self) -> u64 {
        self.chunks * self.sessions().len() as u64
    }

    /// Sets the platform up for it.
    fn prepare(&self, site: &Site, number: usize) {
        let rule = |route: &str, after: u64, times: Value, action: Value| {
            let tenant = &self.tenant;
            site.sandbox.fault(json!({"route": route, "tenant": tenant, "after": after, "times": times, "action": action}));
        };
        match self.fault {
            Fault::Ahead | Fault::RefreshFailsOnce | Fault::RefreshDown => {
                let lives = json!({"expires_in": 2, "token_life_ms": 4000});
                site.sandbox.tenant(&self.tenant, lives);
            }
            Fault::ExpiredAtSend => {
                let lives = json!({"expires_in": 3600, "token_life_ms": 3000});
                site.sandbox.tenant(&self.tenant, lives);
            }
            Fault::ExpiredMidBody | Fault::Revoked => {}
        }
        match self.fault {
            Fault::Ahead | Fault::ExpiredAtSend => {}
            Fault::ExpiredMidBody | Fault::Revoked => {
                let action = match self.fault {
                    Fault::Revoked => "revoke_token",
                    _ => "expire_mid_body",
                };
                rule("deliver", 2, json!(1), json!(action));
                rule("deliver", 5, json!(1), json!(action));
            }
            Fault::RefreshFailsOnce => rule("token", 1, json!(1), json!({"status": 503})),
            Fault::RefreshDown => rule("token", 1, json!("forever"), json!("reset_mid_body")),
        }
        match self.load {
            Load::Idle => {}
            Load::Backlog => rule("deliver", 0, json!("forever"), json!({"stall_ms": 400})),
            Load::Throttled => {
                let window = if number.is_multiple_of(2) {
                    "fixed"
                } else {
                    "sliding"
                };
                let dialect = DIALECTS[number % DIALECTS.len()];
                let quota =
                    json!({"requests": 4, "window_ms": 2000, "dialect": dialect, "window": window});
                site.sandbox.tenant(&self.tenant, json!({"quota": quota}));
            }
        }
    }

    /// Whether the platform saw what the cell is about.
    fn happened(&self, ledger: &Value) -> bool {
        let counted = |what: &str| counted(ledger, &self.tenant, what);
        let unanswered = counted("token_requests") - counted("tokens_issued");
        match self.fault {
            Fault::Ahead => counted("tokens_issued") >= 3,
            Fault::ExpiredAtSend => counted("expired_tokens") >= 1 && counted("unauthorized") >= 1,
            Fault::ExpiredMidBody => {
                counted("expired_mid_body") == 2 && counted("unauthorized") >= 2
            }
            Fault::Revoked => {
                counted("unauthorized") >= 2
                    && counted("expired_tokens") == 0
                    && counted("tokens_issued") >= 3
            }
            Fault::RefreshFailsOnce => {
                counted("token_refusals") == 1 && counted("tokens_issued") >= 2
            }
            Fault::RefreshDown => unanswered >= 2 && self.was_held,
        }
    }

    /// Everything that is claimed of it and is not so.
    fn complaints(&self, site: &Site, told: &Told, ledger: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut claim = |holds: bool, what: String| {
            if !holds {
                wrong.push(format!("{}: {what}", self.name));
            }
        };
        let counted = |what: &str| counted(ledger, &self.tenant, what);
        let all = self.owed_in_all();
        for session in self.sessions() {
            let whole = site.sandbox.sequences(&self.tenant, &session).len() as u64 == self.chunks
                && site.sandbox.film(&self.tenant, &session) == self.film(&session);
            claim(
                whole,
                format!("{session} is not byte for byte what was enqueued"),
            );
        }
        let delivered = told.chunks(&self.tenant, "delivered");
        claim(
            delivered == all,
            format!("{delivered} of {all} are delivered"),
        );
        claim(
            counted("delivered") == all,
            format!("{} of {all} arrived", counted("delivered")),
        );
        for unwanted in [
            "duplicates_suppressed",
            "order_inversions",
            "conflicts",
            "late",
            "gaps",
            "undeclared_gaps",
            "bearer_at_store",
        ] {
            claim(
                counted(unwanted) == 0,
                format!("{} {unwanted}", counted(unwanted)),
            );
        }
        let view = &told.0["tenants"][&self.tenant];
        claim(
            view["retries_used"] == 0,
            format!("{} retries used", view["retries_used"]),
        );
        claim(
            view["dead"]["chunks"] == 0,
            format!("dead letters: {}", view["dead"]),
        );
        claim(
            told.holds(&self.tenant).is_empty(),
            format!("held: {}", view["gate"]),
        );
        if matches!(
            self.fault,
            Fault::Ahead | Fault::RefreshFailsOnce | Fault::RefreshDown
        ) {
            let refused = counted("unauthorized");
            claim(
                refused == 0,
                format!("{refused} times 401 although no token was used up"),
            );
        }
        claim(
            self.happened(ledger),
            format!("it did not happen: {}", ledger["tenants"][&self.tenant]),
        );
        wrong
    }

    fn row(&self, told: &Told, ledger: &Value) -> String {
        let counts = [
            "delivered",
            "token_requests",
            "tokens_issued",
            "unauthorized",
            "expired_tokens",
            "expired_mid_body",
            "throttled",
            "sockets",
        ];
        let counts = counts.map(|what| format!("{:>6}", counted(ledger, &self.tenant, what)));
        let retries = told.0["tenants"][&self.tenant]["retries_used"].to_string();
        format!("{:44}{}{retries:>8}", self.name, counts.concat())
    }
}

fn counted(ledger: &Value, tenant: &str, what: &str) -> u64 {
    ledger["tenants"][tenant][what]
        .as_u64()
        .unwrap_or_else(|| panic!("{what} of {tenant} in {ledger}"))
}

/// Transports for each tenant, chunk by chunk, and room for all of them at once.
fn configure(site: &Site, cells: &[Cell], more: &str) {
    site.configure(|text| {
        let mut tenant = String::new();
        let mut out = String::new();
        for line in text.lines() {
            if let Some(name) = line
                .strip_prefix("[tenants.")
                .and_then(|l| l.strip_suffix(']'))
            {
                name.clone_into(&mut tenant);
            }
            match cells.iter().find(|cell| cell.tenant == tenant) {
                Some(cell) if line.starts_with("transport = ") => {
                    let _ = writeln!(out, "transport = \"{}\"", cell.transport);
                }
                _ => out = out + line + "\n",
            }
        }
        for cell in cells {
            let _ = write!(
                out,
                "\n[tenants.{}.delivery]\ngap_wait = \"1s\"\ngroup = \"off\"\n{more}",
                cell.tenant
            );
        }
        out + "\n[pool]\nworkers = 64\n"
    });
}

/// What one run is made of.
struct Run {
    load: Load,
    faults: Vec<(Fault, &'static str)>,
    transports: Vec<&'static str>,
    sabotage: &'static str,
    /// Lines for every tenant's delivery.
    more: &'static str,
    /// A rule of the fault script before all others.
    first: Option<Value>,
}

impl Run {
    fn whole(load: Load) -> Self {
        Self {
            load,
            faults: FAULTS.to_vec(),
            transports: TRANSPORTS.to_vec(),
            sabotage: "",
            more: "",
            first: None,
        }
    }

    /// A single cell with a backlog.
    fn of(fault: Fault) -> Self {
        let faults = FAULTS.into_iter().filter(|(of, _)| *of == fault);
        Self {
            faults: faults.collect(),
            transports: vec!["json"],
            ..Self::whole(Load::Backlog)
        }
    }

    /// Everything that is claimed and was not so, with the cell's name.
    fn complaints(self) -> Vec<String> {
        let combinations = self.faults.iter().flat_map(|fault| {
            let transports = self.transports.iter();
            transports.map(|transport| (*fault, *transport))
        });
        let mut cells: Vec<Cell> = combinations
            .enumerate()
            .map(|(number, (fault, transport))| Cell::new(number, fault, transport, self.load))
            .collect();
        let site = Site::granted("client_credentials", cells.len(), "1h").sabotaged(self.sabotage);
        configure(&site, &cells, self.more);
        if let Some(rule) = self.first {
            site.sandbox.fault(rule);
        }
        let (_, chunks) = self.load.shape();
        for (number, cell) in cells.iter_mut().enumerate() {
            cell.prepare(&site, number);
            if chunks > 0 {
                cell.enqueue(&site, chunks);
            }
        }
        let run = site.run();
        let mut complaints = live_through(&site, self.load, &mut cells);
        site.sandbox.no_faults();
        let all: u64 = cells.iter().map(Cell::owed_in_all).sum();
        let _ = wait_within(PATIENCE, || {
            (site.stats().balance("delivered") == all).then_some(())
        });
        let (told, ledger) = (site.stats(), site.sandbox.ledger());
        println!(
            "{:44}  dlvd  asked issued   401  expd   mid   429 sockets retries",
            "cell"
        );
        for cell in &cells {
            println!("{}", cell.row(&told, &ledger));
            complaints.extend(cell.complaints(&site, &told, &ledger));
        }
        run.terminate();
        let ended = run.wait().expect(0);
        assert!(!ended.err.contains("canary"), "a secret was logged");
        let told = site.fsck();
        assert!(told.is_balanced(), "{}", told.0);
        complaints
    }
}

/// Until every cell's fault has happened and all tenants are through but those whose tokens are not renewed.
fn live_through(site: &Site, load: Load, cells: &mut [Cell]) -> Vec<String> {
    let mut complaints = BTreeSet::new();
    let mut rounds = 0_u32;
    let mut next_round = Instant::now();
    let through = wait_within(PATIENCE, || {
        if load == Load::Idle && Instant::now() >= next_round {
            for cell in cells.iter_mut() {
                cell.enqueue(site, 1);
            }
            // Within the life of a token, and beyond it.
            rounds += 1;
            let pause = if rounds.is_multiple_of(2) { 700 } else { 2300 };
            next_round = Instant::now() + Duration::from_millis(pause);
        }
        let (told, ledger) = (site.stats(), site.sandbox.ledger());
        for cell in cells.iter_mut() {
            let holds = told.holds(&cell.tenant);
            cell.was_held |= holds
                .iter()
                .any(|(kind, why)| kind == "outage" && why.contains("token endpoint"));
            if cell.fault == Fault::Ahead && load != Load::Throttled && !holds.is_empty() {
                complaints.insert(format!("{}: held by {holds:?}", cell.name));
            }
        }
        let through = cells.iter().all(|cell| {
            let is_through = told.chunks(&cell.tenant, "delivered") == cell.owed_in_all();
            // What is not renewed keeps its tenant's chunks, and no other's.
            let stands = is_through != (cell.fault == Fault::RefreshDown);
            stands && cell.happened(&ledger)
        });
        let mut all = cells.iter();
        // Nothing more can happen; what did not is complained of.
        let is_over = load != Load::Idle
            && all.all(|cell| told.chunks(&cell.tenant, "delivered") == cell.owed_in_all());
        (is_over || through && (load != Load::Idle || rounds >= 6)).then_some(())
    });
    let mut complaints: Vec<String> = complaints.into_iter().collect();
    if through.is_none() {
        complaints.push(format!("not through within {PATIENCE:?}"));
    }
    complaints
}

#[test]
fn every_cell_holds_while_chunks_come_now_and_then() {
    assert_eq!(Run::whole(Load::Idle).complaints(), [""; 0]);
}

#[test]
fn every_cell_holds_with_a_backlog() {
    assert_eq!(Run::whole(Load::Backlog).complaints(), [""; 0]);
}

#[test]
fn every_cell_holds_while_throttled() {
    assert_eq!(Run::whole(Load::Throttled).complaints(), [""; 0]);
}

#[test]
fn the_matrix_sees_a_dropped_chunk_a_used_retry_and_a_token_renewed_too_late() {
    #[track_caller]
    fn complains(run: Run, of: &str) {
        let complaints = run.complaints();
        assert!(
            complaints.iter().any(|what| what.contains(of)),
            "{of}: {complaints:?}"
        );
    }
    let mut dropping = Run::of(Fault::Revoked);
    dropping.sabotage = "DropOnUnauthorized";
    complains(
        dropping,
        "revoked × json × backlog: s1 is not byte for byte",
    );
    let mut counting = Run::of(Fault::Revoked);
    counting.sabotage = "CountOutageAsFailure";
    counting.first = Some(json!({"after": 9, "times": 1, "action": {"status": 503}}));
    complains(counting, "revoked × json × backlog: 1 retries used");
    let mut late = Run::of(Fault::Ahead);
    late.more = "refresh_policy = \"on_401\"\n";
    complains(late, "times 401 although no token was used up");
}
