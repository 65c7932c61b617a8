//! How a record stands in the file: `RREC`, u32 length of the body, u32 CRC-32 of length and body, body (JSON), zeros up
//! to a multiple of 8. Little-endian. A frame can be found again behind damage, because it says where it begins.

use std::io;

use crate::disk::DiskFile;

const MAGIC: [u8; 4] = *b"RREC";
pub const HEAD: u64 = 12;
/// Frames begin at multiples of this.
pub const ALIGN: u64 = 8;
/// A longer body is not written, and not believed.
pub const BODY_MAX: usize = 64 * 1024;
/// What a scan reads at once.
const WINDOW: usize = 1 << 20;

/// Appends one frame; `false`: the body is too long, nothing was appended.
pub fn encode(body: &[u8], to: &mut Vec<u8>) -> bool {
    if body.len() > BODY_MAX {
        return false;
    }
    let length = u32::try_from(body.len())
        .expect("bounded above")
        .to_le_bytes();
    to.extend_from_slice(&MAGIC);
    to.extend_from_slice(&length);
    to.extend_from_slice(&checksum(length, body).to_le_bytes());
    to.extend_from_slice(body);
    to.resize(to.len().next_multiple_of(ALIGN as usize), 0);
    true
}

/// The whole length of a frame with a body of `length` bytes.
pub fn framed(length: u32) -> u64 {
    (HEAD + u64::from(length)).next_multiple_of(ALIGN)
}

/// The body of the frame that `bytes` begins with; `None`: that is none.
pub fn decode(bytes: &[u8]) -> Option<&[u8]> {
    let head = bytes.get(..HEAD as usize)?;
    let length: [u8; 4] = head[4..8].try_into().ok()?;
    let sum = u32::from_le_bytes(head[8..12].try_into().ok()?);
    let size = usize::try_from(u32::from_le_bytes(length)).ok()?;
    if head[..4] != MAGIC || size > BODY_MAX {
        return None;
    }
    let body = bytes.get(HEAD as usize..HEAD as usize + size)?;
    (checksum(length, body) == sum).then_some(body)
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length);
    sum.update(body);
    sum.finalize()
}

/// What a scan came upon.
pub enum Found<'a> {
    /// A frame's offset and body.
    Frame(u64, &'a [u8]),
    /// Bytes that are no frame, with a frame behind them.
    Damage(u64, u64),
}

/// Walks the frames from `start`, in bounded memory. Where the last one ends; what stands behind it is a tail that was
/// never promised.
pub fn scan(file: &dyn DiskFile, start: u64, mut each: impl FnMut(Found<'_>)) -> io::Result<u64> {
    let length = file.length()?;
    let mut window = Vec::new();
    let mut base = start;
    let mut at = start;
    let mut good = start;
    while at < length {
        // A frame and its head fit behind `at`, unless the file ends before.
        let needed = HEAD + BODY_MAX as u64 + ALIGN;
        if at < base
            || at + needed > base + window.len() as u64 && base + (window.len() as u64) < length
        {
            let size = (length - at).min(WINDOW as u64);
            window.resize(usize::try_from(size).unwrap_or(WINDOW), 0);
            let read = file.read_at(&mut window, at)?;
            window.truncate(read);
            base = at;
            if read == 0 {
                break;
            }
        }
        let here = usize::try_from(at - base).unwrap_or(usize::MAX);
        match window.get(here..).and_then(decode) {
            Some(body) => {
                if good < at {
                    each(Found::Damage(good, at));
                }
                each(Found::Frame(at, body));
                at += framed(u32::try_from(body.len()).expect("bounded"));
                good = at;
            }
            None => at += ALIGN,
        }
    }
    Ok(good)
}
