//! What is known of one socket: its channels, what waits to be written and in which turn, and when it
//! was last alive. Pure: times are spans since the lane's start.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::order::{OrderId, Orders, SessionName};
use super::wire::{self, FRAME_HEAD, Frame, Secret};
use crate::model::{Generation, Token};
use crate::platform::classify::Sent;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// Frames that its writer takes before it has written one.
pub(super) const ROOM: usize = 2;
/// A server allows so many channels.
const CHANNELS_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The handshake is under way.
    Dialling,
    Open,
    /// Takes nothing new, and is closed when it owes no answer.
    Leaving,
}

/// A chunk or group on its way.
#[derive(Debug)]
pub struct Upload {
    pub order: OrderId,
    pub step: Step,
    /// Payload not handed to the writer yet.
    pub left: u64,
    block: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Opening {
        since: Duration,
    },
    /// Its `chunk` message waits to be written.
    Announcing,
    Sending,
    Sent {
        since: Duration,
    },
}

impl Upload {
    pub fn sent(&self) -> Sent {
        match self.step {
            Step::Opening { .. } | Step::Announcing => Sent::Nothing,
            Step::Sending => Sent::Part,
            Step::Sent { .. } => Sent::All,
        }
    }
}

#[derive(Debug)]
struct Channel {
    session: SessionName,
    upload: Option<Upload>,
    /// Counts uses: the smallest was idle longest.
    used: u64,
}

/// A message that waits to be written; a channel's are left out when it has ended.
#[derive(Debug)]
enum Control {
    Open(u32),
    Chunk(u32),
    Close(u32),
    Reauth(Token),
    Ping,
}

#[derive(Debug)]
pub struct Socket {
    pub id: SocketId,
    pub generation: Generation,
    pub stage: Stage,
    /// Since its first `ack`.
    pub has_acked: bool,
    /// The generation that it was offered, and when.
    pub reauth: Option<(Generation, Duration)>,
    channels: BTreeMap<u32, Channel>,
    sessions: HashMap<SessionName, u32>,
    last_channel: u32,
    uses: u64,
    control: VecDeque<Control>,
    /// Channels with a block to send.
    turns: VecDeque<u32>,
    pub(super) room: usize,
    pub written_at: Duration,
    pub heard_at: Duration,
    pub pinged_at: Option<Duration>,
    pub answered_at: Duration,
    /// Since when no chunk is on it.
    pub(super) idle_since: Duration,
}

impl Socket {
    pub fn dialling(id: SocketId, generation: Generation, now: Duration) -> Self {
        Self {
            id,
            generation,
            stage: Stage::Dialling,
            has_acked: false,
            reauth: None,
            channels: BTreeMap::new(),
            sessions: HashMap::new(),
            last_channel: 0,
            uses: 0,
            control: VecDeque::new(),
            turns: VecDeque::new(),
            room: ROOM,
            written_at: now,
            heard_at: now,
            pinged_at: None,
            answered_at: now,
            idle_since: now,
        }
    }

    pub fn opened(&mut self, now: Duration) {
        self.stage = Stage::Open;
        self.heard_at = now;
        self.idle_since = now;
    }

    pub fn is_idle(&self) -> bool {
        self.uploads().next().is_none()
    }

    pub fn uploads(&self) -> impl Iterator<Item = (u32, &Upload)> {
        let channels = self.channels.iter();
        channels.filter_map(|(number, channel)| Some((*number, channel.upload.as_ref()?)))
    }

    pub fn upload(&mut self, channel: u32) -> Option<&mut Upload> {
        self.channels.get_mut(&channel)?.upload.as_mut()
    }

    pub fn is_busy_with(&self, session: &SessionName) -> bool {
        let channel = self.sessions.get(session);
        channel.is_some_and(|channel| self.channels[channel].upload.is_some())
    }

    pub fn channel_of(&self, order: OrderId) -> Option<u32> {
        self.uploads()
            .find(|(_, upload)| upload.order == order)
            .map(|(channel, _)| channel)
    }

    /// Takes an order on.
    pub fn begin(&mut self, order: OrderId, session: &SessionName, bytes: u64, now: Duration) {
        self.uses += 1;
        let known = self.sessions.get(session).copied();
        let number = match known {
            Some(number) => number,
            None => self.add_channel(session),
        };
        let step = match known {
            Some(_) => Step::Announcing,
            None => Step::Opening { since: now },
        };
        self.control.push_back(match known {
            Some(_) => Control::Chunk(number),
            None => Control::Open(number),
        });
        let channel = self
            .channels
            .get_mut(&number)
            .expect("it was there or is new");
        channel.used = self.uses;
        channel.upload = Some(Upload {
            order,
            step,
            left: bytes,
            block: None,
        });
    }

    fn add_channel(&mut self, session: &SessionName) -> u32 {
        if self.channels.len() >= CHANNELS_MAX {
            let idle = self.channels.iter().filter(|(_, c)| c.upload.is_none());
            if let Some((&number, _)) = idle.min_by_key(|(_, channel)| channel.used) {
                self.close_channel(number);
            }
        }
        // A lane sends no 4,294,967,295 sessions over one socket: its token does not live so long.
        self.last_channel = self.last_channel.saturating_add(1);
        let channel = Channel {
            session: session.clone(),
            upload: None,
            used: self.uses,
        };
        self.channels.insert(self.last_channel, channel);
        self.sessions.insert(session.clone(), self.last_channel);
        self.last_channel
    }

    /// The channel's `opened` came: its chunk may go, as many bytes as are left to send.
    pub fn announce(&mut self, channel: u32, bytes: u64) {
        if let Some(upload) = self.upload(channel) {
            upload.step = Step::Announcing;
            upload.left = bytes;
            self.control.push_back(Control::Chunk(channel));
        }
    }

    /// A block of the channel's chunk was read.
    pub fn supply(&mut self, channel: u32, block: Vec<u8>) {
        if let Some(upload) = self.upload(channel) {
            upload.block = Some(block);
            self.turns.push_back(channel);
        }
    }

    /// Its chunk is answered; the channel stays open.
    pub fn free(&mut self, channel: u32, now: Duration) {
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.upload = None;
        }
        self.idle_since = now;
    }

    /// The server has ended the channel.
    pub fn drop_channel(&mut self, number: u32, now: Duration) {
        if let Some(channel) = self.channels.remove(&number) {
            self.sessions.remove(&channel.session);
        }
        self.idle_since = now;
    }

    /// We end the channel.
    pub fn abandon(&mut self, channel: u32, now: Duration) {
        self.idle_since = now;
        self.close_channel(channel);
    }

    fn close_channel(&mut self, number: u32) {
        if let Some(channel) = self.channels.remove(&number) {
            self.sessions.remove(&channel.session);
            self.control.push_back(Control::Close(number));
        }
    }

    pub fn ask_reauth(&mut self, token: &Token, now: Duration) {
        if self.reauth.is_none() {
            self.reauth = Some((token.generation, now));
            self.control.push_front(Control::Reauth(token.clone()));
        }
    }

    pub fn ping(&mut self, now: Duration) {
        if self.pinged_at.is_none() {
            self.pinged_at = Some(now);
            self.control.push_front(Control::Ping);
        }
    }

    /// Anything came from the server.
    pub fn alive(&mut self, now: Duration) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    pub fn written(&mut self, now: Duration) {
        self.room += 1;
        self.written_at = now;
    }

    /// The next frame to write, and the order whose next block is wanted now.
    pub fn next_frame(
        &mut self,
        orders: &Orders,
        now: Duration,
    ) -> Option<(Frame, Option<OrderId>)> {
        if self.room == 0 || self.stage == Stage::Dialling {
            return None;
        }
        let next = loop {
            match self.control.pop_front() {
                Some(control) => {
                    if let Some(next) = self.message(control, orders, now) {
                        break Some(next);
                    }
                }
                None => break self.payload(now),
            }
        };
        if next.is_some() {
            if self.room == ROOM {
                self.written_at = now;
            }
            self.room -= 1;
        }
        next
    }

    /// Nothing of a payload is read before its `chunk` message is on its way, so that an order of which
    /// nothing was sent can go over another socket.
    fn message(
        &mut self,
        control: Control,
        orders: &Orders,
        now: Duration,
    ) -> Option<(Frame, Option<OrderId>)> {
        let mut wanting = None;
        let text = match control {
            Control::Ping => return Some((Frame::Ping, None)),
            Control::Reauth(token) => return Some((Frame::Reauth(Secret(token)), None)),
            Control::Close(channel) => wire::close(channel),
            Control::Open(channel) => {
                let order = orders.get(&self.upload(channel)?.order)?;
                wire::open(channel, &order.metas)
            }
            Control::Chunk(channel) => {
                let upload = self.upload(channel)?;
                let order = orders.get(&upload.order)?;
                if upload.left == 0 {
                    upload.step = Step::Sent { since: now };
                } else {
                    upload.step = Step::Sending;
                    wanting = Some(upload.order);
                }
                wire::chunk(channel, &order.metas, &order.gaps, order.late)
            }
        };
        Some((Frame::Text(text), wanting))
    }

    fn payload(&mut self, now: Duration) -> Option<(Frame, Option<OrderId>)> {
        loop {
            let channel = self.turns.pop_front()?;
            let Some(upload) = self.upload(channel) else {
                continue;
            };
            let Some(mut block) = upload.block.take() else {
                continue;
            };
            block[..FRAME_HEAD].copy_from_slice(&channel.to_be_bytes());
            upload.left = upload
                .left
                .saturating_sub((block.len() - FRAME_HEAD) as u64);
            let more = upload.left > 0;
            if !more {
                upload.step = Step::Sent { since: now };
            }
            return Some((Frame::Payload(block), more.then_some(upload.order)));
        }
    }
}
