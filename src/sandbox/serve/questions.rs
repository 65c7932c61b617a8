//! Questions about recordings, on their way through the script.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::{Desk, bearer};
use crate::sandbox::app::{App, wall_millis, wall_seconds};
use crate::sandbox::recordings::{self, Question};
use crate::sandbox::tenant::Place;
use crate::sandbox::token::Outcome;
use crate::sandbox::wire::OnWire;

pub(super) async fn recording(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    ask(app, wire, &headers, Some(id), BTreeMap::new()).await
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    ask(app, wire, &headers, None, query).await
}

/// One question about recordings, on its way through the script.
async fn ask(
    app: Arc<App>,
    wire: OnWire,
    headers: &HeaderMap,
    id: Option<String>,
    query: BTreeMap<String, String>,
) -> Response {
    let question = Question {
        token: bearer(headers),
        id,
        query,
        arrived_at: app.now(),
        wall_seconds: wall_seconds(),
        wall: wall_millis(),
    };
    let standing = app
        .world()
        .standing(question.token.as_deref(), question.arrived_at);
    let tenant = standing.1;
    app.world()
        .arrived(tenant.as_deref(), Place::Fetch, question.arrived_at);
    let desk = Desk {
        wire: wire.0,
        place: Place::Fetch,
        token: None,
        tenant,
        app,
    };
    let subject = desk.subject(None, None);
    desk.settle(subject, async |desk| {
        let now = desk.app.now();
        Outcome::Answer(recordings::answer(&mut desk.app.world(), &question, now))
    })
    .await
}
