//! The other kind of token, tried for what is refused to the first: once for a recording that is refused for its purview,
//! each time where the platform wants a token that acts for a user.

use super::{Sent, as_session};
use crate::auth::{AfterRejection, Rejection, TokenSource};
use crate::engine::fetch::Shared;
use crate::engine::fetch::lane::Lane;
use crate::engine::fetch::pace::Begun;
use crate::engine::hold::Words;
use crate::model::{FailureClass, FailureRecord, SessionKey, Token};
use crate::platform::Failure;
use crate::platform::fetch::Fetched;
use crate::policy::retry::Credential;

/// Tells the slot of a 401, and brings its answer back.
pub fn reject(
    source: &dyn TokenSource,
    session: SessionKey,
    token: &Token,
    record: &FailureRecord,
    only_session: bool,
) -> Credential {
    let after = source.reject(Rejection {
        generation: token.generation,
        session,
        only_session,
        record: record.clone(),
    });
    match after {
        AfterRejection::Retry => Credential::Retry,
        AfterRejection::HoldSession => Credential::HoldSession,
        AfterRejection::Blocked => Credential::Blocked,
    }
}

/// What the other kind of token brought.
pub enum Other {
    Given(Fetched),
    /// It does not do either.
    Refused(Box<Failure>),
    /// The platform did not answer the question.
    Unanswered(Box<Failure>),
    /// There is none at present, and why where that is known.
    NotHad(Option<Words>),
}

pub async fn ask(lane: &Lane, shared: &Shared, sent: &Sent) -> Other {
    let Some(source) = &lane.about.fallback else {
        return Other::NotHad(None);
    };
    let token = tokio::select! {
        () = shared.stop.cancelled() => return Other::NotHad(None),
        token = source.token() => token,
    };
    let token = match token {
        Ok(token) => token,
        Err(hold) => return Other::NotHad(Some(Words::new(hold.reason, hold.remedy))),
    };
    // It cannot wait for its turn: a recording is under way. Another client has a budget of its own.
    let of_budget = source.client_id() == lane.about.token.client_id();
    let begun = of_budget.then(|| Begun::unasked(&shared.pace, lane.tenant(), shared.clock.now()));
    let Some(answer) = lane.ask(shared, &sent.job, token.clone()).await else {
        return Other::NotHad(None);
    };
    if let Some(begun) = begun {
        begun.heard(&answer.limits, shared.clock.now());
    }
    let session = as_session(lane, sent);
    match answer.fetched {
        given @ (Fetched::One(_) | Fetched::Page(_)) => {
            source.accepted(token.generation, &session);
            Other::Given(given)
        }
        Fetched::Failed(failure) => match failure.record.class {
            FailureClass::Unauthorized => {
                reject(source.as_ref(), session, &token, &failure.record, true);
                let (reason, remedy) = source.explain(&failure.record);
                Other::NotHad(Some(Words::new(reason, remedy)))
            }
            FailureClass::Throttled | FailureClass::Transient | FailureClass::InDoubt => {
                Other::Unanswered(failure)
            }
            _ => Other::Refused(failure),
        },
    }
}
