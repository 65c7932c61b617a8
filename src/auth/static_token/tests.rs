//! The token file over a real slot, in real time: what is read, and what a new file sets off.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::auth::testing::{file, unauthorized, write};
use crate::auth::{AfterRejection, CredentialHoldKind, Rejection, Rules, Slot, TokenSource};
use crate::chance::Chance;
use crate::clock::SystemClock;
use crate::model::{Generation, SessionKey};

fn slot(directory: &Path) -> Slot {
    let grant = Arc::new(StaticToken {
        file: file(directory, "acme.token"),
    });
    let (clock, chance) = (Arc::new(SystemClock), Arc::new(Chance::seeded(1)));
    Slot::new(grant, Rules::default(), clock, chance)
}

fn refusal(generation: Generation) -> Rejection {
    Rejection {
        generation,
        session: SessionKey {
            tenant: "acme".parse().unwrap(),
            session: "s1".parse().unwrap(),
        },
        only_session: false,
        record: unauthorized(),
    }
}

#[tokio::test]
async fn a_token_without_a_stated_end_is_used_until_it_is_refused() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.token", "canary-one\n");
    let slot = slot(home.path());
    assert_eq!(slot.token().await.unwrap().expose(), "canary-one");
    assert_eq!(slot.view().expires_in_s, None);
    assert_eq!(slot.view().state, "valid");
    assert_eq!(slot.client_id(), None);
}

#[tokio::test]
async fn a_refused_token_blocks_at_once_and_a_newer_file_ends_it_by_itself() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.token", "canary-one");
    let slot = slot(home.path());
    let token = slot.token().await.unwrap();
    slot.accepted(token.generation, &refusal(token.generation).session);
    assert_eq!(
        slot.reject(refusal(token.generation)),
        AfterRejection::Blocked
    );
    let hold = slot.token().await.unwrap_err();
    assert_eq!(hold.kind, CredentialHoldKind::Blocked);
    assert_eq!(
        hold.reason,
        "the platform refuses the token in acme.token (401 bad.credentials: Invalid login credentials) after 0 s of use"
    );
    assert_eq!(hold.remedy, "Write a newer token into acme.token");
    // The watch takes its first look when it learns of the block.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let changed = slot.changed();
    write(home.path(), "acme.token", "canary-two-which-is-longer");
    let noticed = tokio::time::timeout(Duration::from_secs(20), changed);
    noticed
        .await
        .expect("the file is looked at every two seconds");
    assert_eq!(
        slot.token().await.unwrap().expose(),
        "canary-two-which-is-longer"
    );
}

#[tokio::test]
async fn a_newer_file_is_taken_before_the_older_token_is_refused() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.token", "canary-one");
    let slot = slot(home.path());
    slot.token().await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Replaced whole, as careful people do.
    write(home.path(), "new", "canary-two");
    std::fs::rename(home.path().join("new"), home.path().join("acme.token")).unwrap();
    let taken = async {
        while slot.token().await.unwrap().expose() != "canary-two" {
            slot.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taken)
        .await
        .expect("the file is looked at every two seconds");
}

#[tokio::test]
async fn a_file_that_holds_no_token_says_so_and_repeats_nothing_of_it() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.token", "canary with spaces");
    let hold = slot(home.path()).token().await.unwrap_err();
    assert_eq!(hold.reason, "acme.token holds no bearer token");
    assert!(!format!("{hold:?}").contains("canary"));
    std::fs::remove_file(home.path().join("acme.token")).unwrap();
    let hold = slot(home.path()).token().await.unwrap_err();
    assert!(
        hold.reason.starts_with("acme.token does not exist"),
        "{}",
        hold.reason
    );
}
