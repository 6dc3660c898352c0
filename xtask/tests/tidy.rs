//! The tree is tidy, and every rule notices when it is not.

use xtask::tidy::tree::{Crate, Dependency, File, Kind, Package, Tree};
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

const TABLE: &str = "\
| room | holds | imports |
|---|---|---|
| `node` | the daemon | `engine`, `web` |
| `engine` | x | – |
| `testkit` | for tests | `node` |
";

fn uses(name: &str, kind: Kind) -> Dependency {
    Dependency {
        name: name.into(),
        kind,
    }
}

fn member(name: &str, dependencies: &[&str]) -> Crate {
    Crate {
        name: name.into(),
        dependencies: dependencies
            .iter()
            .map(|name| uses(name, Kind::Normal))
            .collect(),
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
    let mut engine = member("hearth-engine", &["llama-cpp-sys-2"]);
    engine.dependencies.extend([
        uses("hearth-testkit", Kind::Development),
        uses("tracing-subscriber", Kind::Development),
    ]);
    Tree {
        crates: vec![
            member("hearth-node", &["hearth-engine", "axum"]),
            engine,
            member("hearth-testkit", &["hearth-node", "tracing-subscriber"]),
        ],
        files: vec![
            file("Cargo.toml", "missing_docs = \"warn\""),
            file("crates/engine/src/llama.rs", "unsafe { x() }"),
            file(
                "crates/node/src/lib.rs",
                "// unsafe { sleep }\nlet a = \"unsafe {\"; tokio::time::sleep(x);",
            ),
            file("crates/testkit/src/lib.rs", "std::env::var(x)"),
            file("crates/engine/tests/env.rs", "std::env::var(x)"),
            file("models/ember/train.py", "time.sleep(1)"),
            file("crates/web/src/assets/page.js", "setTimeout(done, 10);"),
            file(
                "crates/web/tests/page.py",
                "# sleep\nprint(\"sleep\")\nasleep = 1",
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
    let breaks: [(&str, &str, Break); 23] = [
        (
            "dependency direction",
            "hearth-engine imports hearth-node",
            |tree| {
                let imported = uses("hearth-node", Kind::Normal);
                tree.crates[1].dependencies.push(imported);
            },
        ),
        (
            "dependency direction",
            "hearth-engine imports hearth-node for its tests",
            |tree| {
                let imported = uses("hearth-node", Kind::Development);
                tree.crates[1].dependencies.push(imported);
            },
        ),
        (
            "dependency direction",
            "hearth-engine imports hearth-node for its build script",
            |tree| {
                let imported = uses("hearth-node", Kind::Build);
                tree.crates[1].dependencies.push(imported);
            },
        ),
        (
            "dependency direction",
            "hearth-node imports hearth-testkit, which",
            |tree| {
                let imported = uses("hearth-testkit", Kind::Normal);
                tree.crates[0].dependencies.push(imported);
            },
        ),
        (
            "dependency direction",
            "hearth-node imports hearth-testkit for its build",
            |tree| {
                let imported = uses("hearth-testkit", Kind::Build);
                tree.crates[0].dependencies.push(imported);
            },
        ),
        ("dependency direction", "only hearth-engine", |tree| {
            let imported = uses("llama-cpp-sys-2", Kind::Development);
            tree.crates[0].dependencies.push(imported);
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
        ("sleep in tests", "crates/web/tests/page/a.py:2", |tree| {
            let text = "import time\ntime.sleep(1)";
            tree.files.push(file("crates/web/tests/page/a.py", text));
        }),
        ("sleep in tests", "crates/web/src/page.test.mjs:1", |tree| {
            let text = "fetch(\"http://a/\"); setTimeout(done, 10);";
            tree.files.push(file("crates/web/src/page.test.mjs", text));
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
        ("environment", "crates/web/src/f.rs:1", |tree| {
            let text = "use std::env::{current_dir, var_os};";
            tree.files.push(file("crates/web/src/f.rs", text));
        }),
        (
            "tracing subscriber",
            "hearth-node uses tracing-subscriber",
            |tree| {
                let imported = uses("tracing-subscriber", Kind::Normal);
                tree.crates[0].dependencies.push(imported);
            },
        ),
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
