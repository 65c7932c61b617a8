//! What a lane's requests have shown of its route: deliveries by session, failures and throttles in a row.
//! Requests are numbered as they are sent, so that "sent before" needs no clock.

use crate::model::SessionId;

#[derive(Debug, Default)]
pub struct Evidence {
    /// The session delivered from by the youngest request, and the youngest of any other session. Two are
    /// enough to answer "did another session deliver since" for every session.
    newest: Option<(SessionId, u64)>,
    other: Option<(SessionId, u64)>,
    failing: u32,
    failing_first: Option<SessionId>,
    failing_several: bool,
    throttles: u32,
    throttled_after: u64,
    /// A chunk was condemned without evidence since the last delivery.
    pub condemned_one: bool,
}

impl Evidence {
    pub fn delivered(&mut self, session: &SessionId, number: u64) {
        self.failing = 0;
        self.failing_first = None;
        self.failing_several = false;
        self.condemned_one = false;
        if number > self.throttled_after {
            self.throttles = 0;
        }
        match &mut self.newest {
            Some((newest, of)) if newest == session => *of = number.max(*of),
            Some((_, of)) if *of > number => {
                if self.other.as_ref().is_none_or(|(_, of)| *of < number) {
                    self.other = Some((session.clone(), number));
                }
            }
            newest => {
                self.other = newest.replace((session.clone(), number));
            }
        }
    }

    /// The youngest delivered request of the route; 0 if there is none.
    pub fn delivered_youngest(&self) -> u64 {
        self.newest.as_ref().map_or(0, |(_, number)| *number)
    }

    /// The youngest delivered request of another session; 0 if there is none.
    pub fn delivered_by_others(&self, session: &SessionId) -> u64 {
        [&self.newest, &self.other]
            .into_iter()
            .flatten()
            .find(|(of, _)| of != session)
            .map_or(0, |(_, number)| *number)
    }

    pub fn failed(&mut self, session: &SessionId) {
        self.failing = self.failing.saturating_add(1);
        match &self.failing_first {
            None => self.failing_first = Some(session.clone()),
            Some(first) => self.failing_several |= first != session,
        }
    }

    /// Failures in a row, and whether more than one session had them.
    pub fn failing(&self) -> (u32, bool) {
        (self.failing, self.failing_several)
    }

    /// Counts throttles in a row; those of requests that were on the wire together are one.
    pub fn throttled(&mut self, number: u64, youngest: u64) -> u32 {
        if number > self.throttled_after {
            self.throttles = self.throttles.saturating_add(1);
        }
        self.throttled_after = youngest;
        self.throttles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str) -> SessionId {
        name.parse().unwrap()
    }

    #[test]
    fn a_sessions_own_deliveries_are_no_evidence_of_others() {
        let mut evidence = Evidence::default();
        evidence.delivered(&session("a"), 5);
        assert_eq!(evidence.delivered_by_others(&session("a")), 0);
        assert_eq!(evidence.delivered_by_others(&session("b")), 5);
        evidence.delivered(&session("b"), 3);
        assert_eq!(evidence.delivered_by_others(&session("a")), 3);
        evidence.delivered(&session("c"), 9);
        assert_eq!(evidence.delivered_by_others(&session("a")), 9);
        assert_eq!(evidence.delivered_by_others(&session("c")), 5);
        evidence.delivered(&session("c"), 8);
        assert_eq!(evidence.delivered_youngest(), 9);
    }

    #[test]
    fn failures_in_a_row_end_with_a_delivery() {
        let mut evidence = Evidence::default();
        evidence.failed(&session("a"));
        evidence.failed(&session("a"));
        assert_eq!(evidence.failing(), (2, false));
        evidence.failed(&session("b"));
        assert_eq!(evidence.failing(), (3, true));
        evidence.delivered(&session("c"), 1);
        assert_eq!(evidence.failing(), (0, false));
    }

    #[test]
    fn throttles_of_requests_on_the_wire_together_are_one() {
        let mut evidence = Evidence::default();
        let counts = [(1, 3), (2, 3), (3, 4), (5, 6)].map(|(n, y)| evidence.throttled(n, y));
        assert_eq!(counts, [1, 1, 1, 2]);
        evidence.delivered(&session("a"), 5);
        assert_eq!(evidence.throttled(7, 8), 3, "it was sent before");
        evidence.delivered(&session("a"), 9);
        assert_eq!(evidence.throttled(9, 9), 1);
    }
}
