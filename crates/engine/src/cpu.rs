//! Chooses the CPU code for this machine, once per process and before any model is loaded.
//!
//! `build.rs` links ggml's CPU backend into the program several times, each compiled for one processor family; see
//! there for how and why. Every copy is a complete backend with an entry point of its own. The best one the processor
//! can run replaces the baseline in ggml's registry, and all of llama.cpp then uses it.

use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

/// Name of the code that llama-cpp-sys-2 itself was built with.
const BASELINE: &str = "baseline";

/// The CPU backend compiled for one processor family.
struct Variant {
    name: &'static str,
    /// Whether this processor, under this operating system, has every instruction the code may contain.
    runs_here: fn() -> bool,
    entry: unsafe extern "C" fn() -> sys::ggml_backend_reg_t,
}

// SAFETY: each is `ggml_backend_cpu_reg` of ggml-cpu.h, renamed by `build.rs`, which also sets the cfg.
#[allow(unsafe_code)]
unsafe extern "C" {
    #[cfg(hearth_cpu = "haswell")]
    fn hearth_cpu_haswell() -> sys::ggml_backend_reg_t;
    #[cfg(hearth_cpu = "alderlake")]
    fn hearth_cpu_alderlake() -> sys::ggml_backend_reg_t;
    #[cfg(hearth_cpu = "cascadelake")]
    fn hearth_cpu_cascadelake() -> sys::ggml_backend_reg_t;
    #[cfg(hearth_cpu = "zen4")]
    fn hearth_cpu_zen4() -> sys::ggml_backend_reg_t;
    #[cfg(hearth_cpu = "sapphirerapids")]
    fn hearth_cpu_sapphirerapids() -> sys::ggml_backend_reg_t;
    #[cfg(hearth_cpu = "dotprod")]
    fn hearth_cpu_dotprod() -> sys::ggml_backend_reg_t;
    #[cfg(hearth_cpu = "i8mm")]
    fn hearth_cpu_i8mm() -> sys::ggml_backend_reg_t;
}

/// The variants in this build, the most capable first.
const VARIANTS: &[Variant] = &[
    #[cfg(hearth_cpu = "sapphirerapids")]
    Variant {
        name: "sapphirerapids",
        runs_here: x86::amx,
        entry: hearth_cpu_sapphirerapids,
    },
    #[cfg(hearth_cpu = "zen4")]
    Variant {
        name: "zen4",
        runs_here: x86::avx512_bf16,
        entry: hearth_cpu_zen4,
    },
    #[cfg(hearth_cpu = "cascadelake")]
    Variant {
        name: "cascadelake",
        runs_here: x86::avx512_vnni,
        entry: hearth_cpu_cascadelake,
    },
    #[cfg(hearth_cpu = "alderlake")]
    Variant {
        name: "alderlake",
        runs_here: x86::avx_vnni,
        entry: hearth_cpu_alderlake,
    },
    #[cfg(hearth_cpu = "haswell")]
    Variant {
        name: "haswell",
        runs_here: x86::avx2,
        entry: hearth_cpu_haswell,
    },
    #[cfg(hearth_cpu = "i8mm")]
    Variant {
        name: "i8mm",
        runs_here: arm::i8mm,
        entry: hearth_cpu_i8mm,
    },
    #[cfg(hearth_cpu = "dotprod")]
    Variant {
        name: "dotprod",
        runs_here: arm::dotprod,
        entry: hearth_cpu_dotprod,
    },
];

/// Names that [`select_forced`] takes on this machine, the best first; the last is the baseline.
pub(crate) fn available() -> impl Iterator<Item = &'static str> {
    VARIANTS
        .iter()
        .filter(|variant| (variant.runs_here)())
        .map(|variant| variant.name)
        .chain([BASELINE])
}

/// Puts the best variant into ggml's registry and returns its name. Later calls return what the first one chose.
pub(crate) fn select() -> &'static str {
    choose(|| VARIANTS.iter().find(|variant| (variant.runs_here)()))
}

/// Like [`select`], with a variant named by the owner of the machine. The choice is the process's: once it is made,
/// asking for another is an error.
pub(crate) fn select_forced(name: Option<&str>) -> Result<&'static str, String> {
    let Some(name) = name else {
        return Ok(select());
    };
    if !available().any(|known| known == name) {
        let known: Vec<_> = available().collect();
        return Err(format!(
            "CPU code `{name}` is not available on this machine; choose one of: {}",
            known.join(", ")
        ));
    }
    let chosen = choose(|| VARIANTS.iter().find(|variant| variant.name == name));
    match chosen == name {
        true => Ok(chosen),
        false => Err(format!(
            "CPU code `{name}` cannot be used: this process already runs `{chosen}`"
        )),
    }
}

/// Makes the choice if it is not made yet. `None` is the baseline.
fn choose(variant: impl FnOnce() -> Option<&'static Variant>) -> &'static str {
    static CHOSEN: OnceLock<&'static str> = OnceLock::new();
    CHOSEN.get_or_init(|| register(variant()))
}

fn register(variant: Option<&Variant>) -> &'static str {
    let Some(variant) = variant else {
        return BASELINE;
    };
    // SAFETY: the entry point takes nothing and returns a static; the processor can run its code (`runs_here`). The
    // registry's CPU entry is a static of the baseline's. Nothing uses it yet: this happens once, before any model.
    #[allow(unsafe_code)]
    unsafe {
        let baseline = sys::ggml_backend_reg_by_name(c"CPU".as_ptr());
        if !baseline.is_null() {
            sys::ggml_backend_unload(baseline);
        }
        sys::ggml_backend_register((variant.entry)());
    }
    variant.name
}

/// What each x86-64 variant was compiled for. `is_x86_feature_detected` also asks whether the operating system saves
/// the registers.
#[cfg(target_arch = "x86_64")]
#[allow(
    dead_code,
    reason = "which of these are used depends on the variants built"
)]
mod x86 {
    use std::arch::is_x86_feature_detected as has;

    pub(super) fn avx2() -> bool {
        has!("avx2") && has!("fma") && has!("f16c") && has!("bmi2")
    }

    pub(super) fn avx_vnni() -> bool {
        avx2() && has!("avxvnni")
    }

    pub(super) fn avx512_vnni() -> bool {
        let avx512 = has!("avx512f")
            && has!("avx512cd")
            && has!("avx512vl")
            && has!("avx512dq")
            && has!("avx512bw");
        avx2() && avx512 && has!("avx512vnni")
    }

    pub(super) fn avx512_bf16() -> bool {
        avx512_vnni() && has!("avx512bf16")
    }

    /// The standard library cannot ask for AMX yet. The permission to use the tile registers is asked for by ggml
    /// itself (`ggml_amx_init`), which works on without AMX where it is refused.
    #[allow(
        unsafe_code,
        unused_unsafe,
        reason = "`__cpuid_count` became safe after the oldest supported compiler"
    )]
    pub(super) fn amx() -> bool {
        const AMX_TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
        const TILE_STATE: u64 = 1 << 17 | 1 << 18;
        if !avx512_bf16() {
            return false;
        }
        // SAFETY: every processor with AVX-512 has CPUID leaf 7.
        let features = unsafe { std::arch::x86_64::__cpuid_count(7, 0) };
        // SAFETY: and it has XGETBV, or the operating system could not have enabled AVX-512.
        let states = unsafe { extended_states() };
        features.edx & AMX_TILE_AND_INT8 == AMX_TILE_AND_INT8 && states & TILE_STATE == TILE_STATE
    }

    /// Register sets that the operating system saves and restores.
    #[target_feature(enable = "xsave")]
    #[allow(unsafe_code, unused_unsafe, reason = "as for `amx`")]
    fn extended_states() -> u64 {
        // SAFETY: register 0 exists wherever XGETBV does.
        unsafe { std::arch::x86_64::_xgetbv(0) }
    }
}

/// What each 64-bit ARM variant was compiled for.
#[cfg(target_arch = "aarch64")]
#[allow(
    dead_code,
    reason = "which of these are used depends on the variants built"
)]
mod arm {
    use std::arch::is_aarch64_feature_detected as has;

    pub(super) fn dotprod() -> bool {
        has!("dotprod") && has!("fp16")
    }

    pub(super) fn i8mm() -> bool {
        dotprod() && has!("i8mm")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// The build left nothing out that this machine could use, and the registry really holds the choice.
    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn the_registry_holds_the_best_code_for_this_processor() {
        let expected = match () {
            () if x86::amx() => "sapphirerapids",
            () if x86::avx512_bf16() => "zen4",
            () if x86::avx512_vnni() => "cascadelake",
            () if x86::avx_vnni() => "alderlake",
            () => "haswell",
        };
        assert_eq!(
            select(),
            expected,
            "is clang installed? It is needed for some variants"
        );
        // SAFETY: reads the registry after `select` is done with it.
        #[allow(unsafe_code)]
        let (registered, count, baseline) = unsafe {
            (
                sys::ggml_backend_reg_by_name(c"CPU".as_ptr()),
                sys::ggml_backend_reg_count(),
                sys::ggml_backend_cpu_reg(),
            )
        };
        assert!(!registered.is_null());
        assert_ne!(registered, baseline, "the baseline is still registered");
        assert_eq!(count, 1, "the baseline and the choice are both registered");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_work() {
        let message = select_forced(Some("i386")).unwrap_err();
        assert!(
            message.contains("i386") && message.contains(BASELINE),
            "{message}"
        );
    }

    #[test]
    fn the_choice_is_made_once() {
        let chosen = select();
        assert_eq!(select(), chosen);
        assert_eq!(select_forced(None), Ok(chosen));
        assert_eq!(select_forced(Some(chosen)), Ok(chosen));
        if chosen != BASELINE {
            assert!(select_forced(Some(BASELINE)).is_err());
        }
    }
}
