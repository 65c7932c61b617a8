//! What counts as delivered, and what only looks like it.

use super::*;

#[test]
fn only_a_receipt_is_delivered_whatever_the_status() {
    let mine = receipt(b"seven", "stored");
    let before = receipt(b"seven", "duplicate");
    for (status, body, duplicate) in [
        (200, &mine, false),
        (201, &mine, false),
        (208, &mine, true),
        (200, &before, true),
        (409, &before, true),
        (409, &mine, true),
    ] {
        let verdict = USUAL.answer(status, &[], body).verdict;
        assert_eq!(verdict, Verdict::Delivered { duplicate }, "{status} {body}");
    }
    for status in [202, 204, 301, 400, 401, 403, 404, 422, 429, 500, 503] {
        failure(status, &[], &mine);
    }
}

#[test]
fn a_receipt_for_something_else_says_what_is_wrong_with_it() {
    let other_session = receipt(b"seven", "stored").replace("s1", "s2");
    for (body, message) in [
        (
            receipt(b"other", "stored"),
            "the receipt has another digest for sequence 7",
        ),
        (
            receipt(b"seven", "queued"),
            "the receipt does not say that sequence 7 is stored",
        ),
        (other_session, "the receipt is for another session"),
    ] {
        let record = failure(200, &[], &body).record;
        assert_eq!(
            (record.class, record.message.as_str()),
            (Unrecognised, message)
        );
    }
    let html = failure(200, &[("Content-Type", "text/html; charset=utf-8")], HTML).record;
    assert_eq!(html.message, "status 200 with text/html is no receipt");
    assert!(
        html.body
            .starts_with("<!DOCTYPE html> <html><head><title>Sign in"),
        "{}",
        html.body
    );
}

#[test]
fn with_receipts_waived_three_statuses_count_and_no_other() {
    let waived = Case {
        policy: ReceiptPolicy::Status,
        ..USUAL
    };
    for (status, duplicate) in [(200, false), (201, false), (208, true)] {
        let verdict = waived.answer(status, &[], "").verdict;
        assert_eq!(verdict, Verdict::Delivered { duplicate });
    }
    for status in [202, 204, 302, 409] {
        waived.failure(status, &[], "");
    }
    let early = Case {
        sent: Sent::Part,
        ..waived
    };
    assert_eq!(early.failure(200, &[], "").record.class, Unrecognised);
}

#[test]
fn an_answer_before_the_payload_was_sent_can_only_name_what_was_there_before() {
    let early = Case {
        sent: Sent::Part,
        ..USUAL
    };
    let refused = early.failure(200, &[], &receipt(b"seven", "stored")).record;
    assert_eq!(refused.class, Unrecognised);
    assert_eq!(
        refused.message,
        "status 200 came before the payload was sent"
    );
    let known = early.answer(208, &[], &receipt(b"seven", "duplicate"));
    assert_eq!(known.verdict, Verdict::Delivered { duplicate: true });
}

#[test]
fn another_digest_under_our_sequence_is_a_conflict() {
    let other = receipt(b"other", "stored");
    for (status, body) in [
        (409, CONFLICT),
        (422, CONFLICT),
        (409, &other),
        (422, &other),
    ] {
        let failure = failure(status, &[], body);
        assert!(failure.conflict, "{status} {body}");
        assert_eq!(failure.record.class, Rejected);
    }
    for (status, body) in [
        (422, VALIDATION),
        (400, INVALID_DATE),
        (413, TOO_LARGE),
        (409, ""),
    ] {
        assert!(!failure(status, &[], body).conflict, "{status} {body}");
    }
}
