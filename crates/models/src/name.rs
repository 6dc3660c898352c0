//! Names of models: as people say them, as the store keeps them, and as file names that every system takes.
//!
//! - `qwen3:1.7b`: a short name and its tag; without a tag `qwen3` is the usual size of that model.
//! - `hf:org/repo:Q4_K_M`: a repository of the hub and a quantisation; also `org/repo`, `hf.co/org/repo` and the
//!   address of the repository's page. In place of the quantisation a file's name can stand.
//!
//! Case does not matter: two names that differ only in case are one, because on many disks they would be one file.

use std::fmt;

use crate::error::{Error, Reason};

/// Longest name in bytes; with its escapes it is still a file name everywhere.
const LONGEST: usize = 160;

/// Prefixes that say: this is a repository of the hub.
const HUB: [&str; 6] = [
    "https://huggingface.co/",
    "http://huggingface.co/",
    "huggingface.co/",
    "https://hf.co/",
    "hf.co/",
    "hf:",
];

/// A model's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// `org/repo` of the hub, or a short name.
    base: String,
    tag: Option<String>,
}

impl Name {
    /// Reads a name in any of its forms.
    ///
    /// # Errors
    /// [`Reason::Invalid`], with the forms that are accepted.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| {
            Err(
                Error::new(Reason::Invalid, format!("`{}` {what}", text.escape_debug()))
                    .fix("use a name such as qwen3:1.7b, or hf:org/repo:Q4_K_M"),
            )
        };
        let trimmed = text.trim();
        if trimmed.len() > LONGEST {
            return wrong("is too long for a model's name");
        }
        let prefix = HUB.iter().find(|prefix| {
            let head = trimmed.get(..prefix.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        });
        let rest = prefix.map_or(trimmed, |prefix| &trimmed[prefix.len()..]);
        let (base, tag) = match rest.split_once(':') {
            Some((base, tag)) => (base, Some(tag)),
            None => (rest, None),
        };
        let parts: Vec<&str> = base.split('/').collect();
        if prefix.is_some() && parts.len() != 2 {
            return wrong("does not name a repository of the hub (org/repo)");
        }
        if parts.len() > 2 {
            return wrong("is not a model's name");
        }
        if !parts.iter().copied().chain(tag).all(is_word) {
            return wrong(
                "is not a model's name: each part takes letters, digits, `.`, `_` and `-`",
            );
        }
        if parts.len() == 1 && is_device(base) {
            return wrong("is the name of a device on Windows");
        }
        Ok(Self {
            base: base.to_owned(),
            tag: tag.map(str::to_owned),
        })
    }

    /// The name of a repository and what was chosen in it.
    pub(crate) fn of_repository(repository: &str, tag: &str) -> Result<Self, Error> {
        Self::parse(&format!("hf:{repository}:{tag}"))
    }

    /// The repository on the hub; `None` for a short name.
    pub fn repository(&self) -> Option<&str> {
        self.base.contains('/').then_some(self.base.as_str())
    }

    /// What stands before the tag, without `hf:`.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// What stands behind the colon: a size, a quantisation, `latest`.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// With this tag, unless it has one.
    pub(crate) fn or_tag(mut self, tag: &str) -> Self {
        self.tag.get_or_insert_with(|| tag.to_owned());
        self
    }

    /// Whether both are the same name but for case.
    pub fn is_same(&self, other: &Self) -> bool {
        let tag = |name: &Self| name.tag().map(str::to_ascii_lowercase);
        self.has_base_of(other) && tag(self) == tag(other)
    }

    /// Whether both differ at most in their tags.
    pub fn has_base_of(&self, other: &Self) -> bool {
        self.base.eq_ignore_ascii_case(&other.base)
    }

    /// Name of its file in the store: lower case, `:` and `/` escaped as in addresses.
    pub(crate) fn file(&self) -> String {
        let text = self.to_string().to_ascii_lowercase();
        format!("{}.json", text.replace(':', "%3a").replace('/', "%2f"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.repository().is_some() {
            f.write_str("hf:")?;
        }
        f.write_str(&self.base)?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

/// A part of a name: no separators, no way up, nothing that a file system or an address could take for something else.
fn is_word(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with('.')
        && !word.ends_with('.')
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether Windows takes a file of that name, whatever its ending, for a device.
fn is_device(word: &str) -> bool {
    let stem = word.split('.').next().unwrap_or(word).to_ascii_lowercase();
    let numbered = stem
        .strip_prefix("com")
        .or_else(|| stem.strip_prefix("lpt"))
        .is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_digit()));
    numbered || ["con", "prn", "aux", "nul"].contains(&stem.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_forms_of_a_name() {
        let hub = "hf:Org/Repo-GGUF:Q4_K_M";
        for (said, kept) in [
            ("qwen3:1.7b", "qwen3:1.7b"),
            ("  qwen3 ", "qwen3"),
            (hub, hub),
            ("Org/Repo-GGUF:Q4_K_M", hub),
            ("hf.co/Org/Repo-GGUF:Q4_K_M", hub),
            ("HF:Org/Repo-GGUF:Q4_K_M", hub),
            ("https://huggingface.co/Org/Repo-GGUF:Q4_K_M", hub),
            ("org/repo", "hf:org/repo"),
            ("org/repo:model-Q4_0.gguf", "hf:org/repo:model-Q4_0.gguf"),
        ] {
            assert_eq!(Name::parse(said).unwrap().to_string(), kept, "{said}");
        }
    }

    #[test]
    fn what_is_no_name_is_said_with_the_forms_that_are() {
        for text in [
            "",
            ":",
            "qwen3:",
            ":8b",
            "hf:qwen3",
            "hf:a/b/c",
            "a/b/c",
            "../../etc",
            "a/..",
            "..:x",
            "a b",
            "a\\b",
            "qwen3:8b:x",
            "nul",
            "CON.x:latest",
            "com1",
            "a\0b",
            "ä",
            "hf:/",
            &"a".repeat(161),
        ] {
            let error = Name::parse(text).unwrap_err();
            assert_eq!(error.reason(), Reason::Invalid, "{text}");
            assert!(error.advice().unwrap().contains("qwen3:1.7b"), "{text}");
        }
    }

    #[test]
    fn case_makes_no_other_name() {
        let name = Name::parse("hf:Org/Repo:q4_k_m").unwrap();
        let same = Name::parse("org/repo:Q4_K_M").unwrap();
        assert!(name.is_same(&same));
        assert_eq!(name.file(), same.file());
        assert_eq!(name.file(), "hf%3aorg%2frepo%3aq4_k_m.json");
    }

    proptest! {
        #[test]
        fn reading_never_fails_otherwise_and_file_names_are_safe(text in ".{0,80}") {
            if let Ok(name) = Name::parse(&text) {
                let file = name.file();
                prop_assert!(file.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-%".contains(&byte)));
                prop_assert!(!file.starts_with('.'));
                prop_assert_eq!(Name::parse(&name.to_string()).unwrap(), name);
            }
        }

        #[test]
        fn different_names_are_different_files(a in "[a-z]{1,3}(/[a-z]{1,3})?(:[a-z]{1,3})?", b in "[a-z]{1,3}(/[a-z]{1,3})?(:[a-z]{1,3})?") {
            if let (Ok(a), Ok(b)) = (Name::parse(&a), Name::parse(&b)) {
                prop_assert_eq!(a.file() == b.file(), a.is_same(&b));
            }
        }
    }
}
