//! How a hold ends. One end leaves the process, so it is tested in a process of its own.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
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

/// How a process ended that lost its index, and whether that took less than 15 s.
fn end_of_child(exit: &str) -> (ExitStatus, bool) {
    let start = Instant::now();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "service::hold::tests::loses_its_index"])
        .env(CHILD, exit)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    (status, start.elapsed() < Duration::from_secs(15))
}

#[test]
fn a_lost_index_ends_the_process_with_74_even_if_stopping_hangs() {
    let (status, soon) = end_of_child("quickly");
    assert_eq!((status.code(), soon), (Some(74), true));
}

#[test]
fn a_lost_index_ends_the_process_even_if_its_exit_hangs() {
    let (status, soon) = end_of_child("never");
    let sigabrt = 6;
    assert_eq!((status.signal(), soon), (Some(sigabrt), true));
}

/// The C library runs the destructors of the exiting thread, whosever they are.
struct HangsAtExit;

impl Drop for HangsAtExit {
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

thread_local! {
    static HANGS: HangsAtExit = const { HangsAtExit };
}

/// Ends the process: does something only where the tests above run it.
#[test]
fn loses_its_index() {
    let Ok(exit) = std::env::var(CHILD) else {
        return;
    };
    if exit == "never" {
        HANGS.with(|_| ());
    }
    let desk = Desk::new();
    let fake = Fake::ending(Ended::IndexLost("it panicked".into())).that_never_stops();
    let never = std::future::pending::<()>();
    let _ = runtime()
        .unwrap()
        .block_on(hold(holder(&desk, fake), purpose(never)));
    unreachable!("the process has ended");
}
