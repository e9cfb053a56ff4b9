//! The scripts of the fence, and what they are called with.
//!
//! A script does the same with each of its keys: the call for one key is a list of one. Data goes to it as keys and
//! arguments only, and it answers a list, in the order of the keys.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use redis::{Cmd, cmd};
use sha1::{Digest as _, Sha1};

use super::stub::{ESCAPE_MARK, STUB_MARK};
use crate::backend::Lease;

/// A script and its hash.
pub(super) struct Script {
    pub(super) source: String,
    pub(super) sha1: String,
}

impl Script {
    /// Of a function `one` of a key and its arguments, and with what all of them share: reading a stub apart, and storing
    /// another value with the life that is left.
    fn of_each(one: &str) -> Self {
        // The layout is that of `stub`; Lua counts from 1.
        let parts = r"
local clock
local function millis()
  if not clock then
    local now = redis.call('TIME')
    clock = now[1] * 1000 + math.floor(now[2] / 1000)
  end
  return clock
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
        let each = r"
local answers, width = {}, (#ARGV - 2) / #KEYS
for at, key in ipairs(KEYS) do
  answers[at] = one(key, unpack(ARGV, 3 + (at - 1) * width, 2 + at * width))
end
return answers
";
        Self::plain(&format!("{parts}{one}{each}"))
    }

    /// Without the parts that leases share.
    pub(super) fn plain(source: &str) -> Self {
        Self { source: source.to_owned(), sha1: hex(&sha1_of(source.as_bytes())) }
    }

    /// The call for these keys, of a server that knows the script.
    pub(super) fn by_hash(&self, parts: &[&Part<'_>]) -> Cmd {
        called("EVALSHA", &self.sha1, parts)
    }

    /// The same, of one that does not.
    pub(super) fn by_source(&self, parts: &[&Part<'_>]) -> Cmd {
        called("EVAL", &self.source, parts)
    }
}

/// ARGV: stub mark, escape mark, and for each key its own arguments.
fn called(how: &str, script: &str, parts: &[&Part<'_>]) -> Cmd {
    let mut command = cmd(how);
    command.arg(script).arg(parts.len());
    for part in parts {
        command.arg(part.key());
    }
    command.arg(&STUB_MARK[..]).arg(&ESCAPE_MARK[..]);
    for arg in parts.iter().flat_map(|part| &part.args) {
        command.arg(&arg[..]);
    }
    command
}

/// Of the token, the life in ms, the SHA-1 of what was seen or nothing.
/// Gives 1 and what is kept; 2 and what is kept, if busy; 3 and the value, if something else is there.
pub(super) static ACQUIRE: LazyLock<Script> = LazyLock::new(|| {
    Script::of_each(
        r"
local function one(key, token, life, seen)
  local held = read(key)
  local value = held and held.value
  if value and (seen == '' or redis.sha1hex(plain(value)) ~= seen) then return { 3, plain(value) } end
  if held and held.token and held.live then return { 2, value and plain(value) or false } end
  local head = ARGV[1] .. token .. string.format('%016x', millis() + life)
  if not value then
    redis.call('SET', key, head .. '0', 'PX', life)
    return { 1, false }
  end
  replace(key, head .. '1' .. value)
  return { 1, plain(value) }
end
",
    )
});

/// Of the token, the value, its life in ms or nothing. Gives 1 if it was stored.
pub(super) static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::of_each(
        r"
local function one(key, token, value, life)
  local held = read(key)
  if not (held and held.token == token and held.live) then return 0 end
  if life == '' then
    redis.call('SET', key, value)
  else
    redis.call('SET', key, value, 'PX', life)
  end
  return 1
end
",
    )
});

/// Of the token. Gives 1 if there was something to release.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::of_each(
        r"
local function one(key, token)
  local held = read(key)
  if not (held and held.token == token) then return 0 end
  if held.value then
    replace(key, held.value)
  else
    redis.call('DEL', key)
  end
  return 1
end
",
    )
});

/// Of the token, the life in ms. Gives 1 if it was renewed.
pub(super) static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::of_each(
        r"
local function one(key, token, life)
  local held = read(key)
  if not (held and held.token == token and held.live) then return 0 end
  local head = ARGV[1] .. token .. string.format('%016x', millis() + life)
  if not held.value then
    redis.call('SET', key, head .. '0', 'PX', life)
    return 1
  end
  replace(key, head .. '1' .. held.value)
  return 1
end
",
    )
});

/// A key on the server, and what a script is told of it.
pub(super) struct Part<'a> {
    key: Cow<'a, str>,
    args: Vec<Bytes>,
}

impl<'a> Part<'a> {
    /// For [`RELEASE`].
    pub(super) fn lease(key: Cow<'a, str>, lease: &Lease) -> Self {
        Self { key, args: vec![token_of(lease)] }
    }

    /// For [`ACQUIRE`].
    pub(super) fn claim(key: Cow<'a, str>, token: u128, life: i64, seen: Option<&Bytes>) -> Self {
        let seen = seen.map_or_else(String::new, |seen| hex(&sha1_of(seen)));
        Self::lease(key, &Lease::new(token)).with(life.to_string()).with(seen)
    }

    /// For [`FILL`]; the value is as it is stored.
    pub(super) fn fill(key: Cow<'a, str>, lease: &Lease, value: Bytes, life: Option<i64>) -> Self {
        let life = life.map_or_else(String::new, |millis| millis.to_string());
        Self::lease(key, lease).with(value).with(life)
    }

    /// With one more argument.
    pub(super) fn with(mut self, arg: impl Into<Bytes>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// How many bytes it adds to a call.
    pub(super) fn len(&self) -> usize {
        self.key.len() + self.args.iter().map(Bytes::len).sum::<usize>()
    }
}

fn token_of(lease: &Lease) -> Bytes {
    Bytes::copy_from_slice(&lease.token().to_be_bytes())
}

fn sha1_of(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
