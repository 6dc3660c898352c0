//! The model inside this executable, so that the first run needs no download.
//!
//! llama.cpp maps model files, so the bytes are written once to `HEARTH_HOME/models/embedded/` under a name that
//! carries their hash: another version of Hearth writes another file, and never one that is mapped.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::failure::{ANOTHER_HOME, Failure, Outcome};

/// Name requests use for it.
pub const NAME: &str = "ember";

static BYTES: &[u8] = include_bytes!(env!("HEARTH_EMBED_PATH"));

/// Size of the model file in bytes.
pub fn size() -> u64 {
    BYTES.len() as u64
}

/// Where the file is, or will be, under this home.
pub fn path(home: &Path) -> PathBuf {
    home.join("models")
        .join("embedded")
        .join(concat!("ember-", env!("HEARTH_EMBED_HASH"), ".gguf"))
}

/// Makes sure that the file is there, whole, and returns its path.
pub fn materialise(home: &Path) -> Outcome<PathBuf> {
    let path = path(home);
    // Reading it costs a few milliseconds, and llama.cpp wants it in the page cache anyway.
    if std::fs::read(&path).is_ok_and(|there| there == BYTES) {
        return Ok(path);
    }
    write_atomically(&path, BYTES)?;
    Ok(path)
}

/// Writes a file that is either the old one or whole, whatever happens in between.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Outcome {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::file("create the folder", folder, &error, ANOTHER_HOME))?;
    // Two processes may do this at once; each writes a file of its own, and the renames agree.
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let partial = folder.join(format!(".{name}.{}", std::process::id()));
    let written = std::fs::File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        Failure::file("write", path, &error, ANOTHER_HOME)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn it_is_written_once_and_again_when_damaged() {
        let home = tempfile::tempdir().unwrap();
        let path = materialise(home.path()).unwrap();
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), BYTES);
        materialise(home.path()).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().modified().unwrap(),
            written,
            "a whole file was written again"
        );
        let mut damaged = BYTES.to_vec();
        damaged[BYTES.len() / 2] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        materialise(home.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), BYTES);
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "a partial file was left behind");
    }

    #[test]
    fn a_home_that_cannot_be_written_is_named_with_the_fix() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        std::fs::write(&home, "a file where the folder should be").unwrap();
        let failure = materialise(&home).unwrap_err();
        assert!(
            failure.message.contains(home.to_str().unwrap()),
            "{}",
            failure.message
        );
    }
}
