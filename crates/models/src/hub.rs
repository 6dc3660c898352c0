//! The hub's protocol: what a repository holds, and where its files are.
//!
//! `GET /api/models/{org}/{repo}/tree/{revision}?recursive=true` lists files, page by page through `Link` headers
//! (RFC 8288), with the SHA-256 of those in large-file storage. `GET /{org}/{repo}/resolve/{revision}/{file}` is a
//! file, mostly by a redirect to another host.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::error::{Error, Reason};
use crate::files::Listed;
use crate::http::{Http, Reply, host};

/// What may stand in a path as it is.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Most pages of a list; the largest repositories have a few.
const PAGES: usize = 100;

/// Header in which the hub names a commit.
pub(crate) const COMMIT: &str = "x-repo-commit";

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// Address of a file.
pub(crate) fn file_url(base: &str, repo: &str, revision: &str, path: &str) -> String {
    let repo = utf8_percent_encode(repo, PATH);
    let path = utf8_percent_encode(path, PATH);
    format!("{base}/{repo}/resolve/{revision}/{path}")
}

/// Address of the list of files.
pub(crate) fn list_url(base: &str, repo: &str, revision: &str) -> String {
    let repo = utf8_percent_encode(repo, PATH);
    format!("{base}/api/models/{repo}/tree/{revision}?recursive=true")
}

/// The next page by a `Link` header: `<ADDRESS>; rel="next", <ADDRESS>; …`.
fn next_page(link: &str) -> Option<&str> {
    let mut rest = link;
    while let Some((_, after)) = rest.split_once('<') {
        let (address, after) = after.split_once('>')?;
        let parameters = after.split('<').next().unwrap_or(after);
        let is_next = parameters
            .split([';', ','])
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        if is_next {
            return Some(address);
        }
        rest = &after[parameters.len()..];
    }
    None
}

/// Every file of a repository. `ask` gets one answer, tries again where that helps, and explains failures.
pub(crate) fn list(
    base: &str,
    repo: &str,
    revision: &str,
    ask: &mut dyn FnMut(&str) -> Result<Reply, Error>,
) -> Result<Vec<Listed>, Error> {
    let mut files = Vec::new();
    let mut url = list_url(base, repo, revision);
    for _ in 0..PAGES {
        let reply = ask(&url)?;
        let next = reply.header("link").and_then(next_page).map(str::to_owned);
        let entries: Vec<Entry> = reply.json().map_err(|error| {
            Error::new(Reason::Unreachable, error.what)
                .fix("check that the hub setting is the address of a hub")
        })?;
        files.extend(
            entries
                .into_iter()
                .filter(|entry| entry.kind == "file")
                .map(|entry| Listed {
                    path: entry.path,
                    size: entry.lfs.as_ref().map_or(entry.size, |lfs| lfs.size),
                    sha256: entry.lfs.map(|lfs| lfs.oid),
                }),
        );
        match next {
            // A page elsewhere would be asked with the hub's words and answer with anything.
            Some(next) if next.starts_with(&format!("{base}/")) => url = next,
            Some(next) if next.starts_with('/') && !next.starts_with("//") => {
                // `https://HOST` without the path that a mirror may have behind it.
                let server = match base.match_indices('/').nth(2) {
                    Some((at, _)) => &base[..at],
                    None => base,
                };
                url = format!("{server}{next}");
            }
            Some(next) => {
                return Err(Error::new(
                    Reason::Unreachable,
                    format!("{} continues its list at {}", host(base), host(&next)),
                )
                .fix("set hub to the address of that server"));
            }
            None => return Ok(files),
        }
    }
    Err(Error::new(
        Reason::NotFound,
        format!("the list of files of {repo} has no end"),
    ))
}

/// Nobody is where the hub should be.
pub(crate) fn absent(what: &str) -> Error {
    Error::new(
        Reason::Unreachable,
        format!("the hub cannot be reached: {what}"),
    )
    .fix(
        "check the network; without the hub, `--from http://HOST:8321` takes the model from another Hearth machine, \
         `--hub URL` (or the setting hub) asks a mirror, and `hearth models import FILE` takes a file",
    )
}

/// What a status of the hub means, and what to do.
pub(crate) fn explain(http: &Http, base: &str, repo: &str, reply: &Reply) -> Error {
    let (place, page) = (host(base), format!("{base}/{repo}"));
    let code = reply.header("x-error-code").unwrap_or_default();
    let said = reply
        .header("x-error-message")
        .map(|text| format!(" (\"{}\")", text.chars().take(200).collect::<String>()))
        .unwrap_or_default();
    let token = "make a token in the settings of your account there and set HF_TOKEN to it";
    match reply.status {
        401 | 403 if code == "GatedRepo" || (reply.status == 403 && http.has_token()) => {
            let message = format!("{repo} is open only to those who accept its licence{said}");
            let fix = match http.has_token() {
                true => format!("accept the licence at {page} with the account of your HF_TOKEN"),
                false => format!("accept the licence at {page}, then {token}"),
            };
            Error::new(Reason::Denied, message).fix(fix)
        }
        401 if http.has_token() => Error::new(
            Reason::Denied,
            format!("{place} does not accept the token, or there is no repository {repo}{said}"),
        )
        .fix(format!(
            "check the name at {page} and the token in HF_TOKEN"
        )),
        401 => Error::new(
            Reason::Denied,
            format!("{repo} is private, gated, or not there{said}"),
        )
        .fix(format!("check the name at {page}; to sign in, {token}")),
        403 => Error::new(Reason::Denied, format!("{place} refuses {repo}{said}")).fix(format!(
            "look at {page}; if it asks to accept a licence, do, then {token}"
        )),
        404 => Error::new(
            Reason::NotFound,
            format!("{place} has no repository {repo}, or not that file of it{said}"),
        )
        .fix(format!("check the name at {page}")),
        429 => {
            let fix = match http.has_token() {
                true => "wait some minutes and run the same command again",
                false => {
                    "wait some minutes and run the same command again; with HF_TOKEN set the limit is higher"
                }
            };
            Error::new(
                Reason::Limited,
                format!("{place} gets too many requests from here{said}"),
            )
            .fix(fix)
        }
        status if status >= 500 => Error::new(
            Reason::Unreachable,
            format!("{place} is in trouble (HTTP status {status}){said}"),
        )
        .fix("run the same command later; it goes on where it stopped"),
        status => Error::new(
            Reason::Unreachable,
            format!("{place} answers with HTTP status {status}{said}"),
        )
        .fix("check that the hub setting is the address of a hub"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other() {
        let link =
            r#"<https://hub.example/a?x=1,2>; rel="next", <https://hub.example/b>; rel="first""#;
        assert_eq!(next_page(link), Some("https://hub.example/a?x=1,2"));
        let link =
            r#"<https://hub.example/b>; rel="first", <https://hub.example/a?cursor=x>; rel="next""#;
        assert_eq!(next_page(link), Some("https://hub.example/a?cursor=x"));
        assert_eq!(next_page("nonsense"), None);
    }

    #[test]
    fn paths_are_escaped() {
        assert_eq!(
            file_url("https://hub.example", "org/repo", "main", "a b/c#d.gguf"),
            "https://hub.example/org/repo/resolve/main/a%20b/c%23d.gguf"
        );
    }
}
