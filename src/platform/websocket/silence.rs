//! What the clock does to the lane: what is silent too long is not waited for.

use std::time::Duration;

use super::lane::{Action, End, Lane};
use super::socket::Silence;

impl Lane {
    /// When [`Lane::tick`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let silences = self.sockets.iter().flat_map(|s| s.silences(&self.patience));
        let rest = (!self.pending.is_empty() && self.sockets.is_empty()).then_some(self.rest_until);
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
