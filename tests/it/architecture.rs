//! The floors of the crate and the fences around its dependencies, read from the sources. A test module may do as it
//! likes; everything else keeps to its own folder and what lies below.

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first. Those that share a line know nothing of each other.
const FLOORS: [&[&str]; 10] = [
    &["model"],
    &["policy"],
    &["clock"],
    &["chance", "disk", "http", "sabotage"],
    &["store", "auth", "platform"],
    &["engine", "intake"],
    &["config"],
    &["control"],
    &["service", "demo", "sandbox"],
    &["cli", "fuzz"],
];

/// The only places that may name a crate.
const FENCES: [(&str, &[&str]); 7] = [
    ("sled", &["store/index/"]),
    (
        "reqwest",
        &[
            "http.rs",
            "platform/",
            "auth/",
            "control/client.rs",
            // Urls, read by the parser that sends to them.
            "config/tenant.rs",
            "demo/",
        ],
    ),
    ("tokio_tungstenite", &["platform/websocket/pump.rs"]),
    ("bincode", &["store/record.rs"]),
    ("backoff", &["policy/backoff.rs"]),
    ("clap", &["cli/"]),
    ("toml", &["config/", "sandbox/config_file.rs"]),
];

const LINES_MAX: usize = 400;
/// Not split yet; none may grow, and whoever gets one below the limit strikes it out here.
const STILL_LARGE: [(&str, usize); 1] = [("disk/simulated.rs", 405)];

/// A source file without its test module.
struct Source {
    /// Below `src`, such as `store/index/mod.rs`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let text = match text.find("#[cfg(test)]\nmod tests {") {
            Some(tests) => &text[..tests],
            None => text,
        };
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Whether it is nothing but tests.
    fn is_test(path: &str) -> bool {
        path.ends_with("tests.rs") || path.contains("tests/")
    }

    /// `store`, `clock`; `None` for the crate's root.
    fn module(&self) -> Option<&str> {
        let first = self.path.split('/').next()?;
        let module = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(module, "lib" | "main")).then_some(module)
    }

    /// The lines of code with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate();
        numbered
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }

    /// How many `super` lead to the crate's root.
    fn depth(&self) -> usize {
        let inner = !self.path.ends_with("/mod.rs");
        self.path.matches('/').count() + usize::from(inner)
    }

    /// The modules that a line names after `crate::`, also in a group.
    fn modules_in(line: &str) -> Vec<&str> {
        let mut named = Vec::new();
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                None => named.push(word(rest)),
                Some(group) => named.extend(group.split(',').map(|part| word(part.trim()))),
            }
        }
        named.retain(|name| !name.is_empty());
        named
    }

    /// Whether a line names the crate, and not a module of ours that is called the same.
    fn names(&self, line: &str, name: &str) -> bool {
        if !line.contains(name) {
            return false;
        }
        let own = [
            format!("::{name};"),
            format!("::{name}::{{self"),
            format!("mod {name};"),
        ];
        let has_own = own.iter().any(|own| self.text.contains(own.as_str()))
            || self.text.contains(&format!("{name}::{{self"));
        // A path that begins here, at the root or at a name.
        let begins = |path: String| {
            line.match_indices(&path).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            })
        };
        begins(format!("::{name}::"))
            || line.trim_start().starts_with(&format!("use {name}::"))
            || !has_own && begins(format!("{name}::"))
    }
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn findings(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let path = &source.path;
    if !source.text.starts_with("//!") {
        found.push(format!("{path} does not say what it is (//!)"));
    }
    let lines = source.text.lines().count();
    let limit = STILL_LARGE.iter().find(|(large, _)| large == path);
    let limit = limit.map_or(LINES_MAX, |(_, limit)| *limit);
    if lines > limit {
        found.push(format!("{path} has {lines} lines; the limit is {limit}"));
    }
    if let Some(module) = source.module() {
        imports(source, module, &mut found);
    }
    for (name, places) in FENCES {
        if places.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in source.code().filter(|(_, line)| source.names(line, name)) {
            found.push(format!("{path}:{number} names {name}: {}", line.trim()));
        }
    }
    found
}

fn imports(source: &Source, module: &str, found: &mut Vec<String>) {
    let path = &source.path;
    let Some(own) = floor(module) else {
        found.push(format!("{path}: {module} stands on no floor"));
        return;
    };
    let escape = "super::".repeat(source.depth());
    for (number, line) in source.code() {
        if line.contains(&escape) {
            found.push(format!("{path}:{number} leaves its folder by super"));
        }
        for other in Source::modules_in(line) {
            let below = floor(other).is_some_and(|floor| floor < own);
            if other != module && (!below || module == "sandbox") {
                found.push(format!("{path}:{number} {module} imports {other}"));
            }
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn collect(folder: &Path, into: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
            continue;
        }
        let below = path.strip_prefix(root()).unwrap().to_str().unwrap();
        if below.ends_with(".rs") && !Source::is_test(below) {
            into.push(Source::new(below, &fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_file_keeps_to_its_floor_its_fences_and_its_size() {
    let mut sources = Vec::new();
    collect(&root(), &mut sources);
    assert!(sources.len() > 100, "{} sources", sources.len());
    let found: Vec<_> = sources.iter().flat_map(findings).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    for (path, _) in STILL_LARGE {
        let large = sources.iter().find(|source| source.path == path);
        let lines = large.map_or(0, |source| source.text.lines().count());
        assert!(lines > LINES_MAX, "{path} has {lines} lines: strike it out");
    }
    for (name, places) in FENCES {
        let inside = sources
            .iter()
            .filter(|source| places.iter().any(|place| source.path.starts_with(place)));
        let used = inside.flat_map(|source| source.code().map(move |(_, line)| (source, line)));
        let mut used = used.filter(|(source, line)| source.names(line, name));
        assert!(
            used.next().is_some(),
            "{name} is used nowhere: the fence guards nothing"
        );
    }
}

#[test]
fn a_breach_of_each_rule_is_found() {
    for (path, text, finding) in [
        ("store/a.rs", "use crate::auth::Slot;", "store imports auth"),
        (
            "policy/a.rs",
            "use crate::{model::Route, clock};",
            "policy imports clock",
        ),
        (
            "control/a.rs",
            "fn f() { crate::cli::main() }",
            "control imports cli",
        ),
        (
            "sandbox/a.rs",
            "use crate::model::Digest;",
            "sandbox imports model",
        ),
        (
            "engine/gate.rs",
            "use super::super::cli;",
            "leaves its folder by super",
        ),
        (
            "engine/a/b.rs",
            "use super::super::super::cli;",
            "leaves its folder by super",
        ),
        ("new/a.rs", "", "new stands on no floor"),
        ("store/a.rs", "use sled::Db;", "names sled"),
        ("store/a.rs", "let db = sled::open(path);", "names sled"),
        (
            "auth/a.rs",
            "use backoff::ExponentialBackoff;",
            "names backoff",
        ),
        (
            "auth/a.rs",
            "use ::backoff::ExponentialBackoff;",
            "names backoff",
        ),
        ("engine/a.rs", "#[derive(clap::Args)]", "names clap"),
        (
            "clock.rs",
            "use crate::store::Store;",
            "clock imports store",
        ),
    ] {
        let found = findings(&Source::new(path, &format!("//! A file.\n{text}\n")));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(finding), "{text}: {found:?}");
    }
    assert_eq!(findings(&Source::new("store/a.rs", "mod a;\n")).len(), 1);
    let long = format!("//! A file.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(findings(&Source::new("store/a.rs", &long)).len(), 1);
}

#[test]
fn what_is_allowed_is_no_finding() {
    for (path, text) in [
        (
            "engine/gate.rs",
            "use super::hold::Hold;\nuse crate::store::Store;",
        ),
        ("engine/a/b.rs", "use super::super::hold::Hold;"),
        (
            "auth/slot.rs",
            "use crate::policy::backoff::{self, Backoff};\nfn f() { backoff::f() }",
        ),
        ("policy/probe.rs", "use super::backoff::probe_interval;"),
        (
            "model/a.rs",
            "// crate::store is above; sled:: too.\nuse super::Route;",
        ),
        (
            "model/a.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::store::Store;\n}",
        ),
    ] {
        let source = Source::new(path, &format!("//! A file.\n{text}\n"));
        assert_eq!(findings(&source), [""; 0], "{text}");
    }
}
