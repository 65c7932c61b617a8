//! What the store keeps of a hold, as text: the reason, in a second line what to change, and in a third, as JSON,
//! what else an operator asks for. Read at the start of an engine, and by whoever looks at a store without one.

use serde::{Deserialize, Serialize};

use super::hold::Words;
use crate::model::{FailureRecord, HoldView, Route, Timestamp};
use crate::store::StoredHold;

/// The name of a slot's hold; a lane has one slot. It stands beside the names of [`super::hold::HoldId`].
pub const CREDENTIAL: &str = "credential:all";

/// A platform's message is a sentence; a stored one need not be longer.
const MESSAGE_KEPT: usize = 512;

/// The parts of a stored hold's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    pub words: Words,
    /// What the hold is shown as, where its name does not say so.
    pub kind: Option<String>,
    /// The last failure behind it.
    pub last: Option<FailureRecord>,
}

#[derive(Default, Serialize, Deserialize)]
struct More {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<FailureRecord>,
}

impl Text {
    pub fn write(&self) -> String {
        let one_line = |text: &str| text.replace('\n', " ");
        let words = &self.words;
        let mut text = format!("{}\n{}", one_line(&words.reason), one_line(&words.remedy));
        let more = More {
            kind: self.kind.clone(),
            last: self.last.as_ref().map(short),
        };
        if more.kind.is_some() || more.last.is_some() {
            text.push('\n');
            text.push_str(&serde_json::to_string(&more).expect("plain data is JSON"));
        }
        text
    }

    pub fn read(text: &str) -> Self {
        let mut lines = text.splitn(3, '\n');
        let mut line = || lines.next().unwrap_or_default();
        let words = Words::new(line(), line());
        // Another version may have written something else: the words are what matters.
        let more: More = serde_json::from_str(line()).unwrap_or_default();
        Self {
            words,
            kind: more.kind,
            last: more.last,
        }
    }
}

/// Without its body, and without the try that whoever reads this will not make.
fn short(record: &FailureRecord) -> FailureRecord {
    let mut record = record.clone();
    record.body.clear();
    record.next_try_at = None;
    record
        .message
        .truncate(record.message.floor_char_boundary(MESSAGE_KEPT));
    record
}

/// A stored hold as it is shown where no engine knows better.
pub fn view(hold: &StoredHold, now: Timestamp) -> HoldView {
    let name = hold.key.name.as_str();
    let (kind, route) = name.split_once(':').unwrap_or((name, ""));
    let route = match route {
        "deliver" => Some(Route::Deliver),
        "fetch" => Some(Route::Fetch),
        "store_host" => Some(Route::StoreHost),
        _ => None,
    };
    let text = Text::read(&hold.reason);
    HoldView {
        kind: text.kind.unwrap_or_else(|| kind.to_owned()),
        route,
        reason: text.words.line(),
        until: hold.left.map(|left| now.saturating_add(left).to_string()),
        since: Some(hold.set_at.to_string()),
        last: text.last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FailureClass;
    use crate::store::HoldKey;
    use std::time::Duration;

    pub fn record() -> FailureRecord {
        FailureRecord {
            at: Timestamp(7),
            class: FailureClass::Unauthorized,
            status: Some(401),
            code: Some("invalid_client".into()),
            correlation_id: Some("c-1".into()),
            fields: vec![],
            missing: None,
            message: "client not found".into(),
            body: "{}".into(),
            token_generation: None,
            token_fingerprint: None,
            attempt: 1,
            next_try_at: None,
        }
    }

    #[test]
    fn a_hold_reads_back_with_its_last_failure_but_for_the_body() {
        let text = Text {
            words: Words::new("not\naccepted", "Put the secret into a.secret"),
            kind: Some("blocked".into()),
            last: Some(record()),
        };
        let back = Text::read(&text.write());
        assert_eq!(back.words.reason, "not accepted");
        assert_eq!(back.words.remedy, "Put the secret into a.secret");
        assert_eq!(back.kind.as_deref(), Some("blocked"));
        let last = back.last.unwrap();
        assert_eq!(last.correlation_id.as_deref(), Some("c-1"));
        assert_eq!(last.body, "");
    }

    #[test]
    fn a_text_of_fewer_or_other_lines_still_gives_its_words() {
        for (text, line) in [
            ("why", "why"),
            ("why\n", "why"),
            ("why\ndo", "why. do"),
            ("why\ndo\nsomething of a later version", "why. do"),
        ] {
            let read = Text::read(text);
            assert_eq!(read.words.line(), line);
            assert_eq!((read.kind, read.last), (None, None));
        }
    }

    #[test]
    fn a_stored_hold_shows_its_route_its_end_and_what_a_slots_hold_is() {
        let stored = |name: &str, kind: Option<&str>| StoredHold {
            key: HoldKey {
                tenant: "acme".parse().unwrap(),
                name: name.into(),
            },
            set_at: Timestamp(0),
            reason: Text {
                words: Words::new("why", "do"),
                kind: kind.map(str::to_owned),
                last: None,
            }
            .write(),
            left: Some(Duration::from_secs(90)),
        };
        let throttled = view(&stored("throttled:deliver", None), Timestamp(0));
        assert_eq!(throttled.kind, "throttled");
        assert_eq!(throttled.route, Some(Route::Deliver));
        assert_eq!(throttled.reason, "why. do");
        assert_eq!(throttled.until.as_deref(), Some("1970-01-01T00:01:30.000Z"));
        let slot = view(&stored(CREDENTIAL, Some("blocked")), Timestamp(0));
        assert_eq!((slot.kind.as_str(), slot.route), ("blocked", None));
    }
}
