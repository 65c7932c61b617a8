//! Recordings as text: a table, all of one, and rows for other programs. The names and the order of a row's columns are
//! what scripts rely on (docs/OPERATING.md): more may be added at its end.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::control::recordings::FetchView;
use crate::control::words;
use crate::model::Timestamp;
use crate::store::records::Recording;

use super::table;
use super::why::failure_lines;

/// One recording, flat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    tenant: String,
    recording: String,
    state: String,
    session: Option<String>,
    time: String,
    fetched_at: Option<String>,
    status: Option<String>,
    organization: Option<String>,
    host: Option<String>,
    chunks: Option<u64>,
    bytes: Option<u64>,
    digest: Option<String>,
    started_at: Option<String>,
    ended_at: Option<String>,
    media_type: Option<String>,
    own_chunks: Option<u64>,
    own_bytes: Option<u64>,
    own_digest: Option<String>,
    differences: Option<String>,
    tries: Option<u32>,
    next_try_at: Option<String>,
    last_status: Option<u16>,
    last_code: Option<String>,
    last_message: Option<String>,
}

impl From<&Recording> for Row {
    fn from(recording: &Recording) -> Self {
        let facts = recording.facts.clone().unwrap_or_default();
        let job = recording.job.as_ref();
        let last = job.and_then(|job| job.last.as_ref());
        let own = recording.own.as_ref();
        let time = |at: &Timestamp| at.to_string();
        let session = recording.session.as_ref().map(ToString::to_string);
        Self {
            tenant: recording.tenant.to_string(),
            recording: recording.id.to_string(),
            state: recording.state.word().to_owned(),
            session: session.or(facts.session),
            time: recording.at.to_string(),
            fetched_at: recording.fetched_at.as_ref().map(time),
            status: facts.status,
            organization: facts.organization,
            host: facts.host,
            chunks: facts.chunks,
            bytes: facts.bytes,
            digest: facts.digest,
            started_at: facts.started_at.as_ref().map(time),
            ended_at: facts.ended_at.as_ref().map(time),
            media_type: facts.media_type,
            own_chunks: own.map(|own| own.chunks()),
            own_bytes: own.map(|own| own.bytes()),
            own_digest: own.map(|own| own.digest()),
            differences: Some(recording.differences.join("; ")).filter(|told| !told.is_empty()),
            tries: job.map(|job| job.tries),
            next_try_at: last.and_then(|last| last.next_try_at.as_ref().map(time)),
            last_status: last.and_then(|last| last.status),
            last_code: last.and_then(|last| last.code.clone()),
            last_message: last.map(|last| last.message.clone()),
        }
    }
}

impl Row {
    fn cells(&self) -> Vec<(String, Value)> {
        match serde_json::to_value(self) {
            Ok(Value::Object(cells)) => cells.into_iter().collect(),
            _ => unreachable!("a row is an object"),
        }
    }

    pub fn jsonl(&self) -> String {
        let line = serde_json::to_string(self).expect("plain data is JSON");
        format!("{line}\n")
    }

    pub fn csv(&self) -> String {
        let cells = self.cells();
        line(cells.iter().map(|(_, value)| match value {
            Value::Null => String::new(),
            Value::String(text) => harmless(text),
            other => other.to_string(),
        }))
    }
}

/// The names of the columns.
pub fn csv_head() -> String {
    line(Row::default().cells().into_iter().map(|(name, _)| name))
}

/// RFC 4180: a cell with a comma, a quote or a line end stands in quotes, and quotes in it are doubled.
fn line(cells: impl Iterator<Item = String>) -> String {
    let quoted = cells.map(|cell| match cell.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    });
    format!("{}\r\n", quoted.collect::<Vec<_>>().join(","))
}

/// A spreadsheet takes a text that begins like this for a formula; with an apostrophe before it, it is one.
fn harmless(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

pub fn wanted(view: &FetchView) -> String {
    let mut text = format!(
        "{} to fetch from {}",
        words::counted(view.added, "recording"),
        view.tenant
    );
    if view.already > 0 {
        let _ = write!(text, ", {} asked for before", words::count(view.already));
    }
    if view.listing {
        text.push_str("; the platform's list is walked, too");
    }
    text.push_str(match view.running {
        true => "; the worker that runs fetches them now",
        false => "; no worker runs: worker drain fetches them now, worker run whenever it runs",
    });
    text
}

pub fn table_of(recordings: &[Recording], now: Timestamp) -> String {
    if recordings.is_empty() {
        return "no recordings\n".to_owned();
    }
    let head = [
        "TENANT",
        "RECORDING",
        "STATE",
        "SESSION",
        "TIME",
        "CHUNKS",
        "BYTES",
        "NOTE",
    ];
    let mut table = table(&head, 5);
    if let Some(column) = table.column_mut(7) {
        column.set_cell_alignment(comfy_table::CellAlignment::Left);
    }
    for recording in recordings {
        let row = Row::from(recording);
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), words::count);
        table.add_row([
            row.tenant.clone(),
            row.recording.clone(),
            row.state.clone(),
            row.session.clone().unwrap_or_else(|| "-".to_owned()),
            words::moment(recording.at, now),
            number(row.chunks),
            number(row.bytes),
            note(&row, now),
        ]);
    }
    table.trim_fmt()
}

/// What a person should know of it, in a few words.
fn note(row: &Row, now: Timestamp) -> String {
    if let Some(differences) = &row.differences {
        return differences.clone();
    }
    let Some(message) = &row.last_message else {
        return String::new();
    };
    let status = row
        .last_status
        .map_or(String::new(), |status| format!("{status} "));
    let next = row.next_try_at.as_ref().map_or(String::new(), |at| {
        format!("; next try at {}", words::moment_of(at, now))
    });
    format!("{status}{message}{next}")
}

/// Everything known of one recording.
pub fn one(recording: &Recording, now: Timestamp) -> String {
    let mut text = format!(
        "{}/{}: {}\n",
        recording.tenant,
        recording.id,
        recording.state.word()
    );
    for (name, value) in Row::from(recording).cells().into_iter().skip(3) {
        let shown = match value {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        if !name.starts_with("last_") {
            let _ = writeln!(text, "  {}: {shown}", name.replace('_', " "));
        }
    }
    if let Some(last) = recording.job.as_ref().and_then(|job| job.last.as_ref()) {
        text.push_str(&failure_lines(last, now));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RecordingFacts, RecordingState};

    fn recording() -> Recording {
        let at = Timestamp::parse("2026-03-01T10:00:00Z").unwrap();
        let mut recording = Recording::new("acme".parse().unwrap(), "r-1".parse().unwrap(), at);
        recording.session = Some("=cmd@x".parse().unwrap());
        recording.state = RecordingState::Mismatch;
        recording.facts = Some(RecordingFacts {
            status: Some("a, \"b\"\nc".into()),
            chunks: Some(3),
            ..RecordingFacts::default()
        });
        recording
    }

    #[test]
    fn a_cell_can_be_no_formula_and_breaks_no_row() {
        let csv = Row::from(&recording()).csv();
        assert!(
            csv.starts_with(
                "acme,r-1,mismatch,'=cmd@x,2026-03-01T10:00:00.000Z,,\"a, \"\"b\"\"\nc\",,,3,"
            ),
            "{csv}"
        );
        assert!(csv.ends_with("\r\n"));
        for bad in ["+1", "-1", "@x", "\tx", "\rx"] {
            assert!(harmless(bad).starts_with('\''), "{bad:?}");
        }
        assert_eq!(harmless("a=b"), "a=b");
    }

    #[test]
    fn the_columns_are_those_that_scripts_know() {
        assert_eq!(
            csv_head(),
            "tenant,recording,state,session,time,fetched_at,status,organization,host,chunks,bytes,digest,started_at,\
             ended_at,media_type,own_chunks,own_bytes,own_digest,differences,tries,next_try_at,last_status,last_code,\
             last_message\r\n"
        );
        let json: Value = serde_json::from_str(&Row::from(&recording()).jsonl()).unwrap();
        assert_eq!(json["session"], "=cmd@x");
        assert_eq!(json["bytes"], Value::Null);
    }

    #[test]
    fn the_table_tells_a_mismatch_in_words() {
        let mut recording = recording();
        recording.differences = vec!["the platform has 3 chunks, this host delivered 4".into()];
        let now = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
        let table = table_of(&[recording], now);
        assert!(table.contains("mismatch"), "{table}");
        assert!(table.contains("this host delivered 4"), "{table}");
    }
}
