//! Random histories against a model of the server: cuts, lost answers, new tokens, callers that go away. Whatever
//! happens, every chunk is persisted in order, none is sent again that the server can be known to have, and every
//! order is settled exactly once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

const SESSIONS: u64 = 4;
const CHUNKS: u64 = 6;

/// The server's end of one socket.
#[derive(Default)]
struct End {
    frames: VecDeque<Frame>,
    answers: VecDeque<Event>,
    /// Session, and the payload that is still missing of a chunk.
    channels: BTreeMap<u64, (String, Option<(u64, u64)>)>,
}

struct World {
    rig: Rig,
    random: fastrand::Rng,
    ends: BTreeMap<u64, End>,
    persisted: BTreeMap<String, BTreeSet<u64>>,
    /// What the caller wants: the next sequence of each session, and its order.
    wanted: BTreeMap<String, (u64, Option<OrderId>)>,
    unread: BTreeMap<OrderId, u64>,
    reading: VecDeque<OrderId>,
    generation: u64,
    /// Sessions whose caller, or whose worker, went away: what is under way of them nobody can know.
    doubtful: BTreeSet<String>,
    in_band: bool,
    callers_leave: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let sessions = (0..SESSIONS).map(|n| (format!("s{n}"), (0, None)));
        // What a worker that was killed had sent.
        let former = (0..SESSIONS).map(|n| (format!("s{n}"), random.u64(..CHUNKS)));
        let former: Vec<(String, u64)> = former.filter(|(_, sent)| *sent > 2).collect();
        Self {
            rig: Rig::new(),
            in_band: random.bool(),
            callers_leave: random.bool(),
            random,
            ends: BTreeMap::new(),
            persisted: former
                .iter()
                .map(|(session, sent)| (session.clone(), (0..*sent).collect()))
                .collect(),
            wanted: sessions.collect(),
            unread: BTreeMap::new(),
            reading: VecDeque::new(),
            generation: 1,
            doubtful: former.into_iter().map(|(session, _)| session).collect(),
        }
    }

    fn is_done(&self) -> bool {
        self.wanted.values().all(|(next, _)| *next == CHUNKS)
    }

    fn bytes(sequence: u64) -> u64 {
        [1, 65_532, 65_533, 200_000][usize::try_from(sequence % 4).unwrap()]
    }

    fn step(&mut self) {
        match self.random.u32(..100) {
            0..20 => self.call(),
            20..70 => self.serve(),
            70..90 => self.read(),
            90..92 => self.cut(),
            92..94 => self.generation += 1,
            94..95 if self.callers_leave => self.leave(),
            _ => {
                self.rig.now += Duration::from_millis(self.random.u64(..3000));
                self.rig.lane.tick(self.rig.now);
            }
        }
        self.perform();
    }

    fn pick<T>(random: &mut fastrand::Rng, list: impl IntoIterator<Item = T>) -> Option<T> {
        let mut list: Vec<T> = list.into_iter().collect();
        (!list.is_empty()).then(|| list.swap_remove(random.usize(..list.len())))
    }

    fn call(&mut self) {
        let idle = self.wanted.iter();
        let idle = idle.filter(|(_, (next, order))| order.is_none() && *next < CHUNKS);
        let idle = idle.map(|(session, (next, _))| (session.clone(), *next));
        let Some((session, next)) = Self::pick(&mut self.random, idle) else {
            return;
        };
        let mut order = order(&session, next..=next, Self::bytes(next));
        order.token = token(self.generation);
        let id = self.rig.deliver(order);
        self.unread.insert(id, Self::bytes(next));
        self.wanted.get_mut(&session).unwrap().1 = Some(id);
    }

    fn leave(&mut self) {
        let busy = self
            .wanted
            .iter()
            .filter_map(|(session, (_, id))| Some((session.clone(), (*id)?)));
        if let Some((session, id)) = Self::pick(&mut self.random, busy) {
            self.rig.lane.abandon(id, self.rig.now);
            self.wanted.get_mut(&session).unwrap().1 = None;
            self.doubtful.insert(session);
        }
    }

    fn cut(&mut self) {
        let open: Vec<u64> = self.ends.keys().copied().collect();
        if let Some(socket) = Self::pick(&mut self.random, open) {
            self.ends.remove(&socket);
            self.rig.end(socket, None);
        }
    }

    fn read(&mut self) {
        let Some(id) = self.reading.pop_front() else {
            return;
        };
        let left = self.unread.get_mut(&id).unwrap();
        let bytes = (*left).min(65_532);
        *left -= bytes;
        self.rig.block(id, usize::try_from(bytes).unwrap());
    }

    /// The server takes a frame off a socket, or an answer arrives.
    fn serve(&mut self) {
        let sockets: Vec<u64> = self.ends.keys().copied().collect();
        let Some(socket) = Self::pick(&mut self.random, sockets) else {
            return;
        };
        let end = self.ends.get_mut(&socket).unwrap();
        if self.random.bool() {
            if let Some(event) = end.answers.pop_front() {
                self.rig.event(socket, event);
            }
            return;
        }
        if let Some(frame) = end.frames.pop_front() {
            self.take(socket, frame);
        }
    }

    fn take(&mut self, socket: u64, frame: Frame) {
        let in_band = self.in_band;
        match frame {
            Frame::Ping => self.answer(socket, Event::Alive),
            Frame::Reauth(_) => {
                let message = json!({"type": "reauthed", "accepted": in_band});
                self.answer(socket, Event::Text(message.to_string()));
            }
            Frame::Payload(block) => {
                let channel = u32::from_be_bytes(block[..FRAME_HEAD].try_into().unwrap());
                let bytes = (block.len() - FRAME_HEAD) as u64;
                self.payload(socket, u64::from(channel), bytes);
            }
            Frame::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                let channel = message["channel"].as_u64().unwrap();
                match message["type"].as_str().unwrap() {
                    "open" => self.open(socket, channel, &message),
                    "chunk" => self.chunk(socket, channel, &message),
                    "close" => {
                        self.end(socket).channels.remove(&channel);
                    }
                    kind => panic!("{kind}"),
                }
            }
        }
    }

    fn end(&mut self, socket: u64) -> &mut End {
        self.ends.get_mut(&socket).unwrap()
    }

    fn answer(&mut self, socket: u64, event: Event) {
        self.end(socket).answers.push_back(event);
    }

    fn open(&mut self, socket: u64, channel: u64, message: &Value) {
        let session = message["session"].as_str().unwrap().to_owned();
        let persisted = self.persisted.get(&session).cloned().unwrap_or_default();
        let first = message["first"].as_u64().unwrap();
        let digests = persisted
            .iter()
            .filter(|sequence| **sequence == first)
            .map(|sequence| {
                let digest = meta(&session, *sequence, Self::bytes(*sequence)).digest;
                json!({"sequence": sequence, "digest": digest.to_string()})
            });
        let message = json!({"type": "opened", "channel": channel, "session": session,
            "digests": digests.collect::<Vec<_>>(),
            "persisted": persisted.iter().map(|n| json!({"first": n, "last": n})).collect::<Vec<_>>()});
        self.end(socket).channels.insert(channel, (session, None));
        self.answer(socket, Event::Text(message.to_string()));
    }

    fn chunk(&mut self, socket: u64, channel: u64, message: &Value) {
        let sequence = message["sequence"].as_u64().unwrap();
        let bytes = message["parts"][0]["bytes"].as_u64().unwrap();
        let session = message["session"].as_str().unwrap().to_owned();
        let known = self
            .persisted
            .get(&session)
            .is_some_and(|p| p.contains(&sequence));
        assert!(
            !known || self.doubtful.contains(&session),
            "{session}/{sequence} was sent again"
        );
        if known {
            // At once, and its payload is passed over.
            let ended = self.end(socket).channels.remove(&channel);
            ended.expect("it is open");
            let parts = json!([{"sequence": sequence, "status": "duplicate"}]);
            let message =
                json!({"type": "ack", "channel": channel, "session": session, "parts": parts});
            return self.answer(socket, Event::Text(message.to_string()));
        }
        let (_, chunk) = self
            .end(socket)
            .channels
            .get_mut(&channel)
            .expect("it is open");
        assert_eq!(*chunk, None, "one chunk a channel");
        *chunk = Some((sequence, bytes));
    }

    fn payload(&mut self, socket: u64, channel: u64, bytes: u64) {
        let Some((session, chunk)) = self.end(socket).channels.get_mut(&channel) else {
            return;
        };
        let session = session.clone();
        let (sequence, left) = chunk.as_mut().expect("announced");
        *left = left.checked_sub(bytes).expect("no more than announced");
        if *left > 0 {
            return;
        }
        let sequence = *sequence;
        *chunk = None;
        let persisted = self.persisted.entry(session.clone()).or_default();
        assert!(persisted.insert(sequence) || self.doubtful.contains(&session));
        let complete = persisted.iter().copied().eq(0..=persisted.len() as u64 - 1);
        assert!(complete, "{session}: {persisted:?}");
        let message = json!({"type": "ack", "channel": channel, "session": session, "parts": []});
        self.answer(socket, Event::Text(message.to_string()));
    }

    fn perform(&mut self) {
        while let Some(action) = self.rig.lane.next_action() {
            match action {
                Action::Dial { socket, .. } => {
                    let end = End {
                        answers: [Event::Opened].into(),
                        ..End::default()
                    };
                    self.ends.insert(socket.0, end);
                }
                Action::Read(id) => self.reading.push_back(id),
                Action::Keep { .. } => unreachable!("no groups here"),
                Action::Send(socket, frame) => {
                    let end = self
                        .ends
                        .get_mut(&socket.0)
                        .expect("nothing for a socket that ended");
                    end.frames.push_back(frame);
                    end.answers.push_back(Event::Written);
                }
                Action::Hang(socket) => {
                    self.ends.remove(&socket.0);
                }
                Action::Settle {
                    id, order, outcome, ..
                } => self.settled(id, &order, &outcome),
            }
        }
    }

    fn settled(&mut self, id: OrderId, order: &Order, outcome: &Outcome) {
        let session = order.metas[0].key.session.as_str().to_owned();
        let (next, waiting) = self.wanted.get_mut(&session).unwrap();
        assert_eq!(*waiting, Some(id), "settled once, and to who waits for it");
        *waiting = None;
        if let Outcome::Said(said) = outcome {
            assert!(matches!(said.status, 200 | 208), "{said:?}");
            let persisted = &self.persisted[&session];
            assert!(
                persisted.contains(next),
                "{session}/{next} is not persisted"
            );
            *next += 1;
        }
    }
}

#[test]
fn whatever_happens_every_chunk_is_persisted_in_order_and_none_sent_again() {
    let given = std::env::var("REELAY_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    println!("REELAY_SEED={seed}");
    for history in 0..200 {
        let mut world = World::new(seed.wrapping_add(history));
        let mut steps = 0;
        while !world.is_done() {
            world.step();
            steps += 1;
            assert!(steps < 200_000, "history {history} does not end");
        }
    }
}
