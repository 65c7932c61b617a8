//! The upload endpoints' way off the socket: each reads its own shape of body, and all go the same way from there.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{self, HeaderMap};
use axum::response::Response;

use super::app::{App, InProgress, wall_seconds};
use super::content;
use super::deliver::{self, Head, Path, Shape};
use super::presign;
use super::reply::Reply;
use super::serve::{Desk, bearer, length, text};
use super::tenant::Place;
use super::token::Outcome;
use super::wire::OnWire;

pub(super) async fn analytics(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    request: Request,
) -> Response {
    deliver(app, wire, Path::Analytics, Form::Json, request).await
}

pub(super) async fn screenshare(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    request: Request,
) -> Response {
    deliver(app, wire, Path::Screenshare, Form::Json, request).await
}

pub(super) async fn analytics_content(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    request: Request,
) -> Response {
    deliver(app, wire, Path::Analytics, Form::Content, request).await
}

pub(super) async fn screenshare_content(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    request: Request,
) -> Response {
    deliver(app, wire, Path::Screenshare, Form::Content, request).await
}

pub(super) async fn wish(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    request: Request,
) -> Response {
    deliver(app, wire, Path::Uploads, Form::Wish, request).await
}

/// `?keys=`: what became of uploads.
pub(super) async fn reports(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let head = read_head(&parts, Path::Uploads, app.now());
    let tenant = app
        .world()
        .standing(head.token.as_deref(), head.arrived_at)
        .1;
    let desk = Desk {
        wire: wire.0,
        place: Place::Report,
        token: None,
        tenant,
        app,
    };
    let keys = parts
        .uri
        .query()
        .and_then(|query| query.strip_prefix("keys="));
    let keys: Vec<&str> = keys.into_iter().flat_map(|keys| keys.split(',')).collect();
    let subject = desk.subject(None, None);
    desk.settle(subject, async |desk| {
        let now = desk.app.now();
        Outcome::Answer(presign::report(&mut desk.app.world(), &head, &keys, now))
    })
    .await
}

/// Which of the upload requests is expected.
#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Content,
    Wish,
}

impl Form {
    fn read(self, headers: &HeaderMap, body: Vec<u8>) -> Shape {
        match self {
            Self::Json => Shape::Json(serde_json::from_slice(&body).ok()),
            Self::Wish => Shape::Wish(serde_json::from_slice(&body).ok()),
            Self::Content => Shape::Content(content::Fields::of(headers), body),
        }
    }
}

async fn deliver(
    app: Arc<App>,
    wire: OnWire,
    path: Path,
    form: Form,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let head = read_head(&parts, path, app.now());
    let tenant = app
        .world()
        .standing(head.token.as_deref(), head.arrived_at)
        .1;
    app.world()
        .arrived(tenant.as_deref(), Place::Deliver, head.arrived_at);
    let desk = Desk {
        wire: wire.0,
        place: Place::Deliver,
        token: head.token.clone(),
        tenant,
        app,
    };
    let body = match desk
        .take_body(body, head.content_length, desk.app.body_bytes_max)
        .await
    {
        Ok(body) => body,
        Err(response) => return response,
    };
    // Parsing and hashing a large body would hold up every other connection.
    let shape = tokio::task::spawn_blocking(move || form.read(&parts.headers, body))
        .await
        .expect("parsing does not panic");
    let shape = Arc::new(shape);
    let (session, sequences) = shape.aim();
    let subject = desk.subject(session.as_deref(), sequences);
    let under_way = match (&desk.tenant, &head.key) {
        (Some(tenant), Some(key)) => match InProgress::begin(&desk.app, tenant, key) {
            Some(mark) => Some(mark),
            None => return desk.send(in_progress()),
        },
        _ => None,
    };
    let response = desk
        .settle(subject, async |desk| {
            let (app, head, shape) = (Arc::clone(&desk.app), head.clone(), Arc::clone(&shape));
            let work = move || {
                let upload = deliver::read(&head, &shape);
                deliver::answer(&mut app.world(), &head, upload, app.now())
            };
            Outcome::Answer(
                tokio::task::spawn_blocking(work)
                    .await
                    .expect("answering does not panic"),
            )
        })
        .await;
    drop(under_way);
    response
}

fn in_progress() -> Reply {
    Reply::error(
        409,
        "request.in.progress",
        "A request with this Idempotency-Key is being worked on.",
    )
}

fn read_head(parts: &http::request::Parts, path: Path, now: Duration) -> Head {
    let quoted = text(&parts.headers, "idempotency-key")
        .and_then(|value| Some(value.strip_prefix('"')?.strip_suffix('"')?.to_owned()));
    Head {
        path,
        token: bearer(&parts.headers),
        content_type: text(&parts.headers, "content-type"),
        content_length: length(&parts.headers),
        key: quoted,
        arrived_at: now,
        wall_seconds: wall_seconds(),
        base_url: format!(
            "{}://{}",
            match text(&parts.headers, "x-forwarded-proto").as_deref() {
                Some("https") => "https",
                _ => "http",
            },
            text(&parts.headers, "host").unwrap_or_default()
        ),
    }
}
