//! Checks of a signed request (RFC 9421, section 3.2), with what Hearth asks for beyond the RFC.

use std::sync::Mutex;

use data_encoding::HEXLOWER;
use hearth_protocol::household::NodeId;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use sfv::{BareItem, InnerList, ListEntry};
use sha2::{Digest, Sha256};

use super::replay::{Nonce, Replays};
use super::{
    ALGORITHM, CONTENT_DIGEST, LONGEST_LIFETIME, SIGNATURE, SIGNATURE_INPUT, SKEW, TAG, TO, base,
};
use crate::identity::{is_key, verify};
use crate::refusal::{Code, Refusal};

/// Checks the requests that come to a node, and remembers them for as long as copies could pass.
#[derive(Debug)]
pub struct Verifier {
    node: NodeId,
    started: u64,
    replays: Mutex<Replays>,
}

/// A request that its sender is known of. Its body is not checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Who sent it. Whether that node may ask for anything is the roster's to say.
    pub node: NodeId,
    digest: Option<[u8; 32]>,
}

/// What a signature says about itself.
struct Claims {
    node: NodeId,
    created: u64,
    expires: u64,
    nonce: Nonce,
}

impl Verifier {
    /// For the requests to `node`, which started at `started`, in seconds since 1970. What was signed before is refused, as
    /// nothing tells whether it was here already.
    pub fn new(node: NodeId, started: u64) -> Self {
        Self {
            node,
            started,
            replays: Mutex::default(),
        }
    }

    /// Checks the head of a request, whose URI is as it came (routers that nest may shorten it), at `now` in seconds since
    /// 1970. `is_member` says whether a node is known; those that are not share one small memory for copies.
    ///
    /// # Errors
    /// The request is refused. It is not remembered then.
    pub fn check(
        &self,
        head: &Parts,
        now: u64,
        is_member: impl FnOnce(&NodeId) -> bool,
    ) -> Result<Verified, Refusal> {
        let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
        let (input, signature) = signature_of(headers)?;
        let claims = Claims::read(&input)?;
        check_target(&self.node, headers)?;
        self.check_time(&claims, now)?;
        check_covered(&input, uri, headers)?;
        let digest = match headers.contains_key(CONTENT_DIGEST) {
            true => Some(sha256_of(headers)?),
            false => None,
        };
        check_signature(&claims.node, &input, method, uri, headers, &signature)?;
        let is_member = is_member(&claims.node);
        let mut replays = match self.replays.lock() {
            Ok(replays) => replays,
            // A panic in between leaves the memory as it was, or with this request in it.
            Err(poisoned) => poisoned.into_inner(),
        };
        replays.remember(claims.node, is_member, claims.nonce, claims.expires, now)?;
        Ok(Verified {
            node: claims.node,
            digest,
        })
    }

    fn check_time(&self, claims: &Claims, now: u64) -> Result<(), Refusal> {
        let Claims {
            created, expires, ..
        } = *claims;
        if expires <= created {
            return Err(base::malformed("`expires` is not after `created`"));
        }
        if expires - created > LONGEST_LIFETIME {
            return Err(Refusal::new(
                Code::SignatureTooLong,
                format!(
                    "the signature holds for {} s; at most {LONGEST_LIFETIME} are allowed",
                    expires - created
                ),
            ));
        }
        if created > now.saturating_add(SKEW) {
            return Err(Refusal::new(
                Code::ClockSkew,
                format!(
                    "the sender's clock is {} s ahead of this machine's; set both by the network (NTP)",
                    created - now
                ),
            ));
        }
        if now > expires {
            let late = now - expires;
            // Nothing is on its way for that long: it is the clocks, or an old request is sent again.
            return Err(match late > SKEW {
                true => Refusal::new(
                    Code::ClockSkew,
                    format!(
                        "the request was signed {} s ago by this machine's clock; set the clocks of both by the network (NTP)",
                        now - created
                    ),
                ),
                false => Refusal::new(
                    Code::SignatureExpired,
                    format!(
                        "the signature expired {late} s ago; sign each request just before it is sent, and if it was, set the \
                         clocks of both machines by the network (NTP)"
                    ),
                ),
            });
        }
        if created < self.started {
            return Err(Refusal::new(
                Code::NodeRestarted,
                format!(
                    "the request was signed {} s before this node started; sign it anew",
                    self.started - created
                ),
            ));
        }
        Ok(())
    }
}

impl Verified {
    /// Checks the whole body.
    ///
    /// # Errors
    /// It is not the one that was signed.
    pub fn check_body(&self, body: &[u8]) -> Result<(), Refusal> {
        match self.digest {
            Some(digest) if digest[..] == Sha256::digest(body)[..] => Ok(()),
            None if body.is_empty() => Ok(()),
            Some(_) => Err(Refusal::new(
                Code::DigestWrong,
                "the body is not the one that was signed: `content-digest` is another's",
            )),
            None => Err(missing("content-digest")),
        }
    }
}

fn check_target(node: &NodeId, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut all = headers.get_all(TO).iter();
    let (Some(to), None) = (all.next(), all.next()) else {
        return Err(missing("hearth-to"));
    };
    match to.to_str().ok().and_then(|to| to.parse::<NodeId>().ok()) {
        Some(to) if to == *node => Ok(()),
        Some(to) => Err(Refusal::new(
            Code::KeyMismatch,
            format!(
                "the request is for {}, and this is {}; if the machine was set up anew, remove it from the household and \
                 let it join again, and if its address is another machine's now, correct the address",
                to.short(),
                node.short()
            ),
        )),
        None => Err(base::malformed(
            "`hearth-to` is no node id: 64 hexadecimal digits",
        )),
    }
}

/// Whether a request is signed, and for `node`, at whatever time.
pub(super) fn is_signed(head: &Parts, node: &NodeId) -> bool {
    let (method, uri, headers) = (&head.method, &head.uri, &head.headers);
    let checked = || {
        let (input, signature) = signature_of(headers)?;
        let claims = Claims::read(&input)?;
        check_target(node, headers)?;
        check_covered(&input, uri, headers)?;
        check_signature(&claims.node, &input, method, uri, headers, &signature)
    };
    checked().is_ok()
}

/// The one signature of a message.
pub(super) fn signature_of(headers: &HeaderMap) -> Result<(InnerList, [u8; 64]), Refusal> {
    let input = base::only_member(&SIGNATURE_INPUT, headers)?;
    let signature = base::only_member(&SIGNATURE, headers)?;
    let (Some((label, input)), Some((signed, signature))) = (input, signature) else {
        return Err(Refusal::new(
            Code::SignatureMissing,
            "nodes sign their requests (RFC 9421, headers Signature-Input and Signature); from anybody else /health alone \
             answers",
        ));
    };
    if label != signed {
        return Err(base::malformed(format!(
            "Signature-Input is of `{label}` and Signature of `{signed}`"
        )));
    }
    let ListEntry::InnerList(input) = input else {
        return Err(base::malformed("Signature-Input is no list of components"));
    };
    let bytes = match signature {
        ListEntry::Item(item) => item.bare_item.as_byte_sequence().map(<[u8]>::to_vec),
        ListEntry::InnerList(_) => None,
    };
    let bytes = bytes.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| base::malformed("Signature is not 64 bytes"))?;
    Ok((input, bytes))
}

impl Claims {
    fn read(input: &InnerList) -> Result<Self, Refusal> {
        let value = |name| {
            let value = input.params.get(name);
            value.ok_or_else(|| base::malformed(format!("the signature has no `{name}`")))
        };
        let text = |name| match value(name)? {
            BareItem::String(text) => Ok(text.as_str()),
            _ => Err(base::malformed(format!(
                "`{name}` of the signature is no string"
            ))),
        };
        let time = |name| {
            let seconds = value(name)?.as_integer();
            let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
            seconds.ok_or_else(|| base::malformed(format!("`{name}` of the signature is no time")))
        };
        if text("tag")? != TAG {
            return Err(base::malformed(format!(
                "the signature's `tag` is not `{TAG}`"
            )));
        }
        if text("alg")? != ALGORITHM {
            return Err(base::malformed(format!(
                "the signature's `alg` is not `{ALGORITHM}`"
            )));
        }
        let node = text("keyid")?.parse().ok().filter(is_key).ok_or_else(|| {
            Refusal::new(
                Code::UnknownKey,
                "`keyid` is no node id: an Ed25519 public key in hexadecimal digits",
            )
        })?;
        let nonce = HEXLOWER.decode(text("nonce")?.as_bytes()).ok();
        let nonce = nonce.and_then(|bytes| bytes.try_into().ok());
        let nonce = nonce.ok_or_else(|| base::malformed("`nonce` is not 32 hexadecimal digits"))?;
        Ok(Self {
            node,
            created: time("created")?,
            expires: time("expires")?,
            nonce,
        })
    }
}

/// Everything that decides what a request does must be covered.
fn check_covered(input: &InnerList, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut covered = Vec::with_capacity(input.items.len());
    for item in &input.items {
        covered.push(base::name(item)?);
    }
    let says_length = headers
        .get(CONTENT_LENGTH)
        .is_some_and(|length| length != "0");
    let has_body = says_length
        || headers.contains_key(TRANSFER_ENCODING)
        || headers.contains_key(CONTENT_DIGEST);
    for (name, is_owed) in [
        ("@method", true),
        ("@path", true),
        ("@query", uri.query().is_some()),
        ("hearth-to", true),
        ("content-digest", has_body),
    ] {
        if is_owed && !covered.contains(&name) {
            return Err(missing(name));
        }
    }
    Ok(())
}

fn missing(name: &str) -> Refusal {
    Refusal::new(
        Code::ComponentMissing,
        format!("the signature does not cover `{name}`, and has to"),
    )
}

fn check_signature(
    by: &NodeId,
    input: &InnerList,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    signature: &[u8; 64],
) -> Result<(), Refusal> {
    let base = base::of(input, method, uri, headers)?;
    match verify(by, base.as_bytes(), signature) {
        true => Ok(()),
        false => Err(Refusal::new(
            Code::SignatureWrong,
            format!(
                "the signature is not {}'s over this request; something between the machines may change requests: let it pass \
                 them as they are",
                by.short()
            ),
        )),
    }
}

/// The SHA-256 that `Content-Digest` says.
fn sha256_of(headers: &HeaderMap) -> Result<[u8; 32], Refusal> {
    let wrong = || base::malformed("`content-digest` is not `sha-256=:BASE64:` of 32 bytes");
    let entry = base::only_member(&CONTENT_DIGEST, headers).map_err(|_| wrong())?;
    match entry {
        Some((name, ListEntry::Item(item))) if name == "sha-256" => {
            let bytes = item.bare_item.as_byte_sequence().ok_or_else(wrong)?;
            bytes.try_into().map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http::Request;

    use super::*;
    use crate::identity::Identity;

    /// Appendix B.2.6 of RFC 9421, with the key of B.1.4.
    #[test]
    fn the_vector_of_the_rfc() {
        let (parts, ()) = Request::post("/foo?param=Value&Pet=dog")
            .header("host", "example.com")
            .header("date", "Tue, 20 Apr 2021 02:07:55 GMT")
            .header("content-type", "application/json")
            .header("content-length", "18")
            .header(
                "signature-input",
                "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
                 ;created=1618884473;keyid=\"test-key-ed25519\"",
            )
            .header(
                "signature",
                "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
            )
            .body(())
            .expect("a request")
            .into_parts();
        let (input, signature) = signature_of(&parts.headers).expect("one signature");
        let base = base::of(&input, &parts.method, &parts.uri, &parts.headers).expect("a base");
        assert_eq!(
            base,
            "\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\
             \"@method\": POST\n\
             \"@path\": /foo\n\
             \"@authority\": example.com\n\
             \"content-type\": application/json\n\
             \"content-length\": 18\n\
             \"@signature-params\": (\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \"content-length\")\
             ;created=1618884473;keyid=\"test-key-ed25519\""
        );
        let bytes = |text: &str| {
            let bytes = STANDARD.decode(text).expect("base64");
            <[u8; 32]>::try_from(bytes).expect("32 bytes")
        };
        let public = NodeId(bytes("JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="));
        let secret = bytes("n4Ni+HpISpVObnQMW0wOhCKROaIKqKtW/2ZYb2p9KcU=");
        let signed = check_signature(
            &public,
            &input,
            &parts.method,
            &parts.uri,
            &parts.headers,
            &signature,
        );
        assert_eq!(signed, Ok(()));
        let identity = Identity::from_secret(&secret);
        assert_eq!(identity.id(), public);
        assert_eq!(identity.sign(base.as_bytes()), signature);
    }
}
