//! The store beside what else could hold payloads, and tenants beside each other.
//!
//! `payloads`: three lines in one run: the limit (a preallocated append, one `fdatasync` a commit of 16), sled holding the payloads
//! (batches of 16, each with `flush()` and one `fdatasync` of its file, without which a power cut loses all), and the store.
//! `tenant`: how long an enqueue of 64 KiB takes a small tenant (one producer, pausing 2 ms) alone, and beside one that floods
//! with 16 producers of 256 KiB. Wanted: at most 3 times the p99 alone.
//!
//! `cargo bench --bench store`; `REELAY_BENCH_ONLY` chooses; `REELAY_BENCH_DIR` names the directory, else a temporary one;
//! `REELAY_BENCH_ROUNDS` how often each pair is measured.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reelay::clock::SystemClock;
use reelay::model::Timestamp;
use reelay::sabotage::Sabotaged;
use reelay::store::{NewChunk, SequenceChoice, Settings, Store};

const PRODUCERS: usize = 16;
const TOTAL: usize = 256 << 20;
/// Enqueues of the small tenant that are timed.
const TIMED: u64 = 500;

fn main() {
    // `cargo test --benches` passes --test: compiling is all that it asks for.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let only = std::env::var("REELAY_BENCH_ONLY").ok();
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let rounds =
        std::env::var("REELAY_BENCH_ROUNDS").map_or(9, |text| text.parse().expect("a number"));
    if wanted("payloads") {
        for kib in [64, 256, 1024] {
            payloads(kib << 10, rounds);
        }
    }
    if wanted("tenant") {
        tenant(rounds);
    }
}

fn payloads(bytes: usize, rounds: usize) {
    let payload = payload(bytes);
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        rates[0].push(append(&payload));
        rates[1].push(in_sled(&payload));
        rates[2].push(in_store(&payload));
    }
    let [limit, sled, store] = rates.map(|mut rates| at(&mut rates, 0.5));
    println!(
        "{:>5} KiB: limit {limit:.0} MB/s, sled holding the payloads {sled:.0} ({:.2}), reelay {store:.0} ({:.2})",
        bytes >> 10,
        sled / limit,
        store / limit
    );
}

fn append(payload: &[u8]) -> f64 {
    let dir = directory();
    let file = File::create(dir.path().join("limit")).expect("a file");
    let flags = rustix::fs::FallocateFlags::empty();
    rustix::fs::fallocate(&file, flags, 0, TOTAL as u64).expect("space");
    let began = Instant::now();
    for chunk in 0..TOTAL / payload.len() {
        let offset = (chunk * payload.len()) as u64;
        file.write_all_at(payload, offset).expect("written");
        if (chunk + 1) % 16 == 0 {
            file.sync_data().expect("synced");
        }
    }
    rate(began)
}

fn in_sled(payload: &[u8]) -> f64 {
    let dir = directory();
    let db = sled::Config::new()
        .path(dir.path())
        .flush_every_ms(None)
        .open()
        .expect("a database");
    let file = File::open(dir.path().join("db")).expect("its file");
    let began = Instant::now();
    let mut batch = sled::Batch::default();
    for chunk in 0..TOTAL / payload.len() {
        std::hint::black_box(blake3::hash(payload));
        batch.insert(&(chunk as u64).to_be_bytes(), payload);
        if (chunk + 1) % 16 == 0 {
            db.apply_batch(std::mem::take(&mut batch)).expect("applied");
            db.flush().expect("flushed");
            file.sync_data().expect("synced");
        }
    }
    rate(began)
}

fn in_store(payload: &[u8]) -> f64 {
    let dir = directory();
    let store = open(dir.path());
    let began = Instant::now();
    let each = (TOTAL / payload.len() / PRODUCERS) as u64;
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let store = &store;
            scope.spawn(move || {
                for sequence in 0..each {
                    enqueue(store, "flood", producer, sequence, payload);
                }
            });
        }
    });
    let rate = rate(began);
    store.close().expect("closed");
    rate
}

fn tenant(rounds: usize) {
    let (mut alone, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(p99(false));
        beside.push(p99(true));
        ratios.push(beside[beside.len() - 1] / alone[alone.len() - 1]);
    }
    let ratio = at(&mut ratios, 0.5);
    println!(
        "small tenant, p99 of 64 KiB: alone {:.2} ms, beside a flood {:.2} ms, ratio {ratio:.1} ({:.1}–{:.1})",
        at(&mut alone, 0.5),
        at(&mut beside, 0.5),
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

/// Milliseconds.
fn p99(flooded: bool) -> f64 {
    let dir = directory();
    let store = open(dir.path());
    let (small, large) = (payload(64 << 10), payload(256 << 10));
    let stop = AtomicBool::new(!flooded);
    let mut each = Vec::new();
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let (store, stop, large) = (&store, &stop, &large);
            scope.spawn(move || {
                let mut sequence = 0;
                while !stop.load(Ordering::Relaxed) {
                    enqueue(store, "flood", producer, sequence, large);
                    sequence += 1;
                }
            });
        }
        for sequence in 0..TIMED {
            std::thread::sleep(Duration::from_millis(2));
            let began = Instant::now();
            enqueue(&store, "small", 0, sequence, &small);
            each.push(began.elapsed().as_secs_f64() * 1e3);
        }
        stop.store(true, Ordering::Relaxed);
    });
    store.close().expect("closed");
    at(&mut each, 0.99)
}

fn enqueue(store: &Store, tenant: &str, producer: usize, sequence: u64, mut payload: &[u8]) {
    let chunk = NewChunk {
        tenant: tenant.parse().expect("a name"),
        session: format!("s{producer}").parse().expect("a name"),
        sequence: SequenceChoice::Exactly(sequence),
        started_at: Timestamp(0),
        duration_ms: 30_000,
        media_type: "video/mp4".into(),
        last: false,
        length: Some(payload.len() as u64),
    };
    store.enqueue(chunk, &mut payload).expect("accepted");
}

fn open(dir: &Path) -> Store {
    let settings = Settings {
        segment_bytes: 64 << 20,
        max_bytes: 1 << 40,
        min_free_bytes: 0,
        max_chunk_bytes: 1 << 30,
        remember: Duration::from_secs(86_400),
        tenants: ["flood", "small"]
            .map(|name| name.parse().expect("a name"))
            .to_vec(),
        host: "bench".parse().expect("a name"),
        sabotaged: Sabotaged::NONE,
    };
    Store::open(dir, settings, Arc::new(SystemClock)).expect("a store")
}

fn directory() -> tempfile::TempDir {
    let base = std::env::var_os("REELAY_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).expect("a directory to write in")
}

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| ((n * 31) >> 3) as u8).collect()
}

/// MB/s.
fn rate(began: Instant) -> f64 {
    TOTAL as f64 / 1e6 / began.elapsed().as_secs_f64()
}

/// Sorts.
fn at(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}
