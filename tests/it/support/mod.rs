//! What the tests of the real binary stand on: processes that are ended with the test, a sandbox in its own
//! process, a place (configuration, store, files), a site (both) and one way to wait.

mod account;
mod cached_disk;
pub mod canary;
mod http;
mod logged_disk;
mod place;
mod process;
mod recording;
pub mod rig;
mod sandbox;
mod site;
mod small_disk;

pub use account::{Account, Fault};
pub use cached_disk::{CachedDisk, TOOLS as CACHED_DISK_TOOLS};
pub use logged_disk::{Crash, LoggedDisk, MARKER_AT, Recording, TOOLS as LOGGED_DISK_TOOLS};
pub use place::{Place, Told};
pub use process::{Ended, Process};
pub use recording::{SESSIONS, film, session_files};
pub use sandbox::Sandbox;
pub use site::Site;
pub use small_disk::{Filler, Frozen, Inodes, SmallDisk};

use std::time::{Duration, Instant};

pub const WORKER: &str = env!("CARGO_BIN_EXE_worker");

/// Longer than anything here takes on a busy machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// The one way to wait for something: looks until it is there, and fails with `what` after [`PATIENCE`].
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} for {what}"))
}

/// `None`: it did not come in time.
pub fn wait_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// For a test that cannot do without: it skips with this, unless a skip is a failure here.
pub fn tool_is_missing(tool: &str) {
    let message = format!("skipped: no {tool} on this machine");
    let required = std::env::var_os("REELAY_REQUIRE_TOOLS").is_some();
    assert!(!required, "{message}");
    println!("{message}");
}

/// What a test complained of that a defect was to turn red; `None`: it passed.
pub fn complaint(test: impl FnOnce() + std::panic::UnwindSafe) -> Option<String> {
    let panic = std::panic::catch_unwind(test).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Some(text.unwrap_or_default())
}

/// A seed from `REELAY_SEED` or from the system, printed so that a failure can be had again.
pub fn seed() -> u64 {
    let given = std::env::var("REELAY_SEED").ok();
    let seed = given.map_or_else(
        || fastrand::u64(..),
        |text| text.parse().expect("REELAY_SEED is a number"),
    );
    println!("REELAY_SEED={seed}");
    seed
}

/// A number from the environment, for soaking.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// Bytes that no two chunks share, some blocks long or short.
pub fn payload(name: &str, bytes: usize) -> Vec<u8> {
    let seed = u64::from(crc32fast::hash(name.as_bytes()));
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(bytes)
        .collect()
}
