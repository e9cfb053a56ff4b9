//! What asks for an entity and receives it.

use std::fmt;

use crate::entity::CacheEntity;
use crate::error::Result;

/// Asks for one entity and is fed what was found.
///
/// The hooks run in the caller's task; an error from one of them ends the call with it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a feeder of `{T}`",
    note = "use `GenericFeeder::new(id)`, implement `CacheFeed` (which id to read, and what to do with the entity), or use \
            `CacheExpander::get`, which needs no feeder"
)]
pub trait CacheFeed<T: CacheEntity>: Send {
    /// The id to read.
    fn entity_id(&mut self) -> T::Key;

    /// Receives the entity, or `None` if there is none.
    fn feed(&mut self, entity: Option<T>);

    /// Says no before anything is read. Default: yes.
    ///
    /// # Errors
    /// Why nothing should be read.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// The entity came from the cache. Default: nothing.
    ///
    /// # Errors
    /// Ends the call.
    fn on_hit(&mut self, key: &str) -> Result<()> {
        let _ = key;
        Ok(())
    }

    /// The cache did not have the entity. Default: nothing.
    ///
    /// # Errors
    /// Ends the call.
    fn on_miss(&mut self, key: &str) -> Result<()> {
        let _ = key;
        Ok(())
    }

    /// The entity was found, wherever, and is about to be fed. Default: nothing.
    ///
    /// # Errors
    /// Ends the call; the entity is not fed.
    fn on_loaded(&mut self, entity: &T) -> Result<()> {
        let _ = entity;
        Ok(())
    }
}

/// A feeder that holds the id, and afterwards the entity.
pub struct GenericFeeder<T: CacheEntity> {
    /// The id to read.
    pub id: T::Key,
    /// What was found.
    pub data: Option<T>,
}

impl<T: CacheEntity> GenericFeeder<T> {
    /// A feeder for this id.
    #[must_use]
    pub fn new(id: T::Key) -> Self {
        Self { id, data: None }
    }
}

impl<T: CacheEntity> CacheFeed<T> for GenericFeeder<T> {
    fn entity_id(&mut self) -> T::Key {
        self.id.clone()
    }

    fn feed(&mut self, entity: Option<T>) {
        self.data = entity;
    }
}

impl<T: CacheEntity> fmt::Debug for GenericFeeder<T> {
    // Neither ids nor values are printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenericFeeder").field("fed", &self.data.is_some()).finish_non_exhaustive()
    }
}
