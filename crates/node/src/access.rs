//! Who may come in through the local door, decided from the connection and its headers alone.
//!
//! Loopback may reach everything, unless a web page is behind it: a foreign `Host` is DNS rebinding, a foreign
//! `Origin` is another site's script. Anyone else may reach `/health` only.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::failure;
use crate::state::Shared;

/// Passes a request on, or answers 403 with the reason.
pub(crate) async fn check(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    match verdict(peer.ip(), shared.address, path, request.headers()) {
        Ok(()) => next.run(request).await,
        Err((code, message)) => failure::on_route(path, StatusCode::FORBIDDEN, code, &message),
    }
}

type Refusal = (&'static str, String);

fn verdict(peer: IpAddr, door: SocketAddr, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if path == "/health" {
        return Ok(());
    }
    if !peer.to_canonical().is_loopback() {
        return Err((
            "not_local",
            "only this machine may use this route; from elsewhere /health alone answers".into(),
        ));
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(host) = text(HOST)
        && !is_ours(host, door)
    {
        return Err((
            "foreign_host",
            format!(
                "the Host `{host}` is not this node; use localhost:{}",
                door.port()
            ),
        ));
    }
    if let Some(origin) = text(ORIGIN) {
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        if !host.is_some_and(|host| is_ours(host, door)) {
            return Err((
                "foreign_origin",
                format!("pages of `{origin}` may not use this node"),
            ));
        }
    }
    Ok(())
}

/// Whether `host[:port]` names this node: a loopback name or the bound address, and its port.
fn is_ours(host: &str, door: SocketAddr) -> bool {
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
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback() || ip == door.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(
        peer: &str,
        path: &str,
        host: Option<&str>,
        origin: Option<&str>,
    ) -> Result<(), &'static str> {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(HOST, host.parse().expect("header"));
        }
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("header"));
        }
        let door = "127.0.0.1:8321".parse().expect("address");
        verdict(peer.parse().expect("address"), door, path, &headers).map_err(|(code, _)| code)
    }

    #[test]
    fn this_machine_may_under_its_own_names() {
        for host in [
            "localhost:8321",
            "127.0.0.1:8321",
            "[::1]:8321",
            "LOCALHOST:8321",
        ] {
            assert_eq!(
                ask("127.0.0.1", "/v1/models", Some(host), None),
                Ok(()),
                "{host}"
            );
            assert_eq!(
                ask("::1", "/", Some(host), Some(&format!("http://{host}"))),
                Ok(()),
                "{host}"
            );
        }
        assert_eq!(ask("::ffff:127.0.0.1", "/v1/models", None, None), Ok(()));
    }

    #[test]
    fn web_pages_of_others_may_not() {
        for host in [
            "evil.example:8321",
            "evil.example",
            "localhost:80",
            "localhost",
            "127.0.0.1.evil.example:8321",
        ] {
            assert_eq!(
                ask("127.0.0.1", "/v1/models", Some(host), None),
                Err("foreign_host"),
                "{host}"
            );
        }
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "file://",
            "http://localhost:8321.evil.example",
        ] {
            let verdict = ask(
                "127.0.0.1",
                "/v1/chat/completions",
                Some("localhost:8321"),
                Some(origin),
            );
            assert_eq!(verdict, Err("foreign_origin"), "{origin}");
        }
    }

    #[test]
    fn other_machines_hear_of_health_alone() {
        assert_eq!(ask("10.0.0.2", "/health", Some("hub:8321"), None), Ok(()));
        assert_eq!(
            ask("10.0.0.2", "/status", Some("hub:8321"), None),
            Err("not_local")
        );
    }
}
