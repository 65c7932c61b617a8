//! Whether there is room: the quota, a tenant's share of it, and what the filesystem has left.

use std::sync::atomic::Ordering;

use super::error::Full;
use super::inner::Inner;
use crate::model::TenantId;

/// Above this part of the quota a tenant may hold at most its share.
const FREE_FOR_ALL: f64 = 0.7;

impl Inner {
    /// Whether so many bytes of a tenant may be accepted.
    pub fn admit(&self, tenant: &TenantId, bytes: u64) -> Result<(), Box<Full>> {
        let settings = &self.settings;
        let used = self.used.load(Ordering::Relaxed);
        let refuse = |what: String| {
            let (holder, most) = self.holds_most();
            Err(Box::new(Full {
                what,
                refused: bytes,
                most,
                holder,
            }))
        };
        if used.saturating_add(bytes) > settings.max_bytes {
            return refuse(show_part(used, settings.max_bytes));
        }
        if used as f64 > FREE_FOR_ALL * settings.max_bytes as f64 && !settings.tenants.is_empty() {
            let share = settings.max_bytes / settings.tenants.len() as u64;
            let held = self
                .tallies()
                .get(tenant)
                .map_or(0, |t| t.live.bytes + t.dead.bytes);
            if held.saturating_add(bytes) > share {
                return refuse(format!(
                    "tenant {tenant} holds {} of its share of {}",
                    show_bytes(held),
                    show_bytes(share)
                ));
            }
        }
        if self.reserve.is_spent() {
            return refuse(format!("no space left on {}", self.dir.display()));
        }
        let free = self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        if free < settings.min_free_bytes.saturating_add(bytes) {
            return refuse(format!(
                "{} free on its disk; min_free_bytes is {}",
                show_bytes(free),
                show_bytes(settings.min_free_bytes)
            ));
        }
        Ok(())
    }

    fn holds_most(&self) -> (Option<TenantId>, String) {
        let tallies = self.tallies();
        let most = tallies
            .iter()
            .max_by_key(|(_, tally)| tally.live.bytes + tally.dead.bytes);
        match most {
            Some((tenant, tally)) => {
                let held = tally.live.bytes + tally.dead.bytes;
                (
                    Some(tenant.clone()),
                    format!(" Most is {tenant}: {}", show_bytes(held)),
                )
            }
            None => (None, String::new()),
        }
    }
}

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

fn scale(bytes: u64) -> usize {
    (1..UNITS.len())
        .rev()
        .find(|unit| bytes >= 1 << (10 * unit))
        .unwrap_or(0)
}

/// `41 GiB`, `1.5 MiB`, `17 B`.
pub fn show_bytes(bytes: u64) -> String {
    let unit = scale(bytes);
    let value = bytes as f64 / (1u64 << (10 * unit)) as f64;
    let digits = usize::from(value < 10.0 && unit > 0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// `49.9 of 50.0 GiB`.
fn show_part(part: u64, whole: u64) -> String {
    let unit = scale(whole);
    let in_unit = |bytes: u64| bytes as f64 / (1u64 << (10 * unit)) as f64;
    format!(
        "{:.1} of {:.1} {}",
        in_unit(part),
        in_unit(whole),
        UNITS[unit]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_a_person_would_write_them() {
        assert_eq!(show_bytes(17), "17 B");
        assert_eq!(show_bytes(1536 << 10), "1.5 MiB");
        assert_eq!(show_bytes(41 << 30), "41 GiB");
        assert_eq!(show_part(50 << 30, 50 << 30), "50.0 of 50.0 GiB");
        assert_eq!(show_part(512 << 20, 50 << 30), "0.5 of 50.0 GiB");
    }
}
