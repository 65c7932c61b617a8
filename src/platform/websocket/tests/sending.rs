//! Channels, turns and receipts on a socket that works.

use super::*;

#[test]
fn the_first_order_dials_and_the_socket_carries_its_chunk() {
    let mut rig = Rig::new();
    let one = rig.deliver(order("s1", 7..=7, 100_000));
    rig.expect(&["dial 1 as 1"]);
    rig.event(1, Event::Opened);
    rig.expect(&["1: open 1 s1 7..=7"]);
    rig.opened(1, 1, "s1");
    rig.expect(&["1: chunk 1 s1 from 7, 1 parts", "read 1"]);
    rig.block(one, 65_532);
    rig.expect(&["1: payload 1 65532", "read 1"]);
    rig.block(one, 34_468);
    rig.expect(&["1: payload 1 34468"]);
    rig.ack(1, 1);
    rig.expect(&["1 said 200, sent All"]);
    // The next chunk of the session needs no question.
    rig.deliver(order("s1", 8..=8, 10));
    rig.expect(&["1: chunk 1 s1 from 8, 1 parts", "read 2"]);
}

#[test]
fn channels_take_turns_and_messages_go_first() {
    let mut rig = Rig::open();
    let ids = ["s1", "s2"].map(|session| rig.deliver(order(session, 0..=0, 65_532 * 3)));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.opened(1, 3, "s2");
    rig.told();
    rig.clogged = true;
    for _ in 0..2 {
        for id in ids {
            rig.block(id, 65_532);
        }
    }
    rig.expect(&[
        "1: payload 2 65532",
        "read 2",
        "1: payload 3 65532",
        "read 3",
    ]);
    // Two frames are with the writer; what waits for them is overtaken by a message.
    rig.deliver(order("s3", 0..=0, 10));
    rig.expect(&[]);
    for next in [
        &["1: open 4 s3 0..=0"][..],
        &["1: payload 2 65532", "read 2"],
        &["1: payload 3 65532", "read 3"],
    ] {
        rig.event(1, Event::Written);
        rig.expect(next);
    }
}

#[test]
fn what_the_server_has_with_the_same_digest_is_not_sent() {
    let mut rig = Rig::open();
    rig.deliver(order("s1", 7..=7, 10));
    rig.told();
    let digest = meta("s1", 7, 10).digest.to_string();
    rig.hear(
        1,
        json!({"type": "opened", "channel": 2, "session": "s1",
        "persisted": [{"first": 0, "last": 7}],
        "digests": [{"sequence": 7, "digest": digest}]}),
    );
    rig.expect(&["2 said 208, sent Nothing"]);
    // The channel is open for the next one.
    rig.deliver(order("s1", 8..=8, 10));
    rig.expect(&["1: chunk 2 s1 from 8, 1 parts", "read 3"]);
}

#[test]
fn an_interval_settles_nothing_without_the_digest() {
    for digests in [
        json!([]),
        json!([{"sequence": 7, "digest": "md5:00"}]),
        json!([{"sequence": 6, "digest": "x"}]),
    ] {
        let mut rig = Rig::open();
        rig.deliver(order("s1", 7..=7, 10));
        rig.told();
        rig.hear(
            1,
            json!({"type": "opened", "channel": 2, "session": "s1",
            "persisted": [{"first": 0, "last": 9}], "digests": digests}),
        );
        rig.expect(&["1: chunk 2 s1 from 7, 1 parts", "read 2"]);
    }
}

#[test]
fn a_digest_outside_the_intervals_settles_nothing() {
    let mut rig = Rig::open();
    rig.deliver(order("s1", 7..=7, 10));
    rig.told();
    let digest = meta("s1", 7, 10).digest.to_string();
    rig.hear(
        1,
        json!({"type": "opened", "channel": 2, "session": "s1", "persisted": [],
        "digests": [{"sequence": 7, "digest": digest}]}),
    );
    rig.expect(&["1: chunk 2 s1 from 7, 1 parts", "read 2"]);
}

#[test]
fn other_bytes_under_the_sequence_are_a_conflict() {
    let mut rig = Rig::open();
    rig.deliver(order("s1", 7..=7, 10));
    rig.told();
    let other = Digest::of(b"another writer").to_string();
    rig.hear(
        1,
        json!({"type": "opened", "channel": 2, "session": "s1",
        "persisted": [{"first": 7, "last": 7}],
        "digests": [{"sequence": 7, "digest": other}]}),
    );
    rig.expect(&["2 said 409, sent Nothing", "1: close 2"]);
}

#[test]
fn of_a_group_only_what_is_missing_is_sent() {
    let named = |sequence| {
        let digest = meta("s1", sequence, 10).digest.to_string();
        json!({"sequence": sequence, "digest": digest})
    };
    for (persisted, told) in [
        (
            vec![5, 6],
            vec!["keep 7..=8 of 2", "1: chunk 2 s1 from 7, 2 parts", "read 2"],
        ),
        (
            vec![8],
            vec!["keep 5..=7 of 2", "1: chunk 2 s1 from 5, 3 parts", "read 2"],
        ),
        // A hole is sent with what stands on both sides of it.
        (vec![6], vec!["1: chunk 2 s1 from 5, 4 parts", "read 2"]),
        (vec![5, 6, 7, 8], vec!["2 said 208, sent Nothing"]),
    ] {
        let mut rig = Rig::open();
        rig.deliver(order("s1", 5..=8, 10));
        rig.told();
        rig.hear(1, json!({"type": "opened", "channel": 2, "session": "s1",
            "persisted": persisted.iter().map(|n| json!({"first": n, "last": n})).collect::<Vec<_>>(),
            "digests": persisted.iter().map(|n| named(*n)).collect::<Vec<_>>()}));
        rig.expect(&told);
    }
}

#[test]
fn an_ack_settles_only_what_was_sent() {
    let mut rig = Rig::open();
    let id = rig.deliver(order("s1", 7..=7, 65_532 * 2));
    rig.told();
    for channel in [1, 2, 3, 77] {
        rig.ack(1, channel);
    }
    rig.expect(&[]);
    rig.opened(1, 2, "s1");
    rig.told();
    rig.block(id, 65_532);
    rig.told();
    // Before its last byte it ends the channel, and the verdict is the receipt's reader's.
    rig.ack(1, 2);
    rig.expect(&["2 said 200, sent Part", "1: close 2"]);
    rig.ack(1, 2);
    rig.block(id, 65_532);
    rig.expect(&[]);
    rig.deliver(order("s1", 8..=8, 10));
    rig.expect(&["1: open 3 s1 8..=8"]);
}

/// Seen: a worker that had been killed behind a group sent its chunks one by one; the second was acknowledged when its last
/// byte was written and not yet there, so the server had ended the channel and the third was never answered.
#[test]
fn an_ack_of_what_was_known_ends_the_channel_whoever_was_faster() {
    for (statuses, next) in [
        (&["duplicate"][..], "1: open 3 s1 9..=9"),
        (&["duplicate", "duplicate"], "1: open 3 s1 9..=9"),
        // It waited for the payload.
        (&["duplicate", "stored"], "1: chunk 2 s1 from 9, 1 parts"),
    ] {
        let mut rig = Rig::open();
        let last = 6 + statuses.len() as u64;
        let id = rig.deliver(order("s1", 7..=last, 10));
        rig.told();
        rig.opened(1, 2, "s1");
        rig.told();
        rig.block(id, 10 * statuses.len());
        rig.told();
        let parts = statuses.iter().zip(7..);
        let parts = parts.map(|(status, n)| json!({"sequence": n, "status": status}));
        rig.hear(
            1,
            json!({"type": "ack", "channel": 2, "session": "s1", "parts": parts.collect::<Vec<_>>()}),
        );
        let told = rig.told();
        assert_eq!(told[0], "2 said 200, sent All");
        // For a server that kept it.
        let closes = next.contains("open").then_some("1: close 2");
        assert_eq!(told.get(1).map(String::as_str), closes);
        rig.deliver(order("s1", 9..=9, 10));
        assert_eq!(rig.told()[0], next, "{statuses:?}");
    }
}

#[test]
fn an_abandoned_order_ends_its_channel_and_nobody_elses() {
    let mut rig = Rig::open();
    let one = rig.deliver(order("s1", 0..=0, 20));
    let two = rig.deliver(order("s2", 0..=0, 20));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.opened(1, 3, "s2");
    rig.told();
    rig.lane.abandon(one, rig.now);
    rig.expect(&["1: close 2"]);
    // What was being read for it, and what is still said of it.
    rig.block(one, 20);
    rig.ack(1, 2);
    rig.expect(&[]);
    rig.block(two, 20);
    rig.ack(1, 3);
    rig.expect(&["1: payload 3 20", "3 said 200, sent All"]);
    rig.deliver(order("s1", 0..=0, 20));
    rig.expect(&["1: open 4 s1 0..=0"]);
}

#[test]
fn an_order_abandoned_before_its_message_was_written_leaves_no_trace_of_it() {
    let mut rig = Rig::open();
    rig.clogged = true;
    for session in ["s1", "s2", "s3"] {
        rig.deliver(order(session, 0..=0, 10));
    }
    rig.expect(&["1: open 2 s1 0..=0", "1: open 3 s2 0..=0"]);
    rig.lane.abandon(OrderId(4), rig.now);
    rig.event(1, Event::Written);
    rig.expect(&["1: close 4"]);
}

#[test]
fn a_refused_chunk_ends_its_channel() {
    for (message, status) in [
        (
            json!({"type": "error", "channel": 2, "status": 422, "code": "digest.mismatch"}),
            422,
        ),
        (
            json!({"type": "error", "channel": 2, "status": 401, "code": "bad.credentials"}),
            401,
        ),
        (
            json!({"type": "throttle", "channel": 2, "retryAfter": 3}),
            429,
        ),
    ] {
        let mut rig = Rig::open();
        let id = rig.deliver(order("s1", 0..=0, 10));
        rig.told();
        rig.opened(1, 2, "s1");
        rig.told();
        rig.block(id, 10);
        rig.told();
        rig.hear(1, message);
        rig.expect(&[&format!("2 said {status}, sent All")]);
        rig.deliver(order("s1", 0..=0, 10));
        rig.expect(&["1: open 3 s1 0..=0"]);
    }
}

#[test]
fn the_last_chunk_of_a_session_closes_its_channel() {
    let mut rig = Rig::open();
    let mut last = order("s1", 0..=0, 10);
    last.metas[0].last = true;
    let id = rig.deliver(last);
    rig.told();
    rig.opened(1, 2, "s1");
    rig.block(id, 10);
    rig.told();
    rig.ack(1, 2);
    rig.expect(&["2 said 200, sent All", "1: close 2"]);
}

#[test]
fn channels_are_no_more_than_a_server_allows() {
    let mut rig = Rig::open();
    for index in 0..1030_u64 {
        let session = format!("s{index}");
        let id = rig.deliver(order(&session, 0..=0, 10));
        let told = rig.told();
        let closes = told.iter().filter(|told| told.contains("close")).count();
        // The one that was idle longest makes room.
        assert_eq!(closes, usize::from(index >= 1024), "{index}: {told:?}");
        rig.opened(1, index + 2, &session);
        rig.block(id, 10);
        rig.ack(1, index + 2);
        rig.told();
    }
}

#[test]
fn a_throttle_of_the_socket_refuses_all_that_is_not_wholly_sent() {
    let mut rig = Rig::open();
    let sent = rig.deliver(order("s1", 0..=0, 10));
    let half = rig.deliver(order("s2", 0..=0, 65_532 * 2));
    rig.deliver(order("s3", 0..=0, 10));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.opened(1, 3, "s2");
    rig.told();
    rig.block(sent, 10);
    rig.block(half, 65_532);
    rig.told();
    rig.hear(1, json!({"type": "throttle", "retryAfter": "PT3.5S"}));
    rig.expect(&[
        "3 said 429, sent Part",
        "4 said 429, sent Nothing",
        "1: close 3",
        "1: close 4",
    ]);
    rig.wait(1);
    // Nothing is begun before its time, and the wait shrinks as time goes.
    rig.deliver(order("s4", 0..=0, 10));
    let Some(Action::Settle {
        outcome: Outcome::Said(said),
        ..
    }) = rig.lane.next_action()
    else {
        panic!("it is refused");
    };
    assert_eq!((said.status, said.wait()), (429, Some(3 * SECOND)));
    rig.ack(1, 2);
    rig.expect(&["2 said 200, sent All"]);
    rig.wait(3);
    rig.deliver(order("s4", 0..=0, 10));
    rig.expect(&["1: open 5 s4 0..=0"]);
}
