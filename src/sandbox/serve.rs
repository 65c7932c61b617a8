//! The platform's routes: takes a request off the socket, lets the fault script have its way, asks the pure part for the answer.

mod questions;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post, put};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::app::{App, wall_seconds};
use super::deliver;
use super::fault::{Action, Phase, Subject};
use super::reply::{Reply, standard};
use super::store_host;
use super::tenant::Place;
use super::token::{self, Outcome, TokenRequest};
use super::uploads;
use super::websocket;
use super::wire::{OnWire, Switch};

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/oauth/token", post(token))
        .route(
            "/api/v2/analytics/screenrecordings",
            post(uploads::analytics),
        )
        .route(
            "/api/v2/screenshare/recordings",
            post(uploads::screenshare).get(questions::list),
        )
        .route(
            "/api/v2/screenshare/recordings/{id}",
            get(questions::recording),
        )
        .route(
            "/api/v2/analytics/screenrecordings/content",
            post(uploads::analytics_content),
        )
        .route(
            "/api/v2/screenshare/recordings/content",
            post(uploads::screenshare_content),
        )
        .route("/api/v2/uploads/recordings", post(uploads::wish))
        .route("/api/v2/uploads/reports", get(uploads::reports))
        .route("/_store/{tenant}/{file}", put(store_host::put))
        .route(
            "/api/v2/analytics/screenrecordings/stream",
            get(websocket::analytics),
        )
        .route(
            "/api/v2/screenshare/recordings/stream",
            get(websocket::screenshare),
        )
        .route("/api/v2/tokens/me", get(token_owner))
        .fallback(async |State(app): State<Arc<App>>| finish(&app, standard(404)))
        .method_not_allowed_fallback(async |State(app): State<Arc<App>>| {
            finish(&app, standard(405))
        })
        .with_state(app)
}

async fn token(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let authorization = text(&head.headers, "authorization");
    let tenant = token::claimed_tenant(&app.world(), authorization.as_deref(), &[]);
    let named = authorization.is_some();
    if named {
        app.world()
            .arrived(tenant.as_deref(), Place::Token, app.now());
    }
    let mut desk = Desk {
        app: Arc::clone(&app),
        wire: wire.0,
        place: Place::Token,
        token: None,
        tenant,
    };
    let body = match desk
        .take_body(body, length(&head.headers), TOKEN_BODY_MAX)
        .await
    {
        Ok(body) => body,
        Err(response) => return response,
    };
    if !named {
        // Who comes without a header says who it is in the form.
        desk.tenant = token::claimed_tenant(&desk.app.world(), None, &body);
        let now = desk.app.now();
        let mut world = desk.app.world();
        world.arrived(desk.tenant.as_deref(), Place::Token, now);
    }
    let request = TokenRequest {
        authorization,
        content_type: text(&head.headers, "content-type"),
        host: text(&head.headers, "host"),
        body,
        wall_seconds: i64::try_from(wall_seconds()).unwrap_or(i64::MAX),
    };
    let subject = desk.subject(None, None);
    desk.settle(subject, async |desk| {
        token::answer(&mut desk.app.world(), &request, desk.app.now())
    })
    .await
}

async fn token_owner(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let token = bearer(&headers);
    let reply = deliver::token_owner(&app.world(), token.as_deref(), app.now());
    finish(&app, reply)
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = text(headers, "authorization")?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, "content-length")?.parse().ok()
}

const TOKEN_BODY_MAX: u64 = 64 * 1024;
/// How long a sender may be silent in the middle of a body.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// One request on its way through the script.
pub(super) struct Desk {
    pub(super) app: Arc<App>,
    pub(super) wire: Arc<Switch>,
    pub(super) place: Place,
    /// The bearer token that the request carries, where its life can end under way.
    pub(super) token: Option<String>,
    pub(super) tenant: Option<String>,
}

impl Desk {
    pub(super) fn subject<'a>(
        &'a self,
        session: Option<&'a str>,
        sequences: Option<(u64, u64)>,
    ) -> Subject<'a> {
        Subject {
            place: self.place,
            tenant: self.tenant.as_deref(),
            session,
            sequences,
        }
    }

    /// Counts the answer and puts it into its final form.
    pub(super) fn send(&self, reply: Reply) -> Response {
        self.app
            .world()
            .answered(self.tenant.as_deref(), self.place, &reply, self.app.now());
        finish(&self.app, reply)
    }

    /// An answer that the broken connection never carries.
    fn unsent() -> Response {
        Response::new(Body::empty())
    }

    /// Reads the body, unless a fault or its size ends the request first.
    pub(super) async fn take_body(
        &self,
        body: Body,
        length: Option<u64>,
        limit: u64,
    ) -> Result<Vec<u8>, Response> {
        let (mut stop_at, mut expire_at) = (None, None);
        let half = length.unwrap_or(0) / 2;
        let token = self.token.as_deref();
        match self.app.pick(Phase::Head, self.subject(None, None)) {
            Some(Action::Answer(reply)) => return Err(self.send(reply)),
            Some(Action::ResetMidBody) => stop_at = Some(half),
            Some(Action::RevokeToken) => self.app.world().revoke(token),
            Some(Action::ExpireMidBody) => expire_at = Some(half),
            _ => {}
        }
        let too_large = || {
            let message = format!("The request is over the size limit. Maximum bytes: {limit}");
            self.send(Reply::error(413, "request.too.large", &message))
        };
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut stream = body.into_data_stream();
        let mut read = Vec::new();
        loop {
            if stop_at.is_some_and(|stop_at| read.len() as u64 >= stop_at) {
                self.wire.cut();
                return Err(Self::unsent());
            }
            match tokio::time::timeout(BODY_PATIENCE, stream.next()).await {
                Ok(Some(Ok(bytes))) => read.extend_from_slice(&bytes),
                Ok(None) if stop_at.is_none() => return Ok(read),
                // The sender went away, or ended its body before the point where it was to be cut.
                Ok(_) => {
                    self.wire.cut();
                    return Err(Self::unsent());
                }
                Err(_) => return Err(self.send(standard(408))),
            }
            if expire_at.take_if(|at| read.len() as u64 >= *at).is_some() {
                self.app.world().expire_mid_body(token);
            }
            if read.len() as u64 > limit {
                return Err(too_large());
            }
        }
    }

    /// Does the normal course of the request, under the fault that is due for it.
    pub(super) async fn settle(
        &self,
        subject: Subject<'_>,
        work: impl AsyncFnOnce(&Self) -> Outcome,
    ) -> Response {
        match self.app.pick(Phase::Body, subject) {
            None
            | Some(
                Action::ResetMidBody
                | Action::RevokeToken
                | Action::ExpireMidBody
                | Action::Socket(_),
            ) => self.close(work(self).await),
            Some(Action::Answer(reply)) => self.send(reply),
            Some(Action::Garbage) => {
                self.wire.garble(GARBAGE.to_vec());
                Self::unsent()
            }
            Some(Action::Stall(span)) => {
                self.app.pause(span).await;
                self.close(work(self).await)
            }
            Some(Action::HoldBefore) => {
                self.app.hold(subject).await;
                self.close(work(self).await)
            }
            Some(Action::HoldAfter) => {
                let outcome = work(self).await;
                self.app.hold(subject).await;
                self.close(outcome)
            }
            Some(Action::LoseReply) => {
                let _ = self.close(work(self).await);
                self.wire.cut();
                Self::unsent()
            }
            Some(Action::SlowLoris(pause)) => dribble(self.close(work(self).await), pause).await,
        }
    }

    fn close(&self, outcome: Outcome) -> Response {
        match outcome {
            Outcome::Answer(reply) => self.send(reply),
            Outcome::Silence => {
                self.wire.cut();
                Self::unsent()
            }
        }
    }
}

/// Neither a status line nor anything that could be taken for one.
pub(super) const GARBAGE: &[u8] =
    b"\x15\x03\x03\x00\x02\x02\x46\x00\xff\xfe canary garbage, no HTTP\r\n\r\n";

/// Gives an answer its correlation id and turns it into HTTP.
pub(super) fn finish(app: &App, mut reply: Reply) -> Response {
    let correlation = app.world().correlation();
    reply.correlate(&correlation);
    let (body, media_type) = reply.rendered();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).expect("a reply has a valid status");
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_str(media_type).expect("a media type is a header value");
    headers.insert(header::CONTENT_TYPE, media_type);
    for (name, value) in &reply.headers {
        let name = HeaderName::try_from(name).expect("header names were checked");
        let value = HeaderValue::try_from(value).expect("header values were checked");
        headers.insert(name, value);
    }
    response
}

/// Sends the same answer one byte at a time.
async fn dribble(response: Response, pause: Duration) -> Response {
    let (mut head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .expect("a finished answer is in memory");
    head.headers
        .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let drops = futures_util::stream::unfold(bytes, move |mut left: Bytes| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let drop = left.split_to(1);
        Some((Ok::<_, std::convert::Infallible>(drop), left))
    });
    Response::from_parts(head, Body::from_stream(drops))
}
