//! A server that knows no HTTP: it reads and writes what a script says, byte for byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A step of a connection's script. After the last one the connection is closed.
pub enum Step {
    /// Read the whole request, as long as its Content-Length says.
    ReadAll,
    /// Read the head and at least this much of the body.
    ReadSome(usize),
    /// Read until the client ends the connection or breaks it.
    ReadToEnd,
    /// What follows belongs to the connection's next request.
    NextRequest,
    /// Read a request's head and answer it with what this makes of it.
    Answer(fn(&Seen) -> String),
    Write(Vec<u8>),
    /// Write this, or as much of it as the client takes.
    WriteWhatIsTaken(Vec<u8>),
    /// Write this again and again until the client has gone.
    WriteForever(&'static [u8]),
    /// Write this byte now and then until the client has gone.
    Drip(u8),
    /// Neither read nor write any more, and keep the connection.
    Stall,
    /// Close with RST instead of FIN.
    Reset,
}

/// A request as received, possibly only a part of one.
#[derive(Debug, Default)]
pub struct Seen {
    bytes: Vec<u8>,
}

impl Seen {
    fn head_length(&self) -> Option<usize> {
        let end = self.bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        Some(end + 4)
    }

    pub fn has_head(&self) -> bool {
        self.head_length().is_some()
    }

    pub fn head(&self) -> String {
        let length = self.head_length().expect("a whole head was read");
        String::from_utf8(self.bytes[..length].to_vec()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.head().lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            let found = key.eq_ignore_ascii_case(name);
            found.then(|| value.trim().to_owned())
        })
    }

    pub fn body(&self) -> &[u8] {
        let length = self.head_length().expect("a whole head was read");
        &self.bytes[length..]
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.body()).unwrap()
    }

    pub fn announced(&self) -> usize {
        let length = self.header("content-length");
        length.map_or(0, |length| length.parse().unwrap())
    }

    fn is_complete(&self) -> bool {
        self.head_length().is_some() && self.body().len() >= self.announced()
    }

    /// Whether there may be more.
    async fn read_more(&mut self, stream: &mut TcpStream) -> bool {
        self.bytes.reserve(64 * 1024);
        stream.read_buf(&mut self.bytes).await.unwrap_or(0) > 0
    }
}

/// Plays one script a connection, in the order of connecting.
pub struct Server {
    pub url: String,
    /// Bytes that [`Step::WriteForever`] got rid of, all connections together.
    pub taken: Arc<AtomicU64>,
    task: JoinHandle<Vec<Seen>>,
}

impl Server {
    pub async fn playing(script: Vec<Step>) -> Self {
        Self::playing_each(vec![script]).await
    }

    pub async fn playing_each(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let taken = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            let mut playing = Vec::new();
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                playing.push(tokio::spawn(play(stream, script, Arc::clone(&counted))));
            }
            let mut seen = Vec::new();
            for play in playing {
                seen.extend(play.await.unwrap());
            }
            seen
        });
        Self { url, taken, task }
    }

    pub async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        Self::playing(vec![Step::ReadAll, Step::Write(answer.into())]).await
    }

    /// Every request, once all scripts are played.
    pub async fn all_seen(self) -> Vec<Seen> {
        self.task.await.unwrap()
    }

    pub async fn seen(self) -> Seen {
        self.all_seen().await.pop().unwrap()
    }

    pub fn is_done(&self) -> bool {
        self.task.is_finished()
    }
}

async fn play(mut stream: TcpStream, script: Vec<Step>, taken: Arc<AtomicU64>) -> Vec<Seen> {
    let mut all = vec![Seen::default()];
    for step in script {
        let seen = all.last_mut().unwrap();
        match step {
            Step::ReadAll => {
                while !seen.is_complete() {
                    assert!(seen.read_more(&mut stream).await, "the request ended early");
                }
            }
            Step::ReadSome(bytes) => {
                while seen.head_length().is_none() || seen.body().len() < bytes {
                    assert!(seen.read_more(&mut stream).await, "the request ended early");
                }
            }
            Step::ReadToEnd => while seen.read_more(&mut stream).await {},
            Step::Answer(answer) => {
                while !seen.has_head() {
                    assert!(seen.read_more(&mut stream).await, "the request ended early");
                }
                stream.write_all(answer(seen).as_bytes()).await.unwrap();
            }
            Step::NextRequest => all.push(Seen::default()),
            Step::Write(bytes) => stream.write_all(&bytes).await.unwrap(),
            Step::WriteWhatIsTaken(bytes) => drop(stream.write_all(&bytes).await),
            Step::WriteForever(bytes) => {
                while stream.write_all(bytes).await.is_ok() {
                    taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
            }
            Step::Drip(byte) => {
                while stream.write_all(&[byte]).await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
            Step::Stall => std::future::pending().await,
            Step::Reset => stream.set_zero_linger().unwrap(),
        }
    }
    all
}
