//! Bodies as platforms, storage hosts and proxies really send them.

pub const BAD_CREDENTIALS: &str = r#"{"message":"Invalid login credentials.","code":"bad.credentials",
    "status":401,"contextId":"9d0c0f8e-0a3c-4a52-8d5e-1f0f2b1c7e11","details":[],"errors":[]}"#;
pub const EXPIRED: &str = r#"{"message":"The supplied credentials have expired.","code":"credentials.expired","status":401}"#;
pub const NO_TOKEN: &str = r#"{"message":"No authentication bearer token specified in authorization header.",
    "code":"authentication.required","status":401,"contextId":"c-2"}"#;
pub const MISSING: &str = r#"{"message":"Unable to perform the requested action. You are missing the following permission(s): recording:recording:upload",
    "code":"missing.permissions","status":403,"messageParams":{"permissions":"recording:recording:upload"},"contextId":"c-3"}"#;
pub const MISSING_LIST: &str = r#"{"message":"Unable to perform the requested action. You are missing the following permission(s): [recording:recording:upload, recording:screenRecording:view]",
    "code":"missing.permissions","status":403}"#;
pub const MISSING_ANY: &str = r#"{"message":"Unable to perform the requested action. You must have at least one of the following permissions assigned: [] in at least one of the following division(s): [dbdb51ee-0000]",
    "code":"missing.any.permissions","status":403}"#;
pub const NOT_AUTHORIZED: &str = r#"{"message":"You are not authorized to perform the requested action.","code":"not.authorized","status":403}"#;
pub const NOT_FOUND: &str =
    r#"{"message":"The requested resource was not found.","code":"not.found","status":404}"#;
pub const TOO_MANY: &str = r#"{"message":"Rate limit exceeded the maximum. Retry the request in [58] seconds","code":"too.many.requests","status":429}"#;
pub const AUTH_TIMEOUT: &str = r#"{"message":"Authentication request timed out.","code":"authentication.request.timeout","status":504}"#;
pub const UNAVAILABLE: &str =
    r#"{"message":"The server is unavailable.","code":"service.unavailable","status":503}"#;
pub const INTERNAL: &str = r#"{"message":"The server encountered an unexpected condition which prevented it from fulfilling the request.","code":"internal.server.error","status":500}"#;
pub const INVALID_DATE: &str = r#"{"message":"Dates must be specified as ISO-8601 strings. For example: yyyy-MM-ddTHH:mm:ss.SSSZ","code":"invalid.date","status":400,
    "details":[{"errorCode":"invalid.date","fieldName":"startTime"}]}"#;
pub const TOO_LARGE: &str = r#"{"message":"Request too large. Maximum bytes: 33554432","code":"request.too.large","status":413}"#;
pub const MEDIA_TYPE: &str =
    r#"{"message":"Unsupported media type.","code":"unsupported.media.type","status":415}"#;
pub const PURVIEW: &str = r#"{"message":"Validation failed: the provided purview ID does not match the token's scope","code":"validation.error","status":422,
    "details":[{"errorCode":"invalid.value","fieldName":"purview"}]}"#;
pub const PURVIEW_NESTED: &str = r#"{"message":"Unprocessable","code":"unprocessable","status":422,
    "errors":[{"message":"no match","details":[{"fieldName":"purviewId"}]}]}"#;
pub const VALIDATION: &str = r#"{"message":"intervalSeconds must be at most 900","code":"validation.error","status":422,
    "details":[{"errorCode":"out.of.range","fieldName":"intervalSeconds"}]}"#;
pub const CONFLICT: &str = r#"{"message":"sequence 7 of session s1 is stored with another digest","code":"conflict.digest","status":409}"#;
pub const IN_PROGRESS: &str = r#"{"message":"a request with this key is being worked on","code":"request.in.progress","status":409}"#;
pub const OUTSTANDING: &str = r#"{"type":"https://example.com/idempotency","title":"A request is outstanding for this Idempotency-Key","detail":"Retry later"}"#;
pub const MISMATCH: &str =
    r#"{"message":"payload does not match its digest","code":"digest.mismatch","status":422}"#;
pub const S3_BAD_DIGEST: &str = "<?xml version=\"1.0\"?><Error><Code>BadDigest</Code><Message>The Content-MD5 you specified did not match what we received.</Message></Error>";
pub const S3_URL_EXPIRED: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message><Expires>2026-03-01T09:00:00Z</Expires></Error>";
pub const S3_TOKEN_EXPIRED: &str = "<?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
pub const S3_SIGNATURE: &str =
    "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code></Error>";
pub const HTML: &str = "<!DOCTYPE html>\n<html><head><title>Sign in to HotelWiFi</title></head><body>Welcome</body></html>";
pub const NGINX: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><hr><center>nginx</center></body></html>";
pub const USER_CONTEXT: &str = r#"{"message":"This request requires a user context. Client credentials cannot be used for requests that require a user context.",
    "code":"bad.request","status":400,"messageParams":{},"contextId":"c-9","details":[],"errors":[]}"#;
