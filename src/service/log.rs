//! Logs go to standard error; under the service manager without time and colour, which it adds itself.

use tracing_subscriber::EnvFilter;

/// A command speaks through its answer; its log is for trouble only.
const COMMAND: &str = "warn";
/// A service has no other voice.
const SERVICE: &str = "info,sled=warn";

/// Starts logging, once for the process.
///
/// # Errors
/// The filter cannot be read.
pub fn start(filter: Option<&str>, is_service: bool) -> Result<(), String> {
    let text = filter.unwrap_or(if is_service { SERVICE } else { COMMAND });
    let filter = EnvFilter::try_new(text).map_err(|error| format!("--log {text:?}: {error}"))?;
    // Its trace is every frame whole, tokens included; no filter may ask for that.
    let frames = "tungstenite=info".parse().expect("it is a directive");
    let filter = filter.add_directive(frames);
    let managed = std::env::var_os("JOURNAL_STREAM").is_some();
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal && !managed)
        .with_target(false);
    // A second start in one process (tests) keeps the first.
    let _ = if managed {
        logs.without_time().try_init()
    } else {
        logs.try_init()
    };
    Ok(())
}
