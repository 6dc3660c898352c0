//! Signed answers (RFC 9421, section 2.4): who answers proves that it holds a node's key, to the one who asked and for this
//! one request.
//!
//! The signature covers the answer's status and the signature of the request, and nothing else. That one covers a number
//! which is used once, so an answer that was heard before fits no other request; it needs no time, and clocks that differ
//! are no reason to doubt who answers.

use http::request::Parts;
use http::{Request, Response, StatusCode};
use sfv::{BareItem, InnerList, Item};

use super::verify::{is_signed, signature_of};
use super::{ALGORITHM, base, insert, key, string, time};
use crate::identity::{Identity, verify};
use crate::refusal::{Code, Refusal};
use hearth_protocol::household::NodeId;

/// `tag` (section 2.3) of a signature on an answer.
const TAG: &str = "hearth-answer";

/// Signs `answer` to the request of `asked` as the node of `identity`, at `now` in seconds since 1970; also one that refuses
/// it. Nothing is signed for a request that is not signed itself, or is for another node.
pub fn sign_answer<B>(identity: &Identity, asked: &Parts, now: u64, answer: &mut Response<B>) {
    if !is_signed(asked, &identity.id()) {
        return;
    }
    let mut input = InnerList::new(covered());
    for (name, value) in [
        ("created", time(now)),
        ("keyid", string(identity.id().to_string())),
        ("alg", string(ALGORITHM.to_owned())),
        ("tag", string(TAG.to_owned())),
    ] {
        input.params.insert(key(name), value);
    }
    if let Ok(base) = base::of_answer(&input, answer.status(), &asked.headers) {
        let signature = identity.sign(base.as_bytes());
        insert(answer.headers_mut(), input, &signature);
    }
}

/// Checks that `answer` is `node`'s to the signed request `asked`, whatever it says.
///
/// # Errors
/// Nothing proves that; somebody else may have answered.
pub fn check_answer<A, B>(
    node: &NodeId,
    asked: &Request<A>,
    answer: &Response<B>,
) -> Result<(), Refusal> {
    let unproven = |code| {
        let status = answer.status();
        Refusal::new(code, words(node, status))
    };
    let (input, signature) =
        signature_of(answer.headers()).map_err(|error| unproven(error.code))?;
    if input.items != covered() {
        return Err(unproven(Code::ComponentMissing));
    }
    let says = |name: &str, value: &str| {
        let said = input.params.get(name);
        matches!(said, Some(BareItem::String(said)) if said.as_str() == value)
    };
    if !says("tag", TAG) || !says("alg", ALGORITHM) {
        return Err(unproven(Code::SignatureMalformed));
    }
    if !says("keyid", &node.to_string()) {
        return Err(unproven(Code::KeyMismatch));
    }
    let base = base::of_answer(&input, answer.status(), asked.headers())?;
    match verify(node, base.as_bytes(), &signature) {
        true => Ok(()),
        false => Err(unproven(Code::SignatureWrong)),
    }
}

fn covered() -> Vec<Item> {
    let mut asked = Item::new(string("signature".to_owned()));
    asked.params.insert(key("req"), BareItem::Boolean(true));
    vec![Item::new(string("@status".to_owned())), asked]
}

fn words(node: &NodeId, status: StatusCode) -> String {
    format!(
        "who answers there (with HTTP status {}) does not prove to be {}; see whether the address now belongs to another \
         machine",
        status.as_u16(),
        node.short()
    )
}
