//! Idempotency keys: the same chunk has the same key on every retry, after every restart and in
//! every grouping.

use ring::digest::{Context, SHA256};

use crate::model::ChunkMeta;

/// A part's key: lowercase hex SHA-256 over tenant, host and session (each preceded by its length
/// as u32, little-endian), sequence (u64, little-endian) and the payload's BLAKE3.
pub fn part_key(meta: &ChunkMeta) -> String {
    let mut hash = Context::new(&SHA256);
    let names = [
        meta.key.tenant.as_str(),
        meta.host.as_str(),
        meta.key.session.as_str(),
    ];
    for name in names {
        let length = u32::try_from(name.len()).expect("names have at most 200 characters");
        hash.update(&length.to_le_bytes());
        hash.update(name.as_bytes());
    }
    hash.update(&meta.key.sequence.to_le_bytes());
    hash.update(&meta.digest.0);
    hex(hash)
}

/// A request's key: the key of its only part, or the hash of its parts' keys in order.
pub fn request_key(part_keys: &[String]) -> String {
    if let [only] = part_keys {
        return only.clone();
    }
    let mut hash = Context::new(&SHA256);
    for key in part_keys {
        hash.update(key.as_bytes());
    }
    hex(hash)
}

fn hex(hash: Context) -> String {
    let digest = hash.finish();
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChunkKey, Digest, Timestamp};

    fn key(tenant: &str, host: &str, sequence: u64, digest: [u8; 32]) -> String {
        part_key(&ChunkMeta {
            key: ChunkKey {
                tenant: tenant.parse().unwrap(),
                session: "s1".parse().unwrap(),
                sequence,
            },
            host: host.parse().unwrap(),
            started_at: Timestamp(0),
            duration_ms: 0,
            media_type: String::new(),
            last: false,
            bytes: 0,
            digest: Digest(digest),
        })
    }

    /// Computed by another implementation of `docs/PROTOCOL.md`. They may never change: a platform
    /// remembers keys.
    #[test]
    fn keys_are_those_of_the_protocol() {
        let counting: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let seven = key("acme", "rec-017", 7, counting);
        let eight = key("acme", "rec-017", 8, counting);
        assert_eq!(
            seven,
            "6c5f9200a68db5658bdb73611cd0909338b6f31c3a505a38a130946c3ab4be54"
        );
        assert_eq!(
            eight,
            "2869d70d07b25079610731a6391c1b26347d2501a227147414985385d7d58e31"
        );
        assert_eq!(
            key("acme", "rec-017", u64::MAX, [0; 32]),
            "8bdbd3d9d4d80761a20017d7583901c417ceef1124025d515a94a180283d4076"
        );
        assert_eq!(
            request_key(&[seven.clone(), eight]),
            "29f922d1761a2ee5edb01cabd04e1c6e8333ba3cfc8d8a7a3e228d1210ebef53"
        );
        assert_eq!(request_key(std::slice::from_ref(&seven)), seven);
    }

    #[test]
    fn names_that_run_together_do_not_share_a_key() {
        let digest = [1; 32];
        assert_ne!(
            key("ac", "merec-017", 7, digest),
            key("acme", "rec-017", 7, digest)
        );
    }
}
