//! Files for other machines: who takes nothing of them does not keep the others out.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hearth_models::{ModelStore, Network};
use hearth_node::{Models, NodeOptions};
use hearth_testkit::node::{TestNode, node_options, options, wait_until};

/// More than the buffers between two ends of a connection ever hold.
const LENGTH: u64 = 64 << 20;
/// Places of one address.
const MOST: usize = 48;

/// A connection on which a file was asked for, and the beginning of the answer.
fn asked(node: &TestNode, path: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(node.address()).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
        node.address()
    )
    .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    (stream, String::from_utf8(head.into()).unwrap())
}

#[test]
fn who_takes_nothing_loses_the_place_and_one_machine_has_few() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!("sha256-{:064x}", 7);
    let blobs = folder.path().join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    // Takes no room on the disk: nothing was written into it.
    File::create(blobs.join(&name))
        .unwrap()
        .set_len(LENGTH)
        .unwrap();
    let node = |stall_timeout| {
        let store = ModelStore::new(folder.path());
        let models = Some(Models::new(store, Network::default(), true));
        let node = NodeOptions {
            models,
            stall_timeout,
            ..node_options()
        };
        TestNode::with(options(), node)
    };
    let path = format!("/peer/blobs/{name}");

    let patient = node(Duration::from_secs(600));
    let mut readers: Vec<TcpStream> = Vec::new();
    for _ in 0..MOST {
        let (stream, head) = asked(&patient, &path);
        assert_eq!(head, "HTTP/1.1 200");
        readers.push(stream);
    }
    let refused = patient.get(&path);
    assert_eq!(refused.status, 503, "{:?}", refused.headers);
    assert!(refused.header("retry-after").is_some());
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("48 files")
    );
    // Other routes have nothing to do with it, and a place that is given back can be had.
    assert_eq!(patient.get("/health").status, 200);
    readers.pop();
    wait_until(Duration::from_secs(60), "a place", || {
        asked(&patient, &path).1 == "HTTP/1.1 200"
    });
    drop(readers);

    let impatient = node(Duration::from_secs(1));
    let mut readers: Vec<TcpStream> = (0..MOST).map(|_| asked(&impatient, &path).0).collect();
    wait_until(Duration::from_secs(60), "a place", || {
        asked(&impatient, &path).1 == "HTTP/1.1 200"
    });
    // Whoever reads on gets what was on its way, and then the end instead of the whole file.
    let mut rest = Vec::new();
    let _ = readers[0].read_to_end(&mut rest);
    assert!((rest.len() as u64) < LENGTH, "{}", rest.len());
    // A slow reader that does read gets it all.
    let (mut slow, head) = asked(&impatient, &path);
    assert_eq!(head, "HTTP/1.1 200");
    let (mut piece, mut taken) = (vec![0; 1 << 20], 0);
    let (_open, never) = mpsc::channel::<()>();
    let begun = Instant::now();
    while taken < LENGTH {
        // Under a megabyte a second: what the system alone would keep lasts longer than the limit.
        let slowly = begun.elapsed() < Duration::from_secs(4);
        if slowly {
            let _ = never.recv_timeout(Duration::from_millis(20));
        }
        let most = if slowly { 16 << 10 } else { piece.len() };
        match slow.read(&mut piece[..most]).unwrap() {
            0 => panic!("cut after {taken} bytes"),
            read => taken += read as u64,
        }
    }
}
