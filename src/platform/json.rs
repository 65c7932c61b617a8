//! The json transport: one POST a request, its payload in base64 made while it is sent. Relies on
//! `body` for bounded memory, on `exchange` for the wire and on `classify` for every judgement.

use reqwest::Request;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use super::body::{Encoder, Encoding};
use super::classify::Asked;
use super::exchange::{AbandonOnDrop, Broken, Exchange, api_url, authorized, judge, streamed};
use super::progress::{Progress, Timeouts};
use super::receipt::Expected;
use super::wire::{self, SUFFIX};
use super::{Answer, Answering, Delivery, Platform, Target};
use crate::http::Reach;
use crate::model::{ChunkMeta, Route, Token};

/// The platform behind `POST {api_url}{path}`.
pub struct JsonPlatform {
    exchange: Exchange,
}

impl JsonPlatform {
    pub fn new(timeouts: Timeouts, reach: Reach) -> Self {
        Self {
            exchange: Exchange::new(timeouts, reach),
        }
    }

    async fn upload(&self, delivery: Delivery) -> Answer {
        let metas: Vec<&ChunkMeta> = delivery.parts.iter().map(|part| &part.meta).collect();
        let prefix = wire::prefix(&metas, &delivery.gaps, delivery.late);
        let expected = Expected::of(&metas);
        let payload_bytes = metas.iter().map(|meta| meta.bytes).sum();
        let framing = (prefix.json.len() + SUFFIX.len()) as u64;
        let progress = Progress::of(framing + wire::encoded_length(payload_bytes));
        let _abandon = AbandonOnDrop(progress.clone());

        let key = prefix.idempotency_key;
        let encoder = Encoder::new(Encoding::base64(prefix.json), delivery.parts);
        let prepared = prepare(&delivery.target, &delivery.token, &key, encoder, &progress);
        let tenant = &delivery.target.tenant;
        let outcome = match prepared {
            Ok(request) => self.exchange.send(tenant, request, &progress).await,
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

impl Platform for JsonPlatform {
    fn deliver(&self, delivery: Delivery) -> Answering<'_> {
        Box::pin(self.upload(delivery))
    }
}

fn prepare(
    target: &Target,
    token: &Token,
    key: &str,
    encoder: Encoder,
    progress: &Progress,
) -> Result<Request, Broken> {
    let mut request = authorized(api_url(target, &target.path)?, token, key)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(progress.total()));
    *request.body_mut() = Some(streamed(encoder, progress));
    Ok(request)
}
