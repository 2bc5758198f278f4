//! Whether two MessagePack values say the same, whatever the order of their maps.

use rmp::Marker;

use super::MessagePack;

impl MessagePack {
    /// Whether two values are equal but for the order in which their maps are written. Both were written by
    /// the codec; what is cut or strange equals nothing.
    pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
        match (sorted(one), sorted(other)) {
            (Some(one), Some(other)) => one == other,
            _ => false,
        }
    }
}

fn sorted(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    value(&mut bytes, &mut out)?;
    bytes.is_empty().then_some(out)
}

/// Takes one value and appends it with every map in the order of its entries' bytes.
fn value(bytes: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    let from = *bytes;
    let marker = Marker::from_u8(*take(bytes, 1)?.first()?);
    let length = match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False | Marker::Reserved => 0,
        Marker::U8 | Marker::I8 => 1,
        Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
        Marker::FixExt2 => 3,
        Marker::U32 | Marker::I32 | Marker::F32 => 4,
        Marker::FixExt4 => 5,
        Marker::U64 | Marker::I64 | Marker::F64 => 8,
        Marker::FixExt8 => 9,
        Marker::FixExt16 => 17,
        Marker::FixStr(length) => usize::from(length),
        Marker::Str8 | Marker::Bin8 => number(bytes, 1)?,
        Marker::Str16 | Marker::Bin16 => number(bytes, 2)?,
        Marker::Str32 | Marker::Bin32 => number(bytes, 4)?,
        Marker::Ext8 => number(bytes, 1)? + 1,
        Marker::Ext16 => number(bytes, 2)? + 1,
        Marker::Ext32 => number(bytes, 4)? + 1,
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
            let count = match marker {
                Marker::FixArray(count) => usize::from(count),
                Marker::Array16 => number(bytes, 2)?,
                _ => number(bytes, 4)?,
            };
            out.extend_from_slice(from.get(..from.len() - bytes.len())?);
            return (0..count).try_for_each(|_| value(bytes, out));
        }
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => {
            let count = match marker {
                Marker::FixMap(count) => usize::from(count),
                Marker::Map16 => number(bytes, 2)?,
                _ => number(bytes, 4)?,
            };
            out.extend_from_slice(from.get(..from.len() - bytes.len())?);
            let mut entries = Vec::new();
            for _ in 0..count {
                let mut entry = Vec::new();
                value(bytes, &mut entry)?;
                value(bytes, &mut entry)?;
                entries.push(entry);
            }
            entries.sort();
            out.extend(entries.concat());
            return Some(());
        }
    };
    take(bytes, length)?;
    out.extend_from_slice(from.get(..from.len() - bytes.len())?);
    Some(())
}

fn number(bytes: &mut &[u8], width: usize) -> Option<usize> {
    Some(take(bytes, width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::super::Codec;
    use super::*;

    /// A map that is written in the order given.
    struct Written(Vec<(&'static str, i64)>);

    impl Serialize for Written {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().copied())
        }
    }

    fn bytes(value: &impl Serialize) -> Vec<u8> {
        MessagePack::encode(value).unwrap()
    }

    #[test]
    fn maps_are_compared_whatever_their_order_and_all_else_as_it_stands() {
        let one = bytes(&("x", Written(vec![("a", 1), ("b", -70_000)]), [1.5, 2.0]));
        let turned = bytes(&("x", Written(vec![("b", -70_000), ("a", 1)]), [1.5, 2.0]));
        let swapped = bytes(&("x", Written(vec![("b", 1), ("a", -70_000)]), [1.5, 2.0]));
        let moved = bytes(&("x", Written(vec![("a", 1), ("b", -70_000)]), [2.0, 1.5]));
        assert_ne!(one, turned);
        assert!(MessagePack::same(&one, &turned));
        assert!(!MessagePack::same(&one, &swapped));
        assert!(!MessagePack::same(&one, &moved));
    }

    #[test]
    fn every_width_of_value_is_passed_over_whole() {
        let many: BTreeMap<u32, String> = (0..70_000).map(|n| (n, "x".repeat(n as usize % 40))).collect();
        let all = (
            many,
            (u8::MAX, u16::MAX, u32::MAX, u64::MAX, i8::MIN, i16::MIN, i32::MIN, i64::MIN),
            ("x".repeat(300), "x".repeat(70_000), vec![1_u8; 40], vec![vec![0_u16; 20]; 20], None::<u8>, true, 1.0_f32),
            [0_u8; 3],
        );
        let whole = bytes(&all);
        assert!(MessagePack::same(&whole, &whole));
        assert!(!MessagePack::same(&whole, &whole[..whole.len() - 1]));
    }
}
