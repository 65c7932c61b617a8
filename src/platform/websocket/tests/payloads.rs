//! A delivery's payload, frame by frame.

use std::io::{self, Cursor, Read};

use super::super::blocks::Blocks;
use super::*;
use crate::disk::Payload;
use crate::platform::Part;

/// Any reader as a payload that can be read once.
struct Once(Box<dyn Read + Send>);

impl Read for Once {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Payload for Once {}

fn part(sequence: u64, announced: u64, reader: impl Read + Send + 'static) -> Part {
    let mut meta = meta("s1", 0, 1);
    meta.key.sequence = sequence;
    meta.bytes = announced;
    Part {
        meta,
        payload: Box::new(Once(Box::new(reader))),
    }
}

fn parts(lengths: &[u64]) -> (Vec<Part>, Vec<u8>) {
    let payloads: Vec<Vec<u8>> = (0..)
        .zip(lengths)
        .map(|(n, bytes)| payload("s1", n, *bytes))
        .collect();
    let whole = payloads.concat();
    let parts = (0..).zip(payloads);
    let parts = parts.map(|(n, bytes)| part(n, bytes.len() as u64, Cursor::new(bytes)));
    (parts.collect(), whole)
}

#[test]
fn frames_are_full_but_the_last_whatever_the_parts() {
    let room = (FRAME_MAX - FRAME_HEAD) as u64;
    for lengths in [
        vec![1],
        vec![room],
        vec![room + 1],
        vec![room - 1, 2],
        vec![1; 64],
        vec![10, 0, 3 * room, 5],
    ] {
        let (parts, whole) = parts(&lengths);
        let mut blocks = Blocks::of(parts);
        let mut sent = Vec::new();
        loop {
            let block = blocks.next().unwrap();
            if block.is_empty() {
                break;
            }
            assert!(block.len() <= FRAME_MAX);
            sent.extend_from_slice(&block[FRAME_HEAD..]);
            assert!(block.len() == FRAME_MAX || sent.len() == whole.len());
        }
        assert!(sent == whole, "{lengths:?}");
    }
}

#[test]
fn parts_that_are_not_wanted_are_not_read() {
    let broken = part(1, 10, Cursor::new(Vec::new()));
    let wanted = part(2, 3, Cursor::new(b"two".to_vec()));
    let mut blocks = Blocks::of(vec![broken, wanted]);
    blocks.keep(2, 2);
    assert_eq!(blocks.next().unwrap()[FRAME_HEAD..], *b"two");
}

#[test]
fn a_payload_is_read_to_its_end_before_its_last_byte_is_given() {
    struct Bad;
    impl Read for Bad {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
    let cases: [(Box<dyn Read + Send>, &str); 4] = [
        (
            Box::new(Cursor::new(vec![1; 9])),
            "the payload of sequence 0 ends after 9 of 10 bytes",
        ),
        (
            Box::new(Cursor::new(vec![1; 11])),
            "the payload of sequence 0 goes on after its 10 bytes",
        ),
        (
            Box::new(Cursor::new(vec![1; 10]).chain(Bad)),
            "the payload of sequence 0 is damaged",
        ),
        (Box::new(Bad), "the payload of sequence 0 is damaged"),
    ];
    for (reader, why) in cases {
        let fault = Blocks::of(vec![part(0, 10, reader)]).next().unwrap_err();
        assert_eq!(fault.to_string(), why);
        assert!(fault.is_damage());
    }
}
