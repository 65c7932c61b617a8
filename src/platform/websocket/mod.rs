//! The websocket transport: one socket a lane, many sessions on it. A lane's sockets belong to one
//! task (`actor`), which asks a pure part (`lane`) what to do; every judgement is `classify`'s.

mod actor;
mod blocks;
mod hearing;
mod lane;
mod order;
mod pump;
mod silence;
mod socket;
#[cfg(test)]
mod tests;
mod verdict;
mod wire;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::classify::{Sent, Trouble};
use super::client::Clients;
use super::exchange::chain;
use super::{Answer, Answering, Delivery, Platform, Target, Timeouts};
use crate::http::Reach;
use crate::model::TenantId;
use actor::{Actor, Job};
use order::{OrderId, Outcome, Refusal};

/// How long silence of each kind is borne.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// Connection, handshake, and no byte accepted.
    pub request: Timeouts,
    /// Without a frame accepted by the network.
    pub stall: Duration,
    /// Without hearing anything before a ping.
    pub ping: Duration,
    /// And after it.
    pub pong: Duration,
    /// For `opened`.
    pub open: Duration,
    /// For `reauthed`.
    pub reauth: Duration,
    /// Chunks sent whole and none answered: nothing more is begun.
    pub quiet: Duration,
    /// And then the socket is ended.
    pub verify: Duration,
    /// How long a socket without work is kept.
    pub idle: Duration,
    /// Between the second and the third of sockets that fail in a row; doubling.
    pub rest: Duration,
    pub rest_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            request: Timeouts::default(),
            stall: seconds(30),
            ping: seconds(15),
            pong: seconds(15),
            open: seconds(30),
            reauth: seconds(10),
            quiet: seconds(30),
            verify: seconds(60),
            idle: seconds(60),
            rest: seconds(1),
            rest_max: seconds(60),
        }
    }
}

/// Deliveries that wait for their lane's task to take them; a caller beyond that waits itself.
const MAILBOX: usize = 64;

/// The platform behind the socket at `{api_url}{path}`.
pub struct WebsocketPlatform {
    clients: Clients,
    patience: Patience,
    next_order: AtomicU64,
    lanes: Mutex<HashMap<Place, Desk>>,
}

/// Tenant, `api_url` and `path`.
type Place = (TenantId, String, String);

/// The way to a lane's task.
#[derive(Debug, Clone)]
struct Desk {
    jobs: mpsc::Sender<(OrderId, Job)>,
    /// Orders whose caller is gone. Unbounded, and never more than there are orders.
    withdrawn: mpsc::UnboundedSender<OrderId>,
}

/// Tells the lane that nobody waits any more.
struct Withdraw {
    id: OrderId,
    desk: Desk,
}

impl Drop for Withdraw {
    fn drop(&mut self) {
        // Settled orders are known to be; a lane that ended needs no telling.
        let _ = self.desk.withdrawn.send(self.id);
    }
}

impl WebsocketPlatform {
    pub fn new(patience: Patience, reach: Reach) -> Self {
        Self {
            clients: Clients::new(patience.request.connect, reach),
            patience,
            next_order: AtomicU64::new(0),
            lanes: Mutex::default(),
        }
    }

    async fn exchange(&self, delivery: Delivery) -> Answer {
        let client = self
            .clients
            .of(&delivery.target.tenant, &delivery.target.api_url);
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                let refusal = Refusal::Broken(Trouble::Connecting, chain(&error));
                return verdict::of(&delivery, Sent::Nothing, Outcome::Refused(refusal));
            }
        };
        let id = OrderId(self.next_order.fetch_add(1, Ordering::Relaxed));
        let desk = self.desk(&delivery.target, client);
        // Told after `answered` is gone, so that an order which was not taken yet is known to be unwanted.
        let withdraw = Withdraw { id, desk };
        let (answer, answered) = oneshot::channel();
        let posted = withdraw
            .desk
            .jobs
            .send((id, Job { delivery, answer }))
            .await;
        posted.expect("a lane's task lives as long as there is a way to it");
        answered.await.expect("every order is settled")
    }

    /// The lane's task; started when it is first wanted, and again should it have panicked.
    fn desk(&self, target: &Target, client: reqwest::Client) -> Desk {
        let place = (
            target.tenant.clone(),
            target.api_url.clone(),
            target.path.clone(),
        );
        let mut lanes = self.lanes.lock().expect("nothing panics while it is held");
        if let Some(desk) = lanes.get(&place)
            && !desk.jobs.is_closed()
        {
            return desk.clone();
        }
        let (jobs, new_jobs) = mpsc::channel(MAILBOX);
        let (withdrawn, withdrawals) = mpsc::unbounded_channel();
        let url = format!("{}{}", target.api_url, target.path);
        let actor = Actor::new(client, url, self.patience.clone());
        tokio::spawn(actor.run(new_jobs, withdrawals));
        let desk = Desk { jobs, withdrawn };
        lanes.insert(place, desk.clone());
        desk
    }
}

impl Platform for WebsocketPlatform {
    fn deliver(&self, delivery: Delivery) -> Answering<'_> {
        Box::pin(self.exchange(delivery))
    }
}

/// For the fuzzer: a message, or what a close frame says.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(text: &str) {
    drop(wire::read(text));
    for code in [1000, 3000, 4403, 4429] {
        drop(wire::closed(code, text));
    }
}
