//! Who records what, and who meets which fault: a function of the seed.

use crate::chance::Chance;

use super::recording::{RECORDINGS, Recording};

/// The sandbox's first three tenants.
pub(super) const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// Sessions that each tenant records at once.
const SESSIONS: usize = 2;

/// One session of one tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) tenant: &'static str,
    pub(super) recording: Recording,
}

#[derive(Debug)]
pub(super) struct Cast {
    /// In the order in which they hand over.
    pub(super) parts: Vec<Part>,
    /// Runs into its quota.
    pub(super) throttled: &'static str,
    /// Loses its scope.
    pub(super) unscoped: &'static str,
    /// Renews its token at a 401 only.
    pub(super) reactive: &'static str,
}

impl Cast {
    pub(super) fn new(seed: u64) -> Self {
        let chance = Chance::seeded(seed);
        let mut roles = TENANTS;
        shuffle(&mut roles, &chance);
        let mut parts = Vec::new();
        for (place, tenant) in TENANTS.into_iter().enumerate() {
            for next in 0..SESSIONS {
                let recording = RECORDINGS[(place + next) % RECORDINGS.len()];
                parts.push(Part { tenant, recording });
            }
        }
        shuffle(&mut parts, &chance);
        let [throttled, unscoped, reactive] = roles;
        Self {
            parts,
            throttled,
            unscoped,
            reactive,
        }
    }
}

fn shuffle<T>(list: &mut [T], chance: &Chance) {
    for last in (1..list.len()).rev() {
        // A draw is below 1, so the place is at most `last`.
        let place = (chance.draw() * (last + 1) as f64) as usize;
        list.swap(last, place.min(last));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_seed_gives_each_fault_to_another_tenant_and_each_tenant_its_sessions() {
        let mut casts = BTreeSet::new();
        for seed in 0..100 {
            let cast = Cast::new(seed);
            let roles = [cast.throttled, cast.unscoped, cast.reactive];
            assert_eq!(BTreeSet::from(roles), BTreeSet::from(TENANTS));
            let sessions: BTreeSet<_> = cast
                .parts
                .iter()
                .map(|part| (part.tenant, part.recording.session))
                .collect();
            assert_eq!(sessions.len(), TENANTS.len() * SESSIONS);
            casts.insert(roles);
        }
        assert_eq!(casts.len(), 6, "the seed decides");
    }

    #[test]
    fn one_seed_is_one_story() {
        let story = |seed| format!("{:?}", Cast::new(seed).parts);
        assert_eq!(story(7), story(7));
    }
}
