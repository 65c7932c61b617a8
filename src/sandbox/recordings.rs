//! Recordings as the platform gives them back: metadata of what it stored, and of recordings from before that were set by
//! hand. Strict from the other side: rights, visibility after a delay, and 422 for what is older than a day unless the
//! token has what history needs. Read from docs/PROTOCOL.md alone.

use std::collections::BTreeMap;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::deliver::{unauthorized, within_quota};
use super::fields::{Fields, refuse};
use super::keys;
use super::reply::{Reply, standard};
use super::session::Account;
use super::settings::Refusal;
use super::world::{Standing, World};

/// What each question asks for.
pub(super) const READ_SCOPE: &str = "screenshare:read";
/// And what history asks for beside it.
const WRITE_SCOPE: &str = "screenshare:write";
const PERMISSIONS: &str = "read:screen_recording, admin:screen_recording";

/// What opens recordings that are old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    Open,
    /// Both scopes in the token.
    Scope,
    /// A token that speaks for a user.
    User,
    Refused,
}

#[derive(Debug, Clone)]
struct Rules {
    history: History,
    old_after: Duration,
    /// A recording is not there before this has passed since it began.
    delay: Duration,
    /// Once refused for its purview, a recording opens after this.
    purview_delay: Option<Duration>,
    /// The tokens of this client speak for a user.
    user_bound: bool,
}

#[derive(Debug, Clone)]
struct Recording {
    host: String,
    session: String,
    /// Milliseconds after the Unix epoch.
    created: i64,
    /// Of one that was set by hand; else the session is looked at.
    preset: Option<Account>,
    refused_at: Option<i64>,
}

/// One tenant's recordings.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    rules: Rules,
    recordings: BTreeMap<String, Recording>,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            rules: Rules {
                history: History::Scope,
                old_after: Duration::from_secs(24 * 3600),
                delay: Duration::ZERO,
                purview_delay: None,
                user_bound: false,
            },
            recordings: BTreeMap::new(),
        }
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Archive {
    /// The recording that a session is kept as.
    pub(super) fn open(&mut self, tenant: &str, host: &str, session: &str, now: i64) -> String {
        let name = format!("{tenant}\0{host}\0{session}");
        let hash = digest(&SHA256, name.as_bytes());
        let id = format!("rec-{}", keys::hex(&hash.as_ref()[..12]));
        self.recordings
            .entry(id.clone())
            .or_insert_with(|| Recording {
                host: host.to_owned(),
                session: session.to_owned(),
                created: now,
                preset: None,
                refused_at: None,
            });
        id
    }

    /// Merges a change: all of it or, where it is refused, nothing.
    pub(super) fn changed(&self, change: &Value, now: i64) -> Result<Self, Reply> {
        let members = [
            "history",
            "old_after_ms",
            "delay_ms",
            "purview_delay_ms",
            "user_bound",
            "add",
        ];
        let fields = Fields::of(change, "recordings.", &members)?;
        let mut new = self.clone();
        let rules = &mut new.rules;
        for (name, value) in fields.members() {
            match name {
                "history" => {
                    rules.history = match fields.text(name)? {
                        "open" => History::Open,
                        "scope" => History::Scope,
                        "user" => History::User,
                        "refused" => History::Refused,
                        _ => {
                            return Err(
                                fields.refuse(name, "is none of open, scope, user, refused")
                            );
                        }
                    }
                }
                "old_after_ms" => rules.old_after = Duration::from_millis(fields.count(name)?),
                "delay_ms" => rules.delay = Duration::from_millis(fields.count(name)?),
                "purview_delay_ms" if value.is_null() => rules.purview_delay = None,
                "purview_delay_ms" => {
                    rules.purview_delay = Some(Duration::from_millis(fields.count(name)?));
                }
                "user_bound" => rules.user_bound = fields.flag(name)?,
                _ => {}
            }
        }
        if fields.optional("add").is_some() {
            for (index, value) in fields.list("add")?.iter().enumerate() {
                let (id, recording) = preset(value, &format!("recordings.add[{index}]."), now)?;
                new.recordings.insert(id, recording);
            }
        }
        Ok(new)
    }

    fn is_visible(&self, recording: &Recording, now: i64) -> bool {
        now >= recording.created.saturating_add(millis(self.rules.delay))
    }

    /// For a token with these scopes, that may speak for a user.
    fn is_open(
        &self,
        recording: &Recording,
        (scopes, is_user): (&[String], bool),
        now: i64,
    ) -> bool {
        let rules = &self.rules;
        if now < recording.created.saturating_add(millis(rules.old_after)) {
            return true;
        }
        let waited = rules.purview_delay.zip(recording.refused_at);
        if waited.is_some_and(|(delay, at)| now >= at.saturating_add(millis(delay))) {
            return true;
        }
        match rules.history {
            History::Open => true,
            History::Scope => [READ_SCOPE, WRITE_SCOPE]
                .iter()
                .all(|needed| scopes.iter().any(|scope| scope == needed)),
            History::User => rules.user_bound || is_user,
            History::Refused => false,
        }
    }
}

impl World {
    /// Merges what `recordings` of a change says into a tenant's archive, which is given back by [`Self::keep_archive`].
    pub(super) fn changed_archive(
        &self,
        name: &str,
        change: &Value,
        wall: i64,
    ) -> Result<Archive, Reply> {
        match self.tenants.get(name) {
            Some(tenant) => tenant.archive.changed(change, wall),
            None => Err(Reply::error(
                404,
                "not.found",
                &format!("no tenant {name:?}"),
            )),
        }
    }

    pub(super) fn keep_archive(&mut self, name: &str, archive: Archive) {
        if let Some(tenant) = self.tenants.get_mut(name) {
            tenant.archive = archive;
        }
    }
}

/// `{"id", "session", "age_ms", "chunks", "bytes"}`, the last two as many as one likes.
fn preset(value: &Value, at: &str, now: i64) -> Result<(String, Recording), Reply> {
    let fields = Fields::of(value, at, &["id", "session", "age_ms", "chunks", "bytes"])?;
    let count = |name: &str| fields.optional(name).map_or(Ok(1), |_| fields.count(name));
    let id = fields.text("id")?;
    let safe = |c: char| c.is_ascii_alphanumeric() || "._:@+=-".contains(c);
    if id.is_empty() || !id.chars().all(safe) {
        return Err(fields.refuse("id", "is not safe in a path"));
    }
    let age = Duration::from_millis(fields.count("age_ms")?);
    let session = match fields.optional("session") {
        Some(_) => fields.text("session")?,
        None => id,
    };
    let recording = Recording {
        host: "rec-before".to_owned(),
        session: session.to_owned(),
        created: now.saturating_sub(millis(age)),
        preset: Some(Account {
            chunks: count("chunks")?,
            bytes: count("bytes")?,
            digest: [0; 32],
            gaps: Vec::new(),
        }),
        refused_at: None,
    };
    Ok((id.to_owned(), recording))
}

/// A question as it came.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) token: Option<String>,
    /// `None`: the list.
    pub(super) id: Option<String>,
    pub(super) query: BTreeMap<String, String>,
    /// Since the emulator's start.
    pub(super) arrived_at: Duration,
    pub(super) wall_seconds: u64,
    /// Milliseconds after the Unix epoch.
    pub(super) wall: i64,
}

/// Answers it. What the token lacks in rights is told before whether there is such a recording.
pub(super) fn answer(world: &mut World, question: &Question, now: Duration) -> Reply {
    let (standing, tenant) = world.standing(question.token.as_deref(), question.arrived_at);
    let (Standing::Good { scopes, user }, Some(name)) = (&standing, tenant.as_deref()) else {
        return unauthorized(&standing);
    };
    let token = question.token.as_deref();
    let mut reply = within_rights(world, name, (scopes, user.is_some()))
        .and_then(|()| within_quota(world, name, token, now))
        .and_then(|()| match &question.id {
            Some(id) => one(world, name, id, (scopes, user.is_some()), question.wall),
            None => list(world, name, question),
        })
        .unwrap_or_else(|refusal| refusal);
    if let Some(quota) = &world.tenants[name].settings.quota {
        reply
            .headers
            .extend(quota.headers(token, now, question.wall_seconds));
    }
    reply
}

fn within_rights(world: &World, name: &str, scopes: (&[String], bool)) -> Result<(), Reply> {
    let (settings, (scopes, is_user)) = (&world.tenants[name].settings, scopes);
    settings.rights.may_fetch(is_user)?;
    if settings.scopes.contains(READ_SCOPE) && scopes.iter().any(|scope| scope == READ_SCOPE) {
        return Ok(());
    }
    Err(match settings.refusal {
        Refusal::InsufficientScope => Reply::error(
            403,
            "not.authorized",
            "You are not authorized to perform the requested action.",
        )
        .with(
            "WWW-Authenticate",
            &format!(
                "Bearer realm=\"sandbox\", error=\"insufficient_scope\", scope=\"{READ_SCOPE}\""
            ),
        ),
        Refusal::MissingPermissions => Reply::error(
            403,
            "missing.permissions",
            &format!(
                "Unable to perform the requested action. You are missing the following permission(s): {PERMISSIONS}"
            ),
        ),
    })
}

fn one(
    world: &mut World,
    name: &str,
    id: &str,
    (scopes, is_user): (&[String], bool),
    now: i64,
) -> Result<Reply, Reply> {
    let tenant = world
        .tenants
        .get_mut(name)
        .expect("the token names a tenant");
    let archive = &tenant.archive;
    let found = archive
        .recordings
        .get(id)
        .filter(|found| archive.is_visible(found, now));
    let recording = found.ok_or_else(|| standard(404))?.clone();
    if !archive.is_open(&recording, (scopes, is_user), now) {
        if let Some(refused) = tenant.archive.recordings.get_mut(id) {
            refused.refused_at.get_or_insert(now);
        }
        return Err(purview());
    }
    let place = (recording.host.clone(), recording.session.clone());
    let session = tenant.sessions.get(&place);
    let account = recording
        .preset
        .clone()
        .or_else(|| session.map(super::session::Session::account));
    let account = account.ok_or_else(|| standard(404))?;
    let gaps: Vec<Value> = account
        .gaps
        .iter()
        .map(|(first, last)| json!({"first": first, "last": last}))
        .collect();
    Ok(Reply::json(
        200,
        json!({
            "id": id,
            "session": recording.session,
            "host": recording.host,
            "organizationId": tenant.settings.organization,
            "status": "available",
            "chunks": account.chunks,
            "bytes": account.bytes,
            "digest": format!("blake3:{}", keys::hex(&account.digest)),
            "gaps": gaps,
            "startTime": time(recording.created),
            "mediaType": "video/mp4",
        }),
    ))
}

fn purview() -> Reply {
    let why = "The provided purview ID does not match the token's scope.";
    Reply::field(422, "purview.mismatch", "purview", why)
}

fn time(millis: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

/// A page of the list, in the order of ids: what is visible and not older than `since`.
fn list(world: &World, name: &str, question: &Question) -> Result<Reply, Reply> {
    let known = ["since", "pageSize", "cursor"];
    if let Some(extra) = question
        .query
        .keys()
        .find(|name| !known.contains(&name.as_str()))
    {
        return Err(refuse(extra, "is not a known parameter"));
    }
    let text = |name: &str| question.query.get(name).map(String::as_str);
    let since = text("since")
        .and_then(super::fields::instant)
        .ok_or_else(|| refuse("since", "is no time with milliseconds and a Z"))?;
    let size: usize = text("pageSize")
        .and_then(|size| size.parse().ok())
        .filter(|size| (1..=1000).contains(size))
        .ok_or_else(|| refuse("pageSize", "is not 1 to 1000"))?;
    let archive = &world.tenants[name].archive;
    let after = text("cursor").unwrap_or("");
    let mut behind = archive
        .recordings
        .iter()
        .filter(|(id, found)| {
            id.as_str() > after
                && found.created >= since
                && archive.is_visible(found, question.wall)
        })
        .peekable();
    let page: Vec<_> = behind.by_ref().take(size).collect();
    let next = behind.peek().and(page.last()).map(|(id, _)| (*id).clone());
    let entities: Vec<Value> = page
        .into_iter()
        .map(|(id, found)| json!({"id": id, "session": found.session, "startTime": time(found.created)}))
        .collect();
    Ok(Reply::json(
        200,
        json!({"entities": entities, "nextCursor": next}),
    ))
}
