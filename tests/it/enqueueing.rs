//! `worker enqueue` and what it refuses: nothing is half-done.

use serde_json::json;

use crate::support::{Place, Process, payload};

fn balance(place: &Place) -> u64 {
    let stats = place.worker("stats --json").expect(0);
    stats.json_lines()[0]["balance"]["enqueued"]
        .as_u64()
        .unwrap()
}

#[test]
fn bad_input_is_refused_with_64_and_leaves_no_store() {
    let place = Place::configured();
    place.write("good.mp4", b"good");
    place.write("empty.mp4", b"");
    let long = "s".repeat(10_000);
    for (arguments, told) in [
        (
            "--tenant acm --session s good.mp4",
            "unknown tenant \"acm\"; configured: acme",
        ),
        (
            "--tenant acme --session s good.mp4 empty.mp4",
            "empty.mp4 is empty",
        ),
        (
            "--tenant acme --session s good.mp4 absent.mp4",
            "absent.mp4: No such file",
        ),
        (
            "--tenant acme --session s good.mp4 .",
            "is a directory; name the files in it",
        ),
        ("--tenant acme --session ../s good.mp4", "session holds '/'"),
        (
            "--tenant acme --session a..b good.mp4",
            "would be read as a path",
        ),
        ("--tenant a/b --session s good.mp4", "tenant holds '/'"),
        (
            &format!("--tenant acme --session {long} good.mp4"),
            "10000 characters",
        ),
        (
            "--tenant acme --session s --started-at 2026-03-01T10:00:00 good.mp4",
            "has no UTC offset; write 2026-03-01T10:00:00",
        ),
        (
            "--tenant acme --session s --sequence -1 good.mp4",
            "invalid value '-1' for '--sequence <N>'",
        ),
        (
            "--tenant acme --session s --duration 30 good.mp4",
            "has no unit",
        ),
        (
            "--tenant acme --session s --media-type video good.mp4",
            "media type",
        ),
        ("--tenant acme --session s - -", "one file only"),
        ("--tenant acme --session s", "required arguments"),
    ] {
        let ran = place.worker(&format!("enqueue {arguments}")).expect(64);
        assert!(ran.err.contains(told), "{arguments}: {}", ran.err);
    }
    assert!(!place.store().exists(), "a refused command made a store");
}

#[test]
fn what_cannot_be_used_as_a_configuration_is_refused_with_78() {
    let place = Place::configured();
    place.write("good.mp4", b"good");
    place.secret("acme.secret", 0o644);
    for command in ["run", "drain"] {
        let ran = place.worker(command).expect(78);
        let told = "acme.secret is readable by others (0644): chmod 600 acme.secret";
        assert_eq!(ran.err.trim(), told);
    }
    place.write(
        "worker.toml",
        b"[store\nclient_secret = \"canary-secret\"\n[pool]\nworkres = 1\n",
    );
    for command in [
        "enqueue --tenant acme --session s good.mp4",
        "stats",
        "run",
        "drain",
        "check",
    ] {
        let ran = place.worker(command).expect(78);
        assert!(ran.err.contains("worker.toml:"), "{}", ran.err);
        assert!(!ran.err.contains("canary"), "{}", ran.err);
    }
    assert!(!place.store().exists());
}

#[test]
fn a_numbered_enqueue_is_safe_to_repeat_and_conflicts_are_told_apart() {
    let place = Place::configured();
    place.write("a.mp4", b"first");
    place.write("b.mp4", b"second");
    let numbered = "enqueue --tenant acme --session s1 --sequence 7 --json a.mp4 b.mp4";
    let accepted = place.worker(numbered).expect(0).json_lines();
    assert_eq!(
        accepted,
        [
            json!({"file": "a.mp4", "tenant": "acme", "session": "s1", "sequence": 7, "bytes": 5, "known": false}),
            json!({"file": "b.mp4", "tenant": "acme", "session": "s1", "sequence": 8, "bytes": 6, "known": false}),
        ]
    );
    let known = place.worker(numbered).expect(0).json_lines();
    assert!(
        known.iter().all(|object| object["known"] == true),
        "{known:?}"
    );
    let swapped = place
        .worker("enqueue --tenant acme --session s1 --sequence 7 --json b.mp4 b.mp4")
        .expect(65)
        .json_lines();
    assert_eq!(swapped[0]["error"]["code"], "conflict");
    let told = swapped[0]["error"]["message"].as_str().unwrap();
    assert!(
        told.starts_with("session s1 sequence 7 exists with other bytes (stored "),
        "{told}"
    );
    assert_eq!(swapped[1]["known"], true);
    assert_eq!(balance(&place), 2);
}

#[test]
fn an_unnumbered_enqueue_continues_and_takes_a_repeat_for_a_mistake() {
    let place = Place::configured();
    place.write("a.mp4", b"first");
    place.write("b.mp4", b"second");
    let enqueue = "enqueue --tenant acme --session s1";
    let ran = place.worker(&format!("{enqueue} a.mp4 b.mp4")).expect(0);
    assert_eq!(
        ran.out.lines().collect::<Vec<_>>(),
        [
            "accepted acme/s1/0 a.mp4 (5 bytes)",
            "accepted acme/s1/1 b.mp4 (6 bytes)",
            "next: worker drain"
        ]
    );
    let refused = place.worker(&format!("{enqueue} a.mp4 b.mp4")).expect(65);
    assert!(refused.err.contains("give --sequence 0"), "{}", refused.err);
    assert!(refused.err.contains("give --append"), "{}", refused.err);
    assert_eq!(balance(&place), 2);
    let appended = place
        .worker(&format!("{enqueue} --append --json a.mp4"))
        .expect(0);
    assert_eq!(appended.json_lines()[0]["sequence"], 2);
}

#[test]
fn a_pipe_is_enqueued_whole() {
    let place = Place::configured();
    let bytes = payload("1", 1_500_000);
    let mut command = place.command("enqueue --tenant acme --session s1 --json -");
    let ran = Process::fed(&mut command, &bytes).wait().expect(0);
    assert_eq!(ran.json_lines()[0]["bytes"], 1_500_000);
    let empty = place
        .worker("enqueue --tenant acme --session s1 -")
        .expect(64);
    assert!(
        empty.err.contains("standard input is empty"),
        "{}",
        empty.err
    );
}

#[test]
fn a_full_store_refuses_with_75_and_says_who_holds_most() {
    let place = Place::configured();
    let config = std::fs::read_to_string(place.at("worker.toml")).unwrap();
    place.write("worker.toml", config.replace("1GiB", "16MiB").as_bytes());
    place.write("big.bin", &payload("2", 9 << 20));
    place.write("more.bin", &payload("3", 9 << 20));
    place
        .worker("enqueue --tenant acme --session s1 big.bin")
        .expect(0);
    let refused = place
        .worker("enqueue --tenant acme --session s1 more.bin")
        .expect(75);
    assert!(refused.err.contains("store full: "), "{}", refused.err);
    assert!(
        refused
            .err
            .contains("more bytes refused; nothing was removed"),
        "{}",
        refused.err
    );
    assert!(refused.err.contains("Most is acme: "), "{}", refused.err);
    assert_eq!(balance(&place), 1);
}

#[test]
fn init_replaces_nothing() {
    let place = Place::new();
    place.worker("init --tenant globex --region us1").expect(0);
    place
        .worker("enqueue --tenant globex --session s absent.mp4")
        .expect(64);
    let check = place.worker("check").expect(78);
    assert!(
        check.out.contains("globex.secret is empty"),
        "{}",
        check.out
    );
    let again = place.worker("init").expect(64);
    assert!(
        again
            .err
            .contains("worker.toml exists; nothing was written"),
        "{}",
        again.err
    );
    place.write("globex.secret", b"kept");
    std::fs::remove_file(place.at("worker.toml")).unwrap();
    place.worker("init --tenant globex").expect(64);
    assert_eq!(std::fs::read(place.at("globex.secret")).unwrap(), b"kept");
    assert!(!place.config().exists());
    place.worker("init --region nowhere").expect(64);
}

#[test]
fn init_writes_a_partners_configuration_that_a_check_accepts() {
    let place = Place::new();
    let told = place.worker("init --preset partner --tenant globex --region eu1");
    told.expect(0);
    let check = place.worker("check").expect(78);
    for file in ["partner.secret is empty", "partner.pem"] {
        assert!(check.out.contains(file), "{file}: {}", check.out);
    }
    // Files that are there keep their mode.
    std::fs::write(place.at("partner.secret"), "canary-secret").unwrap();
    let key = include_str!("../../src/sandbox/fixtures/rsa.pem");
    std::fs::write(place.at("partner.pem"), format!("canary-key\n{key}")).unwrap();
    let check = place.worker("check").expect(0);
    assert!(check.out.contains("worker.toml: globex"), "{}", check.out);
    let config = std::fs::read_to_string(place.at("worker.toml")).unwrap();
    for table in ["auth.subject]", "auth.fallback]", "organization", "eu1"] {
        assert!(config.contains(table), "{table}: {config}");
    }
    place.worker("init --preset partner").expect(64);
}

#[test]
fn a_distrusted_index_is_made_anew_and_nothing_is_missing() {
    let place = Place::configured();
    place.write("a.mp4", b"first");
    place
        .worker("enqueue --tenant acme --session s1 a.mp4")
        .expect(0);
    let before = place.worker("fsck --json").expect(0).json_lines();
    assert_eq!(before[0]["index"], "ok");
    let after = place
        .worker("fsck --rebuild-index --json")
        .expect(0)
        .json_lines();
    assert_eq!(after[0]["index"], "rebuilt");
    assert_eq!(after[0]["balance"], before[0]["balance"]);
    let next = place
        .worker("enqueue --tenant acme --session s1 --append --json a.mp4")
        .expect(0);
    assert_eq!(next.json_lines()[0]["sequence"], 1);
}

#[test]
fn damage_is_told_with_65_and_where_it_is() {
    let place = Place::configured();
    place.write("a.mp4", &payload("5", 100_000));
    place
        .worker("enqueue --tenant acme --session s1 a.mp4")
        .expect(0);
    let segments = place.at("store/segments");
    let segment = std::fs::read_dir(segments)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let payload = payload("5", 100_000);
    let at = bytes
        .windows(64)
        .position(|window| window == &payload[50_000..50_064])
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let report = place.worker("fsck --json").expect(65).json_lines();
    let damage = &report[0]["damaged"][0];
    assert_eq!(
        (&damage["tenant"], &damage["sequence"]),
        (&json!("acme"), &json!(0)),
        "{report:#?}"
    );
    assert!(
        damage["segment"].is_string() && damage["offset"].is_u64(),
        "{report:#?}"
    );
}
