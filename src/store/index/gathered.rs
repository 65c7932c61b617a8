//! What fills an index anew: every chunk's fact, gathered by session while the segments are walked, then written a session at a
//! time in the order of the keys. A row is written once, where one fact after another would write it once a chunk.

use std::collections::{BTreeMap, HashMap};

use super::IndexFault;
use super::packed::{Entry, Owed, Seen};
use super::rows::sequence_key;
use super::tables::Tables;
use crate::model::SessionKey;

/// Some 1,700,000 owed chunks.
const FULL: usize = 32 << 20;
/// Length of the link before each fact.
const LINK: usize = 4;

/// What a chunk's frame and word say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Owed(Owed),
    Settled { seen: Seen, purged: bool },
}

/// Facts in the order of the walk, each with a link to the one before it of the same session.
#[derive(Debug, Default)]
pub struct Gathered {
    /// One behind the place of a session's last fact.
    last: HashMap<SessionKey, u32>,
    bytes: Vec<u8>,
    /// The first one owed: the others are written by their differences from it.
    base: Option<Owed>,
}

impl Gathered {
    pub fn add(&mut self, session: &SessionKey, fact: &Fact) {
        let here = self.bytes.len() as u32 + 1;
        let before = match self.last.get_mut(session) {
            Some(last) => std::mem::replace(last, here),
            None => {
                self.last.insert(session.clone(), here);
                0
            }
        };
        self.bytes.extend_from_slice(&before.to_le_bytes());
        match fact {
            Fact::Owed(owed) => {
                self.bytes.push(0);
                let base = self.base.get_or_insert_with(|| owed.clone());
                owed.pack(Some(base), &mut self.bytes);
            }
            Fact::Settled { seen, purged } => {
                self.bytes.push(1 + u8::from(*purged));
                seen.pack(None, &mut self.bytes);
            }
        }
    }

    /// What is gathered should be written before more is.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// A session's facts in the order of the walk.
    fn facts(&self, last: u32) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut next = last;
        while let Some(at) = next.checked_sub(1) {
            let (link, rest) = self.bytes[at as usize..]
                .split_first_chunk::<LINK>()
                .expect("a link stands before each fact");
            facts.push(self.fact(rest).expect("written by `add`"));
            next = u32::from_le_bytes(*link);
        }
        facts.reverse();
        facts
    }

    fn fact(&self, bytes: &[u8]) -> Option<Fact> {
        let (&kind, mut rest) = bytes.split_first()?;
        if kind > 0 {
            let seen = Seen::unpack(None, &mut rest)?;
            let purged = kind > 1;
            return Some(Fact::Settled { seen, purged });
        }
        Owed::unpack(self.base.as_ref(), &mut rest).map(Fact::Owed)
    }
}

impl Tables {
    /// Makes the index fit `gathered`. What it has already, as after a kill nearly all of it, is compared and not written. A part
    /// of the whole is added to what there is.
    pub fn fill(&mut self, gathered: &Gathered, is_whole: bool) -> Result<(), IndexFault> {
        if is_whole {
            let last = &gathered.last;
            self.owed.retain(|session| last.contains_key(session))?;
        }
        let sessions = gathered.last.iter();
        let mut sessions: Vec<(&SessionKey, u32)> = sessions.map(|(key, at)| (key, *at)).collect();
        sessions.sort_unstable();
        for (session, last) in sessions {
            let mut owed: Vec<Owed> = Vec::new();
            let mut seen: Vec<Seen> = Vec::new();
            for fact in gathered.facts(last) {
                match fact {
                    Fact::Owed(chunk) => owed.push(chunk),
                    Fact::Settled {
                        seen: chunk,
                        purged,
                    } => {
                        self.set_purged(&sequence_key(session, chunk.sequence), purged)?;
                        seen.push(chunk);
                    }
                }
            }
            match is_whole {
                true => self.owed.set(session, &in_order(owed))?,
                false => self.owed.merge(session, owed)?,
            }
            if !seen.is_empty() {
                self.seen.merge(session, seen)?;
            }
        }
        Ok(())
    }
}

/// By sequence; of two with one sequence the later one stays.
fn in_order(owed: Vec<Owed>) -> Vec<Owed> {
    if owed.is_sorted_by(|a, b| a.sequence < b.sequence) {
        return owed;
    }
    let by_sequence: BTreeMap<u64, Owed> = owed.into_iter().map(|it| (it.sequence, it)).collect();
    by_sequence.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::store::layout::SegmentId;

    #[test]
    fn facts_come_back_by_session_in_the_order_of_the_walk() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut gathered = Gathered::default();
        let mut plain: HashMap<SessionKey, Vec<Fact>> = HashMap::new();
        for number in 0..1000 {
            let session = SessionKey {
                tenant: "acme".parse().unwrap(),
                session: format!("s{}", random.u8(0..9)).parse().unwrap(),
            };
            let sequence = random.u64(0..100);
            let fact = if random.bool() {
                let digest = [random.u8(..); 32];
                Fact::Settled {
                    seen: Seen { sequence, digest },
                    purged: random.bool(),
                }
            } else {
                Fact::Owed(Owed {
                    sequence,
                    number,
                    segment: SegmentId(random.u32(1..9)),
                    ordinal: random.u32(..),
                    start: random.u32(..),
                    bytes: random.u64(..),
                    accepted_at: Timestamp(random.i64(..)),
                    print: random.u32(..),
                })
            };
            gathered.add(&session, &fact);
            plain.entry(session).or_default().push(fact);
        }
        assert_eq!(gathered.last.len(), plain.len());
        for (session, facts) in plain {
            assert_eq!(gathered.facts(gathered.last[&session]), facts);
        }
    }
}
