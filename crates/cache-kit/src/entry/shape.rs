//! A digest of a value as serde sees it, to tell whether a value that was read back is the one written.
//!
//! Names of structs, fields and variants count, so a value misread into another variant or a shifted field
//! is noticed. The order within sequences and maps does not: sets come back in another order.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::ser::{self, Serialize};

/// The digest; `None` if the value refuses to be walked.
pub(super) fn digest<T: Serialize>(value: &T) -> Option<u64> {
    value.serialize(Digest).ok()
}

#[derive(Clone, Copy)]
struct Digest;

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value refused to be serialized")
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

fn hash(tag: &str, content: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    tag.hash(&mut hasher);
    content.hash(&mut hasher);
    hasher.finish()
}

/// The digest of what has parts: their sum, which does not know their order.
struct Parts {
    of: u64,
    sum: u64,
    key: u64,
}

impl Parts {
    fn new(tag: &str, of: impl Hash) -> Self {
        Self { of: hash(tag, of), sum: 0, key: 0 }
    }

    fn add<T: Serialize + ?Sized>(&mut self, name: impl Hash, value: &T) -> Result<(), Refused> {
        let part = hash("part", (name, value.serialize(Digest)?));
        self.sum = self.sum.wrapping_add(part);
        Ok(())
    }

    fn finish(self) -> u64 {
        hash("parts", (self.of, self.sum))
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty),+ $(,)?) => {$(
        fn $method(self, value: $type) -> Result<u64, Refused> {
            Ok(hash(stringify!($type), value))
        }
    )+};
}

impl ser::Serializer for Digest {
    type Ok = u64;
    type Error = Refused;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    scalars! {
        serialize_bool: bool, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
    }

    fn serialize_f32(self, value: f32) -> Result<u64, Refused> {
        Ok(hash("f32", value.to_bits()))
    }

    fn serialize_f64(self, value: f64) -> Result<u64, Refused> {
        Ok(hash("f64", value.to_bits()))
    }

    fn serialize_none(self) -> Result<u64, Refused> {
        Ok(hash("none", ()))
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<u64, Refused> {
        Ok(hash("some", value.serialize(self)?))
    }

    fn serialize_unit(self) -> Result<u64, Refused> {
        Ok(hash("unit", ()))
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<u64, Refused> {
        Ok(hash("unit", name))
    }

    fn serialize_unit_variant(self, of: &'static str, _: u32, variant: &'static str) -> Result<u64, Refused> {
        Ok(hash("variant", (of, variant)))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        of: &'static str,
        value: &T,
    ) -> Result<u64, Refused> {
        Ok(hash("newtype", (of, value.serialize(self)?)))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        of: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<u64, Refused> {
        Ok(hash("newtype", (of, variant, value.serialize(self)?)))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, Refused> {
        Ok(Parts::new("seq", ()))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts, Refused> {
        Ok(Parts::new("tuple", ()))
    }

    fn serialize_tuple_struct(self, of: &'static str, _: usize) -> Result<Parts, Refused> {
        Ok(Parts::new("tuple", of))
    }

    fn serialize_tuple_variant(
        self,
        of: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts, Refused> {
        Ok(Parts::new("tuple", (of, variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts, Refused> {
        Ok(Parts::new("map", ()))
    }

    fn serialize_struct(self, of: &'static str, _: usize) -> Result<Parts, Refused> {
        Ok(Parts::new("struct", of))
    }

    fn serialize_struct_variant(
        self,
        of: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts, Refused> {
        Ok(Parts::new("struct", (of, variant)))
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<u64, Refused> {
        Ok(hash("&str", value.to_string().as_str()))
    }

    /// As the compact codecs see it: many types write themselves as text otherwise.
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Elements of a sequence, whose place does not count, and of a tuple, whose place does.
macro_rules! elements {
    ($($trait:ident::$method:ident in $places:literal),+) => {$(
        impl ser::$trait for Parts {
            type Ok = u64;
            type Error = Refused;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.key += $places;
                self.add(self.key, value)
            }

            fn end(self) -> Result<u64, Refused> {
                Ok(self.finish())
            }
        }
    )+};
}

elements!(
    SerializeSeq::serialize_element in 0,
    SerializeTuple::serialize_element in 1,
    SerializeTupleStruct::serialize_field in 1,
    SerializeTupleVariant::serialize_field in 1
);

macro_rules! named_parts {
    ($($trait:ident),+) => {$(
        impl ser::$trait for Parts {
            type Ok = u64;
            type Error = Refused;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Refused> {
                self.add(name, value)
            }

            fn end(self) -> Result<u64, Refused> {
                Ok(self.finish())
            }
        }
    )+};
}

named_parts!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Parts {
    type Ok = u64;
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.key = key.serialize(Digest)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        self.add(self.key, value)
    }

    fn end(self) -> Result<u64, Refused> {
        Ok(self.finish())
    }
}
