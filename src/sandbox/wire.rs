//! Sockets that can be broken on purpose. Every accepted connection carries a [`Switch`]; a fault throws it, and the next read
//! or write under the HTTP server meets a reset, or bytes that are no HTTP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// What a connection does from now on.
#[derive(Debug)]
enum Mode {
    Sound,
    /// Ends with a reset.
    Cut,
    /// Ends with a reset when so many more bytes went in either direction.
    CutAfter(u64),
    /// Sends these bytes instead of what the server writes, then ends.
    Garbage(Vec<u8>),
}

/// The handle by which a request's handler breaks the connection that it came on.
#[derive(Debug)]
pub(super) struct Switch {
    mode: Mutex<Mode>,
    waker: AtomicWaker,
}

impl Switch {
    fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no holder of the mode panics") = mode;
        self.waker.wake();
    }

    pub(super) fn cut(&self) {
        self.set(Mode::Cut);
    }

    pub(super) fn cut_after(&self, bytes: u64) {
        self.set(Mode::CutAfter(bytes));
    }

    /// How much more may pass; the connection is cut when that is nothing.
    fn room(&self) -> Option<usize> {
        let mut mode = self.mode.lock().expect("no holder of the mode panics");
        match *mode {
            Mode::CutAfter(0) => {
                *mode = Mode::Cut;
                None
            }
            Mode::CutAfter(left) => usize::try_from(left).ok(),
            _ => Some(usize::MAX),
        }
    }

    fn passed(&self, bytes: usize) {
        let mut mode = self.mode.lock().expect("no holder of the mode panics");
        if let Mode::CutAfter(left) = &mut *mode {
            *left = left.saturating_sub(bytes as u64);
        }
    }

    pub(super) fn garble(&self, bytes: Vec<u8>) {
        self.set(Mode::Garbage(bytes));
    }
}

/// How a handler reaches the switch of its connection.
#[derive(Debug, Clone)]
pub(super) struct OnWire(pub(super) Arc<Switch>);

impl Connected<IncomingStream<'_, Wires>> for OnWire {
    fn connect_info(stream: IncomingStream<'_, Wires>) -> Self {
        Self(Arc::clone(&stream.io().switch))
    }
}

/// Every connection that is open, so that the emulator can go away at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Switchboard(Arc<Mutex<Vec<Weak<Switch>>>>);

impl Switchboard {
    fn add(&self, switch: &Arc<Switch>) {
        let mut open = self.0.lock().expect("no holder of the switchboard panics");
        open.retain(|known| known.strong_count() > 0);
        open.push(Arc::downgrade(switch));
    }

    pub(super) fn cut_all(&self) {
        let open = self.0.lock().expect("no holder of the switchboard panics");
        for switch in open.iter().filter_map(Weak::upgrade) {
            switch.cut();
        }
    }
}

/// A loopback listener of breakable connections.
pub(super) struct Wires {
    listener: TcpListener,
    switchboard: Switchboard,
}

impl Wires {
    pub(super) fn new(listener: TcpListener, switchboard: Switchboard) -> Self {
        Self {
            listener,
            switchboard,
        }
    }
}

/// After a refused accept (no file descriptors left): long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listener for Wires {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    // Short answers must not wait for the peer's delayed acknowledgements.
                    let _ = stream.set_nodelay(true);
                    let switch = Arc::new(Switch {
                        mode: Mutex::new(Mode::Sound),
                        waker: AtomicWaker::new(),
                    });
                    self.switchboard.add(&switch);
                    return (Wire { stream, switch }, from);
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One breakable connection.
pub(super) struct Wire {
    stream: TcpStream,
    switch: Arc<Switch>,
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Wire {
    /// An error once the connection was cut; then closing it sends a reset.
    fn check(&self) -> io::Result<()> {
        let mode = self
            .switch
            .mode
            .lock()
            .expect("no holder of the mode panics");
        if matches!(*mode, Mode::Cut) {
            let _ = self.stream.set_zero_linger();
            return Err(reset());
        }
        Ok(())
    }

    /// Writes what is left of the garbage; `None` if the connection is sound.
    fn poll_garbage(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Error>> {
        let switch = Arc::clone(&self.switch);
        let mut mode = switch.mode.lock().expect("no holder of the mode panics");
        let Mode::Garbage(bytes) = &mut *mode else {
            return None;
        };
        while !bytes.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) => drop(bytes.drain(..written)),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(error)),
                Poll::Pending => return Some(Poll::Pending),
            }
        }
        Some(Poll::Ready(io::ErrorKind::BrokenPipe.into()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.switch.waker.register(cx.waker());
        let room = self.switch.room();
        self.check()?;
        let room = room.unwrap_or(0).min(buffer.remaining());
        let wire = &mut *self;
        let mut part = buffer.take(room);
        let read = Pin::new(&mut wire.stream).poll_read(cx, &mut part);
        let count = part.filled().len();
        // What was read into `part` stands in `buffer`'s own memory.
        let filled = part.filled().to_vec();
        buffer.put_slice(&filled);
        wire.switch.passed(count);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = self.switch.room();
        self.check()?;
        if let Some(garbled) = self.poll_garbage(cx) {
            return garbled.map(Err);
        }
        let bytes = &bytes[..bytes.len().min(room.unwrap_or(0))];
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.switch.passed(count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
