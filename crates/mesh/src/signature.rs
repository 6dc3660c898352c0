//! Signed requests: HTTP message signatures (RFC 9421) by node keys, for connections that prove nobody.
//!
//! A request is signed over its method, path, query, the digest of its body (RFC 9530) and the node it is meant for, with
//! the time at which it was made, the time at which it ends to hold, and a number that is used once. Whoever sees it on its
//! way can neither change it, nor send it again, nor send it to another node.
//!
//! A request does not say who answers it. So the first one on a connection is for [`IDENTITY`], and its answer is signed:
//! over its status and the request's own signature, which is like no other, so that an answer to another request is none to
//! this one ([`sign_answer`], [`check_answer`]). What has a body goes only over a connection that passed this.
//!
//! Further answers are not signed, and nothing is encrypted: whoever can read and change what is on its way between two
//! machines can hand the proof on, read everything after it, and change answers. That is for networks that are private
//! already; elsewhere iroh's connections prove both ends and encrypt.
//!
//! [`sign`] makes the headers; [`Verifier`] checks them, before the body is read, and [`Verified::check_body`] the body.
//! All take the time as an argument. What more a request's signature covers than it has to is checked and allowed, so that
//! any implementation of the RFC can speak to a node.

mod answer;
mod base;
mod replay;
mod verify;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use hearth_protocol::household::NodeId;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use sfv::{BareItem, FieldType, InnerList, Item, Key, KeyRef, ListEntry};
use sha2::{Digest, Sha256};

use crate::identity::Identity;

pub use answer::{check_answer, sign_answer};
pub use verify::{Verified, Verifier};

/// Where a node proves who it is.
pub const IDENTITY: &str = "/peer/identity";
/// Names the node that a request is for.
pub const TO: HeaderName = HeaderName::from_static("hearth-to");
/// Says on the answer to a refused request why (a [`crate::refusal::Code`]), so that who asked need not read its body.
pub const REFUSAL: HeaderName = HeaderName::from_static("hearth-refusal");

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");

/// What Hearth calls its signature on a request. Another name is read as well.
const LABEL: &str = "hearth";
/// Application-specific `tag` (section 2.3): a signature for anything else is none here.
const TAG: &str = "hearth";
const ALGORITHM: &str = "ed25519";

/// Seconds for which a signature of ours holds.
pub const LIFETIME: u64 = 30;
/// Seconds for which a signature may hold.
pub const LONGEST_LIFETIME: u64 = 60;
/// Seconds by which the sender's clock may be ahead.
pub const SKEW: u64 = 30;

/// Signs `request` as the node of `identity`, for the node `to`, at `now` in seconds since 1970. Headers of an earlier
/// signature are replaced.
pub fn sign<B: AsRef<[u8]>>(identity: &Identity, to: &NodeId, now: u64, request: &mut Request<B>) {
    let digest = match request.body().as_ref() {
        [] => None,
        body => Some(digest_field(body)),
    };
    let headers = request.headers_mut();
    for name in [CONTENT_DIGEST, SIGNATURE_INPUT, SIGNATURE] {
        headers.remove(name);
    }
    headers.insert(TO, ascii(to.to_string()));
    let mut components = vec!["@method", "@path"];
    if let Some(digest) = digest {
        headers.insert(CONTENT_DIGEST, ascii(digest));
        components.push("content-digest");
    }
    components.push("hearth-to");
    if request.uri().query().is_some() {
        components.push("@query");
    }
    let input = input(&components, &identity.id(), now);
    let base = base::of(&input, request.method(), request.uri(), request.headers());
    let base = base.expect("every component is there");
    let signature = identity.sign(base.as_bytes());
    insert(request.headers_mut(), input, &signature);
}

fn insert(headers: &mut HeaderMap, input: InnerList, signature: &[u8]) {
    headers.insert(SIGNATURE_INPUT, dictionary(ListEntry::InnerList(input)));
    let item = Item::new(BareItem::ByteSequence(signature.to_vec()));
    headers.insert(SIGNATURE, dictionary(ListEntry::Item(item)));
}

/// What is covered, with the parameters (sections 2.3 and 4.1).
fn input(components: &[&str], by: &NodeId, now: u64) -> InnerList {
    let items = components
        .iter()
        .map(|name| Item::new(string((*name).to_owned())));
    let mut input = InnerList::new(items.collect());
    let nonce: [u8; 16] = rand::random();
    for (name, value) in [
        ("created", time(now)),
        ("expires", time(now.saturating_add(LIFETIME))),
        ("nonce", string(HEXLOWER.encode(&nonce))),
        ("keyid", string(by.to_string())),
        ("alg", string(ALGORITHM.to_owned())),
        ("tag", string(TAG.to_owned())),
    ] {
        input.params.insert(key(name), value);
    }
    input
}

fn string(text: String) -> BareItem {
    let string = sfv::String::from_string(text);
    BareItem::String(string.expect("printable ASCII"))
}

fn time(seconds: u64) -> BareItem {
    let seconds = sfv::Integer::try_from(seconds);
    BareItem::Integer(seconds.expect("a date within 30 million years"))
}

fn key(name: &str) -> Key {
    KeyRef::from_str(name).expect("small letters").to_owned()
}

/// A dictionary of one member.
fn dictionary(entry: ListEntry) -> HeaderValue {
    let mut members = sfv::Dictionary::new();
    members.insert(key(LABEL), entry);
    ascii(members.serialize().unwrap_or_default())
}

/// `Content-Digest` of a body (RFC 9530, section 2).
fn digest_field(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("printable ASCII")
}
