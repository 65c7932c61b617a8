//! What a request says of its recording, as HTTP fields: structured fields (RFC 8941), a line a part, so that no
//! line outgrows what common servers read.

use std::time::Duration;

use crate::model::{ChunkMeta, Gap, GapReason};

/// Gaps to a line: about 4 KiB.
const GAPS_A_LINE: usize = 100;

/// Contiguous chunks of one session, and what precedes them.
pub struct Recording<'a> {
    /// At least one.
    pub parts: &'a [&'a ChunkMeta],
    pub gaps: &'a [Gap],
    pub late: bool,
}

pub fn of(recording: &Recording<'_>) -> Vec<(&'static str, String)> {
    let (first, last) = (
        recording.parts[0],
        recording.parts[recording.parts.len() - 1],
    );
    let mut fields = vec![
        ("recording-host", format!("\"{}\"", first.host)),
        ("recording-session", format!("\"{}\"", first.key.session)),
        ("recording-last", boolean(last.last)),
        ("recording-late", boolean(recording.late)),
    ];
    for gaps in recording.gaps.chunks(GAPS_A_LINE) {
        let gaps: Vec<String> = gaps.iter().map(gap).collect();
        fields.push(("recording-gaps", gaps.join(", ")));
    }
    let parts = recording.parts.iter();
    fields.extend(parts.map(|meta| ("recording-parts", part(meta))));
    fields
}

fn boolean(value: bool) -> String {
    if value { "?1" } else { "?0" }.to_owned()
}

fn gap(gap: &Gap) -> String {
    let reason = match gap.reason {
        GapReason::Missing => "missing",
        GapReason::Dead => "dead",
        GapReason::Purged => "purged",
    };
    format!("{};last={};reason={reason}", gap.first, gap.last)
}

fn part(meta: &ChunkMeta) -> String {
    let ended_at = meta
        .started_at
        .saturating_add(Duration::from_millis(meta.duration_ms));
    format!(
        "{};bytes={};digest=\"{}\";start=\"{}\";end=\"{ended_at}\"",
        meta.key.sequence, meta.bytes, meta.digest, meta.started_at
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChunkKey, Digest, Timestamp};

    fn meta(sequence: u64) -> ChunkMeta {
        ChunkMeta {
            key: ChunkKey {
                tenant: "acme".parse().unwrap(),
                session: "s1".parse().unwrap(),
                sequence,
            },
            host: "rec-017".parse().unwrap(),
            started_at: Timestamp::parse("2026-03-01T10:00:00+01:00").unwrap(),
            duration_ms: 29_970,
            media_type: "video/mp4".into(),
            last: sequence == 8,
            bytes: 65_536,
            digest: Digest([0xab; 32]),
        }
    }

    #[test]
    fn the_fields_read_as_the_protocol_says() {
        let (seven, eight) = (meta(7), meta(8));
        let gap = |first, last, reason| Gap {
            first,
            last,
            reason,
        };
        let gaps = [
            gap(1, 1, GapReason::Purged),
            gap(3, 4, GapReason::Dead),
            gap(5, 6, GapReason::Missing),
        ];
        let fields = of(&Recording {
            parts: &[&seven, &eight],
            gaps: &gaps,
            late: false,
        });
        let lines: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let digest = format!("blake3:{}", "ab".repeat(32));
        let rest = format!(
            "bytes=65536;digest=\"{digest}\";start=\"2026-03-01T09:00:00.000Z\";end=\"2026-03-01T09:00:29.970Z\""
        );
        assert_eq!(
            lines,
            [
                "recording-host: \"rec-017\"",
                "recording-session: \"s1\"",
                "recording-last: ?1",
                "recording-late: ?0",
                "recording-gaps: 1;last=1;reason=purged, 3;last=4;reason=dead, 5;last=6;reason=missing",
                &format!("recording-parts: 7;{rest}"),
                &format!("recording-parts: 8;{rest}"),
            ]
        );
    }

    #[test]
    fn no_line_outgrows_what_common_servers_read() {
        let last = meta(u64::MAX);
        let gaps: Vec<Gap> = (0..1000)
            .map(|n| Gap {
                first: u64::MAX - 2 * n - 1,
                last: u64::MAX - 2 * n - 1,
                reason: GapReason::Missing,
            })
            .collect();
        let fields = of(&Recording {
            parts: &[&last],
            gaps: &gaps,
            late: true,
        });
        assert!(fields.iter().all(|(_, value)| value.len() < 8000));
    }
}
