//! `why` of a session and of a chunk: nothing is invented, and nothing that the store knows is kept back.

use super::support::{Desk, chunk, fake, tenant};
use super::{accept, s1};
use crate::control::answer::answer;
use crate::control::wire::{Reply, Request, WhyReply};
use crate::control::{Code, Holder, Refusal};
use crate::model::{ChunkState, DeadReason};
use crate::store::SequenceChoice;

fn why(holder: &Holder, session: &str, sequence: Option<u64>) -> Result<WhyReply, Refusal> {
    let question = Request::Why {
        tenant: tenant(),
        session: Some(session.parse().unwrap()),
        sequence,
    };
    match answer(holder, question)? {
        Reply::Why(reply) => Ok(*reply),
        other => panic!("{other:?}"),
    }
}

/// 0 delivered, 1 dead, 2 and 3 waiting; 4 never came; 5 waiting.
fn mixed(desk: &Desk) -> Holder {
    let holder = desk.holder(Some(fake("run")));
    for sequence in [0, 1, 2, 3, 5] {
        let chunk = chunk("s1", SequenceChoice::Exactly(sequence));
        accept(&holder, chunk, &mut &b"abc"[..]).unwrap();
    }
    let lease = || holder.store.lease(&s1()).unwrap().unwrap();
    lease().ack().unwrap();
    lease().bury(DeadReason::Rejected, None).unwrap();
    holder
}

/// Seen: a chunk that was never enqueued was said to be behind the head of its session.
#[test]
fn a_chunk_or_session_that_never_came_is_refused_and_not_said_to_wait() {
    let desk = Desk::new();
    let holder = mixed(&desk);
    for (session, sequence, said) in [
        (
            "s1",
            Some(99),
            "sequence 99 of session s1 was never accepted here",
        ),
        (
            "s1",
            Some(4),
            "sequence 4 of session s1 was never accepted here",
        ),
        (
            "zzz",
            Some(0),
            "no session zzz of tenant acme is remembered here",
        ),
        (
            "zzz",
            None,
            "no session zzz of tenant acme is remembered here",
        ),
    ] {
        let refusal = why(&holder, session, sequence).unwrap_err();
        assert_eq!(refusal.code, Code::NotFound);
        assert!(refusal.message.starts_with(said), "{}", refusal.message);
    }
}

#[test]
fn every_accepted_chunk_is_told_where_it_stands() {
    let desk = Desk::new();
    let holder = mixed(&desk);
    let told = |sequence| why(&holder, "s1", Some(sequence)).unwrap();
    for (sequence, state, behind) in [
        (0, Some(ChunkState::Delivered), None),
        (1, Some(ChunkState::Dead), None),
        (2, Some(ChunkState::Live), None),
        (3, None, Some(2)),
        (5, None, Some(2)),
    ] {
        let session = told(sequence).session.unwrap();
        assert_eq!(
            (session.state, session.behind),
            (state, behind),
            "{sequence}"
        );
        assert_eq!(session.dead, 1);
    }
    assert_eq!(told(0).next, "nothing: it waits no more");
    assert_eq!(told(1).remedy, "worker dead show acme s1 1");
    // One that a person removed makes no other one doubtful.
    let letter = holder
        .store
        .dead(&crate::store::DeadFilter::default())
        .unwrap()
        .remove(0);
    holder.store.purge(&letter.key).unwrap();
    for (sequence, state) in [(0, ChunkState::Delivered), (1, ChunkState::Purged)] {
        let session = told(sequence).session.unwrap();
        assert_eq!(session.state, Some(state));
        assert_eq!(session.may_be, []);
    }
}

/// Seen: while any chunk of the tenant was confirming, each delivered one was "delivered or confirming".
#[test]
fn a_chunk_that_is_confirming_is_told_apart_from_those_that_are_delivered() {
    let desk = Desk::new();
    let holder = desk.holder(Some(fake("run")));
    for sequence in 0..3 {
        let chunk = chunk("s1", SequenceChoice::Exactly(sequence));
        accept(&holder, chunk, &mut &b"abc"[..]).unwrap();
    }
    let lease = || holder.store.lease(&s1()).unwrap().unwrap();
    lease().ack().unwrap();
    lease().confirm().unwrap();
    lease().ack().unwrap();
    for (sequence, state) in [
        (0, ChunkState::Delivered),
        (1, ChunkState::Confirming),
        (2, ChunkState::Delivered),
    ] {
        let session = why(&holder, "s1", Some(sequence)).unwrap().session.unwrap();
        assert_eq!(session.state, Some(state), "{sequence}");
    }
}

/// Seen: a session whose only chunk was lost sent to a list of dead letters that was empty.
#[test]
fn what_is_lost_with_its_segment_is_told_so_and_how_to_give_it_again() {
    let desk = Desk::new();
    let Holder { store, .. } = mixed(&desk);
    store.close().unwrap();
    for file in std::fs::read_dir(desk.store().join("segments")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let holder = desk.holder(Some(fake("run")));
    for sequence in [1, 2, 3, 5] {
        let reply = why(&holder, "s1", Some(sequence)).unwrap();
        let session = reply.session.unwrap();
        assert_eq!((session.state, session.lost), (None, true), "{sequence}");
        assert_eq!(session.may_be, []);
        let again = format!("worker enqueue --tenant acme --session s1 --sequence {sequence} FILE");
        assert_eq!(reply.remedy, again);
    }
    let delivered = why(&holder, "s1", Some(0)).unwrap().session.unwrap();
    assert_eq!(delivered.state, Some(ChunkState::Delivered));
    let whole = why(&holder, "s1", None).unwrap();
    let session = whole.session.unwrap();
    assert_eq!((session.dead, session.lost), (0, true));
    assert_eq!(whole.remedy, "worker fsck");
}

/// Seen: "nothing waits; last failure: none" of a session whose only chunk was a dead letter.
#[test]
fn a_session_that_waits_for_nothing_tells_its_dead_letters() {
    let desk = Desk::new();
    let holder = desk.holder(Some(fake("run")));
    let only = chunk("s1", SequenceChoice::Exactly(0));
    accept(&holder, only, &mut &b"abc"[..]).unwrap();
    desk.bury(&holder, "s1");
    let reply = why(&holder, "s1", None).unwrap();
    assert_eq!(reply.session.unwrap().dead, 1);
    assert_eq!(reply.remedy, "worker dead list acme s1");
}
