//! What is written is what is read, whatever it is.

use hearth_gguf::{Array, File, TensorType, Value};
use proptest::prelude::*;

use crate::writer::{Data, Gguf};

fn scalar() -> impl Strategy<Value = Data> {
    prop_oneof![
        any::<u8>().prop_map(Data::U8),
        any::<i8>().prop_map(Data::I8),
        any::<u16>().prop_map(Data::U16),
        any::<i16>().prop_map(Data::I16),
        any::<u32>().prop_map(Data::U32),
        any::<i32>().prop_map(Data::I32),
        any::<f32>().prop_map(Data::F32),
        any::<bool>().prop_map(Data::Bool),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Data::Text),
        any::<u64>().prop_map(Data::U64),
        any::<i64>().prop_map(Data::I64),
        any::<f64>().prop_map(Data::F64),
    ]
}

fn value() -> impl Strategy<Value = Data> {
    let texts = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9);
    let numbers = proptest::collection::vec(any::<i16>(), 0..9);
    prop_oneof![
        scalar(),
        texts.prop_map(Data::texts),
        numbers.prop_map(|all| Data::Array(3, all.into_iter().map(Data::I16).collect())),
        proptest::collection::vec(proptest::collection::vec(any::<u64>(), 0..4), 0..4).prop_map(
            |rows| {
                let row = |row: Vec<u64>| Data::Array(10, row.into_iter().map(Data::U64).collect());
                Data::Array(9, rows.into_iter().map(row).collect())
            }
        ),
    ]
}

fn same(read: Value<'_>, written: &Data) -> bool {
    match (read, written) {
        (Value::U8(a), Data::U8(b)) => a == *b,
        (Value::I8(a), Data::I8(b)) => a == *b,
        (Value::U16(a), Data::U16(b)) => a == *b,
        (Value::I16(a), Data::I16(b)) => a == *b,
        (Value::U32(a), Data::U32(b)) => a == *b,
        (Value::I32(a), Data::I32(b)) => a == *b,
        (Value::F32(a), Data::F32(b)) => a.to_bits() == b.to_bits(),
        (Value::Bool(a), Data::Bool(b)) => a == *b,
        (Value::Text(a), Data::Text(b)) => a == b,
        (Value::U64(a), Data::U64(b)) => a == *b,
        (Value::I64(a), Data::I64(b)) => a == *b,
        (Value::F64(a), Data::F64(b)) => a.to_bits() == b.to_bits(),
        (Value::Array(a), Data::Array(_, b)) => same_array(a, b),
        _ => false,
    }
}

fn same_array(read: Array<'_>, written: &[Data]) -> bool {
    read.len() == written.len() as u64
        && read.items().count() == written.len()
        && read.items().zip(written).all(|(a, b)| same(a, b))
}

proptest! {
    #[test]
    fn metadata(values in proptest::collection::vec(value(), 0..12)) {
        let file = values.iter().enumerate().fold(Gguf::model(), |file, (index, value)| {
            // Not in the order in which they are found.
            file.with(&format!("x.{}{index}", 9 - index % 10), value.clone())
        });
        let read = File::parse(&file.bytes()).unwrap();
        prop_assert_eq!(read.metadata().count(), file.metadata.len());
        for ((key, value), (name, written)) in read.metadata().zip(&file.metadata) {
            prop_assert_eq!(key.as_bytes(), &name[..]);
            prop_assert!(same(value, written), "{}: {:?}", key, written);
            prop_assert_eq!(read.get(key).map(|found| same(found, written)), Some(true));
        }
    }

    #[test]
    fn tensors(shapes in proptest::collection::vec(
        (proptest::collection::vec(1u64..9, 0..5), Just(0u32)), 0..9)
    ) {
        let file = shapes.iter().enumerate().fold(Gguf::model(), |file, (index, (shape, kind))| {
            file.tensor(&format!("x.{index}"), shape, *kind)
        });
        let read = File::parse(&file.bytes()).unwrap();
        prop_assert_eq!(read.tensors().len(), file.tensors.len());
        for (read, written) in read.tensors().iter().zip(&file.tensors) {
            prop_assert_eq!(read.name.as_bytes(), &written.name[..]);
            prop_assert_eq!(&read.shape, &written.shape);
            prop_assert_eq!(Some(read.kind), TensorType::from_id(written.kind));
            prop_assert_eq!(read.offset, written.offset);
            prop_assert_eq!(read.bytes, 4 * read.elements());
        }
    }

    /// Bytes that are no header at all after their first eight.
    #[test]
    fn noise(noise in proptest::collection::vec(any::<u8>(), 0..400), version in 2u32..4) {
        let bytes = [b"GGUF".as_slice(), &version.to_le_bytes(), &noise].concat();
        let _ = File::parse(&bytes);
        let _ = File::parse(&noise);
    }
}
