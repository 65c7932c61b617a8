//! What `GET /_sandbox/ledger` tells: what was stored and counted, tenant by tenant and in all.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Map, Value, json};

use super::tenant::{Counters, Tenant};
use super::world::{PARTNER, World};

impl World {
    /// Everything that was stored and counted, in the shape that scripts rely on.
    pub(super) fn ledger(&self) -> io::Result<Value> {
        let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
        let mut add = |counters: &Counters| {
            for (name, count) in counters.fields() {
                let total = totals.entry(name).or_default();
                *total = count.saturating_add(*total);
            }
        };
        add(&self.strangers);
        let mut tenants = Map::new();
        let mut gaps = 0;
        for (name, tenant) in &self.tenants {
            add(&tenant.counters);
            gaps = tenant.gaps().saturating_add(gaps);
            let mut entry = Map::new();
            entry.insert("sessions".to_owned(), self.sessions(tenant)?);
            entry.insert("gaps".to_owned(), json!(tenant.gaps()));
            for (name, count) in tenant.counters.fields() {
                entry.insert(name.to_owned(), json!(count));
            }
            tenants.insert(name.clone(), Value::Object(entry));
        }
        let mut ledger = Map::new();
        ledger.insert("tenants".to_owned(), Value::Object(tenants));
        ledger.insert("gaps".to_owned(), json!(gaps));
        ledger.insert("fairness".to_owned(), json!(self.fairness()));
        for (name, count) in totals {
            ledger.insert(name.to_owned(), json!(count));
        }
        Ok(Value::Object(ledger))
    }

    /// Jain's index over the stored bytes of every tenant that asked for a token or stored something. The partner, which has
    /// nothing to store, does not count. `None` while nobody stored anything.
    fn fairness(&self) -> Option<f64> {
        let tenants = self.tenants.iter().filter(|(name, _)| *name != PARTNER);
        let counters = tenants.map(|(_, tenant)| tenant.counters);
        let came = counters.filter(|it| it.token_requests > 0 || it.delivered > 0);
        jain(&came.map(|it| it.bytes as f64).collect::<Vec<_>>())
    }

    /// A tenant's sessions by id; an id that several hosts use stands as `host/id`.
    fn sessions(&self, tenant: &Tenant) -> io::Result<Value> {
        let mut sessions = Map::new();
        for ((host, id), session) in &tenant.sessions {
            let shared = tenant
                .sessions
                .keys()
                .filter(|(_, other)| other == id)
                .count()
                > 1;
            let name = if shared {
                format!("{host}/{id}")
            } else {
                id.clone()
            };
            sessions.insert(name, session.entry(host, &self.spool)?);
        }
        Ok(Value::Object(sessions))
    }
}

/// The square of the sum over the sum of the squares and the number: 1 where all have the same, 1/n where one has it all.
fn jain(shares: &[f64]) -> Option<f64> {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    (squares > 0.0).then(|| sum * sum / (squares * shares.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jains_index_is_one_where_all_have_the_same_and_a_share_where_one_has_it_all() {
        assert_eq!(jain(&[]), None);
        assert_eq!(jain(&[0.0, 0.0]), None);
        assert_eq!(jain(&[7.0, 7.0, 7.0]), Some(1.0));
        assert_eq!(jain(&[7.0, 0.0, 0.0, 0.0]), Some(0.25));
        assert_eq!(jain(&[1.0, 3.0]), Some(0.8));
    }
}
