//! `hearth update`: whether there is a newer version. It asks the one address that the owner has set, and only then;
//! nothing is downloaded or replaced.
//!
//! The address answers with a release, or a list of releases, as JSON. A release has `version` and `url`, or the names
//! that GitHub's interface for releases gives them, `tag_name` and `html_url`. Drafts and pre-releases do not count.

use std::time::Duration;

use clap::Args;
use semver::Version;
use serde::Deserialize;
use serde_json::json;

use super::Context;
use crate::config::Config;
use crate::config::Key;
use crate::failure::{Failure, Outcome};
use crate::flags::said;
use crate::screen::println;
use crate::version::VERSION;

/// How long somebody who asked waits for the answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long `hearth up` waits, which has something else to do.
const ASIDE: Duration = Duration::from_secs(2);
/// Largest list that is read, in bytes.
const LIMIT: u64 = 4 << 20;

/// Flags of `hearth update`.
#[derive(Debug, Args)]
#[command(after_help = "\
EXAMPLES
  hearth update
  hearth update --check --json
  hearth update --update-url https://example.org/hearth/releases.json

Nothing is asked unless the setting update_url names an address. With update_check = \"on\" `hearth up` asks there, too.
The answer is a release or a list of them: {\"version\": \"0.2.0\", \"url\": \"https://example.org/hearth/0.2.0\"}")]
pub struct UpdateArgs {
    /// Ask once whether there is a newer version, which is all that it does
    #[arg(long)]
    pub check: bool,
    /// Where the releases are listed
    #[arg(long, value_name = "URL")]
    pub update_url: Option<String>,
}

impl UpdateArgs {
    /// As a configuration layer.
    pub fn layer(&self) -> Vec<(Key, String)> {
        said([(Key::UpdateUrl, &self.update_url)])
    }
}

/// Asks, and says what it heard.
pub async fn run(context: &Context) -> Outcome {
    let latest = latest(&context.config, PATIENCE).await?;
    let (own, newer) = (own()?, latest.version > own()?);
    if context.screen.json {
        let answer = json!({
            "version": own.to_string(),
            "latest": latest.version.to_string(),
            "newer": newer,
            "url": latest.url,
        });
        println(&answer.to_string());
        return Ok(());
    }
    match newer {
        true => println(&latest.remark()),
        false => println(&format!("hearth {own} is the newest version")),
    }
    Ok(())
}

/// What `hearth up` may add when the owner wants it to look; a failure is nobody's concern then.
pub async fn remark(config: &Config) -> Option<String> {
    if !config.update.check || config.fetch.offline || config.update.url.is_none() {
        return None;
    }
    match latest(config, ASIDE).await {
        Ok(latest) => (latest.version > own().ok()?).then(|| latest.remark()),
        Err(failure) => {
            tracing::debug!("no look for a newer version: {}", failure.message);
            None
        }
    }
}

fn own() -> Outcome<Version> {
    Version::parse(VERSION)
        .map_err(|error| Failure::new(format!("the own version `{VERSION}` is none: {error}")))
}

/// A release that is out.
#[derive(Debug, PartialEq, Eq)]
struct Release {
    version: Version,
    url: Option<String>,
}

impl Release {
    fn remark(&self) -> String {
        let (version, url) = (&self.version, self.url.as_deref());
        let place = url.map_or_else(String::new, |url| format!("\n  get it   {url}"));
        format!(
            "hearth {version} is out; this is {VERSION}{place}\n  install  in the way this one came, then start the node \
             again: hearth stop, hearth up (or hearth service install)"
        )
    }
}

async fn latest(config: &Config, patience: Duration) -> Outcome<Release> {
    let Some(url) = config.update.url.clone() else {
        return Err(
            Failure::usage("no address is set to ask for newer versions")
                .fix("set update_url to the address of a list of releases, or give --update-url"),
        );
    };
    if config.fetch.offline {
        return Err(Failure::usage("offline is on, so nobody is asked")
            .fix("set offline to off, or HEARTH_OFFLINE=off for once"));
    }
    let place = url.clone();
    let asked = tokio::task::spawn_blocking(move || ask(&place, patience)).await;
    let text = asked
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(|reason| {
            Failure::new(format!("{url} does not answer: {reason}"))
                .fix("see whether update_url is right, and whether this machine reaches it")
        })?;
    newest(&text).map_err(|reason| {
        Failure::new(format!("{url} does not list releases: {reason}"))
            .fix("set update_url to a list of releases; hearth update --help shows one")
    })
}

fn ask(url: &str, patience: Duration) -> Result<String, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
        .tls_config(crate::network::tls())
        .build()
        .into();
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = response.body_mut().with_config().limit(LIMIT);
    body.read_to_string().map_err(|error| error.to_string())
}

/// One release as it is listed.
#[derive(Debug, Deserialize)]
struct Listed {
    version: Option<String>,
    tag_name: Option<String>,
    url: Option<String>,
    html_url: Option<String>,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    prerelease: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum List {
    Many(Vec<Listed>),
    One(Listed),
}

/// The newest release of a list.
fn newest(text: &str) -> Result<Release, String> {
    let list: List = serde_json::from_str(text)
        .map_err(|_| "it is neither a JSON object with `version` nor a list of them".to_owned())?;
    let listed = match list {
        List::Many(many) => many,
        List::One(one) => vec![one],
    };
    let mut newest: Option<Release> = None;
    for one in listed
        .into_iter()
        .filter(|one| !one.draft && !one.prerelease)
    {
        let name = one.version.or(one.tag_name).ok_or("`version` is missing")?;
        let version = Version::parse(name.trim_start_matches('v'))
            .map_err(|error| format!("version `{name}`: {error}"))?;
        if version.pre.is_empty() && newest.as_ref().is_none_or(|best| best.version < version) {
            // GitHub's `url` is for programs.
            let url = one.html_url.or(one.url);
            newest = Some(Release { version, url });
        }
    }
    newest.ok_or_else(|| "it has no release".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str, url: Option<&str>) -> Release {
        Release {
            version: Version::parse(version).unwrap(),
            url: url.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn the_newest_release_is_found_in_every_form() {
        let page = Some("https://example.org/new");
        assert_eq!(
            newest(r#"{"version": "0.10.0", "url": "https://example.org/new"}"#),
            Ok(release("0.10.0", page))
        );
        let github = r#"[
            {"tag_name": "v0.9.0", "url": "api", "html_url": "https://example.org/old"},
            {"tag_name": "v0.10.0", "url": "api", "html_url": "https://example.org/new"},
            {"tag_name": "v0.11.0", "prerelease": true},
            {"tag_name": "v0.12.0-rc.1"},
            {"tag_name": "v1.0.0", "draft": true}
        ]"#;
        assert_eq!(newest(github), Ok(release("0.10.0", page)));
        assert_eq!(
            newest(r#"{"version": "1.0.0"}"#),
            Ok(release("1.0.0", None))
        );
    }

    #[test]
    fn what_is_no_list_of_releases_is_named() {
        for (text, expected) in [
            ("<html>", "neither a JSON object"),
            ("[]", "no release"),
            ("{}", "`version` is missing"),
            (r#"{"version": "new"}"#, "version `new`"),
        ] {
            let told = newest(text).unwrap_err();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
