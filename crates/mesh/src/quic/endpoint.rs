//! How iroh is set up: what is switched off, and the bounds of each connection.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use iroh::dns::DnsResolver;
use iroh::endpoint::{
    BindError as IrohBindError, BindOpts, Builder, PortmapperConfig, QuicTransportConfig, VarInt,
    presets,
};
use iroh::tls::CaTlsConfig;
use iroh::{Endpoint, NetReportConfig, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey};
use iroh_mdns_address_lookup::MdnsAddressLookup;

use super::{BindError, IDLE_LIMIT, KEEP_ALIVE, QuicOptions};

/// The protocol of this door, as TLS names it: HTTP/1.1 on each bidirectional stream, opened by the one who asks.
pub const ALPN: &[u8] = b"hearth/peer/1";

/// Name of the service on the local network, where mDNS is on: `_hearth._udp.local`.
const SERVICE: &str = "hearth";
/// Bytes that anybody may send on one stream before they were read.
const STREAM_WINDOW: u32 = 2 << 20;
/// The same over one connection, for those who are no members.
const STRANGER_WINDOW: u32 = 256 << 10;
/// Bytes of ours that may be on their way over one connection.
const SEND_WINDOW: u64 = 8 << 20;

/// How often a port that is taken is tried, and how long to wait in between.
const TRIES: u32 = 15;
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Binds the sockets; to a free port where the wanted one is taken.
pub(super) async fn bind(secret: [u8; 32], options: &QuicOptions) -> Result<Endpoint, BindError> {
    let relay = options.relay.as_deref().map(relay_url).transpose()?;
    let on = |port| prepare(secret, options.ip, port, relay.as_ref());
    let is_taken = |outcome: &Result<Endpoint, IrohBindError>| {
        matches!(outcome, Err(IrohBindError::Sockets { source, .. })
            if source.kind() == io::ErrorKind::AddrInUse && options.port != 0)
    };
    let mut bound = on(options.port)?.bind().await;
    // This node's own last endpoint may not be quite gone.
    let mut tries = TRIES;
    while is_taken(&bound) && tries > 0 {
        tries -= 1;
        tokio::time::sleep(TRY_AGAIN).await;
        bound = on(options.port)?.bind().await;
    }
    let bound = match bound {
        taken if is_taken(&taken) => {
            let bound = on(0)?.bind().await;
            if let Ok(endpoint) = &bound {
                let port = endpoint.bound_sockets().first().map_or(0, SocketAddr::port);
                tracing::warn!(
                    "UDP port {} is in use; the mesh listens on UDP port {port} instead",
                    options.port
                );
            }
            bound
        }
        outcome => outcome,
    };
    let endpoint = bound.map_err(|failure| BindError::Socket(format!("{failure:#}")))?;
    if options.mdns {
        discover(&endpoint);
    }
    Ok(endpoint)
}

fn relay_url(url: &str) -> Result<RelayUrl, BindError> {
    let refused = || BindError::Relay(url.to_owned());
    let parsed: RelayUrl = url.parse().map_err(|_| refused())?;
    if matches!(parsed.scheme(), "http" | "https") && parsed.host().is_some() {
        Ok(parsed)
    } else {
        Err(refused())
    }
}

fn prepare(
    secret: [u8; 32],
    ip: Option<IpAddr>,
    port: u16,
    relay: Option<&RelayUrl>,
) -> Result<Builder, BindError> {
    // The latency of the owner's own relay is all that is ever measured: iroh uses a relay only once it answered.
    let mut probes = NetReportConfig::minimal();
    probes.https_probes = relay.is_some();
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&secret))
        .alpns(vec![ALPN.to_vec()])
        .transport_config(transport())
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(probes)
        .dns_resolver(resolver(relay))
        .clear_ip_transports();
    if let Some(relay) = relay {
        let is_secure = relay.scheme() == "https";
        // A relay without TLS speaks no QUIC, so there is nothing to wait for on its port.
        let mut config = RelayConfig::from(relay.clone());
        config.quic = config.quic.filter(|_| is_secure);
        builder = builder.relay_mode(RelayMode::Custom(RelayMap::from(config)));
        if is_secure {
            let system = rustls_native_certs::load_native_certs().certs;
            builder = builder.ca_tls_config(CaTlsConfig::embedded().with_extra_roots(system));
        }
    }
    match ip {
        Some(ip) => listen_on(builder, ip, port, true),
        None => {
            // A machine without IPv6 is no reason to fail.
            let builder = listen_on(builder, Ipv4Addr::UNSPECIFIED.into(), port, true)?;
            listen_on(builder, Ipv6Addr::UNSPECIFIED.into(), port, false)
        }
    }
}

fn listen_on(
    builder: Builder,
    ip: IpAddr,
    port: u16,
    required: bool,
) -> Result<Builder, BindError> {
    let options = BindOpts::default().set_is_required(required);
    builder
        .bind_addr_with_opts(SocketAddr::new(ip, port), options)
        .map_err(|failure| BindError::Socket(failure.to_string()))
}

/// A relay's name is asked of the name servers this machine uses, and never of public ones, which iroh would add.
fn resolver(relay: Option<&RelayUrl>) -> DnsResolver {
    let builder = DnsResolver::builder().disable_fallback();
    match relay {
        Some(_) => builder.with_system_defaults().build(),
        None => builder.build(),
    }
}

/// No peer may open a stream before it was admitted: the door then raises the limit, which the peer waits for.
fn transport() -> QuicTransportConfig {
    let idle = u32::try_from(IDLE_LIMIT.as_millis()).unwrap_or(u32::MAX);
    QuicTransportConfig::builder()
        .keep_alive_interval(KEEP_ALIVE)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
        .default_path_max_idle_timeout(IDLE_LIMIT)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .send_window(SEND_WINDOW)
        .build()
}

/// Multicast may be impossible here; the door works without.
fn discover(endpoint: &Endpoint) {
    let started = MdnsAddressLookup::builder()
        .service_name(SERVICE)
        .build(endpoint.id());
    match (started, endpoint.address_lookup()) {
        (Ok(lookup), Ok(lookups)) => lookups.add(lookup),
        (Err(failure), _) => {
            tracing::warn!("peers are not looked for on the local network: {failure:#}");
        }
        (_, Err(_)) => {}
    }
}
