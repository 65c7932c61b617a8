//! Strict reading of JSON objects by hand: every member is asked for by name and type, and what nobody asked for is refused.

use serde_json::{Map, Value};

use super::reply::Reply;

/// An object of a request and where it stands in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Empty, or such as `parts[0].`.
    at: &'a str,
}

impl<'a> Fields<'a> {
    /// An object with no other members than `known`.
    pub(super) fn of(value: &'a Value, at: &'a str, known: &[&str]) -> Result<Self, Reply> {
        let map = value
            .as_object()
            .ok_or_else(|| refuse(at.trim_end_matches('.'), "is not an object"))?;
        if let Some(extra) = map.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(refuse(&format!("{at}{extra}"), "is not a known member"));
        }
        Ok(Self { map, at })
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    pub(super) fn refuse(&self, name: &str, why: &str) -> Reply {
        refuse(&self.name(name), why)
    }

    pub(super) fn value(&self, name: &str) -> Result<&'a Value, Reply> {
        self.map
            .get(name)
            .ok_or_else(|| self.refuse(name, "is missing"))
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.map.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// A member that may be absent, which `null` also says.
    pub(super) fn optional(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, Reply> {
        self.value(name)?
            .as_str()
            .ok_or_else(|| self.refuse(name, "is not a string"))
    }

    pub(super) fn count(&self, name: &str) -> Result<u64, Reply> {
        self.value(name)?
            .as_u64()
            .ok_or_else(|| self.refuse(name, "is not a non-negative integer"))
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Reply> {
        self.value(name)?
            .as_bool()
            .ok_or_else(|| self.refuse(name, "is not true or false"))
    }

    pub(super) fn list(&self, name: &str) -> Result<&'a [Value], Reply> {
        self.value(name)?
            .as_array()
            .map(Vec::as_slice)
            .ok_or_else(|| self.refuse(name, "is not a list"))
    }

    /// Milliseconds since the Unix epoch of a time written exactly `YYYY-MM-DDTHH:MM:SS.mmmZ`.
    pub(super) fn time(&self, name: &str) -> Result<i64, Reply> {
        instant(self.text(name)?).ok_or_else(|| {
            Reply::field(
                400,
                "invalid.date",
                &self.name(name),
                "Dates must be specified as ISO-8601 strings: yyyy-MM-ddTHH:mm:ss.SSSZ",
            )
        })
    }
}

/// A member is not what it has to be.
pub(super) fn refuse(field: &str, why: &str) -> Reply {
    Reply::field(400, "bad.request", field, &format!("{field} {why}"))
}

pub(super) fn instant(text: &str) -> Option<i64> {
    const PATTERN: &[u8] = b"dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = text.len() == PATTERN.len()
        && text
            .bytes()
            .zip(PATTERN)
            .all(|(byte, &wanted)| match wanted {
                b'd' => byte.is_ascii_digit(),
                exact => byte == exact,
            });
    if !fits {
        return None;
    }
    let parsed: jiff::Timestamp = text.parse().ok()?;
    Some(parsed.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_milliseconds_and_a_z() {
        assert_eq!(instant("1970-01-01T00:00:01.500Z"), Some(1500));
        for bad in [
            "1970-01-01T00:00:01Z",
            "1970-01-01T00:00:01.5Z",
            "1970-01-01T00:00:01.500+00:00",
            "1970-01-01t00:00:01.500Z",
            "1970-13-01T00:00:01.500Z",
            "1970-01-01T00:00:01.500",
        ] {
            assert_eq!(instant(bad), None, "{bad}");
        }
    }
}
