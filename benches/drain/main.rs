//! Draining beside its physical limit, in one run: the real `worker drain` against a null server, and a bare reqwest loop
//! that posts the same bodies to it, already encoded in memory. Each of the three is a process of its own.
//!
//! The null server reads and discards every body and gives one fixed answer, which `receipt = "status"` lets count.
//! It takes the time, from the first byte of the first request to the end of the last answer; what a process does before
//! and after is left out. Requests hold one chunk (`group = "off"`), 16 are under way; the store was just
//! written, so that its payloads come from the page cache.
//!
//! Wanted: at least 0.80 of the limit at 256 KiB and 1 MiB, for json and binary; a peak RSS under 64 MiB with 16 chunks of
//! 8 MiB under way at once (the server reads on only when it has 16) and with one chunk of 1 GiB; with the chunks of
//! 12,000 sessions of six tenants no more than that either.
//!
//! `cargo bench --bench drain`; `REELAY_BENCH_DIR` names the directory, else a temporary one; `REELAY_BENCH_PAIRS` the pairs
//! (9); `REELAY_BENCH_MIB` what is drained each time (512; the limit needs 4/3 of it in memory); `REELAY_BENCH_KIB`
//! one size of chunk; `REELAY_BENCH_TRANSPORT` one of `json`, `binary`; `REELAY_BENCH_ONLY` one of `rate`, `memory`, `sessions`.

mod limit;
mod load;
mod process;
mod server;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use reelay::clock::SystemClock;
use reelay::sabotage::Sabotaged;
use reelay::store::{Settings, Store};

use load::{HOST, IN_FLIGHT, Load, Pattern, Transport, tenant_of};
use process::{Running, cpu_seconds, peak_mib};

/// How often a process under measurement is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What the server says may come behind the end of its client.
const LATE: Duration = Duration::from_secs(10);

fn main() {
    // `cargo test --benches` passes --test: compiling is all that it asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    if let Ok(phase) = std::env::var("REELAY_BENCH_PHASE") {
        let numbers = std::env::var("REELAY_BENCH_NUMBERS").unwrap_or_default();
        let numbers: Vec<usize> = numbers.split(',').filter_map(|n| n.parse().ok()).collect();
        match (phase.as_str(), numbers.as_slice()) {
            ("server", [chunks, gather]) => server::serve(*chunks, *gather),
            ("bare", [port, json, chunk, chunks]) => {
                limit::bare(*port, *json == 1, *chunk, *chunks)
            }
            _ => unreachable!("{phase} is a phase of ours"),
        }
        return;
    }
    let transport = std::env::var("REELAY_BENCH_TRANSPORT").ok();
    let transports = [Transport::Json, Transport::Binary].into_iter();
    let transports: Vec<Transport> = transports
        .filter(|t| transport.as_deref().is_none_or(|only| only == t.word()))
        .collect();
    let only = std::env::var("REELAY_BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let total = number("REELAY_BENCH_MIB").unwrap_or(512) << 20;
    if wanted("rate") {
        measure_rates(&transports, total);
    }
    if wanted("memory") {
        measure_memory(&transports, total);
    }
    if wanted("sessions") {
        measure_sessions(&transports);
    }
}

fn measure_rates(transports: &[Transport], total: usize) {
    let pairs = number("REELAY_BENCH_PAIRS").unwrap_or(9);
    let only = number("REELAY_BENCH_KIB");
    println!("drain of {} MiB, {pairs} pairs", total >> 20);
    println!(
        "{:>9} {:>9} {:>12} {:>12} {:>7} {:>11} {:>11} {:>9} {:>9}  ratios",
        "transport",
        "chunk",
        "limit MB/s",
        "reelay MB/s",
        "ratio",
        "CPU s/GB",
        "limit's",
        "in flight",
        "peak RSS"
    );
    for transport in transports {
        for kib in [256, 1024] {
            if only.is_some_and(|only| only != kib) {
                continue;
            }
            let load = Load::of(*transport, kib << 10, total / (kib << 10));
            measure_rate(load, pairs);
        }
    }
}

fn measure_rate(load: Load, pairs: usize) {
    let (mut limits, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut limit_cpu, mut our_cpu, mut peak) = (Vec::new(), Vec::new(), 0.0_f64);
    let mut in_flight = usize::MAX;
    for _ in 0..pairs {
        let place = Place::filled(load);
        let limit = place.bare();
        let our = place.drain();
        assert_eq!(our.bytes, limit.bytes, "both send the same bodies");
        limits.push(limit.rate);
        limit_cpu.push(limit.cpu);
        ours.push(our.rate);
        our_cpu.push(our.cpu);
        ratios.push(our.rate / limit.rate);
        peak = peak.max(our.peak_mib);
        in_flight = in_flight.min(our.in_flight);
    }
    let (limit, our, ratio) = (median(&mut limits), median(&mut ours), median(&mut ratios));
    let spread = format!("{:.2}–{:.2}", ratios[0], ratios[ratios.len() - 1]);
    println!(
        "{:>9} {:>6}KiB {limit:>12.0} {our:>12.0} {ratio:>7.2} {:>11.2} {:>11.2} {in_flight:>9} {peak:>6.0}MiB  {spread}",
        load.transport.word(),
        load.chunk >> 10,
        median(&mut our_cpu),
        median(&mut limit_cpu),
    );
}

fn measure_memory(transports: &[Transport], total: usize) {
    println!("\npeak RSS of a draining worker");
    for transport in transports {
        for (mib, gather) in [(8, IN_FLIGHT), (1024, 1)] {
            let chunks = if gather == 1 { 1 } else { (total >> 20) / mib };
            let load = Load {
                gather,
                ..Load::of(*transport, mib << 20, chunks)
            };
            let run = Place::filled(load).drain();
            println!(
                "{:>9} {:>4} of {mib:>4} MiB, {:>2} at once: {:>4.0} MiB ({:.0} MB/s, {:.2} CPU s/GB)",
                transport.word(),
                load.chunks,
                run.in_flight,
                run.peak_mib,
                run.rate,
                run.cpu
            );
        }
    }
}

/// The recordings of six organisations with 2,000 sessions each, beside as many chunks of 64 sessions.
fn measure_sessions(transports: &[Transport]) {
    const CHUNKS: usize = 60_000;
    println!("\npeak RSS of a worker that drains {CHUNKS} chunks of 16 KiB");
    for transport in transports {
        for (sessions, tenants) in [(64, 1), (12_000, 6)] {
            let load = Load {
                sessions,
                tenants,
                ..Load::of(*transport, 16 << 10, CHUNKS)
            };
            let run = Place::filled(load).drain();
            println!(
                "{:>9} {sessions:>6} sessions of {tenants} tenants, {:>2} at once: {:>4.0} MiB ({:.0} chunks/s)",
                transport.word(),
                run.in_flight,
                run.peak_mib,
                run.rate * 1e6 / load.chunk as f64,
            );
        }
    }
}

/// A directory with a store that was filled and closed.
struct Place {
    load: Load,
    dir: tempfile::TempDir,
}

/// What one run came to.
struct Run {
    /// Payload, MB/s.
    rate: f64,
    /// Seconds of processor time a GB of payload, of the client alone.
    cpu: f64,
    /// Most requests at once.
    in_flight: usize,
    /// All bodies together.
    bytes: u64,
    peak_mib: f64,
}

impl Place {
    fn filled(load: Load) -> Self {
        let base = std::env::var_os("REELAY_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
        let dir = tempfile::tempdir_in(base).expect("a directory to write in");
        let settings = Settings {
            segment_bytes: 64 << 20,
            max_bytes: 1 << 40,
            min_free_bytes: 0,
            max_chunk_bytes: 1 << 30,
            remember: Duration::from_secs(86_400),
            tenants: (0..load.tenants)
                .map(|n| tenant_of(n).parse().expect("a name"))
                .collect(),
            host: HOST.parse().expect("a name"),
            sabotaged: Sabotaged::NONE,
        };
        let path = dir.path().join("store");
        let store = Store::open(&path, settings, Arc::new(SystemClock)).expect("a store");
        std::thread::scope(|scope| {
            for producer in 0..IN_FLIGHT {
                let store = &store;
                scope.spawn(move || {
                    for n in (producer..load.chunks).step_by(IN_FLIGHT) {
                        store
                            .enqueue(load.new_chunk(n), &mut Pattern::of(load.chunk))
                            .expect("accepted");
                    }
                });
            }
        });
        store.close().expect("closed");
        Self { load, dir }
    }

    fn server(&self) -> Server {
        let numbers = [self.load.chunks, self.load.gather];
        let mut child = phase("server", &numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let line = lines.recv().expect("the server says where it listens");
        Server {
            port: line.parse().expect("a port"),
            lines,
            _child: Running(child),
        }
    }

    /// The limit.
    fn bare(&self) -> Run {
        let server = self.server();
        let json = usize::from(self.load.transport == Transport::Json);
        let Load { chunk, chunks, .. } = self.load;
        let bare = phase("bare", &[server.port, json, chunk, chunks]);
        self.measured(&server, bare)
    }

    fn drain(&self) -> Run {
        let server = self.server();
        let config = self.dir.path().join("worker.toml");
        let mut text = format!(
            "[store]\npath = \"store\"\n[host]\nname = \"bench\"\n[pool]\nworkers = {IN_FLIGHT}\n"
        );
        for tenant in (0..self.load.tenants).map(tenant_of) {
            text.push_str(&format!(
                "[tenants.{tenant}]\napi_url = \"http://127.0.0.1:{}\"\ntransport = \"{}\"\nreceipt = \"status\"\n\
                 [tenants.{tenant}.auth]\ngrant = \"static\"\ntoken_file = \"acme.token\"\n\
                 [tenants.{tenant}.delivery]\nconcurrency = {IN_FLIGHT}\ngroup = \"off\"\n",
                server.port,
                self.load.transport.word(),
            ));
        }
        fs::write(&config, text).expect("a configuration");
        let mut token = fs::File::options();
        let token = token.write(true).create(true).truncate(true).mode(0o600);
        let token = token.open(self.dir.path().join("acme.token"));
        token
            .and_then(|mut file| file.write_all(b"token"))
            .expect("a token");
        let mut worker = Command::new(env!("CARGO_BIN_EXE_worker"));
        worker.arg("--config").arg(config).args(["drain", "--json"]);
        self.measured(&server, worker)
    }

    /// Runs a client to its end. Its numbers are those between the first request and the last answer; its memory is
    /// looked at until it ends.
    fn measured(&self, server: &Server, mut client: Command) -> Run {
        let log = self.dir.path().join("client.log");
        let said = fs::File::create(&log).expect("a log");
        client.stdin(Stdio::piped());
        client.stdout(said.try_clone().expect("a log")).stderr(said);
        let mut client = Running(client.spawn().expect("it starts"));
        let pid = client.0.id();
        let (mut before, mut used, mut peak) = (0.0, 0.0, 0.0_f64);
        let (mut told, mut ended) = (None, None);
        while told.is_none() || ended.is_none() {
            let patience = if ended.is_some() { LATE } else { LOOK };
            match server.lines.recv_timeout(patience) {
                Ok(line) if line == "first" => before = cpu_seconds(pid),
                Ok(line) => {
                    used = cpu_seconds(pid) - before;
                    told = Some(line);
                    // The limit waits for it.
                    drop(client.0.stdin.take());
                }
                Err(_) if ended.is_some() => break,
                Err(_) => {}
            }
            peak = peak.max(peak_mib(pid).unwrap_or(0.0));
            ended = ended.or(client.0.try_wait().expect("a child of ours"));
        }
        let succeeded = ended.is_some_and(|status| status.success());
        let Some(told) = told.filter(|_| succeeded) else {
            let said = fs::read_to_string(&log).unwrap_or_default();
            panic!("{ended:?}, and perhaps not every chunk arrived: {said}");
        };
        let told: Vec<f64> = told.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [seconds, bytes, in_flight] = told[..] else {
            panic!("the server says something else: {told:?}");
        };
        let payload = (self.load.chunk * self.load.chunks) as f64;
        Run {
            rate: payload / 1e6 / seconds,
            cpu: used / (payload / 1e9),
            in_flight: in_flight as usize,
            bytes: bytes as u64,
            peak_mib: peak,
        }
    }
}

struct Server {
    port: usize,
    lines: Receiver<String>,
    _child: Running,
}

/// This program again, as one of the other two processes.
fn phase(name: &str, numbers: &[usize]) -> Command {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .env("REELAY_BENCH_PHASE", name)
        .env("REELAY_BENCH_NUMBERS", numbers.join(","));
    command
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
