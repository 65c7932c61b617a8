//! What a large backlog costs: opening, leasing, settling, memory, and the disk that is left. Each figure is taken in a
//! process of its own, so that no phase inherits the memory or the caches of another.
//!
//! Wanted: a million chunks of 512 bytes open within 1 s after a clean close, 3 s after a kill, 5 s with the index
//! deleted, in 100 MiB; lease and ack cost at most 1.2 times what they cost with 1,000 queued; 200,000 settles stay in
//! 64 MiB and close within 1 s; emptying 1 GiB leaves one segment and 16 MiB; 256 KiB chunks are written 1.05 times.
//!
//! `cargo bench --bench backlog`; `REELAY_BENCH_DIR` names the directory, else a temporary one; `REELAY_BENCH_CHUNKS` the size
//! of the large backlog, `REELAY_BENCH_SESSIONS` over how many sessions; `REELAY_BENCH_ONLY` one of `open`, `settle`, `empty`; `REELAY_BENCH_ROUNDS` how often each
//! opening is measured.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reelay::clock::SystemClock;
use reelay::model::{SessionKey, Timestamp};
use reelay::sabotage::Sabotaged;
use reelay::store::{NewChunk, SequenceChoice, Settings, Store};
use rustix::process::Signal;

/// Many, so that a commit is full and filling is quick.
const PRODUCERS: usize = 256;
const LEASES: usize = 5_000;
const SEGMENT_BYTES: u64 = 64 << 20;
const MIB: f64 = 1024.0 * 1024.0;

fn main() {
    // `cargo test --benches` passes --test: compiling is all that it asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    if let Ok(phase) = std::env::var("REELAY_BENCH_PHASE") {
        run(&phase);
        return;
    }
    let only = std::env::var("REELAY_BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let chunks = number("REELAY_BENCH_CHUNKS").unwrap_or(1_000_000);
    if wanted("open") {
        let chosen = number("REELAY_BENCH_SESSIONS");
        for sessions in chosen.map_or(vec![200, 100_000], |one| vec![one]) {
            measure_open(chunks, sessions);
        }
    }
    if wanted("settle") {
        println!("\n200,000 settles");
        for _ in 0..rounds() {
            let dir = directory();
            phase(dir.path(), "fill", &[200_000, 512, 200]);
            phase(dir.path(), "settle", &[200_000]);
        }
    }
    if wanted("empty") {
        println!("\n1 GiB in chunks of 256 KiB, written and emptied");
        let dir = directory();
        phase(dir.path(), "empty", &[4096, 256 << 10, 16]);
    }
}

fn measure_open(chunks: usize, sessions: usize) {
    println!("\n{chunks} chunks of 512 bytes over {sessions} sessions");
    let small = directory();
    phase(small.path(), "fill", &[1_000, 512, 200]);
    let large = directory();
    phase(large.path(), "fill", &[chunks, 512, sessions]);
    for _ in 0..rounds() {
        phase(large.path(), "clean", &[]);
    }
    for _ in 0..rounds() {
        phase_beside(large.path(), small.path(), "lease", &[LEASES]);
    }
    // What a killed process left is what is measured next; the first one is not measured itself.
    phase(large.path(), "kill", &[]);
    for _ in 0..rounds() {
        phase(large.path(), "killed", &[]);
    }
    for _ in 0..rounds() {
        std::fs::remove_dir_all(large.path().join("index")).expect("the index was there");
        phase(large.path(), "index deleted", &[]);
    }
}

fn rounds() -> usize {
    number("REELAY_BENCH_ROUNDS").unwrap_or(3)
}

fn directory() -> tempfile::TempDir {
    let base = std::env::var_os("REELAY_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).expect("a directory to write in")
}

/// One phase in a process of its own.
fn phase(dir: &Path, name: &str, numbers: &[usize]) {
    phase_beside(dir, dir, name, numbers);
}

/// The same with a second store.
fn phase_beside(dir: &Path, second: &Path, name: &str, numbers: &[usize]) {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let status = Command::new(std::env::current_exe().expect("this program"))
        .env("REELAY_BENCH_PHASE", name)
        .env("REELAY_BENCH_STORE", dir)
        .env("REELAY_BENCH_SECOND", second)
        .env("REELAY_BENCH_NUMBERS", numbers.join(","))
        .status()
        .expect("it ran");
    let killed = status.signal() == Some(Signal::KILL.as_raw());
    let ends_so = matches!(name, "kill" | "killed" | "index deleted");
    assert!(
        if ends_so { killed } else { status.success() },
        "{name} failed"
    );
}

fn run(phase: &str) {
    let dir = PathBuf::from(std::env::var_os("REELAY_BENCH_STORE").expect("a store"));
    let numbers = std::env::var("REELAY_BENCH_NUMBERS").unwrap_or_default();
    let numbers: Vec<usize> = numbers.split(',').filter_map(|n| n.parse().ok()).collect();
    let began = Instant::now();
    let store = Store::open(&dir, settings(), Arc::new(SystemClock)).expect("a store");
    let opened = began.elapsed();
    match (phase, numbers.as_slice()) {
        ("fill", [chunks, bytes, sessions]) => {
            fill(&store, 0, *chunks, *bytes, *sessions);
            println!("  filled in {:.1} s", began.elapsed().as_secs_f64());
            store.close().expect("closed");
        }
        ("clean", _) => {
            report(phase, opened, &store);
            store.close().expect("closed");
        }
        ("lease", [leases]) => {
            let second = std::env::var_os("REELAY_BENCH_SECOND").expect("another store");
            let second = PathBuf::from(second);
            let small = Store::open(&second, settings(), Arc::new(SystemClock)).expect("a store");
            lease_and_ack(&small, &store, *leases);
            small.close().expect("closed");
            store.close().expect("closed");
        }
        ("kill" | "killed" | "index deleted", _) => {
            if phase != "kill" {
                report(phase, opened, &store);
            }
            end_in_the_middle(&store);
        }
        ("settle", [settles]) => {
            let began = Instant::now();
            settle_all(&store, *settles);
            println!(
                "  {settles} leased and settled in {:.1} s, peak RSS {:.0} MiB",
                began.elapsed().as_secs_f64(),
                status("VmHWM") / 1024.0
            );
            let began = Instant::now();
            store.close().expect("closed");
            println!("  closed in {:.2} s", began.elapsed().as_secs_f64());
        }
        ("empty", [chunks, bytes, sessions]) => empty(store, &dir, *chunks, *bytes, *sessions),
        _ => unreachable!("{phase} is a phase of ours"),
    }
}

fn report(name: &str, opened: Duration, store: &Store) {
    println!(
        "  {name:>13}: open {:.2} s ({:.2} s of processor time), RSS {:.0} MiB, peak {:.0} MiB, index {}",
        opened.as_secs_f64(),
        cpu_seconds(),
        status("VmRSS") / 1024.0,
        status("VmHWM") / 1024.0,
        if store.has_rebuilt_index() {
            "made anew"
        } else {
            "as it was"
        }
    );
}

/// As kill -9 ends a process while 16 threads enqueue.
fn end_in_the_middle(store: &Store) -> ! {
    let first = 1_000_000 + fastrand::u64(..1 << 40);
    let accepted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for producer in 0..16 {
            let accepted = &accepted;
            scope.spawn(move || {
                for n in 0.. {
                    put(store, producer, first + n, &[1; 512]);
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while accepted.load(Ordering::Relaxed) < 2_000 {
            std::thread::yield_now();
        }
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, Signal::KILL).expect("it is ours");
    });
    unreachable!("killed")
}

/// In turn with few chunks queued and with many, in one process: how threads wake one another differs more from process to
/// process than this does.
fn lease_and_ack(small: &Store, large: &Store, leases: usize) {
    let arrived = [small, large].map(Store::take_arrivals);
    let mut sessions = arrived.each_ref().map(|arrived| arrived.iter().cycle());
    let mut each: [Vec<f64>; 2] = Default::default();
    while each[1].len() < leases {
        for (store, (sessions, each)) in [small, large]
            .into_iter()
            .zip(sessions.iter_mut().zip(&mut each))
        {
            let some: Vec<&SessionKey> = sessions.by_ref().take(100).collect();
            each.extend(some.iter().map(|session| lease_one(store, session)));
            put_again(store, &some);
        }
    }
    let [few, many] = each.map(|mut each| {
        each.sort_by(f64::total_cmp);
        let sum: f64 = each.iter().sum();
        (each[each.len() / 2], sum / each.len() as f64)
    });
    println!(
        "  lease and ack of {leases}: median {:.1} µs with 1,000 queued, {:.1} µs here, {:.2} times; mean {:.1} and {:.1} µs, {:.2} times",
        few.0,
        many.0,
        many.0 / few.0,
        few.1,
        many.1,
        many.1 / few.1
    );
}

/// Microseconds.
fn lease_one(store: &Store, session: &SessionKey) -> f64 {
    let began = Instant::now();
    let lease = store.lease(session).expect("an index");
    let lease = lease.expect("each session owes more than is taken at once");
    lease.ack().expect("acknowledged");
    began.elapsed().as_secs_f64() * 1e6
}

/// What was delivered is enqueued again, so that the backlog stays as large as it was.
fn put_again(store: &Store, sessions: &[&SessionKey]) {
    std::thread::scope(|scope| {
        for part in sessions.chunks(8) {
            scope.spawn(move || part.iter().for_each(|session| put_next(store, session)));
        }
    });
    // Whoever asks is answered behind what was just enqueued.
    store.head(sessions[0]).expect("an index");
}

fn put_next(store: &Store, session: &SessionKey) {
    let choice = SequenceChoice::Next {
        refuse_repeat: false,
    };
    let chunk = new_chunk(session.session.as_str(), choice, 512);
    store
        .enqueue(chunk, &mut [1; 512].as_slice())
        .expect("accepted");
}

fn put(store: &Store, session: usize, sequence: u64, mut payload: &[u8]) {
    let session = format!("session-{session:06}");
    let choice = SequenceChoice::Exactly(sequence);
    let chunk = new_chunk(&session, choice, payload.len());
    store.enqueue(chunk, &mut payload).expect("accepted");
}

fn new_chunk(session: &str, sequence: SequenceChoice, bytes: usize) -> NewChunk {
    NewChunk {
        tenant: "acme".parse().expect("a name"),
        session: session.parse().expect("a name"),
        sequence,
        started_at: Timestamp(0),
        duration_ms: 30_000,
        media_type: "video/mp4".into(),
        last: false,
        length: Some(bytes as u64),
    }
}

fn settle_all(store: &Store, wanted: usize) {
    let mut settled = 0;
    let sessions = store.take_arrivals();
    while settled < wanted {
        for session in &sessions {
            if let Some(lease) = store.lease(session).expect("an index") {
                lease.ack().expect("acknowledged");
                settled += 1;
            }
        }
    }
}

fn empty(store: Store, dir: &Path, chunks: usize, bytes: usize, sessions: usize) {
    let before = written();
    fill(&store, 0, chunks, bytes, sessions);
    rustix::fs::sync();
    let amplification = (written() - before) / (chunks * bytes) as f64;
    println!("  write amplification of enqueue {amplification:.3}");
    let before = written();
    settle_all(&store, chunks);
    // Housekeeping comes round every second.
    std::thread::sleep(Duration::from_secs(5));
    rustix::fs::sync();
    println!(
        "  written while emptying: {:.1} MiB",
        (written() - before) / MIB
    );
    for (name, blocks) in on_disk(dir) {
        println!("  left in {name}: {:.1} MiB", blocks / MIB);
    }
    store.close().expect("closed");
    let left: f64 = on_disk(dir).iter().map(|(_, bytes)| bytes).sum();
    println!("  left after close: {:.1} MiB", left / MIB);
}

/// Space really taken, by the store's parts.
fn on_disk(dir: &Path) -> Vec<(String, f64)> {
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a store") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        parts.push((name, taken(&entry.path())));
    }
    parts.push(("all".into(), parts.iter().map(|(_, bytes)| bytes).sum()));
    parts
}

fn taken(path: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return 0.0;
    };
    let own = metadata.blocks() as f64 * 512.0;
    match std::fs::read_dir(path) {
        Ok(inside) => own + inside.flatten().map(|e| taken(&e.path())).sum::<f64>(),
        Err(_) => own,
    }
}

fn fill(store: &Store, first: u64, chunks: usize, bytes: usize, sessions: usize) {
    let payload: Vec<u8> = (0..bytes).map(|n| ((n * 31) >> 3) as u8).collect();
    let producers = PRODUCERS.min(sessions);
    std::thread::scope(|scope| {
        for producer in 0..producers {
            let payload = &payload;
            let put = move || {
                for n in (producer..chunks).step_by(producers) {
                    let (session, sequence) = (n % sessions, first + (n / sessions) as u64);
                    put(store, session, sequence, payload);
                }
            };
            let small = std::thread::Builder::new().stack_size(256 << 10);
            small.spawn_scoped(scope, put).expect("a thread");
        }
    });
}

fn settings() -> Settings {
    Settings {
        segment_bytes: SEGMENT_BYTES,
        max_bytes: 1 << 40,
        min_free_bytes: 0,
        max_chunk_bytes: 1 << 30,
        remember: Duration::from_secs(86_400),
        tenants: vec!["acme".parse().expect("a name")],
        host: "bench".parse().expect("a name"),
        sabotaged: Sabotaged::NONE,
    }
}

/// KiB, from what the system says of this process.
fn status(field: &str) -> f64 {
    value_in("/proc/self/status", field)
}

/// Bytes that this process caused to be written to the disk.
fn written() -> f64 {
    value_in("/proc/self/io", "write_bytes")
}

fn value_in(file: &str, field: &str) -> f64 {
    let text = std::fs::read_to_string(file).expect("Linux says so");
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(field));
    let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    value.expect("Linux says so")
}

/// Of all threads so far: what a wall clock says means little on a machine that does other things.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}
