//! Compiles ggml's CPU code once per processor family, for `src/cpu.rs` to choose from at run time.
//!
//! llama-cpp-sys-2 builds that code once, for AVX2 on x86-64. llama.cpp's own answer, one shared library per family,
//! would make the program more than one file. Here each family's objects become one relocatable object in which every
//! symbol but its entry point is local, so any number of them can be linked into one executable. The compiler calls
//! are those that built the baseline (CMake's `compile_commands.json`), with the family's flags added: sources,
//! definitions and optimisation cannot drift from the baseline.
//!
//! Two compilers are used on purpose, measured with GCC 12.2 and clang 14: clang's code for the interleaved Q4_K
//! kernels is 1.2 to 1.5 times as fast, GCC's for the F16 kernels twice. GCC 12.2 miscompiles ggml's AMX tile set-up
//! (`_tile_loadconfig`), and quantised models crash, so AMX is compiled by clang or left out. `relax.h` lets waiting
//! compute threads give way on a busy machine.
//!
//! Without clang the families that need it are left out; without GNU binutils, or on another system, all of them. The
//! engine then runs the baseline: slower, never wrong.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

/// One processor family. Names and requirements are repeated in `src/cpu.rs`, which detects them.
struct Variant {
    name: &'static str,
    /// Added to the baseline's; blanks separate them.
    flags: &'static [&'static str],
    /// Without clang its code would be wrong.
    needs_clang: bool,
}

const AVX512: &str = "-mavx512f -mavx512cd -mavx512vl -mavx512dq -mavx512bw -DGGML_AVX512";
const AVX512_VNNI: &str = "-mavx512vnni -DGGML_AVX512_VNNI";
const AVX512_BF16: &str = "-mavx512bf16 -DGGML_AVX512_BF16";
// The `__AMX…__` macros are what ggml asks for; clang 14 has only `__AMXINT8__` and would leave the code out in silence.
const AMX: &str =
    "-mamx-tile -DGGML_AMX_TILE -D__AMX_TILE__=1 -mamx-int8 -DGGML_AMX_INT8 -D__AMX_INT8__=1";

const X86_64: &[Variant] = &[
    Variant {
        name: "haswell",
        flags: &[],
        needs_clang: false,
    },
    Variant {
        name: "alderlake",
        flags: &["-mavxvnni -DGGML_AVX_VNNI"],
        needs_clang: false,
    },
    Variant {
        name: "cascadelake",
        flags: &[AVX512, AVX512_VNNI],
        needs_clang: false,
    },
    Variant {
        name: "zen4",
        flags: &[AVX512, AVX512_VNNI, AVX512_BF16],
        needs_clang: false,
    },
    Variant {
        name: "sapphirerapids",
        flags: &[AVX512, AVX512_VNNI, AVX512_BF16, AMX],
        needs_clang: true,
    },
];

const AARCH64: &[Variant] = &[
    Variant {
        name: "dotprod",
        flags: &["-march=armv8.2-a+dotprod+fp16"],
        needs_clang: false,
    },
    Variant {
        name: "i8mm",
        flags: &["-march=armv8.2-a+dotprod+fp16+i8mm"],
        needs_clang: false,
    },
];

/// Sources, relative to ggml-cpu's folder, that clang compiles where it is there (see the top of this file).
const BY_CLANG: [&str; 5] = [
    "arch/x86/repack.cpp",
    "tiled/tiled.cpp",
    "tiled/tiled-kernel.cpp",
    "amx/amx.cpp",
    "amx/mmq.cpp",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=relax.h");
    let names: Vec<String> = X86_64
        .iter()
        .chain(AARCH64)
        .map(|variant| format!("\"{}\"", variant.name))
        .collect();
    println!(
        "cargo:rustc-check-cfg=cfg(hearth_cpu, values({}))",
        names.join(", ")
    );

    let variants = match (
        variable("CARGO_CFG_TARGET_OS").as_str(),
        variable("CARGO_CFG_TARGET_ARCH").as_str(),
    ) {
        ("linux", "x86_64") => X86_64,
        ("linux", "aarch64") => AARCH64,
        _ => return,
    };
    // A cross build would need the target's binutils under names that cannot be known here.
    if variable("HOST") != variable("TARGET") {
        return;
    }
    if let Err(reason) = build(variants) {
        println!("cargo:warning=only the baseline CPU code is built: {reason}");
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// Compiles, joins and archives every variant and tells rustc their names.
fn build(variants: &[Variant]) -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")).join("cpu");
    let cmake = cmake_build_folder()?;
    let baseline = baseline_commands(&cmake)?;
    let ccache = cache_entry(&cmake, "GGML_CCACHE_FOUND").filter(|path| Path::new(path).is_file());
    let clang = runs("clang") && runs("clang++");

    let chosen: Vec<&Variant> = variants
        .iter()
        .filter(|variant| clang || !variant.needs_clang)
        .collect();
    if !clang {
        println!(
            "cargo:warning=clang was not found: no AMX code is built, and Q4_K models run slower; install clang"
        );
    }
    let mut calls = Vec::new();
    for variant in &chosen {
        let folder = out.join(variant.name);
        // Objects of an earlier llama.cpp must not be linked in with today's.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        calls.extend(
            baseline
                .iter()
                .map(|source| source.compile(variant, &folder, clang, ccache.as_deref())),
        );
    }
    run_all(calls)?;

    let mut objects = Vec::new();
    for variant in &chosen {
        objects.push(localise(variant.name, &out)?);
    }
    let archive = out.join("libhearth_cpu.a");
    let _ = fs::remove_file(&archive);
    run(Command::new("ar").arg("crs").arg(&archive).args(&objects))?;
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=hearth_cpu");
    for variant in &chosen {
        println!("cargo:rustc-cfg=hearth_cpu=\"{}\"", variant.name);
    }
    Ok(())
}

/// The folder CMake built llama.cpp in. The sys crate publishes only where it installed its package files, which is
/// `OUT_DIR/lib/cmake`; the build lies beside it in `OUT_DIR/build`.
fn cmake_build_folder() -> Result<PathBuf, String> {
    let package = PathBuf::from(variable("DEP_LLAMA_GGML_CMAKE_DIR"));
    let folder = package
        .ancestors()
        .nth(2)
        .map(|out| out.join("build"))
        .unwrap_or_default();
    match folder.join("compile_commands.json").is_file() {
        true => Ok(folder),
        false => Err(format!("no compile_commands.json in {}", folder.display())),
    }
}

/// Value of `name` in CMake's cache.
fn cache_entry(cmake: &Path, name: &str) -> Option<String> {
    let cache = fs::read_to_string(cmake.join("CMakeCache.txt")).ok()?;
    let line = cache.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(':'))
    })?;
    line.split_once('=').map(|(_, value)| value.to_owned())
}

/// How one source of the baseline was compiled.
struct Source {
    /// Relative to ggml-cpu's folder, with `/`.
    name: String,
    folder: PathBuf,
    compiler: String,
    /// Without the compiler and `-o FILE`.
    arguments: Vec<String>,
}

impl Source {
    fn compile(
        &self,
        variant: &Variant,
        into: &Path,
        clang: bool,
        ccache: Option<&str>,
    ) -> Command {
        let by_clang = clang && BY_CLANG.contains(&self.name.as_str());
        let compiler = match (by_clang, self.name.ends_with(".c")) {
            (true, true) => "clang",
            (true, false) => "clang++",
            (false, _) => &self.compiler,
        };
        let mut command = match ccache {
            Some(ccache) => Command::new(ccache),
            None => Command::new(compiler),
        };
        if ccache.is_some() {
            command.arg(compiler);
        }
        command
            .current_dir(&self.folder)
            .args(&self.arguments)
            .args(variant.flags.iter().flat_map(|flags| flags.split(' ')));
        // GCC gives statics of templates a binding that objcopy cannot make local; clang does not know the flag.
        if !by_clang && !self.compiler.contains("clang") {
            command.arg("-fno-gnu-unique");
        }
        if self.name == "ggml-cpu.c" && variable("CARGO_CFG_TARGET_ARCH") == "x86_64" {
            command
                .arg("-include")
                .arg(Path::new(&variable("CARGO_MANIFEST_DIR")).join("relax.h"));
        }
        // The whole name: `ggml-cpu.c` and `ggml-cpu.cpp` are two sources.
        command
            .arg("-o")
            .arg(into.join(format!("{}.o", self.name.replace('/', "_"))));
        command
    }
}

/// The compiler calls that made `libggml-cpu.a`.
fn baseline_commands(cmake: &Path) -> Result<Vec<Source>, String> {
    let path = cmake.join("compile_commands.json");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let entries: Value =
        serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut sources = Vec::new();
    for entry in entries.as_array().into_iter().flatten() {
        let field = |name: &str| entry[name].as_str().unwrap_or_default();
        let Some((_, name)) = field("file").split_once("/ggml/src/ggml-cpu/") else {
            continue;
        };
        let mut words = words(field("command")).into_iter();
        let compiler = words.next().ok_or("an empty compiler call")?;
        let mut arguments = Vec::new();
        while let Some(word) = words.next() {
            match word == "-o" {
                true => drop(words.next()),
                false => arguments.push(word),
            }
        }
        sources.push(Source {
            name: name.to_owned(),
            folder: field("directory").into(),
            compiler,
            arguments,
        });
    }
    match sources.is_empty() {
        true => Err(format!("{} names no source of ggml-cpu", path.display())),
        false => Ok(sources),
    }
}

/// Splits a shell command as CMake writes it: blanks between words, `"` around and `\` before what is literal.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut characters) = (false, command.chars());
    while let Some(character) = characters.next() {
        let last = words.len() - 1;
        match character {
            '\\' => words[last].extend(characters.next()),
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words[last].push(character),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Makes one object of a variant's, in which only `hearth_cpu_NAME` is visible from outside.
fn localise(name: &str, out: &Path) -> Result<PathBuf, String> {
    let folder = out.join(name);
    let mut parts: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    parts.sort();
    let object = out.join(format!("{name}.o"));
    // Section groups are dissolved: the linker would otherwise keep only one variant's copy of an inline function,
    // and the code of another family would call it.
    run(Command::new("ld")
        .args(["-r", "--force-group-allocation", "-o"])
        .arg(&object)
        .args(&parts))?;
    run(Command::new("objcopy")
        .arg(format!(
            "--redefine-sym=ggml_backend_cpu_reg=hearth_cpu_{name}"
        ))
        .arg(format!("--keep-global-symbol=hearth_cpu_{name}"))
        .arg(&object))?;
    Ok(object)
}

/// Runs compiler calls, as many at a time as cargo allows.
fn run_all(calls: Vec<Command>) -> Result<(), String> {
    let threads = variable("NUM_JOBS")
        .parse()
        .unwrap_or(1)
        .clamp(1, calls.len().max(1));
    let calls: Vec<std::sync::Mutex<Command>> = calls.into_iter().map(Into::into).collect();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<(), String> {
        while let Some(call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut call = call.lock().map_err(|_| "a compiler thread panicked")?;
            run(&mut call).inspect_err(|_| next.store(calls.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a compiler thread panicked")?)
    })
}

fn runs(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said
        .lines()
        .find(|line| line.contains("error"))
        .or(said.lines().next())
        .unwrap_or("no message");
    Err(format!(
        "{} failed: {first}",
        command.get_program().display()
    ))
}
