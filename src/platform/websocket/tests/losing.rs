//! Sockets that end, that are silent, and servers that speak something else.

use super::*;

#[test]
fn what_was_sent_is_in_doubt_and_what_was_not_moves() {
    let mut rig = Rig::open();
    let begun = rig.deliver(order("s1", 0..=0, 65_532 * 2));
    let whole = rig.deliver(order("s2", 0..=0, 10));
    rig.deliver(order("s3", 0..=0, 10));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.opened(1, 3, "s2");
    rig.told();
    rig.block(begun, 65_532);
    rig.block(whole, 10);
    rig.told();
    rig.end(1, None);
    rig.expect(&[
        "2 ended: cut, sent Part",
        "3 ended: cut, sent All",
        "dial 2 as 1",
    ]);
    rig.event(2, Event::Opened);
    rig.expect(&["2: open 1 s3 0..=0"]);
}

#[test]
fn sockets_that_fail_in_a_row_are_ever_further_apart_and_then_given_up() {
    let mut rig = Rig::new();
    rig.deliver(order("s1", 0..=0, 10));
    let mut waits = Vec::new();
    for socket in 1.. {
        let mut waited = 0;
        let mut told = rig.told();
        while told.is_empty() && waited < 100 {
            rig.wait(1);
            waited += 1;
            told = rig.told();
        }
        waits.push(waited);
        if told == ["1 ended: cut, sent Nothing"] {
            break;
        }
        assert_eq!(told, [format!("dial {socket} as 1")]);
        rig.event(socket, Event::Opened);
        rig.told();
        rig.end(socket, Some(1000));
    }
    // The second at once, the third after 1 s, the fourth after 2; an order is moved three times.
    assert_eq!(waits, [0, 0, 1, 2, 0]);
    let mut rests = Vec::new();
    for socket in 5..14 {
        rig.deliver(order("s1", 0..=0, 10));
        let mut waited = 0;
        while rig.told().is_empty() {
            rig.wait(1);
            waited += 1;
        }
        rests.push(waited);
        rig.event(socket, Event::Opened);
        rig.end(socket, None);
        rig.lane.abandon(OrderId(rig.orders), rig.now);
        rig.told();
    }
    assert_eq!(rests, [4, 8, 16, 32, 60, 60, 60, 60, 60]);
}

#[test]
fn the_wait_for_the_next_socket_ends_by_itself_while_an_old_one_is_leaving() {
    let mut rig = Rig::open();
    let id = rig.deliver(order("s1", 0..=0, 10));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.told();
    rig.block(id, 10);
    let mut newer = order("s2", 0..=0, 10);
    newer.token = token(2);
    rig.deliver(newer);
    rig.told();
    rig.hear(1, json!({"type": "reauthed", "accepted": false}));
    for socket in [2, 3] {
        rig.expect(&[&format!("dial {socket} as 2")]);
        rig.event(socket, Event::Opened);
        rig.told();
        rig.end(socket, None);
    }
    rig.expect(&[]);
    assert_eq!(rig.lane.deadline(), Some(rig.now + SECOND));
    rig.wait(1);
    rig.expect(&["dial 4 as 2"]);
}

/// Between a socket's end and the next look at the clock a busy machine may let more time pass than the wait takes.
#[test]
fn a_wait_for_the_next_socket_that_is_over_when_it_is_looked_at_ends_all_the_same() {
    let mut rig = Rig::open();
    rig.end(1, None);
    rig.deliver(order("s1", 0..=0, 10));
    rig.expect(&["dial 2 as 1"]);
    rig.event(2, Event::Opened);
    rig.told();
    rig.end(2, None);
    rig.expect(&[]);
    let rest = rig.now + SECOND;
    rig.now += 5 * SECOND;
    assert_eq!(rig.lane.deadline(), Some(rest));
    rig.wait(0);
    rig.expect(&["dial 3 as 1"]);
    // And nobody looks again for its sake.
    assert!(rig.lane.deadline().is_none_or(|at| at > rig.now));
}

#[test]
fn an_ack_ends_the_row_of_failures() {
    let mut rig = Rig::new();
    for socket in 1..9 {
        let id = rig.deliver(order("s1", 0..=0, 10));
        rig.expect(&[&format!("dial {socket} as 1")]);
        rig.event(socket, Event::Opened);
        rig.opened(socket, 1, "s1");
        rig.told();
        rig.block(id, 10);
        rig.ack(socket, 1);
        rig.told();
        rig.end(socket, None);
    }
}

#[test]
fn a_peer_that_says_nothing_is_pinged_and_then_given_up() {
    let mut rig = Rig::open();
    rig.deliver(order("s1", 0..=0, 10));
    rig.told();
    rig.wait(14);
    rig.expect(&[]);
    rig.wait(1);
    rig.expect(&["1: ping"]);
    rig.wait(14);
    rig.event(1, Event::Alive);
    rig.wait(14);
    // The open question is answered by nobody.
    rig.expect(&["hang 1", "dial 2 as 1"]);
    rig.event(2, Event::Opened);
    rig.told();
    rig.wait(15);
    rig.expect(&["2: ping"]);
    rig.wait(15);
    let told = rig.told();
    assert_eq!(told[0], "hang 2");
}

#[test]
fn a_chunk_without_an_answer_first_stops_what_would_follow_and_then_ends_the_socket() {
    let mut rig = Rig::open();
    let id = rig.deliver(order("s1", 0..=0, 10));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.told();
    rig.block(id, 10);
    rig.told();
    let pass = |rig: &mut Rig, seconds| {
        for _ in 0..seconds {
            rig.wait(1);
            rig.event(1, Event::Alive);
        }
        rig.told()
    };
    pass(&mut rig, 29);
    rig.deliver(order("s2", 0..=0, 10));
    rig.expect(&["1: open 3 s2 0..=0"]);
    rig.opened(1, 3, "s2");
    rig.block(OrderId(3), 10);
    rig.told();
    pass(&mut rig, 1);
    rig.deliver(order("s3", 0..=0, 10));
    rig.expect(&[]);
    // Any answer shows that there is somebody.
    rig.ack(1, 3);
    rig.expect(&["3 said 200, sent All", "1: open 4 s3 0..=0"]);
    rig.opened(1, 4, "s3");
    rig.block(OrderId(4), 10);
    rig.told();
    assert!(!pass(&mut rig, 89).contains(&"hang 1".to_owned()));
    let told = pass(&mut rig, 1);
    let why = "ended: chunks were sent and none was answered for 90s, sent All";
    assert_eq!(
        told,
        ["hang 1".to_owned(), format!("2 {why}"), format!("4 {why}")]
    );
}

#[test]
fn a_network_that_takes_nothing_ends_the_socket_and_a_slow_one_does_not() {
    let mut rig = Rig::open();
    let id = rig.deliver(order("s1", 0..=0, 65_532 * 100));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.told();
    rig.clogged = true;
    rig.block(id, 65_532);
    rig.told();
    for _ in 0..10 {
        // Alive by what it takes, although it says nothing.
        rig.wait(14);
        rig.event(1, Event::Written);
        rig.block(id, 65_532);
        let told = rig.told();
        assert!(!told.contains(&"hang 1".to_owned()), "{told:?}");
    }
    rig.wait(30);
    assert_eq!(rig.told()[0], "hang 1");
}

#[test]
fn a_socket_without_work_is_closed_and_its_successor_dialled_when_wanted() {
    let mut rig = Rig::open();
    for _ in 0..59 {
        rig.wait(1);
        rig.event(1, Event::Alive);
        rig.expect(&[]);
    }
    rig.wait(1);
    rig.expect(&["hang 1"]);
    assert_eq!(rig.lane.deadline(), None);
    rig.deliver(order("s1", 0..=0, 10));
    rig.expect(&["dial 2 as 1"]);
}

#[test]
fn a_server_that_speaks_something_else_is_hung_up_on() {
    for text in [
        "<html>welcome</html>",
        "[]",
        "7",
        r#"{"type": 7}"#,
        r#"{"type": "ack"}"#,
        r#"{"type": "ack", "channel": -1}"#,
        r#"{"type": "opened", "channel": 2, "persisted": "all"}"#,
        r#"{"type": "error", "channel": 2, "status": 200}"#,
        r#"{"type": "error", "status": 500}"#,
        r#"{"type": "opened", "channel": 2, "session": "another", "persisted": [], "digests": []}"#,
    ] {
        let mut rig = Rig::open();
        rig.deliver(order("s1", 0..=0, 10));
        rig.told();
        rig.event(1, Event::Text(text.to_owned()));
        rig.expect(&["hang 1", "dial 2 as 1"]);
    }
}

#[test]
fn what_a_later_version_says_is_passed_over() {
    let mut rig = Rig::open();
    rig.deliver(order("s1", 0..=0, 10));
    rig.told();
    rig.hear(1, json!({"type": "weather", "channel": "sunny"}));
    rig.opened(1, 2, "s1");
    rig.expect(&["1: chunk 2 s1 from 0, 1 parts", "read 2"]);
}

#[test]
fn a_payload_that_cannot_be_read_ends_its_channel_only() {
    let mut rig = Rig::open();
    let id = rig.deliver(order("s1", 0..=0, 65_532 * 2));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.told();
    rig.block(id, 65_532);
    rig.told();
    let fault = crate::platform::body::PayloadFault::Damaged {
        sequence: 0,
        source: std::io::ErrorKind::InvalidData.into(),
    };
    rig.lane.unreadable(id, fault, rig.now);
    rig.expect(&[
        "2 the payload of sequence 0 is damaged, sent Part",
        "1: close 2",
    ]);
}

#[test]
fn messages_for_a_socket_that_was_hung_up_are_not_heard() {
    let mut rig = Rig::open();
    rig.deliver(order("s1", 0..=0, 10));
    rig.hear(1, json!({"type": "disconnect", "reason": "reconnect"}));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.end(1, Some(4401));
    rig.event(1, Event::Written);
    rig.expect(&[]);
}
