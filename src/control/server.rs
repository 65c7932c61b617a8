//! HTTP/1.1 on the control socket: every operation of `wire`, and the two payload streams. Everything is
//! bounded: connections, bodies, and how long a silent producer is listened to.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use bytes::Bytes;

use crate::model::{ChunkKey, Timestamp};
use crate::store::{NewChunk, SequenceChoice};

use super::accept;
use super::answer::answer;
use super::refusal::{Code, Refusal};
use super::running::Holder;
use super::wire::{ChunkQuery, Ping, Reply, Request};
use listener::Capped;
use stream::{BodyReader, ChannelWriter};

mod listener;
mod stream;

/// Operators and capture processes of one host; more wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 64;
/// The largest request is a name or two.
const MAX_REQUEST_BYTES: usize = 64 << 10;
/// What a stop leaves for replies under way.
const LAST_REPLIES: Duration = Duration::from_secs(2);

/// Serves until `stop` ends, then finishes the replies under way, for two seconds at most.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: std::os::unix::net::UnixListener,
    holder: Holder,
    stop: impl Future<Output = ()> + Send + Clone + 'static,
) -> io::Result<()> {
    let listener = Capped::new(
        tokio::net::UnixListener::from_std(listener)?,
        MAX_CONNECTIONS,
    );
    let served = axum::serve(listener, router(holder)).with_graceful_shutdown(stop.clone());
    let overdue = async {
        stop.await;
        tokio::time::sleep(LAST_REPLIES).await;
    };
    tokio::select! {
        ended = served.into_future() => ended,
        () = overdue => Ok(()),
    }
}

fn router(holder: Holder) -> Router {
    Router::new()
        .route("/v1/ping", get(ping))
        .route("/v1/stats", get(stats))
        .route("/v1/ask", post(ask))
        .route(
            "/v1/tenants/{tenant}/sessions/{session}/chunks/{sequence}",
            put(chunk),
        )
        .route(
            "/v1/dead/{tenant}/{session}/{sequence}/payload",
            get(payload),
        )
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(holder)
}

async fn ping(State(holder): State<Holder>) -> Json<Ping> {
    Json(Ping {
        pid: std::process::id(),
        command: holder
            .running
            .as_ref()
            .map_or("answer", |running| running.command())
            .to_owned(),
        host: holder.config.host.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

async fn stats(State(holder): State<Holder>) -> Response {
    match blocking(move || answer(&holder, Request::Stats {})).await {
        Ok(Reply::Stats(snapshot)) => Json(snapshot).into_response(),
        Ok(_) => refused(&Refusal::new(
            Code::Internal,
            "stats answered with something else",
        )),
        Err(refusal) => refused(&refusal),
    }
}

/// The body is parsed here and not by an extractor, so that a bad one is refused in our own shape.
async fn ask(State(holder): State<Holder>, body: Bytes) -> Response {
    let request: Request = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("request: {error}");
            return refused(&Refusal::new(Code::BadInput, message));
        }
    };
    let reply = match (request, holder.running.clone()) {
        (Request::Drain(spec), Some(running)) => Ok(Reply::Drained(running.drain(spec).await)),
        (Request::CheckOnline {}, Some(running)) => Ok(Reply::Checked(running.check().await)),
        (request, _) => blocking(move || answer(&holder, request)).await,
    };
    match reply {
        Ok(reply) => Json(reply).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn chunk(
    State(holder): State<Holder>,
    Path((tenant, session, sequence)): Path<(String, String, String)>,
    Query(query): Query<ChunkQuery>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let chunk = match new_chunk([&tenant, &session, &sequence], &query, length) {
        Ok(chunk) => chunk,
        Err(message) => return refused(&Refusal::new(Code::BadInput, message)),
    };
    let mut reader = BodyReader::new(body);
    match blocking(move || accept::accept(&holder, chunk, &mut reader)).await {
        Ok(view) => (StatusCode::CREATED, Json(view)).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

fn new_chunk(
    [tenant, session, sequence]: [&str; 3],
    query: &ChunkQuery,
    length: Option<u64>,
) -> Result<NewChunk, String> {
    let sequence = match sequence {
        "next" => SequenceChoice::Next {
            refuse_repeat: !query.append,
        },
        number => SequenceChoice::Exactly(
            number
                .parse()
                .map_err(|_| format!("sequence {number:?} is neither a number nor \"next\""))?,
        ),
    };
    Ok(NewChunk {
        tenant: tenant.parse().map_err(|error| format!("{error}"))?,
        session: session.parse().map_err(|error| format!("{error}"))?,
        sequence,
        started_at: Timestamp::parse(&query.started_at)
            .map_err(|error| format!("started-at {error}"))?,
        duration_ms: query.duration_ms,
        media_type: media_type(&query.media_type)?.to_owned(),
        last: query.last,
        length,
    })
}

/// A media type travels in headers and JSON: visible ASCII, one slash, of sane length.
///
/// # Errors
/// One sentence that names what a media type looks like.
pub fn media_type(text: &str) -> Result<&str, String> {
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    let whole = text
        .split_once('/')
        .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
    if !whole || text.len() > 200 || !text.chars().all(plain) {
        return Err("media type must look like video/mp4".to_owned());
    }
    Ok(text)
}

async fn payload(
    State(holder): State<Holder>,
    Path((tenant, session, sequence)): Path<(String, String, u64)>,
) -> Response {
    let key = match (tenant.parse(), session.parse()) {
        (Ok(tenant), Ok(session)) => ChunkKey {
            tenant,
            session,
            sequence,
        },
        (Err(error), _) | (_, Err(error)) => {
            return refused(&Refusal::new(Code::BadInput, error.to_string()));
        }
    };
    let opened = blocking(move || accept::dead_payload(&holder, &key)).await;
    let (meta, mut reader) = match opened {
        Ok(opened) => opened,
        Err(refusal) => return refused(&refusal),
    };
    let (mut writer, body) = ChannelWriter::pair();
    // Ends by itself when the body is dropped or the payload is read.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = io::copy(&mut reader, &mut writer) {
            writer.fail(error);
        }
    });
    let length = [(header::CONTENT_LENGTH, meta.bytes.to_string())];
    (length, body).into_response()
}

/// Runs store work off the async threads. A panic there is ours, and answered as such.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Refusal::new(
            Code::Internal,
            format!("operation ended: {error}"),
        )),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.code {
        Code::UnknownTenant | Code::NotFound => StatusCode::NOT_FOUND,
        Code::BadInput | Code::Empty | Code::Changed | Code::Unsupported => StatusCode::BAD_REQUEST,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Conflict | Code::CannotTell | Code::Repeat | Code::TooManyGaps => {
            StatusCode::CONFLICT
        }
        Code::Full => StatusCode::INSUFFICIENT_STORAGE,
        Code::Held | Code::Closing => StatusCode::SERVICE_UNAVAILABLE,
        Code::Configuration | Code::Damaged | Code::Storage | Code::Internal => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    (status, Json(refusal)).into_response()
}
