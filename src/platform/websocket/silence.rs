//! What the clock does to the lane: what is silent too long is not waited for.

use std::time::Duration;

use super::Patience;
use super::lane::Lane;
use super::order::{Action, End};
use super::socket::{ROOM, Socket, Stage, Step};

/// What it means that nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    PingDue,
    Dead,
    Stalled,
    Unopened,
    Unanswered,
    NoReauth,
    Idle,
}

impl Socket {
    /// Since when the server owes an answer to something that was sent whole.
    fn owed_since(&self) -> Option<Duration> {
        let sent = self.uploads().filter_map(|(_, upload)| match upload.step {
            Step::Sent { since } => Some(since.max(self.answered_at)),
            _ => None,
        });
        sent.min()
    }

    /// It owes an answer for long: it gets nothing more until one comes.
    pub fn is_quiet(&self, patience: &Patience, now: Duration) -> bool {
        self.owed_since()
            .is_some_and(|since| now >= since + patience.quiet)
    }

    /// What its silence will mean, and when.
    pub fn silences(&self, patience: &Patience) -> impl Iterator<Item = (Duration, Silence)> {
        let opening = self.uploads().filter_map(|(_, upload)| match upload.step {
            Step::Opening { since } => Some(since),
            _ => None,
        });
        let pong = match self.pinged_at {
            // What is being written shows life too: a ping waits its turn on a slow line.
            Some(at) => (at.max(self.written_at) + patience.pong, Silence::Dead),
            None => (self.heard_at + patience.ping, Silence::PingDue),
        };
        let is_open = self.stage != Stage::Dialling;
        let idle = is_open && self.is_idle();
        [
            is_open.then_some(pong),
            (self.room < ROOM).then_some((self.written_at + patience.stall, Silence::Stalled)),
            opening
                .min()
                .map(|at| (at + patience.open, Silence::Unopened)),
            self.owed_since()
                .map(|at| (at + patience.quiet + patience.verify, Silence::Unanswered)),
            self.reauth
                .map(|(_, at)| (at + patience.reauth, Silence::NoReauth)),
            idle.then_some((self.idle_since + patience.idle, Silence::Idle)),
        ]
        .into_iter()
        .flatten()
    }
}

impl Lane {
    /// When [`Lane::tick`] has something to do; possibly past, because whoever asks may be late.
    pub fn deadline(&self) -> Option<Duration> {
        let silences = self.sockets.iter().flat_map(|s| s.silences(&self.patience));
        let rest = self.put_off.then_some(self.rest_until);
        silences.map(|(at, _)| at).chain(rest).min()
    }

    pub fn tick(&mut self, now: Duration) {
        while let Some((at, silence)) = self.due(now) {
            let patience = &self.patience;
            let end = match silence {
                Silence::PingDue => {
                    self.sockets[at].ping(now);
                    continue;
                }
                Silence::NoReauth => {
                    self.leave(at, now);
                    continue;
                }
                Silence::Idle => {
                    let socket = self.sockets.remove(at);
                    self.act(Action::Hang(socket.id));
                    continue;
                }
                Silence::Dead => {
                    format!("nothing was heard for {:?}", patience.ping + patience.pong)
                }
                Silence::Stalled => format!("nothing was accepted for {:?}", patience.stall),
                Silence::Unopened => format!("no answer to open for {:?}", patience.open),
                Silence::Unanswered => {
                    let waited = patience.quiet + patience.verify;
                    format!("chunks were sent and none was answered for {waited:?}")
                }
            };
            self.hang(at, &End::broken(end), now);
        }
        self.place_pending(now);
    }

    fn due(&self, now: Duration) -> Option<(usize, Silence)> {
        let sockets = self.sockets.iter().enumerate();
        let mut all =
            sockets.flat_map(|(at, s)| s.silences(&self.patience).map(move |due| (at, due)));
        all.find(|(_, (deadline, _))| now >= *deadline)
            .map(|(at, (_, silence))| (at, silence))
    }
}
