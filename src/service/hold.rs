//! A process that holds the store: engine and control socket from start to end, and the order in which they
//! stop. `worker run` holds until a signal; a drain holds until it is done.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use crate::control::answer::snapshot;
use crate::control::running::{Ended, Holder, Running};
use crate::control::server;
use crate::control::socket::SocketPath;
use crate::control::{Code, Refusal};
use crate::model::Snapshot;

use super::Role;
use super::notify;
use super::signals::Signals;

#[cfg(test)]
mod tests;

/// How often progress looks at the numbers, and everybody at the index.
const LOOK: Duration = Duration::from_millis(500);
/// And the status line, in looks: a snapshot asks the index for every tenant.
const STATUS_EACH: u32 = 10;
/// In-flight work after the index is lost.
const AFTER_LOSS: Duration = Duration::from_secs(5);
/// An exit that takes longer hangs.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);
/// The status of an end that must not hang on a broken index.
const EXIT_STORAGE: i32 = 74;

/// What a hold is for.
pub struct Purpose<'a, T> {
    /// Ends when the holder has done what it holds the store for.
    pub work: std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    pub watch: Option<Watch<'a>>,
}

/// Who is told the numbers: at the first look of half a second, and then at every so many.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    pub tell: &'a (dyn Fn(&Snapshot) + Send + Sync),
    pub looks: u32,
}

/// How a hold ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Held<T> {
    Done(T),
    Signalled,
    Faulted(String),
}

/// Serves the control socket while the purpose lasts; then stops the engine, removes the socket and closes the
/// store, in this order.
///
/// # Errors
/// The socket cannot be made, or the store does not close. If the index is lost this does not return: the
/// process ends with 74, because nothing that touches the index may be waited for.
pub async fn hold<T>(holder: Holder, purpose: Purpose<'_, T>) -> Result<Held<T>, Refusal> {
    let running = holder.running.clone().expect("a holder runs an engine");
    let grace = holder.config.pool.grace;
    // Before anybody can see that the store is held: who sees it may send a signal.
    let mut signals = Signals::listen()
        .map_err(|error| Refusal::new(Code::Internal, format!("signals: {error}")))?;
    let socket = SocketPath::of_store(&holder.config.store.path).map_err(|e| on_socket(&e))?;
    let listener = socket.listen().map_err(|e| on_socket(&e))?;
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned().shared();
    let serving = tokio::spawn(server::serve(listener, holder.clone(), stopped));
    notify::ready();

    let work = purpose.work;
    let held = tokio::select! {
        // A signal comes first: a drain that ends in the same moment is told as interrupted.
        biased;
        () = signals.next() => Held::Signalled,
        ended = running.ended() => match ended {
            Ended::IndexLost(cause) => leave(&*running, &cause).await,
            Ended::Fault(cause) => Held::Faulted(cause),
        },
        done = work => Held::Done(done),
        cause = look(&holder, purpose.watch) => leave(&*running, &cause).await,
    };

    notify::stopping(grace);
    tokio::select! {
        () = running.stop(grace) => {}
        // Whoever signals twice does not want to wait.
        () = signals.next() => running.stop(Duration::ZERO).await,
    }
    stop.cancel();
    // At once, so that nobody connects to a listener that takes nothing more; and before the lock goes, so that it
    // is never the next holder's socket that is removed.
    socket.remove().map_err(|e| on_socket(&e))?;
    match serving.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!("control socket: {error}"),
        Err(error) => tracing::warn!("control socket: {error}"),
    }
    drop(running);
    let Holder { store, .. } = holder;
    tokio::task::spawn_blocking(move || store.close())
        .await
        .map_err(|error| Refusal::new(Code::Internal, format!("store close: {error}")))??;
    Ok(held)
}

fn on_socket(error: &io::Error) -> Refusal {
    Refusal::new(Code::Storage, format!("control socket: {error}"))
}

/// Tells the numbers to whoever wants them. Ends with the cause when the index is lost: an engine that nothing
/// arrives at would never notice.
async fn look(holder: &Holder, watch: Option<Watch<'_>>) -> String {
    let mut told = String::new();
    for count in 0_u32.. {
        tokio::time::sleep(LOOK).await;
        if let Some(cause) = holder.store.index_lost() {
            return cause;
        }
        let watch = watch.filter(|watch| count.is_multiple_of(watch.looks));
        if watch.is_none() && !(count + 1).is_multiple_of(STATUS_EACH) {
            continue;
        }
        let asked = holder.clone();
        let Ok(snapshot) = tokio::task::spawn_blocking(move || snapshot(&asked)).await else {
            continue;
        };
        if let Some(watch) = watch {
            (watch.tell)(&snapshot);
        }
        let status = notify::status_line(&snapshot);
        if status != told {
            notify::status(&snapshot);
            told = status;
        }
    }
    std::future::pending().await
}

/// In-flight work settles for a moment in the journal; then the process ends without touching the index.
async fn leave<T>(running: &dyn Running, cause: &str) -> Held<T> {
    tracing::error!("the store's index is lost ({cause}); the next start rebuilds it");
    notify::stopping(AFTER_LOSS);
    let _ = tokio::time::timeout(AFTER_LOSS, running.stop(AFTER_LOSS)).await;
    end_without_the_index()
}

/// No destructor of the store runs: sled's would wait for threads that may never answer. What the C library still runs
/// at an exit cannot be ruled out to hang, so there is a second way (ADR 0012).
fn end_without_the_index() -> ! {
    let last_resort = std::thread::Builder::new().name("last-resort".into());
    // Without a thread to be had, the exit alone has to do.
    let _ = last_resort.spawn(|| {
        std::thread::sleep(EXIT_PATIENCE);
        std::process::abort()
    });
    std::process::exit(EXIT_STORAGE)
}

/// A runtime for a holder.
///
/// # Errors
/// No threads can be had.
pub fn runtime() -> Result<tokio::runtime::Runtime, Refusal> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("worker")
        .build()
        .map_err(|error| Refusal::new(Code::Internal, format!("runtime: {error}")))
}

/// `worker run`: holds until a signal.
///
/// # Errors
/// As [`hold`], or the engine does not start.
pub fn run(mut holder: Holder) -> Result<Held<()>, Refusal> {
    let runtime = runtime()?;
    let held = runtime.block_on(async {
        holder.running = Some(super::start(&holder, Role::of("run")).await?);
        let purpose = Purpose {
            work: Box::pin(std::future::pending::<()>()),
            watch: None,
        };
        hold(holder, purpose).await
    });
    // A blocking thread that is stuck in the system must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    held
}

/// Runs one question past an engine that starts for it, and stops it again.
///
/// # Errors
/// As [`run`].
pub fn check_online(mut holder: Holder) -> Result<Vec<crate::control::wire::Finding>, Refusal> {
    let runtime = runtime()?;
    let found = runtime.block_on(async {
        let running = super::start(&holder, Role::of("check")).await?;
        let found = running.check().await;
        running.stop(Duration::ZERO).await;
        holder.running = Some(Arc::clone(&running));
        Ok::<_, Refusal>(found)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    let found = found?;
    holder.running = None;
    holder.store.close()?;
    Ok(found)
}
