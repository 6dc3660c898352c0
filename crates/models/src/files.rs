//! Which files of a repository make up a model, going by their names alone; pure.
//!
//! Publishers name GGUF files `MODEL-QUANTISATION.gguf`, in parts `MODEL-QUANTISATION-00001-of-00003.gguf`, and put
//! other things beside them: image encoders (`mmproj`), importance matrices.

use std::collections::BTreeMap;

use crate::error::{Error, Reason};

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Path in the repository, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of its bytes as the hub says, if it does.
    pub sha256: Option<String>,
}

/// The files of one model in one quantisation, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variant {
    /// `Q4_K_M`, or the file's name where it does not say.
    pub label: String,
    pub files: Vec<Listed>,
}

/// Quantisations by how well they usually serve, the best first: small with little loss, then larger, then smaller.
const ORDER: [&str; 30] = [
    "Q4_K_M",
    "Q4_K",
    "UD-Q4_K_XL",
    "Q4_K_L",
    "Q4_K_XL",
    "Q4_K_S",
    "IQ4_XS",
    "IQ4_NL",
    "Q4_0",
    "Q4_1",
    "MXFP4",
    "MXFP4_MOE",
    "Q5_K_M",
    "Q5_K",
    "UD-Q5_K_XL",
    "Q5_K_S",
    "Q5_0",
    "Q6_K",
    "UD-Q6_K_XL",
    "Q8_0",
    "UD-Q8_K_XL",
    "Q3_K_L",
    "Q3_K_M",
    "Q3_K",
    "UD-Q3_K_XL",
    "F16",
    "FP16",
    "BF16",
    "F32",
    "FP32",
];

/// The stem without `-00001-of-00003`, and the part's number and the number of parts.
pub(crate) fn without_part(stem: &str) -> (&str, Option<(u32, u32)>) {
    let divided = || {
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (before, no) = rest.rsplit_once('-')?;
        let number = |digits: &str| {
            let plain = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u32>().ok()).flatten()
        };
        let (no, count) = (number(no)?, number(count)?);
        (1..=count).contains(&no).then_some((before, (no, count)))
    };
    match divided() {
        Some((before, part)) => (before, Some(part)),
        None => (stem, None),
    }
}

/// The quantisation that a file's stem names last, in capitals: `Q4_K_M`, `IQ3_XXS`, `UD-Q4_K_XL`, `BF16`, `MXFP4`.
pub(crate) fn quantisation(stem: &str) -> Option<String> {
    let upper = stem.to_ascii_uppercase();
    let separates = |byte: u8| !byte.is_ascii_alphanumeric();
    let starts = (0..upper.len()).rev().filter(|&at| {
        upper.is_char_boundary(at) && (at == 0 || separates(upper.as_bytes()[at - 1]))
    });
    for at in starts {
        let rest = &upper[at..];
        let length = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
            .count();
        let word = &rest[..length];
        if is_quantisation(word) {
            let dynamic = upper[..at].ends_with("UD-");
            return Some(format!("{}{word}", if dynamic { "UD-" } else { "" }));
        }
    }
    None
}

fn is_quantisation(word: &str) -> bool {
    if ["F16", "FP16", "BF16", "F32", "FP32"].contains(&word) || word.starts_with("MXFP4") {
        return true;
    }
    let rest = ["IQ", "TQ", "Q"]
        .iter()
        .find_map(|prefix| word.strip_prefix(prefix));
    let Some(rest) = rest else { return false };
    let mut bytes = rest.bytes();
    // `Q4` alone, or `Q4_…`.
    bytes
        .next()
        .is_some_and(|byte| (b'1'..=b'8').contains(&byte))
        && matches!(bytes.next(), None | Some(b'_'))
}

fn stem(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let at = name.len().checked_sub(".gguf".len())?;
    name.get(at..)?
        .eq_ignore_ascii_case(".gguf")
        .then(|| &name[..at])
}

/// Whether a file belongs beside a model and is none.
fn is_beside(stem: &str) -> bool {
    let lower = stem.to_ascii_lowercase();
    lower.contains("mmproj") || lower.contains("imatrix") || lower.ends_with("-lora")
}

/// The models in a repository, each whole: sorted by their labels, and within a label by path.
pub(crate) fn variants(listed: &[Listed]) -> Vec<Variant> {
    // By folder and stem without the part: one model's parts are beside each other.
    let mut groups: BTreeMap<String, Vec<(u32, u32, &Listed)>> = BTreeMap::new();
    for file in listed {
        let Some(stem) = stem(&file.path).filter(|stem| !is_beside(stem)) else {
            continue;
        };
        let (before, part) = without_part(stem);
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let (no, count) = part.unwrap_or((1, 1));
        let key = format!("{folder}/{before}/{count}");
        groups.entry(key).or_default().push((no, count, file));
    }
    let mut all = Vec::new();
    for mut parts in groups.into_values() {
        parts.sort_by_key(|(no, ..)| *no);
        let whole = parts
            .iter()
            .enumerate()
            .all(|(at, (no, count, _))| *no as usize == at + 1 && *count as usize == parts.len());
        let Some((.., first)) = parts.first().filter(|_| whole) else {
            continue;
        };
        let name = first.path.rsplit('/').next().unwrap_or(&first.path);
        let before = stem(name).map_or(name, |stem| without_part(stem).0);
        all.push(Variant {
            label: quantisation(before).unwrap_or_else(|| name.to_owned()),
            files: parts.iter().map(|(.., file)| (*file).clone()).collect(),
        });
    }
    all.sort_by(|a, b| (&a.label, &a.files[0].path).cmp(&(&b.label, &b.files[0].path)));
    all
}

/// A name from outside for people, without what a terminal could take for a command.
pub(crate) fn plain(name: &str) -> String {
    name.escape_debug().to_string()
}

/// The labels there are, each once.
fn labels(variants: &[Variant]) -> String {
    let mut labels: Vec<String> = variants.iter().map(|one| plain(&one.label)).collect();
    labels.dedup();
    labels.join(", ")
}

/// Chooses the variant that was asked for: a quantisation, or a file's name. Without either, `usual` is taken if it is
/// there, else the one that usually serves best. `pattern` is what the file must begin with if several fit.
///
/// # Errors
/// [`Reason::NotFound`], with what there is.
pub(crate) fn choose(
    variants: Vec<Variant>,
    asked: Option<&str>,
    usual: Option<&str>,
    pattern: Option<&str>,
    place: &str,
) -> Result<Variant, Error> {
    if variants.is_empty() {
        return Err(Error::new(
            Reason::NotFound,
            format!("there is no GGUF model in {place}"),
        )
        .fix("choose a repository with .gguf files; their names often end in -GGUF"));
    }
    let of = |label: &str| -> Vec<&Variant> {
        let same: Vec<&Variant> = variants
            .iter()
            .filter(|one| one.label.eq_ignore_ascii_case(label))
            .collect();
        let fit = |one: &&Variant| {
            let name = one.files[0].path.rsplit('/').next().unwrap_or_default();
            pattern.is_some_and(|pattern| {
                name.get(..pattern.len())
                    .is_some_and(|head| head.eq_ignore_ascii_case(pattern))
            })
        };
        match same.len() > 1 && same.iter().any(fit) {
            true => same.into_iter().filter(fit).collect(),
            false => same,
        }
    };
    let found = match asked {
        Some(asked) if stem(asked).is_some() => {
            let wanted = |one: &&Variant| {
                one.files.iter().any(|file| {
                    file.path
                        .rsplit('/')
                        .next()
                        .is_some_and(|name| name.eq_ignore_ascii_case(asked))
                })
            };
            variants.iter().filter(wanted).collect()
        }
        // Some publishers put `UD-` before all their quantisations; nobody types it.
        Some(asked) => match of(asked) {
            none if none.is_empty() => of(&format!("UD-{asked}")),
            some => some,
        },
        None => usual
            .into_iter()
            .chain(ORDER)
            .map(of)
            .find(|found| !found.is_empty())
            .unwrap_or_else(|| variants.iter().take(1).collect()),
    };
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::new(
            Reason::NotFound,
            format!(
                "there is no {} in {place}; there are: {}",
                asked.unwrap_or_default(),
                labels(&variants)
            ),
        )
        .fix("choose one of these")),
        several => {
            let names: Vec<String> = several
                .iter()
                .filter_map(|one| Some(plain(one.files[0].path.rsplit('/').next()?)))
                .collect();
            Err(Error::new(
                Reason::NotFound,
                format!("{place} has several such files: {}", names.join(", ")),
            )
            .fix("name one of them in place of the quantisation, as in hf:org/repo:FILE.gguf"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn listed(paths: &[&str]) -> Vec<Listed> {
        let file = |path: &&str| Listed {
            path: (*path).to_owned(),
            size: 1,
            sha256: None,
        };
        paths.iter().map(file).collect()
    }

    fn chosen(paths: &[&str], asked: Option<&str>) -> Result<Vec<String>, String> {
        choose(variants(&listed(paths)), asked, None, None, "org/repo")
            .map(|one| one.files.into_iter().map(|file| file.path).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn quantisations_are_read_from_the_names_that_publishers_give() {
        for (stem, expected) in [
            ("Qwen3-1.7B-Q4_K_M", Some("Q4_K_M")),
            ("qwen2.5-coder-7b-instruct-q4_k_m", Some("Q4_K_M")),
            ("Qwen3-30B-A3B-UD-Q4_K_XL", Some("UD-Q4_K_XL")),
            ("model.IQ3_XXS", Some("IQ3_XXS")),
            ("gemma-3-1b-it-BF16", Some("BF16")),
            ("gpt-oss-20b-mxfp4", Some("MXFP4")),
            ("llama_Q8_0", Some("Q8_0")),
            ("bge-small-en-v1.5-f16", Some("F16")),
            ("Qwen3-8B", None),
            ("Q", None),
            ("", None),
        ] {
            assert_eq!(quantisation(stem).as_deref(), expected, "{stem}");
        }
    }

    #[test]
    fn the_usual_quantisation_is_chosen_and_others_can_be_asked_for() {
        let all = [
            "README.md",
            "mmproj-BF16.gguf",
            "M-Q8_0.gguf",
            "M-Q4_K_M.gguf",
            "M-Q4_0.gguf",
            "imatrix_M.gguf",
        ];
        assert_eq!(chosen(&all, None).unwrap(), ["M-Q4_K_M.gguf"]);
        assert_eq!(chosen(&all, Some("q8_0")).unwrap(), ["M-Q8_0.gguf"]);
        assert_eq!(chosen(&all, Some("m-q4_0.gguf")).unwrap(), ["M-Q4_0.gguf"]);
        assert_eq!(
            chosen(&["M-Q8_0.gguf", "M-Q4_0.gguf"], None).unwrap(),
            ["M-Q4_0.gguf"]
        );
        assert_eq!(chosen(&["odd.gguf"], None).unwrap(), ["odd.gguf"]);
        let error = chosen(&all, Some("Q5_K_M")).unwrap_err();
        assert!(error.contains("Q4_0, Q4_K_M, Q8_0"), "{error}");
        let error = chosen(&["README.md"], None).unwrap_err();
        assert!(error.contains("no GGUF model in org/repo"), "{error}");
    }

    #[test]
    fn a_split_model_is_taken_whole_or_not_at_all() {
        let parts = [
            "Q4_K_M/M-Q4_K_M-00002-of-00002.gguf",
            "Q4_K_M/M-Q4_K_M-00001-of-00002.gguf",
            "M-Q8_0-00001-of-00002.gguf",
        ];
        assert_eq!(chosen(&parts, None).unwrap(), [parts[1], parts[0]]);
        let error = chosen(&parts, Some("Q8_0")).unwrap_err();
        assert!(error.contains("there are: Q4_K_M"), "{error}");
    }

    #[test]
    fn of_several_models_in_one_repository_one_must_be_named() {
        let two = ["A-Q4_K_M.gguf", "B-Q4_K_M.gguf"];
        let error = chosen(&two, None).unwrap_err();
        assert!(error.contains("A-Q4_K_M.gguf, B-Q4_K_M.gguf"), "{error}");
        let variants = variants(&listed(&two));
        let one = choose(variants, None, None, Some("b-"), "org/repo").unwrap();
        assert_eq!(one.files[0].path, "B-Q4_K_M.gguf");
    }

    proptest! {
        #[test]
        fn no_list_of_files_is_too_odd(paths in prop::collection::vec("[A-Za-z0-9/._-]{0,12}(-0000[0-3]-of-0000[0-3])?(\\.gguf)?", 0..12), asked in prop::option::of(".{0,12}")) {
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            if let Ok(files) = chosen(&paths, asked.as_deref()) {
                prop_assert!(!files.is_empty());
            }
        }
    }
}
