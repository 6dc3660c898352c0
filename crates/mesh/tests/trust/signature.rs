use bytes::Bytes;
use hearth_mesh::identity::Identity;
use hearth_mesh::refusal::Code;
use hearth_mesh::signature::{LIFETIME, SKEW, Verified, Verifier, sign};
use hearth_protocol::household::NodeId;
use http::{HeaderValue, Method, Request};
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;
const INPUT: &str = "signature-input";

struct Two {
    sender: Identity,
    node: NodeId,
    verifier: Verifier,
}

impl Two {
    fn new() -> Self {
        let node = Identity::generate().id();
        Self {
            sender: Identity::generate(),
            node,
            verifier: Verifier::new(node, NOW - 1000),
        }
    }

    fn request(&self, body: &'static str) -> Request<Bytes> {
        let request = Request::post("/peer/generate/7?stream=true&x=%20");
        let mut request = request.body(Bytes::from_static(body.as_bytes())).unwrap();
        sign(&self.sender, &self.node, NOW, &mut request);
        request
    }

    fn check_at(&self, request: Request<Bytes>, now: u64) -> Result<Verified, Code> {
        let (head, body) = request.into_parts();
        let verified = self
            .verifier
            .check(&head, now, |_| true)
            .map_err(|refusal| refusal.code)?;
        verified.check_body(&body).map_err(|refusal| refusal.code)?;
        Ok(verified)
    }

    fn check(&self, request: Request<Bytes>) -> Result<Verified, Code> {
        self.check_at(request, NOW)
    }

    /// A request with the parameters, and whatever else, of one's own choice.
    fn signed_by_hand(&self, covered: &str, parameters: &str) -> Request<Bytes> {
        let list = format!("({covered}){parameters}");
        let mut request = self.request("");
        let value = |name: &str| match name {
            "@method" => "POST".to_owned(),
            "@path" => "/peer/generate/7".to_owned(),
            "@query" => "?stream=true&x=%20".to_owned(),
            "hearth-to" => self.node.to_string(),
            "x-more" => "1, 2".to_owned(),
            _ => String::new(),
        };
        let names = covered
            .split_whitespace()
            .map(|name| name.trim_matches('"'));
        let lines: String = names
            .map(|name| format!("\"{name}\": {}\n", value(name)))
            .collect();
        let base = format!("{lines}\"@signature-params\": {list}");
        let signature = self.sender.sign(base.as_bytes());
        let signature = data_encoding::BASE64.encode(&signature);
        let headers = request.headers_mut();
        headers.append("x-more", HeaderValue::from_static("1"));
        headers.append("x-more", HeaderValue::from_static(" 2 "));
        headers.insert(INPUT, format!("sig={list}").parse().unwrap());
        headers.insert("signature", format!("sig=:{signature}:").parse().unwrap());
        request
    }

    fn parameters(&self, created: u64, expires: u64) -> String {
        let (keyid, nonce) = (self.sender.id(), "00112233445566778899aabbccddeeff");
        format!(
            ";created={created};expires={expires};nonce=\"{nonce}\";keyid=\"{keyid}\";alg=\"ed25519\";tag=\"hearth\""
        )
    }
}

const COVERED: &str = "\"@method\" \"@path\" \"@query\" \"hearth-to\"";

#[test]
fn a_signed_request_passes_once() {
    let two = Two::new();
    for body in ["", "{\"a\": 1}"] {
        let request = two.request(body);
        assert_eq!(two.check(request.clone()).unwrap().node, two.sender.id());
        assert_eq!(two.check(request), Err(Code::Replayed));
    }
    let mut bare = Request::get("/health").body(Bytes::new()).unwrap();
    sign(&two.sender, &two.node, NOW, &mut bare);
    assert!(two.check(bare.clone()).is_ok());
    sign(&two.sender, &two.node, NOW, &mut bare);
    assert!(
        two.check(bare).is_ok(),
        "signed again it is another request"
    );
}

#[test]
fn a_copy_is_refused_for_as_long_as_the_signature_holds() {
    let two = Two::new();
    let request = two.request("x");
    assert!(two.check(request.clone()).is_ok());
    for later in [1, LIFETIME - 1, LIFETIME] {
        assert_eq!(
            two.check_at(request.clone(), NOW + later),
            Err(Code::Replayed)
        );
    }
    let late = two.check_at(request.clone(), NOW + LIFETIME + 1);
    assert_eq!(late, Err(Code::SignatureExpired));
    assert_eq!(
        two.check(request),
        Err(Code::Replayed),
        "a clock that is put back"
    );
}

#[test]
fn the_time_must_fit() {
    let two = Two::new();
    let at = |now| two.check_at(two.request("x"), now);
    assert!(at(NOW - SKEW).is_ok());
    assert_eq!(at(NOW - SKEW - 1), Err(Code::ClockSkew));
    assert!(at(NOW + LIFETIME).is_ok());
    assert_eq!(at(NOW + LIFETIME + 1), Err(Code::SignatureExpired));
    assert_eq!(at(NOW + 3600), Err(Code::ClockSkew));
    let (head, _) = two.request("x").into_parts();
    let told = two.verifier.check(&head, NOW - 100, |_| true).unwrap_err();
    assert!(told.message.contains("100 s ahead"), "{told}");
    let after_start = Verifier::new(two.node, NOW + 1);
    let told = after_start.check(&head, NOW + 1, |_| true).unwrap_err();
    assert_eq!(told.code, Code::NodeRestarted);
    let by_hand = |created, expires| {
        two.check(two.signed_by_hand(COVERED, &two.parameters(created, expires)))
    };
    assert_eq!(by_hand(NOW, NOW + 61), Err(Code::SignatureTooLong));
    assert_eq!(by_hand(NOW, NOW), Err(Code::SignatureMalformed));
    assert_eq!(by_hand(NOW, NOW - 1), Err(Code::SignatureMalformed));
    assert!(by_hand(NOW, NOW + 60).is_ok());
}

#[test]
fn a_request_is_for_one_node() {
    let two = Two::new();
    let other = Verifier::new(Identity::generate().id(), 0);
    let (head, _) = two.request("x").into_parts();
    let told = other.check(&head, NOW, |_| true).unwrap_err();
    assert_eq!(told.code, Code::KeyMismatch);
    assert!(told.message.contains(&two.node.short()), "{told}");
    let mut twice = two.request("x");
    let to = HeaderValue::try_from(two.node.to_string()).unwrap();
    twice.headers_mut().append("hearth-to", to);
    assert_eq!(two.check(twice), Err(Code::ComponentMissing));
}

#[test]
fn what_decides_must_be_covered_and_more_may_be() {
    let two = Two::new();
    let check = |covered: &str| {
        let parameters = two.parameters(NOW, NOW + 30);
        two.check(two.signed_by_hand(covered, &parameters))
    };
    for left_out in ["@method", "@path", "@query", "hearth-to"] {
        let covered = COVERED.replace(&format!("\"{left_out}\""), "");
        assert_eq!(
            check(covered.trim()),
            Err(Code::ComponentMissing),
            "{left_out}"
        );
    }
    assert_eq!(
        check(&format!("{COVERED} \"@status\"")),
        Err(Code::SignatureMalformed)
    );
    assert_eq!(
        check(&format!("{COVERED} \"x-gone\"")),
        Err(Code::ComponentMissing)
    );
    assert_eq!(
        check(&format!("{COVERED} \"X-More\"")),
        Err(Code::SignatureMalformed)
    );
    assert_eq!(
        check(&format!("{COVERED} \"@path\"")),
        Err(Code::SignatureMalformed)
    );
    assert_eq!(
        check(&format!("{COVERED} \"@path\";req")),
        Err(Code::SignatureMalformed)
    );
    assert!(check(&format!("{COVERED} \"x-more\"")).is_ok());
}

#[test]
fn a_body_needs_a_digest_that_fits_and_is_covered() {
    let two = Two::new();
    let mut changed = two.request("body");
    *changed.body_mut() = Bytes::from_static(b"bodz");
    assert_eq!(two.check(changed), Err(Code::DigestWrong));
    let mut emptied = two.request("body");
    *emptied.body_mut() = Bytes::new();
    assert_eq!(two.check(emptied), Err(Code::DigestWrong));
    let mut added = two.request("");
    *added.body_mut() = Bytes::from_static(b"x");
    assert_eq!(two.check(added), Err(Code::ComponentMissing));
    for (name, value) in [
        ("content-length", "1"),
        ("transfer-encoding", "chunked"),
        ("content-digest", "sha-256=:AAAA:"),
    ] {
        let mut announced = two.request("");
        announced
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        assert_eq!(two.check(announced), Err(Code::ComponentMissing), "{name}");
    }
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    let two = Two::new();
    let with = |name: &'static str, value: &str| {
        let mut request = two.request("x");
        request.headers_mut().insert(name, value.parse().unwrap());
        two.check(request)
    };
    for value in [
        "",
        "hearth",
        "hearth=1",
        "hearth=()",
        "hearth=(\"@method\"",
        "é",
        "hearth=(1 2)",
        "a=(), a=(",
    ] {
        let told = with(INPUT, value).unwrap_err();
        assert!(
            matches!(told, Code::SignatureMalformed | Code::SignatureMissing),
            "{value}: {told}"
        );
    }
    for value in [
        "hearth=1",
        "hearth=:AAAA:",
        "hearth=:!:",
        "other=:AAAA:",
        "hearth=()",
    ] {
        assert_eq!(
            with("signature", value),
            Err(Code::SignatureMalformed),
            "{value}"
        );
    }
    for value in ["sha-512=:AAAA:", "sha-256=:AAAA:", "sha-256", "x"] {
        assert_eq!(
            with("content-digest", value),
            Err(Code::SignatureMalformed),
            "{value}"
        );
    }
    assert_eq!(with("hearth-to", "me"), Err(Code::SignatureMalformed));
    let given = two.request("x");
    let twice = |name: &str| {
        let value = given.headers()[name].to_str().unwrap();
        let second = value.replacen("hearth=", "other=", 1);
        let mut request = given.clone();
        request.headers_mut().append(
            http::HeaderName::try_from(name).unwrap(),
            second.parse().unwrap(),
        );
        two.check(request)
    };
    assert_eq!(twice(INPUT), Err(Code::SeveralSignatures));
    assert_eq!(twice("signature"), Err(Code::SeveralSignatures));
    for name in [INPUT, "signature"] {
        let mut request = given.clone();
        request.headers_mut().remove(name);
        assert_eq!(two.check(request), Err(Code::SignatureMissing));
    }
    let parameters = two.parameters(NOW, NOW + 30);
    for (from, to, code) in [
        (
            "alg=\"ed25519\"",
            "alg=\"hmac-sha256\"",
            Code::SignatureMalformed,
        ),
        ("tag=\"hearth\"", "tag=\"other\"", Code::SignatureMalformed),
        (";tag=\"hearth\"", "", Code::SignatureMalformed),
        ("nonce=\"00", "nonce=\"0", Code::SignatureMalformed),
        ("expires=", "expired=", Code::SignatureMalformed),
        ("created=1", "created=-1", Code::SignatureMalformed),
    ] {
        let changed = parameters.replace(from, to);
        assert_ne!(changed, parameters);
        assert_eq!(
            two.check(two.signed_by_hand(COVERED, &changed)),
            Err(code),
            "{to}"
        );
    }
    let weak = format!("01{}", "00".repeat(31));
    for keyid in [weak.as_str(), "me", ""] {
        let changed = parameters.replace(&two.sender.id().to_string(), keyid);
        assert_eq!(
            two.check(two.signed_by_hand(COVERED, &changed)),
            Err(Code::UnknownKey)
        );
    }
    let another = Identity::generate().id().to_string();
    let changed = parameters.replace(&two.sender.id().to_string(), &another);
    let told = two.check(two.signed_by_hand(COVERED, &changed));
    assert_eq!(told, Err(Code::SignatureWrong), "said to be another's");
}

#[test]
fn what_is_refused_uses_nothing_up() {
    let two = Two::new();
    let request = two.request("x");
    let mut forged = request.clone();
    forged.headers_mut().insert(
        "hearth-to",
        HeaderValue::try_from(two.sender.id().to_string()).unwrap(),
    );
    assert_eq!(two.check(forged), Err(Code::KeyMismatch));
    let mut forged = request.clone();
    *forged.method_mut() = Method::PUT;
    assert_eq!(two.check(forged), Err(Code::SignatureWrong));
    assert!(two.check(request).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// One byte of anything that is signed, or of the signature, is another one: refused.
    #[test]
    fn no_byte_can_be_changed(part in 0_usize..8, at in any::<prop::sample::Index>(), byte in 0x21_u8..0x7f) {
        let two = Two::new();
        let given = two.request("{\"prompt\": \"x\"}");
        let mut request = given.clone();
        let change = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            String::from_utf8(bytes).unwrap()
        };
        match part {
            0 => {
                if let Ok(method) = Method::from_bytes(change("POST").as_bytes()) {
                    *request.method_mut() = method;
                }
            }
            1 => {
                let target = change("peer/generate/7?stream=true&x=%20");
                if let Ok(uri) = format!("/{target}").parse() {
                    *request.uri_mut() = uri;
                }
            }
            2 => {
                let body = change("{\"prompt\": \"x\"}");
                *request.body_mut() = Bytes::from(body);
            }
            _ => {
                let name = ["hearth-to", "content-digest", INPUT, "signature", INPUT][part - 3];
                let text = given.headers()[name].to_str().unwrap();
                let value = change(text);
                // The last letter of base64 has bits that mean nothing.
                let meant = text.trim_end_matches([':', '=']).len() - 1;
                let is_padding = name != INPUT && at.index(text.len()) >= meant;
                if !is_padding {
                    request.headers_mut().insert(name, value.parse().unwrap());
                }
            }
        }
        let same = request.method() == given.method()
            && request.uri() == given.uri()
            && request.headers() == given.headers()
            && request.body() == given.body();
        prop_assert_eq!(two.check(request).is_ok(), same);
    }

    #[test]
    fn no_headers_harm(input in "[ -~]{0,120}", signature in "[ -~]{0,120}", digest in "[ -~]{0,60}") {
        let two = Two::new();
        let mut request = two.request("x");
        for (name, value) in [(INPUT, input), ("signature", signature), ("content-digest", digest)] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        prop_assert!(two.check(request).is_err());
    }
}
