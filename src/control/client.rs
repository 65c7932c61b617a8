//! Asking the holder of a store through its control socket. A blocking face over one small runtime: the
//! command line has nothing else to do meanwhile.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::header::CONTENT_LENGTH;
use serde::de::DeserializeOwned;

use crate::model::ChunkKey;
use crate::store::{NewChunk, SequenceChoice};

use super::refusal::{Code, Refusal, chain};
use super::socket::SocketPath;
use super::wire::{ChunkQuery, EnqueuedView, Ping, Reply, Request};

/// A holder that is alive answers a ping at once.
const PING: Duration = Duration::from_secs(2);
/// Everything that does not wait by its nature.
const ANSWER: Duration = Duration::from_secs(60);
/// A reply is a table of tenants or dead letters.
const MAX_REPLY_BYTES: usize = 256 << 20;
const BLOCK: usize = 256 << 10;

pub struct Client {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    /// Keeps a long path reachable.
    _socket: SocketPath,
}

/// A payload to send, read on a blocking thread. What the reader says went wrong comes back to the caller.
type Source = Box<dyn Read + Send>;

impl Client {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The store's directory cannot be opened, or no thread can be had.
    pub fn of_store(store: &Path) -> io::Result<Self> {
        let socket = SocketPath::of_store(store)?;
        let http = reqwest::Client::builder()
            .unix_socket(socket.path())
            .tls_backend_preconfigured(no_tls())
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            http,
            _socket: socket,
        })
    }

    /// Who holds the store; `None` if nobody listens.
    pub fn ping(&self) -> Option<Ping> {
        let request = self.http.get(url("/v1/ping")).timeout(PING);
        self.runtime
            .block_on(async { answered(request).await.ok() })
    }

    /// # Errors
    /// The holder's refusal, or that it went away ([`Code::Closing`]).
    pub fn ask(&self, request: &Request) -> Result<Reply, Refusal> {
        let waits = matches!(
            request,
            Request::Drain(_) | Request::CheckOnline {} | Request::Fsck {}
        );
        let mut call = self.http.post(url("/v1/ask")).json(request);
        if !waits {
            call = call.timeout(ANSWER);
        }
        self.runtime.block_on(answered(call))
    }

    /// Streams one chunk to the holder; durable there when it returns `Ok`.
    ///
    /// # Errors
    /// The reader's error, the holder's refusal, or that it went away.
    pub fn enqueue(&self, chunk: &NewChunk, source: Source) -> Result<EnqueuedView, Refusal> {
        let (sequence, append) = match chunk.sequence {
            SequenceChoice::Exactly(number) => (number.to_string(), false),
            SequenceChoice::Next { refuse_repeat } => ("next".to_owned(), !refuse_repeat),
        };
        let path = format!(
            "/v1/tenants/{}/sessions/{}/chunks/{sequence}",
            chunk.tenant, chunk.session
        );
        let query = ChunkQuery {
            started_at: chunk.started_at.to_string(),
            duration_ms: chunk.duration_ms,
            media_type: chunk.media_type.clone(),
            last: chunk.last,
            append,
        };
        let failed = Arc::new(Mutex::new(None));
        let body = reqwest::Body::wrap_stream(blocks(source, Arc::clone(&failed)));
        let mut call = self.http.put(url(&path)).query(&query).body(body);
        if let Some(length) = chunk.length {
            call = call.header(CONTENT_LENGTH, length);
        }
        let answer = self.runtime.block_on(answered(call));
        // The reader's complaint is the cause, whatever the torn request led to.
        let own = failed.lock().expect("no reader panics").take();
        match own {
            Some(error) => Err(crate::store::EnqueueError::Payload(error).into()),
            None => answer,
        }
    }

    /// Copies a dead letter's payload; whole when it returns `Ok`.
    ///
    /// # Errors
    /// The holder's refusal, a torn or damaged payload, or the writer's error.
    pub fn dead_payload(&self, key: &ChunkKey, to: &mut dyn Write) -> Result<u64, Refusal> {
        let path = format!(
            "/v1/dead/{}/{}/{}/payload",
            key.tenant, key.session, key.sequence
        );
        self.runtime.block_on(async {
            let response = self.http.get(url(&path)).send().await.map_err(gone)?;
            if !response.status().is_success() {
                return parse(response).await;
            }
            let mut copied = 0;
            let mut stream = response.bytes_stream();
            while let Some(block) = stream.next().await {
                let block = block.map_err(|error| {
                    Refusal::new(
                        Code::Storage,
                        format!("payload of {key}: {}", chain(&error)),
                    )
                })?;
                to.write_all(&block)
                    .map_err(|error| Refusal::new(Code::Storage, format!("export: {error}")))?;
                copied += block.len() as u64;
            }
            Ok(copied)
        })
    }
}

/// The host is not used: the connection is the socket.
fn url(path: &str) -> String {
    format!("http://worker{path}")
}

/// Nothing here speaks TLS; the client still wants a configuration, and its default one looks for a store
/// of certificates that a bare machine does not have.
fn no_tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// Reads on blocking threads, a block at a time, so that the connection's own errors are seen meanwhile.
fn blocks(
    source: Source,
    failed: Arc<Mutex<Option<io::Error>>>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold(Some(source), move |source| {
        let failed = Arc::clone(&failed);
        async move {
            let mut source = source?;
            let read = tokio::task::spawn_blocking(move || {
                let mut block = vec![0; BLOCK];
                let length = source.read(&mut block)?;
                block.truncate(length);
                Ok::<_, io::Error>((block, source))
            })
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
            match read {
                Ok((block, _)) if block.is_empty() => None,
                Ok((block, source)) => Some((Ok(Bytes::from(block)), Some(source))),
                Err(error) => {
                    let torn = io::Error::from(error.kind());
                    *failed.lock().expect("no reader panics") = Some(error);
                    Some((Err(torn), None))
                }
            }
        }
    })
}

async fn answered<T: DeserializeOwned>(call: reqwest::RequestBuilder) -> Result<T, Refusal> {
    parse(call.send().await.map_err(gone)?).await
}

fn gone(error: reqwest::Error) -> Refusal {
    let message = format!(
        "the process that held the store went away ({})",
        chain(&error.without_url())
    );
    Refusal::new(Code::Closing, message)
}

async fn parse<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, Refusal> {
    let good = response.status().is_success();
    let status = response.status();
    let mut stream = response.bytes_stream();
    let mut body = Vec::new();
    while let Some(block) = stream.next().await {
        body.extend_from_slice(&block.map_err(gone)?);
        if body.len() > MAX_REPLY_BYTES {
            return Err(Refusal::new(Code::Internal, "the reply is too large"));
        }
    }
    let odd = |error: serde_json::Error| {
        let message = format!("the holder answered {status} in an unknown shape: {error}");
        Refusal::new(Code::Internal, message)
    };
    if good {
        serde_json::from_slice(&body).map_err(odd)
    } else {
        Err(serde_json::from_slice(&body).unwrap_or_else(odd))
    }
}
