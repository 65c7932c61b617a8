//! Reads what a token request is made of: urlencoded forms and HTTP Basic credentials (RFC 6749 section 2.3.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The pairs of an `application/x-www-form-urlencoded` text; `None` if it is not one.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// One form-encoded value; `None` if an escape is broken or the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(rest.next()?)? << 4 | hex_digit(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Client id and secret of an `Authorization: Basic` header; each part was form-encoded before they were joined.
pub(super) fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let joined = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = joined.split_once(':')?;
    Some((decode(id)?, decode(secret)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_escape_is_no_form() {
        for bad in ["a=%", "a=%2", "a=%zz", "a=%ff"] {
            assert_eq!(pairs(bad), None, "{bad}");
        }
        assert_eq!(
            pairs("scope=a+b%3Ac&x"),
            Some(vec![
                ("scope".to_owned(), "a b:c".to_owned()),
                ("x".to_owned(), String::new())
            ])
        );
    }

    #[test]
    fn basic_credentials_are_form_decoded_after_the_split() {
        let header = format!("Basic {}", STANDARD.encode("id%3A1:se+c%2Br%3At"));
        assert_eq!(
            basic(&header),
            Some(("id:1".to_owned(), "se c+r:t".to_owned()))
        );
        assert_eq!(basic("Bearer x"), None);
        assert_eq!(basic("Basic ***"), None);
    }
}
