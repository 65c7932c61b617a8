//! The store's part of a snapshot.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::index::{self, RowKey};
use super::inner::Inner;
use super::tally::Tally;
use super::types::{StoreView, TenantCounts};
use crate::clock::Instant;
use crate::model::{Balance, Count, TenantId, Timestamp};

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
            let waits = state.delay.as_ref().is_some_and(|delay| {
                !delay.until.left(inner.clock.as_ref()).is_zero() && state.owed > 0
            });
            if waits && state.leased == 0 {
                counts.delayed.chunks += 1;
            }
        }
        for (tenant, at) in &sessions.last_delivery {
            if let Some(counts) = tenants.get_mut(tenant) {
                counts.last_delivery = Some(*at);
            }
        }
    }
    for (tenant, counts) in &mut tenants {
        if counts.live.chunks > 0 {
            let span = span(inner, tenant);
            counts.oldest = span.map(|(oldest, _)| oldest);
            counts.newest = span.map(|(_, newest)| newest);
        } else {
            inner.ages().forget(tenant);
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

/// When a tenant's oldest and newest owed chunk were accepted.
type Span = (Timestamp, Timestamp);

/// The index reads every owed chunk of a tenant for these, in parts between which it answers others.
fn span(inner: &Inner, tenant: &TenantId) -> Option<Span> {
    let began = inner.clock.now();
    if let Some(kept) = inner.ages().kept(tenant, began) {
        return Some(kept);
    }
    let mut whole = index::Ages::default();
    let mut next = Some(RowKey::default());
    while let Some(from) = next {
        let asked = tenant.clone();
        let part = inner.index.ask(move |tables| tables.ages(&asked, &from));
        let part = part.ok()?;
        if let Some(span) = part.span {
            whole.add(span);
        }
        next = part.next;
    }
    let span = whole.span?;
    let ended = inner.clock.now();
    inner.ages().keep(tenant, span, began, ended);
    Some(span)
}

/// What was answered, for a multiple of what the answer took: stats cost the index a fiftieth of its time at most,
/// however large the backlog and whoever asks how often.
#[derive(Debug, Default)]
pub struct Ages {
    answered: BTreeMap<TenantId, (Span, Instant)>,
}

impl Ages {
    const TIMES: u32 = 50;
    const LONGEST: Duration = Duration::from_secs(60);

    fn kept(&self, tenant: &TenantId, now: Instant) -> Option<Span> {
        let (span, until) = self.answered.get(tenant)?;
        (now < *until).then_some(*span)
    }

    fn keep(&mut self, tenant: &TenantId, span: Span, began: Instant, ended: Instant) {
        let took = ended.since(began);
        let lasts = took.saturating_mul(Self::TIMES).min(Self::LONGEST);
        let until = ended.saturating_add(lasts);
        self.answered.insert(tenant.clone(), (span, until));
    }

    /// What is owed next is another backlog.
    fn forget(&mut self, tenant: &TenantId) {
        self.answered.remove(tenant);
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
        last_delivery: None,
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
        unreadable,
        lost: (lost > 0).then_some(lost),
        balanced: enqueued == sum.delivered.chunks + backlog + dead + sum.purged.chunks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_a_multiple_of_what_it_cost_and_never_for_long() {
        let at = |ms| Instant(Duration::from_millis(ms));
        let acme: TenantId = "acme".parse().unwrap();
        let span = (Timestamp(1), Timestamp(2));
        for (took, until) in [(0, 0), (10, 500), (100, 5_000), (60_000, 60_000)] {
            let mut ages = Ages::default();
            assert_eq!(ages.kept(&acme, at(0)), None);
            ages.keep(&acme, span, at(0), at(took));
            let end = took + until;
            assert_eq!(ages.kept(&acme, at(end)), None, "{took} ms");
            if until > 0 {
                assert_eq!(ages.kept(&acme, at(end - 1)), Some(span), "{took} ms");
            }
            assert_eq!(ages.kept(&"globex".parse().unwrap(), at(end)), None);
        }
    }
}
