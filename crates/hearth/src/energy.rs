//! How much energy the processor took: its own counters (RAPL), where the system lets this process read them.

use std::path::{Path, PathBuf};

/// Counters of the processor's packages.
#[derive(Debug, Clone)]
pub struct Meter {
    packages: Vec<Package>,
}

#[derive(Debug, Clone)]
struct Package {
    counter: PathBuf,
    /// Where the counter begins anew, in microjoules.
    range: u64,
    at_start: u64,
}

impl Meter {
    /// Starts counting, or says why it cannot.
    pub fn start() -> Result<Self, String> {
        Self::start_in(Path::new("/sys/class/powercap"))
    }

    fn start_in(folder: &Path) -> Result<Self, String> {
        let entries = std::fs::read_dir(folder)
            .map_err(|_| "this system has no counters of energy".to_owned())?;
        let mut packages = Vec::new();
        for entry in entries.flatten() {
            // `intel-rapl:0` is a package (AMD's too); `intel-rapl:0:1` is a part of it.
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let number = name.strip_prefix("intel-rapl:");
            if !number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
                continue;
            }
            let counter = entry.path().join("energy_uj");
            let at_start = read(&counter).map_err(|error| {
                format!("{} cannot be read ({error}); root may", counter.display())
            })?;
            packages.push(Package {
                range: read(&entry.path().join("max_energy_range_uj")).unwrap_or(u64::MAX),
                counter,
                at_start,
            });
        }
        match packages.is_empty() {
            true => Err("this processor has no counters of energy".into()),
            false => Ok(Self { packages }),
        }
    }

    /// Joules since the start; `None` if a counter went away.
    pub fn joules(&self) -> Option<f64> {
        let spent = self.packages.iter().map(|package| {
            let now = read(&package.counter).ok()?;
            Some(match now.checked_sub(package.at_start) {
                Some(spent) => spent,
                None => package.range - package.at_start + now,
            })
        });
        let spent: Option<u64> = spent.sum();
        Some(spent? as f64 / 1e6)
    }
}

fn read(path: &Path) -> Result<u64, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.kind().to_string())?;
    text.trim()
        .parse()
        .map_err(|_| "it is no number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_added_up_and_a_counter_may_begin_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let put = |name: &str, file: &str, value: &str| {
            let place = folder.path().join(name);
            std::fs::create_dir_all(&place).expect("a folder");
            std::fs::write(place.join(file), value).expect("a file");
        };
        for (name, value) in [
            ("intel-rapl:0", "900000\n"),
            ("intel-rapl:1", "10"),
            ("intel-rapl:0:0", "5"),
        ] {
            put(name, "energy_uj", value);
            put(name, "max_energy_range_uj", "1000000");
        }
        let meter = Meter::start_in(folder.path()).expect("counters");
        put("intel-rapl:0", "energy_uj", "400000");
        put("intel-rapl:1", "energy_uj", "500010");
        assert_eq!(meter.joules(), Some(1.0));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let none = Meter::start_in(&folder.path().join("absent")).unwrap_err();
        assert!(none.contains("no counters"), "{none}");
        std::fs::create_dir(folder.path().join("intel-rapl:0")).expect("a folder");
        let denied = Meter::start_in(folder.path()).unwrap_err();
        assert!(denied.contains("energy_uj"), "{denied}");
    }
}
