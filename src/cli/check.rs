//! `worker check`: exactly what a start would find, and with `--online` what the platforms say.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::config::{Config, Delivery};

use crate::control::wire::{Finding, Level, Reply, Request};
use crate::control::{Access, Code};
use crate::model::{GateState, PaceView, Snapshot};
use crate::policy::fit;
use crate::service::hold;

use super::desk::{Desk, odd};
use super::exit;
use super::stop::Stop;

/// Check configuration, secrets and store, and with --online tokens and platforms
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker check --online")]
pub struct Args {
    /// Ask every tenant's token endpoint for a token, and the platform whose it is
    #[arg(long)]
    online: bool,
    /// Answer one line and 0, 1 or 2, as monitoring plugins do
    #[arg(long, conflicts_with = "json")]
    nagios: bool,
}

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let looked = look(&args, desk);
    if args.nagios {
        return Ok(nagios(looked, desk));
    }
    let (findings, code) = looked?;
    desk.out
        .answer(&json!({ "findings": findings }), || text(&findings));
    desk.out.next(if code == exit::DONE {
        "worker run"
    } else {
        "worker check --online, once that is cured"
    });
    Ok(code)
}

/// The findings and the exit code that the strongest of them deserves.
fn look(args: &Args, desk: &Desk) -> Result<(Vec<Finding>, u8), Stop> {
    let config = desk.config()?;
    let mut codes = Vec::new();
    let shown = config.file.display();
    let mut findings = vec![good(
        "configuration",
        format!("{shown}: {}", config.tenant_names()),
    )];
    let secrets = config.secret_findings();
    if secrets.is_empty() {
        findings.push(good("secrets", "present, private".to_owned()));
    } else {
        codes.push(exit::CONFIG);
        findings.extend(secrets.into_iter().map(|finding| bad("secrets", finding)));
    }
    // What it finds out is told to the store, so the store is asked afterwards. A broken secret would only be reported twice.
    let online = if args.online && !codes.contains(&exit::CONFIG) {
        online(desk.reach_with(Arc::clone(&config)).reach()?)?
    } else {
        Vec::new()
    };
    let access = desk.reach_with(Arc::clone(&config)).reach()?;
    let snapshot = match access.ask(&Request::Stats {})? {
        Reply::Stats(snapshot) => snapshot,
        reply => return Err(odd(&reply)),
    };
    access.close()?;
    let of_store = store_findings(&snapshot);
    let is_critical = |finding: &Finding| finding.level == Level::Critical;
    let mut critical = of_store.iter().filter(|finding| is_critical(finding));
    if critical.clone().any(|finding| finding.what == "store") {
        codes.push(exit::STORAGE);
    }
    if snapshot.balance.dead > 0 || !snapshot.balance.balanced {
        codes.push(exit::LEFT);
    }
    if critical.any(|finding| finding.what.starts_with("tenant")) || online.iter().any(is_critical)
    {
        codes.push(exit::BLOCKED);
    }
    let news: Vec<_> = online
        .into_iter()
        .filter(|finding| !is_told(finding, &of_store))
        .map(|finding| with_limits(finding, &snapshot))
        .collect();
    findings.extend(of_store);
    findings.extend(fit_findings(&config, &snapshot));
    findings.extend(news);
    Ok((findings, exit::strongest(codes)))
}

/// Whether a tenant's gate says it already: one trouble is told once, in the words that hold its chunks.
fn is_told(online: &Finding, of_store: &[Finding]) -> bool {
    online.level != Level::Ok
        && of_store.iter().any(|gate| {
            let of_one = online.what.strip_prefix(&gate.what);
            of_one.is_some_and(|rest| rest.starts_with(':'))
                && gate.level >= online.level
                && unnumbered(&gate.message).contains(&unnumbered(&online.message))
        })
}

/// A good token, with what no question about it can tell: rights show at an upload, and this tenant has had none.
fn with_limits(mut finding: Finding, snapshot: &Snapshot) -> Finding {
    let tenant = finding.what.strip_prefix("tenant ");
    let tenant = tenant.and_then(|what| what.strip_suffix(": token"));
    let view = tenant.and_then(|tenant| snapshot.tenants.get(tenant));
    let unseen = view.is_some_and(|view| {
        view.counts.delivered.chunks == 0 && view.gate.state == GateState::Open
    });
    if unseen && finding.level == Level::Ok {
        finding
            .message
            .push_str("; its rights to upload show at the first chunk");
    }
    finding
}

/// Without its numbers, for spans that grew between two looks.
fn unnumbered(message: &str) -> String {
    message.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn online(access: Access) -> Result<Vec<Finding>, Stop> {
    match access {
        Access::Open(holder) => Ok(hold::check_online(*holder)?),
        Access::Asked(client, _) => match client.ask(&Request::CheckOnline {})? {
            Reply::Checked(findings) => Ok(findings),
            reply => Err(odd(&reply)),
        },
    }
}

fn store_findings(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &snapshot.latched {
        Some(latched) => findings.push(bad("store", latched.clone())),
        None if !snapshot.balance.balanced => {
            findings.push(bad(
                "store",
                "its balance does not hold: worker fsck".to_owned(),
            ));
        }
        None => findings.push(good(
            "store",
            super::render::balance_line(&snapshot.balance),
        )),
    }
    if snapshot.total.dead.chunks > 0 {
        let dead = crate::control::words::counted(snapshot.total.dead.chunks, "dead letter");
        findings.push(finding(
            "store",
            Level::Warning,
            format!("{dead}: worker dead list"),
        ));
    }
    if snapshot.balance.unreadable > 0 {
        let chunks = crate::control::words::chunks(snapshot.balance.unreadable);
        let text = format!("{chunks} cannot be read: worker fsck");
        findings.push(bad("store", text));
    }
    for (tenant, view) in &snapshot.tenants {
        let level = match view.gate.state {
            GateState::Open => continue,
            GateState::Paused => Level::Warning,
            GateState::Blocked => Level::Critical,
        };
        let reasons: Vec<_> = view
            .gate
            .holds
            .iter()
            .map(|hold| hold.reason.as_str())
            .collect();
        findings.push(finding(
            &format!("tenant {tenant}"),
            level,
            reasons.join("; "),
        ));
    }
    findings
}

/// Tenants whose recordings make more requests than their budget has, and what would fit.
fn fit_findings(config: &Config, snapshot: &Snapshot) -> Vec<Finding> {
    let tenants = config.tenants.values();
    tenants
        .filter_map(|tenant| {
            let view = snapshot.tenants.get(tenant.id.as_str());
            let pace = view.and_then(|view| view.pace.as_ref());
            let text = misfit(&tenant.delivery, pace)?;
            Some(finding(
                &format!("tenant {}", tenant.id),
                Level::Warning,
                text,
            ))
        })
        .collect()
}

/// `None` if it fits, or nobody knows the budget.
fn misfit(delivery: &Delivery, pace: Option<&PaceView>) -> Option<String> {
    let learned = pace.and_then(|pace| {
        let of_all = pace.allowed?.saturating_mul(60) / pace.window_s?.max(1);
        Some(of_all.saturating_mul(pace.share_percent) / 100)
    });
    let budget = learned.or(delivery.requests_per_minute)?.max(1);
    let seen = pace.map_or(0, |pace| pace.sessions);
    let sessions = delivery.sessions.unwrap_or(0).max(seen);
    let least = fit::interval(sessions, budget);
    if delivery.group.is_alone() {
        let usual = Duration::from_secs(30);
        return (least > usual).then(|| {
            format!(
                "{sessions} recordings at once, one chunk a request: {budget} requests a minute are enough for chunks of {} s \
                 and more; with groups, for any",
                least.as_secs()
            )
        });
    }
    let interval = delivery.group.max_interval;
    (least > interval).then(|| {
        format!(
            "{sessions} recordings at once make {} requests a minute with {} s in each, and its budget is {budget}: \
             intervalSeconds = {} would fit",
            fit::requests_per_minute(sessions, interval),
            interval.as_secs(),
            least.as_secs()
        )
    })
}

fn finding(what: &str, level: Level, message: String) -> Finding {
    Finding {
        what: what.to_owned(),
        level,
        message,
    }
}

fn good(what: &str, message: String) -> Finding {
    finding(what, Level::Ok, message)
}

fn bad(what: &str, message: String) -> Finding {
    finding(what, Level::Critical, message)
}

fn text(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let mark = match finding.level {
            Level::Ok => "ok      ",
            Level::Warning => "warning ",
            Level::Critical => "WRONG   ",
        };
        format!("{mark}{}: {}\n", finding.what, finding.message)
    };
    findings.iter().map(line).collect()
}

/// `OK`, `WARNING` or `CRITICAL` with the strongest finding; what cannot be looked at is critical.
fn nagios(looked: Result<(Vec<Finding>, u8), Stop>, desk: &Desk) -> u8 {
    let findings = match looked {
        Ok((findings, _)) => findings,
        Err(stop) if stop.refusal.code == Code::Held => {
            vec![finding("store", Level::Warning, stop.refusal.message)]
        }
        Err(stop) => vec![bad("worker", stop.refusal.message.replace('\n', "; "))],
    };
    let (line, code) = nagios_line(&findings);
    desk.out.answer(&json!(line), || line.clone());
    code
}

fn nagios_line(findings: &[Finding]) -> (String, u8) {
    let worst = findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Ok);
    let told: Vec<_> = findings
        .iter()
        .filter(|finding| finding.level == worst)
        .map(|finding| format!("{}: {}", finding.what, finding.message))
        .collect();
    let (word, code) = match worst {
        Level::Ok => ("OK", 0),
        Level::Warning => ("WARNING", 1),
        Level::Critical => ("CRITICAL", 2),
    };
    (format!("WORKER {word} - {}", told.join("; ")), code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recordings_that_cannot_fit_are_told_with_the_interval_that_would() {
        let mut delivery = Delivery {
            sessions: Some(2000),
            requests_per_minute: Some(300),
            ..Delivery::default()
        };
        assert_eq!(misfit(&delivery, None), None, "15 min a request");
        delivery.group.max_interval = Duration::from_secs(30);
        assert_eq!(
            misfit(&delivery, None).unwrap(),
            "2000 recordings at once make 4000 requests a minute with 30 s in each, and its budget is 300: \
             intervalSeconds = 400 would fit"
        );
        let learned = PaceView {
            allowed: Some(600),
            window_s: Some(60),
            share_percent: 25,
            sessions: 3000,
            ..PaceView::default()
        };
        let text = misfit(&delivery, Some(&learned)).unwrap();
        assert!(
            text.starts_with("3000 recordings") && text.contains("budget is 150"),
            "{text}"
        );
        assert!(text.ends_with("intervalSeconds = 1200 would fit"), "{text}");
        delivery.requests_per_minute = None;
        assert_eq!(misfit(&delivery, None), None, "nobody knows the budget");
    }

    /// Seen: one wrong secret was told twice, in 300 characters each.
    #[test]
    fn what_a_gate_says_is_not_told_again_by_its_token() {
        let trouble = "token endpoint unreachable for 12 s (refused)";
        let gate = |message: &str| bad("tenant acme", message.to_owned());
        let online = |what: &str, message: &str| bad(what, message.to_owned());
        let told = |finding: &Finding, gate: Finding| is_told(finding, &[gate]);
        let token = online(
            "tenant acme: token",
            "token endpoint unreachable for 9 s (refused)",
        );
        assert!(told(&token, gate(trouble)));
        assert!(told(
            &token,
            gate(&format!("an operator paused it; {trouble}"))
        ));
        assert!(!told(&token, gate("an operator paused it")));
        let other = online("tenant acme2: token", trouble);
        assert!(!told(&other, gate(trouble)));
        let paused = finding("tenant acme", Level::Warning, trouble.to_owned());
        assert!(!told(&token, paused), "it is worse than the gate says");
    }

    #[test]
    fn monitoring_hears_the_strongest_finding_and_its_number() {
        let findings = [
            good("configuration", "fine".into()),
            finding("store", Level::Warning, "1 dead letter".into()),
        ];
        let (line, code) = nagios_line(&findings);
        assert_eq!(
            (line.as_str(), code),
            ("WORKER WARNING - store: 1 dead letter", 1)
        );
        assert_eq!(nagios_line(&findings[..1]).1, 0);
        assert_eq!(nagios_line(&[bad("tenant acme", "blocked".into())]).1, 2);
    }
}
