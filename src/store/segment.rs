//! One segment file: header, state table and frames by place. Knows nothing of what the chunks mean to the queue.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::covered::Covered;
use super::frame::{self, Decoded, Header, Kind};
use super::header::{HEADER_BYTES, HeaderFault, SegmentHeader};
use super::layout::{HEADER_COPIES, Layout, PAGE, SYNCED_AT, SegmentId};
use super::word::{Slot, Word};
use crate::disk::{Disk, DiskFile};

/// A read that fails is tried so often before its bytes count as damaged.
const READ_TRIES: u32 = 3;

/// A chunk or note frame without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHead {
    pub start: u32,
    pub header: Header,
    pub record: Vec<u8>,
    /// CRC-32 a block of an inline payload.
    pub block_crcs: Vec<u32>,
}

impl FrameHead {
    pub fn payload_at(&self) -> u64 {
        u64::from(self.start) + (frame::HEADER + self.header.body_bytes()) as u64
    }

    /// Where the next frame begins, if there is one.
    pub fn next(&self) -> u64 {
        let end = u64::from(self.start) + self.header.frame_bytes();
        if self.header.ends_commit {
            super::layout::align(end, PAGE)
        } else {
            end
        }
    }
}

/// A frame that should be there does not read back, for whatever reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

pub struct Segment {
    pub id: SegmentId,
    pub layout: Layout,
    pub nonce: u64,
    pub path: PathBuf,
    disk: Arc<dyn Disk>,
    /// Opened at first use, closed by [`Segment::close_file`].
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Serialises changes of words.
    words: Mutex<()>,
    /// Of the words that this process wrote.
    covered: Covered,
    /// Words of an earlier process wait for their first sync.
    inherited: AtomicBool,
    /// One sync at a time, and what came of them: the system tells of a failure once, to whoever asks first.
    sync_failed: Mutex<SyncFailed>,
}

#[derive(Debug, Default)]
struct SyncFailed {
    /// Some sync failed: no frame of this file written before can be called durable by a later one.
    ever: bool,
    /// Words written before the last failed sync may be on no medium, and no cache knows.
    words: bool,
}

impl Segment {
    /// Opens an existing segment by its header.
    pub fn open(disk: &Arc<dyn Disk>, path: &Path) -> Result<(Self, SegmentHeader), HeaderFault> {
        let file = disk.open(path).map_err(HeaderFault::Io)?;
        let mut fault = HeaderFault::Damaged;
        for at in HEADER_COPIES {
            let mut bytes = [0; HEADER_BYTES];
            let read = read_patiently(file.as_ref(), &mut bytes, at).map_err(HeaderFault::Io)?;
            if read < HEADER_BYTES {
                continue;
            }
            match SegmentHeader::decode(&bytes) {
                Ok(header) => return Ok((Self::new(disk, path, &header, Some(file)), header)),
                Err(other) => fault = other,
            }
        }
        Err(fault)
    }

    /// Makes `<id>.seg.new` with its header and its whole length reserved. It becomes a segment by [`Segment::publish`].
    pub fn create(disk: &Arc<dyn Disk>, dir: &Path, header: &SegmentHeader) -> io::Result<Self> {
        let path = dir.join(format!("{}.new", header.id.file_name()));
        let file = match disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&path)?;
                disk.create(&path)?
            }
            other => other?,
        };
        let prepared = file.allocate(header.segment_bytes).and_then(|()| {
            HEADER_COPIES
                .iter()
                .try_for_each(|&at| file.write_at(&[&header.encode()], at))
        });
        if let Err(error) = prepared {
            // The name must not stay behind on a full disk; the cause matters more than this.
            let _ = disk.remove(&path);
            return Err(error);
        }
        Ok(Self::new(disk, &path, header, Some(file)))
    }

    /// Syncs a created segment and gives it its name.
    pub fn publish(mut self, dir: &Path) -> io::Result<Self> {
        self.sync()?;
        let path = dir.join(self.id.file_name());
        self.disk.rename(&self.path, &path)?;
        self.disk.sync_dir(dir)?;
        self.path = path;
        Ok(self)
    }

    fn new(
        disk: &Arc<dyn Disk>,
        path: &Path,
        header: &SegmentHeader,
        file: Option<Arc<dyn DiskFile>>,
    ) -> Self {
        Self {
            id: header.id,
            layout: Layout {
                segment_bytes: header.segment_bytes,
            },
            nonce: header.nonce,
            path: path.to_owned(),
            disk: Arc::clone(disk),
            file: Mutex::new(file),
            words: Mutex::new(()),
            covered: Covered::default(),
            inherited: AtomicBool::new(false),
            sync_failed: Mutex::default(),
        }
    }

    pub fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        let mut slot = self.file.lock().expect("no holder panics");
        if let Some(file) = slot.as_ref() {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&self.path)?;
        *slot = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Gives the descriptor back; readers under way keep theirs. One that wrote words is kept until they are synced,
    /// because the system tells of a failure to who held the file meanwhile.
    pub fn close_file(&self) {
        if !self.covered.is_behind() {
            *self.file.lock().expect("no holder panics") = None;
        }
    }

    /// The words were written by a process that ended without a close: whether they are on the medium is not known.
    pub fn inherit_words(&self) {
        self.sync_failed.lock().expect("no holder panics").words = true;
        self.inherited.store(true, Ordering::Release);
    }

    /// Makes every frame and word written so far durable.
    ///
    /// # Errors
    /// The medium's; and every call after one that failed, whoever made that one.
    pub fn sync(&self) -> io::Result<()> {
        let mut failed = self.syncs()?;
        if failed.ever {
            return Err(io::Error::other("an earlier sync of this segment failed"));
        }
        self.sync_file(&mut failed)
    }

    /// Nobody else syncs meanwhile. A driver that panicked in a sync may have left anything behind.
    fn syncs(&self) -> io::Result<MutexGuard<'_, SyncFailed>> {
        let panicked = |_| io::Error::other("a sync of this segment panicked");
        self.sync_failed.lock().map_err(panicked)
    }

    /// Makes the words durable, also after a failed sync: then they are written again first.
    pub fn sync_words(&self) -> io::Result<()> {
        let mut failed = self.syncs()?;
        if failed.words {
            let _guard = self.words.lock().expect("no holder panics");
            let file = self.file()?;
            let mut table = vec![0; 8 * self.layout.words() as usize];
            read_patiently(file.as_ref(), &mut table, self.layout.word_at(0))?;
            let used = table
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |at| at + 1);
            file.write_at(&[&table[..used]], self.layout.word_at(0))?;
        }
        self.sync_file(&mut failed)
    }

    fn sync_file(&self, failed: &mut SyncFailed) -> io::Result<()> {
        let begun = self.covered.begins();
        let result = self.file()?.sync();
        failed.words = result.is_err();
        failed.ever |= failed.words;
        // Not before the sync has ended: others unlink what the words make superfluous.
        if failed.words {
            self.covered.wrote();
        } else {
            self.covered.ended(begun);
            self.inherited.store(false, Ordering::Release);
        }
        result
    }

    pub fn has_unsynced_words(&self) -> bool {
        self.covered.is_behind() || self.inherited.load(Ordering::Acquire)
    }

    pub fn read_word(&self, ordinal: u32) -> io::Result<Slot> {
        if ordinal >= self.layout.words() {
            return Ok(Slot::Unused);
        }
        let mut bytes = [0; 8];
        read_patiently(
            self.file()?.as_ref(),
            &mut bytes,
            self.layout.word_at(ordinal),
        )?;
        Ok(Word::decode(bytes, self.nonce, ordinal))
    }

    /// Words from `first` on, as many as fit `count`; one read.
    pub fn read_words(&self, first: u32, count: u32) -> io::Result<Vec<Slot>> {
        let count = count.min(self.layout.words().saturating_sub(first));
        let mut bytes = vec![0; 8 * count as usize];
        read_patiently(
            self.file()?.as_ref(),
            &mut bytes,
            self.layout.word_at(first),
        )?;
        Ok(bytes
            .chunks_exact(8)
            .zip(first..)
            .map(|(word, ordinal)| {
                Word::decode(word.try_into().expect("8 bytes"), self.nonce, ordinal)
            })
            .collect())
    }

    pub fn write_words(&self, first: u32, words: &[Word]) -> io::Result<()> {
        let bytes: Vec<u8> = words
            .iter()
            .zip(first..)
            .flat_map(|(word, ordinal)| word.encode(self.nonce, ordinal))
            .collect();
        self.file()?
            .write_at(&[&bytes], self.layout.word_at(first))?;
        self.covered.wrote();
        Ok(())
    }

    /// Changes one word under the segment's lock. An unreadable word is taken as live, as everywhere.
    ///
    /// `change` gets the word and returns the new one, or `None` to leave it; the word in force is returned.
    pub fn change_word(
        &self,
        ordinal: u32,
        start: u32,
        change: impl FnOnce(Word) -> Option<Word>,
    ) -> io::Result<Word> {
        let _guard = self.words.lock().expect("no holder panics");
        let word = match self.read_word(ordinal)? {
            Slot::Word(word) => word,
            Slot::Unused | Slot::Unreadable => Word::new(start),
        };
        match change(word) {
            Some(changed) => {
                self.write_words(ordinal, &[changed])?;
                Ok(changed)
            }
            None => Ok(word),
        }
    }

    /// The durable end that this segment's synced word tells; 0 if it tells nothing.
    pub fn read_synced(&self) -> io::Result<u32> {
        let mut bytes = [0; 8];
        read_patiently(self.file()?.as_ref(), &mut bytes, SYNCED_AT)?;
        let end = u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"));
        let crc = u32::from_le_bytes(bytes[4..].try_into().expect("4 bytes"));
        let fits = crc == frame::checksum(frame::seed(self.nonce, SYNCED_AT), &[&bytes[..4]]);
        Ok(if fits { end } else { 0 })
    }

    pub fn write_synced(&self, end: u32) -> io::Result<()> {
        let end = end.to_le_bytes();
        let crc = frame::checksum(frame::seed(self.nonce, SYNCED_AT), &[&end]).to_le_bytes();
        self.file()?.write_at(&[&end, &crc], SYNCED_AT)
    }

    pub fn read_frame(&self, start: u32) -> Result<FrameHead, Unreadable> {
        let file = self.file().map_err(|_| Unreadable)?;
        // One read covers the header and almost every record.
        let mut bytes = vec![0; 1024];
        loop {
            let read = read_patiently(file.as_ref(), &mut bytes, u64::from(start))
                .map_err(|_| Unreadable)?;
            match frame::decode(self.nonce, start, &bytes[..read])? {
                Decoded::Head(head) => return Ok(head),
                Decoded::Needs(wanted) if bytes.len() < wanted => bytes.resize(wanted, 0),
                Decoded::Needs(_) => return Err(Unreadable),
            }
        }
    }
}

/// One frame to be written: everything but its place.
pub struct NewFrame {
    pub kind: Kind,
    pub record: Vec<u8>,
    pub block_crcs: Vec<u8>,
    pub payload: Vec<u8>,
    pub number: u64,
    pub accepted_at: crate::model::Timestamp,
}

impl NewFrame {
    /// What the frame takes, padded.
    pub fn bytes(&self) -> u64 {
        let payload = self.payload.len() as u64;
        let body = (frame::HEADER + self.record.len() + self.block_crcs.len()) as u64;
        super::layout::align(body + payload, super::layout::ALIGN)
    }

    /// The header and the body as they stand at `start`; `kind` has the ordinal of that place.
    pub fn encode_as(
        &self,
        kind: Kind,
        nonce: u64,
        start: u64,
        synced: super::layout::Position,
        ends_commit: bool,
    ) -> Vec<u8> {
        let seed = frame::seed(nonce, start);
        let header = Header {
            kind,
            record_bytes: self.record.len() as u32,
            number: self.number,
            synced,
            accepted_at: self.accepted_at,
            ends_commit,
            body_crc: frame::checksum(seed, &[&self.record, &self.block_crcs]),
        };
        let mut bytes =
            Vec::with_capacity(frame::HEADER + self.record.len() + self.block_crcs.len());
        bytes.extend_from_slice(&header.encode(seed));
        bytes.extend_from_slice(&self.record);
        bytes.extend_from_slice(&self.block_crcs);
        bytes
    }
}

/// Reads with a few tries, because a medium may recover.
pub fn read_patiently(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut tries = 1;
    loop {
        match file.read_at(buffer, offset) {
            Err(_) if tries < READ_TRIES => tries += 1,
            other => return other,
        }
    }
}
