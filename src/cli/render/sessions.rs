//! Sessions as text.

use std::fmt::Write;

use crate::control::sessions::{Detail, Ended, List, Promoted, View};
use crate::control::words;
use crate::model::Timestamp;

use super::{table, why};

/// Intervals that one line shows; a session has hundreds at most.
const INTERVALS_SHOWN: usize = 16;

pub fn sessions(list: &List, now: Timestamp) -> String {
    if list.sessions.is_empty() {
        return match list.left_out {
            0 => "no sessions\n".to_owned(),
            more => format!("{}; raise --limit\n", words::counted(more, "more session")),
        };
    }
    let head = [
        "TENANT",
        "SESSION",
        "STATE",
        "LAST ACTIVITY",
        "ACCEPTED",
        "DELIVERED",
        "OWED",
        "DEAD",
        "GAPS",
    ];
    let mut table = table(&head, 4);
    for view in &list.sessions {
        table.add_row([
            view.tenant.to_string(),
            view.session.to_string(),
            state(view, now),
            words::moment_of(&view.last_activity, now),
            words::count(view.accepted),
            words::count(view.delivered),
            words::count(view.owed),
            words::count(view.dead + view.lost),
            words::count(view.missing),
        ]);
    }
    let mut text = table.trim_fmt();
    if list.left_out > 0 {
        let more = words::counted(list.left_out, "more session");
        let _ = write!(text, "\nand {more}: raise --limit, or name a --tenant");
    }
    text
}

/// `open`, `ended 14:30Z`; `, first` while it is promoted.
fn state(view: &View, now: Timestamp) -> String {
    let mut text = match &view.ended_at {
        None => "open".to_owned(),
        Some(at) => format!("ended {}", words::moment_of(at, now)),
    };
    if view.promoted {
        text.push_str(", first");
    }
    text
}

pub fn session(detail: &Detail, now: Timestamp) -> String {
    let view = &detail.view;
    let mut text = format!(
        "session {} of tenant {}: {}; last activity {}\n",
        view.session,
        view.tenant,
        state(view, now),
        words::moment_of(&view.last_activity, now)
    );
    let _ = writeln!(
        text,
        "accepted: {}: {}",
        words::chunks(view.accepted),
        intervals(&detail.accepted_sequences)
    );
    let lost = match view.lost {
        0 => String::new(),
        lost => format!("; lost with their segment: {}", words::count(lost)),
    };
    let _ = writeln!(
        text,
        "delivered: {}; dead: {}; purged: {}{lost}",
        words::count(view.delivered),
        words::count(view.dead),
        words::count(view.purged)
    );
    let owed = match detail.owed_sequences.as_slice() {
        [] => "nothing".to_owned(),
        owed => format!("{}: {}", words::chunks(view.owed), intervals(owed)),
    };
    let sending = if view.sending {
        "; one is being sent"
    } else {
        ""
    };
    let _ = writeln!(text, "owed: {owed}{sending}");
    let gaps = match detail.gaps.as_slice() {
        [] => "none".to_owned(),
        gaps => intervals(gaps),
    };
    let _ = writeln!(text, "gaps: {gaps}");
    text.push_str(&why(&detail.why, now));
    text
}

/// `0-4, 7, 9-12`.
fn intervals(intervals: &[(u64, u64)]) -> String {
    let one = |(first, last): &(u64, u64)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    let shown: Vec<_> = intervals.iter().take(INTERVALS_SHOWN).map(one).collect();
    let mut text = shown.join(", ");
    let more = intervals.len() - shown.len();
    if more > 0 {
        let _ = write!(text, " and {} (all with --json)", words::count(more as u64));
    }
    text
}

pub fn session_ended(ended: &Ended, now: Timestamp) -> String {
    let Ended {
        tenant, session, ..
    } = ended;
    let at = words::moment_of(&ended.ended_at, now);
    if ended.was {
        format!("session {session} of tenant {tenant} was ended at {at}")
    } else {
        format!("session {session} of tenant {tenant} is ended; what comes late is delivered")
    }
}

pub fn session_promoted(promoted: &Promoted) -> String {
    let Promoted {
        tenant, session, ..
    } = promoted;
    if promoted.promoted {
        format!("session {session} goes first in tenant {tenant}, until it owes nothing")
    } else {
        format!("session {session} of tenant {tenant} owes nothing: there is nothing to put first")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::WhyReply;
    use crate::model::{Count, GateView};

    fn now() -> Timestamp {
        Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
    }

    fn view(session: &str) -> View {
        View {
            tenant: "acme".parse().unwrap(),
            session: session.parse().unwrap(),
            accepted: 1204,
            delivered: 1190,
            owed: 12,
            dead: 1,
            lost: 0,
            purged: 1,
            missing: 3,
            sending: true,
            promoted: false,
            ended_at: None,
            last_activity: "2026-03-01T11:30:00Z".into(),
        }
    }

    #[test]
    fn sessions_are_listed_with_their_state_and_how_many_are_left_out() {
        let mut ended = view("s2");
        ended.ended_at = Some("2026-02-28T09:00:00Z".into());
        ended.promoted = true;
        let list = List {
            sessions: vec![view("s1"), ended],
            left_out: 40,
        };
        let text = sessions(&list, now());
        assert_eq!(
            text.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "TENANT  SESSION  STATE                           LAST ACTIVITY  ACCEPTED  DELIVERED  OWED  DEAD  GAPS",
                "acme    s1       open                            11:30Z            1,204      1,190    12     1     3",
                "acme    s2       ended 2026-02-28 09:00Z, first  11:30Z            1,204      1,190    12     1     3",
                "and 40 more sessions: raise --limit, or name a --tenant",
            ]
        );
    }

    #[test]
    fn no_session_is_said_in_words() {
        let none = |left_out| List {
            sessions: vec![],
            left_out,
        };
        assert_eq!(sessions(&none(0), now()), "no sessions\n");
        assert_eq!(
            sessions(&none(2), now()),
            "2 more sessions; raise --limit\n"
        );
    }

    #[test]
    fn a_session_is_shown_with_its_sequences_its_gaps_and_what_it_waits_for() {
        let detail = Detail {
            view: view("s1"),
            accepted_sequences: vec![(0, 4), (7, 7), (9, 1206)],
            owed_sequences: vec![(7, 7), (1196, 1206)],
            gaps: vec![(5, 6), (8, 8)],
            why: WhyReply {
                running: true,
                tenant: "acme".parse().unwrap(),
                configured: true,
                gate: GateView::default(),
                token: None,
                backlog: Count {
                    chunks: 12,
                    bytes: 2048,
                },
                dead: Count::default(),
                session: None,
                last_failure: None,
                mismatches: Vec::new(),
                next: "it is being sent".into(),
                remedy: String::new(),
            },
        };
        assert_eq!(
            session(&detail, now()).lines().collect::<Vec<_>>(),
            [
                "session s1 of tenant acme: open; last activity 11:30Z",
                "accepted: 1,204 chunks: 0-4, 7, 9-1206",
                "delivered: 1,190; dead: 1; purged: 1",
                "owed: 12 chunks: 7, 1196-1206; one is being sent",
                "gaps: 5-6, 8",
                "tenant acme: its gate is open",
                "waiting: 12 chunks (2 KiB); dead: 0",
                "last failure: none that is remembered",
                "next: it is being sent",
            ]
        );
    }

    #[test]
    fn many_intervals_are_cut_and_one_is_told_where_the_rest_is() {
        let many: Vec<_> = (0..20).map(|n| (n * 2, n * 2)).collect();
        let text = intervals(&many);
        assert!(text.ends_with("28, 30 and 4 (all with --json)"), "{text}");
    }

    #[test]
    fn ending_and_promoting_say_what_follows() {
        let ended = |was| Ended {
            tenant: "acme".parse().unwrap(),
            session: "s1".parse().unwrap(),
            ended_at: "2026-03-01T11:30:00Z".into(),
            was,
        };
        assert_eq!(
            session_ended(&ended(false), now()),
            "session s1 of tenant acme is ended; what comes late is delivered"
        );
        assert_eq!(
            session_ended(&ended(true), now()),
            "session s1 of tenant acme was ended at 11:30Z"
        );
        let promoted = |promoted| Promoted {
            tenant: "acme".parse().unwrap(),
            session: "s1".parse().unwrap(),
            promoted,
        };
        assert_eq!(
            session_promoted(&promoted(true)),
            "session s1 goes first in tenant acme, until it owes nothing"
        );
        assert_eq!(
            session_promoted(&promoted(false)),
            "session s1 of tenant acme owes nothing: there is nothing to put first"
        );
    }
}
