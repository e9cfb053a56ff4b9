//! Moving slots from one node to another.

use std::time::{Duration, Instant};

use crate::redis::cluster::RedisCluster;
use crate::redis::reply::Reply;

/// Keys that are moved by one command.
const BATCH: usize = 100;
/// For one such command, in milliseconds.
const MIGRATION: &str = "5000";
/// After so long nodes that have not taken over a move are told again.
const AGAIN: Duration = Duration::from_secs(1);

impl RedisCluster {
    /// Begins to move a slot: its node then sends clients on with `ASK` for keys that it does not have, and `to` takes
    /// them from clients that say `ASKING`.
    ///
    /// # Panics
    ///
    /// When a node refuses, as the one that has the slot already does.
    pub fn begin_move(&self, slot: u16, to: usize) {
        let from = self.primary_of(slot);
        self.order(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {}", self.ids[from]));
        self.order(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {}", self.ids[to]));
    }

    /// Moves all keys of a slot whose move was begun.
    ///
    /// # Panics
    ///
    /// When a key cannot be moved.
    pub fn move_keys(&self, slot: u16, to: usize) {
        let from = &self.nodes[self.primary_of(slot)];
        let (port, slot, batch) = (self.nodes[to].port().to_string(), slot.to_string(), BATCH.to_string());
        let login: Vec<&[u8]> = self
            .password
            .as_ref()
            .map(|password| vec![&b"AUTH"[..], password.as_bytes()])
            .unwrap_or_default();
        loop {
            let keys = match from.ask(&[b"CLUSTER", b"GETKEYSINSLOT", slot.as_bytes(), batch.as_bytes()]) {
                Reply::Array(keys) if keys.is_empty() => return,
                Reply::Array(keys) => keys,
                other => panic!("keys of slot {slot}: {other:?}"),
            };
            let keys: Vec<Vec<u8>> = keys.into_iter().map(Reply::rendered).collect();
            let mut words: Vec<&[u8]> =
                vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", MIGRATION.as_bytes()];
            words.extend(&login);
            words.push(b"KEYS");
            words.extend(keys.iter().map(Vec::as_slice));
            if let Reply::Error(problem) = from.ask(&words) {
                panic!("keys of slot {slot} to node {to}: {problem}");
            }
        }
    }

    /// Ends the move of a slot: `to` serves it from now on. Waits until each node that answers says so.
    ///
    /// # Panics
    ///
    /// When a node refuses, as one that still has keys of the slot does.
    pub fn end_move(&self, slot: u16, to: usize) {
        let from = self.primary_of(slot);
        let others = self.primaries().into_iter().filter(|node| ![from, to].contains(node));
        let order = |node| self.order(node, &format!("CLUSTER SETSLOT {slot} NODE {}", self.ids[to]));
        // The new one first: if only the old one knew, nobody would serve the slot.
        [to, from].into_iter().chain(others).for_each(order);
        // News of before, still under way between the nodes, can take the slot back on one of them; whoever runs a
        // cluster tells it again then.
        let mut told = Instant::now();
        self.wait_for(&format!("node {to} has slot {slot}"), || {
            // A node that takes over another slot before it knows of this move may take an epoch that somebody has; and in
            // the name of a greater one, news of before takes the slot away from who has it, for good.
            if self.all_name(slot, to) && self.epochs_are_known() {
                return true;
            }
            if told.elapsed() > AGAIN {
                told = Instant::now();
                self.primaries().into_iter().filter(|node| !self.names(*node, slot, to)).for_each(order);
            }
            false
        });
    }

    /// Moves a slot with its keys.
    ///
    /// # Panics
    ///
    /// As [`begin_move`](Self::begin_move), [`move_keys`](Self::move_keys) and [`end_move`](Self::end_move).
    pub fn move_slot(&self, slot: u16, to: usize) {
        self.begin_move(slot, to);
        self.move_keys(slot, to);
        self.end_move(slot, to);
    }
}
