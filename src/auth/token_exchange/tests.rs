//! The exchange over a real request, with a subject that is scripted or a real slot.

mod chain;

use std::sync::atomic::{AtomicU64, Ordering};

use secrecy::ExposeSecret;

use super::*;
use crate::auth::claims::Claims;
use crate::auth::testing::{Endpoint, endpoint, form};
use crate::auth::{AfterRejection, CredentialHold, Rejection, Rules, Slot, TokenResult};
use crate::chance::Chance;
use crate::clock::SystemClock;
use crate::model::{SessionKey, TokenView};

/// A service's endpoint: each token another one, of this life.
struct Service {
    minted: AtomicU64,
    life: Duration,
    down: bool,
}

impl Grant for Service {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            if self.down {
                return Err(MintFailure::Unreachable {
                    cause: "connection refused".to_owned(),
                });
            }
            let number = self.minted.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(Minted {
                access_token: SecretString::from(format!("canary-service-{number}")),
                lifetime: self.life,
                scopes: None,
                claims: Claims::default(),
            })
        })
    }

    fn about(&self) -> About {
        About {
            endpoint: "https://service.example/token".to_owned(),
            client_id: "partner".to_owned(),
            ..About::default()
        }
    }
}

fn service(life_s: u64, down: bool) -> (Arc<Service>, Arc<dyn TokenSource>) {
    let service = Arc::new(Service {
        minted: AtomicU64::new(0),
        life: Duration::from_secs(life_s),
        down,
    });
    let (clock, chance) = (Arc::new(SystemClock), Arc::new(Chance::seeded(1)));
    let grant = Arc::clone(&service);
    let slot = Slot::new(grant, Rules::default(), clock, chance);
    (service, Arc::new(slot))
}

fn wish() -> Wish {
    Wish {
        audience: Some("org-acme".to_owned()),
        resource: Some("https://api.example".to_owned()),
        scopes: vec!["a:b".to_owned(), "c".to_owned()],
        requested_token_type: Some(BEARERS[0].to_owned()),
        subject_token_type: BEARERS[0].to_owned(),
    }
}

fn grant(at: &Endpoint, wish: Wish, subject: Arc<dyn TokenSource>) -> TokenExchange {
    let client = Client {
        id: "5b1c9e".to_owned(),
        secret: None,
    };
    TokenExchange::new(endpoint(&at.url), client, wish, subject, Vec::new())
}

fn good(more: &str) -> String {
    format!(r#"{{"access_token":"canary-tenant","token_type":"bearer","expires_in":3600{more}}}"#)
}

#[tokio::test]
async fn the_request_is_the_one_of_the_protocol_page() {
    let body = good(r#","issued_token_type":"urn:ietf:params:oauth:token-type:access_token""#);
    let at = Endpoint::answering("200 OK", "", &body).await;
    let (_, subject) = service(7200, false);
    let minted = grant(&at, wish(), subject).mint().await.unwrap();
    assert_eq!(minted.access_token.expose_secret(), "canary-tenant");
    let sent = form(&at.seen()[0]);
    let wanted = [
        ("grant_type", GRANT_TYPE),
        ("subject_token", "canary-service-1"),
        ("subject_token_type", BEARERS[0]),
        ("audience", "org-acme"),
        ("resource", "https://api.example"),
        ("requested_token_type", BEARERS[0]),
        ("scope", "a:b c"),
        ("client_id", "5b1c9e"),
    ];
    assert_eq!(sent.len(), wanted.len(), "{sent:?}");
    for (name, value) in wanted {
        assert_eq!(sent[name], value, "{name}");
    }
}

#[tokio::test]
async fn an_exchanged_token_ends_with_whichever_of_the_two_ends_first() {
    for (subject_s, stated, at_most) in [
        (100, "3600", 100),
        (7200, "3600", 3600),
        (7200, "\"60\"", 60),
        // What is silly or missing counts as a quarter of an hour.
        (7200, "0", 900),
        (7200, "-5", 900),
        (7200, "null", 900),
        (7200, "{}", 900),
        (40, "1e308", 40),
    ] {
        let body = format!(r#"{{"access_token":"a","expires_in":{stated}}}"#);
        let at = Endpoint::answering("200 OK", "", &body).await;
        let (_, subject) = service(subject_s, false);
        let life = grant(&at, wish(), subject).mint().await.unwrap().lifetime;
        let range = Duration::from_secs(at_most - 2)..=Duration::from_secs(at_most);
        assert!(range.contains(&life), "{subject_s} {stated}: {life:?}");
    }
}

#[tokio::test]
async fn a_token_of_another_type_than_was_asked_for_is_not_used() {
    let types = "urn:ietf:params:oauth:token-type:";
    let access = format!("{types}access_token");
    for (asked, issued, fits) in [
        (Some(&access), "access_token", true),
        (Some(&access), "jwt", false),
        (Some(&access), "refresh_token", false),
        (None, "access_token", true),
        (None, "jwt", true),
        (None, "id_token", false),
        (None, "saml2", false),
    ] {
        let body = good(&format!(r#","issued_token_type":"{types}{issued}""#));
        let at = Endpoint::answering("200 OK", "", &body).await;
        let (_, subject) = service(7200, false);
        let wish = Wish {
            requested_token_type: asked.cloned(),
            ..wish()
        };
        match grant(&at, wish, subject).mint().await {
            Ok(_) => assert!(fits, "{asked:?} {issued}"),
            Err(MintFailure::Refused(refusal)) => {
                assert!(!fits, "{asked:?} {issued}");
                assert_eq!(refusal.kind, RefusalKind::OtherType);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

const COMPLAINTS: [(&str, &str); 3] = [
    ("400 Bad Request", r#"{"error":"invalid_grant"}"#),
    (
        "400 Bad Request",
        r#"{"error":"invalid_request","error_description":"the subject_token has expired"}"#,
    ),
    ("401 Unauthorized", r#"{"error":"invalid_token"}"#),
];

#[tokio::test]
async fn a_complaint_about_the_subject_gets_a_younger_one_in_the_same_breath() {
    let body = good("");
    for complaint in COMPLAINTS {
        let at = Endpoint::in_turn(&[complaint, ("200 OK", &body)]).await;
        let (service, subject) = service(7200, false);
        grant(&at, wish(), subject).mint().await.unwrap();
        let subjects: Vec<String> = at
            .seen()
            .iter()
            .map(|request| form(request)["subject_token"].clone())
            .collect();
        assert_eq!(
            subjects,
            ["canary-service-1", "canary-service-2"],
            "{complaint:?}"
        );
        assert_eq!(service.minted.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn each_subject_is_complained_of_once() {
    let at = Endpoint::in_turn(&COMPLAINTS[..1]).await;
    let (service, subject) = service(7200, false);
    let grant = grant(&at, wish(), subject);
    for (tries, minted) in [(1, 2), (2, 3), (3, 4)] {
        let failure = grant.mint().await.unwrap_err();
        assert!(matches!(failure, MintFailure::Refused(_)), "{failure:?}");
        let service = service.minted.load(Ordering::SeqCst);
        assert_eq!(service, minted, "after {tries}: one more subject a try");
        assert!(!format!("{failure:?}").contains("canary"));
    }
}

#[tokio::test]
async fn a_refusal_of_the_client_leaves_the_subject_alone() {
    for (status, body) in [
        ("401 Unauthorized", r#"{"error":"invalid_client"}"#),
        ("400 Bad Request", r#"{"error":"invalid_target"}"#),
        (
            "400 Bad Request",
            r#"{"error":"invalid_request","error_description":"rate limit exceeded; wait"}"#,
        ),
        ("503 Service Unavailable", ""),
    ] {
        let at = Endpoint::answering(status, "", body).await;
        let (service, subject) = service(7200, false);
        grant(&at, wish(), subject).mint().await.unwrap_err();
        assert_eq!(service.minted.load(Ordering::SeqCst), 1, "{body}");
        assert_eq!(at.seen().len(), 1, "{body}");
    }
}

#[tokio::test]
async fn without_a_subject_nothing_is_asked_and_the_subjects_trouble_is_the_reason() {
    let at = Endpoint::answering("200 OK", "", &good("")).await;
    let (_, subject) = service(7200, true);
    let grant = Arc::new(grant(&at, wish(), subject));
    let slot = Slot::new(
        grant,
        Rules::default(),
        Arc::new(SystemClock),
        Arc::new(Chance::seeded(1)),
    );
    let hold = slot.token().await.unwrap_err();
    assert_eq!(
        hold.reason,
        "the token to exchange is not to be had: token endpoint https://service.example/token unreachable (connection refused)"
    );
    assert_eq!(at.seen().len(), 0);
}

/// A platform's 401 for an exchanged token.
#[tokio::test]
async fn a_refused_exchanged_token_costs_one_exchange_and_no_subject() {
    let at = Endpoint::answering("200 OK", "", &good("")).await;
    let (service, subject) = service(7200, false);
    let grant = Arc::new(grant(&at, wish(), Arc::clone(&subject)));
    let (clock, chance) = (Arc::new(SystemClock), Arc::new(Chance::seeded(1)));
    let slot = Slot::new(grant, Rules::default(), clock, chance);
    let first = slot.token().await.unwrap();
    let session = SessionKey {
        tenant: "acme".parse().unwrap(),
        session: "s1".parse().unwrap(),
    };
    slot.accepted(first.generation, &session);
    let after = slot.reject(Rejection {
        generation: first.generation,
        session,
        only_session: true,
        record: crate::auth::testing::unauthorized(),
    });
    assert_eq!(after, AfterRejection::Retry);
    let second = slot.token().await.unwrap();
    assert_eq!(second.generation, Generation(2));
    assert_eq!(at.seen().len(), 2);
    assert_eq!(service.minted.load(Ordering::SeqCst), 1);
}

/// A subject that is held: what it says is what is said.
struct Held(CredentialHold);

impl TokenSource for Held {
    fn token(&self) -> TokenResult<'_> {
        Box::pin(async { Err(self.0.clone()) })
    }
    fn reject(&self, _: Rejection) -> AfterRejection {
        AfterRejection::Blocked
    }
    fn accepted(&self, _: Generation, _: &SessionKey) {}
    fn retry_now(&self) {}
    fn hold(&self) -> Option<CredentialHold> {
        Some(self.0.clone())
    }
    fn view(&self) -> TokenView {
        TokenView {
            state: "blocked".to_owned(),
            expires_in_s: None,
            generation: 0,
        }
    }
    fn changed(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_blocked_subject_blocks_with_its_own_remedy() {
    use crate::auth::CredentialHoldKind::Blocked;
    let at = Endpoint::answering("200 OK", "", &good("")).await;
    let held = Held(CredentialHold {
        kind: Blocked,
        reason: "client partner is disabled (400 unauthorized_client)".to_owned(),
        remedy: "Have client partner activated where it was made".to_owned(),
        since: crate::model::Timestamp(0),
        until: crate::clock::Instant(Duration::from_secs(5)),
        probes_failed: 0,
        last: None,
    });
    let grant = Arc::new(grant(&at, wish(), Arc::new(held)));
    let (clock, chance) = (Arc::new(SystemClock), Arc::new(Chance::seeded(1)));
    let hold = Slot::new(grant, Rules::default(), clock, chance)
        .token()
        .await
        .unwrap_err();
    assert_eq!(hold.kind, Blocked);
    assert!(
        hold.reason
            .ends_with("client partner is disabled (400 unauthorized_client)")
    );
    assert_eq!(
        hold.remedy,
        "Have client partner activated where it was made"
    );
}
