//! Upload URLs and the storage host behind them, decided purely: who gets a URL, and what a PUT to one must look like. The
//! host knows nothing of tokens and refuses whoever shows it one.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::SHA256;
use serde_json::{Map, Value, json};

use super::deliver::{Head, accept, check};
use super::fields::Fields;
use super::md5;
use super::reply::Reply;
use super::upload::{Upload, is_media_type};
use super::world::World;

/// A well-formed wish for a URL.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// Without its payload.
    upload: Upload,
    file_name: String,
    content_type: String,
    content_md5: Option<String>,
    content_sha256: Option<String>,
    life: Duration,
}

/// What was signed.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    tenant: String,
    upload: Upload,
    path: String,
    headers: Vec<(String, String)>,
    expires_at: Duration,
}

/// Every URL that was handed out, by its signature.
#[derive(Debug, Default)]
pub(super) struct Urls(HashMap<String, Signed>);

/// Those remembered before the ended ones are forgotten.
const URLS_MAX: usize = 10_000;

const MEMBERS: [&str; 8] = [
    "fileName",
    "contentType",
    "contentLength",
    "contentMd5",
    "contentSha256",
    "signedUrlTimeoutSeconds",
    "serverSideEncryption",
    "recording",
];

impl Wish {
    pub(super) fn read(body: &Value, key: &str) -> Result<Self, Reply> {
        let fields = Fields::of(body, "", &MEMBERS)?;
        let upload = Upload::describe(fields.value("recording")?, key)?;
        let [part] = upload.parts.as_slice() else {
            return Err(fields.refuse("recording", "has not exactly one part"));
        };
        let file_name = fields.text("fileName")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if file_name.is_empty() || file_name.starts_with('.') || !file_name.chars().all(plain) {
            return Err(fields.refuse("fileName", "has a leading dot, white space or marks"));
        }
        let content_type = fields.text("contentType")?;
        if !is_media_type(content_type) {
            return Err(fields.refuse("contentType", "is not a media type"));
        }
        if fields.count("contentLength")? != part.bytes as u64 {
            return Err(fields.refuse("contentLength", "is not the part's bytes"));
        }
        let seconds = match fields.optional("signedUrlTimeoutSeconds") {
            None => 600,
            Some(_) => fields.count("signedUrlTimeoutSeconds")?,
        };
        if !(1..=604_800).contains(&seconds) {
            return Err(fields.refuse("signedUrlTimeoutSeconds", "is not 1 to 604800"));
        }
        Ok(Self {
            content_md5: checksum(&fields, "contentMd5", 16)?,
            content_sha256: checksum(&fields, "contentSha256", 32)?,
            file_name: file_name.to_owned(),
            content_type: content_type.to_owned(),
            life: Duration::from_secs(seconds),
            upload,
        })
    }
}

fn checksum(fields: &Fields<'_>, name: &str, bytes: usize) -> Result<Option<String>, Reply> {
    if fields.optional(name).is_none() {
        return Ok(None);
    }
    let text = fields.text(name)?;
    match STANDARD.decode(text) {
        Ok(decoded) if decoded.len() == bytes => Ok(Some(text.to_owned())),
        _ => Err(fields.refuse(name, &format!("is not {bytes} bytes in base64"))),
    }
}

/// A URL for what is not stored yet, a receipt for what is.
pub(super) fn issue(
    world: &mut World,
    name: &str,
    head: &Head,
    wish: &Wish,
    now: Duration,
) -> Result<Reply, Reply> {
    check(world, name, &wish.upload)?;
    if world.holds(name, &wish.upload) {
        return accept(world, name, &wish.upload);
    }
    let signature = format!("canary-signature-{}", world.draw());
    let path = format!("/_store/{name}/{}", wish.file_name);
    let tenant = &world.tenants[name];
    let life = tenant.settings.url_life.unwrap_or(wish.life);
    let mut headers = vec![("content-type".to_owned(), wish.content_type.clone())];
    let sums = [
        ("content-md5", &wish.content_md5),
        ("x-amz-checksum-sha256", &wish.content_sha256),
    ];
    for (header, sum) in sums {
        headers.extend(sum.as_ref().map(|sum| (header.to_owned(), sum.clone())));
    }
    let shown: Map<String, Value> = headers
        .iter()
        .map(|(header, value)| (header.clone(), json!(value)))
        .collect();
    let url = format!(
        "{}{path}?X-Amz-Expires={}&X-Amz-Signature={signature}",
        head.base_url,
        life.as_secs()
    );
    let signed = Signed {
        tenant: name.to_owned(),
        upload: wish.upload.clone(),
        path,
        headers,
        expires_at: now.saturating_add(life),
    };
    if world.urls.0.len() >= URLS_MAX {
        world.urls.0.retain(|_, known| known.expires_at > now);
    }
    world.urls.0.insert(signature, signed);
    world.counters(Some(name)).urls_issued += 1;
    Ok(Reply::json(
        200,
        json!({"url": url, "uploadKey": wish.file_name, "headers": shown}),
    ))
}

/// A PUT to the storage host.
pub(super) struct Put {
    pub(super) path: String,
    /// `X-Amz-Signature` of the query.
    pub(super) signature: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// What any client adds by itself.
const UNSIGNED: [&str; 6] = [
    "host",
    "content-length",
    "user-agent",
    "accept",
    "accept-encoding",
    "connection",
];

impl Urls {
    /// Tenant, session and sequence behind a signature.
    pub(super) fn aim(&self, signature: Option<&str>) -> Option<(String, String, u64)> {
        let signed = self.0.get(signature?)?;
        let (upload, tenant) = (&signed.upload, signed.tenant.clone());
        Some((tenant, upload.session.clone(), upload.parts[0].sequence))
    }
}

pub(super) fn put(world: &mut World, put: &Put, now: Duration) -> Reply {
    store(world, put, now).unwrap_or_else(|refusal| refusal)
}

fn store(world: &mut World, put: &Put, now: Duration) -> Result<Reply, Reply> {
    let signature = put.signature.as_deref().unwrap_or_default();
    let signed = world.urls.0.get(signature).cloned();
    let tenant = signed.as_ref().map(|signed| signed.tenant.clone());
    if put.headers.contains_key("authorization") {
        world.counters(tenant.as_deref()).bearer_at_store += 1;
        return Err(xml(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified",
        ));
    }
    let Some(signed) = signed.filter(|signed| signed.path == put.path) else {
        return Err(mismatch(signature));
    };
    if now >= signed.expires_at {
        world.counters(tenant.as_deref()).urls_expired += 1;
        return Err(xml(403, "AccessDenied", "Request has expired"));
    }
    signed.check_headers(&put.headers, signature)?;
    if !put.headers.contains_key("content-length") {
        return Err(xml(
            411,
            "MissingContentLength",
            "You must provide the Content-Length HTTP header.",
        ));
    }
    let sha256 = STANDARD.encode(ring::digest::digest(&SHA256, &put.body));
    let md5 = md5::digest(&put.body);
    signed.check_body(&STANDARD.encode(md5), &sha256)?;
    let upload = Upload {
        payload: put.body.clone(),
        ..signed.upload
    };
    super::upload::check_payload(&upload.payload, &upload.parts).map_err(|_| {
        xml(
            400,
            "BadDigest",
            "The bytes are not those of the recording.",
        )
    })?;
    check(world, &signed.tenant, &upload)?;
    accept(world, &signed.tenant, &upload)?;
    let reply = Reply::text(200, "application/xml", "");
    let settings = &world.tenants[&signed.tenant].settings;
    Ok(match settings.store_receipt.as_str() {
        "etag" => reply.with("ETag", &format!("\"{}\"", md5::hex(&put.body))),
        "sha256" => reply.with("x-amz-checksum-sha256", &sha256),
        _ => reply,
    })
}

impl Signed {
    fn check_headers(&self, headers: &HeaderMap, signature: &str) -> Result<(), Reply> {
        for (name, value) in &self.headers {
            let sent = headers.get(name).and_then(|value| value.to_str().ok());
            if sent != Some(value) {
                return Err(mismatch(signature));
            }
        }
        let signed = |name: &str| self.headers.iter().any(|(known, _)| known == name);
        let extra = headers
            .keys()
            .find(|name| !UNSIGNED.contains(&name.as_str()) && !signed(name.as_str()));
        match extra {
            None => Ok(()),
            Some(name) => Err(xml(
                403,
                "AccessDenied",
                &format!("There were headers present in the request which were not signed: {name}"),
            )),
        }
    }

    fn check_body(&self, md5: &str, sha256: &str) -> Result<(), Reply> {
        for (name, value) in &self.headers {
            let right = match name.as_str() {
                "content-md5" => md5,
                "x-amz-checksum-sha256" => sha256,
                _ => continue,
            };
            if value != right {
                return Err(xml(
                    400,
                    "BadDigest",
                    &format!("The {name} you specified did not match what we received."),
                ));
            }
        }
        Ok(())
    }
}

/// As the real ones do, it repeats what was sent.
fn mismatch(signature: &str) -> Reply {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we calculated does not match the signature you provided. Check your key and signing method.</Message><SignatureProvided>{signature}</SignatureProvided></Error>"
    );
    Reply::text(403, "application/xml", &text)
}

fn xml(status: u16, code: &str, message: &str) -> Reply {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    Reply::text(status, "application/xml", &text)
}
