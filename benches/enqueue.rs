//! Durable enqueue beside its physical limit, in one run: the better of a plain and a preallocated append with one
//! `fdatasync` for as many bytes, on the same filesystem.
//!
//! Expected: at 64 KiB the limit is some 1000 MB/s on a fast virtual disk; reading, checksumming (CRC-32 and BLAKE3) and copying
//! cost about 0.5 ms a MB on one core, so a ratio of 0.7 to 0.9 would be good. Pairs alternate, medians are compared.
//!
//! `cargo bench` runs it; `REELAY_BENCH_DIR` names the directory, else a temporary one; `REELAY_BENCH_PAIRS` the pairs;
//! `REELAY_BENCH_KIB` one size of chunk instead of all.

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

const PRODUCERS: usize = 16;
const TOTAL: usize = 256 << 20;

fn main() {
    // `cargo test --benches` passes --test: compiling is all that it asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let base = std::env::var_os("REELAY_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let pairs = number("REELAY_BENCH_PAIRS").unwrap_or(9);
    println!(
        "enqueue of {} MiB by {PRODUCERS} producers, {pairs} pairs",
        TOTAL >> 20
    );
    println!(
        "{:>9} {:>12} {:>12} {:>7} {:>11} {:>11}  ratios",
        "chunk", "limit MB/s", "reelay MB/s", "ratio", "CPU s/GB", "limit's"
    );
    let only = number("REELAY_BENCH_KIB");
    let sizes = [64, 256, 1024, 8192].into_iter();
    for chunk in sizes.filter(|kib| only.is_none_or(|only| only == *kib)) {
        let chunk = chunk << 10;
        let payload: Vec<u8> = (0..chunk).map(|n| ((n * 31) >> 3) as u8).collect();
        let mut limits = Vec::new();
        let mut ours = Vec::new();
        let (mut limit_cpu, mut our_cpu) = (Vec::new(), Vec::new());
        for _ in 0..pairs {
            let plain = append(&base, &payload, false);
            let preallocated = append(&base, &payload, true);
            let limit = if plain.rate > preallocated.rate {
                plain
            } else {
                preallocated
            };
            limits.push(limit.rate);
            limit_cpu.push(limit.cpu);
            let our = enqueue(&base, &payload);
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
            "{:>6}KiB {limit:>12.0} {our:>12.0} {ratio:>7.2} {:>11.2} {:>11.2}  {spread}",
            chunk >> 10,
            median(&mut our_cpu),
            median(&mut limit_cpu),
        );
    }
}

/// Commits of 16 payloads (of 4 from 8 MiB on): one vectored write's worth, then one sync. In MB/s.
fn append(base: &Path, payload: &[u8], preallocate: bool) -> Run {
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
    let commit = if payload.len() >= 8 << 20 { 4 } else { 16 };
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

fn enqueue(base: &Path, payload: &[u8]) -> Run {
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
    let each = TOTAL / payload.len() / PRODUCERS;
    let began = Began::now();
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
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
    let run = began.ended(each * PRODUCERS * payload.len());
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
