//! Metadata values, read in place: a value borrows the header's bytes and copies nothing.

use std::fmt;

/// Type of a metadata value (`gguf_type` of the specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 8-bit unsigned.
    U8,
    /// 8-bit signed.
    I8,
    /// 16-bit unsigned.
    U16,
    /// 16-bit signed.
    I16,
    /// 32-bit unsigned.
    U32,
    /// 32-bit signed.
    I32,
    /// 32-bit float.
    F32,
    /// Truth value.
    Bool,
    /// Text with its length before it.
    Text,
    /// Values of one type.
    Array,
    /// 64-bit unsigned.
    U64,
    /// 64-bit signed.
    I64,
    /// 64-bit float.
    F64,
}

impl ValueType {
    /// The type with that number in a file.
    pub fn from_id(id: u32) -> Option<Self> {
        const ALL: [ValueType; 13] = [
            ValueType::U8,
            ValueType::I8,
            ValueType::U16,
            ValueType::I16,
            ValueType::U32,
            ValueType::I32,
            ValueType::F32,
            ValueType::Bool,
            ValueType::Text,
            ValueType::Array,
            ValueType::U64,
            ValueType::I64,
            ValueType::F64,
        ];
        ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// Bytes of a value; `None` for texts and arrays, whose length is their own.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }

    /// Bytes of the smallest value: a text's length, an array's type and length.
    pub(crate) fn least_size(self) -> usize {
        match self {
            Self::Text => 8,
            Self::Array => 12,
            sized => sized.size().unwrap_or(1),
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Text => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

/// A metadata value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// 8-bit unsigned.
    U8(u8),
    /// 8-bit signed.
    I8(i8),
    /// 16-bit unsigned.
    U16(u16),
    /// 16-bit signed.
    I16(i16),
    /// 32-bit unsigned.
    U32(u32),
    /// 32-bit signed.
    I32(i32),
    /// 32-bit float.
    F32(f32),
    /// Truth value; any byte but 0 is true, as llama.cpp reads it.
    Bool(bool),
    /// Text as it stands in the file. The specification wants UTF-8; not every writer keeps to it.
    Text(&'a [u8]),
    /// Values of one type.
    Array(Array<'a>),
    /// 64-bit unsigned.
    U64(u64),
    /// 64-bit signed.
    I64(i64),
    /// 64-bit float.
    F64(f64),
}

impl<'a> Value<'a> {
    /// Its type.
    pub fn kind(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::Text(_) => ValueType::Text,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// An integer of any width that is not negative.
    pub fn number(&self) -> Option<u64> {
        match *self {
            Self::U8(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::U64(n) => Some(n),
            Self::I8(n) => u64::try_from(n).ok(),
            Self::I16(n) => u64::try_from(n).ok(),
            Self::I32(n) => u64::try_from(n).ok(),
            Self::I64(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }

    /// A float of either width.
    pub fn real(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => Some(x.into()),
            Self::F64(x) => Some(x),
            _ => None,
        }
    }

    /// Text, if it is UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        match *self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A truth value.
    pub fn flag(&self) -> Option<bool> {
        match *self {
            Self::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// An array.
    pub fn array(&self) -> Option<Array<'a>> {
        match *self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    /// Reads a value of that type from the front of bytes that were checked to hold one; the rest with it.
    pub(crate) fn take(kind: ValueType, bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        fn sized<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
            let (head, rest) = bytes.split_first_chunk::<N>()?;
            Some((*head, rest))
        }
        macro_rules! number {
            ($variant:ident, $number:ty) => {{
                let (bytes, rest) = sized(bytes)?;
                Some((Self::$variant(<$number>::from_le_bytes(bytes)), rest))
            }};
        }
        match kind {
            ValueType::U8 => number!(U8, u8),
            ValueType::I8 => number!(I8, i8),
            ValueType::U16 => number!(U16, u16),
            ValueType::I16 => number!(I16, i16),
            ValueType::U32 => number!(U32, u32),
            ValueType::I32 => number!(I32, i32),
            ValueType::F32 => number!(F32, f32),
            ValueType::U64 => number!(U64, u64),
            ValueType::I64 => number!(I64, i64),
            ValueType::F64 => number!(F64, f64),
            ValueType::Bool => {
                let (&byte, rest) = bytes.split_first()?;
                Some((Self::Bool(byte != 0), rest))
            }
            ValueType::Text => {
                let (length, rest) = sized(bytes)?;
                let length = usize::try_from(u64::from_le_bytes(length)).ok()?;
                let (text, rest) = rest.split_at_checked(length)?;
                Some((Self::Text(text), rest))
            }
            ValueType::Array => {
                let (item, rest) = sized(bytes)?;
                let (count, mut rest) = sized(rest)?;
                let item = ValueType::from_id(u32::from_le_bytes(item))?;
                let count = u64::from_le_bytes(count);
                let all = rest;
                match item.size() {
                    Some(size) => {
                        let length = usize::try_from(count).ok()?.checked_mul(size)?;
                        rest = rest.get(length..)?;
                    }
                    None => {
                        for _ in 0..count {
                            rest = Self::take(item, rest)?.1;
                        }
                    }
                }
                let bytes = &all[..all.len() - rest.len()];
                Some((Self::Array(Array { item, count, bytes }), rest))
            }
        }
    }
}

impl fmt::Display for Value<'_> {
    /// One line: texts escaped, arrays as their type and length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(n) => n.fmt(f),
            Self::I8(n) => n.fmt(f),
            Self::U16(n) => n.fmt(f),
            Self::I16(n) => n.fmt(f),
            Self::U32(n) => n.fmt(f),
            Self::I32(n) => n.fmt(f),
            Self::F32(x) => x.fmt(f),
            Self::Bool(flag) => flag.fmt(f),
            Self::Text(bytes) => String::from_utf8_lossy(bytes).escape_debug().fmt(f),
            Self::Array(array) => write!(f, "{} × {}", array.count, array.item),
            Self::U64(n) => n.fmt(f),
            Self::I64(n) => n.fmt(f),
            Self::F64(x) => x.fmt(f),
        }
    }
}

/// Values of one type, one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    item: ValueType,
    count: u64,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// An array that takes all of these bytes, which were checked.
    pub(crate) fn whole(bytes: &'a [u8]) -> Option<Self> {
        let (item, rest) = bytes.split_first_chunk::<4>()?;
        let (count, bytes) = rest.split_first_chunk::<8>()?;
        Some(Self {
            item: ValueType::from_id(u32::from_le_bytes(*item))?,
            count: u64::from_le_bytes(*count),
            bytes,
        })
    }

    /// Type of the items.
    pub fn item(&self) -> ValueType {
        self.item
    }

    /// Number of items.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The items in order.
    pub fn items(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (item, mut rest) = (self.item, self.bytes);
        (0..self.count).map_while(move |_| {
            let (value, left) = Value::take(item, rest)?;
            rest = left;
            Some(value)
        })
    }

    /// The texts of an array of texts, as bytes; nothing for another type.
    pub fn texts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.items().map_while(|value| match value {
            Value::Text(bytes) => Some(bytes),
            _ => None,
        })
    }

    /// The numbers of an array of integers, up to the first that is negative; nothing for another type.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + use<'a> {
        self.items().map_while(|value| value.number())
    }
}
