//! `WWW-Authenticate`: what a bearer challenge says is wrong (RFC 6750 section 3, RFC 9110 section
//! 11.6.1).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The parameters of the `Bearer` challenges that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Challenge {
    pub error: Option<String>,
    pub scope: Option<String>,
}

pub fn bearer(headers: &HeaderMap) -> Challenge {
    let mut found = Challenge::default();
    for value in headers.get_all(WWW_AUTHENTICATE) {
        if let Ok(text) = value.to_str() {
            read(text, &mut found);
        }
    }
    found
}

fn read(mut rest: &str, found: &mut Challenge) {
    let mut is_bearer = false;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return;
        }
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let Some(value) = after.trim_start().strip_prefix('=') else {
            // A word that has no value starts the next challenge.
            is_bearer = word.eq_ignore_ascii_case("bearer");
            rest = after;
            continue;
        };
        let (value, after) = take_value(value.trim_start());
        if is_bearer && word.eq_ignore_ascii_case("error") {
            found.error.get_or_insert(value);
        } else if is_bearer && word.eq_ignore_ascii_case("scope") {
            found.scope.get_or_insert(value);
        }
        rest = after;
    }
}

/// A token, or a quoted string with its escapes undone.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> (Option<String>, Option<String>) {
        let mut found = Challenge::default();
        read(value, &mut found);
        (found.error, found.scope)
    }

    #[test]
    fn the_bearer_challenge_is_found_among_others() {
        let some = |text: &str| Some(text.to_owned());
        for (value, expected) in [
            (
                r#"Bearer realm="api", error="insufficient_scope", scope="a:write b""#,
                (some("insufficient_scope"), some("a:write b")),
            ),
            (
                r#"Basic realm="x, error=y", bearer error=invalid_token"#,
                (some("invalid_token"), None),
            ),
            (
                r#"Bearer error = "a\"b" ,scope=c,Digest scope="d""#,
                (some("a\"b"), some("c")),
            ),
            (r#"Digest error="x", scope="y""#, (None, None)),
            ("Bearer", (None, None)),
            ("Bearer error=\"never closed", (some("never closed"), None)),
            ("===,,,\"", (None, None)),
            ("", (None, None)),
        ] {
            assert_eq!(of(value), expected, "{value}");
        }
    }
}
