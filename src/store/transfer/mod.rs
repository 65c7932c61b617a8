//! A backlog's way to another host: everything that is owed, with its identity, as one stream of checked frames
//! (`docs/FORMAT.md`, "Export").

mod export;
mod import;
pub mod wire;

pub use export::{ExportError, Exported};
pub use import::{ImportError, ImportFault, Imported, Refused};

use std::io::{Read, Write};

use super::Store;

impl Store {
    /// Writes everything that is owed, dead letters with their histories, and what is known of each session. Changes
    /// nothing. `seen` hears after each chunk how far it is: bytes so far and bytes expected.
    ///
    /// # Errors
    /// The writer's, or the medium's. Chunks that do not read back are no error: they are named and left out.
    pub fn export(
        &self,
        to: &mut dyn Write,
        seen: &mut dyn FnMut(u64, u64),
    ) -> Result<Exported, ExportError> {
        export::export(&self.inner, to, seen)
    }

    /// Takes in what another store exported. Each chunk is durable before the next is read; everything is when this
    /// returns. What is here already is known, and not changed: an import that was cut short is repeated whole.
    ///
    /// # Errors
    /// With what was taken in before. Single chunks that are refused are no error: they are named.
    pub fn import(
        &self,
        from: &mut dyn Read,
        seen: &mut dyn FnMut(u64, u64),
    ) -> Result<Imported, Box<ImportError>> {
        import::import(&self.inner, from, seen)
    }
}

/// For the fuzzer: a stream as it is, and one whose frames check.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(bytes: &[u8]) {
    let read = |mut bytes: &[u8]| -> Result<u64, wire::Fault> {
        let mut reader = wire::Reader::begin(&mut bytes)?;
        let mut entries = 0;
        loop {
            let entry = reader.entry()?;
            entries += 1;
            match entry {
                wire::Entry::Chunk(chunk) => reader.payload(&chunk).finish()?,
                wire::Entry::End(_) => return reader.expect_end().map(|()| entries),
                _ => {}
            }
        }
    };
    drop(read(bytes));
    drop(read(&wire::mended(bytes)));
}
