//! Leases and fills of many keys: in one script call on a server alone, in one exchange per node of a cluster.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use redis::{RedisError, Value};

use super::error::{convert, is_cross_slot, is_no_permission, is_no_script};
use super::fence::{acquired, filled, lease_if_absent, life_millis, token};
use super::node::Answer;
use super::script::{ACQUIRE, FILL, Part, Script};
use super::topology::{Keyed, unexpected};
use super::{Shared, stub, ttl_millis};
use crate::backend::{Acquired, Claim, Fill, Filled, check_life, check_ttl};
use crate::error::Result;

/// Keys in one call, at most: the server serves nobody else meanwhile.
const MOST_KEYS: usize = 1_024;
/// And bytes, unless one key alone has more.
const MOST_BYTES: usize = 4 << 20;

/// A script call that is to be made: the places of its keys among all.
struct Call {
    keys: Vec<usize>,
    /// The server does not know the script.
    by_source: bool,
}

impl Shared {
    pub(super) async fn acquire_many(
        &self,
        claims: &[Claim<'_>],
        life: Duration,
    ) -> Result<Vec<Result<Acquired>>> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        check_life(life)?;
        if self.topology.mode().uses_tombstones() {
            let claims = claims.iter().map(|claim| self.acquire_by_tombstone(claim.key));
            return Ok(join_all(claims).await);
        }
        let tokens: Vec<u128> = claims.iter().map(|_| token()).collect();
        let mut acquired_of = self.acquire_absent_many(claims, &tokens, life).await?;
        let left: Vec<usize> = (0..claims.len()).filter(|at| acquired_of[*at].is_none()).collect();
        if !left.is_empty() {
            let part = |at: &usize| {
                let Claim { key, seen } = claims[*at];
                // What was seen comes back.
                let answer = seen.map_or(0, Bytes::len);
                (Part::claim(self.full(key), tokens[*at], life_millis(life), seen), answer)
            };
            let parts: Vec<_> = left.iter().map(part).collect();
            let answers = self.eval_many("acquire", &ACQUIRE, &parts).await?;
            let each = left.iter().zip(answers).map(async |(at, answer)| match answer? {
                Ok(answer) => acquired(answer, tokens[*at]),
                Err(error) => self.acquire_refused(claims[*at].key, error).await,
            });
            for (at, answer) in left.iter().zip(join_all(each).await) {
                acquired_of[*at] = Some(answer);
            }
        }
        Ok(acquired_of.into_iter().map(|known| known.unwrap_or_else(|| Err(unexpected("acquire")))).collect())
    }

    /// Where each key takes a command of its own anyway, one without a script costs the server far less. `None` for what it
    /// takes a script to tell.
    async fn acquire_absent_many(
        &self,
        claims: &[Claim<'_>],
        tokens: &[u128],
        life: Duration,
    ) -> Result<Vec<Option<Result<Acquired>>>> {
        let mut answers: Vec<Option<Result<Acquired>>> = claims.iter().map(|_| None).collect();
        let spread = self.topology.is_cluster("acquire", self.topology.deadline()).await?;
        let unseen: Vec<usize> = (0..claims.len()).filter(|at| claims[*at].seen.is_none()).collect();
        if !spread || !self.topology.mode().leases_by_set() || unseen.is_empty() {
            return Ok(answers);
        }
        let command = |at: &usize| {
            let full = self.full(claims[*at].key);
            Keyed::new(&*full, lease_if_absent(&full, tokens[*at], life))
        };
        let sent = self.topology.send_each("acquire", unseen.iter().map(command).collect()).await?;
        for (at, answer) in unseen.into_iter().zip(sent) {
            answers[at] = answer.and_then(|answer| self.acquired_absent(answer, tokens[at])).transpose();
        }
        Ok(answers)
    }

    pub(super) async fn fill_many(&self, fills: &[Fill<'_>]) -> Result<Vec<Result<Filled>>> {
        if self.topology.mode().uses_tombstones() {
            let fills =
                fills.iter().map(|fill| self.fill(fill.key, fill.lease, fill.value.clone(), fill.ttl));
            return Ok(join_all(fills).await);
        }
        let mut results: Vec<Result<Filled>> = Vec::with_capacity(fills.len());
        let (mut parts, mut places) = (Vec::with_capacity(fills.len()), Vec::with_capacity(fills.len()));
        for (at, fill) in fills.iter().enumerate() {
            // Until it is stored.
            results.push(check_ttl(fill.ttl).map(|()| Filled::Refused));
            if results[at].is_ok() {
                let (value, millis) = (stub::escape(fill.value.clone()), fill.ttl.and_then(ttl_millis));
                parts.push((Part::fill(self.full(fill.key), fill.lease, value, millis), 0));
                places.push(at);
            }
        }
        if parts.is_empty() {
            return Ok(results);
        }
        let answers = self.eval_many("fill", &FILL, &parts).await?;
        for (at, answer) in places.into_iter().zip(answers) {
            results[at] = answer.and_then(|answer| match answer {
                Ok(answer) => Ok(filled(&answer)),
                Err(error) => Err(convert("fill", error)),
            });
        }
        Ok(results)
    }

    /// Calls a script for many keys, each with the bytes that its answer may have, as few times as the servers allow, all
    /// calls side by side.
    ///
    /// # Errors
    /// When nothing is known of any key.
    async fn eval_many(
        &self,
        operation: &'static str,
        script: &Script,
        parts: &[(Part<'_>, usize)],
    ) -> Result<Vec<Result<Answer<Value>>>> {
        let deadline = self.topology.deadline();
        // A node of a cluster takes keys of one slot in a call, but not while the slot is being moved, when some are here
        // and some there. Calls of one key each go wherever their key is, and cost no exchange more.
        let spread = self.topology.is_cluster(operation, deadline).await?;
        let most = if spread { 1 } else { MOST_KEYS };
        let mut answers: Vec<Option<Result<Answer<Value>>>> = parts.iter().map(|_| None).collect();
        let mut pending = calls(parts.iter().map(|(part, answer)| part.len() + answer), most);
        while !pending.is_empty() {
            let command = |call: &Call| {
                let named: Vec<&Part<'_>> = call.keys.iter().map(|at| &parts[*at].0).collect();
                let command = if call.by_source { script.by_source(&named) } else { script.by_hash(&named) };
                (Keyed::new(named[0].key(), command), named.len())
            };
            let commands = pending.iter().map(command).collect();
            let sent = self.topology.send_side_by_side(operation, deadline, commands).await;
            // What was learned before is still known.
            let sent = sent.unwrap_or_else(|error| vec![Err(error); pending.len()]);
            for (call, answer) in std::mem::take(&mut pending).into_iter().zip(sent) {
                match answer {
                    Ok(Err(error)) if is_no_script(&error) && !call.by_source => {
                        pending.push(Call { by_source: true, ..call });
                    }
                    Ok(Err(error)) if call.keys.len() > 1 && may_do_alone(&error) => {
                        pending.extend(call.keys.into_iter().map(Call::alone));
                    }
                    answer => {
                        let each = apart(operation, answer, call.keys.len());
                        for (at, answer) in call.keys.into_iter().zip(each) {
                            answers[at] = Some(answer);
                        }
                    }
                }
            }
        }
        let known = |answer: Option<_>| answer.unwrap_or_else(|| Err(unexpected(operation)));
        let mut answers: Vec<_> = answers.into_iter().map(known).collect();
        if !spread && answers.iter().all(Result::is_err) {
            answers.truncate(1);
            return answers.into_iter().map(|answer| answer.map(Ok)).collect();
        }
        Ok(answers)
    }
}

impl Call {
    fn alone(key: usize) -> Self {
        Self { keys: vec![key], by_source: false }
    }
}

/// As few calls as there may be, of keys that add so many bytes each, in their order.
fn calls(sizes: impl Iterator<Item = usize>, most: usize) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut bytes = 0;
    for (at, size) in sizes.enumerate() {
        match calls.last_mut() {
            Some(call) if call.keys.len() < most && bytes + size <= MOST_BYTES => {
                call.keys.push(at);
                bytes += size;
            }
            _ => {
                calls.push(Call::alone(at));
                bytes = size;
            }
        }
    }
    calls
}

/// Whether what a server refused for many keys may be allowed for some of them: a user may be kept from one key, and a
/// server that is many behind a proxy takes none that are apart.
fn may_do_alone(error: &RedisError) -> bool {
    is_no_permission(error) || is_cross_slot(error)
}

/// What a call answers for each of its keys.
fn apart(operation: &'static str, answer: Result<Answer<Value>>, keys: usize) -> Vec<Result<Answer<Value>>> {
    match answer {
        Ok(Ok(Value::Array(answers))) if answers.len() == keys => {
            answers.into_iter().map(|answer| Ok(Ok(answer))).collect()
        }
        Ok(Ok(_)) => vec![Err(unexpected(operation)); keys],
        failed => vec![failed; keys],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_so_many_keys_and_bytes_and_no_more() {
        let lens = |sizes: Vec<usize>, most| -> Vec<usize> {
            let calls = calls(sizes.iter().copied(), most);
            assert!(calls.iter().flat_map(|call| &call.keys).copied().eq(0..sizes.len()));
            calls.iter().map(|call| call.keys.len()).collect()
        };
        assert_eq!(lens(vec![], 9), [0; 0]);
        assert_eq!(lens(vec![10; 2_100], MOST_KEYS), [1_024, 1_024, 52]);
        assert_eq!(lens(vec![1; 3], 1), [1, 1, 1]);
        let half = MOST_BYTES / 2;
        assert_eq!(lens(vec![half, half, half, 2 * MOST_BYTES, 1, 1], 9), [2, 1, 1, 2]);
    }
}
