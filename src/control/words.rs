//! Quantities as people read them: `41 GiB`, `262,144`, `12 min`, `14:30Z`.

use std::time::Duration;

use crate::model::Timestamp;

const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];

/// `262,144`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 chunk`, `118 chunks`.
pub fn chunks(number: u64) -> String {
    counted(number, "chunk")
}

pub fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", count(number))
}

/// `512 bytes`, `1.5 MiB`, `41 GiB`.
pub fn bytes(number: u64) -> String {
    let unit = unit_of(number);
    if unit == 0 {
        return counted(number, "byte");
    }
    format!("{} {}", in_unit(number, unit, false), UNITS[unit])
}

/// `50.0 of 50.0 GiB`: both in the unit of the second.
pub fn bytes_of(part: u64, whole: u64) -> String {
    let unit = unit_of(whole);
    format!(
        "{} of {} {}",
        in_unit(part, unit, true),
        in_unit(whole, unit, true),
        UNITS[unit]
    )
}

fn unit_of(number: u64) -> usize {
    let mut unit = 0;
    while unit + 1 < UNITS.len() && number >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    unit
}

/// Tenths below ten (or where asked), whole numbers above.
fn in_unit(number: u64, unit: usize, tenths: bool) -> String {
    let scale = 1_u128 << (10 * unit);
    let in_tenths = (u128::from(number) * 10 + scale / 2) / scale;
    if tenths || (in_tenths < 100 && !in_tenths.is_multiple_of(10)) {
        format!("{}.{}", in_tenths / 10, in_tenths % 10)
    } else {
        let whole = (u128::from(number) + scale / 2) / scale;
        count(u64::try_from(whole).unwrap_or(u64::MAX))
    }
}

/// `48 s`, `12 min`, `3 h`, `2 d`: the two highest parts at most, and only where the second tells much.
pub fn span(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0 if !span.is_zero() => format!("{} ms", span.as_millis()),
        0..=119 => format!("{s} s"),
        120..=7_199 => format!("{} min", s / 60),
        7_200..=172_799 if !(s / 60).is_multiple_of(60) && s < 36_000 => {
            format!("{} h {} min", s / 3_600, s / 60 % 60)
        }
        7_200..=172_799 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

/// Within this span of now, seconds matter.
const NEAR: Duration = Duration::from_secs(120);

/// `14:30Z` today, `14:30:07Z` within two minutes, `2026-03-02 14:30Z` on another day.
pub fn moment(at: Timestamp, now: Timestamp) -> String {
    let near = at.since(now).max(now.since(at)) < NEAR;
    let (at, now) = (at.to_string(), now.to_string());
    if near && let Some(second) = at.get(11..19) {
        return format!("{second}Z");
    }
    let (Some(day), Some(minute)) = (at.get(..10), at.get(11..16)) else {
        return at;
    };
    if now.starts_with(day) {
        format!("{minute}Z")
    } else {
        format!("{day} {minute}Z")
    }
}

/// The same for a stored text; a text that is no time is shown as it is.
pub fn moment_of(text: &str, now: Timestamp) -> String {
    match Timestamp::parse(text) {
        Ok(at) => moment(at, now),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_get_their_commas() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_204, "1,204"),
            (262_144, "262,144"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn sizes_are_told_in_the_unit_that_reads_best() {
        for (number, text) in [
            (1, "1 byte"),
            (512, "512 bytes"),
            (1 << 20, "1 MiB"),
            (3 << 19, "1.5 MiB"),
            (41 << 30, "41 GiB"),
            (1023 << 30, "1,023 GiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes_of(50 << 30, 50 << 30), "50.0 of 50.0 GiB");
    }

    #[test]
    fn spans_and_moments_are_short() {
        for (seconds, text) in [
            (48, "48 s"),
            (720, "12 min"),
            (9_000, "2 h 30 min"),
            (86_400, "24 h"),
            (200_000, "2 d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        assert_eq!(moment_of("2026-03-01T14:30:00Z", now), "14:30Z");
        assert_eq!(moment_of("2026-03-01T12:00:03Z", now), "12:00:03Z");
        assert_eq!(moment_of("2026-03-02T14:30:00Z", now), "2026-03-02 14:30Z");
        assert_eq!(moment_of("soon", now), "soon");
    }
}
