//! Requests to a hub or another machine: redirects followed by hand, so that the token stays with the host it is for.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::error::{Error, Reason};

/// Most redirects of one request.
const REDIRECTS: usize = 8;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(15);
/// How long the look-up of a name may take.
const LOOK_UP: Duration = Duration::from_secs(10);
/// Longest answer that is kept in memory.
const LONGEST: u64 = 64 << 20;
/// Most of a refusal that is read.
const LONGEST_WORDS: u64 = 64 << 10;

/// The secret that the hub knows its user by. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token; blanks around it do not count. `None` if nothing is left, or what cannot stand in a header.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let sane = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        sane.then(|| Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A client of one server and whoever it redirects to.
pub(crate) struct Http {
    /// Scheme and authority that may see the token.
    origin: String,
    token: Option<Token>,
    proxy: Option<ureq::Proxy>,
    patience: Duration,
    plain: OnceLock<ureq::Agent>,
    secure: OnceLock<ureq::Agent>,
}

/// Why a request brought no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// What went wrong, naming the host.
    pub what: String,
    /// Whether the same request may work a moment later.
    pub passing: bool,
    /// Whether it failed before a connection came about.
    pub nobody: bool,
}

/// The head of an answer, with its body to read.
pub(crate) struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    /// Where it came from after all redirects.
    pub url: String,
    body: ureq::Body,
}

impl Reply {
    /// The value of a header that is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The beginning of the body as text; what cannot be read is left out.
    pub fn text(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self
            .body
            .as_reader()
            .take(LONGEST_WORDS)
            .read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The body as it comes.
    pub fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(mut self) -> Result<T, Unanswered> {
        let url = self.url;
        self.body
            .with_config()
            .limit(LONGEST)
            .read_json()
            .map_err(|error| match error {
                ureq::Error::Json(error) if !error.is_io() && !error.is_eof() => Unanswered {
                    what: format!(
                        "{} answered with something else than expected: {error}",
                        host(&url)
                    ),
                    passing: false,
                    nobody: false,
                },
                error => unanswered(&url, &error),
            })
    }
}

/// Scheme and authority of an address.
fn origin(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http").to_ascii_lowercase();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let port = uri
        .port_u16()
        .unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!("{scheme}://{host}:{port}")
}

/// The host of an address, for messages.
pub(crate) fn host(url: &str) -> String {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or(authority);
    let bare = authority.rsplit('@').next().unwrap_or(authority);
    bare.to_owned()
}

/// Where a redirect leads (RFC 9110, 10.2.2): an address, or one relative to where it came from.
fn follow(from: &Uri, location: &str) -> Option<Uri> {
    let absolute = location.split_once("://").is_some_and(|(scheme, _)| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    if absolute {
        return location.parse().ok();
    }
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    let text = if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    text.parse().ok()
}

/// A name that could not be looked up. The system's own words tell a name that nobody has from a network that is away.
#[derive(Debug)]
struct NoName {
    host: String,
    error: io::Error,
}

impl std::fmt::Display for NoName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, error } = self;
        write!(f, "the name {host} cannot be looked up ({error})")
    }
}

impl std::error::Error for NoName {}

/// Looks names up as the system does, and marks failures as what they are.
#[derive(Debug, Default)]
struct Names(DefaultResolver);

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.0
            .resolve(uri, config, timeout)
            .map_err(|error| match error {
                ureq::Error::Io(error) => ureq::Error::Other(Box::new(NoName {
                    host: uri.host().unwrap_or_default().to_owned(),
                    error,
                })),
                error => error,
            })
    }
}

/// Whether this machine knows no way to the other one.
fn is_no_way(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable};
    matches!(
        error.kind(),
        HostUnreachable | NetworkDown | NetworkUnreachable
    )
}

/// What went wrong with the encryption, where a broken connection is about that.
fn of_encryption(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Failures in words, and whether trying again makes sense.
fn unanswered(url: &str, error: &ureq::Error) -> Unanswered {
    let host = host(url);
    let encryption = match error {
        ureq::Error::Io(error) => of_encryption(error).map(ToString::to_string),
        ureq::Error::Rustls(error) => Some(error.to_string()),
        ureq::Error::Tls(error) => Some((*error).to_owned()),
        _ => None,
    };
    if let Some(why) = encryption {
        return Unanswered {
            what: format!("the encrypted connection to {host} failed: {why}"),
            passing: false,
            nobody: false,
        };
    }
    let (what, passing) = match error {
        ureq::Error::HostNotFound => (format!("the name {host} is not known"), true),
        ureq::Error::Other(error) if error.is::<NoName>() => (error.to_string(), true),
        ureq::Error::Timeout(_) => (format!("{host} does not answer in time"), true),
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            (format!("{host} does not accept connections"), true)
        }
        ureq::Error::Io(error) if is_no_way(error) => {
            (format!("there is no way to {host}: {error}"), true)
        }
        ureq::Error::Io(error) => (format!("the connection to {host} broke: {error}"), true),
        ureq::Error::ConnectionFailed => (format!("{host} cannot be reached"), true),
        ureq::Error::Protocol(error) => (format!("{host} does not speak HTTP: {error}"), true),
        error => (format!("{host}: {error}"), false),
    };
    let nobody = match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Other(error) => error.is::<NoName>(),
        ureq::Error::Timeout(at) => matches!(at, ureq::Timeout::Resolve | ureq::Timeout::Connect),
        ureq::Error::Io(error) => {
            error.kind() == io::ErrorKind::ConnectionRefused || is_no_way(error)
        }
        _ => false,
    };
    Unanswered {
        what,
        passing,
        nobody,
    }
}

impl Http {
    /// A client of the server at `base`.
    pub fn new(
        base: &str,
        token: Option<Token>,
        proxy: Option<ureq::Proxy>,
        patience: Duration,
    ) -> Result<Self, Error> {
        let wrong = || {
            Error::new(Reason::Invalid, format!("`{base}` is not an address"))
                .fix("write it as http://HOST:PORT or https://HOST")
        };
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        if !known || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            origin: origin(&uri),
            token,
            proxy,
            patience,
            plain: OnceLock::new(),
            secure: OnceLock::new(),
        })
    }

    /// Whether the server is told who asks.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    fn agent(&self, secure: bool) -> &ureq::Agent {
        let cell = if secure { &self.secure } else { &self.plain };
        cell.get_or_init(|| {
            // Reading the system's certificates takes a moment; who does not need them does not wait.
            let tls = match secure {
                true => tls(),
                false => TlsConfig::builder().build(),
            };
            let config = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .max_idle_connections_per_host(16)
                .max_idle_connections(32)
                .timeout_resolve(Some(LOOK_UP))
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(self.patience))
                .timeout_per_read(Some(self.patience))
                .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
                .proxy(self.proxy.clone())
                .tls_config(tls)
                .build();
            ureq::Agent::with_parts(config, DefaultConnector::default(), Names::default())
        })
    }

    /// The answer to a GET; `range` is the first byte and the one after the last.
    pub fn get(&self, url: &str, range: Option<(u64, u64)>) -> Result<Reply, Unanswered> {
        let lost = |what: String| Unanswered {
            what,
            passing: false,
            nobody: false,
        };
        let mut uri: Uri = url
            .parse()
            .map_err(|_| lost(format!("`{url}` is not an address")))?;
        for _ in 0..=REDIRECTS {
            let mut request = self.agent(uri.scheme_str() == Some("https")).get(&uri);
            if let Some((first, end)) = range {
                request = request.header("range", format!("bytes={first}-{}", end - 1));
            }
            // The token is the hub's affair: neither the host that keeps the files nor anybody else gets it.
            if let Some(token) = self.token.as_ref().filter(|_| origin(&uri) == self.origin) {
                request = request.header("authorization", format!("Bearer {}", token.0));
            }
            let url = uri.to_string();
            let response = request.call().map_err(|error| {
                let mut lost = unanswered(&url, &error);
                // It may be the proxy that nobody finds.
                if let Some(proxy) = self
                    .proxy
                    .as_ref()
                    .filter(|it| lost.nobody && !it.is_no_proxy(&uri))
                {
                    lost.what += &format!(
                        " (asked through the proxy {}:{})",
                        proxy.host(),
                        proxy.port()
                    );
                }
                lost
            })?;
            let status = response.status().as_u16();
            let (head, body) = response.into_parts();
            let location = head.headers.get("location").and_then(|at| at.to_str().ok());
            let Some(location) = location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308))
            else {
                return Ok(Reply {
                    status,
                    headers: head.headers,
                    url,
                    body,
                });
            };
            let next = follow(&uri, location)
                .ok_or_else(|| lost(format!("{} redirects to no address", host(&url))))?;
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(lost(format!(
                    "{} redirects to an address that is not encrypted",
                    host(&url)
                )));
            }
            uri = next;
        }
        Err(lost(format!("{} redirects in circles", host(url))))
    }
}

/// Encryption with the certificate authorities that this system trusts, for this crate's requests and others' of the
/// same program.
pub fn tls() -> TlsConfig {
    static ROOTS: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("a certificate of this system cannot be used: {error}");
        }
        if found.certs.is_empty() {
            tracing::warn!("this system trusts no certificate authority; install ca-certificates");
        }
        let own = |der: &rustls::pki_types::CertificateDer<'static>| {
            Certificate::from_der(der.as_ref()).to_owned()
        };
        found.certs.iter().map(own).collect()
    });
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from: Uri = "https://hub.example/org/repo/file?x=1".parse().unwrap();
        for (location, to) in [
            ("https://cdn.example/a?b=c", "https://cdn.example/a?b=c"),
            ("//cdn.example/a", "https://cdn.example/a"),
            ("/new/place", "https://hub.example/new/place"),
            ("other", "https://hub.example/org/repo/other"),
        ] {
            assert_eq!(follow(&from, location).unwrap().to_string(), to);
        }
    }

    #[test]
    fn the_port_and_the_scheme_belong_to_the_origin() {
        let of = |text: &str| origin(&text.parse().unwrap());
        assert_eq!(of("https://Hub.example/a"), of("https://hub.example:443/b"));
        assert_ne!(of("https://hub.example"), of("http://hub.example"));
        assert_ne!(of("http://127.0.0.1:1"), of("http://127.0.0.1:2"));
    }

    #[test]
    fn a_token_is_not_shown_and_must_fit_a_header() {
        assert_eq!(format!("{:?}", Token::new(" hf_x \n").unwrap()), "Token(…)");
        assert!(Token::new(" ").is_none());
        assert!(Token::new("a\nb").is_none());
    }

    #[test]
    fn what_is_no_address_is_said() {
        for base in ["", "hub", "ftp://a", "http://", "http:// a", "http://a/?b"] {
            assert!(Http::new(base, None, None, CONNECT).is_err(), "{base}");
        }
    }
}
