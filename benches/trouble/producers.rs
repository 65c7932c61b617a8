//! The capture side: chunks by a schedule, through the worker's control socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::{Chunk, ROUND, SESSIONS, TENANTS};

const PRODUCERS: usize = 4;
const PAYLOAD: [u8; 16 << 10] = [0x5a; 16 << 10];

/// Chunks are spread evenly over their round.
pub fn due(began: Instant, n: usize) -> Instant {
    let apart = ROUND / (TENANTS * SESSIONS) as u32;
    began + Duration::from_nanos(apart.as_nanos() as u64 * n as u64)
}

/// Enqueues each chunk of `rounds` that is `wanted` when it is due, or as soon as can be.
pub fn produce(
    socket: &Path,
    began: Instant,
    rounds: usize,
    wanted: impl Fn(Chunk) -> bool + Sync,
) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            scope.spawn(|| {
                let mut stream = UnixStream::connect(socket).expect("the worker listens");
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let chunk = Chunk::nth(n);
                    if chunk.sequence >= rounds {
                        return;
                    }
                    if wanted(chunk) {
                        let left = due(began, n).saturating_duration_since(Instant::now());
                        std::thread::sleep(left);
                        enqueue(&mut stream, chunk);
                    }
                }
            });
        }
    });
}

fn enqueue(stream: &mut UnixStream, chunk: Chunk) {
    let Chunk {
        tenant,
        session,
        sequence,
    } = chunk;
    let head = format!(
        "PUT /v1/tenants/t{tenant}/sessions/s{session}/chunks/{sequence}?started_at=2026-03-01T10:00:00Z\
         &duration_ms=2000&media_type=video/mp4 HTTP/1.1\r\nHost: worker\r\nContent-Length: {}\r\n\r\n",
        PAYLOAD.len()
    );
    let request = [head.as_bytes(), &PAYLOAD].concat();
    stream.write_all(&request).expect("the worker reads");
    // An answer is short and comes with its length.
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).expect("the worker answers");
        assert!(count > 0, "the worker hung up");
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
        let length: usize = length
            .and_then(|length| length.trim().parse().ok())
            .expect("the answer states its length");
        if body.len() >= length {
            assert!(head.starts_with("http/1.1 201"), "{text}");
            return;
        }
    }
}
