//! One socket on the network: the handshake, then frames out and messages in until one side ends it.
//! The handshake goes through the lane's HTTP client, so that proxies, certificates and refusals are
//! what they are for every other request.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use reqwest::header::{
    AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use reqwest::{Request, Response, Upgraded};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::order::{Event, Refusal};
use super::socket::SocketId;
use super::wire::{Frame, HEARD_MAX, SUBPROTOCOL};
use crate::model::Token;
use crate::platform::Timeouts;
use crate::platform::classify::{Ending, Trouble};
use crate::platform::exchange::{chain, read_bounded};

/// How long the other side may take to hear a farewell, and what it said before ours is waited for.
const FAREWELL: Duration = Duration::from_secs(1);

/// What waits for the network: a message of ours, and answers to pings of a server that may take none of them.
const UNWRITTEN_MAX: usize = 2 * HEARD_MAX;

pub type Ws = WebSocketStream<Upgraded>;

/// Opens a socket.
///
/// # Errors
/// The server's refusal, or why there was no answer.
pub async fn dial(
    client: &reqwest::Client,
    url: &str,
    token: &Token,
    timeouts: &Timeouts,
) -> Result<Ws, Refusal> {
    let key = generate_key();
    let request = handshake(url, token, &key)?;
    let waiting = timeouts.connect + timeouts.headers;
    let response = match tokio::time::timeout(waiting, client.execute(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            let doing = if error.is_connect() {
                "connecting"
            } else {
                "opening a socket"
            };
            let message = format!("{doing}: {}", chain(&error.without_url()));
            return Err(Refusal::Broken(Trouble::Connecting, message));
        }
        Err(_) => {
            let message = format!("no answer to the handshake for {waiting:?}");
            return Err(Refusal::Broken(Trouble::Connecting, message));
        }
    };
    if !is_ours(&response, &key) {
        return Err(read_refusal(response, timeouts.answer).await);
    }
    let upgraded = response.upgrade().await.map_err(|error| {
        let message = format!("opening a socket: {}", chain(&error.without_url()));
        Refusal::Broken(Trouble::Connecting, message)
    })?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(HEARD_MAX))
        .max_frame_size(Some(HEARD_MAX))
        .write_buffer_size(0)
        .max_write_buffer_size(UNWRITTEN_MAX);
    Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
}

fn handshake(url: &str, token: &Token, key: &str) -> Result<Request, Refusal> {
    let broken = |trouble, message: String| Refusal::Broken(trouble, message);
    let url = reqwest::Url::parse(url).map_err(|error| {
        let message = format!("api_url and path make no URL: {error}");
        broken(Trouble::UnusableUrl, message)
    })?;
    let bearer = format!("Bearer {}", token.expose());
    let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| {
        let message = "the token holds characters that no header can carry".to_owned();
        broken(Trouble::UnsendableToken, message)
    })?;
    bearer.set_sensitive(true);
    let key = HeaderValue::from_str(key).expect("a key is base64");
    let mut request = Request::new(reqwest::Method::GET, url);
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, bearer);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, key);
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(request)
}

/// Whether the answer opens a socket of this protocol, to this very request.
fn is_ours(response: &Response, key: &str) -> bool {
    let has = |name, value: &str| {
        let header = response.headers().get(name);
        header.is_some_and(|header| header.as_bytes() == value.as_bytes())
    };
    response.status().as_u16() == 101
        && has(SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
        && has(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
}

async fn read_refusal(response: Response, patience: Duration) -> Refusal {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let mut body = Vec::new();
    // What follows a 101 is another protocol's, and no body.
    let ending = match status {
        101 => Ending::Whole,
        _ => {
            let reading = read_bounded(response, &mut body);
            let read = tokio::time::timeout(patience, reading).await;
            read.unwrap_or(Ending::Torn)
        }
    };
    Refusal::Answer {
        status,
        headers,
        body,
        ending,
    }
}

/// What a socket's task has of its lane's.
pub struct Line {
    pub socket: SocketId,
    pub frames: mpsc::Receiver<Frame>,
    pub events: mpsc::Sender<(SocketId, Event)>,
    pub hung: CancellationToken,
}

impl Line {
    /// A lane that ended listens to nobody, and drops this task.
    async fn tell(events: &mpsc::Sender<(SocketId, Event)>, socket: SocketId, event: Event) {
        let _ = events.send((socket, event)).await;
    }
}

/// Ends with the socket, and says how it ended.
pub async fn run(ws: Ws, mut line: Line) -> Event {
    let (mut sink, mut stream) = ws.split();
    {
        let reading = read(&mut stream, line.socket, &line.events);
        let writing = write(&mut sink, line.socket, &line.events, &mut line.frames);
        tokio::pin!(reading);
        tokio::select! {
            biased;
            () = line.hung.cancelled() => {}
            ended = &mut reading => return ended,
            failed = writing => {
                // Why it does not read any more may have been said.
                let last_words = tokio::time::timeout(FAREWELL, reading).await;
                return last_words.unwrap_or_else(|_| ended(&failed));
            }
        }
    }
    let _ = tokio::time::timeout(FAREWELL, sink.close()).await;
    Event::Ended {
        closed: None,
        message: "closed".to_owned(),
    }
}

async fn write(
    sink: &mut SplitSink<Ws, Message>,
    socket: SocketId,
    events: &mpsc::Sender<(SocketId, Event)>,
    frames: &mut mpsc::Receiver<Frame>,
) -> tungstenite::Error {
    while let Some(frame) = frames.recv().await {
        let message = match frame {
            Frame::Text(text) => Message::text(text),
            Frame::Reauth(secret) => Message::text(secret.message()),
            Frame::Payload(block) => Message::binary(block),
            Frame::Ping => Message::Ping(Vec::new().into()),
        };
        if let Err(error) = sink.send(message).await {
            return error;
        }
        Line::tell(events, socket, Event::Written).await;
    }
    tungstenite::Error::ConnectionClosed
}

async fn read(
    stream: &mut SplitStream<Ws>,
    socket: SocketId,
    events: &mpsc::Sender<(SocketId, Event)>,
) -> Event {
    loop {
        let event = match stream.next().await {
            Some(Ok(Message::Text(text))) => Event::Text(text.as_str().to_owned()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Event::Alive,
            Some(Ok(Message::Binary(_))) => {
                return Event::Ended {
                    closed: None,
                    message: "the server sent a binary message".to_owned(),
                };
            }
            Some(Ok(Message::Close(frame))) => {
                let closed =
                    frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                let message = match &closed {
                    Some((code, reason)) => {
                        format!("the server closed the socket ({code} {reason})")
                    }
                    None => "the server closed the socket".to_owned(),
                };
                return Event::Ended { closed, message };
            }
            Some(Err(error)) => return ended(&error),
            None => return ended(&tungstenite::Error::ConnectionClosed),
        };
        Line::tell(events, socket, event).await;
    }
}

fn ended(error: &tungstenite::Error) -> Event {
    Event::Ended {
        closed: None,
        message: format!("the socket ended: {}", chain(error)),
    }
}
