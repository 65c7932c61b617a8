//! Dead letters as they are shown, and what a verb on several of them did.

use super::some_dead;
use crate::control::refusal::Refusal;
use crate::control::running::Holder;
use crate::control::wire::{DeadMeta, DeadView, Moved, Which};
use crate::model::ChunkKey;
use crate::store::{DeadLetter, Redriven, StoreError};

pub fn view(letter: DeadLetter, with_history: bool) -> DeadView {
    DeadView {
        tenant: letter.key.tenant,
        session: letter.key.session,
        sequence: letter.key.sequence,
        reason: letter.reason,
        died_at: letter.died_at.to_string(),
        about: letter.meta.as_ref().map(DeadMeta::from),
        history: if with_history {
            letter.history
        } else {
            Vec::new()
        },
    }
}

pub fn moved(
    holder: &Holder,
    which: Which,
    verb: impl Fn(&ChunkKey) -> Result<Redriven, StoreError>,
) -> Result<Moved, Refusal> {
    let mut moved = Moved::default();
    for letter in some_dead(holder, which)? {
        if verb(&letter.key)? == Redriven::Done {
            moved.chunks += 1;
            moved.bytes += letter.meta.map_or(0, |meta| meta.bytes);
        }
    }
    Ok(moved)
}
