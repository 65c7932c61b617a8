//! How a hold ends. One end leaves the process, so it is tested in a process of its own.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::control::access::Access;
use crate::control::tests::support::{Desk, Fake};

fn purpose<'a, T: Send + 'a>(work: impl Future<Output = T> + Send + 'a) -> Purpose<'a, T> {
    Purpose {
        work: Box::pin(work),
        watch: None,
    }
}

fn holder(desk: &Desk, fake: Fake) -> Holder {
    desk.holder(Some(Arc::new(fake)))
}

#[test]
fn a_hold_serves_while_it_works_and_leaves_a_free_store_behind() {
    let desk = Desk::new();
    let store = desk.store().to_owned();
    let asked = async move {
        tokio::task::spawn_blocking(move || {
            let client = crate::control::client::Client::of_store(&store).unwrap();
            client.ping().unwrap().command
        })
        .await
        .unwrap()
    };
    let held = runtime()
        .unwrap()
        .block_on(hold(holder(&desk, Fake::command("drain")), purpose(asked)));
    assert_eq!(held, Ok(Held::Done("drain".to_owned())));
    assert!(!desk.store().join("control.sock").exists());
    let reach = desk.reach(Duration::from_secs(1), Arc::default());
    assert!(matches!(reach.reach().unwrap(), Access::Open(_)));
}

#[test]
fn a_fault_of_the_engine_ends_the_hold_in_order() {
    let desk = Desk::new();
    let fake = Fake::ending(Ended::Fault("the worker pool panicked".into()));
    let never = std::future::pending::<()>();
    let held = runtime()
        .unwrap()
        .block_on(hold(holder(&desk, fake), purpose(never)));
    assert_eq!(held, Ok(Held::Faulted("the worker pool panicked".into())));
    assert!(!desk.store().join("control.sock").exists());
}

const CHILD: &str = "REELAY_TEST_LOSES_ITS_INDEX";

#[test]
fn a_lost_index_ends_the_process_with_74_even_if_stopping_hangs() {
    let name = "service::hold::tests::loses_its_index";
    let start = Instant::now();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(child.code(), Some(74));
    assert!(start.elapsed() < Duration::from_secs(15));
}

/// Ends the process: does something only where the test above runs it.
#[test]
fn loses_its_index() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let desk = Desk::new();
    let fake = Fake::ending(Ended::IndexLost("it panicked".into())).that_never_stops();
    let never = std::future::pending::<()>();
    let _ = runtime()
        .unwrap()
        .block_on(hold(holder(&desk, fake), purpose(never)));
    unreachable!("the process has ended");
}
