//! The table, row by row.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn failed(class: FailureClass, status: u16) -> Failed {
    Failed {
        class,
        status: Some(status),
        hint: None,
        credential: None,
    }
}

fn item() -> Item {
    Item {
        listing: false,
        tries: 1,
        refusals: 1,
        failures: 1,
        waited: Duration::ZERO,
    }
}

fn route() -> Route {
    Route {
        outage: false,
        blocked: false,
        refused_alike: false,
        alone: false,
        works: false,
        failing: 1,
        throttles: 1,
    }
}

fn next(failed: Failed, item: Item) -> Next {
    decide(&failed, Purview::default(), &item, &route(), 0.0).next
}

const PENDING: FailureClass = FailureClass::PurviewPending;

#[test]
fn a_recording_is_not_given_up_before_48_hours_of_open_route_and_eight_tries() {
    for failed in [failed(PENDING, 422), failed(FailureClass::Endpoint, 404)] {
        for (waited, tries, dead) in [
            (HOUR * 47, 30, false),
            (HOUR * 400, 7, false),
            (HOUR * 48, 8, true),
        ] {
            let item = Item {
                waited,
                tries,
                ..item()
            };
            assert_eq!(
                next(failed, item) == Next::Dead,
                dead,
                "{failed:?} {item:?}"
            );
            let listing = Item {
                listing: true,
                ..item
            };
            assert_ne!(
                next(failed, listing),
                Next::Dead,
                "a listing is never given up"
            );
        }
    }
}

#[test]
fn a_purview_that_lags_is_asked_again_after_5_minutes_doubling_to_6_hours() {
    let wait = |tries, draw| {
        let item = Item { tries, ..item() };
        let failed = failed(PENDING, 422);
        decide(&failed, Purview::default(), &item, &route(), draw).next
    };
    let minutes = [5, 10, 20, 40, 80, 160, 320, 360, 360];
    for (tries, minutes) in (1..).zip(minutes) {
        assert_eq!(
            wait(tries, 0.0),
            Next::Again(Duration::from_secs(minutes * 60))
        );
        for draw in [0.3, 0.99, 7.0] {
            let Next::Again(wait) = wait(tries, draw) else {
                panic!("asked again")
            };
            assert!(
                wait >= Duration::from_secs(minutes * 60) && wait <= HOUR * 6,
                "{wait:?}"
            );
        }
    }
}

#[test]
fn a_422_for_purview_is_first_a_missing_scope_then_another_organisation_then_another_token_then_patience()
 {
    let all = Purview {
        needs_user: false,
        lacks_scope: true,
        other_organization: true,
        fallback: true,
    };
    let decided = |purview| {
        let route = Route {
            alone: true,
            ..route()
        };
        decide(&failed(PENDING, 422), purview, &item(), &route, 0.0)
    };
    let blocked = Decision {
        next: Next::Again(Duration::ZERO),
        route: Some(RouteHold::Block),
    };
    assert_eq!(decided(all), blocked);
    let no_scope = Purview {
        lacks_scope: false,
        ..all
    };
    assert_eq!(decided(no_scope), blocked);
    let other_token = Purview {
        other_organization: false,
        ..no_scope
    };
    assert_eq!(decided(other_token), again(Next::Fallback));
    let nothing = Purview::default();
    assert_eq!(
        decided(nothing),
        again(Next::Again(Duration::from_secs(300)))
    );
}

/// Seen: a fallback was configured, and the route was blocked for want of a user's token.
#[test]
fn a_refusal_that_wants_a_users_token_takes_the_fallback_and_without_one_it_is_the_routes() {
    let decided = |class, purview| {
        let route = Route {
            alone: true,
            ..route()
        };
        decide(&failed(class, 403), purview, &item(), &route, 0.0)
    };
    let wanted = Purview {
        needs_user: true,
        fallback: true,
        ..Purview::default()
    };
    let forbidden = FailureClass::Forbidden;
    assert_eq!(decided(forbidden, wanted), again(Next::Fallback));
    for closed in [
        Purview {
            fallback: false,
            ..wanted
        },
        Purview {
            needs_user: false,
            ..wanted
        },
    ] {
        let blocked = Decision {
            next: Next::Again(Duration::ZERO),
            route: Some(RouteHold::Block),
        };
        assert_eq!(decided(forbidden, closed), blocked, "{closed:?}");
    }
}

#[test]
fn one_refusal_holds_its_recording_and_the_second_alike_the_route() {
    for (class, status) in [
        (FailureClass::Forbidden, 403),
        (FailureClass::Unrecognised, 200),
        (FailureClass::Endpoint, 405),
    ] {
        let decided = |route: Route| {
            decide(
                &failed(class, status),
                Purview::default(),
                &item(),
                &route,
                0.0,
            )
        };
        let first = decided(route());
        assert_eq!(first, again(Next::Again(Duration::from_secs(2))), "{class}");
        for route in [
            Route {
                refused_alike: true,
                ..route()
            },
            Route {
                alone: true,
                ..route()
            },
            Route {
                blocked: true,
                ..route()
            },
        ] {
            assert_eq!(
                decided(route).route,
                Some(RouteHold::Block),
                "{class} {route:?}"
            );
        }
    }
}

#[test]
fn a_list_that_is_not_there_is_the_endpoints_fault() {
    let listing = Item {
        listing: true,
        ..item()
    };
    let alone = Route {
        alone: true,
        ..route()
    };
    let not_found = failed(FailureClass::Endpoint, 404);
    let decided = decide(&not_found, Purview::default(), &listing, &alone, 0.0);
    assert_eq!(decided.route, Some(RouteHold::Block));
}

#[test]
fn a_rejected_question_is_given_up_only_while_others_are_answered() {
    let rejected = failed(FailureClass::Rejected, 400);
    let third = Item { tries: 3, ..item() };
    let works = Route {
        works: true,
        ..route()
    };
    let decided = |item, route| decide(&rejected, Purview::default(), &item, &route, 0.0).next;
    assert_eq!(decided(third, works), Next::Dead);
    assert_ne!(decided(third, route()), Next::Dead);
    assert_ne!(decided(Item { tries: 2, ..third }, works), Next::Dead);
}

#[test]
fn silence_is_an_outage_after_three_requests_or_for_the_only_recording() {
    let silent = Failed {
        status: None,
        ..failed(FailureClass::Transient, 0)
    };
    let decided = |route| decide(&silent, Purview::default(), &item(), &route, 0.5);
    assert_eq!(decided(route()).route, None);
    for route in [
        Route {
            failing: 3,
            ..route()
        },
        Route {
            alone: true,
            ..route()
        },
        Route {
            outage: true,
            ..route()
        },
    ] {
        assert_eq!(decided(route).route, Some(RouteHold::Outage), "{route:?}");
    }
}

#[test]
fn a_throttle_holds_the_route_at_least_as_long_as_the_platform_says() {
    let throttled = Failed {
        hint: Some(HOUR),
        ..failed(FailureClass::Throttled, 429)
    };
    let decided = decide(&throttled, Purview::default(), &item(), &route(), 0.0);
    let Some(RouteHold::Throttle(wait)) = decided.route else {
        panic!("{decided:?}")
    };
    assert!(wait >= HOUR);
    assert_eq!(decided.next, Next::Again(Duration::ZERO));
}

#[test]
fn a_401_costs_the_recording_nothing() {
    for credential in [Credential::Retry, Credential::Blocked] {
        let unauthorized = Failed {
            credential: Some(credential),
            ..failed(FailureClass::Unauthorized, 401)
        };
        assert_eq!(next(unauthorized, item()), Next::Again(Duration::ZERO));
        assert_eq!(
            about(&unauthorized, Purview::default(), false),
            About::Neither
        );
    }
}
