//! What this host delivered of a session, in a size that does not grow with it: sequences as intervals, bytes, and a
//! digest that does not depend on the order in which chunks arrived (docs/adr/0017).

use serde::{Deserialize, Serialize};

use crate::model::{Digest, RecordingFacts};
use crate::store::intervals::Intervals;

/// Chunks of one session that receipts named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    sequences: Intervals,
    chunks: u64,
    bytes: u64,
    /// Lowercase hex of the exclusive or over the parts.
    #[serde(with = "hex")]
    digest: [u8; 32],
    /// The session had more gaps than are remembered: it cannot be compared.
    #[serde(default)]
    lost_count: bool,
}

impl Tally {
    /// A chunk was delivered; one that was counted before changes nothing.
    pub fn add(&mut self, sequence: u64, bytes: u64, digest: Digest) {
        if self.sequences.contains(sequence) {
            return;
        }
        if !self.sequences.has_room_for(sequence) {
            self.lost_count = true;
            return;
        }
        self.sequences.insert(sequence);
        self.chunks += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        for (sum, byte) in self.digest.iter_mut().zip(part_digest(sequence, digest)) {
            *sum ^= byte;
        }
    }

    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn digest(&self) -> String {
        Digest(self.digest).to_string()
    }

    /// Sequences between the first and the last that were not delivered.
    fn gaps(&self) -> Vec<(u64, u64)> {
        match (self.sequences.lowest(), self.sequences.highest()) {
            (Some(low), Some(high)) => self.sequences.holes(low, high),
            _ => Vec::new(),
        }
    }

    /// In which way the platform's account differs from this one; what it does not tell is not compared, but it must
    /// tell something.
    pub fn differences(&self, facts: &RecordingFacts) -> Vec<String> {
        if self.lost_count {
            return vec!["the session has more gaps than this host counts".to_owned()];
        }
        let mut found = Vec::new();
        let mut number = |what: &str, own: u64, theirs: Option<u64>| {
            if let Some(theirs) = theirs.filter(|theirs| *theirs != own) {
                found.push(format!(
                    "the platform has {theirs} {what}, this host delivered {own}"
                ));
            }
        };
        number("chunks", self.chunks, facts.chunks);
        number("bytes", self.bytes, facts.bytes);
        let digest = self.digest();
        if let Some(theirs) = facts.digest.as_ref().filter(|theirs| **theirs != digest) {
            found.push(format!(
                "the platform has {theirs}, this host delivered {digest}"
            ));
        }
        let inside = self.sequences.lowest().zip(self.sequences.highest());
        if let (Some(theirs), Some((low, high))) = (&facts.gaps, inside) {
            // Sequences outside of what was delivered are nobody's.
            let clipped: Vec<(u64, u64)> = theirs
                .iter()
                .map(|(first, last)| ((*first).max(low), (*last).min(high)))
                .filter(|(first, last)| first <= last)
                .collect();
            let own = self.gaps();
            if clipped != own {
                found.push(format!(
                    "the platform lacks {}, this host declared {}",
                    spans(&clipped),
                    spans(&own)
                ));
            }
        }
        if facts.chunks.is_none() && facts.bytes.is_none() && facts.digest.is_none() {
            found.push("the platform tells neither count nor bytes nor digest".to_owned());
        }
        found
    }
}

/// `BLAKE3(sequence as u64, little-endian, then the 32 bytes of the chunk's BLAKE3)`.
fn part_digest(sequence: u64, digest: Digest) -> [u8; 32] {
    let mut text = [0; 40];
    text[..8].copy_from_slice(&sequence.to_le_bytes());
    text[8..].copy_from_slice(&digest.0);
    Digest::of(&text).0
}

fn spans(gaps: &[(u64, u64)]) -> String {
    if gaps.is_empty() {
        return "nothing".to_owned();
    }
    let told: Vec<_> = gaps
        .iter()
        .take(8)
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    let more = if gaps.len() > told.len() { ", …" } else { "" };
    format!("{}{more}", told.join(", "))
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::model::Digest;

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Digest(*bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        Ok(text.parse::<Digest>().map_err(D::Error::custom)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sequences: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for sequence in sequences {
            tally.add(*sequence, 10, Digest::of(&sequence.to_le_bytes()));
        }
        tally
    }

    fn facts(of: &Tally) -> RecordingFacts {
        RecordingFacts {
            chunks: Some(of.chunks),
            bytes: Some(of.bytes),
            digest: Some(of.digest()),
            gaps: Some(of.gaps()),
            ..RecordingFacts::default()
        }
    }

    #[test]
    fn a_platform_that_has_other_bytes_more_or_less_is_found_out() {
        let own = tally(&[0, 1, 2, 5]);
        for (theirs, told) in [
            (tally(&[0, 1, 2]), "3 chunks, this host delivered 4"),
            (tally(&[0, 1, 2, 3, 5]), "5 chunks"),
            (tally(&[0, 1, 3, 5]), "lacks 2, 4, this host declared 3-4"),
            (Tally::default(), "0 bytes"),
        ] {
            let found = own.differences(&facts(&theirs)).join("; ");
            assert!(found.contains(told), "{found}");
        }
        let mut other = tally(&[0, 1, 2]);
        other.add(5, 10, Digest::of(b"other bytes"));
        let found = own.differences(&facts(&other));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("blake3:"), "{found:?}");
    }

    #[test]
    fn an_account_that_says_nothing_verifies_nothing() {
        let found = tally(&[0]).differences(&RecordingFacts::default());
        assert!(found[0].contains("neither count"), "{found:?}");
    }

    #[test]
    fn the_order_of_arrival_and_repeats_change_nothing() {
        let own = tally(&[0, 1, 2, 5]);
        let late = tally(&[5, 5, 2, 0, 1, 1]);
        assert_eq!(own, late);
        assert_eq!(own.differences(&facts(&late)), [""; 0]);
    }

    #[test]
    fn gaps_below_the_first_chunk_are_nobodys() {
        let own = tally(&[3, 4]);
        let mut theirs = facts(&own);
        theirs.gaps = Some(vec![(0, 2)]);
        assert_eq!(own.differences(&theirs), [""; 0]);
    }

    #[test]
    fn a_session_of_too_many_gaps_is_never_called_verified() {
        let sequences: Vec<u64> = (0..300).map(|n| n * 2).collect();
        let own = tally(&sequences);
        assert_eq!(own.differences(&facts(&own)).len(), 1);
    }

    /// The bytes of docs/PROTOCOL.md, so that a change of the formula is seen.
    #[test]
    fn the_digest_of_one_part_is_the_documented_one() {
        let own = tally(&[7]);
        let mut bytes = 7_u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(blake3::hash(&7_u64.to_le_bytes()).as_bytes());
        assert_eq!(
            own.digest(),
            format!("blake3:{}", blake3::hash(&bytes).to_hex())
        );
    }
}
