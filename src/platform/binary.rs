//! The binary transport: one POST a request, the payload as its body straight from the segment, everything else in
//! headers.

use reqwest::Request;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use super::body::{Encoder, Encoding};
use super::classify::Asked;
use super::exchange::{AbandonOnDrop, Broken, Exchange, api_url, authorized, judge, streamed};
use super::fields::{self, Recording};
use super::key::{part_key, request_key};
use super::progress::{Progress, Timeouts};
use super::receipt::Expected;
use super::{Answer, Answering, Delivery, Platform, Target};
use crate::http::Reach;
use crate::model::{ChunkMeta, Route, Token};

/// The platform behind `POST {api_url}{path}`.
pub struct BinaryPlatform {
    exchange: Exchange,
}

impl BinaryPlatform {
    pub fn new(timeouts: Timeouts, reach: Reach) -> Self {
        Self {
            exchange: Exchange::new(timeouts, reach),
        }
    }

    async fn upload(&self, delivery: Delivery) -> Answer {
        let metas: Vec<&ChunkMeta> = delivery.parts.iter().map(|part| &part.meta).collect();
        let expected = Expected::of(&metas);
        let progress = Progress::of(metas.iter().map(|meta| meta.bytes).sum());
        let _abandon = AbandonOnDrop(progress.clone());

        let recording = Recording {
            parts: &metas,
            gaps: &delivery.gaps,
            late: delivery.late,
        };
        let outcome = match prepare(&delivery.target, &delivery.token, &recording, &progress) {
            Ok(mut request) => {
                let encoder = Encoder::new(Encoding::Plain, delivery.parts);
                *request.body_mut() = Some(streamed(encoder, &progress));
                let tenant = &delivery.target.tenant;
                self.exchange.send(tenant, request, &progress).await
            }
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
            secret: delivery.token.expose(),
        };
        judge(&asked, outcome, progress.take_fault())
    }
}

impl Platform for BinaryPlatform {
    fn deliver(&self, delivery: Delivery) -> Answering<'_> {
        Box::pin(self.upload(delivery))
    }
}

/// The request without its body.
fn prepare(
    target: &Target,
    token: &Token,
    recording: &Recording<'_>,
    progress: &Progress,
) -> Result<Request, Broken> {
    let keys: Vec<String> = recording.parts.iter().map(|meta| part_key(meta)).collect();
    let url = api_url(target, &target.path)?;
    let mut request = authorized(url, token, &request_key(&keys))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(progress.total()));
    let media_type = HeaderValue::from_str(&recording.parts[0].media_type);
    // The store took only printable ones.
    let media_type = media_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_TYPE, media_type);
    for (name, value) in fields::of(recording) {
        let value = HeaderValue::from_str(&value).expect("names, numbers and times are printable");
        headers.append(name, value);
    }
    Ok(request)
}
