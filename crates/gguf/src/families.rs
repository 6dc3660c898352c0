//! Which architectures keep to which rules. The lists are those of the llama.cpp that Hearth is built with, which
//! ends the process where a model breaks a rule of its architecture; so no model that it runs is on a list wrongly.
//! An architecture that is on none is not held to these rules.

/// What holds for an architecture's heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A head's keys are as long as its values.
    pub same_lengths: bool,
    /// All elements of a head are rotated.
    pub wholly_rotated: bool,
    /// Every layer has KV heads.
    pub attends: bool,
    /// Positions rotate at least one pair of a head's elements.
    pub rotates: bool,
    /// Heads of layers with a window are as long as the others.
    pub uniform: bool,
    /// Keys and values are compressed to one vector for all heads where the file has `attention.key_length_mla`
    /// (multi-head latent attention, DeepSeek-V2).
    pub compresses: bool,
    /// The file must say how experts are weighed.
    pub needs_gate: bool,
}

impl Rules {
    /// The rules of an architecture.
    pub fn of(architecture: &str) -> Self {
        let wholly_rotated = WHOLLY_ROTATED.contains(&architecture);
        let same_lengths = wholly_rotated || SAME_LENGTHS.contains(&architecture);
        let attends =
            same_lengths && !HYBRID.contains(&architecture) || ATTENDING.contains(&architecture);
        Self {
            same_lengths,
            wholly_rotated,
            attends,
            rotates: attends || matches!(architecture, "lfm2" | "lfm2moe"),
            uniform: architecture == "gpt-oss",
            compresses: architecture == "deepseek2",
            needs_gate: matches!(architecture, "dots1" | "minimax-m2" | "smallthinker"),
        }
    }
}

/// Some layers of these have no attention.
const HYBRID: &[&str] = &[
    "deci",
    "granitehybrid",
    "minimax-01",
    "nemotron_h",
    "nemotron_h_moe",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "qwen4exp",
];

/// All layers of these have attention, though keys and values may differ in length.
const ATTENDING: &[&str] = &["gemma", "gemma2", "gemma3", "minicpm3"];

/// Keys as long as values.
const SAME_LENGTHS: &[&str] = &[
    "afmoe",
    "bailingmoe2",
    "bert",
    "bitnet",
    "bloom",
    "chatglm",
    "cohere2",
    "command-r",
    "eurobert",
    "glm4",
    "glm4moe",
    "gpt-oss",
    "gpt2",
    "gptneox",
    "granitehybrid",
    "jais",
    "laguna",
    "maple",
    "minimax-01",
    "minimax-m2",
    "minimax-m3",
    "modern-bert",
    "mpt",
    "muse-glimmer",
    "nanbeige",
    "nemotron",
    "nemotron_h",
    "nemotron_h_moe",
    "neo-bert",
    "openelm",
    "phi2",
    "phi3",
    "qwen",
    "qwen35",
    "qwen35moe",
    "qwen3next",
    "qwen4exp",
    "refact",
    "spark2_5",
    "stablelm",
    "starcoder",
];

/// That, and positions rotate whole heads.
const WHOLLY_ROTATED: &[&str] = &[
    "apertus",
    "arcee",
    "arctic",
    "baichuan",
    "chameleon",
    "codeshell",
    "cogvlm",
    "cohere2moe",
    "dbrx",
    "deci",
    "deepseek",
    "dots1",
    "dream",
    "ernie4_5",
    "ernie4_5-moe",
    "exaone",
    "exaone-moe",
    "exaone4",
    "falcon",
    "granite",
    "granite_swa",
    "graniteswitch",
    "grok",
    "grovemoe",
    "hunyuan-moe",
    "hunyuan_vl",
    "hy_v3",
    "internlm2",
    "jais2",
    "llada",
    "llada-moe",
    "llama",
    "llama4",
    "maincoder",
    "mellum",
    "mistral3",
    "olmo",
    "olmo2",
    "olmoe",
    "orion",
    "paddleocr",
    "pangu-embedded",
    "plamo",
    "pockettts",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "qwen3vl",
    "qwen3vlmoe",
    "rnd1",
    "seed_oss",
    "smallthinker",
    "smollm3",
    "starcoder2",
    "talkie",
    "xverse",
];
