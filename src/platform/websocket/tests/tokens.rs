//! A newer token comes with a delivery: in band where the server takes it, else make before break.

use super::*;

fn as_of(generation: u64, mut order: Order) -> Order {
    order.token = token(generation);
    order
}

/// Session s1 with a chunk sent whole on socket 1, and an order of generation 2 that waits for `reauthed`.
fn offered() -> Rig {
    let mut rig = Rig::open();
    let id = rig.deliver(order("s1", 0..=0, 10));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.told();
    rig.block(id, 10);
    rig.told();
    rig.deliver(as_of(2, order("s2", 0..=0, 10)));
    rig.expect(&["1: reauth 2"]);
    rig
}

#[test]
fn a_socket_goes_on_with_an_accepted_token() {
    let mut rig = offered();
    // One offer, whoever else comes with it.
    rig.deliver(as_of(2, order("s3", 0..=0, 10)));
    rig.expect(&[]);
    rig.hear(1, json!({"type": "reauthed", "accepted": true}));
    rig.expect(&["1: open 3 s2 0..=0", "1: open 4 s3 0..=0"]);
    rig.ack(1, 2);
    rig.expect(&["2 said 200, sent All"]);
    // An order that was begun with the older token is served all the same.
    rig.deliver(as_of(1, order("s4", 0..=0, 10)));
    rig.expect(&["1: open 5 s4 0..=0"]);
}

#[test]
fn an_accepted_token_that_is_old_by_then_is_followed_by_the_newest() {
    let mut rig = offered();
    rig.deliver(as_of(3, order("s3", 0..=0, 10)));
    rig.hear(1, json!({"type": "reauthed", "accepted": true}));
    let told = rig.told();
    assert!(told.contains(&"1: open 3 s2 0..=0".to_owned()), "{told:?}");
    assert!(told.contains(&"1: reauth 3".to_owned()), "{told:?}");
}

/// The old socket owes an answer; the new one takes everything else.
fn makes_before_it_breaks(mut rig: Rig) {
    rig.expect(&["dial 2 as 2"]);
    rig.event(2, Event::Opened);
    rig.expect(&["2: open 1 s2 0..=0"]);
    // s1 moves when nothing of it is unanswered on the first.
    rig.deliver(as_of(2, order("s1", 1..=1, 10)));
    rig.expect(&[]);
    rig.ack(1, 2);
    rig.expect(&["2 said 200, sent All", "hang 1", "2: open 2 s1 1..=1"]);
}

#[test]
fn a_server_that_refuses_the_offer_gets_a_second_socket_first() {
    let mut rig = offered();
    rig.hear(1, json!({"type": "reauthed", "accepted": false}));
    makes_before_it_breaks(rig);
}

#[test]
fn a_server_that_ignores_the_offer_gets_a_second_socket_first() {
    let mut rig = offered();
    rig.wait(9);
    rig.expect(&[]);
    rig.wait(1);
    makes_before_it_breaks(rig);
}

#[test]
fn a_socket_that_owes_nothing_is_let_go_at_once() {
    let mut rig = Rig::open();
    rig.deliver(as_of(2, order("s1", 0..=0, 10)));
    rig.expect(&["1: reauth 2"]);
    rig.hear(1, json!({"type": "reauthed", "accepted": false}));
    rig.expect(&["dial 2 as 2", "hang 1"]);
}

#[test]
fn a_server_that_drops_the_socket_instead_costs_nobody_who_was_not_sent() {
    for code in [None, Some(1000), Some(1006), Some(4401)] {
        let mut rig = Rig::open();
        let sent = rig.deliver(order("s1", 0..=0, 10));
        rig.told();
        rig.opened(1, 2, "s1");
        rig.told();
        rig.block(sent, 10);
        rig.deliver(order("s2", 0..=0, 10));
        rig.deliver(as_of(2, order("s3", 0..=0, 10)));
        rig.told();
        rig.end(1, code);
        let told = rig.told();
        // In doubt, unless the server said that the token it had is not accepted.
        let fate = match code {
            Some(4401) => [
                "2 said 401, sent All",
                "3 said 401, sent Nothing",
                "dial 2 as 2",
            ]
            .to_vec(),
            _ => ["2 ended: cut, sent All", "dial 2 as 2"].to_vec(),
        };
        assert_eq!(told, fate, "{code:?}");
        rig.event(2, Event::Opened);
        let told = rig.told();
        assert!(
            told.iter().any(|told| told.ends_with("s3 0..=0")),
            "{told:?}"
        );
    }
}

#[test]
fn a_handshake_that_is_refused_answers_all_who_waited_for_it() {
    for status in [401, 403, 429, 500, 503] {
        let mut rig = Rig::new();
        rig.deliver(order("s1", 0..=0, 10));
        rig.deliver(order("s2", 0..=0, 10));
        rig.expect(&["dial 1 as 1"]);
        rig.refuse(1, status);
        let refused = |id| format!("{id} refused {status}, sent Nothing");
        rig.expect(&[&refused(1), &refused(2)]);
        // The next one tries anew.
        rig.deliver(order("s1", 0..=0, 10));
        rig.expect(&["dial 2 as 1"]);
    }
}

#[test]
fn a_refused_token_is_not_held_against_a_newer_one() {
    let mut rig = Rig::new();
    rig.deliver(order("s1", 0..=0, 10));
    rig.deliver(as_of(2, order("s2", 0..=0, 10)));
    rig.told();
    rig.refuse(1, 401);
    rig.expect(&["1 refused 401, sent Nothing", "dial 2 as 2"]);
}

#[test]
fn a_disconnect_for_credentials_is_a_401_for_all_that_the_token_covered() {
    let mut rig = Rig::open();
    let sent = rig.deliver(order("s1", 0..=0, 10));
    rig.deliver(order("s2", 0..=0, 10));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.told();
    rig.block(sent, 10);
    rig.told();
    rig.hear(1, json!({"type": "disconnect", "reason": "unauthorized"}));
    rig.expect(&["hang 1", "2 said 401, sent All", "3 said 401, sent Nothing"]);
}

#[test]
fn a_disconnect_to_reconnect_moves_what_was_not_begun() {
    let mut rig = Rig::open();
    let sent = rig.deliver(order("s1", 0..=0, 10));
    rig.deliver(order("s2", 0..=0, 10));
    rig.told();
    rig.opened(1, 2, "s1");
    rig.told();
    rig.block(sent, 10);
    rig.told();
    rig.hear(1, json!({"type": "disconnect", "reason": "reconnect"}));
    rig.expect(&[
        "hang 1",
        "2 ended: the server disconnected, sent All",
        "dial 2 as 1",
    ]);
}

#[test]
fn a_disconnect_that_throttles_is_kept_to() {
    let mut rig = Rig::open();
    rig.deliver(order("s1", 0..=0, 10));
    rig.told();
    rig.hear(
        1,
        json!({"type": "disconnect", "reason": "error", "status": 503, "retryAfter": 20}),
    );
    rig.expect(&["hang 1", "2 said 503, sent Nothing"]);
    rig.deliver(order("s1", 0..=0, 10));
    rig.expect(&["3 said 503, sent Nothing"]);
    rig.wait(20);
    rig.deliver(order("s1", 0..=0, 10));
    rig.expect(&["dial 2 as 1"]);
}
