//! What to do about a model that is not here: the one wording of the command line and of every API.

use crate::catalogue;
use crate::name::Name;

/// Longest name that is compared; the time grows with the square of its length.
const LONGEST: usize = 300;
/// From here on two names are alike enough (Jaro-Winkler similarity, 0 to 1) that one may be a slip for the other.
const ALIKE: f64 = 0.87;

/// How to get along without a model of that name, given those that are here: the one that was probably meant, and the
/// command that fetches it. No sentence: it follows "model `…` is not here; ".
pub fn how_to_get(name: &str, here: &[&str]) -> String {
    let is_file = |name: &str| name.to_ascii_lowercase().ends_with(".gguf");
    let pullable = catalogue::known(name).is_some()
        || catalogue::encoder(name).is_some()
        || Name::parse(name).is_ok_and(|name| name.repository().is_some_and(|repo| !is_file(repo)));
    if !pullable && is_file(name) && name.contains(std::path::is_separator) {
        return "name a .gguf file that is there".into();
    }
    let tags = other_tags(name, here);
    if tags.len() > 1 {
        return format!("name it with its tag: {}", tags.join(", "));
    }
    match (pullable, closest(name, here)) {
        (true, None) => format!("run `hearth pull {name}`"),
        (true, Some(other)) => {
            format!("run `hearth pull {name}`, or use `{other}`, which is here")
        }
        (false, Some(other)) => {
            format!("did you mean `{other}`? `hearth list` shows what is here")
        }
        (false, None) => {
            let such = match key(name).contains("embed") {
                true => "nomic-embed-text",
                false => "qwen3:1.7b",
            };
            format!(
                "run `hearth list` to see what is here, or fetch a model such as `hearth pull {such}`"
            )
        }
    }
}

/// The models here that a name without a tag could mean.
fn other_tags<'a>(name: &str, here: &[&'a str]) -> Vec<&'a str> {
    let Some(asked) = Name::parse(name).ok().filter(|name| name.tag().is_none()) else {
        return Vec::new();
    };
    let of_it = |other: &&&str| Name::parse(other).is_ok_and(|other| asked.has_base_of(&other));
    here.iter().filter(of_it).copied().collect()
}

/// The name here that is most like the one that was asked for: another tag of the same model, or a slip of the pen.
pub(crate) fn closest<'a>(name: &str, here: &[&'a str]) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    let asked = Name::parse(name).ok();
    let likeness = |other: &str| {
        let parsed = Name::parse(other).ok();
        let same = (asked.as_ref().zip(parsed.as_ref())).is_some_and(|(a, b)| a.has_base_of(b));
        let letters = strsim::jaro_winkler(&key(name), &key(other));
        // Among the tags of one model the letters decide.
        if same { 1.0 + letters } else { letters }
    };
    here.iter()
        .map(|other| (likeness(other), *other))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

/// What of a name is compared: not the mark that all names of a hub have.
fn key(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower.strip_prefix("hf:").unwrap_or(&lower).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_pulled_is_offered_for_it_and_what_is_alike_is_named() {
        for (name, here, expected) in [
            ("qwen3:1.7b", &["ember"][..], "run `hearth pull qwen3:1.7b`"),
            ("org/repo:Q8_0", &[], "run `hearth pull org/repo:Q8_0`"),
            (
                "qwen3:8b",
                &["ember", "qwen3:1.7b"],
                "run `hearth pull qwen3:8b`, or use `qwen3:1.7b`, which is here",
            ),
            (
                "embr",
                &["qwen3:1.7b", "ember"],
                "did you mean `ember`? `hearth list` shows what is here",
            ),
            (
                "qwen3",
                &["qwen3:1.7b", "ember", "qwen3:8b"],
                "name it with its tag: qwen3:1.7b, qwen3:8b",
            ),
            ("./none.gguf", &["ember"], "name a .gguf file that is there"),
            (
                "hf:a/b:Q4_0",
                &["hf:c/d:Q8_0"],
                "run `hearth pull hf:a/b:Q4_0`",
            ),
        ] {
            assert_eq!(how_to_get(name, here), expected);
        }
        let nothing = how_to_get("nonsense", &["ember"]);
        assert!(nothing.starts_with("run `hearth list`"), "{nothing}");
        let vectors = how_to_get("text-embedding-3-small", &["ember"]);
        assert!(
            vectors.ends_with("`hearth pull nomic-embed-text`"),
            "{vectors}"
        );
    }
}
