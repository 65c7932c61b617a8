//! Tenants are paused and resumed while the worker is killed and started again: whoever is paused receives nothing, whoever
//! is not goes on, and in the end every lane is through. The engine has the same in virtual time (`engine/tests/cycles.rs`).

use serde_json::{Value, json};

use crate::support::{Site, number, seed};

/// Of these some are paused at any time.
const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const SESSIONS: [&str; 2] = ["a", "b"];
/// Never paused: when its chunk has arrived, the worker is at work.
const PULSE: &str = "t4";

struct Lane {
    tenant: &'static str,
    /// Chunks enqueued, by session.
    chunks: [u64; 2],
    /// Uploads that the platform had been asked for when the pause was in force; `None`: not paused.
    paused_at: Option<u64>,
}

impl Lane {
    fn enqueue(&mut self, site: &Site, session: usize) {
        site.enqueue(self.tenant, SESSIONS[session], self.chunks[session]);
        self.chunks[session] += 1;
    }

    fn delivered(&self) -> u64 {
        self.chunks.iter().sum()
    }
}

fn asked(site: &Site, lane: usize) -> u64 {
    site.sandbox.asked(lane)
}

#[test]
fn a_paused_tenant_receives_nothing_through_any_kills_and_every_lane_goes_on_after() {
    let (seed, cycles) = (seed(), number("REELAY_KILLS", 50));
    let mut random = fastrand::Rng::with_seed(seed);
    let site = Site::granted("client_credentials", 4, "1h");
    site.configure(|text| text.replacen("transport = \"json\"", "transport = \"websocket\"", 1));
    let tenants = [TENANTS[0], TENANTS[1], TENANTS[2], PULSE];
    for tenant in tenants {
        // Never acts: it counts the uploads.
        site.sandbox
            .fault(json!({"tenant": tenant, "after": 1_000_000_000, "action": {"stall_ms": 0}}));
    }
    let mut lanes = tenants.map(|tenant| Lane {
        tenant,
        chunks: [0; 2],
        paused_at: None,
    });
    let mut pauses = 0;
    let mut run = site.run();
    for cycle in 0..cycles {
        for _ in 0..2 {
            let (lane, session) = (random.usize(0..3), random.usize(0..2));
            lanes[lane].enqueue(&site, session);
        }
        let chosen = random.usize(0..3);
        let tenant = lanes[chosen].tenant;
        if lanes[chosen].paused_at.is_some() {
            site.worker(&["tenants", "resume", tenant]).expect(0);
            lanes[chosen].paused_at = None;
        } else {
            site.worker(&["tenants", "pause", tenant]).expect(0);
            // What was on the wire comes to its end.
            site.wait_stats("what is in flight", |told| {
                told.chunks(tenant, "leased") == 0
            });
            lanes[chosen].paused_at = Some(asked(&site, chosen));
            pauses += 1;
            lanes[chosen].enqueue(&site, 0);
        }
        lanes[3].enqueue(&site, 0);
        run.kill();
        run = site.run();
        let told = site.wait_stats("the tenant that is never paused", |told| {
            told.chunks(PULSE, "delivered") == lanes[3].delivered()
        });
        for (number, lane) in lanes.iter().enumerate() {
            let is_held = told
                .holds(lane.tenant)
                .iter()
                .any(|hold| hold.0 == "operator");
            assert_eq!(
                is_held,
                lane.paused_at.is_some(),
                "cycle {cycle}, {}",
                lane.tenant
            );
            if let Some(before) = lane.paused_at {
                let now = asked(&site, number);
                assert_eq!(
                    now, before,
                    "cycle {cycle}: {} was sent although paused",
                    lane.tenant
                );
            }
        }
        // Every lane that is not paused goes on; looked at now and then, so that most kills meet them at work.
        if cycle % 5 == 4 {
            site.wait_stats("every lane that is not paused", |told| {
                let mut open = lanes.iter().filter(|lane| lane.paused_at.is_none());
                open.all(|lane| told.chunks(lane.tenant, "delivered") == lane.delivered())
            });
        }
    }
    for lane in lanes.iter().filter(|lane| lane.paused_at.is_some()) {
        site.worker(&["tenants", "resume", lane.tenant]).expect(0);
    }
    let all = lanes.iter().map(Lane::delivered).sum();
    site.wait_stats("every lane", |told| told.balance("delivered") == all);
    run.terminate();
    run.wait().expect(0);
    site.assert_all_delivered(all);
    for lane in &lanes {
        for (session, chunks) in SESSIONS.into_iter().zip(lane.chunks) {
            let stored = site.sandbox.sequences(lane.tenant, session);
            assert_eq!(Value::from(stored), json!((0..chunks).collect::<Vec<_>>()));
        }
    }
    println!("{cycles} kills and restarts, {pauses} pauses, {all} chunks");
}
