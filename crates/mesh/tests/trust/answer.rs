use bytes::Bytes;
use hearth_mesh::identity::Identity;
use hearth_mesh::refusal::Code;
use hearth_mesh::signature::{IDENTITY, check_answer, sign, sign_answer};
use hearth_protocol::household::NodeId;
use http::{Request, Response, StatusCode};

const NOW: u64 = 1_800_000_000;

/// The question who a node is.
fn question(to: &NodeId) -> Request<Bytes> {
    let mut request = Request::get(IDENTITY).body(Bytes::new()).unwrap();
    sign(&Identity::generate(), to, NOW, &mut request);
    request
}

fn answer(by: &Identity, asked: &Request<Bytes>, status: u16) -> Response<()> {
    let mut answer = Response::builder().status(status).body(()).unwrap();
    let (asked, _) = asked.clone().into_parts();
    sign_answer(by, &asked, NOW, &mut answer);
    answer
}

fn code(to: &NodeId, asked: &Request<Bytes>, answer: &Response<()>) -> Option<Code> {
    let checked = check_answer(to, asked, answer);
    checked.err().map(|refusal| refusal.code)
}

#[test]
fn a_node_proves_itself_by_its_answer_to_one_request() {
    let node = Identity::generate();
    let (one, two) = (question(&node.id()), question(&node.id()));
    for status in [204, 401] {
        let said = answer(&node, &one, status);
        assert_eq!(code(&node.id(), &one, &said), None);
        assert_eq!(
            code(&node.id(), &two, &said),
            Some(Code::SignatureWrong),
            "heard before, and of another request"
        );
    }
    let mut changed = answer(&node, &one, 401);
    *changed.status_mut() = StatusCode::NO_CONTENT;
    let told = code(&node.id(), &one, &changed);
    assert_eq!(told, Some(Code::SignatureWrong));
}

#[test]
fn nobody_else_proves_to_be_the_node() {
    let (node, other) = (Identity::generate(), Identity::generate());
    let asked = question(&node.id());
    // Who is not meant signs nothing.
    let silent = answer(&other, &asked, 204);
    assert!(silent.headers().is_empty());
    let told = code(&node.id(), &asked, &silent);
    assert_eq!(told, Some(Code::SignatureMissing));
    let told = check_answer(&node.id(), &asked, &silent).unwrap_err();
    assert!(told.message.contains(&node.id().short()), "{told}");
    // An answer to a question to itself says whose it is.
    let own = question(&other.id());
    let honest = answer(&other, &own, 204);
    assert_eq!(
        code(&node.id(), &own, &honest),
        Some(Code::KeyMismatch),
        "{honest:?}"
    );
}

#[test]
fn what_is_not_signed_is_not_answered_with_a_signature() {
    let node = Identity::generate();
    let mut asked = question(&node.id());
    let path = "/peer/generate".parse().unwrap();
    *asked.uri_mut() = path;
    assert!(answer(&node, &asked, 204).headers().is_empty());
    let bare = Request::get(IDENTITY).body(Bytes::new()).unwrap();
    assert!(answer(&node, &bare, 204).headers().is_empty());
}

#[test]
fn every_part_of_the_signature_counts() {
    let node = Identity::generate();
    let asked = question(&node.id());
    let good = answer(&node, &asked, 204);
    let input = good.headers()["signature-input"].to_str().unwrap();
    assert!(
        input.starts_with("hearth=(\"@status\" \"signature\";req);created=1800000000;keyid="),
        "{input}"
    );
    for (from, to, expected) in [
        ("hearth-answer", "hearth", Code::SignatureMalformed),
        ("ed25519", "rsa-pss-sha512", Code::SignatureMalformed),
        ("\"signature\";req", "\"@status\"", Code::ComponentMissing),
        (";req", "", Code::ComponentMissing),
        ("1800000000", "1800000001", Code::SignatureWrong),
    ] {
        let mut changed = good.clone();
        let value = input.replace(from, to).parse().unwrap();
        changed.headers_mut().insert("signature-input", value);
        assert_eq!(code(&node.id(), &asked, &changed), Some(expected), "{from}");
    }
    let mut twice = good.clone();
    let again = good.headers()["signature"].clone();
    let again = again.to_str().unwrap().replace("hearth=", "other=");
    twice
        .headers_mut()
        .append("signature", again.parse().unwrap());
    let told = code(&node.id(), &asked, &twice);
    assert_eq!(told, Some(Code::SeveralSignatures));
}
