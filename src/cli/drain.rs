//! `worker drain`: by itself if nobody holds the store, by asking the holder if somebody does. A drain that is
//! asked to hand the store over goes on as a question to the new holder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::control::answer::snapshot;
use crate::control::client::Client;
use crate::control::wire::{DrainOutcome, DrainReport, DrainSpec, Reply, Request};
use crate::control::{Access, Code, Reach, Refusal};
use crate::model::{PAUSED, Snapshot, TenantId};
use crate::service::drain as service;
use crate::service::hold::{Held, Watch};

use super::desk::{Desk, odd, span};
use super::meter::Meter;
use super::run::check_secrets;
use super::stop::Stop;
use super::{exit, render};

/// Deliver what is queued now, then say what is left and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  worker drain --timeout 30min")]
pub struct Args {
    /// Only this tenant's chunks
    #[arg(long)]
    tenant: Option<TenantId>,
    /// End after this long, done or not
    #[arg(long, value_name = "SPAN", value_parser = span)]
    timeout: Option<Duration>,
    /// Give up on a tenant that could go on only after this long
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    patience: Duration,
}

/// Between two looks at another process's numbers.
const LOOK: Duration = Duration::from_millis(500);
/// Where no line moves, the numbers are looked at once in so many looks: they cost the holder something.
const PLAIN_LOOKS: u32 = 4;
/// A drain can change hands this often; more is a quarrel between services.
const HOLDERS: usize = 8;

pub fn run(args: Args, desk: &Desk) -> Result<u8, Stop> {
    let config = desk.config()?;
    if let Some(tenant) = &args.tenant
        && !config.tenants.contains_key(tenant)
    {
        let known = config.tenant_names();
        let message = format!("unknown tenant \"{tenant}\"; configured: {known}");
        return Err(Stop::new(Code::UnknownTenant, message));
    }
    check_secrets(&config)?;
    let spec = DrainSpec {
        tenant: args.tenant,
        timeout: args.timeout,
        patience: args.patience,
    };
    let report = drain(&desk.reach_with(config), spec, desk)?;
    let now = desk.clock.wall();
    desk.out.answer(&report, || {
        let table = render::drain_table(&report, now);
        format!("{table}\n{}", render::drain_line(&report, now))
    });
    desk.out.next(&next(&report));
    Ok(exit_code(&report))
}

/// The whole's code is the strongest of its tenants'.
fn exit_code(report: &DrainReport) -> u8 {
    let of_tenants = report
        .tenants
        .values()
        .map(|part| exit::of_drain(part.outcome));
    exit::strongest(of_tenants.chain([exit::of_drain(report.outcome)]))
}

fn next(report: &DrainReport) -> String {
    let next = match report.outcome {
        DrainOutcome::Blocked if let Some(tenant) = all_paused(report) => {
            return format!("worker tenants resume {tenant}");
        }
        DrainOutcome::DeadLeft if report.tenants.values().all(|part| part.dead == 0) => {
            "worker fsck"
        }
        DrainOutcome::DeadLeft => "worker dead list",
        DrainOutcome::Blocked | DrainOutcome::Unreachable => "worker check --online",
        _ => "worker --stats",
    };
    next.to_owned()
}

/// The first of the tenants that are blocked, if every one of them is merely paused.
fn all_paused(report: &DrainReport) -> Option<&str> {
    let blocked = report.tenants.iter();
    let mut blocked = blocked.filter(|(_, part)| part.outcome == DrainOutcome::Blocked);
    let first = blocked.clone().next()?.0;
    blocked
        .all(|(_, part)| part.reason == PAUSED)
        .then_some(first.as_str())
}

fn drain(reach: &Reach, mut spec: DrainSpec, desk: &Desk) -> Result<DrainReport, Stop> {
    let start = desk.clock.now();
    let whole = spec.timeout;
    let mut before: Option<DrainReport> = None;
    let meter = Meter::new(desk, spec.tenant.clone());
    for _ in 0..HOLDERS {
        spec.timeout = whole.map(|whole| whole.saturating_sub(desk.clock.now().since(start)));
        let report = match reach.reach()? {
            Access::Open(holder) => own(*holder, spec.clone(), (desk, &meter))?,
            Access::Asked(client, _) => match asked(reach, &client, spec.clone(), (desk, &meter)) {
                Err(refusal) if refusal.code == Code::Closing => continue,
                report => report?,
            },
        };
        let again = report.handed_over;
        let report = match before.take() {
            Some(before) => service::joined(before, report),
            None => report,
        };
        if !again {
            return Ok(report);
        }
        before = Some(report);
        reach.wait_for_successor();
    }
    before.ok_or_else(|| Stop::new(Code::Held, "the store changed hands too often; run again"))
}

/// How many looks go by from one question for the numbers to the next.
fn looks(desk: &Desk) -> u32 {
    match desk.out.shows_progress() {
        true => 1,
        false => PLAIN_LOOKS,
    }
}

fn own(
    holder: crate::control::Holder,
    spec: DrainSpec,
    (desk, meter): (&Desk, &Meter),
) -> Result<DrainReport, Stop> {
    // What is delivered before the first look counts too.
    if desk.out.shows_remarks() {
        meter.show(&snapshot(&holder));
    }
    let tell = |snapshot: &Snapshot| meter.show(snapshot);
    let looks = looks(desk);
    let watch = Watch { tell: &tell, looks };
    let held = service::drain(holder, spec, desk.out.shows_remarks().then_some(watch))?;
    match held {
        Held::Done(report) => Ok(report),
        Held::Signalled => Err(Stop::new(Code::Closing, "drain interrupted; run again")),
        Held::Faulted(cause) => Err(Stop::new(Code::Internal, format!("engine: {cause}"))),
    }
}

/// The holder drains; a second connection watches its numbers meanwhile.
fn asked(
    reach: &Reach,
    client: &Client,
    spec: DrainSpec,
    (desk, meter): (&Desk, &Meter),
) -> Result<DrainReport, Refusal> {
    let done = Arc::new(AtomicBool::new(false));
    let looks = looks(desk);
    let reply = std::thread::scope(|scope| {
        let watched = desk
            .out
            .shows_remarks()
            .then(|| scope.spawn(|| watch(&reach.config.store.path, &done, meter, looks)));
        let reply = client.ask(&Request::Drain(spec));
        done.store(true, Ordering::Relaxed);
        if let Some(watched) = watched {
            watched.thread().unpark();
            watched.join().expect("watching does not panic");
        }
        reply
    })?;
    match reply {
        Reply::Drained(report) => Ok(report),
        reply => Err(odd(&reply).refusal),
    }
}

fn watch(store: &std::path::Path, done: &AtomicBool, meter: &Meter, looks: u32) {
    let Ok(client) = Client::of_store(store) else {
        return;
    };
    while !done.load(Ordering::Relaxed) {
        if let Ok(Reply::Stats(snapshot)) = client.ask(&Request::Stats {}) {
            meter.show(&snapshot);
        }
        // Woken early where the drain is over.
        std::thread::park_timeout(LOOK * looks);
    }
}
