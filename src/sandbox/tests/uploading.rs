//! The binary and presigned transports from the other side: what is taken, and what is refused by name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::RequestBuilder;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{Rig, Seen, at, body};
use crate::sandbox::keys::{self, Origin};
use crate::sandbox::md5;

const CONTENT: &str = "/api/v2/analytics/screenrecordings/content";
const WISHES: &str = "/api/v2/uploads/recordings";

/// The fields of contiguous payloads from sequence 7 on, and their request's key.
fn fields(payloads: &[&[u8]]) -> (Vec<(&'static str, String)>, String) {
    let origin = Origin {
        tenant: "acme",
        host: "rec-1",
        session: "s1",
    };
    let mut fields = vec![
        ("Recording-Host", "\"rec-1\"".to_owned()),
        ("Recording-Session", "\"s1\"".to_owned()),
        ("Recording-Last", "?0".to_owned()),
        ("Recording-Late", "?0".to_owned()),
    ];
    let mut part_keys = Vec::new();
    for (sequence, payload) in (7..).zip(payloads) {
        let hash = blake3::hash(payload);
        part_keys.push(keys::part_key(origin, sequence, hash.as_bytes()));
        let part = format!(
            "{sequence};bytes={};digest=\"blake3:{}\";start=\"{}\";end=\"{}\"",
            payload.len(),
            hash.to_hex(),
            at(sequence, false),
            at(sequence, true)
        );
        fields.push(("Recording-Parts", part));
    }
    let key = keys::request_key(part_keys.iter().map(String::as_str));
    (fields, key)
}

impl Rig {
    fn content(
        &self,
        token: &str,
        (fields, key): &(Vec<(&'static str, String)>, String),
        payload: &[u8],
    ) -> RequestBuilder {
        let mut request = self
            .http
            .post(self.url(CONTENT))
            .bearer_auth(token)
            .header("Idempotency-Key", format!("\"{key}\""))
            .header("Content-Type", "video/mp4")
            .body(payload.to_vec());
        for (name, value) in fields {
            request = request.header(*name, value);
        }
        request
    }

    async fn wish(&self, token: &str, wish: &Value) -> Seen {
        let key = &wish["recording"]["parts"][0]["idempotencyKey"];
        let key = format!("\"{}\"", key.as_str().unwrap_or_default());
        let request = self.http.post(self.url(WISHES)).bearer_auth(token);
        let request = request.header("Idempotency-Key", key).json(wish);
        self.send(request).await.unwrap()
    }
}

#[tokio::test]
async fn content_of_several_parts_is_cut_by_their_lengths_and_stored_once() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let mut request = fields(&[b"one", b"second", b"3"]);
    request.0.push((
        "Recording-Gaps",
        "5;last=6;reason=missing, 1;last=1;reason=dead".into(),
    ));
    for (status, outcome) in [(201, "stored"), (208, "duplicate")] {
        let seen = rig.content(&token, &request, b"onesecond3");
        let seen = rig.send(seen).await.unwrap();
        assert_eq!(seen.status, status, "{}", seen.text);
        assert_eq!(seen.body["parts"][2]["status"], outcome);
    }
    let ledger = rig.ledger().await;
    let session = &ledger["tenants"]["acme"]["sessions"]["s1"];
    assert_eq!(session["sequences"], json!([7, 8, 9]));
    assert_eq!(ledger["gaps"], 3);
    let film = rig.http.get(rig.url("/_sandbox/sessions/acme/s1"));
    assert_eq!(rig.send(film).await.unwrap().text, "onesecond3");
}

#[tokio::test]
async fn content_that_is_not_what_its_fields_say_is_refused_and_named() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let with = |name: &str, from: &str, to: &str| {
        let mut request = fields(&[b"one", b"two"]);
        let mut changed = 0;
        for (known, value) in &mut request.0 {
            if *known == name && value.contains(from) {
                *value = value.replacen(from, to, 1);
                changed += 1;
            }
        }
        assert!(changed > 0, "{name} {from}");
        request
    };
    let without = |name: &str| {
        let mut request = fields(&[b"one", b"two"]);
        request.0.retain(|(known, _)| *known != name);
        request
    };
    let extra = |name: &'static str, value: &str| {
        let mut request = fields(&[b"one", b"two"]);
        request.0.push((name, value.to_owned()));
        request
    };
    let parts = "recording-parts";
    for (field, request) in [
        ("recording-host", without("Recording-Host")),
        ("recording-host", with("Recording-Host", "rec-1", "a/b")),
        (
            "recording-session",
            with("Recording-Session", "\"s1\"", "s1"),
        ),
        ("recording-session", extra("Recording-Session", "\"s1\"")),
        ("recording-last", with("Recording-Last", "?0", "false")),
        ("recording-late", with("Recording-Late", "?0", "?1")),
        (parts, without("Recording-Parts")),
        (parts, with("Recording-Parts", "8;", "9;")),
        (parts, with("Recording-Parts", "7;", "07;")),
        (parts, with("Recording-Parts", "bytes=3", "bytes=0")),
        (parts, with("Recording-Parts", "bytes=3;", "")),
        (parts, with("Recording-Parts", "blake3:", "sha256:")),
        (parts, with("Recording-Parts", ".000Z", "Z")),
        (
            "recording-gaps",
            extra("Recording-Gaps", "7;last=7;reason=dead"),
        ),
        (
            "recording-gaps",
            extra("Recording-Gaps", "6;last=5;reason=dead"),
        ),
        (
            "recording-gaps",
            extra("Recording-Gaps", "5;last=6;reason=lost"),
        ),
        ("recording-offset", extra("Recording-Offset", "7")),
    ] {
        let seen = rig.content(&token, &request, b"onetwo");
        let seen = rig.send(seen).await.unwrap();
        assert_eq!((seen.status, seen.field()), (400, field), "{}", seen.text);
    }
    let mut foreign = fields(&[b"one", b"two"]);
    foreign.1 = "0".repeat(64);
    let right = fields(&[b"one", b"two"]);
    for (request, payload, said) in [
        (&foreign, &b"onetwo"[..], (400, "bad.request")),
        (&right, b"onetw", (422, "length.mismatch")),
        (&right, b"onetwX", (422, "digest.mismatch")),
    ] {
        let seen = rig
            .send(rig.content(&token, request, payload))
            .await
            .unwrap();
        assert_eq!(seen.said(), said, "{}", seen.text);
    }
    assert_eq!(rig.ledger().await["delivered"], 0);
}

fn wish(payload: &[u8]) -> Value {
    let mut recording = body(7, &[payload]);
    recording.as_object_mut().unwrap().shift_remove("payload");
    json!({
        "fileName": "7.mp4",
        "contentType": "video/mp4",
        "contentLength": payload.len(),
        "contentMd5": STANDARD.encode(md5::digest(payload)),
        "contentSha256": STANDARD.encode(digest(&SHA256, payload)),
        "signedUrlTimeoutSeconds": 600,
        "recording": recording,
    })
}

/// The PUT that an answer asks for.
fn put(rig: &Rig, ticket: &Seen, payload: &[u8]) -> RequestBuilder {
    let url = ticket.body["url"].as_str().expect("a url");
    let mut request = rig.http.put(url).body(payload.to_vec());
    for (name, value) in ticket.body["headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    request
}

#[tokio::test]
async fn a_wish_of_the_wrong_shape_is_refused_and_named() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    for (field, change) in [
        ("fileName", json!({"fileName": ".hidden"})),
        ("fileName", json!({"fileName": "a b"})),
        ("contentType", json!({"contentType": "video"})),
        ("contentLength", json!({"contentLength": 4})),
        ("contentMd5", json!({"contentMd5": "AAAA"})),
        ("contentSha256", json!({"contentSha256": 7})),
        (
            "signedUrlTimeoutSeconds",
            json!({"signedUrlTimeoutSeconds": 604_801}),
        ),
        ("payload", json!({"payload": "AAAA"})),
        ("recording.parts", json!({"recording": {"parts": []}})),
    ] {
        let mut wish = wish(b"one");
        for (name, value) in change.as_object().unwrap() {
            match value.as_object() {
                Some(inner) => wish[name]["parts"] = inner["parts"].clone(),
                None => wish[name] = value.clone(),
            }
        }
        let seen = rig.wish(&token, &wish).await;
        assert_eq!((seen.status, seen.field()), (400, field), "{}", seen.text);
    }
    assert_eq!(rig.ledger().await["urls_issued"], 0);
}

#[tokio::test]
async fn the_storage_host_takes_exactly_what_was_signed() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    let ticket = rig.wish(&token, &wish(b"one")).await;
    assert_eq!(ticket.status, 200, "{}", ticket.text);
    let url = ticket.body["url"].as_str().unwrap();
    let bare = |url: &str| rig.http.put(url).body("one");
    let forged = url.replace("canary-signature", "canary-forgery");
    let moved = url.replace("7.mp4", "8.mp4");
    for (request, status, code) in [
        (
            put(&rig, &ticket, b"one").bearer_auth(&token),
            400,
            "InvalidArgument",
        ),
        (bare(url), 403, "SignatureDoesNotMatch"),
        (bare(&forged), 403, "SignatureDoesNotMatch"),
        (bare(&moved), 403, "SignatureDoesNotMatch"),
        (
            put(&rig, &ticket, b"one").header("x-amz-acl", "private"),
            403,
            "AccessDenied",
        ),
        (put(&rig, &ticket, b"onX"), 400, "BadDigest"),
        (put(&rig, &ticket, b"on"), 400, "BadDigest"),
    ] {
        let seen = rig.send(request).await.unwrap();
        assert_eq!(seen.status, status, "{}", seen.text);
        assert!(
            seen.text.contains(&format!("<Code>{code}</Code>")),
            "{}",
            seen.text
        );
    }
    let ledger = rig.ledger().await;
    assert_eq!(
        (&ledger["delivered"], &ledger["bearer_at_store"]),
        (&json!(0), &json!(1))
    );

    for _ in 0..2 {
        let seen = rig.send(put(&rig, &ticket, b"one")).await.unwrap();
        assert_eq!(seen.status, 200, "{}", seen.text);
        assert_eq!(seen.header("etag"), format!("\"{}\"", md5::hex(b"one")));
    }
    let ledger = rig.ledger().await;
    assert_eq!(
        (&ledger["delivered"], &ledger["duplicates_suppressed"]),
        (&json!(1), &json!(1))
    );
    // What is stored needs no second URL, and other bytes get none.
    assert_eq!(rig.wish(&token, &wish(b"one")).await.status, 208);
    assert_eq!(
        rig.wish(&token, &wish(b"two")).await.said(),
        (409, "conflict.digest")
    );
}

#[tokio::test]
async fn a_url_ends_when_it_said_it_would() {
    let rig = Rig::new().await;
    let token = rig.token("acme").await;
    rig.change("acme", json!({"url_life_ms": 0})).await;
    let ticket = rig.wish(&token, &wish(b"one")).await;
    let seen = rig.send(put(&rig, &ticket, b"one")).await.unwrap();
    assert_eq!(seen.status, 403);
    assert!(seen.text.contains("Request has expired"), "{}", seen.text);
    assert_eq!(rig.ledger().await["urls_expired"], 1);
}
