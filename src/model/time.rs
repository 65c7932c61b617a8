//! Wall-clock points in time, as persisted and shown.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Milliseconds since the Unix epoch, UTC. Prints as RFC 3339 with `Z` and milliseconds, in JSON too; a binary record
/// has the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// Why a text is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    #[error("{text:?} has no UTC offset; write {text}Z or, for example, {text}+01:00")]
    NoOffset { text: String },
    #[error("{text:?} is not an RFC 3339 time such as 2026-03-01T10:00:00+01:00")]
    Malformed { text: String },
}

impl Timestamp {
    /// Parses RFC 3339. A time without an offset is refused, because it names no instant.
    ///
    /// # Errors
    /// [`TimestampError::NoOffset`] names the fix; anything else is [`TimestampError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(instant.as_millisecond()));
        }
        Err(if text.parse::<jiff::civil::DateTime>().is_ok() {
            TimestampError::NoOffset {
                text: text.to_owned(),
            }
        } else {
            TimestampError::Malformed {
                text: text.to_owned(),
            }
        })
    }

    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// The span from `earlier` to here; zero if the clock went backwards.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{}{BEYOND}", self.0),
        }
    }
}

/// Behind the number of a time that no calendar has.
const BEYOND: &str = " ms";

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_newtype_struct("Timestamp", &self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let number = text.strip_suffix(BEYOND).and_then(|text| text.parse().ok());
        match number {
            Some(number) => Ok(Self(number)),
            None => Self::parse(&text).map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_an_offset_is_refused_with_the_fix() {
        let error = Timestamp::parse("2026-03-01T10:00:00").unwrap_err();
        assert!(
            error.to_string().contains("2026-03-01T10:00:00+01:00"),
            "{error}"
        );
        assert!(matches!(
            Timestamp::parse("yesterday"),
            Err(TimestampError::Malformed { .. })
        ));
    }

    #[test]
    fn offsets_and_leap_seconds_are_read_as_people_and_clocks_write_them() {
        let read = |text| Timestamp::parse(text).map(|time| time.to_string());
        for text in [
            "2026-03-01T10:00:59+01:00",
            "2026-03-01T10:00:59+0100",
            "2026-03-01T09:00:59Z",
            "2026-03-01T09:00:59+0000",
            "2026-03-01T09:00:59-00:00",
            // A clock in the leap second stands still.
            "2026-03-01T09:00:60Z",
        ] {
            assert_eq!(
                read(text).as_deref(),
                Ok("2026-03-01T09:00:59.000Z"),
                "{text}"
            );
        }
    }

    #[test]
    fn json_has_the_text_of_a_time_and_reads_it_back() {
        for time in [
            Timestamp(1_772_359_200_500),
            Timestamp(-1),
            Timestamp(i64::MAX),
        ] {
            let text = serde_json::to_string(&time).unwrap();
            assert_eq!(text, format!("{:?}", time.to_string()));
            assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap(), time);
        }
        assert!(serde_json::from_str::<Timestamp>("\"2026-03-01T10:00:00\"").is_err());
    }

    #[test]
    fn times_print_in_utc_with_milliseconds() {
        let time = Timestamp::parse("2026-03-01T10:00:00.5+01:00").unwrap();
        assert_eq!(time.to_string(), "2026-03-01T09:00:00.500Z");
    }
}
