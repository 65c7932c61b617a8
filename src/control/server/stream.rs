//! Bodies between async connections and blocking store calls. A torn body is an error, never an early end.

use std::io::{self, Read, Write};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// A producer that sends nothing for so long is gone, or might as well be.
const SILENCE: Duration = Duration::from_secs(60);
/// Blocks in flight to a slow reader.
const BLOCKS: usize = 4;

/// A request body for a blocking reader. Read it on a blocking thread of the runtime only.
pub struct BodyReader {
    stream: BodyDataStream,
    block: Bytes,
    runtime: Handle,
}

impl BodyReader {
    /// Call on the runtime.
    pub fn new(body: Body) -> Self {
        Self {
            stream: body.into_data_stream(),
            block: Bytes::new(),
            runtime: Handle::current(),
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.block.is_empty() {
            let next = tokio::time::timeout(SILENCE, self.stream.next());
            let waited = self.runtime.block_on(next);
            match waited {
                Ok(Some(Ok(block))) => self.block = block,
                Ok(Some(Err(error))) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
                }
                Ok(None) => return Ok(0),
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        let length = self.block.len().min(into.len());
        self.block.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

/// A response body that a blocking thread writes.
pub struct ChannelWriter(mpsc::Sender<io::Result<Bytes>>);

impl ChannelWriter {
    pub fn pair() -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(BLOCKS);
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|block| (block, receiver))
        });
        (Self(sender), Body::from_stream(stream))
    }

    /// Tears the body, so that the reader cannot take it for whole.
    pub fn fail(self, error: io::Error) {
        // A reader that is gone needs no error.
        let _ = self.0.blocking_send(Err(error));
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, block: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(block)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(block.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
