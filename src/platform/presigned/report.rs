//! The upload report: which of many uploads the platform has taken in.

use std::collections::HashMap;

use serde::Deserialize;

use crate::model::{FailureClass, FailureRecord};
use crate::platform::{Ingestion, Inquiry};

/// Beside the path that gives upload URLs.
pub const PATH: &str = "/api/v2/uploads/reports";

/// What is kept of a reason.
const REASON_KEPT: usize = 512;

#[derive(Deserialize)]
struct Report {
    uploads: Vec<Upload>,
}

#[derive(Deserialize)]
struct Upload {
    key: String,
    status: String,
    reason: Option<String>,
}

/// What the body says of each key that was asked for, in their order. `None`: it is no report. A key that it does not name, and a
/// word that nobody knows, say nothing yet.
pub fn read(body: &[u8], inquiry: &Inquiry) -> Option<Vec<Ingestion>> {
    let report: Report = serde_json::from_slice(body).ok()?;
    let told: HashMap<&str, &Upload> = report
        .uploads
        .iter()
        .map(|upload| (upload.key.as_str(), upload))
        .collect();
    let of = |key: &String| match told.get(key.as_str()) {
        Some(upload) if upload.status == "Success" => Ingestion::Done,
        Some(upload) if upload.status == "Failure" => {
            Ingestion::Refused(Box::new(refusal(upload, inquiry)))
        }
        _ => Ingestion::Pending,
    };
    Some(inquiry.keys.iter().map(of).collect())
}

fn refusal(upload: &Upload, inquiry: &Inquiry) -> FailureRecord {
    let reason = upload.reason.as_deref().unwrap_or("no reason given");
    let reason = crate::platform::printable::keep(reason, inquiry.token.expose(), REASON_KEPT);
    FailureRecord {
        at: inquiry.at,
        class: FailureClass::Transient,
        status: None,
        code: Some("upload.failure".to_owned()),
        correlation_id: None,
        fields: Vec::new(),
        missing: None,
        message: format!("stored, and not taken in: {reason}"),
        body: String::new(),
        token_generation: Some(inquiry.token.generation.0),
        token_fingerprint: Some(inquiry.token.fingerprint()),
        attempt: 1,
        next_try_at: Some(inquiry.at),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Generation, Timestamp, Token};
    use crate::platform::{ReceiptPolicy, Target};

    #[test]
    fn only_what_is_named_with_a_known_word_is_settled() {
        let inquiry = Inquiry {
            target: Arc::new(Target {
                tenant: "acme".parse().unwrap(),
                api_url: String::new(),
                path: String::new(),
                receipt: ReceiptPolicy::Body,
            }),
            token: Token::new("canary-token-0123456789".into(), Generation(1)),
            keys: ["a", "b", "c", "d", "e"].map(str::to_owned).into(),
            at: Timestamp(0),
        };
        let body =
            br#"{"uploads":[{"key":"b","status":"Failure","reason":"bad canary-token-0123456789"},
            {"key":"a","status":"Success"},{"key":"c","status":"WaitForConversation"},
            {"key":"d","status":"success"},{"key":"x","status":"Success"}]}"#;
        let told = read(body, &inquiry).unwrap();
        assert_eq!(told[0], Ingestion::Done);
        let Ingestion::Refused(record) = &told[1] else {
            panic!("{told:?}");
        };
        assert_eq!(record.message, "stored, and not taken in: bad [redacted]");
        assert!(told[2..].iter().all(|told| *told == Ingestion::Pending));
        for other in [
            "",
            "<html>",
            "{}",
            r#"{"uploads":{}}"#,
            r#"{"uploads":[{}]}"#,
        ] {
            assert_eq!(read(other.as_bytes(), &inquiry), None, "{other}");
        }
    }
}
