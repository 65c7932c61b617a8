//! `worker sandbox` in a process of its own, and what is asked of it.

use std::process::Command;

use serde_json::{Value, json};

use super::process::Process;
use super::{Place, WORKER, http, wait_for};

pub struct Sandbox {
    /// `127.0.0.1:4000`.
    address: String,
    _process: Process,
}

impl Sandbox {
    /// Starts one that writes the place's configuration with these grants, and waits until it listens.
    pub fn granting(place: &Place, grants: &str, tenants: usize, token_life: &str) -> Self {
        let mut command = Command::new(WORKER);
        command
            .env("REELAY_TRACES", place.traces())
            .args(["sandbox", "--token-life", token_life, "--grants", grants])
            .arg("--tenants")
            .arg(tenants.to_string())
            .arg("--write-config")
            .arg(place.config());
        let mut process = Process::start(&mut command);
        let address = wait_for("the sandbox to listen", || {
            assert!(process.ended().is_none(), "sandbox: {}", process.err());
            let out = process.out();
            let (line, _) = out.split_once('\n')?;
            Some(line.strip_prefix("listening on http://")?.to_owned())
        });
        Self {
            address,
            _process: process,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let answer = http::request(&self.address, method, path, body);
        let (status, body) = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{method} {path}: {text}");
        body
    }

    fn json(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body.to_string().as_bytes());
        serde_json::from_slice(&answer).expect("the sandbox answers in JSON")
    }

    pub fn ledger(&self) -> Value {
        self.json("GET", "/_sandbox/ledger", &Value::Null)
    }

    /// A counter of the ledger, all tenants together.
    pub fn counted(&self, what: &str) -> u64 {
        let ledger = self.ledger();
        ledger[what]
            .as_u64()
            .unwrap_or_else(|| panic!("{what} in {ledger}"))
    }

    /// A counter of one tenant.
    pub fn counted_of(&self, tenant: &str, what: &str) -> u64 {
        let ledger = self.ledger();
        ledger["tenants"][tenant][what]
            .as_u64()
            .unwrap_or_else(|| panic!("{what} of {tenant} in {ledger}"))
    }

    /// The sequences stored of a session; none if it is unknown there.
    pub fn sequences(&self, tenant: &str, session: &str) -> Vec<u64> {
        let ledger = self.ledger();
        let stored = &ledger["tenants"][tenant]["sessions"][session]["sequences"];
        let numbers = stored.as_array().into_iter().flatten();
        numbers.map(|number| number.as_u64().unwrap()).collect()
    }

    /// The payloads of a session, in sequence order.
    pub fn film(&self, tenant: &str, session: &str) -> Vec<u8> {
        let path = format!("/_sandbox/sessions/{tenant}/{session}");
        self.ask("GET", &path, b"")
    }

    pub fn fault(&self, rule: Value) {
        self.json("POST", "/_sandbox/faults", &json!([rule]));
    }

    /// From now on a tenant's uploads are counted, by a rule that never acts. Before any other rule.
    pub fn count_requests(&self, tenant: &str) {
        self.fault(json!({"tenant": tenant, "after": 1_000_000_000, "action": {"stall_ms": 0}}));
    }

    /// Since [`Sandbox::count_requests`].
    pub fn requests(&self) -> u64 {
        self.asked(0)
    }

    /// How often a rule was asked.
    pub fn asked(&self, rule: usize) -> u64 {
        let rules = self.json("GET", "/_sandbox/faults", &Value::Null);
        let asked = rules["rules"][rule]["asked"].as_u64();
        asked.unwrap_or_else(|| panic!("{rules}"))
    }

    pub fn no_faults(&self) {
        self.json("DELETE", "/_sandbox/faults", &Value::Null);
    }

    /// Waits until so many requests are held.
    pub fn wait_held(&self, at_least: u64) {
        wait_for("requests to be held", || {
            let path = format!("/_sandbox/held?at_least={at_least}&within_ms=1000");
            let held = self.json("GET", &path, &Value::Null);
            let count = held["held"]
                .as_array()
                .map_or_else(|| held["held"].as_u64(), |list| Some(list.len() as u64));
            (count.unwrap_or_else(|| panic!("{held}")) >= at_least).then_some(())
        });
    }

    pub fn release(&self) {
        self.json("POST", "/_sandbox/release", &Value::Null);
    }

    pub fn tenant(&self, tenant: &str, change: Value) {
        self.json("POST", &format!("/_sandbox/tenants/{tenant}"), &change);
    }

    /// A person signs in again: a token and a refresh token; those of before die.
    pub fn sign_in(&self, tenant: &str) -> Value {
        let path = format!("/_sandbox/tenants/{tenant}/credentials");
        self.json("POST", &path, &Value::Null)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
