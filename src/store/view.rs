//! The store's part of a snapshot.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::inner::Inner;
use super::tally::Tally;
use super::types::{StoreView, TenantCounts};
use crate::model::{Balance, Count, TenantId};

pub fn view(inner: &Inner) -> StoreView {
    let mut tenants: BTreeMap<TenantId, TenantCounts> = inner
        .tallies()
        .into_iter()
        .map(|(tenant, tally)| (tenant, counts(&tally)))
        .collect();
    for tenant in &inner.settings.tenants {
        tenants.entry(tenant.clone()).or_default();
    }
    {
        let sessions = inner.sessions();
        for (key, state) in &sessions.by_key {
            let Some(counts) = tenants.get_mut(&key.tenant) else {
                continue;
            };
            counts.leased.chunks += u64::from(state.leased);
            let waits = state.delay.is_some_and(|delay| {
                !delay.until.left(inner.clock.as_ref()).is_zero() && state.owed > 0
            });
            if waits && state.leased == 0 {
                counts.delayed.chunks += 1;
            }
        }
    }
    for (tenant, counts) in &mut tenants {
        if counts.live.chunks > 0 {
            let asked = tenant.clone();
            let ages = inner
                .index
                .ask_patiently(move |tables| tables.ages(&asked))
                .ok()
                .flatten();
            counts.oldest = ages.map(|(oldest, _)| oldest);
            counts.newest = ages.map(|(_, newest)| newest);
        }
    }
    StoreView {
        tenants: tenants.into_iter().collect(),
        used_bytes: inner.used.load(Ordering::Relaxed),
        free_bytes: inner.disk.free_bytes(&inner.dir).unwrap_or(0),
        quota_bytes: inner.settings.max_bytes,
        balance: balance(inner),
        latched: inner.latched().map(|latched| latched.to_string()),
    }
}

fn counts(tally: &Tally) -> TenantCounts {
    TenantCounts {
        live: tally.live,
        leased: Count::default(),
        delayed: Count::default(),
        confirming: tally.confirming,
        dead: tally.dead,
        delivered: tally.delivered,
        purged: tally.purged,
        oldest: None,
        newest: None,
    }
}

/// `enqueued = delivered + backlog + dead + purged`: the left side counts frames, the right side words.
pub fn balance(inner: &Inner) -> Balance {
    let mut sum = Tally::default();
    for tally in inner.tallies().values() {
        sum.add(tally);
    }
    let lost = inner.ledger.lock().expect("no holder panics").lost;
    let in_books: u64 = inner
        .segments()
        .values()
        .map(|slot| slot.book().unreadable)
        .sum();
    // A chunk that cannot be named is set aside like a dead letter.
    let unreadable = in_books + inner.headless;
    let backlog = sum.live.chunks + sum.confirming.chunks;
    let dead = sum.dead.chunks + unreadable;
    let enqueued = sum.accepted.chunks + unreadable + lost;
    Balance {
        enqueued,
        delivered: sum.delivered.chunks,
        backlog,
        dead,
        purged: sum.purged.chunks,
        lost: (lost > 0).then_some(lost),
        balanced: enqueued == sum.delivered.chunks + backlog + dead + sum.purged.chunks,
    }
}
