//! Headers with mistakes in random places: the reader ends quickly, without a panic, and takes no memory for numbers
//! that the file merely claims.

use std::path::Path;
use std::time::{Duration, Instant};

use hearth_gguf::File;

use crate::writer::{Data, Gguf};

/// Changed files, over all that they are made from.
const CASES: usize = 20_000;
/// Longest a file may take, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most that the address space may grow. A header here has at most 64 KiB.
const GROWTH: u64 = 512 << 20;

/// SplitMix64 (Steele, Lea and Flood 2014): the same changes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// Numbers at which things go wrong.
const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    8,
    9,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 40,
    (1 << 62) + 1,
    i64::MAX as u64,
    u64::MAX,
];

/// One to four mistakes.
fn changed(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.insert(at, random.next() as u8),
            3 => drop(bytes.remove(at)),
            4 => bytes.truncate(at.max(1)),
            5 => {
                let width = 1 << random.below(4);
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let end = bytes.len().min(at + width);
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            _ => {
                let from = random.below(bytes.len());
                let length = random.below(64).min(bytes.len() - from);
                let piece = bytes[from..from + length].to_vec();
                bytes.splice(at..at, piece);
            }
        }
        if bytes.is_empty() {
            return bytes;
        }
    }
    bytes
}

/// The most address space this process had, in bytes; 0 where the system does not say.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.trim().parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}

#[test]
fn no_change_to_a_header_does_harm() {
    let mut originals = vec![
        Gguf::model().header(),
        Gguf::model()
            .with(
                "general.tags",
                Data::Array(9, vec![Data::texts(["a", "b"]); 2]),
            )
            .with("llama.expert_count", Data::U32(8))
            .with(
                "llama.expert_used_count",
                Data::Array(4, vec![Data::U32(2); 2]),
            )
            .with("split.count", Data::U16(3))
            .header(),
        Gguf::new()
            .with("general.architecture", Data::text("llama"))
            .with("general.type", Data::text("adapter"))
            .with("adapter.type", Data::text("lora"))
            .tensor("blk.0.attn_q.weight.lora_a", &[64, 8], 0)
            .header(),
    ];
    let ember = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/ember");
    for name in ["ember.gguf", "ember-draft.gguf"] {
        let mut bytes = std::fs::read(ember.join(name)).unwrap();
        let data = File::parse(&bytes).unwrap().data_offset();
        bytes.truncate(data as usize);
        originals.push(bytes);
    }
    let mut random = Random(20_260_203);
    let before = peak();
    let mut accepted = 0;
    for case in 0..CASES {
        let bytes = changed(&originals[case % originals.len()], &mut random);
        let start = Instant::now();
        match File::parse(&bytes) {
            Ok(file) => {
                accepted += 1;
                // What passed can be read to the end.
                for (_, value) in file.metadata() {
                    assert!(!value.to_string().contains('\n'));
                }
                let _ = (
                    file.tokens().count(),
                    file.kv_elements(),
                    file.parameters(),
                    file.quantisation(),
                );
            }
            Err(error) => {
                assert!(error.to_string().len() < 1000, "case {case}: {error}");
            }
        }
        assert!(start.elapsed() < PATIENCE, "case {case}");
    }
    let grown = peak().saturating_sub(before);
    assert!(grown < GROWTH, "the address space grew by {grown} bytes");
    println!("{accepted} of {CASES} were still sound");
}
