//! The entity door: strategies, feeders, options, policies, metrics.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::Gate;
use cache_kit::{
    Cache, CacheExpander, CacheFeed, CacheMetrics, CacheService, CacheStrategy, DataRepository, Error,
    ErrorKind, GenericFeeder, InMemoryRepository, ManualClock, OperationConfig, Policy, Result, Source,
    Stored, TtlPolicy,
};
use common::{SourceDown, User, Users};

fn memory() -> (CacheExpander<InMemoryBackend>, InMemoryBackend) {
    let backend = InMemoryBackend::new();
    (CacheExpander::new(backend.clone()), backend)
}

async fn name(
    expander: &CacheExpander<InMemoryBackend>,
    users: &Users,
    strategy: CacheStrategy,
) -> Option<String> {
    let mut feeder = GenericFeeder::<User>::new(1);
    expander.with(&mut feeder, users, strategy).await.unwrap();
    feeder.data.map(|user| user.name)
}

#[tokio::test]
async fn each_strategy_uses_cache_and_source_as_it_says() {
    let (expander, backend) = memory();
    let users = Users::with(&[(1, "first")]);
    // Bypass: neither read nor write.
    assert_eq!(name(&expander, &users, CacheStrategy::Bypass).await.as_deref(), Some("first"));
    assert_eq!((users.asked(), common::values_in(&backend)), (1, 0));
    // Fresh: only the cache.
    assert_eq!(name(&expander, &users, CacheStrategy::Fresh).await, None);
    assert_eq!(users.asked(), 1);
    // Refresh: the source once, then the cache.
    assert_eq!(name(&expander, &users, CacheStrategy::Refresh).await.as_deref(), Some("first"));
    users.put(1, "second");
    assert_eq!(name(&expander, &users, CacheStrategy::Refresh).await.as_deref(), Some("first"));
    assert_eq!(name(&expander, &users, CacheStrategy::Fresh).await.as_deref(), Some("first"));
    assert_eq!(users.asked(), 2);
    assert_eq!(name(&expander, &users, CacheStrategy::Bypass).await.as_deref(), Some("second"));
    // Invalidate: drops, reads, stores.
    assert_eq!(name(&expander, &users, CacheStrategy::Invalidate).await.as_deref(), Some("second"));
    assert_eq!(name(&expander, &users, CacheStrategy::Fresh).await.as_deref(), Some("second"));
    assert_eq!(backend.get("user:1").await.unwrap().unwrap().get(..4), Some(&b"CKIT"[..]));
    assert_eq!(CacheStrategy::default(), CacheStrategy::Refresh);
}

#[tokio::test]
async fn a_row_that_does_not_exist_is_none_and_remembered_for_a_while() {
    let (expander, backend) = memory();
    let users = Users::default();
    for _ in 0..2 {
        assert_eq!(name(&expander, &users, CacheStrategy::Refresh).await, None);
    }
    assert_eq!((users.asked(), common::values_in(&backend), backend.stats().leases), (1, 1, 0));
}

#[tokio::test]
async fn the_outcome_tells_where_from_how_old_and_whether_stored() {
    let time = ManualClock::new();
    let backend = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let expander = CacheExpander::new(backend).with_clock(time.clock());
    let users = Users::with(&[(1, "one")]);
    let (refresh, config) = (CacheStrategy::Refresh, OperationConfig::default());
    let loaded = expander.get_outcome::<User, _>(&1, &users, refresh, config).await.unwrap();
    assert_eq!((loaded.source, loaded.age, loaded.stored), (Source::Load, None, Stored::Yes));
    time.advance(Duration::from_secs(7));
    let mut feeder = GenericFeeder::<User>::new(1);
    let cached = expander.with_outcome(&mut feeder, &users, refresh, config).await.unwrap();
    assert_eq!((cached.source, cached.age), (Source::Cache, Some(Duration::from_secs(7))));
    assert!(cached.is_hit() && !cached.is_degraded() && feeder.data.is_some());
    let nothing = expander.get_outcome::<User, _>(&2, &users, refresh, config).await.unwrap();
    assert_eq!((nothing.value, nothing.source), (None, Source::Nowhere));
}

#[tokio::test]
async fn options_of_a_call_set_its_life_and_its_retries() {
    let time = ManualClock::new();
    let backend = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let expander = CacheExpander::new(backend).with_clock(time.clock());
    let users = Users::with(&[(1, "one")]);
    let read = async |config| {
        let mut feeder = GenericFeeder::<User>::new(1);
        expander.with_config(&mut feeder, &users, CacheStrategy::Refresh, config).await.map(|()| feeder.data)
    };
    read(OperationConfig::default().with_ttl(Duration::from_secs(2))).await.unwrap();
    time.advance(Duration::from_secs(2));
    users.fail(2);
    tokio::time::pause();
    let error = read(OperationConfig::default().with_retry(1)).await.unwrap_err();
    assert_eq!(error.find_source::<SourceDown>(), Some(&SourceDown(3)), "expired, tried, tried again");
    users.fail(2);
    assert!(read(OperationConfig::default().with_retry(2)).await.unwrap().is_some());
    assert_eq!(users.asked(), 6);
    let error = read(OperationConfig::default().with_ttl(Duration::ZERO)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("ttl"), "{error}");
}

#[tokio::test]
async fn ttl_policies_decide_how_long_entries_live() {
    fn per_type(prefix: &str) -> Duration {
        assert_eq!(prefix, "user");
        Duration::from_secs(10)
    }
    for (policy, lives) in [
        (TtlPolicy::Default, Some(300)),
        (TtlPolicy::Fixed(Duration::from_secs(60)), Some(60)),
        (TtlPolicy::PerType(per_type), Some(10)),
        (TtlPolicy::Infinite, None),
    ] {
        let time = ManualClock::new();
        let backend = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
        let exact = Policy::default().with_ttl_jitter(0.0);
        let expander = CacheExpander::new(backend.clone()).with_clock(time.clock()).with_policy(exact);
        let expander = expander.unwrap().with_ttl_policy(policy);
        let users = Users::with(&[(1, "one")]);
        expander.get::<User, _>(&1, &users).await.unwrap();
        time.advance(Duration::from_millis(lives.unwrap_or(1 << 30) * 1000 - 1));
        assert!(backend.exists("user:1").await.unwrap(), "{policy:?}");
        time.advance(Duration::from_millis(1));
        assert_eq!(backend.exists("user:1").await.unwrap(), lives.is_none(), "{policy:?}");
    }
}

#[tokio::test]
async fn a_policy_that_says_zero_breaks_no_read() {
    let (expander, backend) = memory();
    let expander = expander.with_ttl_policy(TtlPolicy::Fixed(Duration::ZERO));
    let users = Users::with(&[(1, "one")]);
    let (refresh, config) = (CacheStrategy::Refresh, OperationConfig::default());
    let outcome = expander.get_outcome::<User, _>(&1, &users, refresh, config).await.unwrap();
    assert_eq!((outcome.value.unwrap().name.as_str(), outcome.stored), ("one", Stored::Failed));
    assert!(outcome.degraded.unwrap().to_string().contains("ttl is zero"));
    assert_eq!((expander.stats().store_failures, backend.stats().leases), (1, 0));
}

/// Notes what the hooks are told.
#[derive(Default)]
struct Noted {
    log: Vec<String>,
    refuse: &'static str,
}

impl Noted {
    fn note(&mut self, what: &'static str, detail: &str) -> Result<()> {
        self.log.push(format!("{what} {detail}"));
        if self.refuse == what { Err(Error::source(format!("{what} refused"))) } else { Ok(()) }
    }
}

impl CacheFeed<User> for Noted {
    fn entity_id(&mut self) -> u64 {
        1
    }

    fn feed(&mut self, entity: Option<User>) {
        self.log.push(format!("feed {}", entity.map_or("nothing".into(), |user| user.name)));
    }

    fn validate(&self) -> Result<()> {
        if self.refuse == "validate" { Err(Error::source("validate refused")) } else { Ok(()) }
    }

    fn on_hit(&mut self, key: &str) -> Result<()> {
        self.note("hit", key)
    }

    fn on_miss(&mut self, key: &str) -> Result<()> {
        self.note("miss", key)
    }

    fn on_loaded(&mut self, entity: &User) -> Result<()> {
        self.note("loaded", &entity.name)
    }
}

#[tokio::test]
async fn a_feeder_is_told_what_happens_and_may_say_no() {
    let (expander, _) = memory();
    let users = Users::with(&[(1, "one")]);
    let read = async |refuse| {
        let mut feeder = Noted { refuse, ..Noted::default() };
        let result = expander.with(&mut feeder, &users, CacheStrategy::Refresh).await;
        (feeder.log, result.err().map(|error| error.to_string()))
    };
    assert_eq!(read("").await.0, ["miss user:1", "loaded one", "feed one"]);
    assert_eq!(read("").await.0, ["hit user:1", "loaded one", "feed one"]);
    let asked = users.asked();
    assert_eq!(read("validate").await, (vec![], Some("the source failed".into())));
    assert_eq!(read("hit").await.0, ["hit user:1"]);
    assert_eq!(read("loaded").await.0, ["hit user:1", "loaded one"]);
    assert_eq!(users.asked(), asked);
}

#[tokio::test]
async fn an_entity_that_says_no_is_a_miss_in_the_cache_and_an_error_at_the_source() {
    let (expander, backend) = memory();
    let users = Users::with(&[(1, "invalid")]);
    assert!(expander.get::<User, _>(&1, &users).await.is_err());
    assert_eq!((common::values_in(&backend), backend.stats().leases), (0, 0));
    // Stored by somebody who did not ask it.
    users.put(1, "good");
    let careless = Cache::new(backend);
    careless.set("user:1", &User { id: 1, name: "invalid".into() }).await.unwrap();
    assert_eq!(expander.get::<User, _>(&1, &users).await.unwrap().unwrap().name, "good");
    assert_eq!(expander.stats().rejected.undecodable, 1);
    careless.set("user:1", &User { id: 1, name: "invalid".into() }).await.unwrap();
    let found = expander.get_many::<User, _>(&[1], &users).await.unwrap();
    assert_eq!(found[0].as_ref().unwrap().name, "good");
}

#[tokio::test]
async fn many_ids_are_one_read_of_the_source_in_order_with_duplicates() {
    let (expander, backend) = memory();
    let users = Users::with(&[(1, "one"), (2, "two"), (3, "three")]);
    expander.get::<User, _>(&2, &users).await.unwrap();
    let found = expander.get_many::<User, _>(&[3, 2, 9, 1, 3], &users).await.unwrap();
    let names: Vec<_> = found.iter().map(|user| user.as_ref().map(|user| user.name.as_str())).collect();
    assert_eq!(names, [Some("three"), Some("two"), None, Some("one"), Some("three")]);
    assert_eq!(users.asked(), 2, "one for the first read, one for the batch");
    assert_eq!((common::values_in(&backend), backend.stats().leases), (4, 0), "and that there is no 9");
    let again = expander.get_many::<User, _>(&[1, 2, 3], &users).await.unwrap();
    assert_eq!((again.iter().flatten().count(), users.asked()), (3, 2));
    assert!(expander.get_many::<User, _>(&[], &users).await.unwrap().is_empty());
    let stats = expander.stats();
    assert_eq!((stats.hits, stats.misses, stats.loads, stats.stored), (4, 4, 2, 4));
    assert_eq!(stats.absent_stored, 1);
}

#[tokio::test]
async fn a_repository_that_answers_too_few_ids_is_an_error_that_says_so() {
    struct Short;
    impl DataRepository<User> for Short {
        async fn fetch_by_id(&self, _: &u64) -> Result<Option<User>> {
            Ok(None)
        }
        async fn fetch_by_ids(&self, _: &[u64]) -> Result<Vec<Option<User>>> {
            Ok(vec![None])
        }
    }
    let (expander, backend) = memory();
    let error = expander.get_many::<User, _>(&[1, 2], &Short).await.unwrap_err();
    assert!(error.to_string().contains("1 answers for 2 ids"), "{error}");
    assert_eq!(backend.stats().leases, 0);
    let error = DataRepository::<User>::count(&Short).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(DataRepository::<User>::fetch_all(&Short).await.is_err());
}

#[tokio::test]
async fn a_service_is_cloned_and_stays_one_cache() {
    let service = CacheService::new(InMemoryBackend::new());
    let (other, users) = (service.clone(), Users::with(&[(1, "one")]));
    let mut feeder = GenericFeeder::<User>::new(1);
    service.execute(&mut feeder, &users, CacheStrategy::Refresh).await.unwrap();
    let config = OperationConfig::default();
    other.execute_with_config(&mut feeder, &users, CacheStrategy::Fresh, config).await.unwrap();
    assert_eq!(feeder.data.unwrap().name, "one");
    assert_eq!(other.get_owned::<User, _>(1, Arc::new(users.clone())).await.unwrap().unwrap().name, "one");
    assert_eq!(other.get_many::<User, _>(&[1], &users).await.unwrap().len(), 1);
    assert_eq!((users.asked(), service.stats().hits), (1, 3));
    other.invalidate::<User>(&1).await.unwrap();
    assert!(service.get::<User, _>(&1, &users).await.unwrap().is_some());
    assert_eq!(users.asked(), 2);
    assert_eq!(common::values_in(service.expander().backend()), 1);
}

#[tokio::test]
async fn an_in_memory_repository_is_a_source_for_tests() {
    let mut users = InMemoryRepository::<User>::new();
    assert!(users.is_empty());
    users.insert(1, User { id: 1, name: "one".into() });
    assert_eq!(users.fetch_by_ids(&[1, 2]).await.unwrap().len(), 2);
    assert_eq!(
        (users.count().await.unwrap(), users.fetch_all().await.unwrap().len(), users.len()),
        (1, 1, 1)
    );
    assert!(users.remove(&1).is_some());
    users.clear();
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl CacheMetrics for Told {
    fn record_hit(&self, key: &str, _: Duration) {
        self.0.lock().unwrap().push(format!("hit {key}"));
    }

    fn record_miss(&self, key: &str, _: Duration) {
        self.0.lock().unwrap().push(format!("miss {key}"));
    }

    fn record_set(&self, key: &str, _: Duration) {
        self.0.lock().unwrap().push(format!("set {key}"));
    }

    fn record_delete(&self, key: &str, _: Duration) {
        self.0.lock().unwrap().push(format!("delete {key}"));
        panic!("a hook out of order");
    }

    fn record_error(&self, key: &str, error: &str) {
        self.0.lock().unwrap().push(format!("error {key} {error}"));
    }
}

#[tokio::test]
async fn metrics_are_told_and_a_hook_that_panics_is_on_its_own() {
    let told = Told::default();
    let expander = CacheExpander::new(InMemoryBackend::new()).with_metrics(Box::new(told.clone()));
    let users = Users::with(&[(1, "one")]);
    expander.get::<User, _>(&1, &users).await.unwrap();
    expander.get::<User, _>(&1, &users).await.unwrap();
    users.fail(1);
    let _ = expander.get::<User, _>(&2, &users).await;
    let expected =
        ["miss user:1", "set user:1", "hit user:1", "miss user:2", "error user:2 the source failed"];
    assert_eq!(*told.0.lock().unwrap(), expected);
    told.0.lock().unwrap().clear();
    expander.get_many::<User, _>(&[1, 3], &Users::with(&[(3, "three")])).await.unwrap();
    assert_eq!(*told.0.lock().unwrap(), ["hit user:1", "miss user:3", "set user:3"]);
    // The mutex of the hook is poisoned by this, which is the hook's affair.
    expander.invalidate::<User>(&1).await.unwrap();
    let stats = expander.stats();
    assert_eq!((stats.hits, stats.misses, stats.loads, stats.load_failures), (2, 3, 3, 1));
    assert_eq!((stats.stored, stats.invalidations), (2, 1));
    assert!((stats.hit_rate() - 0.4).abs() < 1e-9);
}

#[tokio::test]
async fn both_doors_of_a_cache_are_one_cache() {
    let cache = Cache::builder().namespace("shop").build(InMemoryBackend::new()).unwrap();
    let entities = cache.entities();
    let users = Users::with(&[(1, "one"), (2, "two")]);
    entities.get::<User, _>(&1, &users).await.unwrap();
    assert_eq!(cache.get::<User>("user:1").await.unwrap().unwrap().name, "one");
    assert_eq!((cache.stats().loads, cache.stats().hits), (1, 1));
    assert_eq!(cache.stats(), entities.stats());

    // A load through one door is joined through the other.
    let gate = Gate::new();
    let (at, of_cache) = (gate.clone(), cache.clone());
    let load = tokio::spawn(async move {
        of_cache
            .get_or_load("user:2", move || async move {
                at.pass().await;
                Ok::<_, Error>(User { id: 2, name: "joined".into() })
            })
            .await
    });
    gate.reached().await;
    let reader =
        tokio::spawn(
            async move { cache.entities().get::<User, _>(&2, &users).await.map(|user| (user, users)) },
        );
    while entities.gauges().waiting < 1 {
        tokio::task::yield_now().await;
    }
    gate.open();
    let (user, users) = reader.await.unwrap().unwrap();
    assert_eq!(user.unwrap().name, "joined");
    load.await.unwrap().unwrap();
    assert_eq!(users.asked(), 1, "nobody asked for the second user");
}
