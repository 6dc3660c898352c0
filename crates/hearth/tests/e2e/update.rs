//! `hearth update` against a list of releases on this machine.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::household::Household;

/// Serves one text at every path; counts who asked.
struct Feed {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Feed {
    fn new(status: &'static str, text: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/releases.json", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                    text.len()
                );
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

const NEWER: &str = r#"[{"tag_name": "v99.1.0", "html_url": "https://example.org/99.1.0"}, {"tag_name": "v0.0.1"}]"#;

#[test]
fn a_newer_version_is_named_with_where_it_is() {
    let household = Household::new();
    let feed = Feed::new("200 OK", NEWER);
    let ask = ["update", "--check", "--update-url", &feed.url];
    let said = household.hearth(&ask).ok();
    assert!(
        said.contains("hearth 99.1.0 is out") && said.contains("https://example.org/99.1.0"),
        "{said}"
    );
    let said = household.hearth(&[&ask[..], &["--json"]].concat()).json();
    assert_eq!(
        (&said["latest"], &said["newer"]),
        (&"99.1.0".into(), &true.into())
    );

    let own = Feed::new("200 OK", r#"{"version": "0.0.1"}"#);
    let said = household
        .hearth(&["update", "--check", "--update-url", &own.url])
        .ok();
    assert!(said.contains("is the newest version"), "{said}");
}

#[test]
fn nobody_is_asked_unless_the_owner_says_so() {
    let household = Household::new();
    household.hearth(&["update"]).ends_with(2);
    let unset = household.hearth(&["update", "--check"]).ends_with(2);
    assert!(unset.err.contains("update_url"), "{}", unset.err);

    let feed = Feed::new("200 OK", NEWER);
    let up = |arguments: &[&str]| {
        let all = [
            &["up", "--detach", "--update-url", &feed.url][..],
            arguments,
        ]
        .concat();
        let said = household.hearth(&all).ok();
        household.hearth(&["stop"]).ok();
        said
    };
    assert!(!up(&[]).contains("99.1.0"));
    assert_eq!(feed.asked(), 0);
    assert!(up(&["--update-check", "on"]).contains("hearth 99.1.0 is out"));
    assert_eq!(feed.asked(), 1);
}

#[test]
fn an_address_that_is_wrong_is_named_with_the_fix() {
    let household = Household::new();
    let fails = |url: &str, code| {
        household
            .hearth(&["update", "--check", "--update-url", url])
            .ends_with(code)
            .err
    };
    let gone = Feed::new("404 Not Found", "gone");
    let told = fails(&gone.url, 1);
    assert!(
        told.contains("does not answer") && told.contains("404"),
        "{told}"
    );
    let page = Feed::new("200 OK", "<html>");
    let told = fails(&page.url, 1);
    assert!(told.contains("does not list releases"), "{told}");
    let told = fails("ftp://example.org", 2);
    assert!(
        told.contains("--update-url") && told.contains("https://"),
        "{told}"
    );
}
