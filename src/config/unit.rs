//! Durations and sizes as people write them: a number and a unit, never a bare number. Shared by the
//! configuration file and the command line, so that both refuse the same texts with the same words.

use std::time::Duration;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("has no unit; write it like {example:?}")]
    NoUnit { example: &'static str },
    #[error("is not a duration; write it like \"30s\", \"5min\", \"1h30min\" or \"7d\"")]
    Duration,
    #[error("is not a size; write it like \"512KiB\", \"64MiB\" or \"50GiB\"")]
    Size,
    #[error("is too large")]
    TooLarge,
}

/// Milliseconds in each unit of time.
const SPANS: [(&str, u64); 10] = [
    ("ms", 1),
    ("s", 1_000),
    ("sec", 1_000),
    ("m", 60_000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("day", 86_400_000),
    ("days", 86_400_000),
    ("w", 604_800_000),
];

/// Bytes in each unit of size: binary prefixes with an `i`, decimal ones without.
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads `30s`, `1h30min`, `500ms`.
///
/// # Errors
/// A bare number, an unknown unit, or a span beyond 64 bits of milliseconds.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let text = text.trim();
    if is_bare(text) {
        return Err(UnitError::NoUnit { example: "30s" });
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, after) = split_number(rest).ok_or(UnitError::Duration)?;
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let unit = factor(&SPANS, &after[..end]).ok_or(UnitError::Duration)?;
        let part = scaled(number, unit).ok_or(UnitError::TooLarge)?;
        total = total.checked_add(part).ok_or(UnitError::TooLarge)?;
        rest = after[end..].trim_start();
    }
    if text.is_empty() {
        return Err(UnitError::Duration);
    }
    Ok(Duration::from_millis(total))
}

/// Reads `512KiB`, `1.5GiB`, `50GB`.
///
/// # Errors
/// A bare number, an unknown unit, or more than 64 bits of bytes.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    if is_bare(text) {
        return Err(UnitError::NoUnit { example: "64MiB" });
    }
    let (number, after) = split_number(text).ok_or(UnitError::Size)?;
    let unit = factor(&SIZES, after).ok_or(UnitError::Size)?;
    scaled(number, unit).ok_or(UnitError::TooLarge)
}

fn is_bare(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || c == '.' || c == '_')
}

fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start()))
}

fn factor(units: &[(&str, u64)], name: &str) -> Option<u64> {
    units
        .iter()
        .find(|(unit, _)| *unit == name)
        .map(|(_, factor)| *factor)
}

/// `number × factor`, with at most three decimal places.
fn scaled(number: &str, factor: u64) -> Option<u64> {
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if decimals.len() > 3 || decimals.contains('.') {
        return None;
    }
    let thousandths: u64 = format!("{decimals:0<3}").parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    whole
        .checked_mul(factor)?
        .checked_add(thousandths.checked_mul(factor)? / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_number_is_refused_with_an_example() {
        assert_eq!(duration("30"), Err(UnitError::NoUnit { example: "30s" }));
        assert_eq!(size("1_000"), Err(UnitError::NoUnit { example: "64MiB" }));
        assert!(
            duration("30")
                .unwrap_err()
                .to_string()
                .contains("like \"30s\"")
        );
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for bad in [
            "",
            "s",
            "30 parsecs",
            "-5s",
            "1h30",
            "5 min ago",
            "1.2345s",
            "1..5s",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "GiB", "5 gigs", "-1GiB", "1GiBB", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn quantities_read_as_written() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("15min", 900_000),
            ("2m", 120_000),
            ("1h30min", 5_400_000),
            ("1h 30min", 5_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, bytes) in [
            ("1B", 1),
            ("50GiB", 50 << 30),
            ("2GB", 2_000_000_000),
            ("1.5MiB", 1_572_864),
            ("64 KiB", 65_536),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }
}
