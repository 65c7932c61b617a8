//! `worker why` as text.

use std::fmt::Write;
use std::time::Duration;

use crate::control::accept::state_word;
use crate::control::wire::{Mismatch, SessionWhy, WhyReply};
use crate::control::words;
use crate::model::{FailureRecord, Timestamp};

use super::hold_line;

pub fn why(reply: &WhyReply, now: Timestamp) -> String {
    let mut text = String::new();
    let tenant = &reply.tenant;
    if reply.gate.holds.is_empty() {
        let _ = writeln!(text, "tenant {tenant}: its gate is open");
    }
    for hold in &reply.gate.holds {
        let _ = writeln!(
            text,
            "{}",
            hold_line(tenant.as_str(), hold, reply.running, now)
        );
        if let Some(since) = &hold.since {
            let _ = writeln!(text, "  since {}", words::moment_of(since, now));
        }
    }
    let _ = writeln!(
        text,
        "waiting: {} ({}); dead: {}",
        words::chunks(reply.backlog.chunks),
        words::bytes(reply.backlog.bytes),
        words::count(reply.dead.chunks)
    );
    if let Some(session) = &reply.session {
        let _ = writeln!(text, "{}", session_line(session));
    }
    match &reply.last_failure {
        Some(failure) => text.push_str(&failure_lines(failure, now)),
        None => text.push_str("last failure: none that is remembered\n"),
    }
    for mismatch in &reply.mismatches {
        text.push_str(&mismatch_line(mismatch));
    }
    let _ = writeln!(text, "next: {}", reply.next);
    if !reply.remedy.is_empty() {
        let _ = writeln!(text, "to do: {}", reply.remedy);
    }
    text
}

fn mismatch_line(mismatch: &Mismatch) -> String {
    let of = (mismatch.session.as_ref())
        .map_or(String::new(), |session| format!(" of session {session}"));
    let (recording, differences) = (&mismatch.recording, mismatch.differences.join("; "));
    format!("recording {recording}{of} is not as delivered: {differences}\n")
}

fn session_line(session: &SessionWhy) -> String {
    let name = &session.session;
    let Some(sequence) = session.sequence else {
        let dead = match session.dead {
            0 => String::new(),
            dead => format!("; dead: {}", words::count(dead)),
        };
        let lost = match session.lost {
            true => "; some chunks are lost with their segment",
            false => "",
        };
        return format!("session {name}: nothing waits{dead}{lost}");
    };
    let mut text = format!("session {name} sequence {sequence}: ");
    match (session.state, session.behind) {
        (Some(state), _) => text.push_str(state_word(state)),
        (None, Some(head)) => {
            let _ = write!(text, "behind sequence {head}, which goes first");
        }
        (None, None) => {
            let mut words: Vec<_> = session.may_be.iter().copied().map(state_word).collect();
            words.extend(session.lost.then_some("lost with its segment"));
            text.push_str(&words.join(" or "));
            if words.len() > 1 {
                text.push_str("; which, the store cannot tell since its index was made anew");
            }
        }
    }
    if session.failures > 0 {
        let _ = write!(
            text,
            ", {}",
            words::counted(session.failures.into(), "counted failure")
        );
    }
    if session.crashes > 0 {
        let _ = write!(
            text,
            ", {} while it was sent",
            words::counted(session.crashes.into(), "crash")
        );
    }
    if session.ready_in_s > 0 {
        let wait = words::span(Duration::from_secs(session.ready_in_s));
        let _ = write!(text, ", sent again in {wait}");
    }
    text
}

/// The failure with everything that a support ticket asks for.
pub(super) fn failure_lines(failure: &FailureRecord, now: Timestamp) -> String {
    let mut text = format!(
        "last failure: {} at {}",
        failure.class,
        words::moment(failure.at, now)
    );
    if let Some(status) = failure.status {
        let _ = write!(text, ", status {status}");
    }
    if let Some(code) = &failure.code {
        let _ = write!(text, ", code {code}");
    }
    if let Some(id) = &failure.correlation_id {
        let _ = write!(text, ", correlation id {id}");
    }
    let _ = write!(text, ", try {}", failure.attempt);
    text.push('\n');
    if !failure.message.is_empty() {
        let _ = writeln!(text, "  {}", failure.message);
    }
    if !failure.fields.is_empty() {
        let _ = writeln!(text, "  fields: {}", failure.fields.join(", "));
    }
    if let Some(next) = failure.next_try_at {
        let _ = writeln!(text, "  next try at {}", words::moment(next, now));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChunkState, Count, FailureClass, GateView};

    #[test]
    fn a_session_line_tells_what_a_chunk_may_be_and_which_letters_are_dead() {
        let mut session = SessionWhy {
            session: "s1".parse().unwrap(),
            sequence: Some(7),
            state: None,
            may_be: vec![ChunkState::Delivered, ChunkState::Purged],
            dead: 1,
            failures: 0,
            crashes: 0,
            ready_in_s: 0,
            gap_wait_s: 0,
            missing: None,
            behind: None,
            lost: false,
        };
        let line = session_line(&session);
        let doubt = "which, the store cannot tell since its index was made anew";
        let either = format!("session s1 sequence 7: delivered or purged; {doubt}");
        assert_eq!(line, either);
        session.lost = true;
        session.may_be.pop();
        let line = session_line(&session);
        let either = format!("session s1 sequence 7: delivered or lost with its segment; {doubt}");
        assert_eq!(line, either);
        session.may_be.clear();
        let line = session_line(&session);
        assert_eq!(line, "session s1 sequence 7: lost with its segment");
        session.sequence = None;
        let line = session_line(&session);
        let lost = "session s1: nothing waits; dead: 1; some chunks are lost with their segment";
        assert_eq!(line, lost);
        session.lost = false;
        assert_eq!(session_line(&session), "session s1: nothing waits; dead: 1");
    }

    #[test]
    fn why_names_the_last_failure_with_all_that_a_ticket_needs() {
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        let reply = WhyReply {
            tenant: "acme".parse().unwrap(),
            configured: true,
            running: true,
            gate: GateView::default(),
            token: None,
            backlog: Count {
                chunks: 2,
                bytes: 2048,
            },
            dead: Count::default(),
            session: Some(SessionWhy {
                session: "s1".parse().unwrap(),
                sequence: Some(7),
                state: Some(ChunkState::Live),
                may_be: Vec::new(),
                dead: 0,
                failures: 2,
                crashes: 0,
                ready_in_s: 48,
                gap_wait_s: 0,
                missing: None,
                behind: None,
                lost: false,
            }),
            last_failure: Some(FailureRecord {
                at: Timestamp::parse("2026-03-01T11:59:00Z").unwrap(),
                class: FailureClass::Transient,
                status: Some(503),
                code: Some("service.unavailable".into()),
                correlation_id: Some("c-1".into()),
                fields: Vec::new(),
                missing: None,
                message: "try later".into(),
                body: String::new(),
                token_generation: None,
                token_fingerprint: None,
                attempt: 3,
                next_try_at: Timestamp::parse("2026-03-01T12:00:48Z").ok(),
            }),
            mismatches: vec![Mismatch {
                recording: "r-1".parse().unwrap(),
                session: "s1".parse().ok(),
                differences: vec!["the platform has 1 chunks, this host delivered 2".into()],
            }],
            next: "it is sent again in 48 s".into(),
            remedy: String::new(),
        };
        let text = why(&reply, now);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "tenant acme: its gate is open",
                "waiting: 2 chunks (2 KiB); dead: 0",
                "session s1 sequence 7: waiting, 2 counted failures, sent again in 48 s",
                "last failure: transient at 11:59:00Z, status 503, code service.unavailable, correlation id c-1, try 3",
                "  try later",
                "  next try at 12:00:48Z",
                "recording r-1 of session s1 is not as delivered: the platform has 1 chunks, this host delivered 2",
                "next: it is sent again in 48 s",
            ]
        );
    }
}
