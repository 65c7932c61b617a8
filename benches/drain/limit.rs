//! The limit: a loop of requests whose bodies are in memory, by a client with the settings of the real one.

use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reelay::http::{self, Reach};
use reelay::model::{ChunkKey, ChunkMeta, Digest, Timestamp};
use reelay::platform::part_key;
use serde_json::json;

use crate::load::{
    DURATION_MS, HOST, IN_FLIGHT, MEDIA_TYPE, Pattern, SESSIONS, TENANT, session_of,
};

/// Stays until its standard input ends, so that its processor time can be read.
pub fn bare(port: usize, json: bool, chunk: usize, chunks: usize) {
    let mut payload = Vec::with_capacity(chunk);
    let read = Pattern::of(chunk).read_to_end(&mut payload);
    read.expect("a pattern does not fail");
    let encoded = json.then(|| STANDARD.encode(&payload));
    let digest = Digest::of(&payload);
    let requests: Vec<Post> = (0..chunks)
        .map(|n| {
            let meta = meta(n, chunk, digest);
            let key = part_key(&meta);
            // Each has memory of its own, as each chunk has a place of its own in the store.
            let body = match &encoded {
                Some(encoded) => body(&meta, &key, encoded),
                None => payload.clone(),
            };
            let body = Bytes::from(body);
            Post { key, body }
        })
        .collect();
    let url = format!("http://127.0.0.1:{port}/");
    let client = http::client_by(&Reach::default(), &url, &http::Settings::default());
    let client = client.expect("a client");
    let media_type = if json { "application/json" } else { MEDIA_TYPE };
    let all = Arc::new((requests, AtomicUsize::new(0)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut loops = tokio::task::JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (client, url, all) = (client.clone(), url.clone(), Arc::clone(&all));
            loops.spawn(async move {
                while let Some(post) = all.0.get(all.1.fetch_add(1, Ordering::Relaxed)) {
                    let request = client
                        .post(&url)
                        .header("authorization", "Bearer token")
                        .header("content-type", media_type)
                        .header("idempotency-key", format!("\"{}\"", post.key))
                        .body(post.body.clone());
                    let answer = request.send().await.expect("an answer");
                    assert_eq!(answer.status(), 200);
                    answer.bytes().await.expect("a whole answer");
                }
            });
        }
        while let Some(ended) = loops.join_next().await {
            ended.expect("no loop panics");
        }
    });
    let _ = io::stdin().read(&mut [0]);
}

struct Post {
    key: String,
    body: Bytes,
}

fn meta(n: usize, bytes: usize, digest: Digest) -> ChunkMeta {
    ChunkMeta {
        key: ChunkKey {
            tenant: TENANT.parse().expect("a name"),
            session: session_of(n).parse().expect("a name"),
            sequence: (n / SESSIONS) as u64,
        },
        host: HOST.parse().expect("a name"),
        started_at: Timestamp(0),
        duration_ms: DURATION_MS,
        media_type: MEDIA_TYPE.into(),
        last: false,
        bytes: bytes as u64,
        digest,
    }
}

/// A request of the json transport, from `docs/PROTOCOL.md`.
fn body(meta: &ChunkMeta, key: &str, encoded: &str) -> Vec<u8> {
    let start = meta.started_at;
    let end = start.saturating_add(Duration::from_millis(meta.duration_ms));
    let (start, end) = (start.to_string(), end.to_string());
    let request = json!({
        "host": meta.host.as_str(), "session": meta.key.session.as_str(), "sequence": meta.key.sequence,
        "startTime": start, "endTime": end, "intervalSeconds": meta.duration_ms / 1000,
        "mediaType": meta.media_type, "last": meta.last, "late": false, "gaps": [],
        "parts": [{
            "sequence": meta.key.sequence, "bytes": meta.bytes, "digest": meta.digest.to_string(),
            "idempotencyKey": key, "startTime": start, "endTime": end,
        }],
        "payload": "",
    });
    let mut text = request.to_string();
    let end = text.split_off(text.len() - "\"}".len());
    text.reserve_exact(encoded.len() + end.len());
    text.push_str(encoded);
    text.push_str(&end);
    text.into_bytes()
}
