//! Where this process keeps models and how it fetches more: settings, and what other programs of the same hub agreed on
//! (`HF_TOKEN`, `HF_HOME`, the usual proxy variables).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use hearth_models::tls;
use hearth_models::{EncoderStore, HUB, ModelStore, Network, Proxy, Token};

use crate::config::Config;
use crate::failure::{Exit, Failure};
use crate::memories;

/// The store of models: in the folder whose `.gguf` files can be named, too.
pub fn store(config: &Config) -> ModelStore {
    ModelStore::new(&config.models_dir)
}

/// The sentence encoders of this home.
pub fn encoders(config: &Config) -> EncoderStore {
    EncoderStore::new(memories::encoders(config).folder())
}

/// How models are fetched by these settings.
pub fn network(config: &Config) -> Network {
    let variable = |name: &str| std::env::var_os(name);
    let user_home = etcetera::home_dir().unwrap_or_default();
    let hub = &config.fetch.hub;
    let said = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
    let said = said.iter().any(|name| variable(name).is_some());
    let token = token(&variable, &user_home).filter(|_| may_see_token(hub, said));
    Network {
        hub: hub.clone(),
        token,
        offline: config.fetch.offline,
        proxy: Proxy::try_from_env(),
        ..Network::default()
    }
}

/// Whether a hub may see the token: the public one, and another that it was said for; over a connection that nobody else
/// reads.
fn may_see_token(hub: &str, said: bool) -> bool {
    let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"];
    let is_closed = |start: &&str| {
        let rest = hub.strip_prefix(*start);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    };
    let secret = hub.starts_with("https://") || local.iter().any(is_closed);
    secret && (said || hub.trim_end_matches('/') == HUB)
}

/// The hub's token: from the environment, or from the file where the hub's own tools keep it.
fn token(variable: &dyn Fn(&str) -> Option<OsString>, user_home: &Path) -> Option<Token> {
    let said = |name: &str| variable(name).filter(|value| !value.is_empty());
    let told = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
        .into_iter()
        .find_map(|name| Token::new(said(name)?.to_str()?));
    told.or_else(|| {
        let cache = || {
            let cache = said("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.unwrap_or_else(|| user_home.join(".cache"));
            cache.join("huggingface")
        };
        let file = said("HF_TOKEN_PATH").map(PathBuf::from);
        let file = file.unwrap_or_else(|| {
            let folder = said("HF_HOME").map(PathBuf::from);
            folder.unwrap_or_else(cache).join("token")
        });
        Token::new(&std::fs::read_to_string(file).ok()?)
    })
}

impl From<hearth_models::Error> for Failure {
    fn from(error: hearth_models::Error) -> Self {
        use hearth_models::Reason;
        let failure = Self {
            exit: match error.reason() {
                Reason::Invalid | Reason::NotHere => Exit::Usage,
                _ => Exit::Failed,
            },
            ..Self::new(error.message())
        };
        match error.advice() {
            Some(fix) => failure.fix(fix),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn found(home: &Path, variables: &[(&str, &str)]) -> Option<Token> {
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let variable = move |name: &str| {
            let own = variables.iter().find(|(own, _)| own == name)?;
            Some(OsString::from(&own.1))
        };
        token(&variable, home)
    }

    #[test]
    fn the_token_is_where_the_hubs_own_tools_keep_it() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        assert_eq!(found(home, &[]), None);
        let usual = home.join(".cache/huggingface");
        std::fs::create_dir_all(&usual).unwrap();
        std::fs::write(usual.join("token"), "hf_file\n").unwrap();
        assert_eq!(found(home, &[]), Token::new("hf_file"));
        let other = home.join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("token"), "hf_other").unwrap();
        let moved = ("HF_HOME", other.to_str().unwrap());
        assert_eq!(found(home, &[moved]), Token::new("hf_other"));
        let old = ("HUGGING_FACE_HUB_TOKEN", "hf_old");
        assert_eq!(found(home, &[moved, old]), Token::new("hf_old"));
        let told = ("HF_TOKEN", "hf_told");
        assert_eq!(found(home, &[moved, old, told]), Token::new("hf_told"));
        assert_eq!(found(home, &[("HF_TOKEN", "")]), Token::new("hf_file"));
    }

    #[test]
    fn a_mirror_sees_no_token_that_was_not_said_for_it() {
        assert!(may_see_token(HUB, false) && may_see_token(HUB, true));
        for hub in [
            "https://mirror.lan",
            "http://localhost:8000",
            "http://127.0.0.1/x",
        ] {
            assert!(
                may_see_token(hub, true) && !may_see_token(hub, false),
                "{hub}"
            );
        }
        for hub in ["http://mirror.lan", "http://localhost.evil.example"] {
            assert!(!may_see_token(hub, true), "{hub}");
        }
    }
}
