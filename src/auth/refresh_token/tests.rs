//! Rotation over a real request: what is sent, what is durable when, and what a crash costs.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::auth::diagnosis::Diagnosis;
use crate::auth::testing::{Endpoint, endpoint, file, form, write};
use crate::disk::simulated::SimulatedDisk;
use crate::disk::{Disk, RealDisk};
use crate::model::Timestamp;

const TOKENS: &str = "/store/tokens";

fn answer(access: &str, refresh: &str) -> String {
    format!(r#"{{"access_token":"{access}","expires_in":3600,"refresh_token":"{refresh}"}}"#)
}

fn grant(home: &Path, endpoint_at: &Endpoint, kept: RotatedFile) -> RefreshToken {
    let client = Client {
        id: "5b1c9e".to_owned(),
        secret: None,
    };
    let own = file(home, "acme.refresh");
    RefreshToken::new(endpoint(&endpoint_at.url), client, own, kept, Vec::new())
}

fn kept(disk: Arc<dyn Disk>, directory: &Path) -> RotatedFile {
    RotatedFile::new(
        disk,
        directory.to_owned(),
        &["url", "5b1c9e", "acme.refresh"],
    )
}

fn simulated() -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    disk.create_dir(Path::new("/store")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn sent(endpoint: &Endpoint) -> Vec<String> {
    let requests = endpoint.seen();
    requests
        .iter()
        .map(|request| form(request)["refresh_token"].clone())
        .collect()
}

#[tokio::test]
async fn a_rotated_token_is_kept_private_and_sent_next_also_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.refresh", "canary-r0\n");
    let answers = [
        answer("a1", "canary-r1"),
        answer("a2", "canary-r2"),
        answer("a3", "canary-r3"),
    ];
    let answers: Vec<(&str, &str)> = answers.iter().map(|a| ("200 OK", a.as_str())).collect();
    let endpoint = Endpoint::in_turn(&answers).await;
    let place = kept(Arc::new(RealDisk), &home.path().join("tokens"));
    let first = grant(home.path(), &endpoint, place.clone());
    assert_eq!(
        first.mint().await.unwrap().access_token.expose_secret(),
        "a1"
    );
    first.mint().await.unwrap();
    let restarted = grant(home.path(), &endpoint, place.clone());
    restarted.mint().await.unwrap();
    assert_eq!(sent(&endpoint), ["canary-r0", "canary-r1", "canary-r2"]);
    let request = form(&endpoint.seen()[0]);
    assert_eq!(request["grant_type"], "refresh_token");
    assert_eq!(
        request["client_id"], "5b1c9e",
        "a public client names itself"
    );
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(place.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!format!("{restarted:?}").contains("canary"));
    let left = std::fs::read_dir(home.path().join("tokens"))
        .unwrap()
        .count();
    assert_eq!(left, 1, "nothing is left beside it");
}

#[tokio::test]
async fn the_operators_newer_token_wins_over_the_kept_one() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.refresh", "canary-r0");
    let body = answer("a", "canary-r1");
    let endpoint = Endpoint::in_turn(&[("200 OK", &body)]).await;
    let place = kept(Arc::new(RealDisk), &home.path().join("tokens"));
    let grant = grant(home.path(), &endpoint, place);
    grant.mint().await.unwrap();
    write(home.path(), "acme.refresh", "canary-new");
    grant.mint().await.unwrap();
    // The line that began with the new one goes on.
    grant.mint().await.unwrap();
    assert_eq!(sent(&endpoint), ["canary-r0", "canary-new", "canary-r1"]);
}

#[tokio::test]
async fn a_rotated_token_survives_a_power_cut_right_after_its_access_token_was_given() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.refresh", "canary-r0");
    let body = answer("a1", "canary-r1");
    let endpoint = Endpoint::in_turn(&[("200 OK", &body)]).await;
    let disk = simulated();
    let place = kept(Arc::new(disk.clone()), Path::new(TOKENS));
    grant(home.path(), &endpoint, place.clone())
        .mint()
        .await
        .unwrap();
    disk.restart_after_power_cut();
    grant(home.path(), &endpoint, place).mint().await.unwrap();
    assert_eq!(sent(&endpoint), ["canary-r0", "canary-r1"]);
}

#[tokio::test]
async fn power_cut_at_any_step_of_the_write_leaves_the_older_or_the_newer_token_whole() {
    for step in 0..12 {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "acme.refresh", "canary-r0");
        let answers = [answer("a1", "canary-r1"), answer("a2", "canary-r2")];
        let answers: Vec<(&str, &str)> = answers.iter().map(|a| ("200 OK", a.as_str())).collect();
        let endpoint = Endpoint::in_turn(&answers).await;
        let disk = simulated();
        let place = kept(Arc::new(disk.clone()), Path::new(TOKENS));
        let grant_now = grant(home.path(), &endpoint, place.clone());
        grant_now.mint().await.unwrap();
        disk.cut_power_after(step);
        let second = grant_now.mint().await;
        disk.restart_after_power_cut();
        let kept = place.read().unwrap().expect("one of them is there");
        let token = kept.token.expose_secret();
        if second.is_ok() {
            assert_eq!(token, "canary-r2", "step {step}: it was used");
        } else {
            assert!(
                ["canary-r1", "canary-r2"].contains(&token),
                "step {step}: {token}"
            );
        }
    }
}

#[tokio::test]
async fn a_disk_that_refuses_holds_the_token_back_and_asks_the_endpoint_no_second_time() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.refresh", "canary-r0");
    let body = answer("a1", "canary-r1");
    let endpoint = Endpoint::in_turn(&[("200 OK", &body)]).await;
    let disk = simulated();
    let place = kept(Arc::new(disk.clone()), Path::new(TOKENS));
    let grant = grant(home.path(), &endpoint, place.clone());
    disk.fail_next_syncs(1);
    let failure = grant.mint().await.unwrap_err();
    let diagnosis = Diagnosis::of_mint(&failure, &grant.about(), Timestamp(0));
    let said = diagnosis.reason(std::time::Duration::ZERO);
    assert!(
        said.starts_with(
            "the newest refresh token of client 5b1c9e cannot be kept in /store/tokens/"
        ),
        "{said}"
    );
    assert!(
        diagnosis.remedy.contains("before a restart"),
        "{}",
        diagnosis.remedy
    );
    let minted = grant.mint().await.unwrap();
    assert_eq!(minted.access_token.expose_secret(), "a1");
    assert_eq!(endpoint.seen().len(), 1);
    assert_eq!(
        place.read().unwrap().unwrap().token.expose_secret(),
        "canary-r1"
    );
}

#[tokio::test]
async fn after_a_crash_between_answer_and_write_the_reuse_is_said_and_a_new_token_cures_it() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.refresh", "canary-r0");
    let reused =
        r#"{"error":"invalid_grant","error_description":"the refresh token was used before"}"#;
    let good = answer("a2", "canary-n1");
    let endpoint = Endpoint::in_turn(&[
        ("200 OK", &answer("a1", "canary-r1")),
        ("400 Bad Request", reused),
        ("200 OK", &good),
    ])
    .await;
    let disk = simulated();
    let place = kept(Arc::new(disk.clone()), Path::new(TOKENS));
    disk.cut_power_after(0);
    grant(home.path(), &endpoint, place.clone())
        .mint()
        .await
        .unwrap_err();
    disk.restart_after_power_cut();
    let restarted = grant(home.path(), &endpoint, place);
    let failure = restarted.mint().await.unwrap_err();
    let diagnosis = Diagnosis::of_mint(&failure, &restarted.about(), Timestamp(0));
    assert_eq!(
        diagnosis.reason(std::time::Duration::ZERO),
        "the refresh token of client 5b1c9e was used before, was revoked or has expired (400 invalid_grant: the refresh token was used before)"
    );
    assert_eq!(
        diagnosis.remedy,
        "Write a new refresh token into acme.refresh"
    );
    write(home.path(), "acme.refresh", "canary-n0");
    restarted.mint().await.unwrap();
    assert_eq!(sent(&endpoint), ["canary-r0", "canary-r0", "canary-n0"]);
}

#[tokio::test]
async fn whoever_stops_waiting_loses_no_refresh_token() {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "acme.refresh", "canary-r0");
    let answers = [answer("a1", "canary-r1"), answer("a2", "canary-r2")];
    let answers: Vec<(&str, &str)> = answers.iter().map(|a| ("200 OK", a.as_str())).collect();
    let endpoint = Endpoint::in_turn(&answers).await;
    let place = kept(Arc::new(RealDisk), &home.path().join("tokens"));
    let grant = grant(home.path(), &endpoint, place);
    let mut abandoned = grant.mint();
    // Begun, and dropped before anything could come back.
    let begun = futures_util::poll!(&mut abandoned);
    assert!(begun.is_pending());
    drop(abandoned);
    grant.mint().await.unwrap();
    assert_eq!(sent(&endpoint), ["canary-r0", "canary-r1"]);
}
