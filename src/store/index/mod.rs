//! The index: the queue in sled, written behind the journal by one thread, which is also the only one that reads it.
//!
//! It may fall behind, which is normal, and it may be lost: an error, a panic, an answer that does not come, a row that does not read back. Then
//! nothing is leased any more; what the journal made true stays true, and the next start rebuilds the index. The only
//! module that names sled.

mod fates;
mod gathered;
mod packed;
mod rows;
mod sweeps;
mod tables;
mod thread;

pub use gathered::{Fact, Gathered};
pub use packed::{Owed, Seen};
pub use rows::RowKey;
pub use sweeps::{Ages, Named};
pub use tables::{AHEAD_BYTES, Change, KIND, Known, Tables, print_of};
pub use thread::{Index, Opened};

/// Why the index is lost.
#[derive(Debug, thiserror::Error)]
pub enum IndexFault {
    #[error("sled: {0}")]
    Sled(#[from] sled::Error),
    #[error("index file: {0}")]
    Io(#[from] std::io::Error),
    #[error("{what} ({key})")]
    Disagrees { what: &'static str, key: String },
    #[error("no answer within {0} s")]
    Silent(u64),
    #[error("its thread panicked")]
    Panicked,
    #[error("the thread that feeds it panicked")]
    CommitterPanicked,
    #[error("lost before: {0}")]
    LostBefore(String),
}

impl IndexFault {
    fn disagrees(what: &'static str, key: &[u8]) -> Self {
        Self::Disagrees {
            what,
            key: String::from_utf8_lossy(key).escape_debug().to_string(),
        }
    }
}

/// For the fuzzer: a key and a value, parted by a line feed; the value's checksum is made right.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == b'\n');
    let (key, value) = bytes.split_at(at.unwrap_or(bytes.len()));
    let value = value.get(1..).unwrap_or_default();
    if let Some((session, first, rest)) = rows::parse_key(key) {
        let again = [&rows::sequence_key(&session, first), rest].concat();
        assert_eq!(again, key);
    }
    drop(rows::decode::<Owed>(key, value));
    let sealed = rows::seal(value.to_vec());
    drop(rows::decode::<Owed>(key, &sealed));
    drop(rows::decode::<Seen>(key, &sealed));
    tables::fuzz(&sealed);
}
