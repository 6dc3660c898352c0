//! AMX: products of whole tiles of bytes, 16 rows by 64, summed into tiles of 16 × 16 integers.
//!
//! The intrinsics are not stable, so the instructions are written out. Linux lets a process use the tile registers only
//! after it asked.

use std::arch::asm;

use super::{Routines, avx512, even_parts};
use crate::lanes::{Lane, Lanes};
use crate::linear::{Affine, Linear, PANEL, Rows};

pub(super) static ROUTINES: Routines = Routines {
    product: product::<false>,
    sums: product::<true>,
    ..avx512::ROUTINES
};

/// Whether processor and operating system have AMX for bytes.
pub(super) fn runs_here() -> bool {
    detected() && permitted()
}

#[allow(
    unused_unsafe,
    reason = "`__cpuid_count` became safe after the oldest supported compiler"
)]
fn detected() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    const OSXSAVE: u32 = 1 << 27;
    // SAFETY: this is asked only of processors with AVX-512, which have these leaves.
    let (basic, features) = unsafe { (__cpuid(1), __cpuid_count(7, 0)) };
    if basic.ecx & OSXSAVE == 0 || features.edx & TILE_AND_INT8 != TILE_AND_INT8 {
        return false;
    }
    // SAFETY: the operating system has enabled XGETBV, as was just read.
    let states = unsafe { extended_states() };
    states & TILE_STATE == TILE_STATE
}

/// Register sets that the operating system saves and restores.
#[target_feature(enable = "xsave")]
#[allow(unused_unsafe, reason = "as for `detected`")]
fn extended_states() -> u64 {
    // SAFETY: register 0 exists wherever XGETBV does.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

/// Asks Linux for the tile registers, for all threads of this process (`Documentation/arch/x86/xstate.rst`).
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: a system call with two numbers that touches no memory of ours; it overwrites the registers named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// What `ldtilecfg` reads: the shape of each tile.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Integers of one tile.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([[i32; PANEL]; 16]);

/// Rows of a tile.
const ROWS: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
fn product<const SUMS: bool>(
    layer: &Linear,
    rows: Rows<'_>,
    out: &mut [Lane],
    _space: &mut Vec<i16>,
) {
    let panels = layer.panels();
    let mut tiles = [Tile([[0; PANEL]; 16]); 4];
    for (row, count) in even_parts(rows.affine.len(), 2 * ROWS) {
        if count == 0 {
            continue;
        }
        // Sixteen rows or fewer meet four panels at a time, more are two tiles that meet two panels.
        let two = count > ROWS;
        let upper = if two { count.div_ceil(2) } else { count };
        let lower = if two { count - upper } else { count };
        configure(two, upper, lower);
        let step = if two { 2 } else { 4 };
        for first in (0..panels).step_by(step) {
            // Panels beyond the last repeat it, and are not read afterwards.
            let panel = |at: usize| (first + at).min(panels - 1);
            if two {
                two_by_two(
                    layer,
                    rows,
                    [row, row + upper],
                    [panel(0), panel(1)],
                    &mut tiles,
                );
            } else {
                one_by_four(layer, rows, row, std::array::from_fn(panel), &mut tiles);
            }
            for at in 0..step.min(panels - first) {
                for r in 0..count {
                    let tile = match (two, r < upper) {
                        (false, _) => &tiles[at].0[r],
                        (true, true) => &tiles[at].0[r],
                        (true, false) => &tiles[2 + at].0[r - upper],
                    };
                    let to = &mut out[(row + r) * panels + first + at];
                    finish::<SUMS>(layer, first + at, rows.affine[row + r], tile, to);
                }
            }
        }
    }
    // SAFETY: gives the tile registers back; nobody else uses them.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Shapes for `two_by_two` (`upper` and `lower` rows), or for `one_by_four` (`upper` rows).
fn configure(two: bool, upper: usize, lower: usize) {
    let (upper, lower) = (upper as u8, lower as u8);
    let rows = if two {
        [upper, upper, lower, lower, upper, lower, 16, 16]
    } else {
        [upper, upper, upper, upper, upper, 16, 16, 16]
    };
    let mut shapes = Shapes {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    shapes.row_bytes[..8].fill(64);
    shapes.rows[..8].copy_from_slice(&rows);
    // SAFETY: 64 bytes in the documented form: palette 1, eight tiles of at most 16 rows of 64 bytes. Called only where
    // the processor has AMX and the process may use it.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly));
    }
}

/// Two tiles of rows times two panels: tiles 0 and 1 are the upper rows', 2 and 3 the lower rows'.
fn two_by_two(
    layer: &Linear,
    rows: Rows<'_>,
    row: [usize; 2],
    panel: [usize; 2],
    tiles: &mut [Tile; 4],
) {
    let lines = layer.row_lines();
    let upper = rows.lines[row[0] * lines..].as_ptr();
    let lower = rows.lines[row[1] * lines..].as_ptr();
    let [left, right] = panel.map(|at| layer.lines[at * layer.groups..].as_ptr());
    // SAFETY: `configure` made tile 4 as many rows as lie between `upper` and `lower`, and tile 5 as many as follow
    // within `rows`; each row is `lines` lines long, which is the stride and the number of rounds. Tiles 6 and 7 read
    // sixteen lines of a panel in each of `lines` rounds, and a panel has sixteen times as many. The four results are
    // 1 KiB each. Nothing else uses the tile registers.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{left} + {line}]",
            "tileloadd tmm4, [{upper} + {stride}]",
            "tileloadd tmm7, [{right} + {line}]",
            "tileloadd tmm5, [{lower} + {stride}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tdpbusd tmm1, tmm4, tmm7",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {upper}, 64",
            "add {lower}, 64",
            "add {left}, 1024",
            "add {right}, 1024",
            "dec {rounds}",
            "jnz 2b",
            "tilestored [{to} + {line}], tmm0",
            "tilestored [{to} + {line} + 1024], tmm1",
            "tilestored [{to} + {line} + 2048], tmm2",
            "tilestored [{to} + {line} + 3072], tmm3",
            upper = inout(reg) upper => _,
            lower = inout(reg) lower => _,
            left = inout(reg) left => _,
            right = inout(reg) right => _,
            rounds = inout(reg) lines => _,
            stride = in(reg) lines * 64,
            line = in(reg) 64usize,
            to = in(reg) tiles.as_mut_ptr(),
            options(nostack),
        );
    }
}

/// One tile of rows times four panels, one tile of results for each.
fn one_by_four(
    layer: &Linear,
    rows: Rows<'_>,
    row: usize,
    panel: [usize; 4],
    tiles: &mut [Tile; 4],
) {
    let lines = layer.row_lines();
    let values = rows.lines[row * lines..].as_ptr();
    let [a, b, c, d] = panel.map(|at| layer.lines[at * layer.groups..].as_ptr());
    // SAFETY: as in `two_by_two`, with one tile of rows and four panels; tile 5 holds the first panel and then the last.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{values} + {stride}]",
            "tileloadd tmm5, [{a} + {line}]",
            "tileloadd tmm6, [{b} + {line}]",
            "tileloadd tmm7, [{c} + {line}]",
            "tdpbusd tmm0, tmm4, tmm5",
            "tileloadd tmm5, [{d} + {line}]",
            "tdpbusd tmm1, tmm4, tmm6",
            "tdpbusd tmm2, tmm4, tmm7",
            "tdpbusd tmm3, tmm4, tmm5",
            "add {values}, 64",
            "add {a}, 1024",
            "add {b}, 1024",
            "add {c}, 1024",
            "add {d}, 1024",
            "dec {rounds}",
            "jnz 2b",
            "tilestored [{to} + {line}], tmm0",
            "tilestored [{to} + {line} + 1024], tmm1",
            "tilestored [{to} + {line} + 2048], tmm2",
            "tilestored [{to} + {line} + 3072], tmm3",
            values = inout(reg) values => _,
            a = inout(reg) a => _,
            b = inout(reg) b => _,
            c = inout(reg) c => _,
            d = inout(reg) d => _,
            rounds = inout(reg) lines => _,
            stride = in(reg) lines * 64,
            line = in(reg) 64usize,
            to = in(reg) tiles.as_mut_ptr(),
            options(nostack),
        );
    }
}

/// From `Σ u·q` of a row and a panel to what the layer gives, or to the bits of the exact sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
fn finish<const SUMS: bool>(
    layer: &Linear,
    panel: usize,
    affine: Affine,
    sums: &[i32; PANEL],
    out: &mut Lane,
) {
    let totals = &layer.sums[panel];
    let exact: [i32; PANEL] = std::array::from_fn(|column| {
        sums[column].wrapping_sub(totals[column].wrapping_mul(affine.zero))
    });
    *out = if SUMS {
        Lane(exact.map(|sum| f32::from_bits(sum as u32)))
    } else {
        let scale = <avx512::Wide as Lanes>::splat(affine.scale)
            .mul(avx512::Wide::load(&layer.scales[panel]));
        let floats = Lane(exact.map(|sum| sum as f32));
        let mut result = Lane::ZERO;
        avx512::Wide::load(&floats)
            .mul_add(scale, avx512::Wide::load(&layer.bias[panel]))
            .store(&mut result);
        result
    };
}
