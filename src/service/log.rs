//! Logs go to standard error; under the service manager without time and colour, which it adds itself.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// A command speaks through its answer; its log is for trouble only.
const COMMAND: &str = "warn";
/// A service has no other voice.
const SERVICE: &str = "info,sled=warn";
/// Its trace is every frame whole, tokens included; no filter may ask for that.
const FRAMES: &str = "tungstenite=info";

/// Starts logging, once for the process.
///
/// # Errors
/// The filter cannot be read.
pub fn start(filter: Option<&str>, is_service: bool) -> Result<(), String> {
    let text = filter.unwrap_or(if is_service { SERVICE } else { COMMAND });
    let filter = EnvFilter::try_new(text).map_err(|error| format!("--log {text:?}: {error}"))?;
    let managed = std::env::var_os("JOURNAL_STREAM").is_some();
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(terminal && !managed)
        .with_target(false);
    let logs = if managed {
        logs.without_time().boxed()
    } else {
        logs.boxed()
    };
    let logs = logs.with_filter(without_frames(filter));
    // A second start in one process (tests) keeps the first.
    let _ = Registry::default().with(logs).with(traces()).try_init();
    Ok(())
}

fn without_frames(filter: EnvFilter) -> EnvFilter {
    filter.add_directive(FRAMES.parse().expect("it is a directive"))
}

/// In a debug build whose `REELAY_TRACES` names a directory: everything that any filter could bring out, in a file of this
/// process there, so that tests can look for secrets in it.
fn traces() -> Option<Box<dyn Layer<Traced> + Send + Sync>> {
    #[cfg(debug_assertions)]
    if let Some(folder) = std::env::var_os("REELAY_TRACES") {
        let path = std::path::Path::new(&folder).join(format!("{}.trace", std::process::id()));
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        let file = file.expect("REELAY_TRACES names a directory");
        // The index sees no secret; the frames' carrier tells nothing but its own lines. Both write as long as they work.
        let filter = EnvFilter::new("trace,sled=info,tokio_tungstenite=debug");
        let filter = without_frames(filter);
        let layer = tracing_subscriber::fmt::layer().with_ansi(false);
        let layer = layer.with_writer(std::sync::Mutex::new(file));
        return Some(layer.with_filter(filter).boxed());
    }
    None
}

/// What the second layer stands on.
type Traced = tracing_subscriber::layer::Layered<Logs, Registry>;
type Logs = tracing_subscriber::filter::Filtered<
    Box<dyn Layer<Registry> + Send + Sync>,
    EnvFilter,
    Registry,
>;
