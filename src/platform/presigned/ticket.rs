//! The answer to a request for an upload URL. The URL is as good as a password: it is never printed, kept or logged, and
//! neither are the headers that belong to it.

use std::fmt;

use reqwest::Url;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// Longer than any signed URL in the field.
const URL_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 4 * 1024;

/// What would change how the body is framed, or who is asked.
const NOT_THEIRS: [&str; 8] = [
    "connection",
    "expect",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Leave to upload one payload.
pub struct Ticket {
    pub url: Url,
    /// Sent as they are, and no others.
    pub headers: HeaderMap,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

impl Ticket {
    /// Reads the answer; `bytes` is the payload's length.
    ///
    /// # Errors
    /// What is wrong with it, without a word of it.
    pub fn read(body: &[u8], bytes: u64) -> Result<Self, &'static str> {
        let body: Value = serde_json::from_slice(body).map_err(|_| "is not JSON")?;
        let url = body["url"].as_str().ok_or("holds no url")?;
        let url = read_url(url)?;
        let mut headers = HeaderMap::new();
        match &body["headers"] {
            Value::Null => {}
            Value::Object(map) if map.len() <= HEADERS_MAX => {
                for (name, value) in map {
                    let (name, value) = read_header(name, value, bytes)?;
                    headers.append(name, value);
                }
            }
            _ => return Err("has headers that are no object of at most 32 members"),
        }
        Ok(Self { url, headers })
    }

    /// What an answer of the storage host may echo and nobody may read.
    pub fn secrets(&self) -> String {
        let mut secrets = self.url.query().unwrap_or_default().to_owned();
        secrets.push('\n');
        secrets.push_str(self.url.path());
        for value in self.headers.values() {
            secrets.push('\n');
            secrets.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        secrets
    }
}

fn read_url(text: &str) -> Result<Url, &'static str> {
    if text.len() > URL_MAX {
        return Err("has a url that is too long");
    }
    let url = Url::parse(text).map_err(|_| "has a url that is none")?;
    if url.scheme() != "https" && !(url.scheme() == "http" && crate::http::is_loopback(text)) {
        return Err("has a url without https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a url with a user name or password");
    }
    Ok(url)
}

fn read_header(
    name: &str,
    value: &Value,
    bytes: u64,
) -> Result<(HeaderName, HeaderValue), &'static str> {
    let text = value.as_str().ok_or("has a header that is no text")?;
    if text.len() > HEADER_BYTES_MAX {
        return Err("has a header that is too long");
    }
    let name = HeaderName::try_from(name).map_err(|_| "has a header that HTTP does not allow")?;
    let mut value =
        HeaderValue::from_str(text).map_err(|_| "has a header that HTTP does not allow")?;
    if NOT_THEIRS.contains(&name.as_str()) {
        return Err("has a header that is not the platform's to set");
    }
    if name == CONTENT_LENGTH && text.trim().parse() != Ok(bytes) {
        return Err("has another length than the payload");
    }
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Ticket, &'static str> {
        Ticket::read(body.as_bytes(), 10)
    }

    #[test]
    fn a_url_and_its_headers_are_taken_as_they_are() {
        let body = r#"{"url":"https://s.example/b/k?X-Amz-Signature=canary","uploadKey":"k",
            "headers":{"Content-MD5":"x==","content-type":"video/mp4","content-length":"10"}}"#;
        let ticket = read(body).unwrap();
        assert_eq!(ticket.url.query(), Some("X-Amz-Signature=canary"));
        assert_eq!(ticket.headers.len(), 3);
        assert_eq!(ticket.headers["content-md5"], "x==");
        assert!(read(r#"{"url":"http://127.0.0.1:9/x"}"#).is_ok());
    }

    #[test]
    fn what_could_lead_astray_is_refused_without_a_word_of_it() {
        let with = |headers: &str| format!(r#"{{"url":"https://s.example/","headers":{headers}}}"#);
        let many: Vec<String> = (0..40).map(|n| format!(r#""a{n}":"canary""#)).collect();
        for body in [
            "<html>canary</html>".to_owned(),
            r#"["canary"]"#.to_owned(),
            r#"{"url":"http://s.example/?canary"}"#.to_owned(),
            r#"{"url":"ftp://s.example/?canary"}"#.to_owned(),
            r#"{"url":"https://canary@s.example/"}"#.to_owned(),
            r#"{"url":"/canary"}"#.to_owned(),
            format!(r#"{{"url":"https://s.example/{}"}}"#, "canary".repeat(2000)),
            with(r#""canary""#),
            with(r#"{"x":17}"#),
            with(r#"{"x":"canary\r\nHost: other"}"#),
            with(r#"{"x y":"canary"}"#),
            with(r#"{"Transfer-Encoding":"canary"}"#),
            with(r#"{"host":"canary.example"}"#),
            with(r#"{"content-length":"11"}"#),
            with(&format!("{{{}}}", many.join(","))),
            with(&format!(r#"{{"x":"{}"}}"#, "canary".repeat(1000))),
        ] {
            let why = read(&body).map(|_| ()).unwrap_err();
            assert!(!why.contains("canary"), "{why}");
        }
    }

    #[test]
    fn a_ticket_prints_nothing_of_itself() {
        let ticket = read(r#"{"url":"https://s.example/?canary","headers":{"x":"canary"}}"#);
        assert!(!format!("{ticket:?}").contains("canary"));
    }
}
