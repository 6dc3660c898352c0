//! Who may come in, decided from the connection, the headers and the roster.
//!
//! This machine may reach everything, unless a web page is behind it: a foreign `Host` is DNS rebinding, a foreign
//! `Origin` or `Sec-Fetch-Site` is another site's page. A node that proves its key, by a signature or by the connection
//! itself, may reach the peer surface (`/health` and `/peer/*`) while it is a member of the household; who is none yet
//! may ask to join, and who answers. Anyone else may reach `/health` only, and the models of a node that shares them.

use std::net::{IpAddr, SocketAddr};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hearth_mesh::refusal::{Code, Refusal as MeshRefusal};
use hearth_mesh::signature::{IDENTITY, REFUSAL, sign_answer};
use hearth_protocol::household::NodeId;

use crate::body::received_up_to;
use crate::peer;
use crate::state::{Node, Shared, unix_time};
use crate::{failure, share};

/// Bytes that who is no member may send: a request to join takes some hundreds.
const LONGEST_OF_STRANGERS: usize = 64 << 10;
/// What another machine is told that asks for models of one that keeps them to itself.
const NOT_SHARED: &str = "this machine does not share its models; set share_models = \"on\" there";
/// What only a signed request has.
const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// The two ends of a connection, as the system or the connection's own proof tells them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    peer: IpAddr,
    local: IpAddr,
    /// The node at the other end, if the connection proves it.
    node: Option<NodeId>,
}

impl Ends {
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer: peer.ip().to_canonical(),
            local: local.ip().to_canonical(),
            node: None,
        }
    }

    /// Of a connection that proves the node at its other end, wherever that is.
    pub fn proven(node: NodeId) -> Self {
        let nowhere = IpAddr::from([0, 0, 0, 0]);
        Self {
            peer: nowhere,
            local: nowhere,
            node: Some(node),
        }
    }

    /// Who asks.
    pub fn peer(self) -> IpAddr {
        self.peer
    }

    /// Whether the peer is this machine. It calls itself at an address of its network from that same address, which
    /// nobody else can hold a connection from.
    fn are_here(self) -> bool {
        self.node.is_none() && (self.peer.is_loopback() || self.peer == self.local)
    }
}

/// Who a request comes from, for handlers of the peer surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// This machine.
    Here,
    /// A node that proved its key. It is a member, unless it asks to join.
    Node(NodeId),
    /// Anybody.
    Stranger,
}

impl Caller {
    /// The node, if it proved that it is one.
    pub fn node(self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(node),
            Self::Here | Self::Stranger => None,
        }
    }
}

/// Passes a request on, or answers 401 or 403 with the reason.
pub(crate) async fn check(
    State(shared): State<Shared>,
    Extension(ends): Extension<Ends>,
    mut request: Request,
    next: Next,
) -> Response {
    if ends.node.is_some() || request.headers().contains_key(SIGNATURE) {
        let (head, body) = request.into_parts();
        let asks_who = (ends.node.is_none() && head.uri.path() == IDENTITY).then(|| head.clone());
        let request = Request::from_parts(head, body);
        let mut response = match of_node(&shared, ends, request).await {
            Ok(request) => next.run(request).await,
            Err(refusal) => *refusal,
        };
        // Who is refused (its clock is wrong, say) is told by whom.
        if let Some(asked) = asks_who {
            let identity = shared.household.identity();
            sign_answer(identity, &asked, unix_time(), &mut response);
        }
        return response;
    }
    request.extensions_mut().insert(match ends.are_here() {
        true => Caller::Here,
        false => Caller::Stranger,
    });
    let path = request.uri().path();
    let (method, headers) = (request.method(), request.headers());
    let shares = shared.options.models.as_ref();
    let shares = shares.is_some_and(|models| models.shared);
    match verdict(ends, shared.address, shares, method, path, headers) {
        Ok(()) => next.run(request).await,
        Err((code, message)) => failure::on_route(&request, StatusCode::FORBIDDEN, code, &message),
    }
}

/// The request of a node that proves its key: by its connection, or by a signature over what is read here. It may reach
/// the peer surface, from wherever it comes.
async fn of_node(node: &Node, ends: Ends, request: Request) -> Result<Request, Box<Response>> {
    let (head, body) = request.into_parts();
    let answer = |head: &Parts, status, code: &str, message: &str| {
        let request = Request::from_parts(head.clone(), Body::empty());
        Box::new(failure::on_route(&request, status, code, message))
    };
    let refused = |head: &Parts, refusal: &MeshRefusal| {
        let status = match refusal.code {
            Code::NotInRoster | Code::Removed => StatusCode::FORBIDDEN,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::UNAUTHORIZED,
        };
        let code = refusal.code.as_str();
        let mut response = answer(head, status, code, &refusal.message);
        let headers = response.headers_mut();
        headers.insert(REFUSAL, HeaderValue::from_static(code));
        response
    };
    // Over a connection that proves its ends nothing is signed.
    let (who, verified) = match ends.node {
        Some(who) => (who, None),
        None => {
            let verified = node.household.verify(&head);
            let verified = verified.map_err(|refusal| refused(&head, &refusal))?;
            (verified.node, Some(verified))
        }
    };
    // All that the head tells comes before a byte of the body is kept.
    let path = head.uri.path();
    if !peer::is_surface(path) {
        let refusal = MeshRefusal::new(
            Code::NotInRoster,
            "other nodes may use /health and /peer/* and nothing else; only this machine may use this route",
        );
        return Err(refused(&head, &refusal));
    }
    let is_member = node.household.may_pass(&who);
    if path != "/health"
        && path != peer::JOIN
        && path != IDENTITY
        && let Err(refusal) = &is_member
    {
        return Err(refused(&head, refusal));
    }
    let shares = node.options.models.as_ref();
    if share::is_for_others(&head.method, path) && !shares.is_some_and(|models| models.shared) {
        let status = StatusCode::FORBIDDEN;
        return Err(answer(&head, status, "not_shared", NOT_SHARED));
    }
    let limit = match is_member {
        Ok(()) => node.options.body_limit,
        Err(_) => LONGEST_OF_STRANGERS,
    };
    let bytes = received_up_to(node, body, limit).await;
    let bytes = bytes.map_err(|failure| {
        answer(
            &head,
            failure.status,
            failure.code(),
            &failure.error.message,
        )
    })?;
    if let Some(verified) = verified {
        let checked = verified.check_body(&bytes);
        checked.map_err(|refusal| refused(&head, &refusal))?;
    }
    let body = Body::from(bytes);
    let mut request = Request::from_parts(head, body);
    request.extensions_mut().insert(Caller::Node(who));
    Ok(request)
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
    if !ends.are_here()
        && !for_others
        && peer::is_surface(path)
        && !share::is_for_others(method, path)
    {
        return Err((
            "signature_missing",
            "this route is for the nodes of this machine's household, which sign their requests"
                .into(),
        ));
    }
    if !ends.are_here() && !for_others {
        return Err((
            "not_local",
            match share::is_for_others(method, path) {
                true => NOT_SHARED,
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
        // Not even who answers is told to those who do not sign.
        for path in ["/peer/identity", "/peer/echo"] {
            let told = ask("192.0.2.3", OWN, path, &[hub]);
            assert_eq!(told, Err("signature_missing"));
        }
    }
}
