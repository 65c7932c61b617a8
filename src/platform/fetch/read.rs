//! Bodies of docs/PROTOCOL.md, "Recordings": what is there is taken, what is of another kind is left out, and only an
//! answer that names the recording is one.

use serde::Deserialize;
use serde_json::Value;

use super::ListPage;
use crate::model::{RecordingFacts, RecordingId, Timestamp};

/// Longer texts are not kept.
const TEXT_KEPT: usize = 256;
/// More gaps than this are not kept: then there is nothing to compare.
const GAPS_KEPT: usize = 1024;
/// A page names no more.
const PAGE_MAX: usize = 1000;

/// `None`: it is no recording, or another one.
pub fn facts(body: &[u8], id: &RecordingId) -> Option<RecordingFacts> {
    let value: Value = serde_json::from_slice(body).ok()?;
    if value.get("id")?.as_str()? != id.as_str() {
        return None;
    }
    let text = |name: &str| {
        let text = value.get(name)?.as_str()?;
        let plain = text.len() <= TEXT_KEPT && !text.chars().any(char::is_control);
        plain.then(|| text.to_owned())
    };
    let number = |name: &str| value.get(name)?.as_u64();
    let time = |name: &str| Timestamp::parse(value.get(name)?.as_str()?).ok();
    Some(RecordingFacts {
        session: text("session"),
        host: text("host"),
        organization: text("organizationId"),
        status: text("status"),
        chunks: number("chunks"),
        bytes: number("bytes"),
        digest: text("digest"),
        gaps: gaps(&value),
        started_at: time("startTime"),
        ended_at: time("endTime"),
        media_type: text("mediaType"),
    })
}

fn gaps(value: &Value) -> Option<Vec<(u64, u64)>> {
    let list = value.get("gaps")?.as_array()?;
    if list.len() > GAPS_KEPT {
        return None;
    }
    let gap = |gap: &Value| Some((gap.get("first")?.as_u64()?, gap.get("last")?.as_u64()?));
    list.iter().map(gap).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePage {
    entities: Vec<WireEntity>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireEntity {
    id: String,
    start_time: Option<String>,
}

/// `None`: it is no page. Ids that this host could not send are left out.
pub fn page(body: &[u8]) -> Option<ListPage> {
    let page: WirePage = serde_json::from_slice(body).ok()?;
    let recordings = page
        .entities
        .into_iter()
        .take(PAGE_MAX)
        .filter_map(|entity| {
            let started = entity.start_time.and_then(|at| Timestamp::parse(&at).ok());
            Some((entity.id.parse().ok()?, started))
        });
    Some(ListPage {
        recordings: recordings.collect(),
        next: page
            .next_cursor
            .filter(|cursor| !cursor.is_empty() && cursor.len() <= 4096),
    })
}
