//! The json transport: one POST a request, its payload in base64 made while it is sent. Relies on
//! `body` for bounded memory, on `classify` for every judgement, and on `progress` to end what does
//! not move.

use std::error::Error;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Client, Request, Response};

use super::body::{Encoder, PayloadFault, stream};
use super::classify::{self, Asked, Ending, Heard, Sent, Trouble};
use super::client::Clients;
use super::progress::{Overdue, Progress, Timeouts};
use super::receipt::Expected;
use super::wire::{self, SUFFIX};
use super::{Answer, Answering, Delivery, Limits, Platform, Target, Verdict};
use crate::model::{ChunkMeta, Route, Token};

/// No more of an answer than this is read; a receipt for 64 parts is 10 KiB.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// The platform behind `POST {api_url}{path}`.
#[derive(Debug)]
pub struct JsonPlatform {
    clients: Clients,
    timeouts: Timeouts,
}

impl JsonPlatform {
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            clients: Clients::new(timeouts.connect),
            timeouts,
        }
    }
}

impl Platform for JsonPlatform {
    fn deliver(&self, delivery: Delivery) -> Answering<'_> {
        Box::pin(self.exchange(delivery))
    }
}

/// A response, read as far as it goes.
pub struct Reply {
    /// How much of the body was handed over when the headers came.
    pub sent: Sent,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub ending: Ending,
}

/// Why there is no response, and how to say it.
pub struct Broken {
    trouble: Trouble,
    message: String,
}

/// Ends the body when the answer is in or the caller is gone; the connection would go on feeding it
/// otherwise.
struct AbandonOnDrop(Progress);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl JsonPlatform {
    async fn exchange(&self, delivery: Delivery) -> Answer {
        let metas: Vec<&ChunkMeta> = delivery.parts.iter().map(|part| &part.meta).collect();
        let prefix = wire::prefix(&metas, &delivery.gaps, delivery.late);
        let expected = Expected {
            session: metas[0].key.session.clone(),
            parts: metas.iter().map(|m| (m.key.sequence, m.digest)).collect(),
        };
        let payload_bytes = metas.iter().map(|meta| meta.bytes).sum();
        let framing = (prefix.json.len() + SUFFIX.len()) as u64;
        let progress = Progress::of(framing + wire::encoded_length(payload_bytes));
        let _abandon = AbandonOnDrop(progress.clone());

        let key = prefix.idempotency_key;
        let encoder = Encoder::new(prefix.json, delivery.parts);
        let prepared = prepare(&delivery.target, &delivery.token, &key, encoder, &progress);
        let outcome = match prepared {
            Ok(request) => self.send(&delivery.target, request, &progress).await,
            Err(broken) => Err(broken),
        };

        let asked = Asked {
            route: Route::Deliver,
            receipt: delivery.target.receipt,
            expected: &expected,
            sent: outcome.as_ref().map_or(progress.sent(), |reply| reply.sent),
            at: delivery.at,
            attempt: delivery.attempt,
            token: &delivery.token,
        };
        judge(&asked, outcome, progress.take_fault())
    }

    async fn send(
        &self,
        target: &Target,
        request: Request,
        progress: &Progress,
    ) -> Result<Reply, Broken> {
        let client = self.clients.of(&target.tenant, &target.api_url);
        let client: Client = client.map_err(|error| Broken {
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
        (_, Ok(reply)) => {
            let heard = Heard {
                status: reply.status,
                headers: &reply.headers,
                body: &reply.body,
                ending: reply.ending,
            };
            return classify::answer(asked, &heard);
        }
    };
    Answer {
        verdict: Verdict::Failed(classify::broken(asked, broken.trouble, &broken.message)),
        limits: Limits::default(),
        recording: None,
    }
}

fn prepare(
    target: &Target,
    token: &Token,
    key: &str,
    encoder: Encoder,
    progress: &Progress,
) -> Result<Request, Broken> {
    let url = format!("{}{}", target.api_url, target.path);
    let url = reqwest::Url::parse(&url).map_err(|error| Broken {
        trouble: Trouble::UnusableUrl,
        message: format!("api_url and path make no URL: {error}"),
    })?;
    let bearer = format!("Bearer {}", token.expose());
    let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| Broken {
        trouble: Trouble::UnsendableToken,
        message: "the token holds characters that no header can carry".into(),
    })?;
    bearer.set_sensitive(true);
    let mut request = Request::new(reqwest::Method::POST, url);
    let quoted = HeaderValue::from_str(&format!("\"{key}\"")).expect("a key is hex");
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, bearer);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(progress.total()));
    headers.insert("idempotency-key", quoted);
    *request.body_mut() = Some(Body::wrap_stream(stream(encoder, progress.clone())));
    Ok(request)
}

/// Reads into `body`, so that what came before a timeout is not lost.
async fn read_bounded(mut response: Response, body: &mut Vec<u8>) -> Ending {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = ANSWER_LIMIT - body.len();
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

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(&format!(": {source}"));
        cause = source.source();
    }
    text
}
