//! Answers as plain data: what the emulator decided, before it is put on a socket. The bodies are the real platform's:
//! RFC 6749 on the token endpoint, `ErrorBody` with a `contextId` everywhere else.

use serde_json::{Value, json};

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Json(Value),
    Text { media_type: String, text: String },
    Bytes(Vec<u8>),
}

impl Reply {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Content::Json(body),
        }
    }

    pub(super) fn text(status: u16, media_type: &str, text: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Content::Text {
                media_type: media_type.to_owned(),
                text: text.to_owned(),
            },
        }
    }

    /// The platform's `ErrorBody`. `contextId` is filled in when the answer gets its correlation id.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(
            status,
            json!({
                "message": message,
                "code": code,
                "status": status,
                "messageParams": {},
                "contextId": null,
                "details": [],
                "errors": [],
            }),
        )
    }

    /// An `ErrorBody` that blames one member of the request.
    pub(super) fn field(status: u16, code: &str, field: &str, message: &str) -> Self {
        let mut reply = Self::error(status, code, message);
        if let Content::Json(body) = &mut reply.content {
            body["details"] = json!([{"errorCode": code, "fieldName": field}]);
        }
        reply
    }

    /// A refusal of the token endpoint (RFC 6749 section 5.2), with the platform's second spelling of the description.
    pub(super) fn oauth(status: u16, error: &str, description: &str) -> Self {
        Self::json(
            status,
            json!({"error": error, "description": description, "error_description": description}),
        )
        .with("Cache-Control", "no-store")
    }

    #[must_use]
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// What an error says to a person.
    pub(super) fn message(&self) -> String {
        let Content::Json(body) = &self.content else {
            return format!("status {}", self.status);
        };
        body["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether it is the token endpoint's way of throttling: a 400 that says so in words.
    pub(super) fn says_rate_limited(&self) -> bool {
        let Content::Json(body) = &self.content else {
            return false;
        };
        let says = |name: &str| {
            body.get(name)
                .and_then(Value::as_str)
                .is_some_and(|text| text.starts_with("rate limit exceeded;"))
        };
        self.status == 400 && (says("error_description") || says("description"))
    }

    /// Gives the answer its correlation id, in the header and in an error body.
    pub(super) fn correlate(&mut self, id: &str) {
        if self.header("ININ-Correlation-Id").is_none() {
            self.headers
                .push(("ININ-Correlation-Id".to_owned(), id.to_owned()));
        }
        if let Content::Json(Value::Object(body)) = &mut self.content
            && let Some(context) = body.get_mut("contextId")
        {
            *context = Value::from(id);
        }
    }

    /// The body as it is sent, and its media type.
    pub(super) fn rendered(&self) -> (Vec<u8>, &str) {
        match &self.content {
            Content::Json(body) => (body.to_string().into_bytes(), "application/json"),
            Content::Text { media_type, text } => (text.clone().into_bytes(), media_type),
            Content::Bytes(bytes) => (bytes.clone(), "application/octet-stream"),
        }
    }
}

/// What the platform says with a status when nothing more is known.
pub(super) fn standard(status: u16) -> Reply {
    let (code, message) = match status {
        400 => (
            "bad.request",
            "The request could not be understood by the server due to malformed syntax.",
        ),
        401 => ("bad.credentials", "Invalid login credentials."),
        403 => (
            "not.authorized",
            "You are not authorized to perform the requested action.",
        ),
        404 => ("not.found", "The requested resource was not found."),
        405 => (
            "method.not.allowed",
            "The method is not allowed on this resource.",
        ),
        408 => ("request.timeout", "The request timed out."),
        413 => ("request.too.large", "The request is over the size limit."),
        415 => ("unsupported.media.type", "The media type is not supported."),
        422 => (
            "invalid.value",
            "The request is well-formed and one of its values is not allowed.",
        ),
        429 => (
            "too.many.requests",
            "Rate limit exceeded the maximum. Retry the request in [1] seconds",
        ),
        500 => (
            "internal.server.error",
            "The server encountered an unexpected condition which prevented it from fulfilling the request.",
        ),
        502 => (
            "bad.gateway",
            "The upstream service gave an invalid response.",
        ),
        503 => (
            "service.unavailable",
            "Service Unavailable - The server is currently unavailable (because it is overloaded or down for maintenance).",
        ),
        504 => ("request.timeout", "The request timed out."),
        _ => ("unspecified", "No further explanation is available."),
    };
    Reply::error(status, code, message)
}
