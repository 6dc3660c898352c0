//! The structure of a header: counts, keys, values and the tensor table, read through a bounded buffer.
//!
//! The file's length is known before the first byte is read. Every number that says how much follows is compared with
//! the bytes left before anything is allocated or read for it; so the memory a header takes is at most a few times its
//! own bytes, whatever it claims.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use crate::error::{Error, Place, Problem, shown};
use crate::tensor::{Tensor, TensorType};
use crate::value::ValueType;

/// Most bytes of a header. The largest vocabularies with their merges take about 20 MiB, with a second copy as JSON 50.
const MOST_HEADER: u64 = 256 << 20;
/// Most metadata keys; models have about 50.
const MOST_KEYS: u64 = 65_536;
/// Most tensors; the largest models have about 2,000.
const MOST_TENSORS: u64 = 262_144;
/// Most bytes of a key (the specification's limit).
const LONGEST_KEY: u64 = 65_535;
/// Most bytes of a tensor's name: ggml keeps 64 with the final NUL.
const LONGEST_TENSOR_NAME: u64 = 63;
/// Most arrays within arrays. The specification allows them; no model uses them.
const DEEPEST_ARRAY: u32 = 2;
/// Most elements of a tensor, so that no sum or product of lengths overflows.
const MOST_ELEMENTS: u64 = i64::MAX as u64;
/// Alignments that occur are 32 and 64; the specification wants a multiple of 8.
const ALIGNMENTS: std::ops::RangeInclusive<u64> = 8..=65_536;
/// Alignment of files that name none.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Key of the alignment.
const ALIGNMENT: &str = "general.alignment";

/// A metadata entry: where its key and value are in the header's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: Range<usize>,
    pub kind: ValueType,
    pub value: Range<usize>,
}

/// A header whose structure is sound.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub version: u32,
    /// The file's bytes up to the end of the tensor table.
    pub bytes: Vec<u8>,
    /// In file order.
    pub entries: Vec<Entry>,
    /// Indices of `entries` in the order of their keys.
    pub sorted: Vec<u32>,
    pub tensors: Vec<Tensor>,
    pub alignment: u64,
    /// Where the tensors' data begin, in bytes from the file's start.
    pub data_offset: u64,
    /// Bytes of the file.
    pub size: u64,
}

impl Header {
    /// Reads a header from the start of `source`.
    pub fn read<R: Read + Seek>(source: R) -> Result<Self, Error> {
        let mut reader = Reader::new(source)?;
        let version = reader.preamble()?;
        let tensor_count = reader.count("tensors", MOST_TENSORS)?;
        let key_count = reader.count("metadata keys", MOST_KEYS)?;
        // A key takes its length, a byte, its type and a byte; a tensor its name's length and byte, the number of its
        // dimensions, its type and its offset.
        reader.expect(key_count * 14)?;
        let mut entries = Vec::new();
        for _ in 0..key_count {
            entries.push(reader.entry()?);
        }
        let sorted = sorted(&reader.buffer, &entries)?;
        let alignment = alignment(&reader.buffer, &entries, &sorted)?;
        reader.place = Place::File;
        reader.expect(tensor_count * 25)?;
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(reader.tensor(alignment)?);
        }
        let Reader {
            mut buffer,
            at,
            size,
            ..
        } = reader;
        buffer.truncate(at);
        let header = Self {
            version,
            data_offset: (at as u64).next_multiple_of(alignment),
            bytes: buffer,
            entries,
            sorted,
            tensors,
            alignment,
            size,
        };
        header.check_layout()?;
        Ok(header)
    }

    /// The entry of a key.
    pub fn find(&self, key: &str) -> Option<&Entry> {
        find(&self.bytes, &self.entries, &self.sorted, key)
    }

    /// Names differ, and the tensors' data are in the file and apart.
    fn check_layout(&self) -> Result<(), Error> {
        let mut order: Vec<&Tensor> = self.tensors.iter().collect();
        order.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for pair in order.windows(2) {
            if pair[0].name == pair[1].name {
                return Err(Error::tensor(&pair[0].name, Problem::Duplicate));
            }
        }
        for tensor in &self.tensors {
            let end = self
                .data_offset
                .checked_add(tensor.offset)
                .and_then(|start| start.checked_add(tensor.bytes))
                .unwrap_or(u64::MAX);
            if end > self.size {
                let problem = Problem::OutsideFile {
                    end,
                    size: self.size,
                };
                return Err(Error::tensor(&tensor.name, problem));
            }
        }
        order.sort_unstable_by_key(|tensor| tensor.offset);
        for pair in order.windows(2) {
            // Within the file, so the sum does not overflow.
            if pair[0].offset + pair[0].bytes > pair[1].offset {
                let problem = Problem::Overlap(shown(pair[0].name.as_bytes()));
                return Err(Error::tensor(&pair[1].name, problem));
            }
        }
        Ok(())
    }
}

/// Indices of the entries in the order of their keys, all of which differ.
fn sorted(bytes: &[u8], entries: &[Entry]) -> Result<Vec<u32>, Error> {
    let key = |index: u32| &bytes[entries[index as usize].key.clone()];
    let mut sorted: Vec<u32> = (0..entries.len() as u32).collect();
    sorted.sort_unstable_by_key(|&index| key(index));
    for pair in sorted.windows(2) {
        if key(pair[0]) == key(pair[1]) {
            return Err(Error::key(key(pair[0]), Problem::Duplicate));
        }
    }
    Ok(sorted)
}

fn find<'a>(bytes: &[u8], entries: &'a [Entry], sorted: &[u32], key: &str) -> Option<&'a Entry> {
    let of = |index: u32| &bytes[entries[index as usize].key.clone()];
    let at = sorted
        .binary_search_by(|&index| of(index).cmp(key.as_bytes()))
        .ok()?;
    entries.get(sorted[at] as usize)
}

fn alignment(bytes: &[u8], entries: &[Entry], sorted: &[u32]) -> Result<u64, Error> {
    let Some(entry) = find(bytes, entries, sorted, ALIGNMENT) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let value = bytes[entry.value.clone()].first_chunk::<4>();
    let (ValueType::U32, Some(value)) = (entry.kind, value) else {
        let problem = Problem::WrongType {
            found: entry.kind,
            wanted: "u32",
        };
        return Err(Error::key(ALIGNMENT, problem));
    };
    let value = u64::from(u32::from_le_bytes(*value));
    if !ALIGNMENTS.contains(&value) {
        let problem = Problem::OutOfRange {
            value,
            least: *ALIGNMENTS.start(),
            most: *ALIGNMENTS.end(),
        };
        return Err(Error::key(ALIGNMENT, problem));
    }
    if !value.is_power_of_two() {
        let problem = Problem::Contradiction(format!("is {value} and must be a power of two"));
        return Err(Error::key(ALIGNMENT, problem));
    }
    Ok(value)
}

/// Reads forward and keeps what was read.
struct Reader<R> {
    source: R,
    /// The file's first bytes.
    buffer: Vec<u8>,
    /// Next byte to look at.
    at: usize,
    /// Bytes of the file.
    size: u64,
    /// What is being read, for errors.
    place: Place,
}

impl<R: Read + Seek> Reader<R> {
    fn new(mut source: R) -> Result<Self, Error> {
        let unreadable =
            |error: std::io::Error| Error::file(Problem::Unreadable(error.to_string()));
        let size = source.seek(SeekFrom::End(0)).map_err(unreadable)?;
        source.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        Ok(Self {
            source,
            buffer: Vec::new(),
            at: 0,
            size,
            place: Place::File,
        })
    }

    fn error(&self, problem: Problem) -> Error {
        Error::new(self.place.clone(), problem)
    }

    /// Refuses a file that has fewer than `length` bytes left.
    fn expect(&self, length: u64) -> Result<(), Error> {
        let left = self.size - self.at as u64;
        if length > left {
            let needed = length;
            return Err(self.error(Problem::Truncated { needed, left }));
        }
        if self.at as u64 + length > MOST_HEADER {
            return Err(self.error(Problem::TooMany {
                count: self.at as u64 + length,
                what: "bytes of header",
                most: MOST_HEADER,
            }));
        }
        Ok(())
    }

    /// Moves over the next `length` bytes; where they are.
    fn skip(&mut self, length: u64) -> Result<Range<usize>, Error> {
        self.expect(length)?;
        // Checked: at most MOST_HEADER.
        let end = self.at + length as usize;
        if end > self.buffer.len() {
            self.fill(end)?;
        }
        let start = std::mem::replace(&mut self.at, end);
        Ok(start..end)
    }

    /// Reads on until the buffer reaches `end`, which is within the file, and a good piece further.
    fn fill(&mut self, end: usize) -> Result<(), Error> {
        let have = self.buffer.len();
        let piece = have.clamp(64 << 10, 4 << 20);
        let wanted = end.max(have + piece);
        let wanted = usize::try_from(self.size).map_or(wanted, |size| wanted.min(size));
        self.buffer.resize(wanted, 0);
        if let Err(error) = self.source.read_exact(&mut self.buffer[have..]) {
            return Err(match error.kind() {
                // The file shrank meanwhile.
                std::io::ErrorKind::UnexpectedEof => self.error(Problem::Truncated {
                    needed: (wanted - have) as u64,
                    left: 0,
                }),
                _ => Error::file(Problem::Unreadable(error.to_string())),
            });
        }
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let range = self.skip(N as u64)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[range]);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// Magic and version.
    fn preamble(&mut self) -> Result<u32, Error> {
        if self.size < 4 {
            return Err(self.error(Problem::NotGguf));
        }
        match &self.bytes::<4>()? {
            b"GGUF" => {}
            _ => return Err(self.error(Problem::NotGguf)),
        }
        match self.u32()? {
            version @ (2 | 3) => Ok(version),
            version if matches!(version.swap_bytes(), 1..=3) => Err(self.error(Problem::BigEndian)),
            version => Err(self.error(Problem::Version(version))),
        }
    }

    fn count(&mut self, what: &'static str, most: u64) -> Result<u64, Error> {
        let count = self.u64()?;
        if count > most {
            return Err(self.error(Problem::TooMany { count, what, most }));
        }
        Ok(count)
    }

    /// A length and as many bytes.
    fn text(&mut self) -> Result<Range<usize>, Error> {
        let length = self.u64()?;
        self.skip(length)
    }

    /// Moves over a text. Vocabularies have hundreds of thousands, most of which are in the buffer already.
    #[inline]
    fn skip_text(&mut self) -> Result<(), Error> {
        if let Some(length) = self.buffer[self.at..].first_chunk::<8>() {
            let length = usize::try_from(u64::from_le_bytes(*length));
            let end = length
                .ok()
                .and_then(|length| length.checked_add(self.at + 8));
            if let Some(end) = end.filter(|end| *end <= self.buffer.len()) {
                self.at = end;
                return Ok(());
            }
        }
        self.text().map(drop)
    }

    /// A length and a name of that many bytes: text without control characters, so that it means the same to readers
    /// that stop at a NUL.
    fn name(&mut self, what: &'static str, longest: u64) -> Result<Range<usize>, Error> {
        self.place = Place::File;
        let length = self.u64()?;
        if length > longest {
            return Err(self.error(Problem::TooMany {
                count: length,
                what,
                most: longest,
            }));
        }
        if length == 0 {
            return Err(self.error(Problem::Unnamed));
        }
        self.skip(length)
    }

    fn entry(&mut self) -> Result<Entry, Error> {
        let key = self.name("bytes of a metadata key", LONGEST_KEY)?;
        let bytes = &self.buffer[key.clone()];
        self.place = Place::Key(shown(bytes));
        if !is_name(bytes) {
            return Err(self.error(Problem::NotText));
        }
        let kind = self.value_type()?;
        let start = self.at;
        self.value(kind, 0)?;
        Ok(Entry {
            key,
            kind,
            value: start..self.at,
        })
    }

    fn value_type(&mut self) -> Result<ValueType, Error> {
        let id = self.u32()?;
        ValueType::from_id(id).ok_or_else(|| self.error(Problem::UnknownValueType(id)))
    }

    /// Moves over a value.
    fn value(&mut self, kind: ValueType, depth: u32) -> Result<(), Error> {
        if let Some(size) = kind.size() {
            return self.skip(size as u64).map(drop);
        }
        if kind == ValueType::Text {
            return self.text().map(drop);
        }
        if depth == DEEPEST_ARRAY {
            return Err(self.error(Problem::Nested));
        }
        let item = self.value_type()?;
        let count = self.u64()?;
        let least = count.saturating_mul(item.least_size() as u64);
        self.expect(least)?;
        if item.size().is_some() {
            return self.skip(least).map(drop);
        }
        for _ in 0..count {
            match item {
                ValueType::Text => self.skip_text()?,
                item => self.value(item, depth + 1)?,
            }
        }
        Ok(())
    }

    fn tensor(&mut self, alignment: u64) -> Result<Tensor, Error> {
        let name = self.name("bytes of a tensor's name", LONGEST_TENSOR_NAME)?;
        let bytes = &self.buffer[name.clone()];
        self.place = Place::Tensor(shown(bytes));
        let name = match std::str::from_utf8(bytes) {
            Ok(name) if is_name(bytes) => name.to_owned(),
            _ => return Err(self.error(Problem::NotText)),
        };
        let dimensions = self.u32()?;
        if dimensions > 4 {
            return Err(self.error(Problem::Dimensions(dimensions)));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        let mut elements = 1u64;
        for _ in 0..dimensions {
            let length = self.u64()?;
            if length == 0 {
                return Err(self.error(Problem::ZeroDimension));
            }
            elements = elements
                .checked_mul(length)
                .filter(|elements| *elements <= MOST_ELEMENTS)
                .ok_or_else(|| self.error(Problem::Overflow))?;
            shape.push(length);
        }
        let id = self.u32()?;
        let kind =
            TensorType::from_id(id).ok_or_else(|| self.error(Problem::UnknownTensorType(id)))?;
        let (block, block_bytes) = kind.block();
        // A single number is a row of one.
        let columns = shape.first().copied().unwrap_or(1);
        if columns % block != 0 {
            return Err(self.error(Problem::RaggedRow { columns, block }));
        }
        let bytes = (elements / block)
            .checked_mul(block_bytes)
            .filter(|bytes| *bytes <= MOST_ELEMENTS)
            .ok_or_else(|| self.error(Problem::Overflow))?;
        let offset = self.u64()?;
        if offset % alignment != 0 {
            return Err(self.error(Problem::Misaligned { offset, alignment }));
        }
        Ok(Tensor {
            name,
            shape,
            kind,
            offset,
            bytes,
        })
    }
}

/// UTF-8 without control characters.
fn is_name(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}
