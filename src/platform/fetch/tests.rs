//! Answers of the archive as they come, and what is made of them.

use super::*;
use crate::model::{FailureClass, Generation, Missing};

fn judged(wish: &Wish, status: u16, lines: &[(&str, &str)], body: &str) -> FetchAnswer {
    let expected = Expected {
        session: "none".parse().unwrap(),
        parts: vec![(0, Digest([0; 32]))],
    };
    let token = Token::new("canary-token-of-the-archive".into(), Generation(3));
    let asked = Asked {
        route: Route::Fetch,
        receipt: ReceiptPolicy::Body,
        expected: &expected,
        sent: Sent::Nothing,
        at: Timestamp(0),
        attempt: 1,
        token: &token,
        secret: token.expose(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    let reply = Reply {
        status,
        headers,
        body: body.as_bytes().to_vec(),
        ending: Ending::Whole,
    };
    judge(&asked, wish, &reply)
}

fn one(id: &str) -> Wish {
    Wish::One(id.parse().unwrap())
}

fn failure(wish: &Wish, status: u16, lines: &[(&str, &str)], body: &str) -> Failure {
    match judged(wish, status, lines, body).fetched {
        Fetched::Failed(failure) => *failure,
        other => panic!("{other:?}"),
    }
}

const PURVIEW: &str = r#"{"message":"Validation failed","code":"bad.request","status":422,"contextId":"c-1",
    "details":[{"errorCode":"purview.mismatch","fieldName":"purview"}],
    "errors":[{"message":"The provided purview ID does not match the token's scope.","code":"purview.mismatch"}]}"#;

#[test]
fn what_the_archive_answers_has_the_class_of_the_table() {
    use FailureClass as Class;
    let scope = [(
        "www-authenticate",
        r#"Bearer error="insufficient_scope", scope="screenshare:read""#,
    )];
    let denied = r#"{"message":"Unable to perform the requested action. You are missing the following permission(s): read:screen_recording, admin:screen_recording","code":"missing.permissions","status":403}"#;
    for (status, lines, body, class) in [
        (422, &[][..], PURVIEW, Class::PurviewPending),
        (403, &scope[..], "{}", Class::Forbidden),
        (403, &[][..], denied, Class::Forbidden),
        (
            404,
            &[][..],
            r#"{"code":"not.found","status":404}"#,
            Class::Endpoint,
        ),
        (
            401,
            &[][..],
            r#"{"code":"credentials.expired"}"#,
            Class::Unauthorized,
        ),
        (429, &[("retry-after", "7")][..], "", Class::Throttled),
        (503, &[][..], "<html>", Class::Transient),
        (302, &[][..], "", Class::Unrecognised),
        (200, &[][..], "<html>sign in</html>", Class::Unrecognised),
        (200, &[][..], r#"{"id":"another"}"#, Class::Unrecognised),
        (
            200,
            &[][..],
            r#"{"session":"none","parts":[]}"#,
            Class::Unrecognised,
        ),
    ] {
        let failure = failure(&one("r-1"), status, lines, body);
        assert_eq!(failure.record.class, class, "{status} {body}");
        assert_eq!(failure.record.status, Some(status));
    }
}

#[test]
fn a_denial_names_the_scope_or_the_permissions() {
    let scope = [(
        "www-authenticate",
        r#"Bearer error="insufficient_scope", scope="screenshare:read""#,
    )];
    let found = failure(&one("r-1"), 403, &scope, "{}");
    assert_eq!(
        found.record.missing,
        Some(Missing::Scope("screenshare:read".into()))
    );
    let denied = r#"{"message":"You are missing the following permission(s): read:screen_recording, admin:screen_recording","code":"missing.permissions"}"#;
    let found = failure(&one("r-1"), 403, &[], denied);
    let named = FETCH_PERMISSIONS.join(", ");
    assert_eq!(found.record.missing, Some(Missing::Permission(named)));
}

#[test]
fn an_answer_that_is_no_recording_says_so() {
    let found = failure(&one("r-1"), 200, &[("content-type", "text/html")], "<html>");
    assert_eq!(
        found.record.message,
        "status 200 with text/html is no recording"
    );
}

#[test]
fn a_recording_is_read_as_far_as_it_is_told() {
    let body = r#"{"id":"r-1","session":"s1","host":"rec-1","organizationId":"org-acme","status":"available",
        "chunks":3,"bytes":"many","digest":"blake3:00","gaps":[{"first":1,"last":2}],
        "startTime":"2026-03-01T10:00:00.000Z","endTime":"whenever","mediaType":"video/mp4","more":{"x":1}}"#;
    let answer = judged(&one("r-1"), 200, &[("inin-ratelimit-allowed", "300")], body);
    let Fetched::One(facts) = answer.fetched else {
        panic!("{answer:?}")
    };
    assert_eq!(facts.chunks, Some(3));
    assert_eq!(facts.bytes, None);
    assert_eq!(facts.gaps, Some(vec![(1, 2)]));
    assert_eq!(
        facts.started_at.unwrap().to_string(),
        "2026-03-01T10:00:00.000Z"
    );
    assert_eq!(facts.ended_at, None);
    assert_eq!(answer.limits.allowed, Some(300));
}

#[test]
fn a_page_leaves_out_ids_that_could_not_be_sent() {
    let wish = Wish::Page {
        since: Timestamp(0),
        cursor: None,
    };
    let body = r#"{"entities":[{"id":"r-1","startTime":"2026-03-01T10:00:00Z"},{"id":"../x"},{"id":"r-2"}],"nextCursor":"c2"}"#;
    let answer = judged(&wish, 200, &[], body);
    let Fetched::Page(page) = answer.fetched else {
        panic!("{answer:?}")
    };
    let ids: Vec<_> = page.recordings.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["r-1", "r-2"]);
    assert_eq!(page.next.as_deref(), Some("c2"));
    assert_eq!(
        failure(&wish, 200, &[], "{}").record.class,
        FailureClass::Unrecognised
    );
}

#[test]
fn a_list_is_asked_for_with_its_time_and_its_cursor() {
    let source = Arc::new(Source {
        tenant: "acme".parse().unwrap(),
        api_url: "https://api.example.com/x".into(),
        path: "/api/v2/screenshare/recordings".into(),
        list_path: Some("/list".into()),
    });
    let request = |wish| {
        let fetch = Fetch {
            source: Arc::clone(&source),
            token: Token::new("canary".into(), Generation(1)),
            wish,
            attempt: 1,
            at: Timestamp(0),
        };
        prepare(&fetch).unwrap()
    };
    let page = request(Wish::Page {
        since: Timestamp(0),
        cursor: Some("a b".into()),
    });
    assert_eq!(
        page.url().as_str(),
        "https://api.example.com/x/list?since=1970-01-01T00%3A00%3A00.000Z&pageSize=100&cursor=a+b"
    );
    let one = request(one("r:1@x"));
    assert_eq!(
        one.url().as_str(),
        "https://api.example.com/x/api/v2/screenshare/recordings/r:1@x"
    );
    assert!(!format!("{one:?}").contains("canary"));
}
