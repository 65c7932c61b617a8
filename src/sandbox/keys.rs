//! Recomputes, from docs/PROTOCOL.md alone, the digests and keys that a sender claims.

use ring::digest::{Context, SHA256};

/// Lowercase hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who wrote a part, as its key covers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) tenant: &'a str,
    pub(super) host: &'a str,
    pub(super) session: &'a str,
}

/// A part's idempotency key.
pub(super) fn part_key(origin: Origin<'_>, sequence: u64, digest: &[u8; 32]) -> String {
    let mut hash = Context::new(&SHA256);
    for name in [origin.tenant, origin.host, origin.session] {
        let length = u32::try_from(name.len()).expect("a name is at most 200 characters");
        hash.update(&length.to_le_bytes());
        hash.update(name.as_bytes());
    }
    hash.update(&sequence.to_le_bytes());
    hash.update(digest);
    hex(hash.finish().as_ref())
}

/// A request's key: its only part's, or a hash over the keys of several.
pub(super) fn request_key<'a>(part_keys: impl ExactSizeIterator<Item = &'a str>) -> String {
    let single = part_keys.len() == 1;
    let mut hash = Context::new(&SHA256);
    for key in part_keys {
        if single {
            return key.to_owned();
        }
        hash.update(key.as_bytes());
    }
    hex(hash.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_identity_changes_the_key() {
        let origin = Origin {
            tenant: "acme",
            host: "rec-017",
            session: "s1",
        };
        let key = part_key(origin, 7, &[1; 32]);
        let shifted = Origin {
            tenant: "acmer",
            host: "ec-017",
            session: "s1",
        };
        assert_ne!(key, part_key(shifted, 7, &[1; 32]));
        assert_ne!(key, part_key(origin, 8, &[1; 32]));
        assert_ne!(key, part_key(origin, 7, &[2; 32]));
        assert_eq!(key.len(), 64);
    }

    /// Computed apart from this program: `printf` of the bytes into `sha256sum`.
    #[test]
    fn a_key_is_the_documented_one() {
        let origin = Origin {
            tenant: "acme",
            host: "rec-017",
            session: "s1",
        };
        assert_eq!(
            part_key(origin, 7, &[0; 32]),
            "4ea73e30ec7ecc2fc5d6d3b2d94f79b0ddafc8b763b760089eacb18563de0db5"
        );
    }
}
