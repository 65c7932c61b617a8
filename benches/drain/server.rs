//! The platform of this bench: it reads and discards every body, gives one fixed answer, and takes the time.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The server goes on without the requests that did not come by then.
const GATHERING: Duration = Duration::from_secs(10);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"status\":\"stored\"}";

#[derive(Default)]
struct Seen {
    first: Option<Instant>,
    begun: usize,
    in_flight: usize,
    most: usize,
    answered: usize,
    bytes: u64,
}

struct Null {
    chunks: usize,
    gather: usize,
    seen: Mutex<Seen>,
    gathered: Condvar,
}

/// Says on its standard output where it listens, when the first request came, and how long it took until `chunks` were
/// answered.
pub fn serve(chunks: usize, gather: usize) {
    // Whoever started this is gone when its end of the pipe is.
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("a port").port());
    let null = Arc::new(Null {
        chunks,
        gather,
        seen: Mutex::default(),
        gathered: Condvar::new(),
    });
    for connection in listener.incoming().flatten() {
        let null = Arc::clone(&null);
        std::thread::spawn(move || null.answer(connection));
    }
}

impl Null {
    /// A connection's requests, to its end.
    fn answer(&self, mut connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let mut filled = 0;
            let head = loop {
                let count = connection.read(&mut buffer[filled..])?;
                if count == 0 {
                    return Ok(());
                }
                if filled == 0 {
                    self.note_first();
                }
                filled += count;
                let ends = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n");
                if let Some(at) = ends {
                    break at + 4;
                }
            };
            let length = content_length(&buffer[..head]);
            self.begin();
            let mut left = length - (filled - head);
            while left > 0 {
                let room = left.min(buffer.len());
                match connection.read(&mut buffer[..room])? {
                    0 => return Ok(()),
                    count => left -= count,
                }
            }
            self.seen().in_flight -= 1;
            connection.write_all(ANSWER)?;
            self.end(length);
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it is held")
    }

    fn note_first(&self) {
        let mut seen = self.seen();
        if seen.first.is_none() {
            seen.first = Some(Instant::now());
            println!("first");
        }
    }

    fn begin(&self) {
        let mut seen = self.seen();
        seen.begun += 1;
        seen.in_flight += 1;
        seen.most = seen.most.max(seen.in_flight);
        self.gathered.notify_all();
        let few = |seen: &mut Seen| seen.begun < self.gather;
        drop(self.gathered.wait_timeout_while(seen, GATHERING, few));
    }

    fn end(&self, length: usize) {
        let mut seen = self.seen();
        seen.answered += 1;
        seen.bytes += length as u64;
        if seen.answered == self.chunks {
            let took = seen.first.expect("there was a first").elapsed();
            println!("{} {} {}", took.as_secs_f64(), seen.bytes, seen.most);
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line = head.lines().find_map(|l| l.strip_prefix("content-length:"));
    let length = line.and_then(|length| length.trim().parse().ok());
    length.expect("every request states its length")
}
