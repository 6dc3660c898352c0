//! The tensor table: names, shapes, types and places.

use std::fmt;

/// An entry of the tensor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Name (`blk.0.attn_q.weight`), at most 63 bytes.
    pub name: String,
    /// Lengths of up to four dimensions, the row's first; empty for a single number.
    pub shape: Vec<u64>,
    /// How its elements are stored.
    pub kind: TensorType,
    /// Where its data start, in bytes from the beginning of the file's data ([`crate::File::data_offset`]).
    pub offset: u64,
    /// Bytes of its data.
    pub bytes: u64,
}

impl Tensor {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        // The product was checked when the table was read.
        self.shape.iter().product()
    }
}

macro_rules! tensor_types {
    ($($variant:ident $id:literal $name:literal $block:literal $bytes:literal;)*) => {
        /// How a tensor's elements are stored (`ggml_type`). Quantised types store whole blocks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, missing_docs)]
        pub enum TensorType { $($variant,)* }

        impl TensorType {
            /// The type with that number in a file; `None` for one unknown or withdrawn.
            pub fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// Its usual name (`Q4_K`).
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Elements of a block, and bytes they take.
            pub fn block(self) -> (u64, u64) {
                match self { $(Self::$variant => ($block, $bytes),)* }
            }
        }
    };
}

// Elements and bytes of a block follow from each type's layout in ggml: scales, minima and packed integers.
tensor_types! {
    F32 0 "F32" 1 4;
    F16 1 "F16" 1 2;
    Q4_0 2 "Q4_0" 32 18;
    Q4_1 3 "Q4_1" 32 20;
    Q5_0 6 "Q5_0" 32 22;
    Q5_1 7 "Q5_1" 32 24;
    Q8_0 8 "Q8_0" 32 34;
    Q8_1 9 "Q8_1" 32 36;
    Q2_K 10 "Q2_K" 256 84;
    Q3_K 11 "Q3_K" 256 110;
    Q4_K 12 "Q4_K" 256 144;
    Q5_K 13 "Q5_K" 256 176;
    Q6_K 14 "Q6_K" 256 210;
    Q8_K 15 "Q8_K" 256 292;
    IQ2_XXS 16 "IQ2_XXS" 256 66;
    IQ2_XS 17 "IQ2_XS" 256 74;
    IQ3_XXS 18 "IQ3_XXS" 256 98;
    IQ1_S 19 "IQ1_S" 256 50;
    IQ4_NL 20 "IQ4_NL" 32 18;
    IQ3_S 21 "IQ3_S" 256 110;
    IQ2_S 22 "IQ2_S" 256 82;
    IQ4_XS 23 "IQ4_XS" 256 136;
    I8 24 "I8" 1 1;
    I16 25 "I16" 1 2;
    I32 26 "I32" 1 4;
    I64 27 "I64" 1 8;
    F64 28 "F64" 1 8;
    IQ1_M 29 "IQ1_M" 256 56;
    BF16 30 "BF16" 1 2;
    TQ1_0 34 "TQ1_0" 256 54;
    TQ2_0 35 "TQ2_0" 256 66;
    MXFP4 39 "MXFP4" 32 17;
    NVFP4 40 "NVFP4" 64 36;
    Q1_0 41 "Q1_0" 128 18;
    Q2_0 42 "Q2_0" 64 18;
}

impl TensorType {
    /// Whether matrices of this type can be multiplied. The others hold intermediate results and tables of numbers.
    pub(crate) fn multiplies(self) -> bool {
        !matches!(
            self,
            Self::Q8_1 | Self::Q8_K | Self::I8 | Self::I16 | Self::I32 | Self::I64 | Self::F64
        )
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
