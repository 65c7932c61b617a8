//! A real recording of a virtual screen, compiled in, so that the demo runs from any directory and can judge what
//! arrived by originals that the queue never touched. How it was made: `tests/recording/README.md`.

use std::time::Duration;

/// One continuous recording.
#[derive(Debug, Clone, Copy)]
pub struct Recording {
    pub session: &'static str,
    /// In sequence, from 0. Put together they are one playable film.
    pub chunks: &'static [&'static [u8]],
}

/// What every chunk is.
pub const MEDIA_TYPE: &str = "video/mp2t";
/// How long every chunk plays.
pub const CHUNK_DURATION: Duration = Duration::from_millis(1500);

macro_rules! recording {
    ($session:literal: $($number:literal)+) => {
        Recording {
            session: $session,
            chunks: &[$(include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/tests/recording/", $session, "/0000", $number, ".ts"
            ))),+],
        }
    };
}

pub const RECORDINGS: &[Recording] = &[
    recording!("desk-1": "00" "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11"),
    recording!("desk-2": "00" "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11"),
    recording!("desk-3": "00" "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ring::digest::{SHA256, digest};

    use super::*;

    const SUMS: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/recording/SHA256SUMS"
    ));
    const TS_PACKET: usize = 188;
    const TS_SYNC: u8 = 0x47;

    fn sums_of(recordings: &[Recording]) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        for recording in recordings {
            for (sequence, chunk) in recording.chunks.iter().enumerate() {
                let sum = digest(&SHA256, chunk);
                let hex: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
                lines.insert(format!("{hex}  {}/{sequence:06}.ts", recording.session));
            }
        }
        lines
    }

    #[test]
    fn the_embedded_recording_is_the_one_that_was_summed() {
        let listed: BTreeSet<String> = SUMS.lines().map(str::to_owned).collect();
        assert_eq!(sums_of(RECORDINGS), listed);
    }

    #[test]
    fn a_changed_or_missing_chunk_does_not_match_the_sums() {
        let whole = RECORDINGS[0];
        let missing = Recording {
            chunks: &whole.chunks[1..],
            ..whole
        };
        let mut altered = whole.chunks[0].to_vec();
        altered[TS_PACKET] ^= 1;
        let chunks = [vec![altered.leak() as &[u8]], whole.chunks[1..].to_vec()].concat();
        let changed = Recording {
            chunks: chunks.leak(),
            ..whole
        };
        for wrong in [missing, changed] {
            assert_ne!(sums_of(&[wrong]), sums_of(&[whole]));
        }
    }

    #[test]
    fn every_chunk_is_whole_transport_packets_and_all_are_small_enough_to_ship() {
        let mut bytes = 0;
        for chunk in RECORDINGS.iter().flat_map(|recording| recording.chunks) {
            bytes += chunk.len();
            assert_eq!(chunk.len() % TS_PACKET, 0);
            assert!(chunk.chunks(TS_PACKET).all(|packet| packet[0] == TS_SYNC));
        }
        assert!(bytes < 2 << 20, "{bytes} bytes");
    }
}
