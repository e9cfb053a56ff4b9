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
use redis::{Cmd, Value, cmd};
use sha1::{Digest as _, Sha1};

use super::error::{convert, is_no_permission, is_no_script};
use super::node::Answer;
use super::stub::{self, ESCAPE_MARK, Held, STUB_MARK};
use super::topology::unexpected;
use super::{LONGEST_MILLIS, Shared, bytes_of, ttl_millis};
use crate::backend::{Acquired, Filled, Lease, check_life};
use crate::error::Result;

/// How long a tombstone keeps late fills away, and so how long a load may take in this mode.
pub(super) const HOLD_OFF: Duration = Duration::from_secs(30);

/// How long a fill may be on its way.
const MARGIN: Duration = Duration::from_secs(1);

/// A script and its hash.
pub(super) struct Script {
    pub(super) source: String,
    pub(super) sha1: String,
}

impl Script {
    /// With what all of them share: reading a stub apart, and storing another value with the life that is left.
    fn new(source: &str) -> Self {
        // The layout is that of `stub`; Lua counts from 1.
        let parts = r"
local function millis()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end
local function read(key)
  local stored = redis.pcall('GET', key)
  if type(stored) ~= 'string' then return nil end
  if string.sub(stored, 1, 16) ~= ARGV[1] then return { value = stored } end
  local stub = { token = string.sub(stored, 17, 32), live = tonumber(string.sub(stored, 33, 48), 16) > millis() }
  if string.sub(stored, 49, 49) == '1' then stub.value = string.sub(stored, 50) end
  return stub
end
local function replace(key, value)
  local left = redis.call('PTTL', key)
  if left > 0 then redis.call('SET', key, value, 'PX', left) else redis.call('SET', key, value) end
end
local function plain(value)
  if string.sub(value, 1, 16) == ARGV[2] then return string.sub(value, 17) end
  return value
end
";
        Self::plain(&format!("{parts}{source}"))
    }

    /// Without the parts that leases share.
    pub(super) fn plain(source: &str) -> Self {
        Self { source: source.to_owned(), sha1: hex(&sha1_of(source.as_bytes())) }
    }
}

/// ARGV: stub mark, escape mark, token, life in ms, SHA-1 of what was seen or empty.
/// Gives 1 and what is kept; 2 and what is kept, if busy; 3 and the value, if something else is there.
static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = read(KEYS[1])
local value = held and held.value
if value and (ARGV[5] == '' or redis.sha1hex(plain(value)) ~= ARGV[5]) then return { 3, plain(value) } end
if held and held.token and held.live then return { 2, value and plain(value) or false } end
local head = ARGV[1] .. ARGV[3] .. string.format('%016x', millis() + ARGV[4])
if not value then
  redis.call('SET', KEYS[1], head .. '0', 'PX', ARGV[4])
  return { 1, false }
end
replace(KEYS[1], head .. '1' .. value)
return { 1, plain(value) }
",
    )
});

/// ARGV: stub mark, escape mark, token, value, life in ms or empty. Gives 1 if it was stored.
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = read(KEYS[1])
if not (held and held.token == ARGV[3] and held.live) then return 0 end
if ARGV[5] == '' then
  redis.call('SET', KEYS[1], ARGV[4])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
return 1
",
    )
});

/// ARGV: stub mark, escape mark, token.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = read(KEYS[1])
if not (held and held.token == ARGV[3]) then return 0 end
if held.value then
  replace(KEYS[1], held.value)
else
  redis.call('DEL', KEYS[1])
end
return 1
",
    )
});

/// ARGV: stub mark, escape mark, token, life in ms. Gives 1 if it was renewed.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local held = read(KEYS[1])
if not (held and held.token == ARGV[3] and held.live) then return 0 end
local head = ARGV[1] .. ARGV[3] .. string.format('%016x', millis() + ARGV[4])
if not held.value then
  redis.call('SET', KEYS[1], head .. '0', 'PX', ARGV[4])
  return 1
end
replace(KEYS[1], head .. '1' .. held.value)
return 1
",
    )
});

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
            && !self.topology.mode().no_set_get.load(Ordering::Relaxed)
            && let Some(acquired) = self.acquire_absent(key, token, life).await?
        {
            return Ok(acquired);
        }
        let seen = seen.map_or_else(String::new, |seen| hex(&sha1_of(seen)));
        let call = |command: &mut Cmd| {
            command.arg(&STUB_MARK[..]).arg(&ESCAPE_MARK[..]).arg(&token.to_be_bytes()[..]);
            command.arg(life_millis(life)).arg(seen.as_str());
        };
        let answer = match self.eval("acquire", &ACQUIRE, key, call).await? {
            Ok(answer) => answer,
            Err(error) if is_no_permission(&error) => {
                self.topology.mode().use_tombstones();
                return self.acquire_by_tombstone(key).await;
            }
            Err(error) => return Err(convert("acquire", error)),
        };
        let Value::Array(mut parts) = answer else { return Err(unexpected("acquire")) };
        let value = parts.pop().and_then(bytes_of);
        match (parts.pop(), value) {
            (Some(Value::Int(1)), kept) => Ok(Acquired::Granted { lease: Lease::new(token), kept }),
            (Some(Value::Int(2)), kept) => Ok(Acquired::Busy { kept }),
            (Some(Value::Int(3)), Some(value)) => Ok(Acquired::Present { value }),
            _ => Err(unexpected("acquire")),
        }
    }

    /// One exchange that answers a read and takes the lease; `None` if it takes a script to tell.
    async fn acquire_absent(&self, key: &str, token: u128, life: Duration) -> Result<Option<Acquired>> {
        // By this process's clock: the stub goes with its own expiry, and only stubs that keep a value are judged
        // by the time that they name.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = u64::try_from(now.saturating_add(life).as_millis()).unwrap_or(u64::MAX);
        let end = end.saturating_add(60_000);
        let mut command = cmd("SET");
        command.arg(self.full(key)).arg(stub::stub(token, end)).arg("NX").arg("GET");
        if let Some(millis) = ttl_millis(life) {
            command.arg("PX").arg(millis);
        }
        match self.topology.send("acquire", &self.full(key), &command).await? {
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
        crate::backend::check_ttl(ttl)?;
        let (value, millis) = (stub::escape(value), ttl.and_then(ttl_millis));
        let stored = if self.topology.mode().uses_tombstones() {
            // A load that took longer than tombstones stay may have been overtaken.
            if outlasts_tombstones(lease, uptime()) {
                return Ok(Filled::Refused);
            }
            let mut command = cmd("SET");
            command.arg(self.full(key)).arg(&value[..]).arg("NX");
            if let Some(millis) = millis {
                command.arg("PX").arg(millis);
            }
            self.ask("fill", key, &command).await? != Value::Nil
        } else {
            let call = |command: &mut Cmd| {
                command.arg(&STUB_MARK[..]).arg(&ESCAPE_MARK[..]).arg(&lease.token().to_be_bytes()[..]);
                command.arg(&value[..]).arg(millis.map_or_else(String::new, |millis| millis.to_string()));
            };
            self.eval("fill", &FILL, key, call).await?.map_err(|error| convert("fill", error))?
                == Value::Int(1)
        };
        Ok(if stored { Filled::Stored } else { Filled::Refused })
    }

    pub(super) async fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        check_life(life)?;
        if self.topology.mode().uses_tombstones() {
            // Nothing was taken that could end; but what was invalidated since shows a tombstone.
            let holds = matches!(self.acquire_by_tombstone(key).await?, Acquired::Granted { .. });
            return Ok(holds.then(|| lease.clone()));
        }
        let call = |command: &mut Cmd| {
            command.arg(&STUB_MARK[..]).arg(&ESCAPE_MARK[..]).arg(&lease.token().to_be_bytes()[..]);
            command.arg(life_millis(life));
        };
        let answer = self.eval("renew", &RENEW, key, call).await?;
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
        let call = |command: &mut Cmd| {
            command.arg(&STUB_MARK[..]).arg(&ESCAPE_MARK[..]).arg(&lease.token().to_be_bytes()[..]);
        };
        self.eval("release", &RELEASE, key, call).await?.map_err(|error| convert("release", error))?;
        Ok(())
    }

    /// Without scripts nothing is taken: a fill stores if the key is absent, which a tombstone prevents.
    async fn acquire_by_tombstone(&self, key: &str) -> Result<Acquired> {
        let lease = Lease::new(uptime().as_millis());
        let mut command = cmd("GET");
        command.arg(self.full(key));
        match bytes_of(self.ask("acquire", key, &command).await?).map(stub::parse) {
            None => Ok(Acquired::Granted { lease, kept: None }),
            Some(Held::Value(value)) => Ok(Acquired::Present { value }),
            Some(Held::Leased(kept)) => Ok(Acquired::Busy { kept }),
        }
    }

    /// Calls a script by its hash, and sends it where the server does not know it.
    async fn eval(
        &self,
        operation: &'static str,
        script: &Script,
        key: &str,
        args: impl Fn(&mut Cmd) + Send + Sync,
    ) -> Result<Answer<Value>> {
        let full = self.full(key);
        let by = |how: &str, script: &str| {
            let mut command = cmd(how);
            command.arg(script).arg(1).arg(&*full);
            args(&mut command);
            command
        };
        let answer = self.topology.send(operation, &full, &by("EVALSHA", &script.sha1)).await?;
        match answer {
            Err(error) if is_no_script(&error) => {
                self.topology.send(operation, &full, &by("EVAL", &script.source)).await
            }
            answer => Ok(answer),
        }
    }
}

/// The life of a lease for a script, which counts its end.
fn life_millis(life: Duration) -> i64 {
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
fn token() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    // Keys of `RandomState` come from the system's randomness, and differ for each one made; the hash of a
    // counter under two of them is as random as they are.
    let half = || u128::from(RandomState::new().hash_one(fastrand::u64(..)));
    (half() << 64) | half()
}

fn sha1_of(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
