//! The json transport's request: read by hand from docs/PROTOCOL.md, with every member checked. A wrong shape is a 400, bytes that
//! are not what the request says are a 422.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fields::{Fields, refuse};
use super::keys::{self, Origin};
use super::reply::Reply;

/// A well-formed request whose bytes match its digests.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) host: String,
    pub(super) session: String,
    pub(super) late: bool,
    pub(super) last: bool,
    /// Closed intervals, below the first part's sequence.
    pub(super) gaps: Vec<(u64, u64)>,
    /// At least one; contiguous, lowest first.
    pub(super) parts: Vec<Part>,
    /// The parts' payloads one after another.
    pub(super) payload: Vec<u8>,
    /// The request's key, where its parts carry none of their own.
    pub(super) request_key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) sequence: u64,
    pub(super) bytes: usize,
    /// `blake3:<64 hex>`.
    pub(super) digest: String,
    pub(super) key: String,
    pub(super) started_at: i64,
    pub(super) ended_at: i64,
}

const MEMBERS: [&str; 12] = [
    "host",
    "session",
    "sequence",
    "startTime",
    "endTime",
    "intervalSeconds",
    "mediaType",
    "last",
    "late",
    "gaps",
    "parts",
    "payload",
];
pub(super) const PARTS_MAX: usize = 1024;
pub(super) const GAPS_MAX: usize = 1024;

/// The session and first sequence that a body names, as far as it is readable: what fault rules match on.
pub(super) fn aim(body: &Value) -> (Option<&str>, Option<u64>) {
    (
        body.get("session").and_then(Value::as_str),
        body.get("sequence").and_then(Value::as_u64),
    )
}

impl Upload {
    /// Reads `body`, which came under the idempotency key `header`.
    pub(super) fn read(body: &Value, header: &str) -> Result<Self, Reply> {
        let fields = Fields::of(body, "", &MEMBERS)?;
        let mut upload = Self::described(&fields, header)?;
        if body.as_object().and_then(|map| map.keys().next_back()) != Some(&"payload".to_owned()) {
            return Err(fields.refuse("payload", "is not the last member"));
        }
        upload.payload = payload(&fields, &upload.parts)?;
        Ok(upload)
    }

    /// Reads the same without a payload: what is going to be stored elsewhere.
    pub(super) fn describe(body: &Value, header: &str) -> Result<Self, Reply> {
        let members = &MEMBERS[..MEMBERS.len() - 1];
        let fields = Fields::of(body, "recording.", members)?;
        Self::described(&fields, header)
    }

    fn described(fields: &Fields<'_>, header: &str) -> Result<Self, Reply> {
        let host = name(fields, "host", HOST.0, HOST.1)?;
        let session = name(fields, "session", SESSION.0, SESSION.1)?;
        let late = fields.flag("late")?;
        let parts = parts(fields)?;
        envelope(fields, &parts)?;
        if late && parts.len() > 1 {
            return Err(fields.refuse("late", "is true for more than one part"));
        }
        if header != keys::request_key(parts.iter().map(|part| part.key.as_str())) {
            return Err(refuse("Idempotency-Key", "is not the key of these parts"));
        }
        Ok(Self {
            host,
            session,
            late,
            last: fields.flag("last")?,
            gaps: gaps(fields, parts[0].sequence)?,
            payload: Vec::new(),
            parts,
            request_key: None,
        })
    }

    /// Refuses keys that are not the documented hash of what they name.
    pub(super) fn check_keys(&self, tenant: &str) -> Result<(), Reply> {
        let origin = Origin {
            tenant,
            host: &self.host,
            session: &self.session,
        };
        let right = self.parts.iter().map(|part| {
            let digest = blake3::Hash::from_hex(&part.digest["blake3:".len()..])
                .expect("the digest's shape was checked when the part was read");
            keys::part_key(origin, part.sequence, digest.as_bytes())
        });
        let right: Vec<String> = right.collect();
        let why =
            format!("is not the hash over tenant {tenant}, host, session, sequence and digest");
        if let Some(key) = &self.request_key {
            let whole = keys::request_key(right.iter().map(String::as_str));
            return if *key == whole {
                Ok(())
            } else {
                Err(refuse("Idempotency-Key", &why))
            };
        }
        for (index, (part, key)) in self.parts.iter().zip(&right).enumerate() {
            if part.key != *key {
                return Err(refuse(&format!("parts[{index}].idempotencyKey"), &why));
            }
        }
        Ok(())
    }
}

fn name(fields: &Fields<'_>, member: &str, limit: usize, marks: &str) -> Result<String, Reply> {
    let text = fields.text(member)?;
    if is_name(text, limit, marks) {
        Ok(text.to_owned())
    } else {
        Err(fields.refuse(member, "is not a name"))
    }
}

/// What may stand between the letters and digits of a host's and of a session's name.
pub(super) const HOST: (usize, &str) = (128, "._-");
pub(super) const SESSION: (usize, &str) = (200, "._:@+=-");

pub(super) fn is_name(text: &str, limit: usize, marks: &str) -> bool {
    !text.is_empty()
        && text.len() <= limit
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
        && !text.contains("..")
}

pub(super) fn is_media_type(text: &str) -> bool {
    let visible = text.len() <= 255 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    let halves = text.split(';').next().unwrap_or("").split('/');
    visible && halves.filter(|half| !half.trim().is_empty()).count() == 2
}

/// Checks what the request says about all its parts together.
fn envelope(fields: &Fields<'_>, parts: &[Part]) -> Result<(), Reply> {
    let (first, last) = (&parts[0], &parts[parts.len() - 1]);
    if fields.count("sequence")? != first.sequence {
        return Err(fields.refuse("sequence", "is not the first part's"));
    }
    if fields.time("startTime")? != first.started_at {
        return Err(fields.refuse("startTime", "is not the first part's"));
    }
    if fields.time("endTime")? != last.ended_at {
        return Err(fields.refuse("endTime", "is not the last part's"));
    }
    if !is_media_type(fields.text("mediaType")?) {
        return Err(fields.refuse("mediaType", "is not a media type"));
    }
    let span = parts
        .iter()
        .map(|part| part.ended_at.abs_diff(part.started_at))
        .fold(0, u64::saturating_add);
    let seconds = (span.saturating_add(500) / 1000).max(1);
    if fields.count("intervalSeconds")? != seconds {
        let why = format!("is not the sum of the parts' durations: {span} ms, rounded {seconds}");
        return Err(fields.refuse("intervalSeconds", &why));
    }
    Ok(())
}

fn parts(fields: &Fields<'_>) -> Result<Vec<Part>, Reply> {
    let list = fields.list("parts")?;
    if list.is_empty() || list.len() > PARTS_MAX {
        return Err(fields.refuse(
            "parts",
            &format!("has {} entries, not 1 to {PARTS_MAX}", list.len()),
        ));
    }
    let mut parts: Vec<Part> = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let at = format!("parts[{index}].");
        let part = part(value, &at)?;
        if parts
            .last()
            .is_some_and(|before| before.sequence.checked_add(1) != Some(part.sequence))
        {
            return Err(refuse(
                &format!("{at}sequence"),
                "does not follow the part before it",
            ));
        }
        parts.push(part);
    }
    Ok(parts)
}

fn part(value: &Value, at: &str) -> Result<Part, Reply> {
    let fields = Fields::of(
        value,
        at,
        &[
            "sequence",
            "bytes",
            "digest",
            "idempotencyKey",
            "startTime",
            "endTime",
        ],
    )?;
    let digest = fields.text("digest")?;
    if !digest.strip_prefix("blake3:").is_some_and(is_hash) {
        return Err(fields.refuse("digest", "is not blake3:<64 hex>"));
    }
    let key = fields.text("idempotencyKey")?;
    if !is_hash(key) {
        return Err(fields.refuse("idempotencyKey", "is not 64 lowercase hex digits"));
    }
    let bytes = fields.count("bytes")?;
    let part = Part {
        sequence: fields.count("sequence")?,
        bytes: usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| fields.refuse("bytes", "is not a positive length"))?,
        digest: digest.to_owned(),
        key: key.to_owned(),
        started_at: fields.time("startTime")?,
        ended_at: fields.time("endTime")?,
    };
    if part.ended_at < part.started_at {
        return Err(fields.refuse("endTime", "is before startTime"));
    }
    Ok(part)
}

pub(super) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn gaps(fields: &Fields<'_>, sequence: u64) -> Result<Vec<(u64, u64)>, Reply> {
    let list = fields.list("gaps")?;
    if list.len() > GAPS_MAX {
        return Err(fields.refuse(
            "gaps",
            &format!("has {} entries, more than {GAPS_MAX}", list.len()),
        ));
    }
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            let at = format!("gaps[{index}].");
            let gap = Fields::of(value, &at, &["first", "last", "reason"])?;
            let (first, last) = (gap.count("first")?, gap.count("last")?);
            if first > last || last >= sequence {
                return Err(
                    gap.refuse("last", "is not between first and the first part's sequence")
                );
            }
            if !["missing", "dead", "purged"].contains(&gap.text("reason")?) {
                return Err(gap.refuse("reason", "is none of missing, dead, purged"));
            }
            Ok((first, last))
        })
        .collect()
}

fn payload(fields: &Fields<'_>, parts: &[Part]) -> Result<Vec<u8>, Reply> {
    let payload = STANDARD
        .decode(fields.text("payload")?)
        .map_err(|_| fields.refuse("payload", "is not padded base64 of the standard alphabet"))?;
    check_payload(&payload, parts)?;
    Ok(payload)
}

/// Holds the payload against the lengths and digests of its parts.
pub(super) fn check_payload(payload: &[u8], parts: &[Part]) -> Result<(), Reply> {
    let named = parts
        .iter()
        .try_fold(0_usize, |sum, part| sum.checked_add(part.bytes));
    if named != Some(payload.len()) {
        return Err(Reply::field(
            422,
            "length.mismatch",
            "payload",
            &format!(
                "payload has {} bytes; its parts name another sum",
                payload.len()
            ),
        ));
    }
    let mut rest = payload;
    for (index, part) in parts.iter().enumerate() {
        let (own, after) = rest.split_at(part.bytes);
        rest = after;
        let found = format!("blake3:{}", blake3::hash(own).to_hex());
        if found != part.digest {
            return Err(Reply::field(
                422,
                "digest.mismatch",
                &format!("parts[{index}].digest"),
                &format!(
                    "part {} arrived as {found}, not as {}",
                    part.sequence, part.digest
                ),
            ));
        }
    }
    Ok(())
}
