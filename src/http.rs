//! The one way to make an HTTP client. All clients of the process share one TLS configuration
//! (ring; the system's certificates, or the bundled ones where there are none); each has its own
//! connection pool. No client follows a redirect, repeats a request by itself or speaks anything
//! but HTTP/1.1: an upload that stalls must stall alone.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What a client needs to know before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// From the first packet to the end of the TLS handshake.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    pub proxying: Proxying,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            // Common balancers close an idle connection after 60 s; a request on a connection that
            // the other side is closing is in doubt.
            idle_timeout: Duration::from_secs(50),
            proxying: Proxying::FromEnvironment,
        }
    }
}

/// Whether `HTTPS_PROXY` and its kin apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proxying {
    FromEnvironment,
    Direct,
}

impl Proxying {
    /// A proxy elsewhere cannot reach this machine's loopback.
    pub fn toward(url: &str) -> Self {
        if is_loopback(url) {
            Self::Direct
        } else {
            Self::FromEnvironment
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("setting up an HTTP client")]
    Setup(#[source] reqwest::Error),
}

/// A client with a connection pool of its own.
///
/// # Errors
/// [`HttpError::Setup`] if the settings and the environment allow no client.
pub fn client(settings: &Settings) -> Result<reqwest::Client, HttpError> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls().clone())
        .http1_only()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(settings.idle_timeout)
        .user_agent(concat!("reelay/", env!("CARGO_PKG_VERSION")));
    match settings.proxying {
        Proxying::FromEnvironment => builder,
        Proxying::Direct => builder.no_proxy(),
    }
    .build()
    .map_err(HttpError::Setup)
}

/// The shared TLS configuration. Built once: reading the system's certificates costs milliseconds,
/// a client from a clone microseconds.
pub fn tls() -> &'static rustls::ClientConfig {
    static SHARED: OnceLock<rustls::ClientConfig> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    })
}

/// Whether a URL leads to this machine.
pub fn is_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let Some(host) = url.host_str() else {
        return false;
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_goes_past_the_proxy() {
        for near in [
            "http://127.0.0.1:8080",
            "http://localhost/x",
            "http://[::1]:1",
        ] {
            assert_eq!(Proxying::toward(near), Proxying::Direct, "{near}");
        }
        for far in [
            "https://api.example.com",
            "http://localhost.example.com",
            "?",
        ] {
            assert_eq!(Proxying::toward(far), Proxying::FromEnvironment, "{far}");
        }
    }

    #[test]
    fn a_client_needs_no_installed_crypto_provider() {
        client(&Settings::default()).unwrap();
        client(&Settings {
            proxying: Proxying::Direct,
            ..Settings::default()
        })
        .unwrap();
    }
}
