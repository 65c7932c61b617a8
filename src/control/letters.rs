//! Dead letters as an operator asks for them: found, shown, moved.

use crate::model::ChunkKey;
use crate::store::{DeadFilter, DeadLetter, Redriven, StoreError};

use super::answer;
use super::refusal::{Code, Refusal};
use super::running::Holder;
use super::wire::{DeadMeta, DeadView, Moved, Which};

pub fn dead(holder: &Holder, which: Which, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
    holder.store.dead(&DeadFilter {
        tenant: which.tenant,
        session: which.session,
        sequence: which.sequence,
        limit,
    })
}

/// The dead letters meant; none is an answer that a person should notice.
pub fn some_dead(holder: &Holder, which: Which) -> Result<Vec<DeadLetter>, Refusal> {
    if let Some(tenant) = &which.tenant {
        answer::known(holder, tenant)?;
    }
    let letters = dead(holder, which, 0)?;
    if letters.is_empty() {
        return Err(Refusal::new(Code::NotFound, "no such dead letter"));
    }
    Ok(letters)
}

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
