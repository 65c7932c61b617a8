//! A test for each row of the table in design section 8, and for the rules above it.

use super::*;
use crate::model::FailureClass as C;

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const DAY: Duration = secs(24 * 3600);

/// The first failure of a chunk, in a lane where other sessions have work and nothing else is wrong.
fn first(class: C) -> Facts {
    Facts {
        failed: Failed {
            class,
            status: None,
            hint: None,
            credential: None,
            intact: true,
        },
        chunk: Chunk {
            counted: 0,
            tries: 1,
            failing_for: Duration::ZERO,
            since_counted: None,
        },
        session: Session {
            refusals: 1,
            others_delivered: false,
            alone: false,
        },
        route: Route {
            outage: false,
            blocked: None,
            refused_alike: 0,
            suspects: 0,
            all_refused: false,
            works: false,
            failing: 1,
            failing_several: false,
            throttles: 1,
            condemned_one: false,
        },
        limits: Limits {
            max_retries: 10,
            min_retry_span: DAY,
        },
    }
}

fn with(class: C, change: impl FnOnce(&mut Facts)) -> Disposition {
    let mut facts = first(class);
    change(&mut facts);
    decide(&facts, 0.0)
}

const REFUSALS: [C; 4] = [
    C::Unrecognised,
    C::Forbidden,
    C::Endpoint,
    C::PurviewPending,
];

fn blocks(disposition: Disposition) -> bool {
    disposition == Disposition::hold_route(Settle::Release, RouteHold::Block)
}

fn is_counted(disposition: Disposition) -> bool {
    matches!(disposition.settle, Settle::Nack { counted: true, .. })
}

#[test]
fn a_first_refusal_holds_its_session_and_the_lane_tries_another() {
    for class in REFUSALS {
        let wanted = Disposition::hold_session(Settle::Release, secs(2), false);
        assert_eq!(decide(&first(class), 0.0), wanted, "{class}");
    }
}

#[test]
fn the_same_refusal_from_a_second_session_holds_the_route() {
    for class in REFUSALS {
        assert!(blocks(with(class, |f| f.route.refused_alike = 1)));
    }
}

#[test]
fn a_refusal_of_the_only_session_with_work_holds_the_route() {
    for class in REFUSALS {
        assert!(blocks(with(class, |f| f.session.alone = true)));
    }
}

#[test]
fn refusals_of_several_kinds_from_every_session_hold_the_route() {
    for class in [C::Forbidden, C::Rejected] {
        assert!(blocks(with(class, |f| f.route.all_refused = true)));
    }
}

#[test]
fn a_refused_probe_keeps_a_blocked_route_blocked() {
    for class in REFUSALS {
        assert!(blocks(with(class, |f| {
            f.route.blocked = Some(C::Forbidden);
            f.session.others_delivered = true;
        })));
    }
}

#[test]
fn a_session_refused_while_others_deliver_counts_once_a_probe_and_is_probed_ever_less_often() {
    let mut waits = Vec::new();
    for refusals in [2, 3, 4, 20] {
        let disposition = with(C::Forbidden, |f| {
            f.session.refusals = refusals;
            f.session.others_delivered = true;
        });
        assert!(is_counted(disposition), "{disposition:?}");
        waits.push(disposition.session.unwrap().wait.as_secs());
    }
    assert_eq!(waits, [10, 30, 60, 900]);
}

#[test]
fn a_session_refused_for_a_day_while_others_deliver_ends_dead() {
    let disposition = with(C::Forbidden, |f| {
        f.session.others_delivered = true;
        f.chunk.counted = 9;
        f.chunk.failing_for = DAY;
    });
    let reason = DeadReason::RetriesExhausted;
    let wanted = Settle::Bury {
        reason,
        unproven: false,
    };
    assert_eq!(disposition, Disposition::settle(wanted));
}

#[test]
fn a_throttle_holds_the_route_and_costs_the_chunk_nothing() {
    let disposition = with(C::Throttled, |f| f.failed.hint = Some(secs(3600)));
    let hold = RouteHold::Throttle(secs(3600));
    assert_eq!(disposition, Disposition::hold_route(Settle::Release, hold));
}

#[test]
fn a_throttle_pause_is_never_shorter_than_the_hint_nor_than_the_own_growing_one() {
    for draw in [0.0, 0.5, 0.999] {
        assert!(pause(Some(secs(7)), 1, draw) >= secs(7));
        assert!(pause(Some(secs(7)), 1, draw) < secs(8));
        assert!(pause(Some(secs(1)), 9, draw) >= secs(128));
        assert_eq!(pause(Some(Duration::MAX), 1, draw), LONGEST_THROTTLE);
        assert_eq!(pause(Some(DAY * 400), 1, draw), LONGEST_THROTTLE);
    }
    let own: Vec<u64> = (1..=12).map(|n| pause(None, n, 1.0).as_secs()).collect();
    assert_eq!(own, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
}

#[test]
fn a_rejected_token_releases_and_only_a_served_lane_holds_the_session_alone() {
    for (credential, held) in [
        (Credential::Retry, false),
        (Credential::Blocked, false),
        (Credential::HoldSession, true),
    ] {
        let disposition = with(C::Unauthorized, |f| f.failed.credential = Some(credential));
        assert_eq!(disposition.settle, Settle::Release);
        assert_eq!(disposition.session.is_some(), held, "{credential:?}");
        assert_eq!(disposition.route, None);
    }
}

#[test]
fn an_expired_url_is_replaced_at_once_and_never_touches_the_route() {
    assert_eq!(
        decide(&first(C::UrlExpired), 0.0),
        Disposition::settle(Settle::Release)
    );
    let again = with(C::UrlExpired, |f| f.chunk.tries = 4);
    assert_eq!(again.settle, Settle::Release);
    assert_eq!(again.session.unwrap().wait, secs(8));
    assert_eq!(again.route, None);
}

#[test]
fn a_request_in_doubt_is_sent_again_and_never_counted() {
    for change in [
        (|f| f.session.others_delivered = true) as fn(&mut Facts),
        |f| f.failed.status = Some(409),
        |f| {
            f.chunk.tries = 100;
            f.chunk.counted = 9;
            f.chunk.failing_for = DAY;
            f.session.others_delivered = true;
        },
    ] {
        let disposition = with(C::InDoubt, change);
        assert!(
            matches!(disposition.settle, Settle::Nack { counted: false, .. }),
            "{disposition:?}"
        );
        assert_eq!(disposition.route, None);
    }
    let alone = with(C::InDoubt, |f| f.session.alone = true);
    assert_eq!(alone.route, Some(RouteHold::Outage));
    let in_progress = with(C::InDoubt, |f| {
        f.session.alone = true;
        f.failed.status = Some(409);
    });
    assert_eq!(in_progress.route, None);
}

#[test]
fn a_rejected_chunk_is_suspect_and_tried_after_2_10_and_30_seconds() {
    for (refusals, wait) in [(1, 2), (2, 10), (3, 30)] {
        for alone in [false, true] {
            let disposition = with(C::Rejected, |f| {
                f.session.refusals = refusals;
                f.session.alone = alone;
            });
            let wanted = Disposition::hold_session(Settle::Release, secs(wait), true);
            assert_eq!(disposition, wanted);
        }
    }
}

#[test]
fn a_suspect_is_buried_once_a_later_send_on_its_route_was_delivered() {
    let disposition = with(C::Rejected, |f| f.route.works = true);
    let reason = DeadReason::Rejected;
    let wanted = Settle::Bury {
        reason,
        unproven: false,
    };
    assert_eq!(disposition, Disposition::settle(wanted));
}

#[test]
fn a_lone_suspect_is_buried_after_its_retries_but_only_one_before_a_delivery() {
    let lone = |f: &mut Facts| {
        f.session.refusals = 4;
        f.session.alone = true;
    };
    let reason = DeadReason::Rejected;
    let wanted = Settle::Bury {
        reason,
        unproven: true,
    };
    assert_eq!(with(C::Rejected, lone), Disposition::settle(wanted));
    assert!(blocks(with(C::Rejected, |f| {
        lone(f);
        f.route.condemned_one = true;
    })));
    let not_alone = with(C::Rejected, |f| f.session.refusals = 4);
    assert!(not_alone.session.unwrap().suspect);
}

#[test]
fn suspects_in_three_sessions_without_a_delivery_hold_the_route() {
    assert!(
        with(C::Rejected, |f| f.route.suspects = 1)
            .session
            .is_some()
    );
    assert!(blocks(with(C::Rejected, |f| f.route.suspects = 2)));
}

#[test]
fn a_rejection_that_answers_a_probe_of_a_missing_right_speaks_of_the_chunk() {
    let disposition = with(C::Rejected, |f| {
        f.route.blocked = Some(C::Forbidden);
        f.session.alone = true;
    });
    assert!(disposition.session.unwrap().suspect);
    assert!(blocks(with(C::Rejected, |f| {
        f.route.blocked = Some(C::Rejected);
    })));
}

#[test]
fn a_digest_mismatch_counts_if_the_disk_is_right_and_ends_the_chunk_if_not() {
    assert!(is_counted(decide(&first(C::DigestMismatch), 0.0)));
    let disposition = with(C::DigestMismatch, |f| f.failed.intact = false);
    let reason = DeadReason::Damaged;
    let wanted = Settle::Bury {
        reason,
        unproven: false,
    };
    assert_eq!(disposition, Disposition::settle(wanted));
    assert_eq!(decide(&first(C::Damaged), 0.0), disposition);
}

#[test]
fn a_transient_failure_counts_only_if_another_session_delivered_since_the_previous_try() {
    assert!(!is_counted(decide(&first(C::Transient), 0.0)));
    assert!(is_counted(with(C::Transient, |f| {
        f.session.others_delivered = true;
    })));
}

#[test]
fn a_lone_server_error_counts_at_most_every_ten_minutes_and_an_unreachable_platform_never() {
    let lone = |status, since_counted| {
        is_counted(with(C::Transient, |f| {
            f.session.alone = true;
            f.failed.status = status;
            f.chunk.since_counted = since_counted;
        }))
    };
    assert!(lone(Some(500), None));
    assert!(!lone(Some(500), Some(secs(599))));
    assert!(lone(Some(500), Some(secs(600))));
    for status in [None, Some(408), Some(425), Some(502), Some(503), Some(504)] {
        assert!(!lone(status, None), "{status:?}");
    }
}

#[test]
fn transient_failures_back_off_with_full_jitter() {
    for (tries, longest) in [(1, 1), (4, 8), (40, 900)] {
        let mut facts = first(C::Transient);
        facts.chunk.tries = tries;
        for draw in [0.0, 0.5, 1.0] {
            let Settle::Nack { delay, .. } = decide(&facts, draw).settle else {
                panic!("a transient failure is nacked");
            };
            assert_eq!(delay, secs(longest).mul_f64(draw));
        }
    }
}

#[test]
fn an_outage_needs_five_failures_in_a_row_from_more_than_one_session_or_the_only_session() {
    let outage = |failing, several, alone| {
        let disposition = with(C::Transient, |f| {
            f.route.failing = failing;
            f.route.failing_several = several;
            f.session.alone = alone;
        });
        disposition.route == Some(RouteHold::Outage)
    };
    assert!(!outage(4, true, false));
    assert!(!outage(50, false, false));
    assert!(outage(5, true, false));
    assert!(outage(1, false, true));
}

#[test]
fn during_an_outage_the_hold_sets_the_pace_and_nothing_is_counted() {
    for class in [C::Transient, C::InDoubt] {
        let disposition = with(class, |f| {
            f.route.outage = true;
            f.chunk.tries = 30;
        });
        let settle = Settle::Nack {
            delay: Duration::ZERO,
            counted: false,
        };
        assert_eq!(
            disposition,
            Disposition::hold_route(settle, RouteHold::Outage)
        );
    }
}

#[test]
fn retries_end_a_chunk_only_after_both_their_number_and_their_span() {
    let ends = |counted, failing_for| {
        let disposition = with(C::Transient, |f| {
            f.session.others_delivered = true;
            f.chunk.counted = counted;
            f.chunk.failing_for = failing_for;
        });
        matches!(disposition.settle, Settle::Bury { .. })
    };
    assert!(!ends(9, DAY - secs(1)));
    assert!(!ends(8, DAY * 30));
    assert!(ends(9, DAY));
    assert!(!ends(59, secs(3600)));
}

#[test]
fn without_evidence_retries_end_one_chunk_and_not_the_next() {
    let lone = |condemned_one| {
        with(C::Transient, |f| {
            f.session.alone = true;
            f.failed.status = Some(500);
            f.chunk.counted = 9;
            f.chunk.failing_for = DAY;
            f.route.condemned_one = condemned_one;
        })
    };
    assert!(matches!(
        lone(false).settle,
        Settle::Bury { unproven: true, .. }
    ));
    assert!(is_counted(lone(true)));
}

#[test]
fn a_count_never_outgrows_its_place_in_the_state_word() {
    let disposition = with(C::Transient, |f| {
        f.session.others_delivered = true;
        f.chunk.counted = 60;
    });
    assert!(!is_counted(disposition));
}
