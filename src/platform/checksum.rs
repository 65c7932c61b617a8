//! What storage hosts call a payload by. Computed by a read beforehand, because an upload URL is signed for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ETAG, HeaderMap};
use ring::digest::{Context, SHA256};

use super::Part;
use super::body::{PayloadFault, read_through};
use super::md5::Md5;
use super::progress::Progress;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums {
    pub md5: [u8; 16],
    pub sha256: Vec<u8>,
}

/// What the headers of a storage host's answer say of the stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// They are these.
    Same,
    /// They are others.
    Other,
    /// Nothing that can be compared.
    Untold,
}

impl Checksums {
    /// Reads `part` to its end and rewinds it. Ends early once nobody waits for `progress`. Blocks.
    ///
    /// # Errors
    /// The stored bytes are wrong or out of reach.
    pub fn of(part: &mut Part, progress: &Progress) -> Result<Self, PayloadFault> {
        let (mut md5, mut sha256) = (Md5::default(), Context::new(&SHA256));
        read_through(part, |bytes| {
            md5.update(bytes);
            sha256.update(bytes);
            !progress.is_abandoned()
        })?;
        Ok(Self {
            md5: md5.finish(),
            sha256: sha256.finish().as_ref().to_vec(),
        })
    }

    /// For `contentMd5`.
    pub fn md5_base64(&self) -> String {
        STANDARD.encode(self.md5)
    }

    /// For `contentSha256`.
    pub fn sha256_base64(&self) -> String {
        STANDARD.encode(&self.sha256)
    }

    /// A stated SHA-256 decides. An ETag is the MD5 only where the host does not encrypt or assemble, so another one
    /// says nothing.
    pub fn compare(&self, headers: &HeaderMap) -> Match {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(stated) = text("x-amz-checksum-sha256") {
            return if stated.trim() == self.sha256_base64() {
                Match::Same
            } else {
                Match::Other
            };
        }
        let etag = text(ETAG.as_str()).map(|etag| etag.trim().trim_matches('"'));
        let md5: String = self.md5.iter().map(|b| format!("{b:02x}")).collect();
        match etag {
            Some(etag) if etag.eq_ignore_ascii_case(&md5) => Match::Same,
            _ => Match::Untold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    #[test]
    fn a_stated_sha256_decides_and_an_etag_only_agrees() {
        let mut md5 = Md5::default();
        md5.update(b"abc");
        let checksums = Checksums {
            md5: md5.finish(),
            sha256: ring::digest::digest(&SHA256, b"abc").as_ref().to_vec(),
        };
        let (etag, sha) = ("etag", "x-amz-checksum-sha256");
        let right = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let md5 = "\"900150983CD24fb0d6963f7d28e17f72\"";
        for (told, said) in [
            (vec![(etag, md5)], Match::Same),
            (vec![(sha, right)], Match::Same),
            (vec![(sha, right), (etag, "\"x\"")], Match::Same),
            (vec![(sha, "AAAA"), (etag, md5)], Match::Other),
            (
                vec![(etag, "\"900150983cd24fb0d6963f7d28e17f72-1\"")],
                Match::Untold,
            ),
            (vec![(etag, "")], Match::Untold),
            (vec![], Match::Untold),
        ] {
            let headers: HeaderMap = told
                .iter()
                .map(|(name, value)| {
                    let name = HeaderName::from_static(name);
                    (name, HeaderValue::from_static(value))
                })
                .collect();
            assert_eq!(checksums.compare(&headers), said, "{told:?}");
        }
    }
}
