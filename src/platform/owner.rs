//! Asks the platform whose a token is (docs/PROTOCOL.md, owner of a token): a check of region, organisation and token that
//! costs no chunk. Not every platform tells, and what it does not tell is no finding.

use std::time::Duration;

use serde_json::Value;

use super::classify::{self, Asked, Ending, Heard, Sent};
use super::receipt::Expected;
use super::{ReceiptPolicy, Verdict};
use crate::http::Reach;
use crate::model::{FailureClass, FailureRecord, Route, Timestamp, Token};

/// Where platforms of this kind tell it.
pub const OWNER_PATH: &str = "/api/v2/tokens/me";
/// From the first packet to the last; it is asked by somebody who waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Such an answer has a few hundred bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// What the platform says to a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// It is accepted; the organisation it belongs to, where that is told.
    Accepted { organization: Option<String> },
    /// This platform tells nothing about tokens.
    Silent,
    /// 401, or an answer that speaks of the platform and not of the token.
    Refused(Box<FailureRecord>),
    /// No answer came; a few words why.
    Unreachable(String),
}

/// Asks at `api_url`, below it at `path`, by this way. `at` is now.
pub async fn owner(
    reach: &Reach,
    (api_url, path): (&str, &str),
    token: &Token,
    at: Timestamp,
) -> Owner {
    let asked = ask(reach, (api_url, path), token);
    let Ok(asked) = tokio::time::timeout(PATIENCE, asked).await else {
        return Owner::Unreachable("no answer in time".to_owned());
    };
    match asked {
        Ok((status, headers, body)) => judge(status, &headers, &body, token, at),
        Err(cause) => Owner::Unreachable(cause),
    }
}

type Reply = (u16, reqwest::header::HeaderMap, Vec<u8>);

async fn ask(reach: &Reach, (api_url, path): (&str, &str), token: &Token) -> Result<Reply, String> {
    let client = reach.builder(api_url).connect_timeout(PATIENCE).build();
    let client = client.map_err(|error| cause(&error))?;
    let request = client
        .get(format!("{api_url}{path}"))
        .bearer_auth(token.expose());
    let mut response = request.send().await.map_err(|error| cause(&error))?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| cause(&error))? {
        let room = ANSWER_LIMIT - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            break;
        }
    }
    Ok((status, headers, body))
}

/// The innermost cause: the layers above it only say that a request failed.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn judge(
    status: u16,
    headers: &reqwest::header::HeaderMap,
    body: &[u8],
    token: &Token,
    at: Timestamp,
) -> Owner {
    match status {
        200 => {
            if let Ok(Value::Object(told)) = serde_json::from_slice(body) {
                let id = told.get("organization").and_then(|o| o.get("id"));
                return Owner::Accepted {
                    organization: id.and_then(Value::as_str).map(str::to_owned),
                };
            }
        }
        // It knows the token, and will not tell it about itself.
        403 => return Owner::Accepted { organization: None },
        400 | 404 | 405 | 410 | 501 => return Owner::Silent,
        _ => {}
    }
    let expected = Expected {
        session: "check".parse().expect("a plain word names a session"),
        parts: Vec::new(),
    };
    let asked = Asked {
        route: Route::Fetch,
        receipt: ReceiptPolicy::Body,
        expected: &expected,
        sent: Sent::All,
        at,
        attempt: 1,
        token,
        secret: token.expose(),
    };
    let heard = Heard {
        status,
        headers,
        body,
        ending: Ending::Whole,
    };
    match classify::answer(&asked, &heard).verdict {
        Verdict::Failed(failure) => Owner::Refused(Box::new(failure.record)),
        // Nothing was delivered, so whoever says so is not the platform.
        Verdict::Delivered { .. } => Owner::Unreachable(format!(
            "what answers is no platform (status {status}, {})",
            FailureClass::Unrecognised
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Generation;

    fn judged(status: u16, body: &str) -> Owner {
        let token = Token::new("canary-token".to_owned(), Generation(1));
        let headers = reqwest::header::HeaderMap::new();
        judge(status, &headers, body.as_bytes(), &token, Timestamp(0))
    }

    #[test]
    fn every_answer_speaks_of_the_token_of_the_platform_or_of_nothing() {
        let accepted = |name: Option<&str>| Owner::Accepted {
            organization: name.map(str::to_owned),
        };
        for (status, body, want) in [
            (200, r#"{"organization":{"id":"o1"}}"#, accepted(Some("o1"))),
            (200, r#"{"organization":"o1"}"#, accepted(None)),
            (200, "{}", accepted(None)),
            (403, "{}", accepted(None)),
            (404, "", Owner::Silent),
            (405, "<html>", Owner::Silent),
        ] {
            assert_eq!(judged(status, body), want, "{status} {body}");
        }
        for (status, body, class) in [
            (
                401,
                r#"{"code":"bad.credentials"}"#,
                FailureClass::Unauthorized,
            ),
            (200, "<html>sign in", FailureClass::Unrecognised),
            (302, "", FailureClass::Unrecognised),
            (503, "", FailureClass::Transient),
            (429, "{}", FailureClass::Throttled),
        ] {
            match judged(status, body) {
                Owner::Refused(record) => assert_eq!(record.class, class, "{status}"),
                other => panic!("{status}: {other:?}"),
            }
        }
        let echoed = judged(401, r#"{"message":"canary-token is wrong"}"#);
        assert!(!format!("{echoed:?}").contains("canary"), "{echoed:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_said_in_a_few_words() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let token = Token::new("canary-token".to_owned(), Generation(1));
        let place = (url.as_str(), OWNER_PATH);
        match owner(&Reach::default(), place, &token, Timestamp(0)).await {
            Owner::Unreachable(cause) => assert!(cause.contains("refused"), "{cause}"),
            other => panic!("{other:?}"),
        }
    }
}
