//! The binary transport's request: the payload as the body, everything else in structured fields (RFC 8941), read by hand
//! from docs/PROTOCOL.md.

use axum::http::HeaderMap;

use super::deliver::Head;
use super::fields::{instant, refuse};
use super::reply::Reply;
use super::upload::{
    GAPS_MAX, HOST, PARTS_MAX, Part, SESSION, Upload, check_payload, is_hash, is_media_type,
    is_name,
};

/// The `Recording-*` fields of a request, in the order of their lines.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

const KNOWN: [&str; 6] = [
    "recording-host",
    "recording-session",
    "recording-last",
    "recording-late",
    "recording-gaps",
    "recording-parts",
];

impl Fields {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let ours = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("recording-"));
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Self(
            ours.map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
                .collect(),
        )
    }

    pub(super) fn aim(&self) -> (Option<String>, Option<u64>) {
        let session = self.one("recording-session").ok().and_then(quoted);
        let first = self.list("recording-parts").next();
        let sequence = first.and_then(|item| item.split(';').next()?.parse().ok());
        (session.map(str::to_owned), sequence)
    }

    fn one(&self, name: &str) -> Result<&str, Reply> {
        let mut lines = self.0.iter().filter(|(known, _)| known == name);
        match (lines.next(), lines.next()) {
            (Some((_, value)), None) => Ok(value),
            (None, _) => Err(refuse(name, "is missing")),
            (Some(_), Some(_)) => Err(refuse(name, "stands twice")),
        }
    }

    /// The items of all lines of a list. No string of ours holds a comma or a semicolon.
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let lines = self.0.iter().filter(move |(known, _)| known == name);
        lines.flat_map(|(_, value)| value.split(',').map(str::trim))
    }

    fn name(&self, field: &str, (limit, marks): (usize, &str)) -> Result<String, Reply> {
        let text = quoted(self.one(field)?).filter(|text| is_name(text, limit, marks));
        text.map(str::to_owned)
            .ok_or_else(|| refuse(field, "is not a name in double quotes"))
    }

    fn flag(&self, field: &str) -> Result<bool, Reply> {
        match self.one(field)? {
            "?1" => Ok(true),
            "?0" => Ok(false),
            _ => Err(refuse(field, "is neither ?1 nor ?0")),
        }
    }
}

/// Reads a request that came under `key`; its payload must be what the fields say.
pub(super) fn read(
    fields: &Fields,
    payload: &[u8],
    head: &Head,
    key: &str,
) -> Result<Upload, Reply> {
    if let Some((extra, _)) = fields
        .0
        .iter()
        .find(|(name, _)| !KNOWN.contains(&name.as_str()))
    {
        return Err(refuse(extra, "is not a known field"));
    }
    let media_type = head.content_type.as_deref();
    if !media_type.is_some_and(is_media_type) {
        return Err(refuse("Content-Type", "is not a media type"));
    }
    let late = fields.flag("recording-late")?;
    let parts = parts(fields)?;
    if late && parts.len() > 1 {
        return Err(refuse("recording-late", "is ?1 for more than one part"));
    }
    let gaps = gaps(fields, parts[0].sequence)?;
    check_payload(payload, &parts)?;
    Ok(Upload {
        host: fields.name("recording-host", HOST)?,
        session: fields.name("recording-session", SESSION)?,
        late,
        last: fields.flag("recording-last")?,
        gaps,
        parts,
        payload: payload.to_vec(),
        request_key: Some(key.to_owned()),
    })
}

fn parts(fields: &Fields) -> Result<Vec<Part>, Reply> {
    let field = "recording-parts";
    let mut parts: Vec<Part> = Vec::new();
    for item in fields.list(field) {
        if parts.len() == PARTS_MAX {
            return Err(refuse(field, &format!("has more than {PARTS_MAX} items")));
        }
        let part = part(item)?;
        let before = parts.last();
        if before.is_some_and(|before| before.sequence.checked_add(1) != Some(part.sequence)) {
            return Err(refuse(
                field,
                "has an item that does not follow the one before it",
            ));
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return Err(refuse(field, "is missing"));
    }
    Ok(parts)
}

fn part(item: &str) -> Result<Part, Reply> {
    let wrong = |why: &str| refuse("recording-parts", &format!("has an item whose {why}"));
    let (sequence, parameters) =
        parameters(item, ["bytes", "digest", "start", "end"]).ok_or_else(|| {
            let why = "parameters are not bytes, digest, start and end, in this order";
            wrong(why)
        })?;
    let [bytes, digest, start, end] = parameters;
    let time = |text| quoted(text).and_then(instant);
    let digest = quoted(digest).filter(|text| text.strip_prefix("blake3:").is_some_and(is_hash));
    let part = Part {
        sequence: number(sequence).ok_or_else(|| wrong("sequence is no integer"))?,
        bytes: number(bytes)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| wrong("bytes is not a positive length"))?,
        digest: digest
            .ok_or_else(|| wrong("digest is not \"blake3:<64 hex>\""))?
            .to_owned(),
        key: String::new(),
        started_at: time(start).ok_or_else(|| wrong("start is no time"))?,
        ended_at: time(end).ok_or_else(|| wrong("end is no time"))?,
    };
    if part.ended_at < part.started_at {
        return Err(wrong("end is before its start"));
    }
    Ok(part)
}

fn gaps(fields: &Fields, sequence: u64) -> Result<Vec<(u64, u64)>, Reply> {
    let field = "recording-gaps";
    let mut gaps = Vec::new();
    for item in fields.list(field) {
        if gaps.len() == GAPS_MAX {
            return Err(refuse(field, &format!("has more than {GAPS_MAX} items")));
        }
        let gap = parameters(item, ["last", "reason"]).and_then(|(first, [last, reason])| {
            let known = ["missing", "dead", "purged"].contains(&reason);
            let (first, last) = (number(first)?, number(last)?);
            (known && first <= last && last < sequence).then_some((first, last))
        });
        gaps.push(
            gap.ok_or_else(|| refuse(field, "has an item that is no gap before the first part"))?,
        );
    }
    Ok(gaps)
}

/// An item's value and the values of exactly these parameters, in this order.
fn parameters<'a, const N: usize>(
    item: &'a str,
    names: [&str; N],
) -> Option<(&'a str, [&'a str; N])> {
    let mut pieces = item.split(';').map(str::trim);
    let value = pieces.next()?;
    let mut found = [""; N];
    for (name, slot) in names.iter().zip(&mut found) {
        *slot = pieces.next()?.strip_prefix(name)?.strip_prefix('=')?;
    }
    pieces.next().is_none().then_some((value, found))
}

fn quoted(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains(['"', '\\'])).then_some(inner)
}

/// Digits as this protocol writes them: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}
