//! What the trouble of some tenants costs the others, over real sockets: the real `worker run` with 200 tenants of five
//! sessions, a chunk of each every two seconds, and a platform in this process that takes 5 ms for an answer.
//!
//! Pairs of runs: in one, one session in a hundred is poison (each of its chunks is answered 422) and one tenant in twenty
//! is blocked (403); in the other, those send nothing at all, so that whatever they cost is seen. Measured is each healthy
//! chunk from the moment at which it was due to be enqueued to the platform's receipt, so that a slow enqueue counts too;
//! what never arrived counts as long as it was waited for. The first two rounds are left out.
//!
//! Wanted: the healthy chunks' p99 with trouble at most 1.5 times that without, median of 5 pairs. The control, in the same
//! run: the same pair with a platform that never answers the blocked tenants, which keeps the pool's workers. It must be
//! far above, else nothing here could have been seen.
//!
//! `cargo bench --bench trouble`; `REELAY_BENCH_DIR` names the directory, else a temporary one; `REELAY_BENCH_PAIRS` the
//! pairs (5), `REELAY_BENCH_ROUNDS` the rounds measured of each run (5).

mod platform;
#[path = "../drain/process.rs"]
mod process;
mod producers;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use platform::{Platform, Trouble};
use process::{Running, cpu_seconds, peak_mib};

const TENANTS: usize = 200;
const SESSIONS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Rounds left out at the start: connections open, files are made.
const WARMING: usize = 2;
/// What the last chunks get to arrive.
const LATE: Duration = Duration::from_secs(5);
/// The worker says that it listens long before.
const STARTING: Duration = Duration::from_secs(30);

/// A chunk of the schedule: round after round, session after session, tenant after tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Chunk {
    tenant: usize,
    session: usize,
    sequence: usize,
}

impl Chunk {
    fn nth(n: usize) -> Self {
        Self {
            tenant: n % TENANTS,
            session: n / TENANTS % SESSIONS,
            sequence: n / TENANTS / SESSIONS,
        }
    }

    /// One tenant in twenty.
    fn is_blocked(self) -> bool {
        self.tenant % 20 == 7
    }

    /// One session in a hundred, in tenants of their own.
    fn is_poison(self) -> bool {
        self.tenant % 20 == 3 && self.session == 2
    }

    /// Of a lane without any trouble.
    fn is_healthy(self) -> bool {
        !self.is_blocked() && self.tenant % 20 != 3
    }
}

fn main() {
    // `cargo test --benches` passes --test: compiling is all that it asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let pairs = number("REELAY_BENCH_PAIRS").unwrap_or(5);
    let rounds = WARMING + number("REELAY_BENCH_ROUNDS").unwrap_or(5);
    println!(
        "{TENANTS} tenants, {SESSIONS} sessions each, {} chunks a second, {pairs} pairs",
        TENANTS * SESSIONS / ROUND.as_secs() as usize
    );
    println!(
        "{:>22} {:>17} {:>17} {:>7} {:>8} {:>5} {:>5} {:>9} {:>6}",
        "",
        "clean p50/p99 ms",
        "trouble p50/p99",
        "ratio",
        "missing",
        "403s",
        "422s",
        "peak RSS",
        "CPU s"
    );
    let mut ratios: Vec<f64> = (0..pairs)
        .map(|_| pair("poison and blocked", Trouble::Refused, rounds))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let (least, greatest) = (ratios[0], ratios[ratios.len() - 1]);
    let median = ratios[ratios.len() / 2];
    println!("median {median:.2} ({least:.2}–{greatest:.2}), wanted: at most 1.5");
    pair("control: never answers", Trouble::Silent, rounds);
}

/// The ratio of the p99s.
fn pair(name: &str, trouble: Trouble, rounds: usize) -> f64 {
    let clean = run(Trouble::None, rounds);
    let troubled = run(trouble, rounds);
    let ratio = troubled.p99 / clean.p99;
    assert_eq!(clean.missing, 0, "healthy chunks alone do not arrive");
    println!(
        "{name:>22} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {ratio:>7.2} {:>8} {:>5} {:>5} {:>6.0}MiB {:>6.1}",
        clean.p50,
        clean.p99,
        troubled.p50,
        troubled.p99,
        troubled.missing,
        troubled.blocked,
        troubled.poisoned,
        troubled.peak_mib,
        troubled.cpu,
    );
    ratio
}

/// What one run came to; spans in milliseconds.
struct Run {
    p50: f64,
    p99: f64,
    /// Healthy chunks that never arrived.
    missing: usize,
    blocked: usize,
    poisoned: usize,
    peak_mib: f64,
    /// Seconds of processor time of the worker.
    cpu: f64,
}

fn run(trouble: Trouble, rounds: usize) -> Run {
    let base = std::env::var_os("REELAY_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base).expect("a directory to write in");
    let platform = Platform::start(trouble);
    configure(dir.path(), platform.port);
    let worker = start(dir.path());
    let socket = dir.path().join("store/control.sock");
    let wanted =
        move |chunk: Chunk| trouble != Trouble::None || !(chunk.is_blocked() || chunk.is_poison());
    let began = Instant::now() + Duration::from_millis(100);
    producers::produce(&socket, began, rounds, wanted);
    let measured = TENANTS * SESSIONS * WARMING..TENANTS * SESSIONS * rounds;
    let measured: Vec<usize> = measured.filter(|n| Chunk::nth(*n).is_healthy()).collect();
    let until = Instant::now() + LATE;
    let arrived = platform.wait_for(&measured, until);
    let ended = Instant::now();
    let mut missing = 0;
    let mut waits: Vec<f64> = measured
        .iter()
        .map(|n| {
            let at = arrived.get(&Chunk::nth(*n)).copied();
            missing += usize::from(at.is_none());
            let wait = at
                .unwrap_or(ended)
                .saturating_duration_since(producers::due(began, *n));
            wait.as_secs_f64() * 1000.0
        })
        .collect();
    waits.sort_by(f64::total_cmp);
    let (blocked, poisoned) = platform.refused();
    if trouble == Trouble::Refused {
        assert!(blocked >= 10 && poisoned >= 10, "the trouble did not come");
    }
    Run {
        p50: waits[waits.len() / 2],
        p99: waits[waits.len() * 99 / 100],
        missing,
        blocked,
        poisoned,
        peak_mib: peak_mib(worker.0.id()).unwrap_or(0.0),
        cpu: cpu_seconds(worker.0.id()),
    }
}

fn configure(dir: &Path, port: u16) {
    let mut text = "[store]\npath = \"store\"\n[host]\nname = \"bench\"\n".to_owned();
    for tenant in 0..TENANTS {
        text.push_str(&format!(
            "[tenants.t{tenant}]\napi_url = \"http://127.0.0.1:{port}\"\ntransport = \"binary\"\n\
             [tenants.t{tenant}.auth]\ngrant = \"static\"\ntoken_file = \"t{tenant}.token\"\n"
        ));
        let file = dir.join(format!("t{tenant}.token"));
        let mut options = fs::File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(file);
        file.and_then(|mut file| write!(file, "t{tenant}"))
            .expect("a token");
    }
    fs::write(dir.join("worker.toml"), text).expect("a configuration");
}

/// Returns once its socket answers.
fn start(dir: &Path) -> Running {
    let mut worker = Command::new(env!("CARGO_BIN_EXE_worker"));
    let log = fs::File::create(dir.join("worker.log")).expect("a log");
    worker
        .arg("--config")
        .arg(dir.join("worker.toml"))
        .arg("run");
    let worker = worker
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let worker = Running(worker.spawn().expect("it starts"));
    let until = Instant::now() + STARTING;
    let socket = dir.join("store/control.sock");
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        let log = BufReader::new(fs::File::open(dir.join("worker.log")).expect("a log"));
        let said: Vec<String> = log.lines().map_while(Result::ok).collect();
        assert!(
            Instant::now() < until,
            "the worker does not start: {said:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    worker
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}
