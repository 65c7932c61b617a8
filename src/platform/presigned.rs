//! The presigned transport: the platform is asked for an upload URL just before the payload is put there. Three parties
//! see different secrets: the platform the token, the storage host its own URL and headers, and the log neither.
//!
//! A request of several parts asks for a URL a part, one after another in order; a part that is stored already
//! costs no upload, so a request that broke off goes on where it was.

mod report;
mod ticket;

use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Request};
use serde::Serialize;

use super::body::{Encoder, Encoding, PayloadFault};
use super::checksum::Checksums;
use super::classify::{self, Asked, Sent};
use super::exchange::{
    AbandonOnDrop, Broken, Exchange, Reply, api_url, authorized, judge, keyed, streamed,
};
use super::progress::{Progress, Timeouts};
use super::receipt::{self, Expected, Receipt};
use super::{
    Answer, Answering, Delivery, Ingestion, Inquiry, Limits, Part, Platform, ReceiptPolicy,
    Reported, Reporting, Target, Verdict,
};
use super::{limits, wire};
use crate::http::Reach;
use crate::model::{ChunkMeta, Gap, Route, Timestamp, Token};
use ticket::Ticket;

/// The vendor's default, and what a URL lives at least.
const URL_LIFE_MIN: u64 = 600;
/// The vendor's limit: a week.
const URL_LIFE_MAX: u64 = 604_800;
/// A line slower than this misses its URL's end.
const BYTES_A_SECOND_MIN: u64 = 64 * 1024;

/// The platform behind `POST {api_url}{path}`, and the storage hosts that it names.
pub struct PresignedPlatform {
    exchange: Exchange,
    confirms: Option<Duration>,
}

impl Platform for PresignedPlatform {
    fn deliver(&self, delivery: Delivery) -> Answering<'_> {
        Box::pin(self.upload(delivery))
    }

    fn confirms(&self) -> Option<Duration> {
        self.confirms
    }

    fn report(&self, inquiry: Inquiry) -> Reporting<'_> {
        Box::pin(self.inquire(inquiry))
    }
}

/// What is the same for every part of a request.
struct Errand<'a> {
    target: &'a Target,
    token: &'a Token,
    late: bool,
    attempt: u32,
    at: Timestamp,
}

/// What came of asking for a URL.
enum Asking {
    Upload(Ticket),
    /// Stored before, or a failure.
    Over(Verdict),
}

/// The vendor's members. `recording` follows them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wish<'a> {
    file_name: String,
    content_type: &'a str,
    content_length: u64,
    content_md5: String,
    content_sha256: String,
    signed_url_timeout_seconds: u64,
}

impl PresignedPlatform {
    pub fn new(timeouts: Timeouts, reach: Reach) -> Self {
        Self {
            exchange: Exchange::new(timeouts, reach),
            confirms: None,
        }
    }

    /// A chunk is delivered only once the platform's upload report, asked for so often, says that it was taken in.
    #[must_use]
    pub fn confirming(mut self, every: Option<Duration>) -> Self {
        self.confirms = every;
        self
    }

    async fn inquire(&self, inquiry: Inquiry) -> (Reported, Limits) {
        let expected = Expected::nothing();
        let asked = Asked {
            route: Route::Fetch,
            receipt: ReceiptPolicy::Body,
            expected: &expected,
            sent: Sent::Nothing,
            at: inquiry.at,
            attempt: 1,
            token: &inquiry.token,
            secret: inquiry.token.expose(),
        };
        let outcome = match question(&inquiry) {
            Ok(request) => {
                let progress = Progress::of(1);
                progress.hand_over(1);
                let tenant = &inquiry.target.tenant;
                self.exchange.send(tenant, request, &progress).await
            }
            Err(broken) => Err(broken),
        };
        let answer = match outcome {
            Ok(reply) if reply.status == 200 => match report::read(&reply.body, &inquiry) {
                Some(told) => {
                    let limits = limits::limits(&reply.headers);
                    return (Reported::Told(told), limits);
                }
                None => classify::unusable(&asked, &reply.heard(), "is no upload report"),
            },
            outcome => judge(&asked, outcome, None),
        };
        let reported = match answer.verdict {
            Verdict::Failed(failure) => Reported::Failed(failure),
            // A receipt of nothing says nothing.
            Verdict::Delivered { .. } => {
                Reported::Told(vec![Ingestion::Pending; inquiry.keys.len()])
            }
        };
        (reported, answer.limits)
    }

    async fn upload(&self, delivery: Delivery) -> Answer {
        let errand = Errand {
            target: &delivery.target,
            token: &delivery.token,
            late: delivery.late,
            attempt: delivery.attempt,
            at: delivery.at,
        };
        let mut gaps = delivery.gaps.as_slice();
        let mut limits = Limits::default();
        let mut duplicates = false;
        for part in delivery.parts {
            // What precedes the first part is declared once.
            let declared = std::mem::take(&mut gaps);
            match self.upload_part(&errand, part, declared, &mut limits).await {
                Verdict::Delivered { duplicate } => duplicates |= duplicate,
                failed => {
                    return Answer {
                        verdict: failed,
                        limits,
                        recording: None,
                    };
                }
            }
        }
        let verdict = Verdict::Delivered {
            duplicate: duplicates,
        };
        Answer {
            verdict,
            limits,
            // A storage host knows of no recordings.
            recording: None,
        }
    }

    async fn upload_part(
        &self,
        errand: &Errand<'_>,
        part: Part,
        gaps: &[Gap],
        limits: &mut Limits,
    ) -> Verdict {
        let meta = part.meta.clone();
        let expected = Expected::of(&[&meta]);
        let asked = errand.asked(Route::Deliver, &expected);
        let (part, checksums) = match checksums(part).await {
            Ok(read) => read,
            Err(fault) => return judge(&asked, Err(Broken::unsent()), Some(fault)).verdict,
        };
        let asking = self.ask(errand, &asked, gaps, &meta, &checksums);
        let ticket = match asking.await {
            (Asking::Upload(ticket), told) => {
                *limits = told;
                ticket
            }
            (Asking::Over(verdict), told) => {
                *limits = told;
                return verdict;
            }
        };
        let asked = errand.asked(Route::StoreHost, &expected);
        self.put(errand, asked, part, ticket, &checksums).await
    }

    /// Asks the platform for a URL.
    async fn ask(
        &self,
        errand: &Errand<'_>,
        asked: &Asked<'_>,
        gaps: &[Gap],
        meta: &ChunkMeta,
        checksums: &Checksums,
    ) -> (Asking, Limits) {
        let (body, key) = wish(meta, gaps, errand.late, checksums);
        let progress = Progress::of(body.len() as u64);
        progress.hand_over(body.len());
        let prepared = api_url(errand.target, &errand.target.path)
            .and_then(|url| keyed(url, errand.token, &key));
        let outcome = match prepared {
            Ok(mut request) => {
                let headers = request.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                *request.body_mut() = Some(Body::from(body));
                let tenant = &errand.target.tenant;
                self.exchange.send(tenant, request, &progress).await
            }
            Err(broken) => Err(broken),
        };
        let answer = match outcome {
            Ok(reply) if (200..300).contains(&reply.status) => {
                return accepted(asked, reply, meta.bytes);
            }
            outcome => judge(asked, outcome, None),
        };
        (Asking::Over(answer.verdict), answer.limits)
    }

    /// Puts the payload where the ticket says, with what it says and nothing else.
    async fn put(
        &self,
        errand: &Errand<'_>,
        mut asked: Asked<'_>,
        part: Part,
        ticket: Ticket,
        checksums: &Checksums,
    ) -> Verdict {
        let secrets = ticket.secrets();
        asked.secret = &secrets;
        let progress = Progress::of(part.meta.bytes);
        let _abandon = AbandonOnDrop(progress.clone());
        let mut request = Request::new(Method::PUT, ticket.url);
        *request.headers_mut() = ticket.headers;
        let length = HeaderValue::from(progress.total());
        request.headers_mut().insert(CONTENT_LENGTH, length);
        let encoder = Encoder::new(Encoding::Plain, vec![part]);
        *request.body_mut() = Some(streamed(encoder, &progress));
        let tenant = &errand.target.tenant;
        let outcome = self.exchange.send(tenant, request, &progress).await;
        asked.sent = outcome.as_ref().map_or(progress.sent(), |reply| reply.sent);
        match (outcome, progress.take_fault()) {
            (Ok(reply), None) => classify::stored(&asked, &reply.heard(), checksums),
            (outcome, fault) => judge(&asked, outcome, fault).verdict,
        }
    }
}

impl<'a> Errand<'a> {
    fn asked(&self, route: Route, expected: &'a Expected) -> Asked<'a> {
        let receipt = match route {
            Route::StoreHost => self.target.receipt,
            // A bare 200 is no upload URL.
            Route::Deliver | Route::Fetch => ReceiptPolicy::Body,
        };
        Asked {
            route,
            receipt,
            expected,
            sent: Sent::All,
            at: self.at,
            attempt: self.attempt,
            token: self.token,
            secret: self.token.expose(),
        }
    }
}

/// An upload URL, or a receipt for what is stored already. The body of any other such answer may hold the secret of
/// one, so no record of it keeps any.
fn accepted(asked: &Asked<'_>, reply: Reply, bytes: u64) -> (Asking, Limits) {
    if receipt::read(&reply.body, asked.expected) != Receipt::Absent {
        let answer = classify::answer(asked, &reply.heard());
        return (Asking::Over(answer.verdict), answer.limits);
    }
    let ticket = match reply.status {
        200 | 201 => Ticket::read(&reply.body, bytes),
        _ => Err("is no upload URL"),
    };
    let silent = Reply {
        body: Vec::new(),
        ..reply
    };
    match ticket {
        Ok(ticket) => {
            let limits = limits::limits(&silent.headers);
            (Asking::Upload(ticket), limits)
        }
        Err(why) => {
            let answer = classify::unusable(asked, &silent.heard(), why);
            (Asking::Over(answer.verdict), answer.limits)
        }
    }
}

fn question(inquiry: &Inquiry) -> Result<Request, Broken> {
    let mut url = api_url(&inquiry.target, report::PATH)?;
    url.set_query(Some(&format!("keys={}", inquiry.keys.join(","))));
    authorized(Method::GET, url, &inquiry.token)
}

/// Reads the payload through, on a blocking thread.
async fn checksums(mut part: Part) -> Result<(Part, Checksums), PayloadFault> {
    let progress = Progress::of(part.meta.bytes);
    let _abandon = AbandonOnDrop(progress.clone());
    let read = tokio::task::spawn_blocking(move || {
        let checksums = Checksums::of(&mut part, &progress);
        checksums.map(|checksums| (part, checksums))
    });
    read.await.expect("reading a payload does not panic")
}

/// The request's body, and the key that it goes by.
fn wish(meta: &ChunkMeta, gaps: &[Gap], late: bool, checksums: &Checksums) -> (Vec<u8>, String) {
    let recording = wire::description(&[meta], gaps, late);
    let life = 60 + meta.bytes / BYTES_A_SECOND_MIN;
    let wish = Wish {
        file_name: format!(
            "{}.{}",
            recording.idempotency_key,
            extension(&meta.media_type)
        ),
        content_type: &meta.media_type,
        content_length: meta.bytes,
        content_md5: checksums.md5_base64(),
        content_sha256: checksums.sha256_base64(),
        signed_url_timeout_seconds: life.clamp(URL_LIFE_MIN, URL_LIFE_MAX),
    };
    let mut body = serde_json::to_vec(&wish).expect("strings and numbers serialise");
    let brace = body.pop();
    debug_assert_eq!(brace, Some(b'}'));
    body.extend_from_slice(b",\"recording\":");
    body.extend_from_slice(&recording.json);
    body.push(b'}');
    (body, recording.idempotency_key)
}

/// What the vendor allows in a file's name: no leading dot, no white space, no marks.
fn extension(media_type: &str) -> &'static str {
    match media_type.split(';').next().unwrap_or("").trim() {
        "video/mp4" => "mp4",
        "video/webm" => "webm",
        "video/mp2t" => "ts",
        "audio/wav" => "wav",
        _ => "bin",
    }
}
