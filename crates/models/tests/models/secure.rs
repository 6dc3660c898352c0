//! Encrypted connections: with the authorities that the system trusts, and with no others.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;

use hearth_testkit::hub::Faults;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::household::{House, usual};
use crate::interrupted::{FOLDER, HUB, arguments};

/// A door that speaks TLS before a hub that does not, for as long as the process runs. Its address, and its
/// certificate.
fn secured(hub: &str) -> (String, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let hub = hub.strip_prefix("http://").unwrap().to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, hub) = (Arc::clone(&config), hub.clone());
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).unwrap();
                let mut client = StreamOwned::new(connection, stream.unwrap());
                // A client that does not trust this certificate hangs up.
                while pass_on(&mut client, &hub).is_ok() {}
            });
        }
    });
    (address, cert.pem())
}

fn head(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// One request and its answer.
fn pass_on(client: &mut (impl Read + Write), hub: &str) -> std::io::Result<()> {
    let request = head(client)?;
    let mut server = TcpStream::connect(hub)?;
    server.write_all(&request)?;
    let answer = head(&mut server)?;
    let text = String::from_utf8_lossy(&answer).to_lowercase();
    let length = text.split("content-length: ").nth(1).unwrap();
    let length: u64 = length.lines().next().unwrap().parse().unwrap();
    client.write_all(&answer)?;
    std::io::copy(&mut server.take(length), client)?;
    client.flush()
}

/// What a process says that pulls from there and trusts this file alone.
fn pull_trusting(house: &House, hub: &str, certificates: &std::path::Path) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments())
        .env(HUB, hub)
        .env(FOLDER, house.store.root())
        .env("SSL_CERT_FILE", certificates)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_hub_is_trusted_by_the_systems_certificates_alone() {
    let house = House::new();
    let (address, own) = secured(&house.hub.url());
    let (_, other) = secured(&house.hub.url());
    let trusted = house.folder().join("own.pem");
    std::fs::write(&trusted, own).unwrap();
    let foreign = house.folder().join("other.pem");
    std::fs::write(&foreign, other).unwrap();

    let said = pull_trusting(&house, &address, &foreign);
    assert!(
        said.contains("the encrypted connection to 127.0.0.1"),
        "{said}"
    );
    assert!(said.contains("failed"), "{said}");
    house.assert_nothing_installed();

    // Files that come over an open line could be read and changed by anybody on the way.
    house.hub.set(Faults {
        redirect: true,
        ..Faults::default()
    });
    let said = pull_trusting(&house, &address, &trusted);
    assert!(
        said.contains("redirects to an address that is not encrypted"),
        "{said}"
    );
    house.assert_nothing_installed();

    house.hub.set(Faults::default());
    pull_trusting(&house, &address, &trusted);
    let model = house.store.list().unwrap().remove(0);
    house.assert_installed(&model, usual());
}
