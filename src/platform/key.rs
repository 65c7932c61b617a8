//! Idempotency keys: the same chunk has the same key on every retry, after every restart and in every grouping.

use ring::digest::{Context, SHA256};

use crate::model::ChunkMeta;

/// A part's key: lowercase hex SHA-256 over tenant, host and session (each preceded by its length as u32,
/// little-endian), sequence (u64, little-endian) and the payload's BLAKE3.
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
