//! The pure part in tables, without sockets or tasks: what goes in is written as it would come from the
//! network, what comes out is told in words.

mod cutting;
mod history;
mod hostile;
mod live;
mod losing;
mod messages;
mod payloads;
mod sending;
mod tokens;

use std::time::Duration;

use serde_json::{Value, json};

use super::Patience;
use super::lane::Lane;
use super::order::{Action, Event, Order, OrderId, Outcome, Refusal};
use super::socket::SocketId;
use super::wire::{FRAME_HEAD, FRAME_MAX, Frame};
use crate::model::{ChunkKey, ChunkMeta, Digest, Generation, Timestamp, Token};
use crate::platform::classify::Ending;

const SECOND: Duration = Duration::from_secs(1);

fn payload(session: &str, sequence: u64, bytes: u64) -> Vec<u8> {
    let seed = u64::from(crc32fast::hash(format!("{session}/{sequence}").as_bytes()));
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(usize::try_from(bytes).unwrap())
        .collect()
}

fn meta(session: &str, sequence: u64, bytes: u64) -> ChunkMeta {
    ChunkMeta {
        key: ChunkKey {
            tenant: "acme".parse().unwrap(),
            session: session.parse().unwrap(),
            sequence,
        },
        host: "rec-017".parse().unwrap(),
        started_at: Timestamp(1_772_355_600_000 + i64::try_from(sequence).unwrap() * 30_000),
        duration_ms: 30_000,
        media_type: "video/mp4".into(),
        last: false,
        bytes,
        // The pure part sees no payload; its digest need only be the chunk's own.
        digest: Digest::of(format!("{session}/{sequence}/{bytes}").as_bytes()),
    }
}

fn token(generation: u64) -> Token {
    Token::new(format!("canary-{generation}"), Generation(generation))
}

fn order(session: &str, sequences: std::ops::RangeInclusive<u64>, bytes: u64) -> Order {
    Order {
        metas: sequences
            .map(|sequence| meta(session, sequence, bytes))
            .collect(),
        gaps: Vec::new(),
        late: false,
        token: token(1),
        moves: 0,
    }
}

/// A lane whose writers are never full, and what it said.
struct Rig {
    lane: Lane,
    now: Duration,
    orders: u64,
    /// A clogged network writes nothing.
    clogged: bool,
}

impl Rig {
    fn new() -> Self {
        Self {
            lane: Lane::new(Patience::default()),
            now: SECOND,
            orders: 0,
            clogged: false,
        }
    }

    /// With a socket that stands.
    fn open() -> Self {
        let mut rig = Self::new();
        let first = rig.deliver(order("s0", 0..=0, 10));
        rig.event(1, Event::Opened);
        rig.lane.abandon(first, rig.now);
        rig.told();
        rig
    }

    fn deliver(&mut self, order: Order) -> OrderId {
        self.orders += 1;
        let id = OrderId(self.orders);
        self.lane.deliver(id, order, self.now);
        id
    }

    fn event(&mut self, socket: u64, event: Event) {
        self.lane.event(SocketId(socket), event, self.now);
    }

    fn hear(&mut self, socket: u64, message: Value) {
        self.event(socket, Event::Text(message.to_string()));
    }

    fn opened(&mut self, socket: u64, channel: u64, session: &str) {
        let message = json!({"type": "opened", "channel": channel, "session": session,
            "persisted": [], "digests": []});
        self.hear(socket, message);
    }

    fn ack(&mut self, socket: u64, channel: u64) {
        self.hear(
            socket,
            json!({"type": "ack", "channel": channel, "session": "s", "parts": []}),
        );
    }

    fn end(&mut self, socket: u64, code: Option<u16>) {
        let closed = code.map(|code| (code, String::new()));
        let message = "cut".to_owned();
        self.event(socket, Event::Ended { closed, message });
    }

    fn refuse(&mut self, socket: u64, status: u16) {
        let refusal = Refusal::Answer {
            status,
            headers: reqwest::header::HeaderMap::new(),
            body: Vec::new(),
            ending: Ending::Whole,
        };
        self.event(socket, Event::Refused(refusal));
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.lane.tick(self.now);
    }

    /// The next block of an order, so long.
    fn block(&mut self, id: OrderId, bytes: usize) {
        self.lane.block(id, vec![0; FRAME_HEAD + bytes], self.now);
    }

    /// What the lane wants done, and at once is.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(action) = self.lane.next_action() {
            told.push(words(&action));
            if let Action::Send(socket, _) = action
                && !self.clogged
            {
                self.event(socket.0, Event::Written);
            }
        }
        told
    }

    #[track_caller]
    fn expect(&mut self, told: &[&str]) {
        assert_eq!(self.told(), told);
    }
}

fn words(action: &Action) -> String {
    match action {
        Action::Dial { socket, token } => format!("dial {} as {}", socket.0, token.generation.0),
        Action::Read(id) => format!("read {}", id.0),
        Action::Keep { order, first, last } => format!("keep {first}..={last} of {}", order.0),
        Action::Hang(socket) => format!("hang {}", socket.0),
        Action::Send(socket, frame) => format!("{}: {}", socket.0, frame_words(frame)),
        Action::Settle {
            id, sent, outcome, ..
        } => {
            let outcome = match outcome {
                Outcome::Said(said) => format!("said {}", said.status),
                Outcome::Refused(Refusal::Answer { status, .. }) => format!("refused {status}"),
                Outcome::Refused(Refusal::Broken(trouble, _)) => format!("{trouble:?}"),
                Outcome::Ended(message) => format!("ended: {message}"),
                Outcome::Payload(fault) => fault.to_string(),
            };
            format!("{} {outcome}, sent {sent:?}", id.0)
        }
    }
}

fn frame_words(frame: &Frame) -> String {
    match frame {
        Frame::Text(text) => {
            let message: Value = serde_json::from_str(text).unwrap();
            let word = |name: &str| message[name].to_string().replace('"', "");
            match message["type"].as_str().unwrap() {
                "open" => format!(
                    "open {} {} {}..={}",
                    word("channel"),
                    word("session"),
                    word("first"),
                    word("last")
                ),
                "chunk" => format!(
                    "chunk {} {} from {}, {} parts",
                    word("channel"),
                    word("session"),
                    word("sequence"),
                    message["parts"].as_array().unwrap().len()
                ),
                kind => format!("{kind} {}", word("channel")),
            }
        }
        Frame::Reauth(secret) => format!("reauth {}", secret.0.generation.0),
        Frame::Payload(block) => {
            assert!(block.len() <= FRAME_MAX);
            let channel = u32::from_be_bytes(block[..FRAME_HEAD].try_into().unwrap());
            format!("payload {channel} {}", block.len() - FRAME_HEAD)
        }
        Frame::Ping => "ping".to_owned(),
    }
}
