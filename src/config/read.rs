//! From files to a [`Config`]: where the file is looked for, what it includes, and its three common tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::auth::SecretPlaces;
use crate::model::{HostName, TenantId};

use super::complaint::{Complaint, ConfigError, Log};
use super::http::{self, Http};
use super::section::Section;
use super::tenant::{self, Place, Tenant};
use super::{Config, Pool, StoreConfig};

/// Where a configuration may stand.
pub struct Lookup {
    /// `--config`.
    pub given: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials: Option<PathBuf>,
}

/// Looked for in this order when `--config` is absent.
const PLACES: [&str; 2] = ["worker.toml", "/etc/reelay/worker.toml"];
/// More is not a configuration but a mistake; reading is bounded.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Enough for a file a tenant on the largest host.
const MAX_INCLUDED: usize = 10_000;

/// Where the packaged units keep it.
const DEFAULT_STORE: &str = "/var/lib/reelay";
/// One segment is one unlink; 64 MiB balances many small files against space that waits to return.
const DEFAULT_SEGMENT_BYTES: u64 = 64 << 20;
/// A day of some twenty screens at 4 Mbit/s.
const DEFAULT_MAX_BYTES: u64 = 50 << 30;
/// The capture side writes to the same disk and must not meet a full one.
const DEFAULT_MIN_FREE_BYTES: u64 = 2 << 30;
/// An hour of video in one file still fits.
const DEFAULT_MAX_CHUNK_BYTES: u64 = 1 << 30;
/// A repeated enqueue after a long weekend is still known.
const DEFAULT_REMEMBER: Duration = Duration::from_secs(7 * 86_400);
/// Keeps a 100 Mbit/s line busy at 300 ms a request of 256 KiB.
const DEFAULT_WORKERS: u64 = 16;
/// Shorter than the service manager's patience (90 s) with room to close the store.
const DEFAULT_GRACE: Duration = Duration::from_secs(20);

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PIB: u64 = 1 << 50;
const DAY: Duration = Duration::from_secs(86_400);

/// Finds, reads and checks the configuration.
///
/// # Errors
/// No file, or every finding in all files at once.
pub fn load(lookup: &Lookup) -> Result<Config, ConfigError> {
    let path = find(lookup)?;
    let shown = path.display().to_string();
    let mut complaints = Vec::new();
    let Some(text) = slurp(&path, &shown, &mut complaints) else {
        return Err(ConfigError::Wrong(complaints));
    };
    load_text(&text, &path, lookup.credentials.as_deref())
}

fn find(lookup: &Lookup) -> Result<PathBuf, ConfigError> {
    let tried = match &lookup.given {
        Some(given) => vec![given.clone()],
        None => PLACES.iter().map(PathBuf::from).collect(),
    };
    match tried.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => Err(ConfigError::Missing {
            looked: tried
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

fn slurp(path: &Path, shown: &str, complaints: &mut Vec<Complaint>) -> Option<String> {
    let text = match std::fs::metadata(path) {
        Ok(about) if about.len() > MAX_FILE_BYTES => Err("is larger than 4 MiB".to_owned()),
        Ok(about) if about.is_dir() => Err("is a directory".to_owned()),
        Ok(_) => std::fs::read_to_string(path).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    text.map_err(|text| {
        complaints.push(Complaint {
            file: shown.to_owned(),
            line: 0,
            text,
        });
    })
    .ok()
}

/// Checks a configuration text that stands in `path`; included files are read from beside it.
///
/// # Errors
/// Every finding at once.
pub fn load_text(
    text: &str,
    path: &Path,
    credentials: Option<&Path>,
) -> Result<Config, ConfigError> {
    let place = place_of(path, credentials, Http::default());
    let mut tenants = Tenants::default();
    let log = Log::new(path.display().to_string(), text);
    let main = parse(text, &log, |top| main_file(top, place, &mut tenants));
    #[cfg(test)]
    super::tests::KNOWN.with(|known| known.borrow_mut().extend(log.known.take()));
    let mut complaints = log.into_complaints();
    if let Some(main) = &main {
        for include in &main.includes {
            let place = &main.place;
            included(include, place, &mut tenants, &mut complaints);
        }
    }
    let made = main.filter(|_| complaints.is_empty()).and_then(|main| {
        Some(Config {
            file: path.to_owned(),
            store: main.store?,
            host: main.host?,
            pool: main.pool,
            tenants: tenants.read,
        })
    });
    made.ok_or(ConfigError::Wrong(complaints))
}

fn place_of(file: &Path, credentials: Option<&Path>, http: Http) -> Place {
    Place {
        secrets: SecretPlaces {
            beside_config: file.parent().unwrap_or(Path::new("")).to_owned(),
            credentials: credentials.map(Path::to_owned),
        },
        http,
    }
}

/// Parses one file and hands its top table to `read`. All syntax errors of the file are complaints,
/// by the parser's words and without its excerpt of the source.
fn parse<T>(text: &str, log: &Log, read: impl FnOnce(&Section<'_, '_>) -> T) -> Option<T> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        log.complain(at, error.message());
    }
    // What was recovered from a broken text would only add noise.
    if !errors.is_empty() {
        return None;
    }
    let top = Section::new(String::new(), document.get_ref(), 0, log);
    let made = read(&top);
    top.finish();
    Some(made)
}

struct Main {
    store: Option<StoreConfig>,
    host: Option<HostName>,
    pool: Pool,
    includes: Vec<Include>,
    /// What is around the tenants of every file, but for where it stands.
    place: Place,
}

struct Include {
    pattern: String,
    file: String,
    line: usize,
}

#[derive(Default)]
struct Tenants {
    read: BTreeMap<TenantId, Tenant>,
    /// Where each name was first seen.
    seen: BTreeMap<String, String>,
}

fn main_file(top: &Section<'_, '_>, mut place: Place, tenants: &mut Tenants) -> Main {
    if let Some(section) = top.section("http") {
        place.http = http::read(section, &place.http, &place);
    }
    read_tenants(top, &place, tenants);
    Main {
        store: store(top.section("store"), &place.secrets.beside_config),
        host: host(top),
        pool: pool(top.section("pool")),
        includes: top.texts("include").map_or_else(Vec::new, |found| {
            let include = |pattern| Include {
                pattern,
                file: top.log.file().to_owned(),
                line: found.line,
            };
            found.value.into_iter().map(include).collect()
        }),
        place,
    }
}

fn read_tenants(top: &Section<'_, '_>, place: &Place, tenants: &mut Tenants) {
    let Some(table) = top.section("tenants") else {
        return;
    };
    for (name, section) in table.named_sections() {
        let here = section.place();
        if let Some(there) = tenants.seen.get(&name) {
            section.complain(format!("tenant {name:?} stands in {there} already"));
            continue;
        }
        tenants.seen.insert(name.clone(), here);
        if let Some(tenant) = tenant::read(&name, section, place) {
            tenants.read.insert(tenant.id.clone(), tenant);
        }
    }
}

fn store(section: Option<Section<'_, '_>>, beside: &Path) -> Option<StoreConfig> {
    let mut store = StoreConfig {
        path: PathBuf::from(DEFAULT_STORE),
        segment_bytes: DEFAULT_SEGMENT_BYTES,
        max_bytes: DEFAULT_MAX_BYTES,
        min_free_bytes: DEFAULT_MIN_FREE_BYTES,
        max_chunk_bytes: DEFAULT_MAX_CHUNK_BYTES,
        remember: DEFAULT_REMEMBER,
    };
    let Some(section) = section else {
        return Some(store);
    };
    if let Some(found) = section.text("path") {
        if found.value.is_empty() {
            section
                .log
                .complain_line(found.line, "path in [store] is empty");
        }
        store.path = beside.join(found.value);
    }
    if let Some(bytes) = section.size("segment_bytes", MIB..=64 * MIB) {
        store.segment_bytes = bytes;
    }
    if let Some(bytes) = section.size("max_bytes", 16 * MIB..=PIB) {
        store.max_bytes = bytes;
    }
    if let Some(bytes) = section.size("min_free_bytes", 0..=PIB) {
        store.min_free_bytes = bytes;
    }
    if let Some(bytes) = section.size("max_chunk_bytes", 1..=64 * GIB) {
        store.max_chunk_bytes = bytes;
    }
    if let Some(span) = section.duration("remember", DAY / 24..=366 * DAY) {
        store.remember = span;
    }
    section.finish();
    Some(store)
}

fn host(top: &Section<'_, '_>) -> Option<HostName> {
    let section = top.section("host");
    let named = section.as_ref().and_then(|section| section.text("name"));
    let host = match (&named, &section) {
        (Some(found), Some(section)) => match found.value.parse() {
            Ok(host) => Some(host),
            Err(error) => {
                let text = format!("name in [host]: {error}");
                section.log.complain_line(found.line, text);
                None
            }
        },
        _ => own_name(top),
    };
    if let Some(section) = section {
        section.finish();
    }
    host
}

fn own_name(top: &Section<'_, '_>) -> Option<HostName> {
    let system = rustix::system::uname();
    match system.nodename().to_string_lossy().parse() {
        Ok(host) => Some(host),
        Err(error) => {
            top.complain(format!(
                "this machine's host name cannot be used ({error}); set name in [host]"
            ));
            None
        }
    }
}

fn pool(section: Option<Section<'_, '_>>) -> Pool {
    let (mut workers, mut grace) = (DEFAULT_WORKERS, DEFAULT_GRACE);
    if let Some(section) = section {
        workers = section.count("workers", 1..=1024).unwrap_or(workers);
        grace = section
            .duration("grace", Duration::ZERO..=Duration::from_secs(3600))
            .unwrap_or(grace);
        section.finish();
    }
    Pool {
        workers: usize::try_from(workers).expect("at most 1024"),
        grace,
    }
}

/// Reads the files of one pattern. They may hold tenants and nothing else.
fn included(
    include: &Include,
    place: &Place,
    tenants: &mut Tenants,
    complaints: &mut Vec<Complaint>,
) {
    let found = match expand(&place.secrets.beside_config, &include.pattern) {
        Ok(found) => found,
        Err(text) => {
            complaints.push(Complaint {
                file: include.file.clone(),
                line: include.line,
                text,
            });
            return;
        }
    };
    for path in found {
        let shown = path.display().to_string();
        let Some(text) = slurp(&path, &shown, complaints) else {
            continue;
        };
        let log = Log::new(shown, &text);
        let credentials = place.secrets.credentials.as_deref();
        let place = place_of(&path, credentials, place.http.clone());
        parse(&text, &log, |top| read_tenants(top, &place, tenants));
        complaints.extend(log.into_complaints());
    }
}

/// The files that a pattern names, sorted. A `*` may stand in the last part only.
fn expand(beside: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    if folder.contains('*') || name.matches('*').count() > 1 {
        return Err(format!(
            "include {pattern:?}: one * may stand in the file's name only"
        ));
    }
    let Some((before, after)) = name.split_once('*') else {
        return Ok(vec![beside.join(pattern)]);
    };
    let folder = beside.join(folder);
    // A folder that is not there yet holds no tenants yet.
    let listed = match std::fs::read_dir(if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        &folder
    }) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("include {pattern:?}: {error}")),
    };
    let mut found: Vec<PathBuf> = listed
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
                && !name.starts_with('.')
        })
        .take(MAX_INCLUDED)
        .map(|name| folder.join(name))
        .collect();
    found.sort();
    Ok(found)
}
