//! The words between the pure part and its shell: what is ordered, what happens, what is to be done, and
//! what came of it.

use std::collections::BTreeMap;

use reqwest::header::HeaderMap;

use super::socket::SocketId;
use super::wire::{Frame, Said};
use crate::model::{ChunkMeta, Gap, HostName, SessionId, Token};
use crate::platform::body::PayloadFault;
use crate::platform::classify::{Ending, Sent, Trouble};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u64);

pub type SessionName = (HostName, SessionId);
pub type Orders = BTreeMap<OrderId, Order>;

/// A delivery without its payload.
#[derive(Debug, Clone)]
pub struct Order {
    /// At least one; lowest sequence first.
    pub metas: Vec<ChunkMeta>,
    pub gaps: Vec<Gap>,
    pub late: bool,
    pub token: Token,
    /// Sockets that ended before anything of it was sent.
    pub moves: u32,
}

impl Order {
    pub fn session(&self) -> SessionName {
        let first = &self.metas[0];
        (first.host.clone(), first.key.session.clone())
    }

    pub fn bytes(&self) -> u64 {
        self.metas.iter().map(|meta| meta.bytes).sum()
    }
}

/// What came of an order.
#[derive(Debug)]
pub enum Outcome {
    /// Within a socket.
    Said(Said),
    Refused(Refusal),
    /// The socket ended.
    Ended(String),
    Payload(PayloadFault),
}

/// Why a handshake gave no socket.
#[derive(Debug, Clone)]
pub enum Refusal {
    Answer {
        status: u16,
        headers: HeaderMap,
        body: Vec<u8>,
        ending: Ending,
    },
    Broken(Trouble, String),
}

/// What happened to a socket.
#[derive(Debug)]
pub enum Event {
    Opened,
    Refused(Refusal),
    /// A frame was written.
    Written,
    Text(String),
    /// A ping, a pong.
    Alive,
    Ended {
        /// The close frame's code and reason.
        closed: Option<(u16, String)>,
        message: String,
    },
}

/// What the shell has to do.
#[derive(Debug)]
pub enum Action {
    Dial {
        socket: SocketId,
        token: Token,
    },
    /// Read the order's next block.
    Read(OrderId),
    /// Only these sequences of the order are wanted.
    Keep {
        order: OrderId,
        first: u64,
        last: u64,
    },
    Send(SocketId, Frame),
    /// Close the socket and forget it.
    Hang(SocketId),
    Settle {
        id: OrderId,
        order: Order,
        sent: Sent,
        outcome: Outcome,
    },
}

/// How a socket ended, as far as its orders are concerned.
pub struct End {
    pub message: String,
    pub said: Option<Said>,
    /// Nobody's fault: no reason to wait before the next one.
    pub orderly: bool,
}

impl End {
    pub fn broken(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            said: None,
            orderly: false,
        }
    }
}
