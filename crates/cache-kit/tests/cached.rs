//! `#[cached]`: functions whose answers are read through the cache.

#![cfg(feature = "macros")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and each has its own thread")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::testing::Gate;
use cache_kit::{Cache, ErrorKind, ManualClock, Policy, PolicyOverrides, cached};

/// A source that counts how often it is asked.
#[derive(Clone, Default)]
struct Source(Arc<AtomicU64>);

impl Source {
    fn ask(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn asked(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl AsRef<Source> for Source {
    fn as_ref(&self) -> &Source {
        self
    }
}

fn cache() -> Cache {
    Cache::new(InMemoryBackend::new())
}

/// A cache whose time is moved by hand, and whose entries live as long as they are asked to.
fn at(time: &ManualClock) -> Cache {
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let policy = Policy::default().with_ttl_jitter(0.0);
    Cache::builder().clock(time.clock()).policy(policy).build(memory).unwrap()
}

#[cached(cache = cache, key = "answer:{id}")]
async fn answer(cache: &Cache, source: &Source, id: u64) -> cache_kit::Result<u64> {
    Ok(source.ask() * 100 + id)
}

#[tokio::test]
async fn a_function_is_asked_once_and_its_answer_is_under_its_key() {
    let (cache, source) = (cache(), Source::default());
    for _ in 0..3 {
        assert_eq!(answer(&cache, &source, 7).await.unwrap(), 107);
    }
    assert_eq!(source.asked(), 1);
    assert_eq!(cache.get::<u64>("answer:7").await.unwrap(), Some(107));
    assert_eq!(answer(&cache, &source, 8).await.unwrap(), 208, "another argument is another entry");
}

#[tokio::test]
async fn invalidate_takes_what_the_key_holds_and_beats_a_load_that_is_under_way() {
    #[cached(cache = cache, key = "slow:{id}")]
    async fn slow(cache: Cache, gate: Gate, id: u64) -> cache_kit::Result<u64> {
        gate.pass().await;
        Ok(id)
    }
    let (cache, gate) = (cache(), Gate::new());
    let load = tokio::spawn(slow(cache.clone(), gate.clone(), 7));
    gate.reached().await;
    slow_invalidate(cache.clone(), 7).await.unwrap();
    gate.open();
    assert_eq!(load.await.unwrap().unwrap(), 7);
    assert_eq!(cache.get::<u64>("slow:7").await.unwrap(), None, "it stored nothing");
}

#[tokio::test]
async fn refresh_asks_the_function_and_stores_what_it_answers() {
    let (cache, source) = (cache(), Source::default());
    answer(&cache, &source, 7).await.unwrap();
    assert_eq!(answer_refresh(&cache, &source, 7).await.unwrap(), 207);
    assert_eq!(answer(&cache, &source, 7).await.unwrap(), 207);
    assert_eq!(source.asked(), 2);
}

#[derive(Clone, Debug, PartialEq)]
enum Failure {
    Refused(u64),
    Cache(ErrorKind),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Failure {}

impl From<cache_kit::Error> for Failure {
    fn from(error: cache_kit::Error) -> Self {
        Self::Cache(error.kind())
    }
}

#[tokio::test]
async fn an_error_is_not_cached_and_comes_back_as_the_function_returned_it() {
    #[cached(cache = cache, key = "refuses:{id}")]
    async fn refuses(cache: &Cache, source: &Source, id: u64) -> Result<u64, Failure> {
        Err(Failure::Refused(source.ask() + id))
    }
    let (cache, source) = (cache(), Source::default());
    assert_eq!(refuses(&cache, &source, 10).await, Err(Failure::Refused(11)));
    assert_eq!(refuses(&cache, &source, 10).await, Err(Failure::Refused(12)));
}

#[tokio::test]
async fn what_the_cache_itself_cannot_do_becomes_an_error_of_the_function() {
    #[cached(cache = cache, key = "panics")]
    async fn panics(cache: &Cache) -> Result<u64, Failure> {
        panic!("on purpose")
    }
    assert_eq!(panics(&cache()).await, Err(Failure::Cache(ErrorKind::LoaderPanicked)));
}

#[tokio::test]
async fn an_error_that_cannot_be_cloned_is_found_within_that_of_the_cache() {
    #[cached(cache = cache, key = "file")]
    async fn read(cache: &Cache) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Err(std::io::Error::other("unplugged"))?
    }
    #[cached(cache = cache, key = "port:{text}")]
    async fn port(cache: &Cache, text: &str) -> cache_kit::Result<u16> {
        text.parse().map_err(cache_kit::Error::source)
    }
    let error = read(&cache()).await.unwrap_err().downcast::<cache_kit::Error>().unwrap();
    assert_eq!(error.find_source::<std::io::Error>().unwrap().to_string(), "unplugged");
    let error = port(&cache(), "http").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source);
    assert!(error.find_source::<std::num::ParseIntError>().is_some());
}

#[tokio::test]
async fn that_there_is_none_is_remembered_for_a_moment() {
    #[cached(cache = cache, key = "user:{id}")]
    async fn user(cache: &Cache, source: &Source, id: u64) -> cache_kit::Result<Option<u64>> {
        Ok((source.ask() > 1).then_some(id))
    }
    let (time, source) = (ManualClock::new(), Source::default());
    let cache = at(&time);
    for _ in 0..3 {
        assert_eq!(user(&cache, &source, 7).await.unwrap(), None);
    }
    assert_eq!(source.asked(), 1);
    time.advance(Policy::default().absent_ttl);
    assert_eq!(user(&cache, &source, 7).await.unwrap(), Some(7));
    assert_eq!(cache.get::<u64>("user:7").await.unwrap(), Some(7), "stored as the value, not as an option");
}

#[cached(cache = cache, key = "name:{id}")]
async fn name(cache: &Cache, source: &Source, id: String) -> String {
    format!("{id}{}", source.ask())
}

#[cached(cache = cache, key = "maybe:{id}", policy = policy)]
async fn maybe(cache: &Cache, source: &Source, policy: PolicyOverrides, id: String) -> Option<String> {
    Some(format!("{id}{}", source.ask()))
}

#[tokio::test]
async fn a_function_that_cannot_fail_answers_by_itself_where_the_cache_cannot() {
    let (cache, source) = (cache(), Source::default());
    assert_eq!(name(&cache, &source, "a".to_owned()).await, "a1");
    assert_eq!(name(&cache, &source, "a".to_owned()).await, "a1");
    let plain = PolicyOverrides::default();
    assert_eq!(maybe(&cache, &source, plain, "b".to_owned()).await.unwrap(), "b2");
    assert_eq!(maybe(&cache, &source, plain, "b".to_owned()).await.unwrap(), "b2");
    // It ends by not being read before it ends at all: refused by the cache.
    let contradiction = plain.with_ttl(Duration::from_secs(1)).with_idle(Duration::from_secs(2));
    assert_eq!(maybe(&cache, &source, contradiction, "b".to_owned()).await.unwrap(), "b3");
}

#[tokio::test]
async fn values_full_of_separators_never_make_the_same_key() {
    #[cached(cache = cache, key = "pair:{a}:{b}")]
    async fn pair(cache: &Cache, a: &str, b: &str) -> cache_kit::Result<(String, String)> {
        Ok((a.to_owned(), b.to_owned()))
    }
    let cache = cache();
    for a in ["", "a", ":", "a:", "%3A", "%"] {
        for b in ["", "a", ":", ":a", "%3A", "3A"] {
            assert_eq!(pair(&cache, a, b).await.unwrap(), (a.to_owned(), b.to_owned()));
        }
    }
    assert_eq!(cache.stats().hits, 0);
}

/// Something with a cache of its own.
struct Shop {
    cache: Cache,
    source: Source,
    region: &'static str,
}

impl Shop {
    #[cached(cache = self.cache, key = "price:{self.region}:{id}", tags = ["region:{self.region}"], ttl = "10s")]
    async fn price(&self, id: u64) -> cache_kit::Result<u64> {
        Ok(self.source.ask() * 100 + id)
    }

    #[cached(cache = self.cache, key = "owned:{id}", detached)]
    async fn owned(self: Arc<Self>, id: u64) -> cache_kit::Result<u64> {
        Ok(self.source.ask() * 100 + id)
    }

    #[cached(cache = cache, key = "of:{id}")]
    async fn of(cache: &Cache, id: u64) -> cache_kit::Result<Self> {
        let region = if id == 0 { "none" } else { "eu" };
        Ok(Self { cache: cache.clone(), source: Source::default(), region })
    }
}

impl Clone for Shop {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), source: self.source.clone(), region: self.region }
    }
}

impl serde::Serialize for Shop {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(self.region == "eu")
    }
}

impl<'de> serde::Deserialize<'de> for Shop {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let region = if bool::deserialize(deserializer)? { "eu" } else { "none" };
        Ok(Self { cache: Cache::new(InMemoryBackend::new()), source: Source::default(), region })
    }
}

fn shop() -> (Arc<Shop>, ManualClock) {
    let time = ManualClock::new();
    (Arc::new(Shop { cache: at(&time), source: Source::default(), region: "eu" }), time)
}

#[tokio::test]
async fn methods_find_cache_key_and_tags_in_themselves() {
    let (shop, time) = shop();
    assert_eq!(shop.price(7).await.unwrap(), 107);
    assert_eq!(shop.price(7).await.unwrap(), 107);
    assert_eq!(shop.cache.get::<u64>("price:eu:7").await.unwrap(), Some(107));
    shop.cache.invalidate_tag("region:eu").await.unwrap();
    assert_eq!(shop.price(7).await.unwrap(), 207, "the tag");
    shop.price_invalidate(7).await.unwrap();
    assert_eq!(shop.price_refresh(7).await.unwrap(), 307);
    time.advance(Duration::from_secs(9));
    assert_eq!(shop.price(7).await.unwrap(), 307);
    time.advance(Duration::from_secs(1));
    assert_eq!(shop.price(7).await.unwrap(), 407, "the life");
}

#[tokio::test]
async fn functions_of_a_type_may_speak_of_it() {
    let cache = cache();
    assert_eq!(Shop::of(&cache, 1).await.unwrap().region, "eu");
    Shop::of_invalidate(&cache, 1).await.unwrap();
    assert_eq!(Shop::of_refresh(&cache, 0).await.unwrap().region, "none");
}

#[tokio::test]
async fn a_detached_load_ends_although_its_caller_goes_away() {
    #[cached(cache = cache, key = "slow", detached)]
    async fn slow(cache: Cache, gate: Gate) -> cache_kit::Result<u64> {
        gate.pass().await;
        Ok(7)
    }
    let (cache, gate) = (cache(), Gate::new());
    let caller = tokio::spawn(slow(cache.clone(), gate.clone()));
    gate.reached().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    gate.open();
    let unused = Gate::new();
    assert_eq!(
        slow(cache.clone(), unused).await.unwrap(),
        7,
        "whoever comes now waits for it, or finds it stored"
    );
}

#[tokio::test]
async fn a_detached_method_owns_itself() {
    let (shop, _) = shop();
    assert_eq!(Arc::clone(&shop).owned(7).await.unwrap(), 107);
    Arc::clone(&shop).owned_invalidate(7).await.unwrap();
    assert_eq!(Arc::clone(&shop).owned_refresh(7).await.unwrap(), 207);
}

#[tokio::test]
async fn what_a_function_is_written_with_stays_possible() {
    /// Documented, generic, with a bound, early returns, `?`, and an argument that changes.
    #[cached(cache = cache, key = "many:{start}:{count}", skip(label))]
    async fn many<S>(
        cache: &Cache,
        source: &S,
        mut start: u64,
        count: u64,
        label: &str,
    ) -> cache_kit::Result<Vec<u64>>
    where
        S: AsRef<Source> + Sync,
    {
        if count == 0 {
            return Ok(Vec::new());
        }
        let step: u64 = label.parse().map_err(cache_kit::Error::source)?;
        let mut found = vec![start + source.as_ref().ask()];
        while (found.len() as u64) < count {
            start += step;
            found.push(start);
        }
        Ok(found)
    }
    let (cache, source) = (cache(), Source::default());
    assert_eq!(many(&cache, &source, 10, 3, "5").await.unwrap(), [11, 15, 20]);
    assert_eq!(
        many(&cache, &source, 10, 3, "6").await.unwrap(),
        [11, 15, 20],
        "what is skipped does not count"
    );
    assert_eq!(many(&cache, &source, 10, 0, "5").await.unwrap(), [0_u64; 0]);
    many_invalidate(&cache, 10, 3).await.unwrap();
    assert_eq!(many_refresh(&cache, &source, 10, 3, "1").await.unwrap(), [12, 11, 12]);
}

#[tokio::test]
async fn a_load_is_shared_by_all_who_ask() {
    #[cached(cache = cache, key = "shared", detached)]
    async fn shared(cache: Cache, gate: Gate, source: Source) -> cache_kit::Result<u64> {
        gate.pass().await;
        Ok(source.ask())
    }
    let (cache, gate, source) = (cache(), Gate::new(), Source::default());
    let callers: Vec<_> =
        (0..100).map(|_| tokio::spawn(shared(cache.clone(), gate.clone(), source.clone()))).collect();
    gate.reached().await;
    gate.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), 1);
    }
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn a_trait_may_have_cached_methods_without_siblings() {
    trait Prices {
        async fn price(&self, id: u64) -> cache_kit::Result<u64>;
    }
    struct Cached(Cache, Source);
    impl Prices for Cached {
        #[cached(cache = self.0, key = "trait:{id}", siblings = false)]
        async fn price(&self, id: u64) -> cache_kit::Result<u64> {
            Ok(self.1.ask() + id)
        }
    }
    let prices = Cached(cache(), Source::default());
    assert_eq!(prices.price(7).await.unwrap(), 8);
    assert_eq!(prices.price(7).await.unwrap(), 8);
}

#[expect(
    clippy::too_many_arguments,
    reason = "what is expected of a function is not expected of its siblings"
)]
#[cached(cache = cache, key = "wide:{h}", skip(b, c, d, e, f, g))]
async fn wide(cache: &Cache, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8) -> cache_kit::Result<u8> {
    Ok(b + c + d + e + f + g + h)
}

#[tokio::test]
async fn what_lints_are_expected_to_say_stays_with_the_function() {
    assert_eq!(wide(&cache(), 1, 1, 1, 1, 1, 1, 1).await.unwrap(), 7);
}
