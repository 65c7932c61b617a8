//! What an error body says, gathered from every dialect in the field: the platform's own
//! (`message`, `code`, `details`, nested `errors`), RFC 6749 and 6750 (`error`,
//! `error_description`, `scope`) and RFC 9457 (`title`, `detail`). A value of the wrong type is
//! skipped; it does not cost the rest.

use serde_json::{Map, Value};

/// Deeper nesting and more errors than this are not read.
const DEPTH: usize = 4;
const ERRORS: usize = 32;

/// An error body, outermost and first values first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorBody {
    pub codes: Vec<String>,
    pub messages: Vec<String>,
    /// `details[].fieldName`.
    pub fields: Vec<String>,
    pub context_id: Option<String>,
    /// `messageParams.permissions`.
    pub permissions: Option<String>,
    /// The scope that is asked for.
    pub scope: Option<String>,
    seen: usize,
}

impl ErrorBody {
    /// Empty unless `body` is a JSON object.
    pub fn read(body: &[u8]) -> Self {
        let mut found = Self::default();
        if let Ok(Value::Object(object)) = serde_json::from_slice(body) {
            found.gather(&object, DEPTH);
        }
        found
    }

    /// The errors of storage hosts: `<Error><Code>…</Code><Message>…</Message>`. Empty unless `body` is text.
    pub fn read_xml(body: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(body) else {
            return Self::default();
        };
        let element = |name: &str| {
            let (_, after) = text.split_once(&format!("<{name}>"))?;
            let (value, _) = after.split_once(&format!("</{name}>"))?;
            Some(value.to_owned())
        };
        Self {
            codes: element("Code").into_iter().collect(),
            messages: element("Message").into_iter().collect(),
            context_id: element("RequestId"),
            ..Self::default()
        }
    }

    /// Whether any code, without regard to case and punctuation, contains `word`.
    pub fn has_code(&self, word: &str) -> bool {
        self.codes.iter().any(|code| letters(code).contains(word))
    }

    /// Whether anything it says contains `word`, in lower case.
    pub fn mentions(&self, word: &str) -> bool {
        let mut said = self.codes.iter().chain(&self.messages).chain(&self.fields);
        said.any(|text| text.to_lowercase().contains(word))
    }

    fn gather(&mut self, object: &Map<String, Value>, depth: usize) {
        if depth == 0 || self.seen == ERRORS {
            return;
        }
        self.seen += 1;
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        self.codes.extend(text("code").or_else(|| text("error")));
        let messages = [
            "message",
            "error_description",
            "description",
            "detail",
            "title",
        ];
        self.messages.extend(messages.into_iter().filter_map(text));
        self.context_id = self.context_id.take().or_else(|| text("contextId"));
        self.scope = self.scope.take().or_else(|| text("scope"));
        let params = object
            .get("messageParams")
            .and_then(|p| p.get("permissions"));
        let permissions = params.and_then(Value::as_str).map(str::to_owned);
        self.permissions = self.permissions.take().or(permissions);
        for detail in list(object, "details") {
            let text = |key: &str| detail.get(key).and_then(Value::as_str).map(str::to_owned);
            self.codes.extend(text("errorCode"));
            self.fields.extend(text("fieldName"));
        }
        let nested = list(object, "errors").chain(object.get("error"));
        for error in nested.filter_map(Value::as_object) {
            self.gather(error, depth - 1);
        }
    }
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a Value> {
    let values = object.get(key).and_then(Value::as_array);
    values.into_iter().flatten().take(ERRORS)
}

/// `digest.mismatch`, `DIGEST_MISMATCH` and `DigestMismatch` are one code.
fn letters(code: &str) -> String {
    code.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_errors_are_gathered_outermost_first() {
        let body =
            br#"{"message":"Validation failed","code":"bad.request","status":422,"contextId":"c-1",
            "details":[{"errorCode":"invalid.value","fieldName":"startTime"}],
            "errors":[{"message":"purview does not match","code":"purview.mismatch",
                "details":[{"fieldName":"purview"}]}]}"#;
        let found = ErrorBody::read(body);
        assert_eq!(
            found.codes,
            ["bad.request", "invalid.value", "purview.mismatch"]
        );
        assert_eq!(
            found.messages,
            ["Validation failed", "purview does not match"]
        );
        assert_eq!(found.fields, ["startTime", "purview"]);
        assert_eq!(found.context_id.as_deref(), Some("c-1"));
    }

    #[test]
    fn values_of_the_wrong_type_do_not_cost_the_rest() {
        let body =
            br#"{"message":["x"],"code":403,"status":"403","details":{"a":1},"errors":"none",
            "error":{"code":17,"message":"inner","errors":[null,3]}}"#;
        let found = ErrorBody::read(body);
        assert_eq!(found.messages, ["inner"]);
        assert!(found.codes.is_empty());
    }

    #[test]
    fn an_endless_body_is_read_to_a_bound() {
        let deep = format!(
            "{}{}",
            r#"{"code":"a","errors":["#.repeat(40),
            "]}".repeat(40)
        );
        assert_eq!(ErrorBody::read(deep.as_bytes()).codes.len(), DEPTH);
        let wide = format!(
            r#"{{"errors":[{}]}}"#,
            vec![r#"{"code":"a"}"#; 500].join(",")
        );
        assert!(ErrorBody::read(wide.as_bytes()).codes.len() < ERRORS);
        for none in ["", "<html>", "[]", "\"x\"", "null"] {
            assert_eq!(ErrorBody::read(none.as_bytes()), ErrorBody::default());
        }
    }
}
