//! The socket and the store behind it: the same answer whoever gives it, and nothing half-done when one side goes.

pub mod support;
mod why;

use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use support::{Desk, chunk, fake, tenant};

use super::accept::accept;
use super::answer::answer;
use super::client::Client;
use super::sessions::Ask;
use super::wire::{DrainOutcome, DrainSpec, Reply, Request, Which};
use super::{Access, Code, Refusal};
use crate::model::{ChunkState, SessionKey};
use crate::store::SequenceChoice;

fn which() -> Which {
    Which::default()
}

fn s1() -> SessionKey {
    SessionKey {
        tenant: tenant(),
        session: "s1".parse().unwrap(),
    }
}

fn about(ask: Ask) -> Request {
    Request::Sessions { ask }
}

fn questions() -> Vec<Request> {
    vec![
        Request::Stats {},
        Request::Why {
            tenant: tenant(),
            session: Some("s1".parse().unwrap()),
            sequence: None,
        },
        Request::Why {
            tenant: "nobody".parse().unwrap(),
            session: None,
            sequence: None,
        },
        Request::DeadList {
            which: which(),
            limit: 10,
        },
        Request::DeadShow { which: which() },
        Request::Purge { which: which() },
        about(Ask::List {
            tenant: None,
            owed: true,
            limit: 5,
        }),
        about(Ask::Show(s1())),
        about(Ask::Promote(s1())),
        about(Ask::Show(SessionKey {
            session: "nobodys".parse().unwrap(),
            ..s1()
        })),
        Request::Fsck {},
        Request::HandOver {},
    ]
}

/// Other tests write to the same disk meanwhile, and seconds pass.
fn timeless(answer: Result<Reply, Refusal>) -> Result<Reply, Refusal> {
    answer.map(|mut reply| {
        if let Reply::Stats(snapshot) = &mut reply {
            snapshot.disk.free_bytes = 0;
            for view in snapshot.tenants.values_mut() {
                view.oldest_age_s = None;
                view.newest_age_s = None;
            }
        }
        reply
    })
}

#[test]
fn an_answer_is_the_same_through_the_socket_and_without_it() {
    let desk = Desk::new();
    let holder = desk.holder(Some(fake("run")));
    accept(
        &holder,
        chunk("s1", SequenceChoice::Exactly(3)),
        &mut &b"abc"[..],
    )
    .unwrap();
    let served = desk.serve(holder.clone());
    let client = Client::of_store(desk.store()).unwrap();
    for question in questions() {
        let direct = timeless(answer(&holder, question.clone()));
        let asked = timeless(client.ask(&question));
        assert_eq!(asked, direct, "{question:?}");
    }
    served.end();
}

#[test]
fn what_waits_by_its_nature_is_answered_by_the_engine() {
    let desk = Desk::new();
    let served = desk.serve(desk.holder(Some(fake("drain"))));
    let client = Client::of_store(desk.store()).unwrap();
    let spec = DrainSpec {
        tenant: None,
        timeout: None,
        patience: Duration::ZERO,
    };
    match client.ask(&Request::Drain(spec)).unwrap() {
        Reply::Drained(report) => assert_eq!(report.outcome, DrainOutcome::Drained),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.ask(&Request::HandOver {}), Ok(Reply::HandingOver {}));
    let ping = client.ping().unwrap();
    assert_eq!(
        (ping.pid, ping.command.as_str()),
        (std::process::id(), "drain")
    );
    served.end();
}

#[test]
fn a_chunk_through_the_socket_is_stored_as_given_and_known_when_repeated() {
    let desk = Desk::new();
    let holder = desk.holder(Some(fake("run")));
    let served = desk.serve(holder.clone());
    let client = Client::of_store(desk.store()).unwrap();
    // Larger than every buffer on the way.
    let payload: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let put = |session, sequence, bytes: &[u8]| {
        let mut chunk = chunk(session, sequence);
        chunk.length = Some(bytes.len() as u64);
        client.enqueue(&chunk, Box::new(Cursor::new(bytes.to_vec())))
    };
    let first = put("s1", SequenceChoice::Exactly(0), &payload).unwrap();
    assert_eq!((first.bytes, first.known), (3_000_000, false));
    let again = put("s1", SequenceChoice::Exactly(0), &payload).unwrap();
    assert_eq!(again.state.as_deref(), Some("waiting"));
    let other = put("s1", SequenceChoice::Exactly(0), b"other").unwrap_err();
    assert_eq!(other.code, Code::Conflict);
    assert!(
        other
            .message
            .starts_with("session s1 sequence 0 exists with other bytes")
    );
    let repeat = SequenceChoice::Next {
        refuse_repeat: true,
    };
    assert_eq!(put("s1", repeat, &payload).unwrap_err().code, Code::Repeat);
    let append = SequenceChoice::Next {
        refuse_repeat: false,
    };
    assert_eq!(put("s1", append, &payload).unwrap().sequence, 1);
    served.end();
    let key = crate::model::SessionKey {
        tenant: tenant(),
        session: "s1".parse().unwrap(),
    };
    let lease = holder.store.lease(&key).unwrap().unwrap();
    let mut stored = Vec::new();
    lease.payload().unwrap().read_to_end(&mut stored).unwrap();
    assert!(stored == payload);
}

/// Gives some bytes and then an error, as a file does that changed while it was read.
struct Torn(Cursor<Vec<u8>>);

impl Read for Torn {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(io::Error::new(io::ErrorKind::InvalidData, "the file grew")),
            count => Ok(count),
        }
    }
}

#[test]
fn a_payload_that_ends_early_is_refused_whole_with_or_without_the_socket() {
    let desk = Desk::new();
    let holder = desk.holder(Some(fake("run")));
    let served = desk.serve(holder.clone());
    let client = Client::of_store(desk.store()).unwrap();
    for length in [None, Some(2_000_000)] {
        let mut chunk = chunk("s1", SequenceChoice::Exactly(0));
        chunk.length = length;
        let torn = || Torn(Cursor::new(vec![7; 1_500_000]));
        let direct = accept(&holder, chunk.clone(), &mut torn()).unwrap_err();
        let asked = client.enqueue(&chunk, Box::new(torn())).unwrap_err();
        assert_eq!(direct.code, Code::Changed);
        assert_eq!(asked, direct);
    }
    served.end();
    assert_eq!(holder.store.view().balance.enqueued, 0);
}

#[test]
fn a_request_that_makes_no_sense_is_refused_in_our_own_shape() {
    let desk = Desk::new();
    let served = desk.serve(desk.holder(Some(fake("run"))));
    for (method, path, body, status) in [
        ("POST", "/v1/ask", r#"{"op":"format_disk"}"#.to_owned(), 400),
        (
            "POST",
            "/v1/ask",
            r#"{"op":"stats","extra":1}"#.to_owned(),
            400,
        ),
        (
            "POST",
            "/v1/ask",
            format!("\"{}\"", "x".repeat(100_000)),
            413,
        ),
        (
            "PUT",
            "/v1/tenants/a%2Fb/sessions/s/chunks/0?started_at=2026-03-01T10:00:00Z&duration_ms=1&media_type=a/b",
            "x".to_owned(),
            400,
        ),
        (
            "PUT",
            "/v1/tenants/acme/sessions/s/chunks/last?started_at=2026-03-01T10:00:00Z&duration_ms=1&media_type=a/b",
            "x".to_owned(),
            400,
        ),
        (
            "PUT",
            "/v1/tenants/acme/sessions/s/chunks/0?started_at=2026-03-01T10:00:00&duration_ms=1&media_type=a/b",
            "x".to_owned(),
            400,
        ),
        (
            "PUT",
            "/v1/tenants/acme/sessions/s/chunks/0?started_at=2026-03-01T10:00:00Z&duration_ms=1&media_type=a/b",
            String::new(),
            400,
        ),
        (
            "PUT",
            "/v1/tenants/who/sessions/s/chunks/0?started_at=2026-03-01T10:00:00Z&duration_ms=1&media_type=a/b",
            "x".to_owned(),
            404,
        ),
    ] {
        let (found, body) = desk.raw(method, path, &body);
        assert_eq!(found, status, "{path}: {body}");
        if status != 413 {
            let refusal: Value = serde_json::from_str(&body).unwrap();
            assert!(
                refusal["code"].is_string() && refusal["message"].is_string(),
                "{body}"
            );
        }
    }
    let (status, stats) = desk.raw("GET", "/v1/stats", "");
    assert_eq!(status, 200);
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["balance"]["enqueued"], 0);
    served.end();
}

#[test]
fn a_held_store_is_waited_for_silently_then_loudly_then_not_at_all() {
    let desk = Desk::new();
    let _holder = desk.holder(None);
    let told = Arc::new(Mutex::new(Vec::new()));
    let reach = desk.reach(Duration::from_secs(30), Arc::clone(&told));
    let refusal = reach.reach().err().unwrap();
    assert_eq!(refusal.code, Code::Held);
    let pid = format!("(pid {})", std::process::id());
    assert!(refusal.message.contains(&pid), "{}", refusal.message);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(&pid) && told[0].ends_with("; waiting for it"),
        "{told:?}"
    );
}

#[test]
fn a_short_wait_ends_before_anything_is_said() {
    let desk = Desk::new();
    let _holder = desk.holder(None);
    let told = Arc::new(Mutex::new(Vec::new()));
    let reach = desk.reach(Duration::from_secs(1), Arc::clone(&told));
    assert!(reach.reach().is_err());
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn a_store_is_opened_when_free_and_asked_when_its_holder_listens() {
    let desk = Desk::new();
    let reach = desk.reach(Duration::from_secs(30), Arc::default());
    let holder = match reach.reach().unwrap() {
        Access::Open(holder) => *holder,
        Access::Asked(..) => panic!("nobody holds it"),
    };
    let served = desk.serve(holder.clone());
    assert!(matches!(reach.reach().unwrap(), Access::Asked(..)));
    let refusal = reach
        .open_alone(|_, ping| Err(Refusal::new(Code::Held, ping.command.clone())))
        .err()
        .unwrap();
    assert_eq!(refusal.message, "answer");
    served.end();
    holder.store.close().unwrap();
    // The socket file of the former holder is still there, and nobody listens.
    let access = reach.reach().unwrap();
    assert!(matches!(access, Access::Open(_)));
    access.close().unwrap();
}

#[test]
fn a_pause_outlives_the_command_and_a_resume_ends_it() {
    let desk = Desk::new();
    let reach = desk.reach(Duration::from_secs(30), Arc::default());
    let pause = Request::Pause { tenant: tenant() };
    let paused = |was| {
        Ok(Reply::Paused {
            tenant: tenant(),
            was,
        })
    };
    assert_eq!(reach.ask(&pause), paused(false));
    assert_eq!(reach.ask(&pause), paused(true));
    let Ok(Reply::Stats(snapshot)) = reach.ask(&Request::Stats {}) else {
        panic!("stats answer");
    };
    assert_eq!(snapshot.tenants["acme"].gate.holds[0].kind, "operator");
    let resume = Request::Resume { tenant: tenant() };
    let resumed = |removed| {
        Ok(Reply::Resumed {
            tenant: tenant(),
            removed,
            served: false,
        })
    };
    assert_eq!(reach.ask(&resume), resumed(1));
    assert_eq!(reach.ask(&resume), resumed(0));
}

#[test]
fn a_dead_letter_is_listed_exported_put_back_and_purged() {
    let desk = Desk::new();
    let holder = desk.holder(Some(fake("run")));
    let payload = vec![9; 1_200_000];
    for sequence in [0, 1] {
        accept(
            &holder,
            chunk("s1", SequenceChoice::Exactly(sequence)),
            &mut &payload[..],
        )
        .unwrap();
        desk.bury(&holder, "s1");
    }
    let served = desk.serve(holder.clone());
    let client = Client::of_store(desk.store()).unwrap();
    let Ok(Reply::Dead(letters)) = client.ask(&Request::DeadShow { which: which() }) else {
        panic!("two letters");
    };
    assert_eq!(letters.len(), 2);
    let mut exported = Vec::new();
    client
        .dead_payload(&letters[0].key(), &mut exported)
        .unwrap();
    assert!(exported == payload);
    let one = Which {
        tenant: Some(tenant()),
        session: Some("s1".parse().unwrap()),
        sequence: Some(0),
    };
    let redrive = Request::Redrive { which: one.clone() };
    let Ok(Reply::Redriven(moved)) = client.ask(&redrive) else {
        panic!("redriven");
    };
    assert_eq!((moved.chunks, moved.bytes), (1, 1_200_000));
    assert_eq!(client.ask(&redrive).unwrap_err().code, Code::NotFound);
    let gone = client.dead_payload(&letters[0].key(), &mut Vec::new());
    assert_eq!(gone.unwrap_err().code, Code::NotFound);
    assert!(
        matches!(client.ask(&Request::Purge { which: which() }), Ok(Reply::Purged(m)) if m.chunks == 1)
    );
    let why = Request::Why {
        tenant: tenant(),
        session: Some("s1".parse().unwrap()),
        sequence: Some(0),
    };
    let Ok(Reply::Why(why)) = client.ask(&why) else {
        panic!("why answers");
    };
    assert_eq!(why.session.unwrap().state, Some(ChunkState::Live));
    served.end();
    assert_eq!(holder.store.view().balance.purged, 1);
}
