//! What is refused: the exit code, the message word for word, and that nothing was half done.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Ended, Process, Site, payload};

/// A site that holds one chunk, so that a refusal has something to leave alone.
struct Refusing {
    site: Site,
    before: Value,
}

impl Refusing {
    fn new() -> Self {
        let site = Site::new();
        site.enqueue("acme", "s1", 7);
        let before = standing(&site);
        Self { site, before }
    }

    /// The command is refused with this code and, on standard error, these words; the store is as it was.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], code: i32, message: &str) {
        let ended = self.site.worker(arguments).expect(code);
        assert_eq!(said(&ended), message, "{arguments:?}");
        assert_eq!(standing(&self.site), self.before, "{arguments:?}");
    }

    #[track_caller]
    fn refuses_enqueue(&self, more: &[&str], code: i32, message: &str) {
        let arguments = [&["enqueue", "--tenant", "acme", "--session"], more].concat();
        self.refuses(&arguments, code, message);
    }
}

/// The first paragraph of standard error: what a usage error adds on help is the parser's.
fn said(ended: &Ended) -> String {
    let text = ended.err.split("\n\n").next().unwrap_or_default();
    text.trim_end().to_owned()
}

/// Numbers and files of the store.
fn standing(site: &Site) -> Value {
    let told = site.stats().0;
    let mut files: Vec<_> = fs::read_dir(site.store().join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    serde_json::json!({"balance": told["balance"], "total": told["total"], "files": files,
        "used": told["disk"]["used_bytes"]})
}

#[test]
fn a_name_that_is_none_is_refused_before_anything_is_done() {
    let refusing = Refusing::new();
    let file = refusing.site.file("a.ts", 10);
    let file = file.to_str().unwrap();
    let long = "x".repeat(10_000);
    let allowed = "allowed are letters, digits and ._:@+=-";
    for (name, why) in [
        ("../s1", format!("session holds '/'; {allowed}")),
        ("a/b", format!("session holds '/'; {allowed}")),
        ("..", "session \"..\" would be read as a path".to_owned()),
        (
            "a..b",
            "session \"a..b\" would be read as a path".to_owned(),
        ),
        ("a\u{1}", format!("session holds '\\u{{1}}'; {allowed}")),
        ("a\u{2400}", format!("session holds '\u{2400}'; {allowed}")),
        ("a%00", format!("session holds '%'; {allowed}")),
        ("a\\0", format!("session holds '\\\\'; {allowed}")),
        ("", "session is empty".to_owned()),
        (
            &long,
            "session has 10000 characters; the limit is 200".to_owned(),
        ),
    ] {
        let arguments = ["enqueue", "--tenant", "acme", "--session", name, file];
        let ended = refusing.site.worker(&arguments).expect(64);
        let said = said(&ended);
        let cause = said
            .split_once("'--session <SESSION>': ")
            .map(|(_, cause)| cause);
        assert_eq!(cause, Some(why.as_str()), "{said}");
    }
    let ended = refusing
        .site
        .worker(&["enqueue", "--tenant", "../acme", "--session", "s1", file]);
    assert!(ended.expect(64).err.contains("tenant holds '"));
    assert_eq!(standing(&refusing.site), refusing.before);
}

#[test]
fn an_unknown_tenant_is_told_which_ones_there_are() {
    let refusing = Refusing::new();
    let file = refusing.site.file("a.ts", 10);
    let file = file.to_str().unwrap();
    let message = "unknown tenant \"acm\"; configured: acme, globex, initech";
    for arguments in [
        &["enqueue", "--tenant", "acm", "--session", "s1", file][..],
        &["drain", "--tenant", "acm"],
        &["tenants", "pause", "acm"],
        &["why", "acm"],
    ] {
        refusing.refuses(arguments, 64, message);
    }
}

#[test]
fn a_file_that_is_no_payload_is_refused_with_its_name() {
    let refusing = Refusing::new();
    let at = |name: &str| refusing.site.path().join(name).display().to_string();
    fs::write(at("empty.ts"), b"").unwrap();
    fs::create_dir(at("folder")).unwrap();
    let good = refusing.site.file("good.ts", 10).display().to_string();
    for (file, why) in [
        ("empty.ts", " is empty; nothing was enqueued"),
        ("absent.ts", ": No such file or directory (os error 2)"),
        ("folder", " is a directory; name the files in it"),
    ] {
        let message = format!("{}{why}", at(file));
        // The good file before it is not taken either.
        refusing.refuses_enqueue(&["s2", "--sequence", "0", &good, &at(file)], 64, &message);
    }
    // Standard input is empty here.
    let message = "standard input is empty; nothing was enqueued";
    refusing.refuses_enqueue(&["s2", "-"], 64, message);
}

#[test]
fn a_time_that_names_no_instant_is_refused_with_the_fix() {
    let refusing = Refusing::new();
    let file = refusing.site.file("a.ts", 10).display().to_string();
    let mut command = refusing.site.command(&["enqueue", "--tenant", "acme"]);
    command.env("TZ", "UTC-1").args([
        "--session",
        "s2",
        "--started-at",
        "2026-03-01T10:00:00",
        &file,
    ]);
    let ended = Process::start(&mut command).wait().expect(64);
    assert_eq!(
        said(&ended),
        "started-at \"2026-03-01T10:00:00\" has no UTC offset; write 2026-03-01T10:00:00+01:00"
    );
    refusing.refuses_enqueue(
        &["s2", "--started-at", "yesterday", &file],
        64,
        "started-at \"yesterday\" is not an RFC 3339 time such as 2026-03-01T10:00:00+01:00",
    );
}

#[test]
fn other_bytes_under_a_taken_sequence_are_a_conflict() {
    let refusing = Refusing::new();
    let file = refusing.site.file("other.ts", 3000).display().to_string();
    let digest = |name: &str| blake3::hash(&payload(name, 3000)).to_hex()[..8].to_owned();
    let message = format!(
        "{file}: session s1 sequence 7 exists with other bytes (stored {}…, given {}…)",
        digest("acme-s1-7.ts"),
        digest("other.ts")
    );
    refusing.refuses_enqueue(&["s1", "--sequence", "7", &file], 65, &message);
}

#[test]
fn a_repeat_without_a_sequence_says_how_to_repeat_or_append() {
    let refusing = Refusing::new();
    let file = refusing
        .site
        .path()
        .join("acme-s1-7.ts")
        .display()
        .to_string();
    let message = format!(
        "{file}: these bytes are sequence 7 of session s1; to repeat them safely give --sequence 7, to add them again give --append"
    );
    refusing.refuses_enqueue(&["s1", &file], 65, &message);
    refusing.refuses_enqueue(&["s1", "--sequence", "7", &file], 0, "");
    let arguments = [
        "enqueue",
        "--json",
        "--tenant",
        "acme",
        "--session",
        "s1",
        "--append",
        &file,
    ];
    let told = refusing.site.worker(&arguments).expect(0).json();
    assert_eq!(told["sequence"], 8);
}

#[test]
fn a_full_store_refuses_and_removes_nothing() {
    let site = Site::new();
    site.configure(|text| text.replace("4GiB", "16MiB"));
    let file = site.file("minute.ts", 1 << 20).display().to_string();
    let enqueue = |tenant: &str, sequence: u64| {
        let sequence = sequence.to_string();
        let arguments = ["--session", "s1", "--sequence", &sequence, &file];
        let mut command = site.command(&["enqueue", "--tenant", tenant]);
        Process::start(command.args(arguments)).wait()
    };
    let mut taken = 0;
    let mut fill = |tenant: &str| {
        (0..20)
            .map(|sequence| enqueue(tenant, sequence))
            .inspect(|ended| taken += u64::from(ended.code == Some(0)))
            .find(|ended| ended.code != Some(0))
            .expect("a store of 16 MiB is full some time")
    };
    let greedy = said(&fill("acme").expect(75));
    let full = said(&fill("globex").expect(75));
    let more = "1,048,576 more bytes refused; nothing was removed. Most is acme: 12 MiB";
    assert_eq!(
        greedy,
        format!("{file}: store full: tenant acme holds 12 MiB of its share of 5.3 MiB; {more}")
    );
    assert!(
        full.starts_with(&format!("{file}: store full: 15.")),
        "{full}"
    );
    assert!(full.ends_with(&format!(" of 16.0 MiB; {more}")), "{full}");
    assert_eq!(site.stats().balance("enqueued"), taken);
    // Room comes back with what is delivered.
    site.worker(&["drain"]).expect(0);
    enqueue("acme", 19).expect(0);
}

#[test]
fn a_configuration_with_faults_is_refused_with_file_and_line() {
    let refusing = Refusing::new();
    let good = fs::read_to_string(refusing.site.config()).unwrap();
    let line_of = |what: &str| good.lines().position(|line| line == what).unwrap() + 1;
    let scopes = "scopes = [\"analytics:screenrecordings:write\", \"screenshare:read\"]";
    let (broken, misspelt) = (line_of("[host]"), line_of(scopes));
    let config = refusing.site.config();
    for (text, message) in [
        (
            good.replace("[host]", "[host"),
            format!("worker.toml:{broken}: unclosed table, expected `]`"),
        ),
        (
            good.replacen(scopes, &scopes.replace("scopes", "scope"), 1),
            format!(
                "worker.toml:{misspelt}: unknown key \"scope\" in [tenants.acme.auth]; did you mean \"scopes\"?"
            ),
        ),
    ] {
        for command in [
            &["--stats"][..],
            &["drain"],
            &[
                "enqueue",
                "--tenant",
                "acme",
                "--session",
                "s2",
                "worker.toml",
            ],
        ] {
            fs::write(&config, &text).unwrap();
            let ended = refusing.site.worker(command).expect(78);
            assert_eq!(said(&ended), message);
            fs::write(&config, &good).unwrap();
            assert_eq!(standing(&refusing.site), refusing.before);
        }
    }
    refusing.refuses(
        &["--config", "absent.toml", "--stats"],
        78,
        "no configuration: looked for absent.toml; write one with: worker init --tenant NAME --region REGION",
    );
}

#[test]
fn a_secret_that_others_may_read_is_not_used() {
    let refusing = Refusing::new();
    let secret = refusing.site.path().join("acme.secret");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let message = "acme.secret is readable by others (0644): chmod 600 acme.secret";
    refusing.refuses(&["drain"], 78, message);
    refusing.refuses(&["run"], 78, message);
    assert_eq!(refusing.site.sandbox.counted("token_requests"), 0);
    // What captures does not depend on it.
    refusing.site.enqueue("acme", "s1", 8);
}

/// The segment files.
fn segments(site: &Site) -> Vec<PathBuf> {
    let listed = fs::read_dir(site.store().join("segments")).unwrap();
    listed.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let refusing = Refusing::new();
    let site = &refusing.site;
    let whole: Vec<_> = segments(site)
        .into_iter()
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    assert!(!whole.is_empty());
    for (bytes, path) in &whole {
        let mut newer = bytes.clone();
        for copy in [0, 4096] {
            let header = &mut newer[copy..copy + 64];
            header[8..12].copy_from_slice(&2_u32.to_le_bytes());
            let crc = crc32fast::hash(&header[..60]);
            header[60..].copy_from_slice(&crc.to_le_bytes());
        }
        fs::write(path, newer).unwrap();
    }
    let newer: Vec<_> = segments(site)
        .iter()
        .map(|path| fs::read(path).unwrap())
        .collect();
    let file = site.file("a.ts", 10).display().to_string();
    let message = format!(
        "store {} has format 2; this worker reads up to 1: install a newer one",
        site.store().display()
    );
    for arguments in [
        &["enqueue", "--tenant", "acme", "--session", "s2", &file][..],
        &["drain"],
        &["run"],
        &["--stats"],
        &["fsck"],
    ] {
        let ended = site.worker(arguments).expect(78);
        assert_eq!(said(&ended), message, "{arguments:?}");
        let now: Vec<_> = segments(site)
            .iter()
            .map(|path| fs::read(path).unwrap())
            .collect();
        assert!(now == newer, "{arguments:?} touched it");
    }
    for (bytes, path) in &whole {
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(standing(site), refusing.before);
    site.worker(&["drain"]).expect(0);
}
