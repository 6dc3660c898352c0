//! The tree is tidy, and every rule notices when it is not.

use xtask::tidy::tree::{Crate, File, Package, Tree};
use xtask::tidy::{RULES, broken};

#[test]
fn the_tree_is_tidy() {
    let tree = Tree::read().expect("cargo metadata and git");
    assert!(
        tree.crates.len() > 5 && tree.files.len() > 50 && tree.packages.len() > 50,
        "the tree was not read"
    );
    let broken = broken(&tree);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

const TABLE: &str = "| room | holds | imports |\n|---|---|---|\n| `node` | the daemon | `engine`, `web` |\n| `engine` | x | – |\n";

fn member(name: &str, dependencies: &[&str]) -> Crate {
    Crate {
        name: name.into(),
        dependencies: dependencies.iter().map(|name| (*name).into()).collect(),
        executables: Vec::new(),
        manifest: "[lints]\nworkspace = true\n".into(),
    }
}

fn file(path: &str, text: &str) -> File {
    File {
        path: path.into(),
        text: text.into(),
    }
}

fn good() -> Tree {
    Tree {
        crates: vec![
            member("hearth-node", &["hearth-engine", "axum"]),
            member("hearth-engine", &["llama-cpp-sys-2"]),
        ],
        files: vec![
            file("Cargo.toml", "missing_docs = \"warn\""),
            file("crates/engine/src/llama.rs", "unsafe { x() }"),
            file(
                "crates/node/src/lib.rs",
                "// unsafe { sleep }\nlet a = \"unsafe {\"; tokio::time::sleep(x);",
            ),
        ],
        packages: vec![Package {
            name: "a".into(),
            licence: "(MIT OR Apache-2.0) AND Unicode-3.0".into(),
        }],
        architecture: TABLE.into(),
    }
}

#[test]
fn a_tree_in_order_breaks_nothing() {
    assert_eq!(broken(&good()), Vec::<String>::new());
}

#[test]
fn every_rule_notices_what_it_is_for() {
    type Break = fn(&mut Tree);
    let breaks: [(&str, &str, Break); 15] = [
        (
            "dependency direction",
            "hearth-engine imports hearth-node",
            |tree| {
                tree.crates[1].dependencies.push("hearth-node".into());
            },
        ),
        ("dependency direction", "only hearth-engine", |tree| {
            tree.crates[0].dependencies.push("llama-cpp-sys-2".into());
        }),
        (
            "dependency direction",
            "hearth-new is not in the table",
            |tree| {
                tree.crates.push(member("hearth-new", &[]));
            },
        ),
        ("unsafe code", "crates/web/src/lib.rs:1", |tree| {
            tree.files
                .push(file("crates/web/src/lib.rs", "unsafe fn x() {}"));
        }),
        ("sleep in tests", "crates/web/tests/a.rs:1", |tree| {
            tree.files
                .push(file("crates/web/tests/a.rs", "std::thread::sleep(x);"));
        }),
        ("sleep in tests", "src/b.rs:2", |tree| {
            tree.files
                .push(file("src/b.rs", "#[cfg(test)]\nmod tests { sleep(); }"));
        }),
        ("file length", "a.md has 1201 lines", |tree| {
            tree.files.push(file("a.md", &"x\n".repeat(1201)));
        }),
        ("drawers", "src/utils.rs", |tree| {
            tree.files.push(file("src/utils.rs", ""))
        }),
        ("drawers", "common/a.rs", |tree| {
            tree.files.push(file("src/common/a.rs", ""))
        }),
        ("documentation lints", "does not inherit", |tree| {
            tree.crates[0].manifest.clear()
        }),
        ("documentation lints", "allows missing_docs", |tree| {
            tree.files.push(file("src/c.rs", "#![allow(missing_docs)]"));
        }),
        ("one executable", "builds `extra`", |tree| {
            tree.crates[0].executables.push("extra".into());
        }),
        ("licences", "GPL-3.0", |tree| {
            tree.packages.push(Package {
                name: "g".into(),
                licence: "GPL-3.0 AND MIT".into(),
            });
        }),
        ("licences", "none has the licence ``", |tree| {
            tree.packages.push(Package {
                name: "none".into(),
                licence: String::new(),
            });
        }),
        ("environment", "crates/web/src/e.rs:1", |tree| {
            tree.files
                .push(file("crates/web/src/e.rs", "std::env::var(x)"));
        }),
    ];
    for (rule, what, spoil) in &breaks {
        let mut tree = good();
        spoil(&mut tree);
        let found = broken(&tree);
        assert!(
            found
                .iter()
                .any(|line| line.contains(rule) && line.contains(what)),
            "{rule}: {what}: {found:?}"
        );
    }
    for (rule, _) in RULES {
        assert!(
            breaks.iter().any(|(name, _, _)| *name == rule),
            "no test breaks the rule `{rule}`"
        );
    }
}
