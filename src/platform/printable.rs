//! What may be kept of a stranger's text: printable characters, a bounded number of them, and
//! nothing that is part of the token that was sent.

use std::collections::HashSet;

/// No more of an answer than this is looked at for the operator's sake.
const SEEN: usize = 16 * 1024;

/// A run of the token this long gives it away; shorter runs occur by chance.
const TELLTALE: usize = 16;

/// Stands where a piece of the token stood.
const REDACTED: &[u8] = b"[redacted]";

/// At most `limit` bytes of `text`, on one line, without any part of `secret`.
pub fn keep(text: &str, secret: &str, limit: usize) -> String {
    let seen = cut(text, SEEN).replace("\\/", "/");
    let mut clean = String::with_capacity(seen.len());
    for c in seen.chars() {
        if c.is_whitespace() {
            if !clean.ends_with(' ') {
                clean.push(' ');
            }
        } else if is_printable(c) {
            clean.push(c);
        }
    }
    cut(&redact(clean.trim(), secret), limit).to_owned()
}

/// As [`keep`], of bytes that may be no text at all.
pub fn keep_bytes(bytes: &[u8], secret: &str, limit: usize) -> String {
    let seen = &bytes[..bytes.len().min(SEEN)];
    keep(&String::from_utf8_lossy(seen), secret, limit)
}

/// Control, invisible and direction-changing characters make a terminal lie.
fn is_printable(c: char) -> bool {
    let invisible = matches!(c,
        '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{10ffff}');
    !c.is_control() && !invisible
}

fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// A server may echo the token whole, shortened or wrapped, so every telltale run of it goes.
fn redact(text: &str, secret: &str) -> String {
    let run = secret.len().min(TELLTALE);
    if run == 0 || text.len() < run {
        return text.to_owned();
    }
    let telltales: HashSet<&[u8]> = secret.as_bytes().windows(run).collect();
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut hidden_to = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let hidden_before = hidden_to > at;
        let starts = bytes
            .get(at..at + run)
            .is_some_and(|w| telltales.contains(w));
        if starts {
            hidden_to = at + run;
        }
        if hidden_to > at {
            if !hidden_before && !out.ends_with(REDACTED) {
                out.extend_from_slice(REDACTED);
            }
        } else {
            out.push(*byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiI1YjFjOWUifQ.c2lnbmF0dXJl/c2VjcmV0";

    #[test]
    fn no_part_of_the_token_is_kept_however_it_is_echoed() {
        let echoes = [
            format!("token {TOKEN} is expired"),
            format!("token {}... is expired", &TOKEN[..20]),
            format!("{{\"token\":\"{}\"}}", TOKEN.replace('/', "\\/")),
            format!("{TOKEN}{TOKEN}"),
            format!("{} {TOKEN}", "x".repeat(1000)),
        ];
        for echo in echoes {
            let kept = keep(&echo, TOKEN, 1024);
            let leak = TOKEN
                .as_bytes()
                .windows(TELLTALE)
                .any(|run| kept.contains(std::str::from_utf8(run).unwrap()));
            assert!(!leak, "{kept}");
            assert!(kept.contains("[redacted]"), "{kept}");
        }
    }

    #[test]
    fn a_short_token_is_redacted_whole_and_an_empty_one_hides_nothing() {
        assert_eq!(
            keep("the token t0p is bad", "t0p", 100),
            "the token [redacted] is bad"
        );
        assert_eq!(keep("all of it", "", 100), "all of it");
    }

    #[test]
    fn what_would_fool_a_terminal_is_dropped() {
        let text = "a\u{1b}[31mb\r\n\tc\u{202e}d\0e\u{200b}f";
        assert_eq!(keep(text, "", 100), "a[31mb cdef");
        assert_eq!(
            keep_bytes(&[b'a', 0xff, 0xfe, b'b'], "", 100),
            "a\u{fffd}\u{fffd}b"
        );
    }

    #[test]
    fn the_limit_falls_between_characters() {
        assert_eq!(keep("aéé", "", 4), "aé");
        assert_eq!(keep(&"x".repeat(1 << 20), "", 1024).len(), 1024);
    }
}
