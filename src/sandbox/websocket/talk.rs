//! One socket's conversation: what is open on it, what is arriving, and what each message leads to. Read by hand from
//! docs/PROTOCOL.md; whatever it does not allow ends the socket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::sandbox::app::{App, InProgress};
use crate::sandbox::deliver::{self, Path};
use crate::sandbox::fault::{Action, Phase, Subject};
use crate::sandbox::fields::{Fields, refuse};
use crate::sandbox::reply::Reply;
use crate::sandbox::tenant::Place;
use crate::sandbox::upload::{self, Upload};
use crate::sandbox::world::Standing;

use super::trouble::AtHalf;
use super::words::{all_known, channel, in_progress, message};

/// With its head.
const FRAME_MAX: usize = 64 * 1024;
const FRAME_HEAD: usize = 4;
const CHANNELS_MAX: usize = 1024;
/// The close code that stands for a 401.
const CREDENTIALS_ENDED: u16 = 4401;

/// What a message leads to.
pub(super) enum Next {
    Nothing,
    Say(Value),
    /// A chunk is complete.
    Store(Box<Whole>),
    Reauth {
        accepted: bool,
    },
    /// A fault: the connection ends in the middle of a chunk.
    Cut,
    /// The socket ends in order, with this code and reason.
    Close(u16, &'static str),
}

/// The sender keeps to another protocol: the socket ends with 1002.
#[derive(Debug)]
pub(super) struct Breach(pub(super) String);

/// A chunk that arrived to its last byte.
pub(super) struct Whole {
    pub(super) channel: u32,
    pub(super) upload: Upload,
    /// The session has an unpersisted chunk for as long as this lives.
    pub(super) mark: InProgress,
}

struct Channel {
    host: String,
    session: String,
    state: State,
}

enum State {
    Idle,
    Receiving(Box<Receiving>),
    Storing,
}

struct Receiving {
    upload: Upload,
    bytes: usize,
    at_half: Option<AtHalf>,
    mark: InProgress,
}

pub(super) struct Talk {
    app: Arc<App>,
    path: Path,
    tenant: String,
    token: String,
    channels: BTreeMap<u32, Channel>,
    used: BTreeSet<u32>,
}

impl Talk {
    pub(super) fn new(app: Arc<App>, path: Path, tenant: String, token: String) -> Self {
        Self {
            app,
            path,
            tenant,
            token,
            channels: BTreeMap::new(),
            used: BTreeSet::new(),
        }
    }

    pub(super) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(super) fn text(&mut self, text: &str) -> Result<Next, Breach> {
        let message: Value =
            serde_json::from_str(text).map_err(|_| Breach("a text message is no JSON".into()))?;
        let breach = |reply: Reply| Breach(reply.message());
        match message["type"].as_str() {
            Some("open") => {
                let known = ["type", "channel", "host", "session", "first", "last"];
                let fields = Fields::of(&message, "", &known).map_err(breach)?;
                self.open(&fields)
            }
            Some("chunk") => self.chunk(&message),
            Some("close") => {
                let fields = Fields::of(&message, "", &["type", "channel"]).map_err(breach)?;
                self.channels.remove(&channel(&fields)?);
                Ok(Next::Nothing)
            }
            Some("reauth") => {
                let fields = Fields::of(&message, "", &["type", "token"]).map_err(breach)?;
                let token = fields.text("token").map_err(breach)?;
                Ok(Next::Reauth {
                    accepted: self.reauth(token),
                })
            }
            _ => Err(Breach("a message has no type of this protocol".into())),
        }
    }

    fn reauth(&mut self, token: &str) -> bool {
        let mut world = self.app.world();
        let (standing, tenant) = world.standing(Some(token), self.app.now());
        let good = matches!(standing, Standing::Good { .. });
        let accepted = good && tenant.as_deref() == Some(&self.tenant);
        if accepted {
            self.token = token.to_owned();
            world.counters(Some(&self.tenant)).reauthed += 1;
        }
        accepted
    }

    fn open(&mut self, fields: &Fields<'_>) -> Result<Next, Breach> {
        let breach = |reply: Reply| Breach(reply.message());
        let number = channel(fields)?;
        if !self.used.insert(number) {
            return Err(Breach(format!("channel {number} was used before")));
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(Breach(format!("more than {CHANNELS_MAX} channels")));
        }
        let host = upload::name(fields, "host", upload::HOST.0, upload::HOST.1).map_err(breach)?;
        let session = upload::name(fields, "session", upload::SESSION.0, upload::SESSION.1)
            .map_err(breach)?;
        let first = fields.count("first").map_err(breach)?;
        let last = fields.count("last").map_err(breach)?;
        if last < first {
            return Err(Breach("last is below first".into()));
        }
        let refused = self.may_send().err().or_else(|| {
            let busy = self.is_busy(&host, &session);
            busy.then(|| in_progress(&session))
        });
        if let Some(reply) = refused {
            return Ok(Next::Say(self.refuse(number, reply)));
        }
        let opened = {
            let world = self.app.world();
            let place = (host.clone(), session.clone());
            let stored = world.tenants[&self.tenant].sessions.get(&place);
            let intervals = stored.map_or_else(Vec::new, |stored| stored.intervals(first));
            let sequences = intervals.iter().flat_map(|&(from, to)| from..=to);
            let digests = sequences.take_while(|sequence| *sequence <= last);
            let digests = digests.filter_map(|sequence| {
                let digest = stored?.digest(sequence)?;
                Some(json!({"sequence": sequence, "digest": digest}))
            });
            json!({
                "type": "opened",
                "channel": number,
                "session": session,
                "digests": digests.collect::<Vec<_>>(),
                "persisted": intervals.iter().map(|(first, last)| json!({"first": first, "last": last})).collect::<Vec<_>>(),
            })
        };
        self.channels.insert(
            number,
            Channel {
                host,
                session,
                state: State::Idle,
            },
        );
        Ok(Next::Say(opened))
    }

    fn chunk(&mut self, message: &Value) -> Result<Next, Breach> {
        let breach = |reply: Reply| Breach(reply.message());
        let mut known = vec!["type", "channel", "idempotencyKey"];
        known.extend(upload::MEMBERS.iter().filter(|name| **name != "payload"));
        let number = {
            let fields = Fields::of(message, "", &known).map_err(breach)?;
            channel(&fields)?
        };
        if !self.used.contains(&number) {
            return Err(Breach(format!("channel {number} was never opened")));
        }
        // Its sender has had the answer that ended it: silence would be waited for.
        let Some(open) = self.channels.get(&number) else {
            return Err(Breach(format!("channel {number} has ended")));
        };
        if !matches!(open.state, State::Idle) {
            return Err(Breach(format!("channel {number} has a chunk already")));
        }
        let key = format!("session {}/{}", open.host, open.session);
        let now = self.app.now();
        let tenant = self.tenant.clone();
        self.app.world().arrived(Some(&tenant), Place::Deliver, now);
        let read = self.admit(message, &known, number);
        let (upload, at_half) = match read {
            Ok(Admitted::New(upload, at_half)) => (upload, at_half),
            Ok(Admitted::Known(reply)) | Err(reply) => {
                return Ok(Next::Say(self.refuse(number, reply)));
            }
        };
        let Some(mark) = InProgress::begin(&self.app, &self.tenant, &key) else {
            let session = upload.session.clone();
            return Ok(Next::Say(self.refuse(number, in_progress(&session))));
        };
        let bytes = upload.parts.iter().map(|part| part.bytes).sum();
        let open = self.channels.get_mut(&number).expect("it is open");
        open.state = State::Receiving(Box::new(Receiving {
            upload,
            bytes,
            at_half,
            mark,
        }));
        Ok(Next::Nothing)
    }

    /// Whether the chunk's payload is wanted. What the sender lacks in rights is told before what is wrong with it.
    fn admit(&self, message: &Value, known: &[&str], number: u32) -> Result<Admitted, Reply> {
        self.may_send()?;
        let app = &self.app;
        let token = Some(self.token.as_str());
        deliver::within_quota(&mut app.world(), &self.tenant, token, app.now())?;
        let fields = Fields::of(message, "", known)?;
        let upload = Upload::described(&fields, fields.text("idempotencyKey")?)?;
        let open = &self.channels[&number];
        if upload.host != open.host || upload.session != open.session {
            return Err(refuse("session", "is not the channel's"));
        }
        let bytes: u64 = upload.parts.iter().map(|part| part.bytes as u64).sum();
        if bytes > app.body_bytes_max {
            let limit = app.body_bytes_max;
            let message = format!("The chunk is over the size limit. Maximum bytes: {limit}");
            return Err(Reply::error(413, "request.too.large", &message));
        }
        let subject = Subject {
            place: Place::Deliver,
            tenant: Some(&self.tenant),
            session: None,
            sequences: None,
        };
        let at_half = match app.pick(Phase::Head, subject) {
            Some(Action::Answer(reply)) => return Err(reply),
            Some(Action::RevokeToken) => {
                app.world().revoke(token);
                return Err(deliver::unauthorized(&Standing::Revoked));
            }
            Some(Action::ResetMidBody) => Some(AtHalf::Cut),
            Some(Action::ExpireMidBody) => Some(AtHalf::Expire),
            _ => None,
        };
        let mut world = app.world();
        let place = (upload.host.clone(), upload.session.clone());
        let stored = world.tenants[&self.tenant].sessions.get(&place);
        let all_known = stored.is_some_and(|stored| {
            let mut parts = upload.parts.iter();
            parts.all(|part| stored.holds(part.sequence))
        });
        if all_known {
            deliver::check(&mut world, &self.tenant, &upload)?;
            return deliver::accept(&mut world, &self.tenant, &upload).map(Admitted::Known);
        }
        Ok(Admitted::New(upload, at_half))
    }

    /// Whether the token that covers the socket allows a delivery.
    fn may_send(&self) -> Result<(), Reply> {
        let now = self.app.now();
        let mut world = self.app.world();
        let (standing, _) = world.standing(Some(&self.token), now);
        let Standing::Good { scopes, user } = &standing else {
            return Err(deliver::unauthorized(&standing));
        };
        world.touch(&self.token, now);
        deliver::within_rights(&world, &self.tenant, self.path, scopes)?;
        deliver::permitted(&world, &self.tenant, user.is_some())
    }

    fn is_busy(&self, host: &str, session: &str) -> bool {
        let key = format!("session {host}/{session}");
        self.app.world().tenants[&self.tenant]
            .in_progress
            .contains(&key)
    }

    pub(super) fn payload(&mut self, frame: &[u8]) -> Result<Next, Breach> {
        if frame.len() <= FRAME_HEAD || frame.len() > FRAME_MAX {
            return Err(Breach(format!("a payload frame of {} bytes", frame.len())));
        }
        let (head, payload) = frame.split_at(FRAME_HEAD);
        let number = u32::from_be_bytes(head.try_into().expect("its head has four bytes"));
        let Some(open) = self.channels.get_mut(&number) else {
            let known = self.used.contains(&number);
            return known
                .then_some(Next::Nothing)
                .ok_or_else(|| Breach(format!("payload for channel {number}, never opened")));
        };
        let State::Receiving(receiving) = &mut open.state else {
            return Err(Breach(format!(
                "payload for channel {number} without a chunk"
            )));
        };
        let arrived = &mut receiving.upload.payload;
        if arrived.len() + payload.len() > receiving.bytes {
            return Err(Breach(format!(
                "channel {number} has more payload than its chunk"
            )));
        }
        arrived.extend_from_slice(payload);
        let half = arrived.len() >= receiving.bytes / 2;
        if let Some(fault) = receiving.at_half.filter(|_| half) {
            return Ok(self.fail(fault));
        }
        if arrived.len() < receiving.bytes {
            return Ok(Next::Nothing);
        }
        let State::Receiving(whole) = std::mem::replace(&mut open.state, State::Storing) else {
            unreachable!("it was receiving");
        };
        Ok(Next::Store(Box::new(Whole {
            channel: number,
            upload: whole.upload,
            mark: whole.mark,
        })))
    }

    fn fail(&self, fault: AtHalf) -> Next {
        match fault {
            AtHalf::Cut => Next::Cut,
            AtHalf::Expire => {
                let mut world = self.app.world();
                world.expire_mid_body(Some(&self.token));
                world.counters(Some(&self.tenant)).unauthorized += 1;
                Next::Close(CREDENTIALS_ENDED, "the token has expired")
            }
        }
    }

    /// The answer to a chunk that was worked on; `None` if its channel has ended meanwhile.
    pub(super) fn answer(&mut self, number: u32, reply: Reply) -> Option<Value> {
        let open = self.channels.get_mut(&number)?;
        if reply.status < 300 && !all_known(&reply) {
            open.state = State::Idle;
            return Some(self.message(number, reply));
        }
        Some(self.refuse(number, reply))
    }

    /// An answer that ends its channel.
    fn refuse(&mut self, number: u32, reply: Reply) -> Value {
        self.channels.remove(&number);
        self.message(number, reply)
    }

    fn message(&self, number: u32, mut reply: Reply) -> Value {
        let now = self.app.now();
        let mut world = self.app.world();
        world.answered(Some(&self.tenant), Place::Deliver, &reply, now);
        let correlation = world.correlation();
        reply.correlate(&correlation);
        let owner = (self.tenant.as_str(), self.token.as_str());
        message(&world, owner, number, &reply, now)
    }
}

enum Admitted {
    /// And what goes wrong in its middle.
    New(Upload, Option<AtHalf>),
    /// Every part was stored before.
    Known(Reply),
}
