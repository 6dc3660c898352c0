//! `cargo xtask lint-packaging`: what packages and releases are made from, checked by programs that know the formats.

use std::path::Path;
use std::process::Command;

use crate::cargo::{root, succeed, target};
use crate::clients::python_environment;

pub const HELP: &str = "\
Checks the Dockerfile (hadolint), the workflows (zizmor, and actionlint where it is installed), every YAML file (yamllint)
and the scripts of the Debian package (sh -n). The linters are installed under the build folder, at the versions that
packaging/lint/requirements.txt names. actionlint is not among them: its package downloads the program from elsewhere.

usage: cargo xtask lint-packaging

EXAMPLES
  cargo xtask lint-packaging";

const LINT: &str = "packaging/lint";
const YAML: [&str; 2] = [".github", "packaging"];
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

pub fn run(args: &[String]) -> Result<(), String> {
    crate::none_left(args, HELP)?;
    let lint = root().join(LINT);
    let python = python_environment(&target().join("linters"), &lint.join("requirements.txt"))?;
    let programs = python.parent().unwrap_or(Path::new("."));
    let linter = |name: &str| {
        let mut command = Command::new(programs.join(name));
        command.current_dir(root());
        command
    };
    let mut checks = vec![
        {
            let mut hadolint = linter("hadolint");
            hadolint
                .arg("--config")
                .arg(lint.join("hadolint.yaml"))
                .arg("Dockerfile");
            hadolint
        },
        {
            let mut zizmor = linter("zizmor");
            zizmor
                .args(["--offline", "--quiet", "--config"])
                .arg(lint.join("zizmor.yaml"))
                .arg(".github/workflows");
            zizmor
        },
        {
            let mut yamllint = linter("yamllint");
            yamllint
                .args(["--strict", "--config-file"])
                .arg(lint.join("yamllint.yaml"))
                .args(YAML);
            yamllint
        },
    ];
    match Command::new("actionlint").arg("--version").output() {
        Ok(_) => {
            let mut actionlint = Command::new("actionlint");
            actionlint.current_dir(root());
            checks.push(actionlint);
        }
        Err(_) => println!("skipped: actionlint is not here"),
    }
    checks.extend(SCRIPTS.map(|script| {
        let mut shell = Command::new("sh");
        shell
            .arg("-n")
            .arg(root().join("packaging/debian").join(script));
        shell
    }));
    let failed: Vec<String> = checks
        .iter_mut()
        .filter_map(|check| succeed(check).err())
        .collect();
    match failed.is_empty() {
        true => {
            println!("packaging: {} checks passed", checks.len());
            Ok(())
        }
        false => Err(failed.join("\n")),
    }
}
