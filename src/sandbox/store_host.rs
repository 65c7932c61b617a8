//! The storage host's one route: takes a PUT off the socket, lets the fault script have its way, asks the pure part.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;

use super::app::App;
use super::presign::{self, Put};
use super::serve::{Desk, length};
use super::tenant::Place;
use super::token::Outcome;
use super::wire::OnWire;

pub(super) async fn put(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let signature = parts.uri.query().and_then(|query| {
        let mut pairs = query.split('&');
        pairs.find_map(|pair| pair.strip_prefix("X-Amz-Signature="))
    });
    let signature = signature.map(str::to_owned);
    let aim = app.world().urls.aim(signature.as_deref());
    let (tenant, session, sequence) = match aim {
        Some((tenant, session, sequence)) => (Some(tenant), Some(session), Some(sequence)),
        None => (None, None, None),
    };
    app.world()
        .arrived(tenant.as_deref(), Place::Store, app.now());
    let desk = Desk {
        wire: wire.0,
        place: Place::Store,
        token: None,
        tenant,
        app,
    };
    let limit = desk.app.body_bytes_max;
    let body = match desk.take_body(body, length(&parts.headers), limit).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let put = Arc::new(Put {
        path: parts.uri.path().to_owned(),
        signature,
        headers: parts.headers,
        body,
    });
    let sequences = sequence.map(|sequence| (sequence, sequence));
    let subject = desk.subject(session.as_deref(), sequences);
    desk.settle(subject, async |desk| {
        let (app, put) = (Arc::clone(&desk.app), Arc::clone(&put));
        let work = move || presign::put(&mut app.world(), &put, app.now());
        Outcome::Answer(
            tokio::task::spawn_blocking(work)
                .await
                .expect("answering does not panic"),
        )
    })
    .await
}
