//! What holds for every grant alike, over real requests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::key::tests::RSA_PKCS8;
use super::testing::{Endpoint, endpoint, file, write};
use super::*;
use crate::chance::Chance;
use crate::clock::{Clock, SystemClock};
use crate::disk::RealDisk;
use crate::policy::refresh;

/// Every grant that asks an endpoint, with secrets that show if they leak.
fn grants(home: &Path, url: &str) -> Vec<(&'static str, Arc<dyn Grant>)> {
    write(home, "acme.secret", "canary-secret");
    write(home, "acme.refresh", "canary-refresh");
    write(home, "acme.pem", RSA_PKCS8);
    write(home, "acme.token", "canary-service");
    let client = || Client {
        id: "5b1c9e".to_owned(),
        secret: Some(file(home, "acme.secret")),
    };
    let clock = || Arc::new(SystemClock) as Arc<dyn Clock>;
    let subject = Slot::new(
        Arc::new(StaticToken {
            file: file(home, "acme.token"),
        }),
        Rules::default(),
        clock(),
        Arc::new(Chance::seeded(1)),
    );
    let assertion = Assertion {
        issuer: "5b1c9e".to_owned(),
        user: "u".to_owned(),
        audience: url.to_owned(),
        key_id: None,
        life: Duration::from_secs(60),
    };
    let kept = RotatedFile::new(Arc::new(RealDisk), home.join("tokens"), &[url]);
    vec![
        (
            "client_credentials",
            Arc::new(ClientCredentials {
                endpoint: endpoint(url),
                client: client(),
                scopes: Vec::new(),
            }),
        ),
        (
            "token_exchange",
            Arc::new(TokenExchange::new(
                endpoint(url),
                client(),
                Wish::default(),
                Arc::new(subject),
                Vec::new(),
            )),
        ),
        (
            "jwt_bearer",
            Arc::new(JwtBearer {
                endpoint: endpoint(url),
                client: client(),
                key: file(home, "acme.pem"),
                assertion,
                scopes: Vec::new(),
            }),
        ),
        (
            "refresh_token",
            Arc::new(RefreshToken::new(
                endpoint(url),
                client(),
                file(home, "acme.refresh"),
                kept,
                Vec::new(),
            )),
        ),
    ]
}

#[tokio::test]
async fn no_lifetime_however_silly_costs_a_token_of_any_grant() {
    for (stated, want_s) in [
        ("3600", Some(3600)),
        ("\"3600\"", Some(3600)),
        ("1", Some(1)),
        ("0", None),
        ("-1", None),
        ("null", None),
        ("true", None),
        ("\"soon\"", None),
        ("{}", None),
        ("[1]", None),
        ("1e-9", Some(1)),
        ("1e999", None),
        ("9223372036854775808", Some(500 * 86_400)),
    ] {
        let body = format!(r#"{{"access_token":"a","expires_in":{stated}}}"#);
        let at = Endpoint::in_turn(&[("200 OK", &body)]).await;
        let home = tempfile::tempdir().unwrap();
        for (name, grant) in grants(home.path(), &at.url) {
            let minted = grant.mint().await;
            let minted = minted.unwrap_or_else(|failure| panic!("{name} {stated}: {failure:?}"));
            let want = want_s.map_or(refresh::DEFAULT_LIFETIME, Duration::from_secs);
            assert_eq!(minted.lifetime, want, "{name} {stated}");
        }
    }
}

#[tokio::test]
async fn no_grant_shows_a_secret_even_if_the_endpoint_repeats_all_that_it_was_sent() {
    for status in ["400 Bad Request", "401 Unauthorized", "200 OK", "500 Oops"] {
        let at = Endpoint::echoing(status).await;
        let home = tempfile::tempdir().unwrap();
        for (name, grant) in grants(home.path(), &at.url) {
            let about = grant.about();
            assert_eq!(about.grant, name);
            let slot = Slot::new(
                grant,
                Rules::default(),
                Arc::new(SystemClock),
                Arc::new(Chance::seeded(1)),
            );
            let hold = slot.token().await.unwrap_err();
            let shown = format!("{hold:?} {:?} {about:?}", slot.view());
            // An assertion's parts begin with an encoded brace.
            for leak in ["canary", "eyJ", "NWIxYzllOmNhbmFyeS1zZWNyZXQ="] {
                assert!(!shown.contains(leak), "{name} {status}: {leak} in {shown}");
            }
        }
        let sent = at.seen().concat();
        for secret in ["canary-refresh", "canary-service", "eyJ"] {
            assert!(sent.contains(secret), "the positive control: {secret}");
        }
    }
}

#[tokio::test]
async fn a_file_that_others_may_read_is_used_by_no_grant() {
    use std::os::unix::fs::PermissionsExt;
    let at = Endpoint::answering("200 OK", "", r#"{"access_token":"a"}"#).await;
    let home = tempfile::tempdir().unwrap();
    for (index, name) in ["acme.secret", "acme.token", "acme.pem", "acme.refresh"]
        .into_iter()
        .enumerate()
    {
        let grants = grants(home.path(), &at.url);
        let open = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(home.path().join(name), open).unwrap();
        let failure = grants[index].1.mint().await.unwrap_err();
        let said = format!("{failure:?}");
        assert!(
            said.contains("Readable") || said.contains("readable"),
            "{name}: {said}"
        );
    }
    assert_eq!(at.seen().len(), 0);
}
