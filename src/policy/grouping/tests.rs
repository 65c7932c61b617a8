//! What goes together, and what a refusal of it is taken for.

use super::*;
use crate::model::DeadReason;

const MIB: u64 = 1 << 20;

fn chunk() -> Member<'static> {
    Member {
        bytes: MIB,
        duration: Duration::from_secs(30),
        host: "rec-017",
        media_type: "video/mp4",
        last: false,
        failures: 0,
        crashes: 0,
        waits: false,
    }
}

/// How many of these go in one request.
fn taken(limits: Limits, chunks: &[Member<'_>]) -> usize {
    let mut group = Group::of(limits, &chunks[0]);
    1 + chunks[1..]
        .iter()
        .take_while(|next| group.admits(next))
        .count()
}

#[test]
fn a_group_ends_at_whichever_limit_comes_first() {
    let many = [chunk(); 100];
    assert_eq!(taken(Limits::default(), &many), 30, "15 min of 30 s");
    let small = Member {
        duration: Duration::from_secs(1),
        ..chunk()
    };
    assert_eq!(taken(Limits::default(), &[small; 100]), 32, "32 MiB");
    let tiny = Member { bytes: 10, ..small };
    assert_eq!(taken(Limits::default(), &[tiny; 100]), 64);
    assert_eq!(taken(Limits::ALONE, &many), 1);
}

#[test]
fn the_first_chunk_goes_whatever_its_size_and_a_larger_one_never_joins() {
    let huge = Member {
        bytes: 1 << 40,
        duration: Duration::from_secs(86_400),
        ..chunk()
    };
    assert_eq!(taken(Limits::default(), &[huge, chunk()]), 1);
    assert_eq!(taken(Limits::default(), &[chunk(), huge]), 1);
    let absurd = Member {
        bytes: u64::MAX,
        duration: Duration::MAX,
        ..chunk()
    };
    assert_eq!(taken(Limits::default(), &[absurd, absurd]), 1);
}

#[test]
fn whatever_is_in_question_goes_alone() {
    let questions = [
        Member {
            failures: 1,
            ..chunk()
        },
        Member {
            crashes: 1,
            ..chunk()
        },
    ];
    for question in questions {
        assert_eq!(taken(Limits::default(), &[question, chunk()]), 1);
        let group = [chunk(), chunk(), question, chunk()];
        assert_eq!(taken(Limits::default(), &group), 2);
    }
    let waiting = Member {
        waits: true,
        ..chunk()
    };
    assert_eq!(taken(Limits::default(), &[chunk(), waiting]), 1);
}

#[test]
fn chunks_that_a_request_cannot_describe_together_split_it() {
    let others = [
        Member {
            host: "rec-018",
            ..chunk()
        },
        Member {
            media_type: "audio/ogg",
            ..chunk()
        },
    ];
    for other in others {
        assert_eq!(taken(Limits::default(), &[chunk(), other, chunk()]), 1);
    }
    let last = Member {
        last: true,
        ..chunk()
    };
    assert_eq!(taken(Limits::default(), &[chunk(), last, chunk()]), 2);
    assert_eq!(taken(Limits::default(), &[last, chunk()]), 1);
}

/// Requests until the only bad chunk of a group was refused alone.
fn search(chunks: u64, bad: u64) -> (u32, u64) {
    let (mut halving, mut first, mut requests) = (Halving::default(), 0, 0);
    loop {
        let most = u64::from(halving.most(first).min(64)).min(chunks - first);
        requests += 1;
        if !(first..first + most).contains(&bad) {
            first += most;
        } else if most == 1 {
            return (requests, first);
        } else {
            halving.refused(first, u32::try_from(most).unwrap());
        }
    }
}

#[test]
fn the_bad_chunk_of_a_refused_group_is_found_by_halving() {
    for bad in 0..64 {
        let (requests, found) = search(64, bad);
        assert_eq!(found, bad);
        assert!(requests <= 14, "{bad}: {requests} requests");
    }
}

#[test]
fn behind_a_refused_group_whole_groups_go_again() {
    let mut halving = Halving::default();
    halving.refused(10, 4);
    assert_eq!(
        [10, 11, 12, 13].map(|first| halving.most(first)),
        [2, 1, 1, 1]
    );
    assert_eq!(halving.most(14), u32::MAX);
    halving.refused(u64::MAX, 1);
    assert_eq!(halving.most(u64::MAX), 1);
}

#[test]
fn a_failure_of_several_is_counted_against_none_and_buries_none() {
    let of = |settle| Disposition {
        settle,
        session: None,
        route: None,
    };
    let delay = Duration::from_secs(3);
    let counted = of(Settle::Nack {
        delay,
        counted: true,
    });
    let uncounted = Settle::Nack {
        delay,
        counted: false,
    };
    assert_eq!(shared_out(counted), (of(uncounted), true));
    assert_eq!(shared_out(of(uncounted)), (of(uncounted), false));
    let bury = of(Settle::Bury {
        reason: DeadReason::RetriesExhausted,
        unproven: false,
    });
    assert_eq!(shared_out(bury), (of(Settle::Release), true));
    assert_eq!(
        shared_out(of(Settle::Release)),
        (of(Settle::Release), false)
    );
}

#[test]
fn only_what_speaks_of_the_payload_breaks_a_group_up() {
    use FailureClass as C;
    for class in [
        C::Unauthorized,
        C::Forbidden,
        C::Endpoint,
        C::Throttled,
        C::PurviewPending,
        C::InDoubt,
        C::Transient,
        C::Unrecognised,
        C::UrlExpired,
    ] {
        assert_eq!(refused(class, Some(413)), None, "{class}");
    }
    assert_eq!(refused(C::Rejected, Some(413)), Some(Refused::TooLarge));
    assert_eq!(refused(C::Rejected, Some(422)), Some(Refused::OneOfThem));
    assert_eq!(
        refused(C::DigestMismatch, Some(460)),
        Some(Refused::OneOfThem)
    );
}

#[test]
fn a_lane_learns_the_largest_request_and_forgets_it_after_an_hour() {
    let (mut learned, now) = (Learned::default(), Duration::from_secs(1000));
    assert_eq!(learned.limit(now), None);
    learned.too_large(8 * MIB, now);
    assert_eq!(learned.limit(now), Some(4 * MIB));
    learned.too_large(30 * MIB, now);
    assert_eq!(
        learned.limit(now),
        Some(4 * MIB),
        "one that was on the wire"
    );
    learned.too_large(4 * MIB, now);
    assert_eq!(learned.limit(now), Some(2 * MIB));
    assert_eq!(learned.limit(now + LEARNED_FOR), None);
}
