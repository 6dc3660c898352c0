//! Who may come in through the local door, decided from the connection and its headers alone.
//!
//! This machine may reach everything, unless a web page is behind it: a foreign `Host` is DNS rebinding, a foreign
//! `Origin` or `Sec-Fetch-Site` is another site's page. Anyone else may reach `/health` only, and the models of a node
//! that shares them.

use std::net::{IpAddr, SocketAddr};

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::state::Shared;
use crate::{failure, share};

/// The two ends of a connection, as the system tells them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    peer: IpAddr,
    local: IpAddr,
}

impl Ends {
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer: peer.ip().to_canonical(),
            local: local.ip().to_canonical(),
        }
    }

    /// Who asks.
    pub fn peer(self) -> IpAddr {
        self.peer
    }

    /// Whether the peer is this machine. It calls itself at an address of its network from that same address, which
    /// nobody else can hold a connection from.
    fn are_here(self) -> bool {
        self.peer.is_loopback() || self.peer == self.local
    }
}

/// Passes a request on, or answers 403 with the reason.
pub(crate) async fn check(
    State(shared): State<Shared>,
    Extension(ends): Extension<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let (method, headers) = (request.method(), request.headers());
    let shares = shared.options.models.as_ref();
    let shares = shares.is_some_and(|models| models.shared);
    match verdict(ends, shared.address, shares, method, path, headers) {
        Ok(()) => next.run(request).await,
        Err((code, message)) => failure::on_route(&request, StatusCode::FORBIDDEN, code, &message),
    }
}

type Refusal = (&'static str, String);

fn verdict(
    ends: Ends,
    door: SocketAddr,
    shares: bool,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    let for_others = path == "/health" || (shares && share::is_for_others(method, path));
    if !ends.are_here() && !for_others {
        return Err((
            "not_local",
            match share::is_for_others(method, path) {
                true => "this machine does not share its models; set share_models = \"on\" there",
                false => {
                    "only this machine may use this route; from elsewhere /health alone answers"
                }
            }
            .into(),
        ));
    }
    if is_of_another_site(method, headers) {
        return Err((
            "foreign_site",
            "pages of other sites may not use this node; they may link to it".into(),
        ));
    }
    if !ends.are_here() {
        // By which name other machines know this one is theirs to say.
        return Ok(());
    }
    let texts = |name| {
        let all = headers.get_all(name).iter();
        all.map(|value| value.to_str().unwrap_or("?"))
    };
    if let Some(host) = texts(HOST).find(|host| !is_ours(host, door, ends.local)) {
        let own = SocketAddr::new(ends.local, door.port());
        return Err((
            "foreign_host",
            format!("the Host `{host}` is not this node; use {own}"),
        ));
    }
    let is_own_page = |origin: &str| {
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        host.is_some_and(|host| is_ours(host, door, ends.local))
    };
    if let Some(origin) = texts(ORIGIN).find(|origin| !is_own_page(origin)) {
        return Err((
            "foreign_origin",
            format!("pages of `{origin}` may not use this node"),
        ));
    }
    Ok(())
}

/// Whether a browser sends this for a page of another site, and not because somebody follows a link to this one. An
/// image or a frame has no `Origin`, but it has these headers (<https://www.w3.org/TR/fetch-metadata/>).
fn is_of_another_site(method: &Method, headers: &HeaderMap) -> bool {
    let says = |name, text| headers.get(name).is_some_and(|value| value == text);
    let site = "sec-fetch-site";
    let follows = method == Method::GET
        && says("sec-fetch-mode", "navigate")
        && (says("sec-fetch-dest", "document") || !headers.contains_key("sec-fetch-dest"));
    (says(site, "cross-site") || says(site, "same-site")) && !follows
}

/// Whether `host[:port]` names this node: a loopback name, the bound address or the one that was connected to, and the
/// bound port.
fn is_ours(host: &str, door: SocketAddr, local: IpAddr) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port != door.port().to_string())
        || (port.is_none() && door.port() != 80)
    {
        return false;
    }
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| {
            let canonical = ip.to_canonical();
            canonical.is_loopback() || canonical == local || ip == door.ip()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "192.0.2.2";

    /// A GET by `peer`, who connected to `local`, at a door that is open to the network.
    fn ask(
        peer: &str,
        local: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), &'static str> {
        ask_with(&Method::GET, peer, local, path, headers)
    }

    fn ask_with(
        method: &Method,
        peer: &str,
        local: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), &'static str> {
        let address = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 50_000);
        let ends = Ends::new(address(peer), address(local));
        let door = "0.0.0.0:8321".parse().expect("an address");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        verdict(ends, door, false, method, path, &map).map_err(|(code, _)| code)
    }

    #[test]
    fn this_machine_may_under_its_own_names() {
        for host in [
            "localhost:8321",
            "127.0.0.1:8321",
            "[::1]:8321",
            "LOCALHOST:8321",
            "0.0.0.0:8321",
        ] {
            let origin = format!("http://{host}");
            for headers in [
                &[("host", host)][..],
                &[("host", host), ("origin", &origin)],
            ] {
                for path in ["/v1/models", "/", "/health"] {
                    let verdict = ask("127.0.0.1", "127.0.0.1", path, headers);
                    assert_eq!(verdict, Ok(()), "{host}");
                }
            }
        }
        for peer in ["::1", "::ffff:127.0.0.1", "127.0.0.2"] {
            assert_eq!(ask(peer, "::1", "/v1/models", &[]), Ok(()), "{peer}");
        }
    }

    #[test]
    fn this_machine_may_at_its_address_in_the_network() {
        let host = ("host", "192.0.2.2:8321");
        let origin = ("origin", "http://192.0.2.2:8321");
        assert_eq!(ask(OWN, OWN, "/status", &[host, origin]), Ok(()));
        assert_eq!(ask("::ffff:192.0.2.2", OWN, "/status", &[host]), Ok(()));
        assert_eq!(ask("fd00::2", "fd00::2", "/status", &[]), Ok(()));
        // That address is ours only to whoever is connected to it.
        let elsewhere = ask("127.0.0.1", "127.0.0.1", "/status", &[host]);
        assert_eq!(elsewhere, Err("foreign_host"));
        assert_eq!(ask("192.0.2.3", OWN, "/status", &[host]), Err("not_local"));
    }

    #[test]
    fn web_pages_of_others_may_not() {
        for host in [
            "evil.example:8321",
            "evil.example",
            "localhost:80",
            "localhost",
            "127.0.0.1.evil.example:8321",
            "",
        ] {
            for path in ["/v1/models", "/health"] {
                for own in ["127.0.0.1", OWN] {
                    let verdict = ask(own, own, path, &[("host", host)]);
                    assert_eq!(verdict, Err("foreign_host"), "{host}");
                }
            }
        }
        let two = [("host", "localhost:8321"), ("host", "evil.example")];
        let verdict = ask("127.0.0.1", "127.0.0.1", "/status", &two);
        assert_eq!(verdict, Err("foreign_host"));
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "file://",
            "http://localhost:8321.evil.example",
        ] {
            let headers = [("host", "localhost:8321"), ("origin", origin)];
            let verdict = ask("127.0.0.1", "127.0.0.1", "/v1/chat/completions", &headers);
            assert_eq!(verdict, Err("foreign_origin"), "{origin}");
        }
    }

    #[test]
    fn an_image_of_another_site_may_not_and_a_link_may() {
        let image = ("sec-fetch-mode", "no-cors");
        let link = ("sec-fetch-mode", "navigate");
        for site in ["cross-site", "same-site"] {
            let site = ("sec-fetch-site", site);
            for path in ["/health", "/"] {
                let here = |headers: &[_]| ask("127.0.0.1", "127.0.0.1", path, headers);
                assert_eq!(here(&[site]), Err("foreign_site"));
                assert_eq!(here(&[site, image]), Err("foreign_site"));
                assert_eq!(here(&[site, link]), Ok(()));
                assert_eq!(here(&[site, link, ("sec-fetch-dest", "document")]), Ok(()));
                let frame = [site, link, ("sec-fetch-dest", "iframe")];
                assert_eq!(here(&frame), Err("foreign_site"));
            }
            let abroad = ask("192.0.2.3", OWN, "/health", &[site, image]);
            assert_eq!(abroad, Err("foreign_site"));
            let form = ask_with(
                &Method::POST,
                "127.0.0.1",
                "127.0.0.1",
                "/shutdown",
                &[site, link],
            );
            assert_eq!(form, Err("foreign_site"));
        }
        for site in ["same-origin", "none"] {
            let headers = [("sec-fetch-site", site), image];
            assert_eq!(ask("::1", "::1", "/health", &headers), Ok(()));
        }
    }

    #[test]
    fn other_machines_may_fetch_models_where_they_are_shared() {
        let address = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 50_000);
        let ends = Ends::new(address("192.0.2.3"), address(OWN));
        let door = "0.0.0.0:8321".parse().expect("an address");
        let ask = |shares, method: Method, path| {
            verdict(ends, door, shares, &method, path, &HeaderMap::new()).is_ok()
        };
        for path in ["/peer/models", "/peer/blobs/sha256-x"] {
            assert!(ask(true, Method::GET, path) && ask(true, Method::HEAD, path));
            assert!(!ask(true, Method::POST, path) && !ask(false, Method::GET, path));
        }
        for path in ["/status", "/v1/models", "/peer", "/peer/models/x"] {
            assert!(!ask(true, Method::GET, path), "{path}");
        }
    }

    #[test]
    fn other_machines_hear_of_health_alone() {
        let hub = ("host", "hub:8321");
        assert_eq!(ask("192.0.2.3", OWN, "/health", &[hub]), Ok(()));
        for path in ["/status", "/", "/health/", "/v1/models"] {
            assert_eq!(ask("192.0.2.3", OWN, path, &[hub]), Err("not_local"));
        }
    }
}
