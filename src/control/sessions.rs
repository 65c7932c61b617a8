//! `worker sessions`: what is asked about sessions, and the answers; the same with and without an engine.

use serde::{Deserialize, Serialize};

use crate::model::{SessionId, SessionKey, TenantId, is_zero};
use crate::store::{Ending, Promotion, SessionFilter, SessionSummary};

use super::answer;
use super::refusal::{Code, Refusal};
use super::running::Holder;
use super::wire::{Reply, WhyReply};

/// An operation on sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    List {
        tenant: Option<TenantId>,
        owed: bool,
        limit: usize,
    },
    Show(SessionKey),
    End(SessionKey),
    Promote(SessionKey),
}

/// The sessions that were asked for, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    pub sessions: Vec<View>,
    /// How many more there are.
    pub left_out: u64,
}

/// One session; all numbers are chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub tenant: TenantId,
    pub session: SessionId,
    pub accepted: u64,
    pub delivered: u64,
    pub owed: u64,
    pub dead: u64,
    /// Gone with their segment, and not given again: `worker fsck` names them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    pub purged: u64,
    /// Sequences that never came, between those that did.
    pub missing: u64,
    /// One of its chunks is on the wire.
    pub sending: bool,
    pub promoted: bool,
    /// RFC 3339; `None`: more may come.
    pub ended_at: Option<String>,
    /// The last acceptance or settling.
    pub last_activity: String,
}

/// One session with its sequences and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    #[serde(flatten)]
    pub view: View,
    /// Closed intervals of sequences, lowest first; also `gaps` and `owed_sequences`.
    pub accepted_sequences: Vec<(u64, u64)>,
    pub owed_sequences: Vec<(u64, u64)>,
    pub gaps: Vec<(u64, u64)>,
    pub why: WhyReply,
}

/// What ending a session came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub tenant: TenantId,
    pub session: SessionId,
    pub ended_at: String,
    /// It was ended before.
    pub was: bool,
}

/// What promoting a session came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    pub tenant: TenantId,
    pub session: SessionId,
    /// `false`: it owes nothing, so there is nothing to put first.
    pub promoted: bool,
}

/// # Errors
/// An unknown tenant, an unknown session, or the store's.
pub fn answer(holder: &Holder, ask: Ask) -> Result<Reply, Refusal> {
    let tenant = match &ask {
        Ask::List { tenant, .. } => tenant.as_ref(),
        Ask::Show(key) | Ask::End(key) | Ask::Promote(key) => Some(&key.tenant),
    };
    if let Some(tenant) = tenant {
        answer::known(holder, tenant)?;
    }
    match ask {
        Ask::List {
            tenant,
            owed,
            limit,
        } => {
            let found = holder.store.sessions(&SessionFilter {
                tenant,
                session: None,
                owed,
                limit,
            });
            Ok(Reply::Sessions(List {
                sessions: found.sessions.iter().map(View::from).collect(),
                left_out: found.left_out,
            }))
        }
        Ask::Show(key) => show(holder, key).map(|detail| Reply::Session(Box::new(detail))),
        Ask::End(key) => {
            let now = holder.clock.wall();
            let (at, was) = match holder.store.end_session(&key, now)? {
                Ending::Ended => (now, false),
                Ending::EndedBefore(at) => (at, true),
                Ending::Unknown => return Err(unknown(&key)),
            };
            // Whoever verifies need not wait for its silence.
            holder.store.records().stir(&key.tenant);
            Ok(Reply::SessionEnded(Ended {
                tenant: key.tenant,
                session: key.session,
                ended_at: at.to_string(),
                was,
            }))
        }
        Ask::Promote(key) => {
            let promoted = match holder.store.promote(&key)? {
                Promotion::Promoted => true,
                Promotion::NothingOwed => false,
                Promotion::Unknown => return Err(unknown(&key)),
            };
            Ok(Reply::SessionPromoted(Promoted {
                tenant: key.tenant,
                session: key.session,
                promoted,
            }))
        }
    }
}

fn show(holder: &Holder, key: SessionKey) -> Result<Detail, Refusal> {
    let found = holder.store.sessions(&SessionFilter {
        tenant: Some(key.tenant.clone()),
        session: Some(key.session.clone()),
        owed: false,
        limit: 1,
    });
    let Some(summary) = found.sessions.into_iter().next() else {
        return Err(unknown(&key));
    };
    Ok(Detail {
        view: View::from(&summary),
        owed_sequences: holder.store.owed_of(&key)?,
        gaps: summary.gaps(),
        accepted_sequences: summary.accepted,
        why: answer::why(holder, key.tenant.clone(), Some(key), None)?,
    })
}

pub fn unknown(key: &SessionKey) -> Refusal {
    let SessionKey { tenant, session } = key;
    let message = format!(
        "no session {session} of tenant {tenant} is remembered here; see worker sessions list --tenant {tenant}"
    );
    Refusal::new(Code::NotFound, message)
}

impl From<&SessionSummary> for View {
    fn from(summary: &SessionSummary) -> Self {
        let gaps = summary.gaps().into_iter();
        Self {
            tenant: summary.key.tenant.clone(),
            session: summary.key.session.clone(),
            accepted: summary.chunks(),
            delivered: summary.delivered(),
            owed: summary.owed,
            dead: summary.dead,
            lost: summary.lost,
            purged: summary.purged,
            missing: gaps.map(|(first, last)| last - first + 1).sum(),
            sending: summary.leased,
            promoted: summary.promoted,
            ended_at: summary.ended_at.map(|at| at.to_string()),
            last_activity: summary.changed_at.to_string(),
        }
    }
}
