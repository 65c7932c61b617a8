//! A lane's task: owns its sockets, performs what the pure part asks for, and tells it what happened.
//! It waits for nothing but its own queues and the clock, so no caller and no socket can hold it up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Patience;
use super::blocks::Blocks;
use super::lane::Lane;
use super::order::{Action, Event, Order, OrderId};
use super::pump::{self, Line};
use super::socket::SocketId;
use super::verdict::{self, Circumstances};
use super::wire::Frame;
use crate::model::Token;
use crate::platform::body::PayloadFault;
use crate::platform::{Answer, Delivery};

/// A delivery and who waits for its answer.
pub struct Job {
    pub delivery: Delivery,
    pub answer: oneshot::Sender<Answer>,
}

/// Messages read and not yet acted on; each has at most a MiB.
const EVENTS: usize = 16;
/// The pure part never has more frames under way on a socket.
const FRAMES: usize = 8;

struct Waiting {
    /// Away while a block is read.
    blocks: Option<Blocks>,
    circumstances: Circumstances,
    answer: oneshot::Sender<Answer>,
}

struct Pump {
    frames: mpsc::Sender<Frame>,
    hung: CancellationToken,
}

type Visit = (OrderId, Blocks, Result<Vec<u8>, PayloadFault>);

pub struct Actor {
    client: reqwest::Client,
    url: Arc<str>,
    patience: Patience,
    started: Instant,
    lane: Lane,
    waiting: HashMap<OrderId, Waiting>,
    pumps: HashMap<SocketId, Pump>,
    sockets: JoinSet<(SocketId, Event)>,
    /// Which socket a task has, should it panic.
    tasks: HashMap<Id, SocketId>,
    visits: JoinSet<Visit>,
    told: mpsc::Sender<(SocketId, Event)>,
    events: mpsc::Receiver<(SocketId, Event)>,
}

impl Actor {
    pub fn new(client: reqwest::Client, url: String, patience: Patience) -> Self {
        let (told, events) = mpsc::channel(EVENTS);
        Self {
            client,
            url: url.into(),
            lane: Lane::new(patience.clone()),
            patience,
            started: Instant::now(),
            waiting: HashMap::new(),
            pumps: HashMap::new(),
            sockets: JoinSet::new(),
            tasks: HashMap::new(),
            visits: JoinSet::new(),
            told,
            events,
        }
    }

    /// Ends when nobody has a way to it any more.
    pub async fn run(
        mut self,
        mut jobs: mpsc::Receiver<(OrderId, Job)>,
        mut withdrawn: mpsc::UnboundedReceiver<OrderId>,
    ) {
        loop {
            while let Some(action) = self.lane.next_action() {
                self.perform(action);
            }
            let deadline = self.lane.deadline();
            let deadline = deadline.map(|at| self.started + at);
            tokio::select! {
                job = jobs.recv() => match job {
                    Some((id, job)) => self.take(id, job),
                    None => return,
                },
                Some(id) = withdrawn.recv() => {
                    self.waiting.remove(&id);
                    self.lane.abandon(id, self.now());
                }
                Some((socket, event)) = self.events.recv() => {
                    self.lane.event(socket, event, self.now());
                }
                Some(ended) = self.sockets.join_next_with_id() => self.socket_ended(ended),
                Some(visit) = self.visits.join_next() => self.visited(visit),
                () = until(deadline) => self.lane.tick(self.now()),
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take(&mut self, id: OrderId, job: Job) {
        if job.answer.is_closed() {
            return;
        }
        let circumstances = Circumstances::of(&job.delivery);
        let Delivery {
            token,
            parts,
            gaps,
            late,
            ..
        } = job.delivery;
        let order = Order {
            metas: parts.iter().map(|part| part.meta.clone()).collect(),
            gaps,
            late,
            token,
            moves: 0,
        };
        let waiting = Waiting {
            blocks: Some(Blocks::of(parts)),
            circumstances,
            answer: job.answer,
        };
        self.waiting.insert(id, waiting);
        self.lane.deliver(id, order, self.now());
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial { socket, token } => self.dial(socket, token),
            Action::Send(socket, frame) => {
                if let Some(pump) = self.pumps.get(&socket) {
                    // A pump that ended says so itself.
                    let _ = pump.frames.try_send(frame);
                }
            }
            Action::Hang(socket) => {
                if let Some(pump) = self.pumps.remove(&socket) {
                    pump.hung.cancel();
                }
            }
            Action::Read(id) => {
                let blocks = self.waiting.get_mut(&id).and_then(|w| w.blocks.take());
                if let Some(mut blocks) = blocks {
                    self.visits.spawn_blocking(move || {
                        let block = blocks.next();
                        (id, blocks, block)
                    });
                }
            }
            Action::Keep { order, first, last } => {
                let waiting = self.waiting.get_mut(&order);
                if let Some(blocks) = waiting.and_then(|waiting| waiting.blocks.as_mut()) {
                    blocks.keep(first, last);
                }
            }
            Action::Settle {
                id,
                order,
                sent,
                outcome,
            } => {
                if let Some(waiting) = self.waiting.remove(&id) {
                    let answer = verdict::of_order(&order, waiting.circumstances, sent, outcome);
                    // Who is gone wants no answer.
                    let _ = waiting.answer.send(answer);
                }
            }
        }
    }

    fn dial(&mut self, socket: SocketId, token: Token) {
        let (frames, writing) = mpsc::channel(FRAMES);
        let hung = CancellationToken::new();
        let line = Line {
            socket,
            frames: writing,
            events: self.told.clone(),
            hung: hung.clone(),
        };
        let (client, url) = (self.client.clone(), Arc::clone(&self.url));
        let timeouts = self.patience.request.clone();
        let task = self.sockets.spawn(async move {
            let dialled = tokio::select! {
                dialled = pump::dial(&client, &url, &token, &timeouts) => dialled,
                () = line.hung.cancelled() => return (socket, Event::Alive),
            };
            match dialled {
                Ok(ws) => {
                    // Before anything that it says.
                    let _ = line.events.send((socket, Event::Opened)).await;
                    (socket, pump::run(ws, line).await)
                }
                Err(refusal) => (socket, Event::Refused(refusal)),
            }
        });
        self.tasks.insert(task.id(), socket);
        self.pumps.insert(socket, Pump { frames, hung });
    }

    fn socket_ended(&mut self, ended: Result<(Id, (SocketId, Event)), JoinError>) {
        // What it told before stands before its end.
        while let Ok((socket, event)) = self.events.try_recv() {
            self.lane.event(socket, event, self.now());
        }
        let (task, event) = match ended {
            Ok((task, (_, event))) => (task, event),
            Err(error) => {
                let message = format!("the socket's task ended: {error}");
                (
                    error.id(),
                    Event::Ended {
                        closed: None,
                        message,
                    },
                )
            }
        };
        if let Some(socket) = self.tasks.remove(&task) {
            self.pumps.remove(&socket);
            self.lane.event(socket, event, self.now());
        }
    }

    fn visited(&mut self, visit: Result<Visit, JoinError>) {
        let (id, blocks, block) = visit.expect("reading a payload does not panic");
        let Some(waiting) = self.waiting.get_mut(&id) else {
            return;
        };
        waiting.blocks = Some(blocks);
        let now = self.now();
        match block {
            Ok(block) => self.lane.block(id, block, now),
            Err(fault) => self.lane.unreadable(id, fault, now),
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
