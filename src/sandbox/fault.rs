//! The fault script: an ordered list of rules, each counting the requests that it is asked about and acting on those it is due for.
//! No chance is involved, so the same requests meet the same faults.

use std::time::Duration;

use serde_json::{Value, json};

use super::fields::{Fields, refuse};
use super::reply::{Content, Reply, standard};
use super::tenant::Place;
use super::websocket::Trouble;

/// What happens to a request instead of, or around, its normal course.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Answer(Reply),
    /// The connection is reset while the body is still being read.
    ResetMidBody,
    /// The token that the request carries is revoked before anybody looks at it.
    RevokeToken,
    /// Its life ends after half of the body.
    ExpireMidBody,
    /// Normal course, then the connection is cut instead of the answer.
    LoseReply,
    /// A wait, then the normal course.
    Stall(Duration),
    /// Normal course; the answer comes one byte at a time.
    SlowLoris(Duration),
    /// Bytes that are no HTTP.
    Garbage,
    /// A wait for a release, before the normal course.
    HoldBefore,
    /// The normal course, then a wait for a release before the answer.
    HoldAfter,
    /// A socket that is opened and goes wrong later.
    Socket(Trouble),
}

/// When a rule is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the body is read: nothing of it can be matched.
    Head,
    Body,
}

/// What rules match on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) place: Place,
    pub(super) tenant: Option<&'a str>,
    pub(super) session: Option<&'a str>,
    /// The first and the last that the request holds.
    pub(super) sequences: Option<(u64, u64)>,
}

#[derive(Debug, Clone)]
struct Rule {
    place: Place,
    phase: Phase,
    tenant: Option<String>,
    session: Option<String>,
    sequence: Option<u64>,
    /// Requests let pass before the first one that is acted on.
    after: u64,
    /// Since the emulator's start.
    not_before: Duration,
    /// `None`: for ever.
    times: Option<u64>,
    action: Action,
    asked: u64,
    fired: u64,
}

#[derive(Debug, Default)]
pub(super) struct Script {
    rules: Vec<Rule>,
}

const RULES_MAX: usize = 1000;

impl Script {
    /// Adds the rules of a JSON list, or of an object's `rules`; all of them or none. `at_ms` counts from `now`.
    pub(super) fn extend(&mut self, script: &Value, now: Duration) -> Result<(), Reply> {
        let list = script
            .as_array()
            .or_else(|| script.get("rules").and_then(Value::as_array))
            .ok_or_else(|| refuse("rules", "is not a list"))?;
        if self.rules.len() + list.len() > RULES_MAX {
            return Err(refuse("rules", &format!("are more than {RULES_MAX}")));
        }
        let rules = list
            .iter()
            .enumerate()
            .map(|(index, value)| rule(value, &format!("rules[{index}]."), now))
            .collect::<Result<Vec<_>, _>>()?;
        self.rules.extend(rules);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Asks the rules in order; the first that is due acts, and those behind it are not asked.
    pub(super) fn pick(
        &mut self,
        phase: Phase,
        subject: Subject<'_>,
        now: Duration,
    ) -> Option<Action> {
        self.rules
            .iter_mut()
            .filter(|rule| rule.phase == phase && rule.matches(subject) && now >= rule.not_before)
            .find_map(Rule::ask)
    }

    /// How often each rule was asked and acted.
    pub(super) fn view(&self) -> Value {
        let rules: Vec<Value> = self
            .rules
            .iter()
            .map(|rule| json!({"asked": rule.asked, "fired": rule.fired, "action": format!("{:?}", rule.action)}))
            .collect();
        json!({"rules": rules})
    }
}

impl Rule {
    fn matches(&self, subject: Subject<'_>) -> bool {
        self.place == subject.place
            && self
                .tenant
                .as_deref()
                .is_none_or(|wanted| subject.tenant == Some(wanted))
            && self
                .session
                .as_deref()
                .is_none_or(|wanted| subject.session == Some(wanted))
            && self.sequence.is_none_or(|wanted| {
                let held = subject.sequences;
                held.is_some_and(|(first, last)| (first..=last).contains(&wanted))
            })
    }

    fn ask(&mut self) -> Option<Action> {
        self.asked += 1;
        let due = self.asked > self.after && self.times.is_none_or(|times| self.fired < times);
        due.then(|| {
            self.fired += 1;
            self.action.clone()
        })
    }
}

fn rule(value: &Value, at: &str, now: Duration) -> Result<Rule, Reply> {
    let fields = Fields::of(
        value,
        at,
        &[
            "tenant", "route", "after", "at_ms", "times", "session", "sequence", "early", "action",
        ],
    )?;
    let text = |name| {
        fields
            .optional(name)
            .map(|_| fields.text(name).map(str::to_owned))
            .transpose()
    };
    let count = |name| {
        fields
            .optional(name)
            .map(|_| fields.count(name))
            .transpose()
    };
    let action = action(fields.value("action")?, &fields.name("action"))?;
    let early = fields
        .optional("early")
        .map(|_| fields.flag("early"))
        .transpose()?
        .unwrap_or(false);
    let place = place(&fields)?;
    let of_socket = matches!(action, Action::Socket(_));
    if of_socket && place != Place::Socket
        || place == Place::Socket && !of_socket && !matches!(action, Action::Answer(_))
    {
        return Err(fields.refuse("action", "and route do not go together"));
    }
    if early && !matches!(action, Action::Answer(_)) {
        return Err(fields.refuse("early", "goes with an answer only"));
    }
    let of_token = matches!(action, Action::RevokeToken | Action::ExpireMidBody);
    if of_token && place != Place::Deliver {
        return Err(fields.refuse("action", "and route do not go together"));
    }
    let at_head = of_token || action == Action::ResetMidBody;
    let phase = if early || at_head || place == Place::Socket {
        Phase::Head
    } else {
        Phase::Body
    };
    let (session, sequence) = (text("session")?, count("sequence")?);
    if phase == Phase::Head && (session.is_some() || sequence.is_some()) {
        return Err(fields.refuse(
            "action",
            "acts before the body is read: it cannot match session or sequence",
        ));
    }
    if matches!(place, Place::Token | Place::Fetch) && (session.is_some() || sequence.is_some()) {
        return Err(fields.refuse("route", "token and fetch have no session or sequence"));
    }
    let times = match fields.optional("times") {
        None => Some(1),
        Some(forever) if forever == "forever" => None,
        Some(_) => Some(fields.count("times")?),
    };
    Ok(Rule {
        place,
        phase,
        tenant: text("tenant")?,
        session,
        sequence,
        after: count("after")?.unwrap_or(0),
        not_before: now.saturating_add(Duration::from_millis(count("at_ms")?.unwrap_or(0))),
        times,
        action,
        asked: 0,
        fired: 0,
    })
}

fn place(fields: &Fields<'_>) -> Result<Place, Reply> {
    match fields.optional("route").and_then(Value::as_str) {
        None if fields.optional("route").is_none() => Ok(Place::Deliver),
        Some("deliver") => Ok(Place::Deliver),
        Some("token") => Ok(Place::Token),
        Some("fetch") => Ok(Place::Fetch),
        Some("store_host") => Ok(Place::Store),
        Some("report") => Ok(Place::Report),
        Some("socket") => Ok(Place::Socket),
        _ => Err(fields.refuse(
            "route",
            "is none of deliver, fetch, token, store_host, report, socket",
        )),
    }
}

/// Between two bytes of a slow answer, where the rule does not say.
const SLOW_LORIS: Duration = Duration::from_millis(200);

fn action(value: &Value, at: &str) -> Result<Action, Reply> {
    let unknown = || refuse(at, "is no known action");
    if let Some(word) = value.as_str() {
        return Ok(match word {
            "reset_mid_body" => Action::ResetMidBody,
            "revoke_token" => Action::RevokeToken,
            "expire_mid_body" => Action::ExpireMidBody,
            "lose_reply" => Action::LoseReply,
            "slow_loris" => Action::SlowLoris(SLOW_LORIS),
            "garbage" => Action::Garbage,
            "html_200" => Action::Answer(Reply::text(200, "text/html", SIGN_IN)),
            "redirect_302" => Action::Answer(
                Reply::text(302, "text/html", SIGN_IN)
                    .with("Location", "http://127.0.0.1:9/sign-in"),
            ),
            "hold" => Action::HoldBefore,
            "hold_reply" => Action::HoldAfter,
            _ => return Err(unknown()),
        });
    }
    let map = value.as_object().ok_or_else(unknown)?;
    if map.contains_key("status") {
        return answer(value, at);
    }
    if map.contains_key("socket") {
        return Trouble::read(value, at).map(Action::Socket);
    }
    let (name, span) = map
        .iter()
        .next()
        .filter(|_| map.len() == 1)
        .ok_or_else(unknown)?;
    let span = Duration::from_millis(span.as_u64().ok_or_else(unknown)?);
    match name.as_str() {
        "stall_ms" => Ok(Action::Stall(span)),
        "slow_loris_ms" => Ok(Action::SlowLoris(span)),
        _ => Err(unknown()),
    }
}

/// What a captive portal or an intercepting proxy says.
const SIGN_IN: &str = "<!doctype html><html><body><h1>Sign in to continue</h1></body></html>\n";

/// `{"status", "headers", "body"}`; without a body, what the platform says with that status.
fn answer(value: &Value, at: &str) -> Result<Action, Reply> {
    let prefix = format!("{at}.");
    let fields = Fields::of(value, &prefix, &["status", "headers", "body"])?;
    let status = u16::try_from(fields.count("status")?)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| fields.refuse("status", "is no final HTTP status"))?;
    let mut reply = match fields.optional("body") {
        None => standard(status),
        Some(Value::String(text)) => Reply::text(status, "text/plain", text),
        Some(body) => Reply::json(status, body.clone()),
    };
    let headers = fields.optional("headers").map(|headers| {
        headers
            .as_object()
            .ok_or_else(|| fields.refuse("headers", "is not an object"))
    });
    for (name, value) in headers.transpose()?.into_iter().flatten() {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                return Err(
                    fields.refuse("headers", "has a value that is neither string nor number")
                );
            }
        };
        let sendable = axum::http::HeaderName::try_from(name).is_ok()
            && axum::http::HeaderValue::try_from(&value).is_ok();
        if !sendable {
            return Err(fields.refuse("headers", "has a name or value that HTTP does not allow"));
        }
        match &mut reply.content {
            Content::Text { media_type, .. } if name.eq_ignore_ascii_case("content-type") => {
                *media_type = value
            }
            _ => reply = reply.with(name, &value),
        }
    }
    Ok(Action::Answer(reply))
}
