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

[tenants.acme.recordings]
verify = true
[tenants.acme.http]
proxy_url = "http://proxy.example.com:3128"

[tenants.acme.delivery]
order       = "session"
max_retries = 10
group       = { max_chunks = 64 }
"#;

fn read(text: &str) -> Result<Config, ConfigError> {
    load_text(text, Path::new("worker.toml"), None)
}

/// The tenant of [`GOOD`] with another auth table.
fn with_auth(auth: &str) -> String {
    let from = GOOD.find("[tenants.acme.auth]").unwrap();
    let to = GOOD.find("[tenants.acme.delivery]").unwrap();
    let good = format!("{}{auth}{}", &GOOD[..from], &GOOD[to..]);
    good.replace("include", "#")
}

const EXCHANGE: &str = r#"
[tenants.acme.auth]
grant                = "token_exchange"
client_id            = "5b1c9e"
client_secret_file   = "acme.secret"
audience             = "org-acme"
resource             = "https://api.example.com"
requested_token_type = "access_token"
subject_token_type   = "urn:ietf:params:oauth:token-type:jwt"
scopes               = ["a"]

[tenants.acme.auth.subject]
token_url          = "https://service.example.com/token"
client_id          = "partner"
client_secret_file = "partner.secret"

[tenants.acme.auth.fallback]
grant     = "jwt_bearer"
routes    = ["fetch"]
client_id = "5b1c9e"
user      = "u"
key_file  = "acme.pem"
"#;
const JWT_BEARER: &str = r#"
[tenants.acme.auth]
grant              = "jwt_bearer"
client_id          = "5b1c9e"
client_secret_file = "acme.secret"
user               = "recorder@acme"
key_file           = "acme.pem"
key_id             = "k1"
issuer             = "reelay"
audience           = "https://login.example.com"
assertion_life     = "1min"
scopes             = ["a"]
"#;
const REFRESH_TOKEN: &str = r#"
[tenants.acme.auth]
grant              = "refresh_token"
client_id          = "5b1c9e"
client_secret_file = "acme.secret"
refresh_token_file = "acme.refresh"
scopes             = ["a"]
"#;
const STATIC: &str = r#"
[tenants.acme.auth]
grant      = "static"
token_file = "acme.token"
"#;

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
client_secret = "canary"
client_secret_file = 12
scopes = ["can ary"]
"#;
    let grant = with_auth("[tenants.acme.auth]\ngrant = \"canary\"\n");
    assert!(!complaints(&grant).join("\n").contains("canary"));
    let found = complaints(text);
    assert!(found.len() >= 6, "{found:#?}");
    assert!(!found.join("\n").contains("canary"), "{found:#?}");
}

#[test]
fn each_grant_becomes_what_its_table_says() {
    let grant = |auth: &str| {
        let config = read(&with_auth(auth)).unwrap_or_else(|error| panic!("{auth}: {error}"));
        config.tenants.into_values().next().unwrap().auth
    };
    let auth = grant(EXCHANGE);
    let Grant::TokenExchange {
        subject,
        requested_token_type,
        subject_token_type,
        ..
    } = auth.mint.grant
    else {
        panic!("an exchange")
    };
    assert_eq!(subject.token_url, "https://service.example.com/token");
    let urn = |word: &str| format!("urn:ietf:params:oauth:token-type:{word}");
    assert_eq!(requested_token_type, Some(urn("access_token")));
    assert_eq!(subject_token_type, urn("jwt"));
    let fallback = auth.fallback.unwrap();
    assert_eq!(fallback.routes, [crate::model::Route::Fetch]);
    let Grant::JwtBearer {
        issuer,
        audience,
        assertion_life,
        ..
    } = fallback.mint.grant
    else {
        panic!("an assertion")
    };
    assert_eq!((issuer.as_str(), assertion_life.as_secs()), ("5b1c9e", 120));
    assert_eq!(audience, "https://login.example.com/oauth/token");
    assert_eq!(grant(REFRESH_TOKEN).files().len(), 2);
    // Nobody is asked for a token that stands in a file.
    let text = with_auth(STATIC).replace("token_url", "# token_url");
    let config = read(&text).unwrap();
    let tenant = config.tenants.values().next().unwrap();
    assert_eq!(tenant.auth.mint.token_url, "");
}

#[test]
fn a_grant_names_what_it_lacks_and_refuses_what_belongs_to_another() {
    for (auth, finding) in [
        ("grant = \"static\"", "[tenants.acme.auth] needs token_file"),
        (
            "grant = \"static\"\ntoken_file = \"t\"\nclient_id = \"x\"",
            "unknown key \"client_id\" in [tenants.acme.auth]",
        ),
        (
            "grant = \"jwt_bearer\"\nclient_id = \"x\"\nkey_file = \"k\"",
            "[tenants.acme.auth] needs user",
        ),
        (
            "grant = \"jwt_bearer\"\nclient_id = \"x\"\nuser = \"u\"",
            "[tenants.acme.auth] needs key_file",
        ),
        (
            "grant = \"jwt_bearer\"\nclient_id = \"x\"\nuser = \"u\"\nkeyfile = \"k\"\nkey_file = \"k\"",
            "unknown key \"keyfile\" in [tenants.acme.auth]; did you mean \"key_file\"?",
        ),
        (
            "grant = \"refresh_token\"\nclient_id = \"x\"",
            "[tenants.acme.auth] needs refresh_token_file",
        ),
        (
            "grant = \"token_exchange\"",
            "[tenants.acme.auth] needs a table [tenants.acme.auth.subject]",
        ),
        (
            "grant = \"token_exchange\"\nclient_secret_file = \"s\"\n[tenants.acme.auth.subject]\ngrant = \"static\"\ntoken_file = \"t\"",
            "[tenants.acme.auth] needs client_id",
        ),
        (
            "grant = \"token_exchange\"\nrequested_token_type = \"mac\"\n[tenants.acme.auth.subject]\ngrant = \"static\"\ntoken_file = \"t\"",
            "requested_token_type in [tenants.acme.auth] must be one of access_token, ",
        ),
        (
            "grant = \"token_exchange\"\n[tenants.acme.auth.subject]\ngrant = \"token_exchange\"\n[tenants.acme.auth.subject.subject]\ngrant = \"static\"\ntoken_file = \"t\"",
            "grant in [tenants.acme.auth.subject] must not be token_exchange again",
        ),
        (
            "grant = \"static\"\ntoken_file = \"t\"\n[tenants.acme.auth.fallback]\ngrant = \"static\"\ntoken_file = \"t\"\nroutes = [\"deliver\"]",
            "routes in [tenants.acme.auth.fallback] must be [\"fetch\"]",
        ),
        (
            "grant = \"client_credential\"\nclient_id = \"x\"\nanything = 1",
            "grant in [tenants.acme.auth] must be \"client_credentials\" or ",
        ),
        (
            "grant = \"static\"\ntoken_file = \"\"",
            "token_file in [tenants.acme.auth] is empty",
        ),
    ] {
        let found = complaints(&with_auth(&format!("[tenants.acme.auth]\n{auth}\n")));
        assert_eq!(found.len(), 1, "{auth}: {found:#?}");
        assert!(found[0].contains(finding), "{auth}: {found:#?}");
    }
}

#[test]
fn a_token_url_is_needed_by_whoever_asks_for_tokens() {
    let text = with_auth(REFRESH_TOKEN).replace("token_url", "# token_url");
    let found = complaints(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("[tenants.acme.auth] needs a token_url, or a region"),
        "{found:?}"
    );
}

#[test]
fn both_spellings_of_one_setting_are_refused() {
    for (ours, theirs) in [
        ("max_retries = 3", "maxRetries = 3"),
        ("retry_on_401 = true", "retryOn401 = true"),
        ("interval_seconds = 30", "intervalSeconds = 30"),
        ("group = { max_interval = \"30s\" }", "intervalSeconds = 30"),
        (
            "group = { max_interval = \"30s\" }",
            "interval_seconds = 30",
        ),
    ] {
        let text = GOOD.replace("max_retries = 10", &format!("{ours}\n{theirs}"));
        let text = text.replace("group       = { max_chunks = 64 }", "");
        let found = complaints(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("is another spelling of"), "{found:?}");
    }
}

#[test]
fn settings_are_accepted_as_people_write_them() {
    for settings in [
        "maxRetries = 3\nretryOn401 = false\nintervalSeconds = 30\nrefresh_policy = \"on_401\"",
        "max_retries = 3\nretry_on_401 = false\ninterval_seconds = 30\nrefresh_policy = \"on_401\"",
    ] {
        let text = GOOD.replace("max_retries = 10", settings);
        let config = read(&text).unwrap();
        let delivery = &config.tenants.values().next().unwrap().delivery;
        assert_eq!(delivery.max_retries, 3);
        assert!(!delivery.retry_on_401);
        assert_eq!(delivery.group.max_interval, Duration::from_secs(30));
        assert_eq!(delivery.refresh, Refresh::On401);
    }
}

#[test]
fn a_group_is_off_or_has_limits() {
    let group = |line: &str| {
        let text = GOOD.replace("group       = { max_chunks = 64 }", line);
        read(&text).map(|config| config.tenants.values().next().unwrap().delivery.group)
    };
    assert!(group("group = \"off\"").unwrap().is_alone());
    let limits = group("group = { max_bytes = \"1MiB\", max_chunks = 8, max_interval = \"5min\" }");
    let limits = limits.unwrap();
    assert_eq!((limits.max_bytes, limits.max_chunks), (1 << 20, 8));
    assert_eq!(limits.max_interval, Duration::from_secs(300));
    let seconds = group("intervalSeconds = 60\ngroup = { max_chunks = 8 }").unwrap();
    assert_eq!(seconds.max_interval, Duration::from_secs(60));
    for wrong in [
        "group = \"on\"",
        "group = 3",
        "group = { max_chunks = 0 }",
        "group = { max_chunk = 3 }",
        "group = { max_bytes = 3 }",
    ] {
        assert!(group(wrong).is_err(), "{wrong}");
    }
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
    assert_eq!(
        acme.auth.mint.grant.scopes(),
        ["analytics:screenrecordings:write"]
    );
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
        globex.auth.files()[0].1.places.beside_config,
        dir.path().join("tenants.d")
    );

    fs::write(&file, format!("{second}\n[store]\npath = \"y\"\n")).unwrap();
    let error = load(&lookup).unwrap_err().to_string();
    assert!(
        error.contains("globex.toml:23: unknown key \"store\""),
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
    for grant in [EXCHANGE, JWT_BEARER, REFRESH_TOKEN, STATIC] {
        read(&with_auth(grant)).unwrap();
    }
    let known: BTreeSet<(String, String)> = KNOWN.with(|known| {
        let sections = known.borrow();
        let keys = sections.iter().flat_map(|(section, keys)| {
            let section = match section.as_str() {
                "" => "top".to_owned(),
                name => format!("`[{}]`", name.replace("acme", "T")),
            };
            // They take the keys of their grant.
            let section = section.replace(".subject]", "]").replace(".fallback]", "]");
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
            "`subject`",
            "`fallback`",
            "`delivery`",
            "`recordings`",
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
