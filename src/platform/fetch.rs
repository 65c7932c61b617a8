//! Metadata of recordings: one GET a recording, and the platform's own list page by page. Judged by `classify`, like
//! every answer; what comes back whole is read here and nowhere else.

mod claims;
mod read;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Request, Url};

use super::classify::{self, Asked, Ending, Heard, Sent, Trouble};
use super::client::Clients;
use super::receipt::Expected;
use super::{Failure, Limits, ReceiptPolicy, Timeouts, Verdict};
use crate::http::Reach;
use crate::model::{Digest, RecordingFacts, RecordingId, Route, TenantId, Timestamp, Token};
pub use claims::organizations;

/// The scopes that the platform asks for before it gives metadata of the past.
pub const FETCH_SCOPES: [&str; 2] = ["screenshare:read", "screenshare:write"];
/// And the permissions, in its own words.
pub const FETCH_PERMISSIONS: [&str; 2] = ["read:screen_recording", "admin:screen_recording"];

/// No more of an answer than this is read: a page of a hundred recordings is 50 KiB.
const ANSWER_LIMIT: usize = 1024 * 1024;
/// Asked for on a page.
const PAGE_SIZE: usize = 100;

/// Where one tenant's recordings are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub tenant: TenantId,
    /// Scheme, host and optional prefix, without a trailing slash.
    pub api_url: String,
    /// The id follows it after a slash.
    pub path: String,
    /// The platform's list, if it has one.
    pub list_path: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    One(RecordingId),
    /// A page of the list: recordings since then, from the cursor on.
    Page {
        since: Timestamp,
        cursor: Option<String>,
    },
}

/// One request.
#[derive(Debug, Clone)]
pub struct Fetch {
    pub source: Arc<Source>,
    pub token: Token,
    pub wish: Wish,
    /// Which try it is, from 1.
    pub attempt: u32,
    pub at: Timestamp,
}

/// A page of the platform's list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    pub recordings: Vec<(RecordingId, Option<Timestamp>)>,
    pub next: Option<String>,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    One(Box<RecordingFacts>),
    Page(ListPage),
    Failed(Box<Failure>),
}

/// What came, and what its response said of the limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchAnswer {
    pub fetched: Fetched,
    pub limits: Limits,
}

pub type Fetching<'a> = Pin<Box<dyn Future<Output = FetchAnswer> + Send + 'a>>;

/// The platform's archive, as the engine sees it. Dropping the future aborts the request.
pub trait Archive: Send + Sync + 'static {
    fn fetch(&self, fetch: Fetch) -> Fetching<'_>;
}

/// The archive behind `GET {api_url}{path}/{id}`.
pub struct HttpArchive {
    clients: Clients,
    timeouts: Timeouts,
}

impl HttpArchive {
    pub fn new(timeouts: Timeouts, reach: Reach) -> Self {
        Self {
            clients: Clients::new(timeouts.connect, reach),
            timeouts,
        }
    }
}

impl Archive for HttpArchive {
    fn fetch(&self, fetch: Fetch) -> Fetching<'_> {
        Box::pin(self.exchange(fetch))
    }
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    ending: Ending,
}

impl HttpArchive {
    async fn exchange(&self, fetch: Fetch) -> FetchAnswer {
        // Nothing was uploaded, so no receipt is waited for.
        let expected = Expected {
            session: "none".parse().expect("a valid name"),
            parts: vec![(0, Digest([0; 32]))],
        };
        let asked = Asked {
            route: Route::Fetch,
            receipt: ReceiptPolicy::Body,
            expected: &expected,
            sent: Sent::Nothing,
            at: fetch.at,
            attempt: fetch.attempt,
            token: &fetch.token,
            secret: fetch.token.expose(),
        };
        let reply = match self.send(&fetch).await {
            Ok(reply) => reply,
            Err((trouble, message)) => {
                return failed(
                    classify::broken(&asked, trouble, &message),
                    Limits::default(),
                );
            }
        };
        judge(&asked, &fetch.wish, &reply)
    }

    async fn send(&self, fetch: &Fetch) -> Result<Reply, (Trouble, String)> {
        let request = prepare(fetch)?;
        let source = &fetch.source;
        let client: Client = self
            .clients
            .of(&source.tenant, &source.api_url)
            .map_err(|error| (Trouble::Connecting, error.to_string()))?;
        let overdue = |wait: Duration| (Trouble::Exchanging, format!("no answer for {wait:?}"));
        let wait = self.timeouts.connect.saturating_add(self.timeouts.headers);
        let mut response = tokio::time::timeout(wait, client.execute(request))
            .await
            .map_err(|_| overdue(wait))?
            .map_err(|error| {
                let trouble = match error.is_connect() {
                    true => Trouble::Connecting,
                    false => Trouble::Exchanging,
                };
                (trouble, deepest(&error))
            })?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        let reading = async {
            loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => {
                        let room = ANSWER_LIMIT - body.len();
                        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                        if chunk.len() > room {
                            return Ending::Cut;
                        }
                    }
                    Ok(None) => return Ending::Whole,
                    Err(_) => return Ending::Torn,
                }
            }
        };
        let ending = tokio::time::timeout(self.timeouts.answer, reading)
            .await
            .unwrap_or(Ending::Torn);
        Ok(Reply {
            status,
            headers,
            body,
            ending,
        })
    }
}

fn judge(asked: &Asked<'_>, wish: &Wish, reply: &Reply) -> FetchAnswer {
    let heard = Heard {
        status: reply.status,
        headers: &reply.headers,
        body: &reply.body,
        ending: reply.ending,
    };
    let answer = classify::answer(asked, &heard);
    let given = (reply.status == 200).then(|| match wish {
        Wish::One(id) => read::facts(&reply.body, id).map(|facts| Fetched::One(Box::new(facts))),
        Wish::Page { .. } => read::page(&reply.body).map(Fetched::Page),
    });
    match (given.flatten(), answer.verdict) {
        (Some(fetched), _) => FetchAnswer {
            fetched,
            limits: answer.limits,
        },
        (None, Verdict::Failed(failure)) => failed(failure, answer.limits),
        (None, Verdict::Delivered { .. }) => {
            unreachable!("on this route nothing is a receipt")
        }
    }
}

fn failed(failure: Failure, limits: Limits) -> FetchAnswer {
    FetchAnswer {
        fetched: Fetched::Failed(Box::new(failure)),
        limits,
    }
}

fn prepare(fetch: &Fetch) -> Result<Request, (Trouble, String)> {
    let source = &fetch.source;
    let unusable = |error: &dyn std::fmt::Display| {
        (
            Trouble::UnusableUrl,
            format!("api_url and path make no URL: {error}"),
        )
    };
    let url = match &fetch.wish {
        // An id is safe in a path by its characters.
        Wish::One(id) => Url::parse(&format!("{}{}/{id}", source.api_url, source.path)),
        Wish::Page { .. } => {
            let path = source.list_path.as_deref().unwrap_or(&source.path);
            Url::parse(&format!("{}{path}", source.api_url))
        }
    };
    let mut url = url.map_err(|error| unusable(&error))?;
    if let Wish::Page { since, cursor } = &fetch.wish {
        let mut query = url.query_pairs_mut();
        query.append_pair("since", &since.to_string());
        query.append_pair("pageSize", &PAGE_SIZE.to_string());
        if let Some(cursor) = cursor {
            query.append_pair("cursor", cursor);
        }
    }
    let bearer = format!("Bearer {}", fetch.token.expose());
    let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| {
        let message = "the token holds characters that no header can carry";
        (Trouble::UnsendableToken, message.to_owned())
    })?;
    bearer.set_sensitive(true);
    let mut request = Request::new(reqwest::Method::GET, url);
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, bearer);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    Ok(request)
}

/// The layers above the first cause only say that a request failed.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
