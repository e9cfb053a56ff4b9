//! What type an entry is of, in 64 bits.

use std::any::type_name;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The schema of a type, as a reader knows it.
///
/// It is a hash of the type's name, with the version as seed. Where the shape of the type is known, the lower half tells it as
/// well. A reader who does not know the shape looks at the upper half only, and so finds what one has stored who does; not the
/// other way round, so that what is stored without a known shape is never taken for one of another.
///
/// Renaming or moving a type, raising the version, or another shape makes the old entries misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schema {
    stored: u64,
    knows_shape: bool,
}

impl Schema {
    /// That of `T`; a shape of zero is not known.
    pub(crate) fn of<T>(version: u32, shape: u64) -> Self {
        let name = xxh3_64_with_seed(type_name::<T>().as_bytes(), u64::from(version));
        if shape == 0 {
            return Self { stored: name, knows_shape: false };
        }
        // Never zero, which would be the schema of a type whose shape is not known.
        let folded = u64::from((shape ^ (shape >> 32)) as u32).max(1);
        Self { stored: name ^ folded, knows_shape: true }
    }

    /// That of the entries in the tests' files.
    #[cfg(test)]
    pub(super) const fn exactly(stored: u64) -> Self {
        Self { stored, knows_shape: true }
    }

    /// What an entry carries.
    pub(crate) fn stored(self) -> u64 {
        self.stored
    }

    /// Whether an entry that carries this is of the type.
    pub(super) fn fits(self, stored: u64) -> bool {
        if self.knows_shape { stored == self.stored } else { stored >> 32 == self.stored >> 32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(reader: Schema, writer: Schema) -> bool {
        reader.fits(writer.stored())
    }

    #[test]
    fn types_and_versions_have_schemas_of_their_own() {
        let schemas = [
            Schema::of::<u8>(0, 0),
            Schema::of::<u8>(1, 0),
            Schema::of::<String>(0, 0),
            Schema::of::<Vec<u8>>(0, 0),
        ];
        for (at, reader) in schemas.iter().enumerate() {
            for (other, writer) in schemas.iter().enumerate() {
                assert_eq!(fits(*reader, *writer), at == other);
            }
        }
    }

    #[test]
    fn another_shape_is_another_schema_for_those_who_know_theirs() {
        let shapes = [1, 2, 7 << 32, 0xffff_ffff_0000_0000].map(|shape| Schema::of::<u8>(0, shape));
        for (at, reader) in shapes.iter().enumerate() {
            for (other, writer) in shapes.iter().enumerate() {
                assert_eq!(fits(*reader, *writer), at == other);
            }
            let unknown = Schema::of::<u8>(0, 0);
            assert!(fits(unknown, *reader), "who does not know the shape takes what is there");
            assert!(!fits(*reader, unknown), "who does takes nothing of which it is not known");
        }
        let folds_to_zero = Schema::of::<u8>(0, u64::MAX);
        assert!(!fits(folds_to_zero, Schema::of::<u8>(0, 0)), "it is known all the same");
    }
}
