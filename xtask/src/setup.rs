//! Finds out what a command needs and this machine lacks. On Debian and its kin, as root, it is installed; anywhere
//! else the exact command is printed, because changing somebody's machine is theirs to decide.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cargo::succeed;

/// Oldest Node.js whose npm installs the packages of the client tests. The one that the tests run on is among them,
/// because what systems ship is often older than the package `openai` asks for.
const NODE_MAJOR: u32 = 18;

/// Something outside Cargo's reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Configures llama.cpp's build.
    Cmake,
    /// C and C++ compilers, make and binutils.
    Compiler,
    /// Compiles the CPU code that GCC gets wrong.
    Clang,
    /// Reads llama.cpp's headers for the bindings.
    Libclang,
    /// Python with virtual environments.
    Python,
    /// Lists the files for the tidy rules.
    Git,
    /// Runs one of the examples.
    Curl,
    /// Node.js, no older than [`NODE_MAJOR`], and npm.
    Node,
    /// A browser for the tests of the page.
    Chromium,
    /// A database that several hubs share.
    Postgres,
    /// `nft` and `ip`: firewalls of network namespaces that tests make.
    Nftables,
    /// `faketime`: nodes whose clock is wrong.
    Faketime,
    /// rustfmt and clippy.
    RustTools,
}

impl Need {
    /// What building Hearth takes.
    pub const BUILD: [Self; 4] = [Self::Cmake, Self::Compiler, Self::Clang, Self::Libclang];
    /// What the checks take. Not mold: on x86-64 Linux Rust links with rust-lld, which was faster (0.57 s against
    /// 0.76 s for an incremental link of the debug test binary on 2 cores).
    pub const ALL: [Self; 13] = [
        Self::Cmake,
        Self::Compiler,
        Self::Clang,
        Self::Libclang,
        Self::Git,
        Self::Curl,
        Self::Python,
        Self::Node,
        Self::Chromium,
        Self::Postgres,
        Self::Nftables,
        Self::Faketime,
        Self::RustTools,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Cmake => "cmake",
            Self::Compiler => "a C and C++ compiler with make",
            Self::Clang => "clang",
            Self::Libclang => "libclang",
            Self::Python => "Python 3 with venv",
            Self::Git => "git",
            Self::Curl => "curl",
            Self::Node => "Node.js 18 or newer with npm",
            Self::Chromium => "Chromium",
            Self::Postgres => "PostgreSQL",
            Self::Nftables => "nftables and iproute2",
            Self::Faketime => "faketime",
            Self::RustTools => "rustfmt and clippy",
        }
    }

    /// Looked for as itself, not as a package: it may have come from anywhere.
    fn is_here(self) -> bool {
        match self {
            Self::Cmake => runs("cmake", &["--version"]),
            Self::Compiler if cfg!(windows) => true, // Rust's own tool chain cannot link without it.
            Self::Compiler => {
                runs("cc", &["--version"])
                    && runs("c++", &["--version"])
                    && runs("make", &["--version"])
            }
            Self::Clang => runs("clang", &["--version"]) && runs("clang++", &["--version"]),
            Self::Libclang => libclang(&library_folders()),
            Self::Git => runs("git", &["--version"]),
            Self::Curl => runs("curl", &["--version"]),
            Self::Python => runs("python3", &["-c", "import venv, ensurepip"]),
            Self::Node => {
                node_version().is_some_and(|version| is_new_enough(&version))
                    && runs(
                        if cfg!(windows) { "npm.cmd" } else { "npm" },
                        &["--version"],
                    )
            }
            Self::Chromium => browser(),
            Self::Postgres => cfg!(windows) || postgres(), // Its tests are for Unix.
            // Its tests are for Linux.
            Self::Nftables => {
                !cfg!(target_os = "linux")
                    || runs("nft", &["--version"]) && runs("ip", &["-Version"])
            }
            Self::Faketime => !cfg!(target_os = "linux") || runs("faketime", &["--version"]),
            Self::RustTools => {
                runs("cargo", &["fmt", "--version"]) && runs("cargo", &["clippy", "--version"])
            }
        }
    }

    fn package(self, manager: Manager) -> &'static str {
        use Manager::*;
        match (self, manager) {
            (Self::Cmake, Winget) => "Kitware.CMake",
            (Self::Cmake, _) => "cmake",
            (Self::Compiler, Apt) => "build-essential",
            (Self::Compiler, Dnf | Zypper) => "gcc gcc-c++ make",
            (Self::Compiler, Pacman) => "base-devel",
            (Self::Compiler, Apk) => "build-base",
            (Self::Compiler, Brew) => "gcc make",
            (Self::Compiler, Winget) => "Microsoft.VisualStudio.2022.BuildTools",
            (Self::Clang | Self::Libclang, Brew) => "llvm",
            (Self::Clang | Self::Libclang, Winget) => "LLVM.LLVM",
            (Self::Clang, _) | (Self::Libclang, Pacman) => "clang",
            (Self::Libclang, Apt) => "libclang-dev",
            (Self::Libclang, Dnf | Zypper) => "clang-devel",
            (Self::Libclang, Apk) => "clang-dev clang-libclang",
            (Self::Python, Apt) => "python3-venv",
            (Self::Python, Pacman | Brew) => "python",
            (Self::Python, Winget) => "Python.Python.3.12",
            (Self::Python, _) => "python3",
            (Self::Git, Winget) => "Git.Git",
            (Self::Git, _) => "git",
            (Self::Curl, Winget) => "cURL.cURL",
            (Self::Curl, _) => "curl",
            (Self::Node, Brew) => "node",
            (Self::Node, Winget) => "OpenJS.NodeJS.LTS",
            (Self::Node, Zypper) => "nodejs-default npm-default",
            (Self::Node, _) => "nodejs npm",
            (Self::Chromium, Winget) => "Google.Chrome",
            (Self::Chromium, _) => "chromium",
            (Self::Postgres, Dnf | Zypper) => "postgresql-server postgresql",
            (Self::Postgres, Brew) => "postgresql@17",
            (Self::Postgres, Winget) => "PostgreSQL.PostgreSQL.17",
            (Self::Postgres, _) => "postgresql",
            (Self::Nftables | Self::Faketime, Brew | Winget) => "",
            (Self::Nftables, Dnf) => "nftables iproute",
            (Self::Nftables, _) => "nftables iproute2",
            (Self::Faketime, Apt) => "faketime",
            (Self::Faketime, _) => "libfaketime",
            (Self::RustTools, _) => "",
        }
    }
}

/// A system's package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
    Zypper,
    Apk,
    Brew,
    Winget,
}

impl Manager {
    const ALL: [(Self, &'static str, &'static str); 7] = [
        (
            Self::Apt,
            "apt-get",
            "sudo apt-get update && sudo apt-get install --yes",
        ),
        (Self::Dnf, "dnf", "sudo dnf install"),
        (Self::Pacman, "pacman", "sudo pacman -S --needed"),
        (Self::Zypper, "zypper", "sudo zypper install"),
        (Self::Apk, "apk", "sudo apk add"),
        (Self::Brew, "brew", "brew install"),
        (Self::Winget, "winget", "winget install"),
    ];

    fn of_this_machine() -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|(_, program, _)| runs(program, &["--version"]))
            .map(|(manager, ..)| manager)
    }

    fn packages(self, needs: &[Need]) -> Vec<&'static str> {
        let mut packages = Vec::new();
        for package in needs
            .iter()
            .flat_map(|need| need.package(self).split_whitespace())
        {
            if !packages.contains(&package) {
                packages.push(package);
            }
        }
        packages
    }

    fn install_line(self, needs: &[Need]) -> String {
        let (_, _, line) = Self::ALL[self as usize];
        format!("{line} {}", self.packages(needs).join(" "))
    }
}

/// Makes sure that all of it is here, or says what to do.
pub fn ensure(needs: &[Need]) -> Result<(), String> {
    let mut missing = lacking(needs);
    if missing.contains(&Need::RustTools) && runs("rustup", &["--version"]) {
        println!("  installing rustfmt and clippy");
        succeed(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))?;
        missing.retain(|need| !need.is_here());
    }
    if missing.is_empty() {
        return Ok(());
    }
    let manager = Manager::of_this_machine();
    if manager == Some(Manager::Apt) && is_root() {
        let packages = Manager::Apt.packages(&missing);
        println!(
            "  installing {} (a few minutes at most)",
            packages.join(" ")
        );
        apt(&["update", "--quiet"])?;
        let mut args = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
        args.extend(packages);
        apt(&args)?;
        missing = lacking(needs);
        if missing.is_empty() {
            return Ok(());
        }
    }
    let old_node = missing
        .contains(&Need::Node)
        .then(node_version)
        .flatten()
        .filter(|version| !is_new_enough(version));
    Err(advice(&missing, manager, old_node.as_deref()))
}

fn lacking(needs: &[Need]) -> Vec<Need> {
    needs
        .iter()
        .copied()
        .filter(|need| !need.is_here())
        .collect()
}

/// What to tell somebody whose machine lacks these; `old_node` is a version of Node.js that is here and too old.
fn advice(missing: &[Need], manager: Option<Manager>, old_node: Option<&str>) -> String {
    let names: Vec<&str> = missing.iter().map(|need| need.name()).collect();
    let mut advice = format!("missing: {}\n", names.join(", "));
    let (rust, system): (Vec<Need>, Vec<Need>) =
        missing.iter().partition(|need| **need == Need::RustTools);
    if !rust.is_empty() {
        advice += "install them with\n  rustup component add rustfmt clippy\n";
    }
    if !system.is_empty() {
        match manager {
            Some(manager) => {
                advice += &format!("install it with\n  {}\n", manager.install_line(&system));
            }
            None => advice += "install it with your system's package manager\n",
        }
    }
    if let Some(version) = old_node {
        advice += &format!(
            "Node.js {version} is here and too old: setting up the client tests needs {NODE_MAJOR}; where your system packages \
             none, https://nodejs.org/en/download does\n"
        );
    }
    advice + "and run the same command again"
}

fn apt(args: &[&str]) -> Result<(), String> {
    succeed(
        Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// As `node --version` says it, for example `v20.11.1`.
fn node_version() -> Option<String> {
    let output = Command::new("node").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| version.trim().to_owned())
}

fn is_new_enough(node_version: &str) -> bool {
    let major = node_version.trim_start_matches('v').split('.').next();
    major.is_some_and(|major| major.parse().is_ok_and(|major: u32| major >= NODE_MAJOR))
}

fn runs(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn browser() -> bool {
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "chrome",
    ];
    let applications = [
        "/Applications/Chromium.app",
        "/Applications/Google Chrome.app",
        "C:/Program Files/Google/Chrome/Application/chrome.exe",
    ];
    names.iter().any(|name| runs(name, &["--version"]))
        || applications.iter().any(|path| Path::new(path).exists())
}

/// The server, not only its client; Debian and its kin keep it off the path.
fn postgres() -> bool {
    let folders = [
        "/usr/lib/postgresql",
        "/usr/local/lib/postgresql",
        "/opt/homebrew/opt",
        "/usr/local/opt",
    ];
    let installed = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten();
    runs("initdb", &["--version"])
        || installed
            .into_iter()
            .any(|entry| entry.path().join("bin/initdb").is_file())
}

/// Where the bindings' generator looks for libclang.
fn library_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("LIBCLANG_PATH")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    folders.extend(
        [
            "/usr/lib",
            "/usr/lib64",
            "/usr/local/lib",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/Library/Developer/CommandLineTools/usr/lib",
            "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
            "/opt/homebrew/opt/llvm/lib",
            "/usr/local/opt/llvm/lib",
            "C:/Program Files/LLVM/bin",
        ]
        .map(PathBuf::from),
    );
    // Debian keeps each version in a folder of its own.
    for entry in std::fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with("llvm") {
            folders.push(entry.path().join("lib"));
            folders.push(entry.path().join("lib64"));
        }
    }
    folders
}

fn libclang(folders: &[PathBuf]) -> bool {
    let is_it = |name: &OsStr| {
        let name = name.to_string_lossy();
        (name.starts_with("libclang.") || name.starts_with("libclang-"))
            && [".so", ".dylib", ".dll"]
                .iter()
                .any(|end| name.ends_with(end) || name.contains(&format!("{end}.")))
            // The C++ library is another one.
            && !name.starts_with("libclang-cpp")
    };
    folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .any(|entry| is_it(&entry.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manager_has_a_line_that_names_every_package_once() {
        for (at, (manager, ..)) in Manager::ALL.into_iter().enumerate() {
            assert_eq!(manager as usize, at);
            let line = manager.install_line(&Need::ALL);
            let mut words: Vec<&str> = line
                .split("install")
                .last()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            let count = words.len();
            assert!(count >= 4, "{line}");
            words.sort_unstable();
            words.dedup();
            assert_eq!(words.len(), count, "{line}");
        }
        let line = Manager::Apt.install_line(&[Need::Cmake, Need::Libclang]);
        assert_eq!(
            line,
            "sudo apt-get update && sudo apt-get install --yes cmake libclang-dev"
        );
    }

    #[test]
    fn the_advice_names_only_what_is_missing() {
        let told = advice(&[Need::Clang], Some(Manager::Pacman), None);
        assert!(told.contains("sudo pacman -S --needed clang\n"), "{told}");
        assert!(
            !told.contains("cmake") && !told.contains("rustup"),
            "{told}"
        );
        let told = advice(&[Need::RustTools], Some(Manager::Apt), None);
        assert!(
            told.contains("rustup component add") && !told.contains("apt-get"),
            "{told}"
        );
        let told = advice(&[Need::Node], None, None);
        assert!(
            told.contains("Node.js 18 or newer with npm") && told.contains("package manager"),
            "{told}"
        );
        assert!(!told.contains("too old"), "{told}");
        let told = advice(&[Need::Node], Some(Manager::Apt), Some("v12.22.9"));
        assert!(
            told.contains("v12.22.9 is here and too old") && told.contains("nodejs.org"),
            "{told}"
        );
    }

    #[test]
    fn an_old_node_is_as_good_as_none() {
        assert!(is_new_enough("v18.0.0") && is_new_enough("v22.11.0") && is_new_enough("v100.1.0"));
        assert!(!is_new_enough("v12.22.9") && !is_new_enough("v9.9.9") && !is_new_enough("odd"));
        assert!(Need::Node.name().contains(&format!(" {NODE_MAJOR} ")));
    }

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        assert!(!runs("no-such-program-as-this", &[]));
        assert!(runs("cargo", &["--version"]));
        assert!(!libclang(&[PathBuf::from("no/such/folder")]));
    }

    #[test]
    fn libclang_is_told_from_its_neighbours() {
        let folder = std::env::temp_dir().join(format!("hearth-setup-{}", std::process::id()));
        let in_it = |names: &[&str]| {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).and_then(|()| {
                names
                    .iter()
                    .try_for_each(|name| std::fs::write(folder.join(name), ""))
            })?;
            let found = libclang(std::slice::from_ref(&folder));
            std::fs::remove_dir_all(&folder).map(|()| found)
        };
        assert!(in_it(&["libclang-14.so.1"]).is_ok_and(|found| found));
        assert!(in_it(&["libclang.dylib"]).is_ok_and(|found| found));
        assert!(
            in_it(&["libclang-cpp.so.14", "libclang.a", "libclangAST.so"])
                .is_ok_and(|found| !found)
        );
    }
}
