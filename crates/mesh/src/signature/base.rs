//! The signature base (RFC 9421, section 2.5): what exactly is signed.

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use sfv::{BareItem, Dictionary, FieldType, InnerList, Item, ListEntry};

use super::SIGNATURE;
use crate::refusal::{Code, Refusal};

/// The name of a covered component. Parameters of components (`req`, `sf`, `bs`, `key`, `tr`) are not read here.
pub(super) fn name(item: &Item) -> Result<&str, Refusal> {
    match &item.bare_item {
        BareItem::String(name) if item.params.is_empty() => Ok(name.as_str()),
        _ => Err(malformed(
            "a covered component is no plain name; send names without parameters",
        )),
    }
}

/// The base of a request, for what `input` covers.
pub(super) fn of(
    input: &InnerList,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<String, Refusal> {
    let mut base = String::with_capacity(512);
    for (index, item) in input.items.iter().enumerate() {
        let name = name(item)?;
        if input.items[..index].contains(item) {
            return Err(malformed(format!("`{name}` is covered twice")));
        }
        let value = component(name, method, uri, headers)?;
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    base.push_str(&format!("\"@signature-params\": {}", parameters(input)));
    Ok(base)
}

/// The base of an answer (section 2.4), which covers its status and the signature of the request.
pub(super) fn of_answer(
    input: &InnerList,
    status: StatusCode,
    asked: &HeaderMap,
) -> Result<String, Refusal> {
    let asked = field(&SIGNATURE, asked)?;
    let parameters = parameters(input);
    Ok(format!(
        "\"@status\": {}\n\"signature\";req: {asked}\n\"@signature-params\": {parameters}",
        status.as_str()
    ))
}

/// The inner list as text, from its first bracket to its last parameter.
fn parameters(input: &InnerList) -> String {
    let list = vec![ListEntry::InnerList(input.clone())];
    list.serialize().unwrap_or_default()
}

/// The value of a component (section 2.1 and 2.2).
fn component(
    name: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<String, Refusal> {
    match name {
        "@method" => Ok(method.as_str().to_owned()),
        "@path" => Ok(match uri.path() {
            "" => "/".to_owned(),
            path => path.to_owned(),
        }),
        "@query" => Ok(format!("?{}", uri.query().unwrap_or_default())),
        "@authority" => field(&header::HOST, headers).map(|host| host.to_ascii_lowercase()),
        derived if derived.starts_with('@') => Err(malformed(format!(
            "`{derived}` cannot be covered here; cover @method, @path, @query, @authority and headers"
        ))),
        name => {
            let header = HeaderName::from_bytes(name.as_bytes()).ok();
            // Names of fields are covered in small letters.
            let header = header
                .filter(|header| header.as_str() == name)
                .ok_or_else(|| malformed(format!("`{}` is no header", name.escape_debug())))?;
            field(&header, headers)
        }
    }
}

/// All values of a header, as one line (section 2.1).
fn field(name: &HeaderName, headers: &HeaderMap) -> Result<String, Refusal> {
    let mut line: Option<String> = None;
    for value in headers.get_all(name) {
        let value = value.to_str();
        let value = value.map_err(|_| malformed(format!("the header `{name}` is not ASCII")))?;
        let line = line.get_or_insert_default();
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(value.trim_matches([' ', '\t']));
    }
    line.ok_or_else(|| {
        Refusal::new(
            Code::ComponentMissing,
            format!("the signature covers `{name}`, which the request does not have"),
        )
    })
}

/// The only member of a header that is a dictionary, with its name.
pub(super) fn only_member(
    name: &HeaderName,
    headers: &HeaderMap,
) -> Result<Option<(String, ListEntry)>, Refusal> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let line = field(name, headers)?;
    let members: Dictionary = sfv::Parser::new(&line)
        .parse()
        .map_err(|error| malformed(format!("the header `{name}` cannot be read: {error}")))?;
    if members.len() > 1 {
        return Err(Refusal::new(
            Code::SeveralSignatures,
            format!("the header `{name}` has more than one member; send one signature"),
        ));
    }
    let only = members.into_iter().next();
    Ok(only.map(|(key, entry)| (key.as_str().to_owned(), entry)))
}

pub(super) fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::SignatureMalformed, message)
}
