//! The emulator's own routes under `/_sandbox`: the ledger, reassembled sessions, faults, holds and tenants.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::app::{App, wall_millis, wall_seconds};
use super::fields::refuse;
use super::reply::{Content, Reply};
use super::serve::finish;

const BODY_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/_sandbox/ledger", get(ledger))
        .route("/_sandbox/sessions/{tenant}/{session}", get(session))
        .route(
            "/_sandbox/faults",
            get(faults).post(add_faults).delete(clear_faults),
        )
        .route("/_sandbox/release", post(release))
        .route("/_sandbox/held", get(held))
        .route("/_sandbox/tenants/{tenant}", post(change_tenant))
        .route("/_sandbox/tenants/{tenant}/credentials", post(credentials))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
}

async fn ledger(State(app): State<Arc<App>>) -> Response {
    let worker = Arc::clone(&app);
    let ledger = tokio::task::spawn_blocking(move || worker.world().ledger())
        .await
        .expect("writing the ledger does not panic");
    finish(
        &app,
        ledger.map_or_else(
            |error| unreadable(&error),
            |ledger| Reply::json(200, ledger),
        ),
    )
}

fn unreadable(error: &std::io::Error) -> Reply {
    Reply::error(
        500,
        "internal.server.error",
        &format!("reading the stored payloads: {error}"),
    )
}

/// A session's payloads in sequence order; `?host=` where several hosts use its id.
async fn session(
    State(app): State<Arc<App>>,
    Path((tenant, session)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let worker = Arc::clone(&app);
    let host = query.get("host").cloned();
    let work = move || worker.world().assemble(&tenant, &session, host.as_deref());
    let whole = tokio::task::spawn_blocking(work)
        .await
        .expect("assembling a session does not panic");
    let reply = match whole {
        Some(Ok(bytes)) => Reply {
            status: 200,
            headers: Vec::new(),
            content: Content::Bytes(bytes),
        },
        Some(Err(error)) => unreadable(&error),
        None => Reply::error(
            404,
            "not.found",
            "no such session, or one of several hosts: name it with ?host=",
        ),
    };
    finish(&app, reply)
}

fn parse(body: &[u8]) -> Result<Value, Reply> {
    serde_json::from_slice(body).map_err(|error| refuse("body", &format!("is not JSON: {error}")))
}

async fn faults(State(app): State<Arc<App>>) -> Response {
    let view = app.script().view();
    finish(&app, Reply::json(200, view))
}

async fn add_faults(State(app): State<Arc<App>>, body: Bytes) -> Response {
    let added = parse(&body).and_then(|script| {
        let now = app.now();
        let mut rules = app.script();
        rules.extend(&script, now)?;
        Ok(Reply::json(200, rules.view()))
    });
    finish(&app, added.unwrap_or_else(|refusal| refusal))
}

async fn clear_faults(State(app): State<Arc<App>>) -> Response {
    app.script().clear();
    finish(&app, Reply::json(200, json!({"rules": []})))
}

async fn release(State(app): State<Arc<App>>) -> Response {
    let released = app.release();
    finish(&app, Reply::json(200, json!({"released": released})))
}

/// What is held; `?at_least=N&within_ms=M` waits until it is that many.
async fn held(
    State(app): State<Arc<App>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let number = |name: &str| {
        query
            .get(name)
            .and_then(|text| text.parse::<u32>().ok())
            .unwrap_or(0)
    };
    let within = Duration::from_millis(number("within_ms").into()).min(Duration::from_secs(60));
    let held = app.held(number("at_least") as usize, within).await;
    finish(&app, Reply::json(200, held))
}

async fn change_tenant(
    State(app): State<Arc<App>>,
    Path(tenant): Path<String>,
    body: Bytes,
) -> Response {
    let changed = parse(&body).and_then(|mut change| {
        let recordings = change
            .as_object_mut()
            .and_then(|map| map.remove("recordings"));
        let mut world = app.world();
        let archive = recordings
            .map(|recordings| world.changed_archive(&tenant, &recordings, wall_millis()))
            .transpose()?;
        let view = world.change(&tenant, &change, app.now())?;
        if let Some(archive) = archive {
            world.keep_archive(&tenant, archive);
        }
        Ok(view)
    });
    let reply = changed.map_or_else(|refusal| refusal, |view| Reply::json(200, view));
    finish(&app, reply)
}

/// What a person gets by signing in again: a token and a refresh token. Those of before die.
async fn credentials(State(app): State<Arc<App>>, Path(tenant): Path<String>) -> Response {
    let wall_seconds = i64::try_from(wall_seconds()).unwrap_or(i64::MAX);
    let reply = app.world().sign_in(&tenant, app.now(), wall_seconds);
    finish(&app, reply)
}
