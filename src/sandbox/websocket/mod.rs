//! The websocket transport's endpoint: the handshake, and one task a socket that reads, answers and, where a fault rule
//! says so, misbehaves.

mod talk;
mod trouble;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::app::App;
use super::deliver::{self, Path};
use super::fault::{Action, Phase, Subject};
use super::reply::Reply;
use super::serve::{self, GARBAGE, finish};
use super::tenant::Place;
use super::upload;
use super::wire::{OnWire, Switch};
use super::world::Standing;
use talk::{Breach, Next, Talk, Whole};
pub(super) use trouble::Trouble;
use trouble::{Deed, OnReauth};

const SUBPROTOCOL: &str = "reelay.v1";
const MESSAGE_MAX: usize = 1024 * 1024;
const PROTOCOL_ERROR: u16 = 1002;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

pub(super) async fn analytics(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    handshake(&app, &wire, Path::Analytics, &headers, upgrade)
}

pub(super) async fn screenshare(
    State(app): State<Arc<App>>,
    ConnectInfo(wire): ConnectInfo<OnWire>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    handshake(&app, &wire, Path::Screenshare, &headers, upgrade)
}

fn handshake(
    app: &Arc<App>,
    wire: &OnWire,
    path: Path,
    headers: &HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let now = app.now();
    let token = serve::bearer(headers);
    let (standing, tenant) = app.world().standing(token.as_deref(), now);
    app.world().arrived(tenant.as_deref(), Place::Deliver, now);
    let refuse = |reply: Reply| {
        let mut world = app.world();
        world.answered(tenant.as_deref(), Place::Deliver, &reply, now);
        drop(world);
        finish(app, reply)
    };
    let subject = Subject {
        place: Place::Socket,
        tenant: tenant.as_deref(),
        session: None,
        sequences: None,
    };
    let trouble = match app.pick(Phase::Head, subject) {
        Some(Action::Answer(reply)) => return refuse(reply),
        Some(Action::Socket(trouble)) => Some(trouble),
        _ => None,
    };
    let (Standing::Good { scopes, user }, Some(tenant), Some(token)) = (&standing, &tenant, token)
    else {
        return refuse(deliver::unauthorized(&standing));
    };
    let rights = {
        let world = app.world();
        deliver::within_rights(&world, tenant, path, scopes)
            .and_then(|()| deliver::permitted(&world, tenant, user.is_some()))
    };
    if let Err(reply) = rights {
        return refuse(reply);
    }
    let Ok(upgrade) = upgrade else {
        let reply = Reply::error(426, "upgrade.required", "This resource speaks WebSocket.");
        return refuse(reply.with("Upgrade", "websocket"));
    };
    let offered = headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim() == SUBPROTOCOL);
    if !offered {
        let message = format!("Sec-WebSocket-Protocol does not offer {SUBPROTOCOL}.");
        return refuse(Reply::field(
            400,
            "bad.request",
            "Sec-WebSocket-Protocol",
            &message,
        ));
    }
    app.world().counters(Some(tenant)).sockets += 1;
    let talk = Talk::new(Arc::clone(app), path, tenant.clone(), token);
    let (app, wire) = (Arc::clone(app), Arc::clone(&wire.0));
    upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX)
        .on_upgrade(move |socket| async move {
            if let Some(Trouble::CutAfterBytes(bytes)) = trouble {
                wire.cut_after(bytes);
            }
            let stop = app.stop.clone();
            let conversation = Conversation {
                app,
                wire,
                socket,
                trouble,
                messages: 0,
                works: JoinSet::new(),
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = conversation.run(talk) => {}
            }
        })
}

/// How work on a chunk ended.
enum Worked {
    Answer(Reply),
    Cut,
    Garbage,
}

struct Conversation {
    app: Arc<App>,
    wire: Arc<Switch>,
    socket: WebSocket,
    trouble: Option<Trouble>,
    /// In both directions.
    messages: u64,
    works: JoinSet<(u32, Worked)>,
}

/// The socket is of no further use.
struct Over;

impl Conversation {
    async fn run(mut self, mut talk: Talk) {
        let ended = self.talk(&mut talk).await;
        // A peer that hears nothing does not hear that either.
        drop(talk);
        if let Err(Over) = ended
            && matches!(self.trouble, Some(Trouble::After(_, Deed::Deaf)))
        {
            std::future::pending::<()>().await;
        }
    }

    async fn talk(&mut self, talk: &mut Talk) -> Result<(), Over> {
        self.misbehave().await?;
        loop {
            tokio::select! {
                message = self.socket.recv() => {
                    let Some(Ok(message)) = message else { return Ok(()) };
                    let next = match message {
                        Message::Text(text) => {
                            self.passed().await?;
                            talk.text(text.as_str())
                        }
                        Message::Binary(frame) => {
                            self.passed().await?;
                            talk.payload(&frame)
                        }
                        Message::Ping(_) | Message::Pong(_) => continue,
                        Message::Close(_) => return Ok(()),
                    };
                    match next {
                        Ok(next) => self.act(talk, next).await?,
                        Err(Breach(why)) => return self.close(PROTOCOL_ERROR, &why).await,
                    }
                }
                Some(worked) = self.works.join_next() => {
                    let (channel, worked) = worked.expect("storing does not panic");
                    self.worked(talk, channel, worked).await?;
                }
            }
        }
    }

    async fn act(&mut self, talk: &Talk, next: Next) -> Result<(), Over> {
        match next {
            Next::Nothing => Ok(()),
            Next::Say(message) => self.say(&message).await,
            Next::Cut => {
                self.wire.cut();
                Err(Over)
            }
            Next::Close(code, reason) => {
                self.close(code, reason).await?;
                Err(Over)
            }
            Next::Reauth { accepted } => match self.trouble {
                Some(Trouble::Reauth(OnReauth::Drop)) => {
                    self.wire.cut();
                    Err(Over)
                }
                Some(Trouble::Reauth(OnReauth::Ignore)) => Ok(()),
                Some(Trouble::Reauth(OnReauth::Refuse)) => {
                    self.say(&json!({"type": "reauthed", "accepted": false}))
                        .await
                }
                _ => {
                    self.say(&json!({"type": "reauthed", "accepted": accepted}))
                        .await
                }
            },
            Next::Store(whole) => {
                let tenant = talk.tenant().to_owned();
                let slow = match self.trouble {
                    Some(Trouble::SlowAcks(pause)) => pause,
                    _ => Duration::ZERO,
                };
                let app = Arc::clone(&self.app);
                self.works.spawn(async move {
                    let channel = whole.channel;
                    let worked = work(&app, &tenant, *whole).await;
                    tokio::time::sleep(slow).await;
                    (channel, worked)
                });
                Ok(())
            }
        }
    }

    async fn worked(&mut self, talk: &mut Talk, channel: u32, worked: Worked) -> Result<(), Over> {
        match worked {
            Worked::Answer(reply) => {
                let silent = self.trouble == Some(Trouble::NoAcks) && reply.status < 300;
                match talk.answer(channel, reply) {
                    Some(message) if !silent => self.say(&message).await,
                    _ => Ok(()),
                }
            }
            Worked::Cut => {
                self.wire.cut();
                Err(Over)
            }
            Worked::Garbage => self.garble(),
        }
    }

    async fn say(&mut self, message: &Value) -> Result<(), Over> {
        self.send(Message::text(message.to_string())).await?;
        self.passed().await
    }

    async fn send(&mut self, message: Message) -> Result<(), Over> {
        self.socket.send(message).await.map_err(|_| Over)
    }

    async fn close(&mut self, code: u16, reason: &str) -> Result<(), Over> {
        // As much as a close frame carries.
        let reason: String = reason.chars().take(60).collect();
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        self.send(Message::Close(Some(frame))).await?;
        // Until the other side has closed as well, for a moment.
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            while let Some(Ok(_)) = self.socket.recv().await {}
        })
        .await;
        Ok(())
    }

    fn garble(&self) -> Result<(), Over> {
        self.wire.garble(GARBAGE.to_vec());
        Ok(())
    }

    /// A message went one way or the other.
    async fn passed(&mut self) -> Result<(), Over> {
        self.messages += 1;
        self.misbehave().await
    }

    async fn misbehave(&mut self) -> Result<(), Over> {
        let Some(Trouble::After(messages, deed)) = &self.trouble else {
            return Ok(());
        };
        if *messages != self.messages {
            return Ok(());
        }
        match deed.clone() {
            Deed::Cut => {
                self.wire.cut();
                Err(Over)
            }
            Deed::Close(code, reason) => {
                self.close(code, &reason).await?;
                Err(Over)
            }
            Deed::Say(message) => self.send(Message::text(message.to_string())).await,
            Deed::Disconnect(message) => {
                self.send(Message::text(message.to_string())).await?;
                self.close(1000, "").await?;
                Err(Over)
            }
            Deed::Garbage => {
                self.garble()?;
                // Something has to be written for it to go out instead.
                self.send(Message::Ping(Vec::new().into())).await
            }
            Deed::Huge(bytes) => {
                let filler = "x".repeat(bytes);
                let message = json!({"type": "filler", "filler": filler}).to_string();
                self.send(Message::text(message)).await
            }
            Deed::Deaf => Err(Over),
        }
    }
}

/// Does the normal course of a complete chunk, under the fault that is due for it.
async fn work(app: &Arc<App>, tenant: &str, whole: Whole) -> Worked {
    let session = whole.upload.session.clone();
    let subject = Subject {
        place: Place::Deliver,
        tenant: Some(tenant),
        session: Some(&session),
        sequences: whole.upload.sequences(),
    };
    match app.pick(Phase::Body, subject) {
        Some(Action::Answer(reply)) => Worked::Answer(reply),
        Some(Action::Garbage) => Worked::Garbage,
        Some(Action::Stall(span) | Action::SlowLoris(span)) => {
            app.pause(span).await;
            Worked::Answer(store(app, tenant, whole).await)
        }
        Some(Action::HoldBefore) => {
            app.hold(subject).await;
            Worked::Answer(store(app, tenant, whole).await)
        }
        Some(Action::HoldAfter) => {
            let reply = store(app, tenant, whole).await;
            app.hold(subject).await;
            Worked::Answer(reply)
        }
        Some(Action::LoseReply) => {
            store(app, tenant, whole).await;
            Worked::Cut
        }
        // The others have acted before the payload came, or act on sockets.
        _ => Worked::Answer(store(app, tenant, whole).await),
    }
}

/// Hashing a large chunk would hold up every other socket. What was begun is stored even if its socket ends meanwhile; until
/// then its session stays marked.
async fn store(app: &Arc<App>, tenant: &str, whole: Whole) -> Reply {
    let (app, tenant) = (Arc::clone(app), tenant.to_owned());
    let Whole { upload, mark, .. } = whole;
    let work = move || {
        let reply = upload::check_payload(&upload.payload, &upload.parts)
            .and_then(|()| {
                let mut world = app.world();
                deliver::check(&mut world, &tenant, &upload)?;
                deliver::accept(&mut world, &tenant, &upload)
            })
            .unwrap_or_else(|refusal| refusal);
        drop(mark);
        reply
    };
    tokio::task::spawn_blocking(work)
        .await
        .expect("storing does not panic")
}
