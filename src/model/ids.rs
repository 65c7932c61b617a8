//! Names that come from outside. Parsing is the only way to make one, so a name in hand is safe to
//! print, to use as a key and to send.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{kind} is empty")]
    Empty { kind: &'static str },
    #[error("{kind} has {length} characters; the limit is {limit}")]
    TooLong {
        kind: &'static str,
        length: usize,
        limit: usize,
    },
    #[error("{kind} holds {found:?}; allowed are letters, digits and {allowed}")]
    Character {
        kind: &'static str,
        found: char,
        allowed: &'static str,
    },
    #[error("{kind} {name:?} would be read as a path")]
    Path { kind: &'static str, name: String },
}

fn check(
    kind: &'static str,
    name: &str,
    limit: usize,
    allowed: &'static str,
) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::Empty { kind });
    }
    let length = name.chars().count();
    if length > limit {
        return Err(IdError::TooLong {
            kind,
            length,
            limit,
        });
    }
    if let Some(found) = name
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !allowed.contains(*c))
    {
        return Err(IdError::Character {
            kind,
            found,
            allowed,
        });
    }
    if name == "." || name.contains("..") {
        return Err(IdError::Path {
            kind,
            name: name.to_owned(),
        });
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $limit:literal, $allowed:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether parsing would take it.
            pub fn is_valid(name: &str) -> bool {
                check($kind, name, $limit, $allowed).is_ok()
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(name: &str) -> Result<Self, IdError> {
                check($kind, name, $limit, $allowed)?;
                Ok(Self(name.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(name: String) -> Result<Self, IdError> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// The customer organisation whose credentials and limits apply. At most 64 of `A-Za-z0-9._-`.
    TenantId, "tenant", 64, "._-"
}
name_type! {
    /// One continuous recording. At most 200 of `A-Za-z0-9._:@+=-`.
    SessionId, "session", 200, "._:@+=-"
}
name_type! {
    /// The recording host that enqueued a chunk; part of every idempotency key. At most 128 of `A-Za-z0-9._-`.
    HostName, "host", 128, "._-"
}
name_type! {
    /// What the platform calls a recording. At most 200 of `A-Za-z0-9._:@+=-`, so that it is safe in a path.
    RecordingId, "recording id", 200, "._:@+=-"
}

/// A session of a tenant: the unit of order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    pub tenant: TenantId,
    pub session: SessionId,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_or_hide_characters_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\0b", "a\nb", "../x", "a..b", "é"] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad:?}");
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?}");
        }
        assert!("x".repeat(10_000).parse::<SessionId>().is_err());
        assert!("conv:8f2e@host+1".parse::<SessionId>().is_ok());
    }

    #[test]
    fn a_refused_name_is_refused_by_the_decoder_too() {
        assert!(serde_json::from_str::<TenantId>("\"a/b\"").is_err());
        assert_eq!(
            serde_json::from_str::<TenantId>("\"acme\"")
                .unwrap()
                .as_str(),
            "acme"
        );
    }
}
