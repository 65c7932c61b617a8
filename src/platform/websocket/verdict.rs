//! From what came of an order to the engine's answer.

use super::order::{Order, Outcome, Refusal};
use crate::model::{ChunkMeta, Route, Timestamp, Token};
use crate::platform::classify::{self, Asked, Ending, Heard, Sent, Trouble};
use crate::platform::exchange::chain;
use crate::platform::receipt::Expected;
use crate::platform::{Answer, Delivery, Limits, ReceiptPolicy, Verdict};

/// What a verdict has to know of a delivery beside its order.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    pub receipt: ReceiptPolicy,
    pub at: Timestamp,
    pub attempt: u32,
}

impl Circumstances {
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            receipt: delivery.target.receipt,
            at: delivery.at,
            attempt: delivery.attempt,
        }
    }
}

/// The answer to a delivery that became no order.
pub fn of(delivery: &Delivery, sent: Sent, outcome: Outcome) -> Answer {
    let metas: Vec<&ChunkMeta> = delivery.parts.iter().map(|part| &part.meta).collect();
    judge(
        &metas,
        &delivery.token,
        Circumstances::of(delivery),
        sent,
        outcome,
    )
}

pub fn of_order(
    order: &Order,
    circumstances: Circumstances,
    sent: Sent,
    outcome: Outcome,
) -> Answer {
    let metas: Vec<&ChunkMeta> = order.metas.iter().collect();
    judge(&metas, &order.token, circumstances, sent, outcome)
}

fn judge(
    metas: &[&ChunkMeta],
    token: &Token,
    circumstances: Circumstances,
    sent: Sent,
    outcome: Outcome,
) -> Answer {
    let expected = Expected {
        session: metas[0].key.session.clone(),
        parts: metas.iter().map(|m| (m.key.sequence, m.digest)).collect(),
    };
    let asked = Asked {
        route: Route::Deliver,
        receipt: circumstances.receipt,
        expected: &expected,
        sent,
        at: circumstances.at,
        attempt: circumstances.attempt,
        token,
        secret: token.expose(),
    };
    let broken = |trouble, message: &str| Answer {
        verdict: Verdict::Failed(classify::broken(&asked, trouble, message)),
        limits: Limits::default(),
        recording: None,
    };
    match outcome {
        Outcome::Said(said) => classify::answer(
            &asked,
            &Heard {
                status: said.status,
                headers: &said.headers,
                body: said.body.as_bytes(),
                ending: Ending::Whole,
            },
        ),
        Outcome::Refused(Refusal::Answer {
            status,
            headers,
            body,
            ending,
        }) => classify::answer(
            &asked,
            &Heard {
                status,
                headers: &headers,
                body: &body,
                ending,
            },
        ),
        Outcome::Refused(Refusal::Broken(trouble, message)) => broken(trouble, &message),
        Outcome::Ended(message) => broken(Trouble::SocketEnded, &message),
        Outcome::Payload(fault) => {
            let trouble = if fault.is_damage() {
                Trouble::DamagedPayload
            } else {
                Trouble::UnreadablePayload
            };
            broken(trouble, &chain(&fault))
        }
    }
}
