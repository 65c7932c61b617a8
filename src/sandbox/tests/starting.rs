//! How an emulator begins and ends, and the configuration that it writes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::super::{ConfigFileError, SandboxError, run};
use super::{Options, Rig, body, start};

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let options = Options {
            listen: listen.parse().unwrap(),
            ..Options::default()
        };
        let error = start(&options).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{listen} is not a loopback address; the sandbox listens on nothing else")
        );
    }
}

#[tokio::test]
async fn impossible_options_are_refused() {
    let none = Options {
        tenants: 0,
        ..Options::default()
    };
    assert!(matches!(
        start(&none).await,
        Err(SandboxError::Tenants { count: 0 })
    ));
    let nobody = Options {
        token_life_of: BTreeMap::from([("hooli".to_owned(), Duration::ZERO)]),
        ..Options::default()
    };
    assert!(matches!(
        start(&nobody).await,
        Err(SandboxError::UnknownTenant { .. })
    ));
    let rig = Rig::new().await;
    let taken = Options {
        listen: rig.sandbox.addr(),
        ..Options::default()
    };
    assert!(matches!(
        start(&taken).await,
        Err(SandboxError::Listen { .. })
    ));
}

#[tokio::test]
async fn a_broken_fault_script_stops_the_start_and_is_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("faults.json");
    let options = Options {
        faults: Some(path.clone()),
        ..Options::default()
    };
    assert!(matches!(
        start(&options).await,
        Err(SandboxError::ReadFaults { .. })
    ));
    std::fs::write(&path, "[{\"action\": \"explode\"}]").unwrap();
    let error = start(&options).await.unwrap_err().to_string();
    assert!(
        error.ends_with("rules[0].action is no known action"),
        "{error}"
    );
    std::fs::write(&path, "[{\"action\": {\"status\": 503}}]").unwrap();
    let rig = Rig::with(options).await;
    let token = rig.token("acme").await;
    assert_eq!(rig.deliver(&token, &body(0, &[b"a"])).await.status, 503);
}

#[tokio::test]
async fn what_the_sandbox_did_not_write_is_never_overwritten() {
    for foreign in ["worker.toml", "acme.secret"] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("worker.toml");
        std::fs::write(home.path().join(foreign), "precious").unwrap();
        let options = Options {
            write_config: Some(path.clone()),
            ..Options::default()
        };
        let error = start(&options).await.unwrap_err();
        assert!(
            matches!(error, SandboxError::Config(ConfigFileError::Foreign { .. })),
            "{error}"
        );
        assert_eq!(
            std::fs::read_to_string(home.path().join(foreign)).unwrap(),
            "precious"
        );
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_written_configuration_fits_the_emulator_and_is_replaced_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep \"er/worker.toml");
    let options = Options {
        tenants: 4,
        write_config: Some(path.clone()),
        ..Options::default()
    };
    for seed in 0..2 {
        let rig = Rig::with(Options {
            seed,
            ..options.clone()
        })
        .await;
        let table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(
            table["store"]["path"].as_str(),
            path.with_file_name("store").to_str()
        );
        let tenants = table["tenants"].as_table().unwrap();
        assert_eq!(
            tenants.keys().collect::<Vec<_>>(),
            ["acme", "globex", "initech", "t4"]
        );
        for (name, tenant) in tenants {
            assert_eq!(tenant["api_url"].as_str().unwrap(), rig.sandbox.base_url());
            assert_eq!(
                tenant["token_url"].as_str().unwrap(),
                rig.url("/oauth/token")
            );
            let auth = &tenant["auth"];
            let file = path.with_file_name(auth["client_secret_file"].as_str().unwrap());
            assert_eq!((mode(&file), mode(&path)), (0o600, 0o600));
            let secret = std::fs::read_to_string(&file).unwrap();
            let (id, wanted) = rig.sandbox.credentials(name).unwrap();
            assert_eq!(
                (auth["client_id"].as_str().unwrap(), secret.trim_end()),
                (id.as_str(), wanted.as_str())
            );
        }
    }
}

#[tokio::test]
async fn a_stopped_emulator_refuses_and_cuts_what_is_open() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.fault(json!([{"action": "hold"}])).await;
    let held = tokio::spawn(rig.upload(&token, &body(0, &[b"a"])).send());
    rig.get("/_sandbox/held?at_least=1&within_ms=10000").await;
    let (url, http) = (rig.url("/_sandbox/ledger"), rig.http.clone());
    rig.sandbox.stop().await;
    assert!(held.await.unwrap().is_err());
    assert!(http.get(url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn a_run_ends_when_it_is_told_to() {
    let stop = std::future::ready(());
    tokio::time::timeout(Duration::from_secs(10), run(Options::default(), stop))
        .await
        .unwrap()
        .unwrap();
}
