//! A lane's sockets and the orders on them, as pure data: deliveries, messages, blocks and the time go
//! in, frames and outcomes come out. Which order goes over which socket is decided here, and what an
//! ended socket means for what was on it; `hearing` reads the messages, `silence` the clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Patience;
use super::order::{Action, End, Order, OrderId, Orders, Outcome, Refusal};
use super::socket::{Socket, SocketId, Stage};
use super::wire::Said;
use crate::model::Token;
use crate::platform::body::PayloadFault;
use crate::platform::classify::Sent;

/// An order that finds no socket alive so often is given back.
const MOVES_MAX: u32 = 3;

#[derive(Debug)]
pub struct Lane {
    pub(super) patience: Patience,
    pub(super) orders: Orders,
    pub(super) pending: VecDeque<OrderId>,
    /// Oldest first.
    pub(super) sockets: Vec<Socket>,
    dialled: u64,
    /// Sockets that failed in a row.
    strikes: u32,
    /// No new socket before.
    pub(super) rest_until: Duration,
    /// One was wanted before that.
    pub(super) put_off: bool,
    throttled: Option<(Duration, Said)>,
    actions: VecDeque<Action>,
}

impl Lane {
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            orders: BTreeMap::new(),
            pending: VecDeque::new(),
            sockets: Vec::new(),
            dialled: 0,
            strikes: 0,
            rest_until: Duration::ZERO,
            put_off: false,
            throttled: None,
            actions: VecDeque::new(),
        }
    }

    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub fn deliver(&mut self, id: OrderId, order: Order, now: Duration) {
        self.orders.insert(id, order);
        self.pending.push_back(id);
        self.place_pending(now);
    }

    /// Nobody wants the order any more.
    pub fn abandon(&mut self, id: OrderId, now: Duration) {
        if self.orders.remove(&id).is_none() {
            return;
        }
        self.pending.retain(|waiting| *waiting != id);
        if let Some((at, channel)) = self.find(id) {
            self.sockets[at].abandon(channel, now);
        }
        self.place_pending(now);
    }

    pub fn block(&mut self, id: OrderId, block: Vec<u8>, now: Duration) {
        if let Some((at, channel)) = self.find(id) {
            self.sockets[at].supply(channel, block);
            self.flush(now);
        }
    }

    pub fn unreadable(&mut self, id: OrderId, fault: PayloadFault, now: Duration) {
        let Some((at, channel)) = self.find(id) else {
            return;
        };
        let sent = self.sockets[at]
            .upload(channel)
            .map_or(Sent::Nothing, |u| u.sent());
        self.sockets[at].abandon(channel, now);
        self.settle(id, sent, Outcome::Payload(fault));
        self.place_pending(now);
    }

    pub(super) fn find(&self, id: OrderId) -> Option<(usize, u32)> {
        let mut sockets = self.sockets.iter().enumerate();
        sockets.find_map(|(at, socket)| Some((at, socket.channel_of(id)?)))
    }

    pub(super) fn at(&self, id: SocketId) -> Option<usize> {
        self.sockets.iter().position(|socket| socket.id == id)
    }

    pub(super) fn settle(&mut self, id: OrderId, sent: Sent, outcome: Outcome) {
        if let Some(order) = self.orders.remove(&id) {
            self.act(Action::Settle {
                id,
                order,
                sent,
                outcome,
            });
        }
    }

    /// Finds every waiting order its socket, where that is possible now.
    pub(super) fn place_pending(&mut self, now: Duration) {
        self.put_off = false;
        for _ in 0..self.pending.len() {
            let Some(id) = self.pending.pop_front() else {
                break;
            };
            if !self.place(id, now) {
                self.pending.push_back(id);
            }
        }
        self.let_go();
        self.flush(now);
    }

    /// False: it has to wait.
    fn place(&mut self, id: OrderId, now: Duration) -> bool {
        if let Some((until, said)) = &self.throttled
            && now < *until
        {
            let said = said.clone().with_wait(*until - now);
            self.settle(id, Sent::Nothing, Outcome::Said(said));
            return true;
        }
        let order = &self.orders[&id];
        let session = order.session();
        // A session moves when nothing of it is unanswered on another socket.
        if self
            .sockets
            .iter()
            .any(|socket| socket.is_busy_with(&session))
        {
            return false;
        }
        let (token, bytes) = (order.token.clone(), order.bytes());
        let newest = self.sockets.iter().rposition(|s| s.stage != Stage::Leaving);
        let Some(at) = newest else {
            self.dial(token, now);
            return false;
        };
        let socket = &mut self.sockets[at];
        if socket.stage == Stage::Dialling || socket.is_quiet(&self.patience, now) {
            return false;
        }
        if token.generation > socket.generation {
            socket.ask_reauth(&token, now);
            return false;
        }
        socket.begin(id, &session, bytes, now);
        true
    }

    /// With the newest token of those that wait.
    fn dial(&mut self, token: Token, now: Duration) {
        if now < self.rest_until {
            self.put_off = true;
            return;
        }
        let waiting = self.pending.iter().map(|id| &self.orders[id].token);
        let token = waiting
            .chain([&token])
            .max_by_key(|token| token.generation)
            .expect("the chain has one")
            .clone();
        self.dialled += 1;
        let socket = SocketId(self.dialled);
        self.sockets
            .push(Socket::dialling(socket, token.generation, now));
        self.act(Action::Dial { socket, token });
    }

    /// Closes what leaves and owes nothing any more.
    fn let_go(&mut self) {
        let done = |socket: &Socket| socket.stage == Stage::Leaving && socket.is_idle();
        while let Some(at) = self.sockets.iter().position(done) {
            let socket = self.sockets.remove(at);
            self.act(Action::Hang(socket.id));
        }
    }

    pub(super) fn flush(&mut self, now: Duration) {
        for socket in &mut self.sockets {
            while let Some((frame, wanting)) = socket.next_frame(&self.orders, now) {
                self.actions.push_back(Action::Send(socket.id, frame));
                self.actions.extend(wanting.map(Action::Read));
            }
        }
    }

    /// Whole chunks may still be answered; everything else is refused for so long.
    pub(super) fn throttle(&mut self, said: Said, now: Duration) {
        let wait = said.wait().unwrap_or(Duration::from_secs(1));
        self.throttled = Some((now + wait, said.clone()));
        for at in 0..self.sockets.len() {
            let begun = self.sockets[at].uploads();
            let begun = begun.filter(|(_, upload)| upload.sent() != Sent::All);
            let begun: Vec<_> = begun
                .map(|(channel, u)| (channel, u.order, u.sent()))
                .collect();
            for (channel, order, sent) in begun {
                self.sockets[at].abandon(channel, now);
                self.settle(order, sent, Outcome::Said(said.clone()));
            }
        }
    }

    pub(super) fn acked(&mut self, at: usize, now: Duration) {
        self.strikes = 0;
        self.sockets[at].has_acked = true;
        self.sockets[at].answered_at = now;
    }

    /// The handshake gave no socket: that is the answer of all who waited for it, but not of those
    /// who came with a newer token than the one that was not accepted.
    pub(super) fn refused(&mut self, at: usize, refusal: &Refusal, now: Duration) {
        let socket = self.sockets.remove(at);
        let credentials = matches!(refusal, Refusal::Answer { status: 401, .. });
        for id in std::mem::take(&mut self.pending) {
            if credentials && self.orders[&id].token.generation > socket.generation {
                self.pending.push_back(id);
            } else {
                self.settle(id, Sent::Nothing, Outcome::Refused(refusal.clone()));
            }
        }
        self.place_pending(now);
    }

    /// A socket is gone. Of what was on it, and of what waited for it, everything of which nothing was
    /// sent looks for another one.
    pub(super) fn ended(&mut self, at: usize, end: &End, now: Duration) {
        let socket = self.sockets.remove(at);
        if !end.orderly || !socket.has_acked {
            self.strike(now);
        }
        let on_it = socket
            .uploads()
            .map(|(_, upload)| (upload.order, upload.sent()));
        let waiting = std::mem::take(&mut self.pending);
        let waiting = waiting.into_iter().map(|id| (id, Sent::Nothing));
        let affected: Vec<_> = on_it.chain(waiting).collect();
        for (id, sent) in affected {
            let order = self
                .orders
                .get_mut(&id)
                .expect("an order lives until it is settled");
            let newer = order.token.generation > socket.generation;
            match &end.said {
                Some(said) if !(newer && said.status == 401) => {
                    self.settle(id, sent, Outcome::Said(said.clone()));
                }
                _ if sent == Sent::Nothing && order.moves < MOVES_MAX => {
                    order.moves += 1;
                    self.pending.push_back(id);
                }
                _ => self.settle(id, sent, Outcome::Ended(end.message.clone())),
            }
        }
        if let Some(said) = &end.said
            && let Some(wait) = said.wait()
        {
            self.throttled = Some((now + wait, said.clone()));
        }
        self.place_pending(now);
    }

    /// The first failure is followed at once by another try, those after it ever later.
    fn strike(&mut self, now: Duration) {
        self.strikes = (self.strikes + 1).min(16);
        let rest = match self.strikes {
            1 => Duration::ZERO,
            more => self.patience.rest * 2_u32.pow(more - 2),
        };
        self.rest_until = now + rest.min(self.patience.rest_max);
    }

    /// It takes nothing new; its successor comes with the next order.
    pub(super) fn leave(&mut self, at: usize, now: Duration) {
        self.sockets[at].stage = Stage::Leaving;
        self.sockets[at].reauth = None;
        self.place_pending(now);
    }
}
