//! Notices that the operator wrote one of a slot's files: a cured slot must not wait for its next probe, and a token that
//! stands in a file ends when a newer one does.

use std::sync::Weak;
use std::time::Duration;

use super::secret::{SecretSource, Stamp};
use super::source::Inner;

/// Between two looks. Each is one open and one stat a file, and none while a slot does not care.
const LOOK: Duration = Duration::from_secs(2);

/// Ends with the slot.
pub async fn watch(slot: Weak<Inner>) {
    let mut seen: Option<Vec<Option<Stamp>>> = None;
    loop {
        let Some(inner) = slot.upgrade() else { return };
        let clock = inner.clock();
        if inner.follows_files() {
            let now = stamps(inner.files()).await;
            if seen.as_ref().is_some_and(|before| *before != now) {
                tracing::info!("a file of a token slot changed: trying it now");
                inner.files_changed();
            }
            seen = Some(now);
        } else {
            seen = None;
        }
        // What is held here must not keep the slot alive.
        drop(inner);
        clock.sleep_until(clock.now().saturating_add(LOOK)).await;
    }
}

/// The files may lie on a slow or hanging disk.
async fn stamps(files: Vec<SecretSource>) -> Vec<Option<Stamp>> {
    let look = move || files.iter().map(SecretSource::stamp).collect();
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}
