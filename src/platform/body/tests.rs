//! The encoder, against encoding everything at once; and every way in which a payload can fail.

use std::io::Cursor;

use base64::engine::general_purpose::STANDARD;

use std::io::Read;

use super::*;
use crate::disk::Payload;
use crate::model::{ChunkKey, ChunkMeta, Digest, Timestamp};

fn part(sequence: u64, bytes: u64, payload: impl Payload + 'static) -> Part {
    Part {
        meta: ChunkMeta {
            key: ChunkKey {
                tenant: "acme".parse().unwrap(),
                session: "s1".parse().unwrap(),
                sequence,
            },
            host: "h".parse().unwrap(),
            started_at: Timestamp(0),
            duration_ms: 0,
            media_type: String::new(),
            last: false,
            bytes,
            digest: Digest([0; 32]),
        },
        payload: Box::new(payload),
    }
}

/// Gives pieces of unequal size, interrupted now and then, and ends as told.
struct Ragged {
    rng: fastrand::Rng,
    left: Cursor<Vec<u8>>,
    end: Option<io::ErrorKind>,
}

impl Ragged {
    fn of(payload: Vec<u8>, end: Option<io::ErrorKind>) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(payload.len() as u64),
            left: Cursor::new(payload),
            end,
        }
    }
}

impl Read for Ragged {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.rng.u8(..8) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = self.rng.usize(1..=40_000).min(into.len());
        match (self.left.read(&mut into[..most])?, self.end) {
            (0, Some(kind)) => Err(kind.into()),
            (count, _) => Ok(count),
        }
    }
}

impl Payload for Ragged {}

fn noise(bytes: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(bytes as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(bytes).collect()
}

/// What was made, and how it ended.
fn run(parts: Vec<Part>) -> (Vec<u8>, Result<(), PayloadFault>) {
    let mut encoder = Encoder::new(Encoding::base64(b"{\"payload\":\"".to_vec()), parts);
    let mut made = Vec::new();
    loop {
        match encoder.next_block() {
            Ok(Some(block)) => {
                assert!(
                    block.len() <= BLOCK * 4 / 3 + 32,
                    "a block of {}",
                    block.len()
                );
                made.extend_from_slice(&block);
            }
            Ok(None) => return (made, Ok(())),
            Err(fault) => return (made, Err(fault)),
        }
    }
}

#[test]
fn however_payloads_are_cut_the_body_is_their_base64_in_one() {
    let b = BLOCK;
    let cases: &[&[usize]] = &[
        &[0],
        &[1],
        &[2],
        &[3],
        &[b - 1],
        &[b],
        &[b + 1],
        &[b + 2],
        &[b + 3],
        &[3 * b + 7],
        &[0, 0, 0],
        &[1, 1, 1, 1],
        &[1, 0, 2, b, 1],
        &[b, b, b],
        &[b + 1, b + 1, b + 1],
        &[5 * b + 1, 2, 100, b - 3],
        &[STRIDE - 1, 2, STRIDE],
        &[STRIDE + 1],
    ];
    for sizes in cases {
        let payloads: Vec<Vec<u8>> = sizes.iter().map(|size| noise(*size)).collect();
        let parts = (7..).zip(&payloads).map(|(sequence, payload)| {
            let reader = Ragged::of(payload.clone(), None);
            part(sequence, payload.len() as u64, reader)
        });
        let (made, ended) = run(parts.collect());
        ended.unwrap();
        let expected = format!("{{\"payload\":\"{}\"}}", STANDARD.encode(payloads.concat()));
        assert!(made == expected.into_bytes(), "{sizes:?}");
    }
}

#[test]
fn a_plain_body_is_the_payloads_and_nothing_else() {
    for sizes in [
        vec![1],
        vec![BLOCK, 1, 0, BLOCK + 1],
        vec![3 * BLOCK + 7, 2],
    ] {
        let payloads: Vec<Vec<u8>> = sizes.iter().map(|size| noise(*size)).collect();
        let parts = (7..).zip(&payloads).map(|(sequence, payload)| {
            let reader = Ragged::of(payload.clone(), None);
            part(sequence, payload.len() as u64, reader)
        });
        let mut encoder = Encoder::new(Encoding::Plain, parts.collect());
        let mut made = Vec::new();
        while let Some(block) = encoder.next_block().unwrap() {
            made.extend_from_slice(&block);
        }
        assert!(made == payloads.concat(), "{sizes:?}");
    }
}

#[test]
fn the_announced_length_is_the_length_made() {
    let edges = [STRIDE, BLOCK].map(|edge| edge - 3..edge + 4);
    for bytes in (0..10).chain(edges.into_iter().flatten()) {
        let (made, _) = run(vec![part(7, bytes as u64, Cursor::new(noise(bytes)))]);
        let framing = b"{\"payload\":\"".len() + SUFFIX.len();
        let announced = crate::platform::wire::encoded_length(bytes as u64);
        assert_eq!(made.len() as u64, announced + framing as u64);
    }
}

#[test]
fn damage_ends_the_body_before_its_end_and_names_the_sequence() {
    let damaged = Some(io::ErrorKind::InvalidData);
    for size in [0, 1, BLOCK, BLOCK + 2, 3 * BLOCK + 1] {
        let good = part(7, 10, Cursor::new(noise(10)));
        // The checksum that fails is the last one: every byte was read.
        let bad = part(8, size as u64, Ragged::of(noise(size), damaged));
        let (made, ended) = run(vec![good, bad]);
        let fault = ended.unwrap_err();
        assert!(fault.is_damage());
        assert_eq!(fault.to_string(), "the payload of sequence 8 is damaged");
        assert!(!made.ends_with(SUFFIX));
        let sent = made.len().saturating_sub(b"{\"payload\":\"".len());
        let whole = crate::platform::wire::encoded_length(10 + size as u64);
        assert!((sent as u64) < whole, "all {whole} of it were sent");
    }
}

#[test]
fn a_payload_of_another_length_than_announced_is_damaged() {
    for (held, announced, message) in [
        (9, 10, "the payload of sequence 7 ends after 9 of 10 bytes"),
        (0, 1, "the payload of sequence 7 ends after 0 of 1 bytes"),
        (
            11,
            10,
            "the payload of sequence 7 goes on after its 10 bytes",
        ),
        (1, 0, "the payload of sequence 7 goes on after its 0 bytes"),
        (
            BLOCK + 1,
            BLOCK as u64,
            format!("the payload of sequence 7 goes on after its {BLOCK} bytes").as_str(),
        ),
    ] {
        let (made, ended) = run(vec![part(7, announced, Cursor::new(noise(held)))]);
        let fault = ended.unwrap_err();
        assert!(fault.is_damage());
        assert_eq!(fault.to_string(), message);
        assert!(made.is_empty(), "something of a wrong payload was sent");
    }
}

#[test]
fn a_disk_error_is_not_damage() {
    let broken = Ragged::of(noise(5), Some(io::ErrorKind::NotConnected));
    let fault = run(vec![part(7, 10, broken)]).1.unwrap_err();
    assert!(!fault.is_damage());
    assert_eq!(fault.to_string(), "reading the payload of sequence 7");
}
