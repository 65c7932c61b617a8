//! The platform emulator: a token endpoint, the json upload endpoints, a ledger of what arrived and a script of faults, on a
//! loopback address. It imports no other module of this crate and reads JSON by hand from docs/PROTOCOL.md, so that a misreading
//! on one side does not cancel the same misreading on the other.

mod app;
mod assertion;
mod config_file;
mod content;
mod control;
mod deliver;
mod fault;
mod fields;
mod form;
mod grants;
mod keys;
mod ledger;
mod md5;
mod presign;
mod quota;
mod recordings;
mod reply;
mod rights;
mod serve;
mod session;
mod settings;
mod store_host;
mod tenant;
mod token;
mod upload;
mod uploads;
mod websocket;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use app::App;
pub use config_file::{ConfigFileError, Grants};
use fault::Script;
use session::Spool;
use wire::{OnWire, Switchboard, Wires};
use world::World;

/// How an emulator is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How many tenants there are: `acme`, `globex`, `initech`, then `t4`, `t5`, …
    pub tenants: usize,
    /// A fault script to begin with.
    pub faults: Option<PathBuf>,
    /// Where to write a ready configuration.
    pub write_config: Option<PathBuf>,
    /// Which grants the configuration uses.
    pub grants: Grants,
    pub token_life: Duration,
    /// Lives that differ from `token_life`, by tenant.
    pub token_life_of: BTreeMap<String, Duration>,
    /// A larger request body is refused with 413.
    pub body_bytes_max: u64,
    /// Payload kept on disk in all; more is refused with 507.
    pub stored_bytes_max: u64,
    /// Secrets, tokens and correlation ids are a function of it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tenants: 3,
            faults: None,
            write_config: None,
            grants: Grants::default(),
            token_life: Duration::from_secs(3600),
            token_life_of: BTreeMap::new(),
            body_bytes_max: 64 * 1024 * 1024,
            stored_bytes_max: 8 * 1024 * 1024 * 1024,
            seed: 0,
        }
    }
}

/// More tenants than this are a slip of the finger.
const TENANTS_MAX: usize = 10_000;

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("{listen} is not a loopback address; the sandbox listens on nothing else")]
    NotLoopback { listen: SocketAddr },
    #[error("{count} tenants; possible are 1 to {TENANTS_MAX}")]
    Tenants { count: usize },
    #[error("no tenant {name:?} to give a token life to")]
    UnknownTenant { name: String },
    #[error("listening on {listen}")]
    Listen {
        listen: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("opening a temporary file for payloads")]
    Spool(#[source] io::Error),
    #[error("reading the fault script {}", path.display())]
    ReadFaults {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("fault script {}: {reason}", path.display())]
    Faults { path: PathBuf, reason: String },
    #[error(transparent)]
    Config(#[from] ConfigFileError),
    #[error("printing the address")]
    Print(#[source] io::Error),
}

/// A running emulator. Dropping it ends it too, without waiting.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    app: Arc<App>,
    switchboard: Switchboard,
    serving: JoinHandle<()>,
}

impl Running {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Such as `http://127.0.0.1:4000`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A tenant's client id and secret.
    pub fn credentials(&self, tenant: &str) -> Option<(String, String)> {
        let world = self.app.world();
        let tenant = world.tenants.get(tenant)?;
        Some((tenant.client_id.clone(), tenant.settings.secret.clone()))
    }

    /// The same as `GET /_sandbox/ledger`.
    ///
    /// # Errors
    /// Reading the stored payloads failed.
    pub fn ledger(&self) -> io::Result<Value> {
        self.app.world().ledger()
    }

    /// Ends at once: the port refuses, and open connections are cut.
    pub async fn stop(mut self) {
        self.end();
        // How it ended does not matter any more; from here on nothing is accepted.
        let _ = (&mut self.serving).await;
        self.switchboard.cut_all();
    }

    fn end(&self) {
        self.app.stop.cancel();
        self.switchboard.cut_all();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        self.serving.abort();
    }
}

/// Starts an emulator in this process.
///
/// # Errors
/// The address is not loopback or not to be had, or a file that the options name is unusable.
pub async fn start(options: &Options) -> Result<Running, SandboxError> {
    let app = Arc::new(build(options)?);
    let listen = options.listen;
    let refused = |source| SandboxError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    if let Some(path) = &options.write_config {
        let base_url = format!("http://{addr}");
        config_file::write(path, &base_url, &mut app.world(), options.grants)?;
    }
    let switchboard = Switchboard::default();
    let wires = Wires::new(listener, switchboard.clone());
    let service = control::router(Arc::clone(&app))
        .merge(serve::router(Arc::clone(&app)))
        .into_make_service_with_connect_info::<OnWire>();
    let stop = app.stop.clone();
    let serving = tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            _ = async { axum::serve(wires, service).await } => {}
        }
    });
    Ok(Running {
        addr,
        app,
        switchboard,
        serving,
    })
}

fn build(options: &Options) -> Result<App, SandboxError> {
    let listen = options.listen;
    if !listen.ip().is_loopback() {
        return Err(SandboxError::NotLoopback { listen });
    }
    let count = options.tenants;
    if !(1..=TENANTS_MAX).contains(&count) {
        return Err(SandboxError::Tenants { count });
    }
    let spool = Spool::new(options.stored_bytes_max).map_err(SandboxError::Spool)?;
    let mut world = World::new(count, options.seed, options.token_life, spool);
    for (name, life) in &options.token_life_of {
        match world.tenants.get_mut(name) {
            Some(tenant) => tenant.settings.token_life = *life,
            None => return Err(SandboxError::UnknownTenant { name: name.clone() }),
        }
    }
    if options.grants.exchange() {
        world.add_partner(options.token_life);
    }
    let script = match &options.faults {
        Some(path) => read_script(path)?,
        None => Script::default(),
    };
    Ok(App::new(world, script, options.body_bytes_max))
}

fn read_script(path: &Path) -> Result<Script, SandboxError> {
    let bytes = std::fs::read(path).map_err(|source| SandboxError::ReadFaults {
        path: path.to_owned(),
        source,
    })?;
    let unusable = |reason: String| SandboxError::Faults {
        path: path.to_owned(),
        reason,
    };
    let json: Value =
        serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
    let mut script = Script::default();
    script
        .extend(&json, Duration::ZERO)
        .map_err(|refusal| unusable(refusal.message()))?;
    Ok(script)
}

/// Runs an emulator until `stop` ends, after telling on standard output where it listens and what to type next.
///
/// # Errors
/// As [`start`]; or standard output is gone.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), SandboxError> {
    let running = start(&options).await?;
    greet(&running, &options).map_err(SandboxError::Print)?;
    stop.await;
    running.stop().await;
    Ok(())
}

fn greet(running: &Running, options: &Options) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", running.base_url())?;
    let config = match &options.write_config {
        Some(path) => shell_word(&path.to_string_lossy()),
        None => {
            writeln!(
                out,
                "# --write-config worker.toml writes the configuration that these need"
            )?;
            "worker.toml".to_owned()
        }
    };
    let tenant = world::tenant_name(0);
    writeln!(
        out,
        "worker enqueue --config {config} --tenant {tenant} --session s1 FILE"
    )?;
    writeln!(out, "worker drain --config {config}")?;
    out.flush()
}

/// A word that a shell reads as it is written.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
