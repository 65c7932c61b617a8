//! Durable enqueue beside its physical limit, in one run: the better of a plain and a preallocated append with one
//! `fdatasync` for as many bytes, on the same filesystem.
//!
//! Expected: at 64 KiB the limit is some 1000 MB/s on a fast virtual disk; reading, checksumming (CRC-32 and BLAKE3) and copying
//! cost about 0.5 ms a MB on one core, so a ratio of 0.7 to 0.9 would be good. Pairs alternate, medians are compared.
//!
//! One producer alone is held against the same bytes with a sync for each, at 256 KiB and 1 MiB.
//!
//! `cargo bench` runs it; `REELAY_BENCH_DIR` names the directory, else a temporary one; `REELAY_BENCH_PAIRS` the pairs;
//! `REELAY_BENCH_KIB` one size of chunk instead of all; `REELAY_BENCH_PRODUCERS` only as many, 16 or 1.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reelay::clock::SystemClock;
use reelay::model::Timestamp;
use reelay::sabotage::Sabotaged;
use reelay::store::{NewChunk, SequenceChoice, Settings, Store};

/// How many producers, chunks of how many KiB, and how many of them the limit syncs at once.
const LINES: [(usize, usize, usize); 6] = [
    (16, 64, 16),
    (16, 256, 16),
    (16, 1024, 16),
    (16, 8192, 4),
    (1, 256, 1),
    (1, 1024, 1),
];
const TOTAL: usize = 256 << 20;

fn main() {
    // `cargo test --benches` passes --test: compiling is all that it asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let base = std::env::var_os("REELAY_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let pairs = number("REELAY_BENCH_PAIRS").unwrap_or(9);
    println!("enqueue of {} MiB, {pairs} pairs", TOTAL >> 20);
    println!(
        "{:>9} {:>9} {:>12} {:>12} {:>7} {:>11} {:>11}  ratios",
        "producers", "chunk", "limit MB/s", "reelay MB/s", "ratio", "CPU s/GB", "limit's"
    );
    let only = number("REELAY_BENCH_KIB");
    let many = number("REELAY_BENCH_PRODUCERS");
    let wanted = LINES.into_iter().filter(|(producers, kib, _)| {
        only.is_none_or(|only| only == *kib) && many.is_none_or(|many| many == *producers)
    });
    for (producers, kib, commit) in wanted {
        let chunk = kib << 10;
        let payload: Vec<u8> = (0..chunk).map(|n| ((n * 31) >> 3) as u8).collect();
        let mut limits = Vec::new();
        let mut ours = Vec::new();
        let (mut limit_cpu, mut our_cpu) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let plain = append(&base, &payload, commit, false);
            let preallocated = append(&base, &payload, commit, true);
            let limit = if plain.rate > preallocated.rate {
                plain
            } else {
                preallocated
            };
            limits.push(limit.rate);
            limit_cpu.push(limit.cpu);
            let our = enqueue(&base, &payload, producers);
            ours.push(our.rate);
            our_cpu.push(our.cpu);
        }
        let mut ratios: Vec<f64> = ours
            .iter()
            .zip(&limits)
            .map(|(ours, limit)| ours / limit)
            .collect();
        let (limit, our, ratio) = (median(&mut limits), median(&mut ours), median(&mut ratios));
        let spread = format!("{:.2}–{:.2}", ratios[0], ratios[ratios.len() - 1]);
        println!(
            "{producers:>9} {:>6}KiB {limit:>12.0} {our:>12.0} {ratio:>7.2} {:>11.2} {:>11.2}  {spread}",
            chunk >> 10,
            median(&mut our_cpu),
            median(&mut limit_cpu),
        );
    }
}

/// Commits of so many payloads: as many writes, then one sync.
fn append(base: &Path, payload: &[u8], commit: usize, preallocate: bool) -> Run {
    let dir = tempfile::tempdir_in(base).expect("a directory to write in");
    let path = dir.path().join("limit");
    let mut file = File::create(&path).expect("a file");
    if preallocate {
        let flags = rustix::fs::FallocateFlags::empty();
        rustix::fs::fallocate(&file, flags, 0, TOTAL as u64).expect("space");
        file = OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("the file");
    }
    let began = Began::now();
    let mut at = 0;
    while at < TOTAL {
        for _ in 0..commit {
            if preallocate {
                file.write_all_at(payload, at as u64).expect("written");
            } else {
                file.write_all(payload).expect("written");
            }
            at += payload.len();
        }
        file.sync_data().expect("synced");
    }
    began.ended(at)
}

fn enqueue(base: &Path, payload: &[u8], producers: usize) -> Run {
    let dir = tempfile::tempdir_in(base).expect("a directory to write in");
    let settings = Settings {
        segment_bytes: 64 << 20,
        max_bytes: 1 << 40,
        min_free_bytes: 0,
        max_chunk_bytes: 1 << 30,
        remember: Duration::from_secs(86_400),
        tenants: vec!["acme".parse().expect("a name")],
        host: "bench".parse().expect("a name"),
        sabotaged: Sabotaged::NONE,
    };
    let store = Store::open(dir.path(), settings, Arc::new(SystemClock)).expect("a store");
    let each = TOTAL / payload.len() / producers;
    let began = Began::now();
    std::thread::scope(|scope| {
        for producer in 0..producers {
            let store = &store;
            scope.spawn(move || {
                for sequence in 0..each as u64 {
                    let chunk = NewChunk {
                        tenant: "acme".parse().expect("a name"),
                        session: format!("s{producer}").parse().expect("a name"),
                        sequence: SequenceChoice::Exactly(sequence),
                        started_at: Timestamp(0),
                        duration_ms: 30_000,
                        media_type: "video/mp4".into(),
                        last: false,
                        length: Some(payload.len() as u64),
                    };
                    let mut bytes = payload;
                    store.enqueue(chunk, &mut bytes).expect("accepted");
                }
            });
        }
    });
    let run = began.ended(each * producers * payload.len());
    store.close().expect("closed");
    run
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// What one run came to.
struct Run {
    /// MB/s.
    rate: f64,
    /// Seconds of processor time a GB, of all threads and of the system on their behalf.
    cpu: f64,
}

struct Began {
    at: Instant,
    cpu: f64,
}

impl Began {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            cpu: cpu_seconds(),
        }
    }

    fn ended(self, bytes: usize) -> Run {
        Run {
            rate: bytes as f64 / 1e6 / self.at.elapsed().as_secs_f64(),
            cpu: (cpu_seconds() - self.cpu) / (bytes as f64 / 1e9),
        }
    }
}

fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
