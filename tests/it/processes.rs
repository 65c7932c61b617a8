//! Several processes on one store at once: whoever holds it serves the others, and all end well.

use std::io::Write;

use fastrand::Rng;

use crate::support::{Process, SESSIONS, Site, film, seed, session_files};

/// Each round starts the five in another order.
const ROUNDS: usize = 4;

/// What one of the five does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Enqueue(&'static str),
    Stats,
    Drain,
    Run,
}

fn start(site: &Site, part: Part) -> Process {
    match part {
        Part::Enqueue(session) => {
            let mut command = site.command(&["enqueue", "--json", "--tenant", "acme"]);
            command
                .args(["--session", session, "--sequence", "0"])
                .args(session_files(session));
            Process::start(&mut command)
        }
        Part::Stats => site.start(&["--stats", "--json"]),
        Part::Drain => site.start(&["drain", "--json"]),
        Part::Run => site.start(&["run"]),
    }
}

#[test]
fn two_enqueues_stats_a_drain_and_a_run_share_one_store_and_all_end_well() {
    let mut random = Rng::with_seed(seed());
    for _ in 0..ROUNDS {
        let site = Site::new();
        let mut parts = [
            Part::Enqueue(SESSIONS[0]),
            Part::Enqueue(SESSIONS[1]),
            Part::Stats,
            Part::Drain,
            Part::Run,
        ];
        random.shuffle(&mut parts);
        println!("{parts:?}");
        let processes = parts.map(|part| (part, start(&site, part)));
        let mut run = None;
        for (part, process) in processes {
            if part == Part::Run {
                run = Some(process);
                continue;
            }
            let ended = process.wait().expect(0);
            match part {
                Part::Enqueue(_) => assert_eq!(ended.json_lines().len(), 12),
                Part::Drain => assert_eq!(ended.json()["outcome"], "drained"),
                _ => assert_eq!(ended.json()["balance"]["balanced"], true),
            }
        }
        site.wait_stats("everything to be delivered", |told| {
            told.balance("delivered") == 24
        });
        let run = run.expect("one of the five");
        run.terminate();
        run.wait().expect(0);
        site.assert_all_delivered(24);
        for session in &SESSIONS[..2] {
            assert!(site.sandbox.film("acme", session) == film(session));
        }
    }
}

/// A pipe that stays open in the middle of its payload, beside producers that have all of theirs: with nobody who holds the store, and
/// through a holder.
#[test]
fn an_enqueue_whose_input_does_not_come_delays_nobody() {
    for held in [false, true] {
        let site = Site::new();
        let run = held.then(|| site.run());
        let (reader, mut slow_input) = std::io::pipe().unwrap();
        let mut command = site.command("enqueue --tenant acme --session slow --json -");
        let mut slow = Process::reading(&mut command, reader.into());
        // More than a pipe holds: it is being read when this returns.
        slow_input.write_all(&[b'a'; 200_000]).unwrap();
        for sequence in 0..16 {
            site.enqueue("acme", "fast", sequence);
        }
        if !held {
            site.worker("drain").expect(0);
        }
        site.wait_stats("the fast ones", |told| told.balance("delivered") == 16);
        assert!(slow.ended().is_none(), "{}", slow.err());
        slow_input.write_all(b"b").unwrap();
        drop(slow_input);
        assert_eq!(slow.wait().expect(0).json()["bytes"], 200_001);
        if let Some(run) = run {
            site.wait_stats("the slow one", |told| told.balance("delivered") == 17);
            run.terminate();
            run.wait().expect(0);
        } else {
            site.worker("drain").expect(0);
        }
        site.assert_all_delivered(17);
    }
}
