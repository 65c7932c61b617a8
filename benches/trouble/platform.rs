//! The platform: the binary transport of `docs/PROTOCOL.md`, a thread a connection. Tokens are the tenants' names.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Chunk;

/// What an answer takes.
const THINKING: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(5);

/// What meets the blocked tenants; poison is there whenever there is trouble.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// 403.
    Refused,
    /// Their requests are read and never answered.
    Silent,
}

pub struct Platform {
    pub port: u16,
    seen: Arc<Seen>,
}

struct Seen {
    trouble: Trouble,
    /// When its receipt was written.
    stored: Mutex<HashMap<Chunk, Instant>>,
    blocked: AtomicUsize,
    poisoned: AtomicUsize,
}

/// A request of which the body was read.
struct Asked {
    tenant: usize,
    session: String,
    /// Sequences and digests.
    parts: Vec<(usize, String)>,
}

impl Platform {
    /// Serves until this program ends.
    pub fn start(trouble: Trouble) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let seen = Arc::new(Seen {
            trouble,
            stored: Mutex::default(),
            blocked: AtomicUsize::new(0),
            poisoned: AtomicUsize::new(0),
        });
        let of_all = Arc::clone(&seen);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let seen = Arc::clone(&of_all);
                std::thread::spawn(move || seen.serve(connection));
            }
        });
        Self { port, seen }
    }

    /// What is stored once all of these are, or at `until`.
    pub fn wait_for(&self, wanted: &[usize], until: Instant) -> HashMap<Chunk, Instant> {
        loop {
            let stored = self.seen.stored.lock().expect("nobody panics with it");
            let all = wanted.iter().all(|n| stored.contains_key(&Chunk::nth(*n)));
            if all || Instant::now() >= until {
                return stored.clone();
            }
            drop(stored);
            std::thread::sleep(LOOK);
        }
    }

    /// How often it said 403 and 422.
    pub fn refused(&self) -> (usize, usize) {
        let told = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (told(&self.seen.blocked), told(&self.seen.poisoned))
    }
}

impl Seen {
    /// A connection's requests, to its end.
    fn serve(&self, mut connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        while let Some(asked) = read(&mut connection)? {
            std::thread::sleep(THINKING);
            let Some((status, body)) = self.judge(&asked) else {
                // Until the worker hangs up.
                return connection.read_to_end(&mut Vec::new()).map(drop);
            };
            write!(
                connection,
                "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
        Ok(())
    }

    fn judge(&self, asked: &Asked) -> Option<(u16, String)> {
        let session = asked.session[1..].parse().expect("a session of ours");
        let chunk = |sequence| Chunk {
            tenant: asked.tenant,
            session,
            sequence,
        };
        let first = chunk(asked.parts[0].0);
        if self.trouble != Trouble::None && first.is_blocked() {
            self.blocked.fetch_add(1, Ordering::Relaxed);
            return (self.trouble == Trouble::Refused)
                .then(|| refusal(403, "missing.permissions", "requires recording:create"));
        }
        if self.trouble != Trouble::None && first.is_poison() {
            self.poisoned.fetch_add(1, Ordering::Relaxed);
            return Some(refusal(422, "validation", "the chunk is no video"));
        }
        let now = Instant::now();
        let mut stored = self.stored.lock().expect("nobody panics with it");
        let parts: Vec<_> = asked
            .parts
            .iter()
            .map(|(sequence, digest)| {
                stored.entry(chunk(*sequence)).or_insert(now);
                json!({"sequence": sequence, "digest": digest, "status": "stored"})
            })
            .collect();
        let receipt = json!({"session": asked.session, "parts": parts});
        Some((201, receipt.to_string()))
    }
}

fn refusal(status: u16, code: &str, message: &str) -> (u16, String) {
    let body =
        json!({"message": message, "code": code, "status": status, "details": [], "errors": []});
    (status, body.to_string())
}

/// `None` at the connection's end.
fn read(connection: &mut TcpStream) -> io::Result<Option<Asked>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let head = loop {
        let count = connection.read(&mut buffer)?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let fields = || text.lines().filter_map(|line| line.split_once(": "));
    let all = |name: &'static str| {
        fields()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let one = |name| all(name).next().expect("every request has it");
    let length: usize = one("content-length").parse().expect("a number");
    let mut left = length - (bytes.len() - head);
    while left > 0 {
        let room = left.min(buffer.len());
        match connection.read(&mut buffer[..room])? {
            0 => return Ok(None),
            count => left -= count,
        }
    }
    let tenant = one("authorization").trim_start_matches("Bearer t");
    let parts = all("recording-parts").flat_map(|line| line.split(", "));
    Ok(Some(Asked {
        tenant: tenant.parse().expect("a token of ours"),
        session: one("recording-session").trim_matches('"').to_owned(),
        parts: parts.map(part).collect(),
    }))
}

/// `7;bytes=65536;digest="blake3:…";…`
fn part(text: &str) -> (usize, String) {
    let sequence = text.split(';').next().and_then(|n| n.parse().ok());
    let digest = text
        .split("digest=\"")
        .nth(1)
        .and_then(|d| d.split('"').next());
    (
        sequence.expect("a sequence"),
        digest.expect("a digest").to_owned(),
    )
}
