//! A socket cut at every message boundary and inside frames: what the platform has is never sent again.

use super::live::Stand;
use super::*;
use crate::model::FailureClass;
use crate::platform::{Platform, Verdict};

const CHUNKS: u64 = 2;
/// Two frames.
const BYTES: u64 = 70_000;
/// `open`, `opened`, and for each chunk `chunk`, two frames and `ack`; of two sessions.
const MESSAGES: u64 = 2 * (2 + CHUNKS * 4);

/// Delivers a session in order, again and again what is in doubt.
async fn deliver(stand: &Stand, session: &str) {
    for sequence in 0..CHUNKS {
        for attempt in 0.. {
            assert!(attempt < 100, "{session}/{sequence} does not arrive");
            let delivery = stand.delivery(session, sequence, BYTES);
            match stand.platform.deliver(delivery).await.verdict {
                Verdict::Delivered { .. } => break,
                Verdict::Failed(failure) => {
                    let class = failure.record.class;
                    let record = &failure.record;
                    let again = [FailureClass::InDoubt, FailureClass::Transient].contains(&class);
                    assert!(again, "{session}/{sequence}: {record:?}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }
}

async fn survives(stand: &Stand, name: &str, cut: Value) {
    stand.fault(json!({"route": "socket", "action": cut})).await;
    let sessions = [format!("{name}-a"), format!("{name}-b")];
    let both = sessions.iter().map(|session| deliver(stand, session));
    futures_util::future::join_all(both).await;
    let ledger = stand.sandbox.ledger().unwrap();
    for session in &sessions {
        let stored = &ledger["tenants"]["acme"]["sessions"][session];
        assert_eq!(stored["sequences"], json!([0, 1]), "{cut}: {ledger}");
        let whole: Vec<u8> = (0..CHUNKS)
            .flat_map(|n| payload(session, n, BYTES))
            .collect();
        let hash = ring::digest::digest(&ring::digest::SHA256, &whole);
        let hash: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(stored["sha256"], hash, "{cut}");
    }
    for fault in [
        "duplicates_suppressed",
        "order_inversions",
        "conflicts",
        "undeclared_gaps",
    ] {
        assert_eq!(ledger[fault], 0, "{fault}, {cut}: {ledger}");
    }
}

#[tokio::test]
async fn a_cut_at_any_message_boundary_costs_nothing_that_was_persisted() {
    for messages in 0..=MESSAGES {
        // A socket of its own, so that the boundary is where it is counted.
        let stand = Stand::new().await;
        let cut = json!({"socket": "cut", "after_messages": messages});
        survives(&stand, "s", cut).await;
        assert_eq!(
            stand.counted("sockets"),
            if messages == MESSAGES { 1 } else { 2 }
        );
    }
}

#[tokio::test]
async fn a_cut_inside_a_frame_costs_nothing_that_was_persisted() {
    let given = std::env::var("REELAY_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    println!("REELAY_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let whole = 2 * CHUNKS * BYTES;
    let edges = [1, 2, 3, 7, 100, 200];
    let inside = std::iter::repeat_with(|| random.u64(..whole)).take(40);
    for bytes in edges.into_iter().chain(inside) {
        let stand = Stand::new().await;
        survives(&stand, "s", json!({"socket": "cut", "after_bytes": bytes})).await;
        assert_eq!(stand.counted("sockets"), 2, "after {bytes} bytes");
    }
}
