//! What packed rows are made of. An entry is written by its differences from the one before it, as numbers of as many bytes
//! as they need: those of a session are alike, so that an owed chunk takes some 18 bytes instead of 40.

use crate::model::Timestamp;
use crate::store::layout::SegmentId;

pub trait Entry: Clone + PartialEq {
    fn sequence(&self) -> u64;
    fn pack(&self, before: Option<&Self>, out: &mut Vec<u8>);
    /// Takes one entry off the front. `None`: it is none.
    fn unpack(before: Option<&Self>, bytes: &mut &[u8]) -> Option<Self>;
}

/// An owed chunk. Its digest stands in its frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub sequence: u64,
    pub number: u64,
    pub segment: SegmentId,
    pub ordinal: u32,
    pub start: u32,
    pub bytes: u64,
    pub accepted_at: Timestamp,
    /// The first bytes of its digest: whatever has others is not the same.
    pub print: u32,
}

/// A chunk that was owed once and is remembered by its digest, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub sequence: u64,
    pub digest: [u8; 32],
}

impl Owed {
    fn numbers(&self) -> [u64; 7] {
        [
            self.sequence,
            self.number,
            self.segment.0.into(),
            self.ordinal.into(),
            self.start.into(),
            self.bytes,
            self.accepted_at.0 as u64,
        ]
    }
}

impl Entry for Owed {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn pack(&self, before: Option<&Self>, out: &mut Vec<u8>) {
        let before = before.map_or([0; 7], Self::numbers);
        for (number, before) in self.numbers().into_iter().zip(before) {
            put_number(zigzag(number.wrapping_sub(before) as i64), out);
        }
        out.extend_from_slice(&self.print.to_le_bytes());
    }

    fn unpack(before: Option<&Self>, bytes: &mut &[u8]) -> Option<Self> {
        let mut numbers = before.map_or([0; 7], Self::numbers);
        for number in &mut numbers {
            *number = number.wrapping_add(unzigzag(take_number(bytes)?) as u64);
        }
        let [
            sequence,
            number,
            segment,
            ordinal,
            start,
            length,
            accepted_at,
        ] = numbers;
        let (print, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        Some(Self {
            sequence,
            number,
            segment: SegmentId(segment.try_into().ok()?),
            ordinal: ordinal.try_into().ok()?,
            start: start.try_into().ok()?,
            bytes: length,
            accepted_at: Timestamp(accepted_at as i64),
            print: u32::from_le_bytes(*print),
        })
    }
}

impl Entry for Seen {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn pack(&self, before: Option<&Self>, out: &mut Vec<u8>) {
        let before = before.map_or(0, |before| before.sequence);
        put_number(zigzag(self.sequence.wrapping_sub(before) as i64), out);
        out.extend_from_slice(&self.digest);
    }

    fn unpack(before: Option<&Self>, bytes: &mut &[u8]) -> Option<Self> {
        let before = before.map_or(0, |before| before.sequence);
        let sequence = before.wrapping_add(unzigzag(take_number(bytes)?) as u64);
        let (digest, rest) = bytes.split_first_chunk::<32>()?;
        *bytes = rest;
        Some(Self {
            sequence,
            digest: *digest,
        })
    }
}

/// Near zero, whatever the sign.
fn zigzag(difference: i64) -> u64 {
    ((difference << 1) ^ (difference >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Seven bits a byte, the lowest first; the highest bit says that more follows.
fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_read_back_and_too_large_ones_do_not() {
        for shift in 0..64 {
            for number in [1u64 << shift, (1 << shift) - 1, u64::MAX - (1 << shift)] {
                let mut bytes = Vec::new();
                put_number(number, &mut bytes);
                assert_eq!(take_number(&mut bytes.as_slice()), Some(number));
                assert_eq!(take_number(&mut &bytes[..bytes.len() - 1]), None);
                assert_eq!(zigzag(unzigzag(number)), number);
            }
        }
        let mut too_large = [0xff; 10];
        too_large[9] = 2;
        assert_eq!(take_number(&mut too_large.as_slice()), None);
        assert_eq!(take_number(&mut [0xff; 11].as_slice()), None);
    }

    #[test]
    fn entries_read_back_in_any_order_and_an_ordinary_one_is_small() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut any = || Owed {
            sequence: random.u64(..),
            number: random.u64(..),
            segment: SegmentId(random.u32(..)),
            ordinal: random.u32(..),
            start: random.u32(..),
            bytes: random.u64(..),
            accepted_at: Timestamp(random.i64(..)),
            print: random.u32(..),
        };
        let (first, second) = (any(), any());
        let mut bytes = Vec::new();
        first.pack(None, &mut bytes);
        second.pack(Some(&first), &mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(Owed::unpack(None, &mut rest), Some(first.clone()));
        assert_eq!(Owed::unpack(Some(&first), &mut rest), Some(second));
        assert!(rest.is_empty());

        let next = Owed {
            sequence: first.sequence.wrapping_add(1),
            number: first.number.wrapping_add(200),
            ordinal: first.ordinal ^ 64,
            accepted_at: Timestamp(first.accepted_at.0.wrapping_add(900)),
            ..first.clone()
        };
        bytes.clear();
        next.pack(Some(&first), &mut bytes);
        assert!(bytes.len() <= 16, "{}", bytes.len());
    }
}
