//! The one way to make an HTTP client. All clients of the process share one TLS configuration
//! (ring; the system's certificates, or the bundled ones where there are none); each has its own
//! connection pool. No client follows a redirect, repeats a request by itself or speaks anything
//! but HTTP/1.1: an upload that stalls must stall alone.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::ClientBuilder;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

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
    #[error("{what} holds no certificate in PEM")]
    NoCertificate { what: &'static str },
    #[error("client_key_file holds no private key in PEM")]
    NoKey,
    #[error("{what} holds a certificate that cannot be used")]
    Certificate {
        what: &'static str,
        #[source]
        source: rustls::Error,
    },
    #[error("client_certificate_file and client_key_file do not belong together")]
    Identity(#[source] rustls::Error),
    #[error("proxy_url: {0}")]
    Proxy(&'static str),
}

/// Through whom requests go.
#[derive(Clone, Default)]
enum Through {
    /// The environment's proxies, but none toward this machine.
    #[default]
    Environment,
    Nobody,
    Proxy(Box<reqwest::Proxy>),
}

/// How requests leave this host: through whom, whom they trust and what they show. What a server shows is always
/// verified. The default is the shared TLS configuration and the environment's proxies.
#[derive(Clone, Default)]
pub struct Reach {
    through: Through,
    /// `None`: the shared one.
    tls: Option<rustls::ClientConfig>,
}

/// A proxy's password and a client's key are in it.
impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reach")
    }
}

impl Reach {
    /// Past every proxy.
    #[must_use]
    pub fn direct(mut self) -> Self {
        self.through = Through::Nobody;
        self
    }

    /// Through this proxy, wherever a request goes.
    ///
    /// # Errors
    /// As [`check_proxy_url`].
    pub fn through(mut self, url: &str, password: Option<&str>) -> Result<Self, HttpError> {
        let mut url = check_proxy_url(url).map_err(HttpError::Proxy)?;
        let user = url.username().to_owned();
        // No character of it is wrong for a URL that was parsed.
        let _ = url.set_username("");
        let mut proxy = reqwest::Proxy::all(url).map_err(HttpError::Setup)?;
        if !user.is_empty() {
            proxy = proxy.basic_auth(&user, password.unwrap_or_default());
        }
        self.through = Through::Proxy(Box::new(proxy));
        Ok(self)
    }

    /// Trusts these certificates (PEM) besides the system's, and shows this one where a server asks.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn trusting(
        mut self,
        ca: Option<&[u8]>,
        identity: Option<(&[u8], &str)>,
    ) -> Result<Self, HttpError> {
        if ca.is_none() && identity.is_none() {
            return Ok(self);
        }
        let mut roots = system_roots();
        for certificate in ca
            .map(|pem| certificates(pem, "ca_file"))
            .transpose()?
            .unwrap_or_default()
        {
            let what = "ca_file";
            roots
                .add(certificate)
                .map_err(|source| HttpError::Certificate { what, source })?;
        }
        let builder = with_roots(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain, "client_certificate_file")?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
                builder
                    .with_client_auth_cert(chain, key.map_err(|_| HttpError::NoKey)?)
                    .map_err(HttpError::Identity)?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.tls = Some(config);
        Ok(self)
    }

    /// What this TLS configuration trusts and shows, and nothing else.
    #[must_use]
    pub fn with_tls(mut self, tls: rustls::ClientConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// For requests toward `url`, with nothing said of time.
    pub fn builder(&self, url: &str) -> ClientBuilder {
        let builder = bare(self.tls.as_ref().unwrap_or_else(|| tls()).clone());
        match (&self.through, Proxying::toward(url)) {
            (Through::Proxy(proxy), _) => builder.proxy(proxy.as_ref().clone()),
            (Through::Nobody, _) | (Through::Environment, Proxying::Direct) => builder.no_proxy(),
            (Through::Environment, Proxying::FromEnvironment) => builder,
        }
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(HttpError::NoCertificate { what }),
    }
}

/// A proxy's URL: it may name a user, its password stands in a file.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn check_proxy_url(text: &str) -> Result<reqwest::Url, &'static str> {
    let url = reqwest::Url::parse(text)
        .map_err(|_| "is not a url such as http://user@proxy.example.com:3128")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("must start with http:// or https:// and name a host");
    }
    if url.password().is_some() {
        return Err("must not hold a password: name a proxy_password_file");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("must end with the host and port");
    }
    Ok(url)
}

/// A client with a connection pool of its own.
///
/// # Errors
/// [`HttpError::Setup`] if the settings and the environment allow no client.
pub fn client(settings: &Settings) -> Result<reqwest::Client, HttpError> {
    let builder = bare(tls().clone());
    let builder = match settings.proxying {
        Proxying::FromEnvironment => builder,
        Proxying::Direct => builder.no_proxy(),
    };
    timed(builder, settings)
}

/// The same toward `url`, by a way of its own.
///
/// # Errors
/// As [`client`].
pub fn client_by(
    reach: &Reach,
    url: &str,
    settings: &Settings,
) -> Result<reqwest::Client, HttpError> {
    timed(reach.builder(url), settings)
}

fn timed(builder: ClientBuilder, settings: &Settings) -> Result<reqwest::Client, HttpError> {
    builder
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(settings.idle_timeout)
        .build()
        .map_err(HttpError::Setup)
}

fn bare(tls: rustls::ClientConfig) -> ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .retry(reqwest::retry::never())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("reelay/", env!("CARGO_PKG_VERSION")))
}

/// The shared TLS configuration. Built once: reading the system's certificates costs milliseconds,
/// a client from a clone microseconds.
pub fn tls() -> &'static rustls::ClientConfig {
    static SHARED: OnceLock<rustls::ClientConfig> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut config = with_roots(system_roots()).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    })
}

fn system_roots() -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn with_roots(
    roots: rustls::RootCertStore,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default protocol versions")
        .with_root_certificates(roots)
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
    fn a_proxy_names_a_user_and_never_a_password() {
        for good in ["http://proxy:3128", "https://user@proxy.example.com"] {
            assert!(check_proxy_url(good).is_ok(), "{good}");
        }
        for bad in [
            "proxy:3128",
            "socks5://proxy",
            "http://user:canary@proxy",
            "http://proxy/canary",
            "http://proxy/?canary",
        ] {
            assert!(!check_proxy_url(bad).unwrap_err().contains("canary"));
        }
        let reach = Reach::default().through("http://user@proxy:1", Some("canary"));
        assert_eq!(format!("{:?}", reach.unwrap()), "Reach");
    }

    #[test]
    fn files_that_hold_no_certificate_or_key_are_named() {
        for (ca, identity, named) in [
            (Some(&b"nothing"[..]), None, "ca_file"),
            (None, Some((&b"nothing"[..], "")), "client_certificate_file"),
        ] {
            let error = Reach::default().trusting(ca, identity).unwrap_err();
            assert!(error.to_string().starts_with(named), "{error}");
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
