//! What became of one accepted chunk that waits no more: exactly, or as far as the store can still tell.

use super::Store;
use super::error::StoreError;
use super::index::Known;
use super::inner::Inner;
use super::types::Fate;
use super::{confirm, view};
use crate::model::{ChunkKey, ChunkState};

/// What the store has of a chunk that is no dead letter.
#[derive(Debug, Clone, Copy, Default)]
struct Evidence {
    /// Named by the ledger: its segment is gone, and it was not given again.
    lost: bool,
    confirming: bool,
    /// Its digest is in the index, and what that says it is.
    indexed: Option<ChunkState>,
    /// A person removed some chunk of the tenant.
    purged: bool,
    /// Some segment of the store is gone or cannot be read.
    losses: bool,
}

impl Store {
    /// What became of a chunk that was accepted and waits no more; dead letters are listed by [`Store::dead`].
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn fate(&self, key: &ChunkKey) -> Result<Fate, StoreError> {
        fate(&self.inner, key)
    }
}

fn fate(inner: &Inner, key: &ChunkKey) -> Result<Fate, StoreError> {
    let asked = key.clone();
    let indexed = inner.index.ask(move |tables| {
        let known = tables.known(&asked)?;
        Ok(match known {
            _ if tables.is_purged(&asked)? => Some(ChunkState::Purged),
            Some(Known::Owed(_)) => Some(ChunkState::Live),
            Some(Known::Settled(_)) => Some(ChunkState::Delivered),
            None => None,
        })
    });
    let balance = view::balance(inner);
    let tallies = inner.tallies();
    Ok(decide(Evidence {
        lost: inner.is_lost(key),
        confirming: confirm::is_confirming(inner, key)?,
        // A lost index tells nothing.
        indexed: indexed.ok().flatten(),
        purged: tallies
            .get(&key.tenant)
            .is_some_and(|tally| tally.purged.chunks > 0),
        losses: balance.lost.is_some() || balance.unreadable > 0,
    }))
}

fn decide(evidence: Evidence) -> Fate {
    let exactly = |state| Fate {
        may_be: vec![state],
        lost: false,
    };
    match evidence {
        Evidence { lost: true, .. } => Fate {
            may_be: Vec::new(),
            lost: true,
        },
        Evidence {
            confirming: true, ..
        } => exactly(ChunkState::Confirming),
        Evidence {
            indexed: Some(state),
            ..
        } => exactly(state),
        // The index was made anew since, from segments that this chunk is not in any more.
        Evidence { purged, losses, .. } => {
            let purged = purged.then_some(ChunkState::Purged);
            Fate {
                may_be: [ChunkState::Delivered].into_iter().chain(purged).collect(),
                lost: losses,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChunkState::{Confirming, Delivered, Live, Purged};

    #[test]
    fn nothing_is_doubtful_that_something_in_the_store_tells() {
        for purged in [false, true] {
            for losses in [false, true] {
                let evidence = Evidence {
                    purged,
                    losses,
                    ..Evidence::default()
                };
                for state in [Live, Delivered, Purged] {
                    let indexed = Some(state);
                    let fate = decide(Evidence {
                        indexed,
                        ..evidence
                    });
                    assert_eq!((fate.may_be, fate.lost), (vec![state], false));
                }
                // Its digest is known since the platform stored it.
                let fate = decide(Evidence {
                    confirming: true,
                    indexed: Some(Delivered),
                    ..evidence
                });
                assert_eq!((fate.may_be, fate.lost), (vec![Confirming], false));
                let fate = decide(Evidence {
                    lost: true,
                    indexed: Some(Delivered),
                    ..evidence
                });
                assert_eq!((fate.may_be, fate.lost), (vec![], true));
            }
        }
    }

    #[test]
    fn what_a_new_index_does_not_know_may_be_all_that_happened_here() {
        for (purged, losses, may_be) in [
            (false, false, vec![Delivered]),
            (true, false, vec![Delivered, Purged]),
            (false, true, vec![Delivered]),
        ] {
            let fate = decide(Evidence {
                purged,
                losses,
                ..Evidence::default()
            });
            assert_eq!((fate.may_be, fate.lost), (may_be, losses));
        }
    }
}
