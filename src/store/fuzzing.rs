//! The decoders of what stands on disk. Checksums are made right before a second look, or nothing would ever pass them.

use std::path::Path;
use std::sync::Arc;

use super::frame::{self, HEADER, Header};
use super::header::{HEADER_BYTES, SegmentHeader};
use super::layout::{Layout, SegmentId};
use super::record::{self, ChunkRecord, Note};
use super::scan::{Found, walk};
use super::segment::Segment;
use super::word::{self, Slot, Word};
use super::{index, ledger, records, transfer};
use crate::disk::Disk;
use crate::disk::simulated::SimulatedDisk;

/// A decoder, and what it is called.
type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 10] = [
    ("segment_header", segment_header),
    ("word", state_word),
    ("frame", frame_header),
    ("segment", segment),
    ("chunk_record", chunk_record),
    ("note", note),
    ("ledger", ledger::fuzz),
    ("index_row", index::fuzz),
    ("record_log", records::fuzz),
    ("export", transfer::fuzz),
];

/// The first bytes, with zeros where there are none.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    let count = bytes.len().min(N);
    first[..count].copy_from_slice(&bytes[..count]);
    first
}

fn segment_header(bytes: &[u8]) {
    let mut header: [u8; HEADER_BYTES] = first(bytes);
    drop(SegmentHeader::decode(&header));
    header[..8].copy_from_slice(b"REELAYSG");
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    if let Ok(read) = SegmentHeader::decode(&header) {
        let again = SegmentHeader::decode(&read.encode()).expect("what we write we read");
        assert_eq!(again, read);
    }
}

fn state_word(bytes: &[u8]) {
    let all: [u8; 20] = first(bytes);
    let raw: [u8; 8] = first(&all);
    let nonce = u64::from_le_bytes(first(&all[8..]));
    let ordinal = u32::from_le_bytes(first(&all[16..]));
    let _ = Word::decode(raw, nonce, ordinal);
    let value = u64::from_le_bytes(raw) & ((1 << 48) - 1);
    let checked = value | u64::from(word::check(value, nonce, ordinal)) << 48;
    if let Slot::Word(read) = Word::decode(checked.to_le_bytes(), nonce, ordinal) {
        assert_eq!(read.encode(nonce, ordinal), checked.to_le_bytes());
        for changed in [read.failed(), read.crashed(), read.turned(read.state)] {
            let written = changed.encode(nonce, ordinal);
            assert_eq!(Word::decode(written, nonce, ordinal), Slot::Word(changed));
        }
    }
}

fn frame_header(bytes: &[u8]) {
    let seed = u32::from_le_bytes(first(bytes));
    let mut header: [u8; HEADER] = first(bytes.get(4..).unwrap_or_default());
    let _ = Header::decode(&header, seed);
    make_right(&mut header, seed);
    if let Some(read) = Header::decode(&header, seed) {
        assert_eq!(Header::decode(&read.encode(seed), seed), Some(read));
        assert!(read.frame_bytes() >= HEADER as u64);
    }
}

fn make_right(header: &mut [u8; HEADER], seed: u32) {
    header[..4].copy_from_slice(&0x5246_5231_u32.to_le_bytes());
    let crc = frame::checksum(seed, &[&header[..60]]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
}

/// A segment whose words and frames are anything: the walk ends, in order, and stays inside.
fn segment(bytes: &[u8]) {
    const NONCE: u64 = 7;
    let layout = Layout {
        segment_bytes: Layout::SMALLEST,
    };
    let header = SegmentHeader {
        id: SegmentId(1),
        segment_bytes: layout.segment_bytes,
        nonce: NONCE,
        predecessor: None,
    };
    let (disk, dir) = (SimulatedDisk::new(1), Path::new("/s"));
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let made = disk
        .create_dir(dir)
        .and_then(|()| Segment::create(&disk, dir, &header))
        .and_then(|segment| segment.publish(dir));
    let segment = made.expect("the simulated disk has no faults");
    let file = segment.file().expect("just made");
    let (control, rest) = bytes.split_at(bytes.len().min(4));
    let control: [u8; 4] = first(control);
    let count = usize::from(control[0] % 16);
    let (words, frames) = rest.split_at(rest.len().min(8 * count));
    for (ordinal, raw) in words.chunks(8).enumerate() {
        let value = u64::from_le_bytes(first(raw)) & ((1 << 48) - 1);
        let check = word::check(value, NONCE, ordinal as u32);
        let checked = value | u64::from(check) << 48;
        let at = layout.word_at(ordinal as u32);
        file.write_at(&[&checked.to_le_bytes()], at)
            .expect("no faults");
    }
    let mut body = frames[..frames.len().min(64 << 10)].to_vec();
    let start = layout.data_start();
    for at in (0..body.len()).step_by(16) {
        mend(&mut body[at..], frame::seed(NONCE, start + at as u64));
    }
    file.write_at(&[&body], start).expect("no faults");
    let end = (control[1] & 1 == 0).then_some(start as u32 + body.len() as u32);
    let mut last = None;
    let walked = walk(&segment, end, |step| {
        let from = step.start();
        if !matches!(step, Found::DamagedChunk { .. }) {
            assert!(
                last.is_none_or(|last| from > last),
                "{last:?} then {step:?}"
            );
            last = Some(from);
        }
        match &step {
            Found::Chunk { head, .. } => drop(super::recover::read_chunk(head)),
            Found::Note { head } => drop(Note::decode(&head.record)),
            _ => {}
        }
        Ok(())
    });
    walked.expect("no faults");
}

/// Makes the checks of a frame right where one seems to be meant.
fn mend(bytes: &mut [u8], seed: u32) {
    const MEANT: [u8; 4] = *b"1RFR";
    if bytes.len() < HEADER || bytes[..4] != MEANT {
        return;
    }
    let mut header: [u8; HEADER] = first(bytes);
    make_right(&mut header, seed);
    let Some(read) = Header::decode(&header, seed) else {
        return;
    };
    if let Some(body) = bytes.get(HEADER..HEADER + read.body_bytes()) {
        let crc = frame::checksum(seed, &[body]);
        header[56..60].copy_from_slice(&crc.to_le_bytes());
        make_right(&mut header, seed);
    }
    bytes[..HEADER].copy_from_slice(&header);
}

fn chunk_record(bytes: &[u8]) {
    if let Ok(read) = ChunkRecord::decode(bytes, 5) {
        let again = ChunkRecord::decode(&ChunkRecord::encode(&read), 5);
        assert_eq!(again, Ok(read));
    }
}

fn note(bytes: &[u8]) {
    if let Ok(read) = Note::decode(bytes) {
        let again = Note::decode(&read.encode());
        assert_eq!(again.as_ref(), Ok(&read));
        if let Note::Bury(burial) = read {
            assert!(record::bounded_history(burial.history).len() <= 8);
        }
    }
}
