//! The configuration as a whole: what is refused, with which words, and what comes of a good file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

thread_local! {
    /// The keys that each section of the last read texts knew.
    pub static KNOWN: std::cell::RefCell<Vec<(String, Vec<&'static str>)>> = const { std::cell::RefCell::new(Vec::new()) };
}

const GOOD: &str = r#"
include = ["tenants.d/*.toml"]

[store]
path           = "/var/lib/reelay"
max_bytes      = "50GiB"
min_free_bytes = "2GiB"

[host]
name = "rec-017"

[pool]
workers = 16

[http]
proxy_url = "direct"

[tenants.acme]
api_url   = "https://api.example.com/"
token_url = "https://login.example.com/oauth/token"
path      = "/api/v2/analytics/screenrecordings"
transport = "json"

[tenants.acme.auth]
grant              = "client_credentials"
client_id          = "5b1c9e"
client_secret_file = "acme.secret"
scopes             = ["analytics:screenrecordings:write"]

[tenants.acme.http]
proxy_url = "http://proxy.example.com:3128"

[tenants.acme.delivery]
order       = "session"
max_retries = 10
"#;

fn read(text: &str) -> Result<Config, ConfigError> {
    load_text(text, Path::new("worker.toml"), None)
}

fn complaints(text: &str) -> Vec<String> {
    match read(text).unwrap_err() {
        ConfigError::Wrong(found) => found.iter().map(ToString::to_string).collect(),
        ConfigError::Missing { .. } => panic!("a text was given"),
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    let text = format!("{}\n", GOOD.trim_start()).replace("scopes  ", "scope   ");
    let line = 1 + text.lines().position(|l| l.starts_with("scope ")).unwrap();
    assert_eq!(
        complaints(&text),
        [format!(
            "worker.toml:{line}: unknown key \"scope\" in [tenants.acme.auth]; did you mean \"scopes\"?"
        )]
    );
}

#[test]
fn all_complaints_come_at_once_with_their_lines() {
    let text = r#"[store]
max_bytes = 50
min_free_bytes = "2 potatoes"
[pool]
workers = 0
worker = 3
[tenants."a/b"]
api_url = "ftp://x"
token_url = "http://example.com/token"
transport = "pigeon"
"#;
    let found = complaints(text);
    let lines: Vec<_> = found
        .iter()
        .map(|c| c.split(':').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(
        lines,
        ["2", "3", "5", "6", "7", "7", "8", "9", "10"],
        "{found:#?}"
    );
    assert!(
        found[0].contains("has no unit; write it like \"64MiB\""),
        "{}",
        found[0]
    );
    assert!(
        found[3].contains("did you mean \"workers\"?"),
        "{}",
        found[3]
    );
}

#[test]
fn a_syntax_error_names_its_line_and_never_repeats_it() {
    let text = "[store]\npath = \"x\"\nclient_secret = canary-secret\n[pool\n";
    let found = complaints(text);
    assert!(found[0].starts_with("worker.toml:3: "), "{found:?}");
    assert!(!found.join("\n").contains("canary"), "{found:?}");
}

#[test]
fn no_complaint_repeats_a_value_that_may_be_a_secret() {
    let text = r#"
[tenants.acme]
api_url = "https://user:canary@example.com"
token_url = "canary"
region = "us9"
[tenants.acme.auth]
grant = "canary"
client_secret = "canary"
client_secret_file = 12
scopes = ["can ary"]
"#;
    let found = complaints(text);
    assert!(found.len() >= 6, "{found:#?}");
    assert!(!found.join("\n").contains("canary"), "{found:#?}");
}

#[test]
fn both_spellings_of_one_setting_are_refused() {
    for (ours, theirs) in [
        ("max_retries = 3", "maxRetries = 3"),
        ("retry_on_401 = true", "retryOn401 = true"),
        ("max_interval = \"30s\"", "intervalSeconds = 30"),
    ] {
        let text = GOOD.replace("max_retries = 10", &format!("{ours}\n{theirs}"));
        let found = complaints(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("is another spelling of"), "{found:?}");
    }
}

#[test]
fn settings_are_accepted_as_people_write_them() {
    let text = GOOD.replace(
        "max_retries = 10",
        "maxRetries = 3\nretryOn401 = false\nintervalSeconds = 30\nrefresh_policy = \"on_401\"",
    );
    let config = read(&text).unwrap();
    let delivery = &config.tenants.values().next().unwrap().delivery;
    assert_eq!(delivery.max_retries, 3);
    assert!(!delivery.retry_on_401);
    assert_eq!(delivery.max_interval, Duration::from_secs(30));
    assert_eq!(delivery.refresh, Refresh::On401);
}

#[test]
fn a_good_file_becomes_settings() {
    let config = read(GOOD).unwrap();
    let settings = config.store_settings();
    assert_eq!(settings.max_bytes, 50 << 30);
    assert_eq!(settings.host.as_str(), "rec-017");
    assert_eq!(config.pool.workers, 16);
    assert_eq!(config.tenant_names(), "acme");
    let acme = config.tenants.values().next().unwrap();
    assert_eq!(acme.api_url, "https://api.example.com");
    assert_eq!(
        acme.delivery,
        Delivery {
            max_retries: 10,
            ..Delivery::default()
        }
    );
    assert_eq!(acme.auth.scopes, ["analytics:screenrecordings:write"]);
}

#[test]
fn included_files_add_tenants_with_their_own_lines_and_secrets() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tenants.d")).unwrap();
    let main = dir.path().join("worker.toml");
    fs::write(&main, GOOD).unwrap();
    let second = GOOD[GOOD.find("[tenants.acme]").unwrap()..].replace("acme", "globex");
    let file = dir.path().join("tenants.d/globex.toml");
    let lookup = Lookup {
        given: Some(main),
        credentials: None,
    };
    fs::write(&file, &second).unwrap();
    let config = load(&lookup).unwrap();
    assert_eq!(config.tenant_names(), "acme, globex");
    let globex = config.tenants.values().next_back().unwrap();
    assert_eq!(
        globex.auth.client_secret_file.places.beside_config,
        dir.path().join("tenants.d")
    );

    fs::write(&file, format!("{second}\n[store]\npath = \"y\"\n")).unwrap();
    let error = load(&lookup).unwrap_err().to_string();
    assert!(
        error.contains("globex.toml:20: unknown key \"store\""),
        "{error}"
    );

    fs::write(&file, second.replace("globex", "acme")).unwrap();
    let error = load(&lookup).unwrap_err().to_string();
    assert!(error.contains("tenant \"acme\" stands in"), "{error}");
}

#[test]
fn a_missing_file_says_where_it_was_looked_for_and_how_to_write_one() {
    let error = load(&Lookup {
        given: Some("/nowhere/w.toml".into()),
        credentials: None,
    })
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("/nowhere/w.toml") && error.contains("worker init"),
        "{error}"
    );
}

#[test]
fn every_key_is_documented_and_every_documented_key_is_known() {
    use std::collections::BTreeSet;
    KNOWN.with(|known| known.borrow_mut().clear());
    read(&GOOD.replace("include", "#")).unwrap();
    let known: BTreeSet<(String, String)> = KNOWN.with(|known| {
        let sections = known.borrow();
        let keys = sections.iter().flat_map(|(section, keys)| {
            let section = match section.as_str() {
                "" => "top".to_owned(),
                name => format!("`[{}]`", name.replace("acme", "T")),
            };
            keys.iter()
                .map(move |key| (section.clone(), format!("`{key}`")))
        });
        // A table is documented by its keys.
        let tables = [
            "`store`",
            "`host`",
            "`pool`",
            "`http`",
            "`tenants`",
            "`auth`",
            "`delivery`",
        ];
        keys.filter(|(_, key)| !tables.contains(&key.as_str()))
            .collect()
    });
    let text = include_str!("../../docs/OPERATING.md");
    let documented: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let section = cells
                .next()
                .filter(|s| s.starts_with("`[") || *s == "top")?;
            Some((section.to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    assert_eq!(known, documented);
    assert!(known.len() > 25, "{}", known.len());
}
