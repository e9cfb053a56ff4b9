//! Leases on Redis: a token in a stub under the key itself.
//!
//! Whatever happens to the key (a `DEL` by anybody, an overwrite, expiry, eviction, a flush) takes the stub, and
//! with it the lease. Scripts compare and change in one step; they are pinned by their hash and sent again where
//! a server does not know them. Data goes to them as keys and arguments only.
//!
//! Where scripts are forbidden, the fence is made of *tombstones*: an invalidation leaves one for a while, and a
//! fill stores only if the key is absent.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redis::{Cmd, RedisError, Value, cmd};

use super::error::{convert, is_no_permission, is_no_script};
use super::node::Answer;
use super::script::{ACQUIRE, FILL, Part, RELEASE, RENEW, Script};
use super::stub::{self, Held};
use super::topology::unexpected;
use super::{LONGEST_MILLIS, Shared, bytes_of, ttl_millis};
use crate::backend::{Acquired, Filled, Lease, check_life, check_ttl};
use crate::error::Result;

/// How long a tombstone keeps late fills away, and so how long a load may take in this mode.
pub(super) const HOLD_OFF: Duration = Duration::from_secs(30);

/// How long a fill may be on its way.
const MARGIN: Duration = Duration::from_secs(1);

/// What this server was found to be able to do.
#[derive(Debug, Default)]
pub(super) struct Mode {
    /// `SET … NX GET` is a syntax error.
    no_set_get: AtomicBool,
    /// Scripts are not allowed.
    tombstones: AtomicBool,
}

impl Mode {
    pub(super) fn uses_tombstones(&self) -> bool {
        self.tombstones.load(Ordering::Relaxed)
    }

    /// Whether an absent key is leased without a script.
    pub(super) fn leases_by_set(&self) -> bool {
        !self.no_set_get.load(Ordering::Relaxed)
    }

    /// Found once, it holds: from here on all fills go by tombstones.
    pub(super) fn use_tombstones(&self) {
        self.tombstones.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        check_life(life)?;
        if self.topology.mode().uses_tombstones() {
            return self.acquire_by_tombstone(key).await;
        }
        let token = token();
        if seen.is_none()
            && self.topology.mode().leases_by_set()
            && let Some(acquired) = self.acquire_absent(key, token, life).await?
        {
            return Ok(acquired);
        }
        let claim = Part::claim(self.full(key), token, life_millis(life), seen);
        match self.eval("acquire", &ACQUIRE, &claim).await? {
            Ok(answer) => acquired(answer, token),
            Err(error) => self.acquire_refused(key, error).await,
        }
    }

    /// What there is to say where the script was refused, which shows that scripts are forbidden.
    pub(super) async fn acquire_refused(&self, key: &str, error: RedisError) -> Result<Acquired> {
        if !is_no_permission(&error) {
            return Err(convert("acquire", error));
        }
        self.topology.mode().use_tombstones();
        self.acquire_by_tombstone(key).await
    }

    /// One exchange that answers a read and takes the lease; `None` if it takes a script to tell.
    async fn acquire_absent(&self, key: &str, token: u128, life: Duration) -> Result<Option<Acquired>> {
        let full = self.full(key);
        let answer = self.topology.send("acquire", &full, &lease_if_absent(&full, token, life)).await?;
        self.acquired_absent(answer, token)
    }

    /// What [`lease_if_absent`] answers; `None` if it takes a script to tell.
    pub(super) fn acquired_absent(&self, answer: Answer<Value>, token: u128) -> Result<Option<Acquired>> {
        match answer {
            Ok(Value::Nil) => Ok(Some(Acquired::Granted { lease: Lease::new(token), kept: None })),
            Ok(stored) => match bytes_of(stored).map(stub::parse) {
                Some(Held::Value(value)) => Ok(Some(Acquired::Present { value })),
                Some(Held::Leased(None)) => Ok(Some(Acquired::Busy { kept: None })),
                // Whether that lease is over, only the server's clock can tell.
                Some(Held::Leased(Some(_))) => Ok(None),
                None => Err(unexpected("acquire")),
            },
            // A server before 7.0, or a key of another type, which the script replaces.
            Err(error) => {
                if error.code() == Some("ERR") {
                    self.topology.mode().no_set_get.store(true, Ordering::Relaxed);
                } else if !super::error::is_wrong_type(&error) && !is_no_permission(&error) {
                    return Err(convert("acquire", error));
                }
                Ok(None)
            }
        }
    }

    pub(super) async fn fill(
        &self,
        key: &str,
        lease: &Lease,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Filled> {
        check_ttl(ttl)?;
        let (value, millis) = (stub::escape(value), ttl.and_then(ttl_millis));
        if !self.topology.mode().uses_tombstones() {
            let fill = Part::fill(self.full(key), lease, value, millis);
            let answer = self.eval("fill", &FILL, &fill).await?;
            return answer.map(|answer| filled(&answer)).map_err(|error| convert("fill", error));
        }
        // A load that took longer than tombstones stay may have been overtaken.
        if outlasts_tombstones(lease, uptime()) {
            return Ok(Filled::Refused);
        }
        let mut command = cmd("SET");
        command.arg(self.full(key)).arg(&value[..]).arg("NX");
        if let Some(millis) = millis {
            command.arg("PX").arg(millis);
        }
        let stored = self.ask("fill", key, &command).await? != Value::Nil;
        Ok(if stored { Filled::Stored } else { Filled::Refused })
    }

    pub(super) async fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        check_life(life)?;
        if self.topology.mode().uses_tombstones() {
            // Nothing was taken that could end; but what was invalidated since shows a tombstone.
            let holds = matches!(self.acquire_by_tombstone(key).await?, Acquired::Granted { .. });
            return Ok(holds.then(|| lease.clone()));
        }
        let lives_on = Part::lease(self.full(key), lease).with(life_millis(life).to_string());
        let answer = self.eval("renew", &RENEW, &lives_on).await?;
        match answer.map_err(|error| convert("renew", error))? {
            Value::Int(1) => Ok(Some(lease.clone())),
            Value::Int(0) => Ok(None),
            _ => Err(unexpected("renew")),
        }
    }

    pub(super) async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        if self.topology.mode().uses_tombstones() {
            return Ok(());
        }
        let over = Part::lease(self.full(key), lease);
        self.eval("release", &RELEASE, &over).await?.map_err(|error| convert("release", error))?;
        Ok(())
    }

    /// Without scripts nothing is taken: a fill stores if the key is absent, which a tombstone prevents.
    pub(super) async fn acquire_by_tombstone(&self, key: &str) -> Result<Acquired> {
        let lease = Lease::new(uptime().as_millis());
        let mut command = cmd("GET");
        command.arg(self.full(key));
        match bytes_of(self.ask("acquire", key, &command).await?).map(stub::parse) {
            None => Ok(Acquired::Granted { lease, kept: None }),
            Some(Held::Value(value)) => Ok(Acquired::Present { value }),
            Some(Held::Leased(kept)) => Ok(Acquired::Busy { kept }),
        }
    }

    /// Calls a script for one key, by its hash, and sends it where the server does not know it.
    async fn eval(&self, operation: &'static str, script: &Script, part: &Part<'_>) -> Result<Answer<Value>> {
        let mut answer = self.topology.send(operation, part.key(), &script.by_hash(&[part])).await?;
        if answer.as_ref().is_err_and(is_no_script) {
            answer = self.topology.send(operation, part.key(), &script.by_source(&[part])).await?;
        }
        match answer {
            // A list of one.
            Ok(Value::Array(mut answers)) => answers.pop().map(Ok).ok_or_else(|| unexpected(operation)),
            Ok(_) => Err(unexpected(operation)),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// Reads a key on the server, and leases it if it is absent.
pub(super) fn lease_if_absent(full: &str, token: u128, life: Duration) -> Cmd {
    // By this process's clock: the stub goes with its own expiry, and only stubs that keep a value are judged
    // by the time that they name.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let end = u64::try_from(now.saturating_add(life).as_millis()).unwrap_or(u64::MAX);
    let end = end.saturating_add(60_000);
    let mut command = cmd("SET");
    command.arg(full).arg(stub::stub(token, end)).arg("NX").arg("GET");
    if let Some(millis) = ttl_millis(life) {
        command.arg("PX").arg(millis);
    }
    command
}

/// What [`ACQUIRE`] says of a key.
pub(super) fn acquired(answer: Value, token: u128) -> Result<Acquired> {
    let Value::Array(mut parts) = answer else { return Err(unexpected("acquire")) };
    let value = parts.pop().and_then(bytes_of);
    match (parts.pop(), value) {
        (Some(Value::Int(1)), kept) => Ok(Acquired::Granted { lease: Lease::new(token), kept }),
        (Some(Value::Int(2)), kept) => Ok(Acquired::Busy { kept }),
        (Some(Value::Int(3)), Some(value)) => Ok(Acquired::Present { value }),
        _ => Err(unexpected("acquire")),
    }
}

/// What [`FILL`] says of a key.
pub(super) fn filled(answer: &Value) -> Filled {
    if *answer == Value::Int(1) { Filled::Stored } else { Filled::Refused }
}

/// The life of a lease for a script, which counts its end.
pub(super) fn life_millis(life: Duration) -> i64 {
    ttl_millis(life).unwrap_or(LONGEST_MILLIS)
}

/// Whether a tombstone of after this lease was taken may be gone by the time that a fill arrives which is sent now.
fn outlasts_tombstones(lease: &Lease, uptime: Duration) -> bool {
    let age = uptime.as_millis().saturating_sub(lease.token());
    age + MARGIN.as_millis() >= HOLD_OFF.as_millis()
}

/// How long this process has had leases: what a lease without a stub says of its age.
fn uptime() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// A token that repeats with no other, whatever restarts: random, from the system.
pub(super) fn token() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    // Keys of `RandomState` come from the system's randomness, and differ for each one made; the hash of a
    // counter under two of them is as random as they are.
    let half = || u128::from(RandomState::new().hash_one(fastrand::u64(..)));
    (half() << 64) | half()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_scripts_a_load_that_took_as_long_as_tombstones_stay_stores_nothing() {
        let lease = Lease::new(5_000);
        let begin = Duration::from_secs(5);
        assert!(!outlasts_tombstones(&lease, begin));
        assert!(!outlasts_tombstones(&lease, begin + HOLD_OFF - 2 * MARGIN));
        assert!(outlasts_tombstones(&lease, begin + HOLD_OFF - MARGIN));
        assert!(outlasts_tombstones(&lease, begin + 2 * HOLD_OFF));
    }
}
