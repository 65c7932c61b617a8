//! One request and its answer, as every HTTP transport makes it: sent while its progress is watched, answered
//! into a bound, and judged with what became of its payload in view.

use std::error::Error;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Body, Method, Request, Response};

use super::body::{Encoder, PayloadFault, stream};
use super::classify::{self, Asked, Ending, Heard, Sent, Trouble};
use super::client::Clients;
use super::progress::{Overdue, Progress, Timeouts};
use super::{Answer, Limits, Target, Verdict};
use crate::http::Reach;
use crate::model::{TenantId, Token};
use crate::sabotage::{Sabotage, Sabotaged};

/// No more of an answer than this is read; a receipt for 64 parts is 10 KiB.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// A response, read as far as it goes.
pub struct Reply {
    /// How much of the body was handed over when the headers came.
    pub sent: Sent,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub ending: Ending,
}

impl Reply {
    pub fn heard(&self) -> Heard<'_> {
        Heard {
            status: self.status,
            headers: &self.headers,
            body: &self.body,
            ending: self.ending,
        }
    }
}

/// Why there is no response, and how to say it.
pub struct Broken {
    pub trouble: Trouble,
    pub message: String,
}

impl Broken {
    /// For a request that did not come to be sent; what stopped it stands beside.
    pub fn unsent() -> Self {
        Self {
            trouble: Trouble::UnreadablePayload,
            message: String::new(),
        }
    }
}

/// Ends the body when the answer is in or the caller is gone; the connection would go on feeding it
/// otherwise.
pub struct AbandonOnDrop(pub Progress);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Where requests leave from: one connection pool a tenant and host, and the waits that end them.
pub struct Exchange {
    clients: Clients,
    timeouts: Timeouts,
}

impl Exchange {
    pub fn new(timeouts: Timeouts, reach: Reach) -> Self {
        Self {
            clients: Clients::new(timeouts.connect, reach),
            timeouts,
        }
    }

    /// Sends `request`, whose body reports to `progress`, and reads the answer.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        tenant: &TenantId,
        request: Request,
        progress: &Progress,
    ) -> Result<Reply, Broken> {
        let client = self.clients.of(tenant, request.url().as_str());
        let client = client.map_err(|error| Broken {
            trouble: Trouble::Connecting,
            message: chain(&error),
        })?;
        let response = tokio::select! {
            response = client.execute(request) => {
                response.map_err(|error| broken_exchange(&error, progress))?
            }
            overdue = progress.overdue(&self.timeouts) => {
                return Err(self.broken_wait(overdue, progress));
            }
        };
        let sent = progress.sent();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        let reading = read_bounded(response, &mut body);
        let ending = match tokio::time::timeout(self.timeouts.answer, reading).await {
            Ok(ending) => ending,
            Err(_) => Ending::Torn,
        };
        Ok(Reply {
            sent,
            status,
            headers,
            body,
            ending,
        })
    }

    fn broken_wait(&self, overdue: Overdue, progress: &Progress) -> Broken {
        let message = match overdue {
            Overdue::Upload => format!(
                "nothing was accepted for {:?}, after {} of {} bytes",
                self.timeouts.stall,
                progress.handed(),
                progress.total(),
            ),
            Overdue::Headers => format!("no answer for {:?}", self.timeouts.headers),
        };
        Broken {
            trouble: Trouble::Exchanging,
            message,
        }
    }
}

/// A damaged payload decides whatever the socket says: its body was cut short, so nothing of it can
/// be stored.
pub fn judge(
    asked: &Asked<'_>,
    outcome: Result<Reply, Broken>,
    fault: Option<PayloadFault>,
) -> Answer {
    let broken = match (fault, outcome) {
        (Some(fault), _) if fault.is_damage() => Broken {
            trouble: Trouble::DamagedPayload,
            message: chain(&fault),
        },
        (Some(fault), Err(_)) => Broken {
            trouble: Trouble::UnreadablePayload,
            message: chain(&fault),
        },
        (None, Err(broken)) => broken,
        (_, Ok(reply)) => return classify::answer(asked, &reply.heard()),
    };
    Answer {
        verdict: Verdict::Failed(classify::broken(asked, broken.trouble, &broken.message)),
        limits: Limits::default(),
        recording: None,
    }
}

/// The URL of a path under the tenant's API.
///
/// # Errors
/// What is configured is no URL.
pub fn api_url(target: &Target, path: &str) -> Result<reqwest::Url, Broken> {
    let url = format!("{}{path}", target.api_url);
    reqwest::Url::parse(&url).map_err(|error| Broken {
        trouble: Trouble::UnusableUrl,
        message: format!("api_url and path make no URL: {error}"),
    })
}

/// A request that carries the token.
///
/// # Errors
/// No header can carry it.
pub fn authorized(method: Method, url: reqwest::Url, token: &Token) -> Result<Request, Broken> {
    let bearer = format!("Bearer {}", token.expose());
    let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| Broken {
        trouble: Trouble::UnsendableToken,
        message: "the token holds characters that no header can carry".into(),
    })?;
    let careless = Sabotaged::from_env().is(Sabotage::LogHeader);
    bearer.set_sensitive(!careless);
    let mut request = Request::new(method, url);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    if careless {
        tracing::trace!("request with {:?}", request.headers());
    }
    Ok(request)
}

/// A POST that carries the token, and the key that every retry of it has.
///
/// # Errors
/// As [`authorized`].
pub fn keyed(url: reqwest::Url, token: &Token, key: &str) -> Result<Request, Broken> {
    let mut request = authorized(Method::POST, url, token)?;
    let quoted = HeaderValue::from_str(&format!("\"{key}\"")).expect("a key is hex");
    request.headers_mut().insert("idempotency-key", quoted);
    Ok(request)
}

/// A body of known length that is made while it is sent.
pub fn streamed(encoder: Encoder, progress: &Progress) -> Body {
    Body::wrap_stream(stream(encoder, progress.clone()))
}

/// Reads into `body`, so that what came before a timeout is not lost.
pub async fn read_bounded(mut response: Response, body: &mut Vec<u8>) -> Ending {
    let hoards = Sabotaged::from_env().is(Sabotage::HoardAnswers);
    let limit = if hoards {
        256 * ANSWER_LIMIT
    } else {
        ANSWER_LIMIT
    };
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = limit - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    return Ending::Cut;
                }
            }
            Ok(None) => return Ending::Whole,
            Err(_) => return Ending::Torn,
        }
    }
}

fn broken_exchange(error: &reqwest::Error, progress: &Progress) -> Broken {
    let cause = deepest(error);
    if error.is_connect() {
        return Broken {
            trouble: Trouble::Connecting,
            message: format!("connecting: {cause}"),
        };
    }
    let (handed, total) = (progress.handed(), progress.total());
    let doing = if handed < total {
        format!("sending, after {handed} of {total} bytes")
    } else {
        "waiting for the answer".to_owned()
    };
    Broken {
        trouble: Trouble::Exchanging,
        message: format!("{doing}: {cause}"),
    }
}

/// The layers above the first cause only say that a request failed.
fn deepest<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// An error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}
