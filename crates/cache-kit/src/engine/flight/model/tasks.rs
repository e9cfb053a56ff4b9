//! Who reads, and who interferes: what `join`, `load` and `write` do with flights, without what they do beside.

use std::any::TypeId;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use shuttle::future::{block_on, spawn, yield_now};

use super::super::{Follower, Joining, Landed, Leader, Role, Wait};
use super::world::{Arrival, Brought, KEYS, World};
use crate::backend::Lease;
use crate::tags::Tags;

/// How a lead ends.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Lead {
    Completes,
    /// Goes away in the middle of the load.
    Drops,
    /// Completes, and asks the backend about its lease before.
    Renews,
}

/// How long a reader waits for others.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Patience {
    Endless,
    /// Goes away after a while.
    Leaves,
    /// Gives up on the leader after a while, once.
    Ousts,
}

#[derive(Clone, Copy)]
pub(super) struct Reader {
    pub(super) key: &'static str,
    /// Its lookup may bring a lease.
    pub(super) looks: bool,
    pub(super) lead: Lead,
    pub(super) patience: Patience,
    pub(super) max_followers: usize,
    /// Nobody but this process changes the keys.
    pub(super) is_alone: bool,
}

/// Changes of the source.
#[derive(Clone, Copy)]
pub(super) enum Upset {
    Invalidates,
    InvalidatesAll,
    /// By another process.
    Elsewhere,
}

/// One schedule: all of these at once, until all have ended.
pub(super) fn run(readers: &[Reader], upsets: &[Upset]) {
    let world = World::new();
    let mut tasks = Vec::new();
    for &reader in readers {
        let world = Arc::clone(&world);
        tasks.push(spawn(async move { reader.read(&world).await }));
    }
    for &upset in upsets {
        let world = Arc::clone(&world);
        tasks.push(spawn(async move { upset.run(&world).await }));
    }
    for task in tasks {
        block_on(task).unwrap();
    }
    world.check_end();
}

impl Upset {
    async fn run(self, world: &World) {
        if !matches!(self, Self::Elsewhere) {}
        match self {
            Self::Elsewhere => drop(world.change("key")),
            Self::Invalidates => {
                give_each_back(world);
                yield_now().await;
                let version = world.change("key");
                yield_now().await;
                give_each_back(world);
                world.settle("key", version);
            }
            Self::InvalidatesAll => {
                give_all_back(world);
                let versions = KEYS.map(|key| (key, world.change(key)));
                yield_now().await;
                give_all_back(world);
                versions.iter().for_each(|(key, version)| world.settle(key, *version));
            }
        }
    }
}

impl Reader {
    async fn read(mut self, world: &World) {
        let mut lease = None;
        let looks = self.looks && world.begin_look(self.key);
        if looks {
            yield_now().await;
            lease = world.acquire(self.key);
            yield_now().await;
        }
        let mut looker = Looker { world, key: looks.then_some(self.key) };
        loop {
            let arrival = world.arrive(self.key, self.is_alone);
            let joining = Joining {
                now: arrival.now,
                max_age: (!self.is_alone).then_some(Duration::ZERO),
                max_followers: self.max_followers,
                is_nested: false,
                tags: Tags::default(),
                may_choose_tags: false,
            };
            match world.flights.enter(self.key, TypeId::of::<u64>(), joining) {
                Role::Full => {
                    give_back(world, self.key, lease);
                    return;
                }
                Role::Lead(mut leader) => {
                    // The newest is the one that holds, as far as this reader can know.
                    if let Some(own) = lease.take() {
                        give_back(world, self.key, leader.lease.replace(own));
                    }
                    looker.end();
                    return self.lead(Led::new(world, self.key, leader)).await;
                }
                Role::Follow(mut follower) => {
                    world.joined(self.key, self.max_followers);
                    if let Some(lease) = lease.take() {
                        follower.offer(lease);
                    }
                    looker.end();
                    let mut followed = Followed { world, key: self.key, follower };
                    world.note(self.key);
                    match self.follow(&mut followed, arrival).await {
                        Some(Wait::Lead(leader)) => {
                            let led = Led::new(world, self.key, leader);
                            drop(followed);
                            return self.lead(led).await;
                        }
                        Some(Wait::Gone) => {}
                        Some(Wait::Landed(_)) | None => return,
                    }
                }
            }
        }
    }

    /// `None` if this reader does not wait any longer.
    async fn follow(&mut self, followed: &mut Followed<'_>, arrival: Arrival) -> Option<Wait> {
        let (world, doubted) = (followed.world, followed.follower.is_in_doubt());
        loop {
            let end = {
                let wait = pin!(followed.follower.wait());
                match self.patience {
                    Patience::Endless => Some(wait.await),
                    Patience::Leaves | Patience::Ousts => match select(wait, pin!(a_while())).await {
                        Either::Left((end, _)) => Some(end),
                        Either::Right(_) => None,
                    },
                }
            };
            match end {
                Some(Wait::Landed(landed)) => {
                    let brought: &Brought = landed.ending.downcast_ref().unwrap();
                    world.given(self.key, arrival, doubted, *brought);
                    return Some(Wait::Landed(landed));
                }
                Some(end) => return Some(end),
                None if self.patience == Patience::Leaves => return None,
                None => {
                    self.patience = Patience::Endless;
                    // Any time is too long for this one.
                    followed.follower.oust(world.now(), Duration::ZERO);
                }
            }
        }
    }

    async fn lead(self, mut led: Led<'_>) {
        let (world, key) = (led.world, self.key);
        world.note(key);
        if led.leader().lease.is_none() {
            led.lease_of_its_own().await;
        }
        led.observe();
        let began = world.now();
        world.vouch(key, began);
        led.leader().begin(began);
        let version = world.load(key);
        yield_now().await;
        led.observe();
        if self.lead == Lead::Drops {
            return;
        }
        if self.lead == Lead::Renews {
            led.renew().await;
        }
        led.complete(version).await;
    }
}

/// Ready when others have had some turns.
async fn a_while() {
    let mut turns = 2;
    poll_fn(|cx| {
        if turns == 0 {
            return Poll::Ready(());
        }
        turns -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn give_each_back(world: &World) {
    for lease in world.flights.detach("key") {
        give_back(world, "key", Some(lease));
    }
}

fn give_all_back(world: &World) {
    for (_, lease) in world.flights.detach_all() {
        give_back(world, "key", Some(lease));
    }
}

fn give_back(world: &World, key: &'static str, lease: Option<Lease>) {
    if let Some(lease) = lease {
        world.end(key, &lease);
    }
}

struct Looker<'a> {
    world: &'a World,
    key: Option<&'static str>,
}

impl Looker<'_> {
    fn end(&mut self) {
        if let Some(key) = self.key.take() {
            self.world.end_look(key);
        }
    }
}

impl Drop for Looker<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// A leader that gives its lease back when it goes away, as that of `join` does.
struct Led<'a> {
    world: &'a World,
    key: &'static str,
    number: usize,
    leader: Option<Leader>,
}

impl<'a> Led<'a> {
    fn new(world: &'a World, key: &'static str, leader: Leader) -> Self {
        Self { world, key, number: world.take_lead(key), leader: Some(leader) }
    }

    fn leader(&mut self) -> &mut Leader {
        self.leader.as_mut().unwrap()
    }

    /// Tells the world whether this flight can still be joined.
    fn observe(&mut self) {
        let moment = self.world.moment();
        match self.leader().is_joinable() {
            true => self.world.is_attached(self.number, moment),
            false => self.world.is_detached(self.number),
        }
    }

    async fn lease_of_its_own(&mut self) {
        let (world, key, asked_at) = (self.world, self.key, self.world.now());
        yield_now().await;
        let lease = world.acquire(key).or_else(|| self.leader().take_offered());
        if lease.is_some() {
            self.leader().lease = lease;
            world.vouch(key, asked_at);
            self.leader().vouch(asked_at);
        }
    }

    async fn renew(&mut self) {
        let (world, key, asked_at) = (self.world, self.key, self.world.now());
        let Some(lease) = self.leader().lease.clone() else { return };
        let holds = world.holds(key, &lease);
        yield_now().await;
        if holds {
            world.vouch(key, asked_at);
            self.leader().vouch(asked_at);
        } else {
            give_back(world, key, self.leader().lease.take());
            self.leader().detach();
            self.observe();
        }
    }

    async fn complete(mut self, version: u64) {
        let (world, key) = (self.world, self.key);
        let is_detached = self.leader().is_detached();
        let lease = self.leader().lease.take();
        let asked_at = world.now();
        if let Some(lease) = lease
            && world.end(key, &lease)
            && !is_detached
        {
            // What is stored is vouched for.
            world.vouch(key, asked_at);
            self.leader().vouch(asked_at);
        }
        yield_now().await;
        self.observe();
        let brought = Brought { key, lead: self.number, version };
        world.give_lead(self.number);
        let leader = self.leader.take().unwrap();
        leader.complete(|| Landed { ending: Arc::new(brought), is_sure: false });
    }
}

impl Drop for Led<'_> {
    fn drop(&mut self) {
        if let Some(mut leader) = self.leader.take() {
            self.world.give_lead(self.number);
            give_back(self.world, self.key, leader.abandon());
        }
    }
}

/// A follower that gives back what is left to it, as that of `join` does.
struct Followed<'a> {
    world: &'a World,
    key: &'static str,
    follower: Follower,
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.world.left(self.key);
        give_back(self.world, self.key, self.follower.leave());
        give_back(self.world, self.key, self.follower.reclaim());
    }
}
