//! Client-side caching: which clients have read which keys, and so must be told when these change.
//!
//! A client that tracks the keys it reads is remembered under each of them until the key changes; that is said once,
//! and forgotten. One in broadcasting mode names prefixes instead, and nothing is remembered for it. Keys are
//! known by name, in whatever database they are.
//!
//! What must stay true: a key is remembered while its shard is held, as it is when its change is announced, so
//! that no change falls between a read and its being remembered; `keys` and `items` are the sums over all parts. Clients are
//! remembered by number, and whoever is gone is not looked for: its keys go as they change, or as room is made.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::client::registry::Registry;
use crate::client::shared::{Link, Mark, Shared};
use crate::resp::push::Push;
use crate::resp::reply::{Output, Protocol};
use crate::types::table::Table;

/// Parts of the table: so many that workers seldom meet in one.
const PARTS: usize = 64;

/// A way in which a client tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Choice {
    /// It tracks at all.
    On = 1 << 0,
    /// It is told of all keys with certain prefixes, read or not.
    Broadcast = 1 << 1,
    /// Keys are remembered after CLIENT CACHING YES only.
    OptIn = 1 << 2,
    /// Keys are not remembered after CLIENT CACHING NO.
    OptOut = 1 << 3,
    /// It is not told of its own changes.
    NoLoop = 1 << 4,
    /// The client that it redirects to is gone.
    Broken = 1 << 5,
}

/// How one client tracks.
#[derive(Debug, Default)]
pub struct Tracked {
    choices: AtomicU8,
    redirect: AtomicU64,
}

impl Tracked {
    /// Whether it was chosen.
    #[inline]
    pub fn has(&self, choice: Choice) -> bool {
        self.choices.load(Ordering::Relaxed) & choice as u8 != 0
    }

    /// The number of the client that is told instead; 0 for none.
    pub fn redirect(&self) -> u64 {
        self.redirect.load(Ordering::Relaxed)
    }

    /// The number that commands show: -1 while tracking is off.
    pub fn shown_redirect(&self) -> i64 {
        if self.has(Choice::On) { self.redirect().cast_signed() } else { -1 }
    }
}

/// The clients that read one key.
struct Readers {
    key: Box<[u8]>,
    clients: SmallVec<[u64; 2]>,
}

/// A key that changed, and the number of the client that changed it; 0 for no client.
pub type Changed = (Vec<u8>, u64);

/// What it takes to follow one prefix, its text not counted.
const FOLLOWER_BYTES: usize = size_of::<(Box<[u8]>, Followers)>() + size_of::<(u64, Arc<Shared>)>();

/// The clients of one prefix.
type Followers = HashMap<u64, Arc<Shared>>;

/// Clients that track, and what they read.
pub struct Tracking {
    parts: Box<[Mutex<Table<Readers>>]>,
    hasher: RandomState,
    keys: AtomicUsize,
    items: AtomicUsize,
    clients: RwLock<HashMap<u64, Arc<Shared>>>,
    client_count: AtomicUsize,
    prefixes: RwLock<BTreeMap<Box<[u8]>, Followers>>,
    prefix_count: AtomicUsize,
}

impl Default for Tracking {
    fn default() -> Tracking {
        Tracking {
            parts: (0..PARTS).map(|_| Mutex::new(Table::new())).collect(),
            hasher: RandomState::new(),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            clients: RwLock::default(),
            client_count: AtomicUsize::new(0),
            prefixes: RwLock::default(),
            prefix_count: AtomicUsize::new(0),
        }
    }
}

impl std::fmt::Debug for Tracking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracking({} clients, {} keys)", self.clients(), self.keys())
    }
}

/// Those that invalidations are sent to, and what came of it.
pub struct Post<'a> {
    /// All connections.
    pub registry: &'a Registry,
    /// The number of the client whose command runs; 0 for none.
    pub origin: u64,
    /// Something was pushed to that client itself.
    pub echoed: bool,
}

/// The channel on which a client of RESP2 hears of what is redirected to it.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// An invalidation: `keys` writes what is not valid any more.
fn invalidation(keys: impl Fn(&mut Output)) -> Push<impl Fn(&mut Output)> {
    Push::new(move |out| {
        if out.protocol() == Protocol::Resp3 {
            out.push(2);
            out.bulk(b"invalidate");
        } else {
            out.push(3);
            out.bulk(b"message");
            out.bulk(CHANNEL);
        }
        keys(out);
    })
}

fn array_of(out: &mut Output, keys: &[&[u8]]) {
    out.array(keys.len());
    keys.iter().for_each(|key| out.bulk(key));
}

impl Post<'_> {
    /// Sends an invalidation to a client that tracks, or to whom it redirects.
    fn send<F: Fn(&mut Output)>(&mut self, client: &Arc<Shared>, push: &Push<F>) {
        let redirect = client.tracked.redirect();
        if redirect == 0 {
            // In RESP2 there is no way to tell it but by way of another client.
            return self.deliver(client, push, false);
        }
        match self.registry.find(redirect).filter(|to| !to.is_closing() && !to.has(Mark::Closing)) {
            Some(to) => self.deliver(&to, push, true),
            None => {
                client.tracked.choices.fetch_or(Choice::Broken as u8, Ordering::Relaxed);
                let broken = Push::new(|out| {
                    out.push(2);
                    out.bulk(b"tracking-redir-broken");
                    out.integer(redirect.cast_signed());
                });
                self.deliver(client, &broken, false);
            }
        }
    }

    fn deliver<F: Fn(&mut Output)>(&mut self, to: &Arc<Shared>, push: &Push<F>, redirected: bool) {
        if to.link == Link::InProcess {
            // Nobody would take it out of the outbox again.
            return;
        }
        let by_channel = redirected && to.figures.is_subscribed();
        to.push_as(|protocol| (protocol == Protocol::Resp3 || by_channel).then(|| push.encoded(protocol)));
        self.echoed |= to.id == self.origin;
    }
}

/// Whether two prefixes have keys in common.
pub fn overlap(a: &[u8], b: &[u8]) -> bool {
    let both = a.len().min(b.len());
    a[..both] == b[..both]
}

impl Tracking {
    /// How many clients track.
    #[inline]
    pub fn clients(&self) -> usize {
        self.client_count.load(Ordering::Relaxed)
    }

    /// How many keys are remembered.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// How many times any client is remembered under any key.
    pub fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    /// How many prefixes are followed.
    #[inline]
    pub fn prefixes(&self) -> usize {
        self.prefix_count.load(Ordering::Relaxed)
    }

    /// Whether anybody need hear of changes: clients that track, or keys that are remembered for those who did.
    pub fn is_active(&self) -> bool {
        self.clients() > 0 || self.keys() > 0
    }

    /// The prefixes that a client follows.
    pub fn prefixes_of(&self, id: u64) -> Vec<Vec<u8>> {
        let prefixes = self.prefixes.read();
        prefixes.iter().filter(|(_, of)| of.contains_key(&id)).map(|(prefix, _)| prefix.to_vec()).collect()
    }

    /// Has a client track, by these choices beside [`Choice::On`] and [`Choice::Broadcast`] with these prefixes, which are
    /// added to those it has. `redirect` is the client that is told instead, 0 for none.
    pub fn start(&self, client: &Arc<Shared>, choices: &[Choice], redirect: u64, prefixes: &[&[u8]]) {
        {
            let mut clients = self.clients.write();
            clients.insert(client.id, client.clone());
            self.client_count.store(clients.len(), Ordering::Release);
        }
        if choices.contains(&Choice::Broadcast) {
            let mut all = self.prefixes.write();
            let whole: &[&[u8]] = &[b""];
            for prefix in if prefixes.is_empty() { whole } else { prefixes } {
                if all.entry((*prefix).into()).or_default().insert(client.id, client.clone()).is_none() {
                    client.figures.prefix_bytes.fetch_add(prefix.len() + FOLLOWER_BYTES, Ordering::Relaxed);
                }
            }
            self.prefix_count.store(all.len(), Ordering::Release);
        }
        let bits = choices.iter().fold(Choice::On as u8, |bits, choice| bits | *choice as u8);
        client.tracked.redirect.store(redirect, Ordering::Relaxed);
        client.tracked.choices.store(bits, Ordering::Relaxed);
    }

    /// Has a client track no more. What is remembered for it means nothing from here on, unless it begins again.
    pub fn stop(&self, client: &Shared) {
        if !client.tracked.has(Choice::On) {
            return;
        }
        if client.tracked.has(Choice::Broadcast) {
            let mut all = self.prefixes.write();
            all.retain(|_, followers| {
                followers.remove(&client.id);
                !followers.is_empty()
            });
            self.prefix_count.store(all.len(), Ordering::Release);
        }
        client.figures.prefix_bytes.store(0, Ordering::Relaxed);
        client.tracked.choices.store(0, Ordering::Relaxed);
        client.tracked.redirect.store(0, Ordering::Relaxed);
        let mut clients = self.clients.write();
        clients.remove(&client.id);
        self.client_count.store(clients.len(), Ordering::Release);
    }

    fn part(&self, hash: u64) -> &Mutex<Table<Readers>> {
        // The table parts its elements by the upper bits.
        &self.parts[hash as usize % PARTS]
    }

    fn rehash(&self) -> impl Fn(&Readers) -> u64 {
        move |readers: &Readers| self.hasher.hash_one(&*readers.key)
    }

    /// Remembers that a client read a key. The key's shard is held.
    pub fn remember(&self, key: &[u8], id: u64) {
        let hash = self.hasher.hash_one(key);
        let mut part = self.part(hash).lock();
        if let Some(readers) = part.find_mut(hash, |readers| *readers.key == *key) {
            if !readers.clients.contains(&id) {
                readers.clients.push(id);
                self.items.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        part.insert_unique(hash, Readers { key: key.into(), clients: SmallVec::from_slice(&[id]) }, self.rehash());
        self.keys.fetch_add(1, Ordering::Relaxed);
        self.items.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets a key; returns who read it.
    fn forget(&self, hash: u64, key: &[u8]) -> SmallVec<[u64; 2]> {
        let removed = self.part(hash).lock().remove(hash, |readers| *readers.key == *key, self.rehash());
        let Some(readers) = removed else { return SmallVec::new() };
        self.keys.fetch_sub(1, Ordering::Relaxed);
        self.items.fetch_sub(readers.clients.len(), Ordering::Relaxed);
        readers.clients
    }

    /// Tells those who read a key that it is not valid any more: client `by` changed it, 0 for no client. The key's
    /// shard is held, where it changed.
    pub fn invalidate(&self, key: &[u8], by: u64, post: &mut Post<'_>) {
        if self.keys() > 0 {
            let readers = self.forget(self.hasher.hash_one(key), key);
            self.tell(key, &readers, by, post);
        }
    }

    fn tell(&self, key: &[u8], readers: &[u64], by: u64, post: &mut Post<'_>) {
        if readers.is_empty() {
            return;
        }
        let push = invalidation(|out| array_of(out, &[key]));
        for id in readers {
            // Who broadcasts by now was told otherwise; what it read before it has thrown away.
            let client = self.clients.read().get(id).cloned();
            let Some(client) = client.filter(|client| !client.tracked.has(Choice::Broadcast)) else { continue };
            if !(client.tracked.has(Choice::NoLoop) && client.id == by) {
                post.send(&client, &push);
            }
        }
    }

    /// Tells the followers of prefixes about keys that changed: one message for each prefix.
    pub fn broadcast(&self, changed: &[Changed], post: &mut Post<'_>) {
        for (prefix, followers) in &*self.prefixes.read() {
            // The last who changed a key is the one who need not be told.
            let keys: BTreeMap<&[u8], u64> = changed
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .map(|(key, origin)| (key.as_slice(), *origin))
                .collect();
            if keys.is_empty() {
                continue;
            }
            let all: Vec<&[u8]> = keys.keys().copied().collect();
            let push = invalidation(|out| array_of(out, &all));
            for (id, client) in followers {
                if client.tracked.has(Choice::NoLoop) && keys.values().any(|origin| origin == id) {
                    let others: Vec<&[u8]> =
                        keys.iter().filter(|(_, origin)| *origin != id).map(|(key, _)| *key).collect();
                    if !others.is_empty() {
                        post.send(client, &invalidation(|out| array_of(out, &others)));
                    }
                } else {
                    post.send(client, &push);
                }
            }
        }
    }

    /// Tells every client that nothing is valid any more, and forgets what was remembered; returns that, to be
    /// freed where it disturbs nobody.
    pub fn invalidate_all(&self, post: &mut Post<'_>) -> impl Send + use<> {
        let push = invalidation(Output::null);
        let mut clients: Vec<Arc<Shared>> = self.clients.read().values().cloned().collect();
        clients.sort_by_key(|client| client.id);
        clients.iter().for_each(|client| post.send(client, &push));
        let mut old = Vec::with_capacity(PARTS);
        for part in &self.parts {
            let table = std::mem::replace(&mut *part.lock(), Table::new());
            self.keys.fetch_sub(table.len(), Ordering::Relaxed);
            self.items.fetch_sub(table.iter().map(|readers| readers.clients.len()).sum::<usize>(), Ordering::Relaxed);
            old.push(table);
        }
        old
    }

    /// Forgets keys at random, and tells those who read them, until `most` are left or `steps` are gone; returns
    /// whether there are still too many.
    pub fn make_room(&self, most: usize, steps: usize, post: &mut Post<'_>) -> bool {
        let mut rng = fastrand::Rng::new();
        for _ in 0..steps {
            if self.keys() <= most {
                return false;
            }
            let first = rng.usize(..PARTS);
            let picked = (0..PARTS).find_map(|n| {
                let part = self.parts[(first + n) % PARTS].lock();
                part.random(&mut rng).map(|readers| readers.key.to_vec())
            });
            if let Some(key) = picked {
                // Whoever gave cause to it has not changed the key.
                self.invalidate(&key, 0, post);
            }
        }
        self.keys() > most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        registry: Registry,
        tracking: Tracking,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { registry: Registry::default(), tracking: Tracking::default() }
        }

        fn client(&self, protocol: Protocol) -> Arc<Shared> {
            let id = self.registry.next_id();
            let client = Arc::new(Shared::new(id, Link::Tcp, String::new(), String::new(), -1, 0));
            client.outbox.speak(protocol, &mut Output::new(protocol));
            self.registry.add(client.clone());
            client
        }

        fn post(&self, origin: u64) -> Post<'_> {
            Post { registry: &self.registry, origin, echoed: false }
        }

        fn change(&self, key: &str, origin: u64) -> bool {
            let mut post = self.post(origin);
            self.tracking.invalidate(key.as_bytes(), origin, &mut post);
            post.echoed
        }
    }

    fn heard(client: &Shared) -> String {
        let mut out = Output::new(Protocol::Resp3);
        client.outbox.drain(&mut out);
        String::from_utf8(out.into_vec()).unwrap().replace("\r\n", "|")
    }

    const TOLD_A: &str = ">2|$10|invalidate|*1|$1|a|";

    #[test]
    fn a_reader_is_told_once_of_a_key_that_changed() {
        let scene = Scene::new();
        let (a, b) = (scene.client(Protocol::Resp3), scene.client(Protocol::Resp3));
        [&a, &b].iter().for_each(|client| scene.tracking.start(client, &[], 0, &[]));
        scene.tracking.remember(b"a", a.id);
        scene.tracking.remember(b"a", a.id);
        scene.tracking.remember(b"a", b.id);
        scene.tracking.remember(b"b", b.id);
        assert_eq!((scene.tracking.keys(), scene.tracking.items(), scene.tracking.clients()), (2, 3, 2));
        assert!(scene.change("a", a.id), "it is told of its own changes too");
        assert_eq!((heard(&a), heard(&b)), (TOLD_A.into(), TOLD_A.into()));
        assert!(!scene.change("a", a.id));
        assert_eq!((heard(&a), scene.tracking.keys(), scene.tracking.items()), (String::new(), 1, 1));
        scene.tracking.stop(&b);
        scene.change("b", 0);
        assert_eq!((heard(&b), scene.tracking.is_active()), (String::new(), true));
        scene.tracking.stop(&a);
        assert!(!scene.tracking.is_active());
    }

    #[test]
    fn own_changes_can_be_left_out() {
        let scene = Scene::new();
        let a = scene.client(Protocol::Resp3);
        scene.tracking.start(&a, &[Choice::NoLoop], 0, &[]);
        scene.tracking.remember(b"a", a.id);
        assert!(!scene.change("a", a.id));
        scene.tracking.remember(b"a", a.id);
        scene.change("a", 99);
        assert_eq!(heard(&a), TOLD_A);
    }

    #[test]
    fn a_client_of_resp2_is_told_by_way_of_another() {
        let scene = Scene::new();
        let (a, to) = (scene.client(Protocol::Resp2), scene.client(Protocol::Resp2));
        scene.tracking.start(&a, &[], 0, &[]);
        scene.tracking.remember(b"a", a.id);
        scene.change("a", 0);
        assert_eq!(heard(&a), "");
        scene.tracking.start(&a, &[], to.id, &[]);
        scene.tracking.remember(b"a", a.id);
        scene.change("a", 0);
        assert_eq!(heard(&to), "", "it listens to no channel");
        to.figures.channels.store(1, Ordering::Relaxed);
        scene.tracking.remember(b"a", a.id);
        scene.change("a", 0);
        assert_eq!(heard(&to), "*3|$7|message|$20|__redis__:invalidate|*1|$1|a|");
        assert_eq!(heard(&a), "");
    }

    #[test]
    fn a_redirection_to_nobody_is_told_as_broken() {
        let scene = Scene::new();
        let (a, to) = (scene.client(Protocol::Resp3), scene.client(Protocol::Resp3));
        scene.tracking.start(&a, &[], to.id, &[]);
        scene.registry.remove(to.id);
        scene.tracking.remember(b"a", a.id);
        scene.change("a", 0);
        assert_eq!(heard(&a), format!(">2|$21|tracking-redir-broken|:{}|", to.id));
        assert!(a.tracked.has(Choice::Broken));
        scene.tracking.start(&a, &[], 0, &[]);
        assert!(!a.tracked.has(Choice::Broken));
    }

    #[test]
    fn followers_of_prefixes_are_told_of_all_keys_that_begin_so() {
        let scene = Scene::new();
        let (a, b) = (scene.client(Protocol::Resp3), scene.client(Protocol::Resp3));
        scene.tracking.start(&a, &[Choice::Broadcast], 0, &[b"x:", b"y:"]);
        scene.tracking.start(&b, &[Choice::Broadcast, Choice::NoLoop], 0, &[]);
        assert_eq!(scene.tracking.prefixes(), 3);
        let changed = [(b"x:2".to_vec(), 0), (b"z".to_vec(), b.id), (b"x:1".to_vec(), a.id), (b"x:2".to_vec(), 0)];
        let mut post = scene.post(a.id);
        scene.tracking.broadcast(&changed, &mut post);
        assert!(post.echoed);
        assert_eq!(heard(&a), ">2|$10|invalidate|*2|$3|x:1|$3|x:2|");
        assert_eq!(heard(&b), ">2|$10|invalidate|*2|$3|x:1|$3|x:2|");
        scene.tracking.broadcast(&[(b"q".to_vec(), b.id)], &mut scene.post(b.id));
        assert_eq!((heard(&a), heard(&b)), (String::new(), String::new()));
        assert_eq!(scene.tracking.prefixes_of(a.id), [b"x:", b"y:"]);
        scene.tracking.stop(&a);
        assert_eq!(scene.tracking.prefixes(), 1);
        // Keys that were read before it broadcast are of no concern.
        scene.tracking.remember(b"k", b.id);
        scene.change("k", 0);
        assert_eq!(heard(&b), "");
    }

    #[test]
    fn all_keys_become_invalid_at_once() {
        let scene = Scene::new();
        let a = scene.client(Protocol::Resp3);
        scene.tracking.start(&a, &[], 0, &[]);
        (0..1000).for_each(|n| scene.tracking.remember(format!("k{n}").as_bytes(), a.id));
        drop(scene.tracking.invalidate_all(&mut scene.post(0)));
        assert_eq!(heard(&a), ">2|$10|invalidate|_|");
        assert_eq!((scene.tracking.keys(), scene.tracking.items()), (0, 0));
    }

    #[test]
    fn room_is_made_by_telling_that_keys_are_not_valid() {
        let scene = Scene::new();
        let a = scene.client(Protocol::Resp3);
        scene.tracking.start(&a, &[Choice::NoLoop], 0, &[]);
        (0..1000).for_each(|n| scene.tracking.remember(format!("k{n}").as_bytes(), a.id));
        assert!(scene.tracking.make_room(10, 100, &mut scene.post(a.id)));
        assert_eq!(scene.tracking.keys(), 900);
        assert!(!scene.tracking.make_room(10, 10_000, &mut scene.post(0)));
        assert_eq!((scene.tracking.keys(), scene.tracking.items()), (10, 10));
        assert_eq!(heard(&a).matches("invalidate").count(), 990);
    }
}
