//! Limit headers of every dialect: when to come back and how much of the budget is left. A value
//! that cannot be read is ignored, an absurd one is clamped. A date counts from the response's own
//! `Date`, never from this host's clock; without one it is ignored.

use std::time::Duration;

use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::Limits;

/// Nothing a server says delays longer than this.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// `X-RateLimit-Reset` is a Unix time from here on (2001-09-09), in milliseconds from a thousand
/// times that.
const EPOCH_FROM: u64 = 1_000_000_000;

/// `Retry-After`: seconds or an HTTP date. The longest of several.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(RETRY_AFTER).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.filter_map(|text| wait(text, headers)).max()
}

/// The tightest budget that any dialect tells of.
pub fn limits(headers: &HeaderMap) -> Limits {
    let dialects = [platform(headers), common(headers), draft(headers)];
    let told = dialects
        .into_iter()
        .filter(|told| *told != Limits::default());
    told.min_by_key(|told| told.remaining.unwrap_or(u64::MAX))
        .unwrap_or_default()
}

fn wait(text: &str, headers: &HeaderMap) -> Option<Duration> {
    if let Some(seconds) = seconds(text) {
        return Some(seconds);
    }
    let until = http_date(text)?;
    let now = date(headers)?;
    Some(clamp(u64::try_from(until - now).unwrap_or(0)))
}

/// `inin-ratelimit-*`: the count so far, the allowance, the seconds to the reset.
fn platform(headers: &HeaderMap) -> Limits {
    let allowed = number(headers, "inin-ratelimit-allowed");
    let count = number(headers, "inin-ratelimit-count");
    Limits {
        allowed,
        remaining: allowed.zip(count).map(|(a, c)| a.saturating_sub(c)),
        reset_in: one(headers, "inin-ratelimit-reset").and_then(seconds),
    }
}

/// `X-RateLimit-*`; the reset is a span or a Unix time.
fn common(headers: &HeaderMap) -> Limits {
    let reset = number(headers, "x-ratelimit-reset").and_then(|reset| {
        let at = match reset {
            0..EPOCH_FROM => return Some(clamp(reset)),
            ms if ms >= EPOCH_FROM * 1000 => ms / 1000,
            seconds => seconds,
        };
        let now = u64::try_from(date(headers)?).ok()?;
        Some(clamp(at.saturating_sub(now)))
    });
    Limits {
        allowed: number(headers, "x-ratelimit-limit"),
        remaining: number(headers, "x-ratelimit-remaining"),
        reset_in: reset,
    }
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): `"name";r=50;t=30`
/// and `"name";q=100;w=60`, of the policies that count requests the one with the least left. The
/// drafts before it wrote `limit=100, remaining=50, reset=30`.
fn draft(headers: &HeaderMap) -> Limits {
    let policies = items(headers, "ratelimit-policy");
    let policy = |name: &str| policies.iter().find(|policy| policy.name == name);
    let mut tightest = Limits::default();
    let mut old = Limits::default();
    for item in items(headers, "ratelimit") {
        let other_unit = policy(&item.name)
            .and_then(|policy| policy.text("qu"))
            .is_some_and(|unit| unit != "requests");
        if other_unit {
            continue;
        }
        if let Some(remaining) = item.number("r")
            && tightest.remaining.is_none_or(|least| remaining < least)
        {
            tightest = Limits {
                allowed: policy(&item.name).and_then(|policy| policy.number("q")),
                remaining: Some(remaining),
                reset_in: item.number("t").map(clamp),
            };
        }
        old.allowed = old.allowed.or(item.number("limit"));
        old.remaining = old.remaining.or(item.number("remaining"));
        old.reset_in = old.reset_in.or(item.number("reset").map(clamp));
    }
    if tightest.remaining.is_some() {
        tightest
    } else {
        old
    }
}

/// An item of a structured-field list with its parameters; a bare `key=value` is its own parameter.
struct Item {
    name: String,
    params: Vec<(String, String)>,
}

impl Item {
    fn text(&self, key: &str) -> Option<&str> {
        let found = self.params.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str) -> Option<u64> {
        digits(self.text(key)?)
    }
}

fn items(headers: &HeaderMap, name: &str) -> Vec<Item> {
    let values = headers.get_all(name).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| split_unquoted(text, ','))
        .map(|item| {
            let mut pieces = split_unquoted(item, ';').into_iter();
            let name = pieces.next().unwrap_or_default().trim();
            let own = name.split_once('=').map(|_| name);
            let params = own.into_iter().chain(pieces).filter_map(|piece| {
                let (key, value) = piece.split_once('=')?;
                Some((key.trim().to_owned(), unquoted(value)))
            });
            Item {
                name: unquoted(name),
                params: params.collect(),
            }
        })
        .collect()
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches('"').to_owned()
}

fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
    .collect()
}

fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    digits(one(headers, name)?)
}

/// Digits only; more than fit are as many as fit.
fn digits(text: &str) -> Option<u64> {
    let text = text.trim();
    let all_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whole seconds; a fraction, which some gateways send, is rounded up.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text, "0"));
    let part = u64::from(digits(fraction)? > 0);
    Some(clamp(digits(whole)?.saturating_add(part)))
}

fn clamp(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(LONGEST)
}

fn date(headers: &HeaderMap) -> Option<i64> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

/// The three forms of RFC 9110 section 5.6.7, as a Unix time.
fn http_date(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(instant) = rfc2822::DateTimeParser::new().parse_timestamp(text) {
        return Some(instant.as_second());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .into_iter()
        .find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())
        .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .map(|zoned| zoned.timestamp().as_second())
}

#[cfg(test)]
mod tests;
