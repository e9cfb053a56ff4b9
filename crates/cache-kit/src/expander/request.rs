//! What a read of an entity asks for.

use super::CacheExpander;
use crate::backend::CacheBackend;
use crate::engine::{Request, Terms};
use crate::entity::CacheEntity;
use crate::entry::Schema;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::policy::{OperationConfig, check_call_ttl};
use crate::strategy::CacheStrategy;

impl<B: CacheBackend> CacheExpander<B> {
    pub(super) fn key<T: CacheEntity>(&self, id: &T::Key) -> Result<Key<'static>> {
        Key::from_id(self.engine.settings.namespace.as_deref(), T::cache_prefix(), id)
    }

    pub(super) fn request<T: CacheEntity>(
        &self,
        id: &T::Key,
        config: &OperationConfig<'_>,
        strategy: CacheStrategy,
    ) -> Result<Request<'static>> {
        let (entity, of_cache) = (T::cache_policy(), self.engine.settings.policy());
        let ttl = config.life();
        check_call_ttl(ttl)?;
        let mut terms = if entity.is_empty() {
            config.over(of_cache)?
        } else {
            let of_entity =
                of_cache.with(&entity).map_err(|error| of_the_entity(T::cache_prefix(), &error))?;
            match config.over(&of_entity)? {
                Terms::Cache => Terms::Call(Box::new(of_entity)),
                terms => terms,
            }
        };
        if !T::may_be_stale() {
            match &mut terms {
                Terms::Cache => terms = Terms::NeverStale,
                Terms::Call(policy) => **policy = policy.never_stale(),
                Terms::NeverStale => {}
            }
        }
        Ok(Request {
            key: self.key::<T>(id)?,
            schema: Schema::of::<T>(T::cache_version(), T::cache_schema()),
            codec: T::cache_codec(),
            prefix: T::cache_prefix(),
            ttl: ttl.or(entity.ttl()),
            strategy,
            terms,
            tags: config.tags()?,
            may_choose_tags: true,
        })
    }
}

/// What is wrong with the policy of an entity.
#[cold]
fn of_the_entity(prefix: &str, error: &Error) -> Error {
    let message = format!("the policy of the entity {prefix:?} over that of the cache: {}", error.message());
    Error::config(message).with_hint(error.hint().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::backend::InMemoryBackend;
    use crate::{ErrorKind, Policy, PolicyOverrides, TtlPolicy};

    const SECOND: Duration = Duration::from_secs(1);

    macro_rules! entity {
        ($name:ident, $prefix:literal, $policy:expr, $may_be_stale:literal) => {
            #[derive(Clone, Serialize, Deserialize)]
            struct $name(u64);

            impl CacheEntity for $name {
                type Key = u64;

                fn cache_key(&self) -> u64 {
                    self.0
                }

                fn cache_prefix() -> &'static str {
                    $prefix
                }

                fn cache_policy() -> PolicyOverrides {
                    $policy
                }

                fn may_be_stale() -> bool {
                    $may_be_stale
                }
            }
        };
    }

    entity!(Plain, "plain", PolicyOverrides::default(), true);
    entity!(Price, "price", PolicyOverrides::default().with_ttl(2 * SECOND).with_timeout(2 * SECOND), true);
    entity!(
        Grant,
        "grant",
        PolicyOverrides::default().with_stale_if_error(SECOND).with_timeout(SECOND),
        false
    );
    entity!(Idle, "idle", PolicyOverrides::default().with_idle(60 * SECOND), true);

    fn expander(policy: Policy) -> CacheExpander<InMemoryBackend> {
        CacheExpander::new(InMemoryBackend::new()).with_policy(policy).unwrap()
    }

    fn asked<T: CacheEntity<Key = u64>>(
        expander: &CacheExpander<InMemoryBackend>,
        config: OperationConfig<'_>,
    ) -> Result<Request<'static>> {
        expander.request::<T>(&1, &config, CacheStrategy::Refresh)
    }

    fn policy_of(request: &Request<'_>) -> Policy {
        match &request.terms {
            Terms::Call(policy) => **policy,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_comes_before_the_entity_and_the_entity_before_the_cache() {
        let above = Policy::default().with_timeout(9 * SECOND).with_lease_wait(9 * SECOND);
        let expander = expander(above);
        let plain = asked::<Plain>(&expander, OperationConfig::default()).unwrap();
        assert_eq!((plain.ttl, plain.terms), (None, Terms::Cache));
        let own = asked::<Price>(&expander, OperationConfig::default()).unwrap();
        assert_eq!(own.ttl, Some(Some(2 * SECOND)));
        assert_eq!(policy_of(&own), above.with_ttl(2 * SECOND).with_timeout(2 * SECOND));
        let call = PolicyOverrides::default().without_ttl().with_timeout(SECOND);
        let changed = asked::<Price>(&expander, OperationConfig::default().with_policy(call)).unwrap();
        assert_eq!(changed.ttl, Some(None));
        assert_eq!(policy_of(&changed), above.without_ttl().with_timeout(SECOND));
        let short = asked::<Price>(&expander, OperationConfig::default().with_ttl(SECOND)).unwrap();
        assert_eq!(short.ttl, Some(Some(SECOND)));
    }

    #[test]
    fn an_entity_that_may_not_be_stale_is_not_whatever_its_policy_and_the_call_say() {
        let expander = expander(Policy::default().with_stale_if_error(9 * SECOND));
        for config in [OperationConfig::default(), OperationConfig::default().with_stale_if_error(SECOND)] {
            let policy = policy_of(&asked::<Grant>(&expander, config).unwrap());
            assert_eq!((policy.stale_life(), policy.timeout), (Duration::ZERO, Some(SECOND)));
        }
    }

    #[test]
    fn a_contradiction_of_an_entity_names_it_and_both_fields() {
        for expander in [
            expander(Policy::default().with_ttl(60 * SECOND)),
            expander(Policy::default()).with_ttl_policy(TtlPolicy::Fixed(60 * SECOND)),
        ] {
            let error = asked::<Idle>(&expander, OperationConfig::default()).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            for word in ["\"idle\"", "idle is not shorter than ttl"] {
                assert!(error.to_string().contains(word), "{error}");
            }
        }
        for ttl in [TtlPolicy::Infinite, TtlPolicy::PerType(|_| SECOND), TtlPolicy::Default] {
            let expander = expander(Policy::default()).with_ttl_policy(ttl);
            asked::<Idle>(&expander, OperationConfig::default()).unwrap();
        }
        let zero =
            asked::<Plain>(&expander(Policy::default()), OperationConfig::default().with_ttl(Duration::ZERO));
        assert_eq!(zero.map(|_| ()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
