//! The story, step by step: record, deliver, run into a quota, lose a scope, die on the wire, come back, compare.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Clock;

use super::cast::{Cast, TENANTS};
use super::error::DemoError;
use super::scene::{Look, Scene, holds, tenant};
use super::verdict::{self, Kill, Report, Take, count};
use super::{Line, Options, Tell};

/// What the emulated platform asks an upload for, and what else its clients have.
const UPLOAD_SCOPE: &str = "analytics:screenrecordings:write";
const OTHER_SCOPE: &str = "screenshare:write";

/// Chunks `BEATS[n]..BEATS[n + 1]` of every session are handed over together, when they have been recorded.
const BEATS: [usize; 9] = [0, 1, 3, 5, 6, 7, 9, 10, 12];

pub(super) async fn play(
    options: &Options,
    directory: &Path,
    clock: Arc<dyn Clock>,
    tell: Tell,
) -> Result<Report, DemoError> {
    let begun = clock.now();
    let cast = Cast::new(options.seed);
    tell(Line::Remark(&format!(
        "{} tenants record a screen in {} sessions, live; seed {}; everything is in {}",
        TENANTS.len(),
        cast.parts.len(),
        options.seed,
        directory.display()
    )));
    tell(Line::Step(
        "A platform to talk to, whose tokens live a second or two",
    ));
    let mut scene = Scene::open(directory, cast, Arc::clone(&clock), tell).await?;
    if options.drop_one {
        scene.drop_one();
    }
    let reactive = scene.cast.reactive;
    scene.configure(&format!(
        "\n[tenants.{reactive}.delivery]\nrefresh_policy = \"on_401\"\n"
    ))?;
    scene.remark(&format!(
        "{reactive} renews its token only when the platform says 401; the others renew ahead"
    ));
    record(&mut scene).await?;
    deliver(&mut scene).await?;
    throttle(&mut scene).await?;
    take_scope(&mut scene).await?;
    kill(&mut scene).await?;
    come_back(&mut scene).await?;
    drain(&mut scene).await?;
    let took = clock.now().since(begun);
    let report = judge(options.seed, &scene, took.as_millis()).await?;
    scene.close().await?;
    Ok(report)
}

async fn beat(scene: &mut Scene, number: usize) -> Result<(), DemoError> {
    scene.capture(BEATS[number], BEATS[number + 1]).await
}

async fn record(scene: &mut Scene) -> Result<(), DemoError> {
    scene.step("Capture hands over; exit 0 means on disk, although nothing is sent yet");
    beat(scene, 0).await?;
    scene.show(&["--stats"]).await?.ok()?;
    Ok(())
}

async fn deliver(scene: &mut Scene) -> Result<(), DemoError> {
    scene.step("A worker delivers while the recording goes on and tokens expire");
    scene.start_worker().await?;
    beat(scene, 1).await
}

async fn throttle(scene: &mut Scene) -> Result<(), DemoError> {
    let name = scene.cast.throttled;
    scene.step(&format!(
        "{name} runs into its quota: 429, and nobody else waits"
    ));
    let quota = json!({"quota": {"requests": 1, "window_ms": 3000, "dialect": "none"}});
    scene.disturb(&tenant(name), &quota).await?;
    beat(scene, 2).await?;
    let refused = |ledger: &Value| count(&ledger["tenants"][name]["throttled"]) > 0;
    scene
        .until(&format!("a 429 for {name}"), Look::Ledger, refused)
        .await?;
    scene.show(&["why", name]).await?.ok()?;
    let lifted = json!({"quota": null});
    scene.disturb(&tenant(name), &lifted).await
}

async fn take_scope(scene: &mut Scene) -> Result<(), DemoError> {
    let name = scene.cast.unscoped;
    scene.step(&format!(
        "{name} loses its scope: its chunks wait on disk and use up no retries"
    ));
    let taken = json!({"scopes": [OTHER_SCOPE], "revoke": true});
    scene.disturb(&tenant(name), &taken).await?;
    beat(scene, 3).await?;
    // A token that was renewed ahead and never used may meet the revocation first, and is told as such until the next probe.
    let blocked = |stats: &Value| names_scope(stats, name);
    scene
        .until(&format!("the block of {name}"), Look::Stats, blocked)
        .await?;
    scene.witness.scope_blocked = true;
    scene.show(&["why", name]).await?.ok()?;
    scene.show(&["--stats"]).await?.ok()?;

    scene.step(&format!(
        "An administrator gives the scope back; {name} goes on"
    ));
    let given = json!({"scopes": [UPLOAD_SCOPE, OTHER_SCOPE]});
    scene.disturb(&tenant(name), &given).await?;
    scene.show(&["tenants", "resume", name]).await?.ok()?;
    let cured = |stats: &Value| {
        let tenant = &stats["tenants"][name];
        tenant["gate"]["state"] == "open" && backlog(tenant) == 0
    };
    scene
        .until(&format!("the cure of {name}"), Look::Stats, cured)
        .await?;
    scene.witness.scope_cured = true;
    Ok(())
}

async fn kill(scene: &mut Scene) -> Result<(), DemoError> {
    scene.step("The worker is killed while chunks are on the wire");
    scene
        .until("the delivery of what is queued", Look::Stats, all_delivered)
        .await?;
    scene.remark("the platform holds what it receives, so that it dies at the worst moment");
    // Not the tenant whose first answer may be a 401.
    let reactive = scene.cast.reactive;
    let part = scene.cast.parts.iter().find(|p| p.tenant != reactive);
    let stored = *part.expect("others renew ahead");
    scene.disturb("/_sandbox/faults", &holds(&stored)).await?;
    beat(scene, 4).await?;
    scene.held(scene.cast.parts.len()).await?;
    scene.remark("what is recorded now waits behind them");
    beat(scene, 5).await?;
    let total = &scene.stats().await?["total"];
    let leased = count(&total["leased"]["chunks"]);
    let waiting = backlog(total).saturating_sub(leased);
    scene.witness.kill = Some(Kill { leased, waiting });
    scene.remark(&format!(
        "{leased} chunks are on the wire, one of them stored but not answered; {waiting} more wait"
    ));
    scene.kill_worker().await?;
    scene.end_faults().await
}

async fn come_back(scene: &mut Scene) -> Result<(), DemoError> {
    scene.step("Nothing is lost, and capture need not wait for a worker");
    scene.show(&["--stats"]).await?.ok()?;
    beat(scene, 6).await?;
    scene.start_worker().await?;
    let delivered = "the delivery of what the killed worker left";
    scene.until(delivered, Look::Stats, all_delivered).await
}

async fn drain(scene: &mut Scene) -> Result<(), DemoError> {
    scene.step("A clean stop; the recordings end; a drain delivers the rest and says so");
    scene.stop_worker().await?;
    beat(scene, 7).await?;
    // From here on what fails is told with the table, which shows what is missing.
    for arguments in [&["drain", "--timeout", "30s"][..], &["fsck"]] {
        let done = scene.show(arguments).await?;
        if !done.is_ok() {
            let failure = format!("{} ended with {}", done.command, done.status);
            scene.witness.failures.push(failure);
        }
    }
    Ok(())
}

async fn judge(seed: u64, scene: &Scene, took_ms: u128) -> Result<Report, DemoError> {
    scene.step("What arrived is compared with the originals");
    let ledger = scene.ledger().await?;
    let takes: Vec<Take> = scene
        .arrived()
        .await?
        .iter()
        .map(verdict::Arrived::take)
        .collect();
    let tenants = verdict::rows(&scene.cast, &ledger);
    let faults = verdict::faults(&scene.cast, &ledger, &scene.witness);
    let mut failures = scene.witness.failures.clone();
    failures.extend(verdict::failures(&tenants, &takes, &faults));
    Ok(Report {
        seed,
        took_ms: u64::try_from(took_ms).unwrap_or(u64::MAX),
        identical: takes.iter().all(|take| take.identical)
            && tenants.values().all(|row| row.lost + row.doubled == 0),
        tenants,
        faults,
        recordings: takes,
        kept: scene.directory.clone(),
        failures,
    })
}

/// Whether the tenant's block is told with the scope that it lacks.
fn names_scope(stats: &Value, name: &str) -> bool {
    let holds = stats["tenants"][name]["gate"]["holds"].as_array();
    holds.into_iter().flatten().any(|hold| {
        let reason = hold["reason"].as_str().unwrap_or_default();
        hold["kind"] == "blocked" && reason.contains(UPLOAD_SCOPE)
    })
}

/// What one tenant, or all of them, still owe the platform.
fn backlog(counts: &Value) -> u64 {
    ["ready", "held", "delayed", "leased", "confirming"]
        .iter()
        .map(|state| count(&counts[*state]["chunks"]))
        .sum()
}

fn all_delivered(stats: &Value) -> bool {
    backlog(&stats["total"]) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beats_hand_over_every_chunk_once_and_enough_to_be_killed_with() {
        assert_eq!((BEATS[0], BEATS[8]), (0, 12));
        assert!(BEATS.is_sorted_by(|a, b| a < b));
        let cast = Cast::new(0);
        assert!(cast.parts.iter().all(|p| p.recording.chunks.len() == 12));
        // Each session has one request on the wire; the beat after it waits.
        assert!(cast.parts.len() * (BEATS[6] - BEATS[5]) >= 10);
    }

    #[test]
    fn a_block_for_another_reason_is_not_the_one_that_was_made() {
        let stats = |kind: &str, reason: &str| json!({"tenants": {"acme": {"gate": {"holds": [{"kind": kind, "reason": reason}]}}}});
        let lacks = format!("its token lacks the scope {UPLOAD_SCOPE}");
        assert!(names_scope(&stats("blocked", &lacks), "acme"));
        assert!(!names_scope(&stats("blocked", "wrong secret"), "acme"));
        assert!(!names_scope(&stats("outage", &lacks), "acme"));
    }
}
