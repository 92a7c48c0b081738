//! Sets: byte strings, each there once, in no order.
//!
//! A few integers are an [`Intset`], a few strings a [`Listpack`], more are a table of [`Member`]s. When a set goes
//! from one to the next can be seen (OBJECT ENCODING) and is just as in Redis: by the configured [`Limits`]
//! on the way up, and never back.
//!
//! What must stay true: a member is there once, whichever way it is encoded; `allocated` is the sum of what the
//! members of a table have allocated, so that the size of a large set is known without a walk.

use std::collections::HashSet;

use fastrand::Rng;

use crate::stdx::hash::hash_bytes;
use crate::types::ahead::Elements;
use crate::types::intset::Intset;
use crate::types::listpack::{Item, Listpack, Needle};
use crate::types::member::Member;
use crate::types::table::{CURSOR_SHIFT, Entry, SharedTable};

/// How much a compact encoding may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most integers of an intset: `set-max-intset-entries`.
    pub intset_entries: usize,
    /// The most members of a listpack: `set-max-listpack-entries`.
    pub listpack_entries: usize,
    /// The most bytes of a member of a listpack: `set-max-listpack-value`.
    pub listpack_value: usize,
}

/// However high the limits are, a listpack has no more bytes.
const LISTPACK_BYTES_MAX: usize = 1 << 30;
/// However high the limits are, an intset has no more integers.
const INTSET_ENTRIES_MAX: usize = 1 << 30;

/// A member to be looked for, added or removed: parsed and hashed once, for any number of sets.
#[derive(Debug)]
pub struct Probe<'a> {
    needle: Needle<'a>,
    hash: std::cell::OnceCell<u64>,
}

impl<'a> Probe<'a> {
    /// The member with these bytes.
    pub fn new(bytes: &'a [u8]) -> Probe<'a> {
        Probe { needle: Needle::new(bytes), hash: std::cell::OnceCell::new() }
    }

    /// A member that some set has; `buffer` is where the text of an integer is kept.
    pub fn of(item: Item<'a>, buffer: &'a mut itoa::Buffer) -> Probe<'a> {
        let needle = match item {
            Item::Int(n) => Needle::of_integer(n, item.text(buffer)),
            Item::Bytes(bytes) => Needle::new(bytes),
        };
        Probe { needle, hash: std::cell::OnceCell::new() }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.needle.bytes()
    }

    #[inline]
    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| hash_bytes(self.needle.bytes()))
    }
}

/// A set of byte strings.
#[derive(Debug, Clone)]
pub struct Set(Repr);

#[derive(Debug, Clone)]
enum Repr {
    Intset(Intset),
    Listpack(Listpack),
    Table(Members),
}

#[derive(Debug, Clone, Default)]
struct Members {
    table: SharedTable<Member>,
    /// What the members take beside their places in the table, in bytes.
    allocated: usize,
}

impl Members {
    fn contains(&self, probe: &Probe<'_>) -> bool {
        self.table.find(probe.hash(), |member| member.bytes() == probe.bytes()).is_some()
    }

    fn add(&mut self, probe: &Probe<'_>) -> bool {
        match self.table.entry(probe.hash(), |member| member.bytes() == probe.bytes(), Member::hash) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                self.allocated += entry.insert(Member::new(probe.bytes())).allocated_bytes();
                true
            }
        }
    }

    fn remove(&mut self, probe: &Probe<'_>) -> bool {
        match self.table.remove(probe.hash(), |member| member.bytes() == probe.bytes(), Member::hash) {
            Some(member) => {
                self.allocated -= member.allocated_bytes();
                true
            }
            None => false,
        }
    }
}

fn find(pack: &Listpack, probe: &Probe<'_>) -> Option<crate::types::listpack::Place> {
    let mut next = pack.first();
    while let Some(place) = next {
        if probe.needle.is(pack.at(place)) {
            break;
        }
        next = pack.next(place);
    }
    next
}

impl Default for Set {
    /// An empty one, of integers so far.
    fn default() -> Set {
        Set(Repr::Intset(Intset::new()))
    }
}

impl Set {
    /// An empty set for `count` members of which `first` is the first, in the encoding that suits them.
    pub fn expecting(first: &Probe<'_>, count: usize, limits: &Limits) -> Set {
        Set(if first.needle.integer().is_some() && count <= limits.intset_entries {
            Repr::Intset(Intset::new())
        } else if count <= limits.listpack_entries {
            Repr::Listpack(Listpack::new())
        } else {
            Repr::Table(Members::default())
        })
    }

    /// An empty set that begins as a listpack, even if its members are integers.
    pub fn listpack() -> Set {
        Set(Repr::Listpack(Listpack::new()))
    }

    /// Takes over an intset.
    pub fn from_intset(set: Intset) -> Set {
        Set(Repr::Intset(set))
    }

    /// Takes over a listpack, whose elements must differ from each other.
    pub fn from_listpack(pack: Listpack) -> Set {
        Set(Repr::Listpack(pack))
    }

    /// The intset, where it is one.
    pub fn as_intset(&self) -> Option<&Intset> {
        if let Repr::Intset(set) = &self.0 { Some(set) } else { None }
    }

    /// The listpack, where it is one.
    pub fn as_listpack(&self) -> Option<&Listpack> {
        if let Repr::Listpack(pack) = &self.0 { Some(pack) } else { None }
    }

    /// The table of its members, where it is large.
    #[inline]
    pub fn elements(&self) -> Option<Elements<'_>> {
        if let Repr::Table(members) = &self.0 { Some(Elements::Members(&members.table)) } else { None }
    }

    /// The number of members.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Intset(set) => set.len(),
            Repr::Listpack(pack) => pack.len(),
            Repr::Table(members) => members.table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name that OBJECT ENCODING answers.
    pub fn encoding(&self) -> &'static str {
        match self.0 {
            Repr::Intset(_) => "intset",
            Repr::Listpack(_) => "listpack",
            Repr::Table(_) => "hashtable",
        }
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Repr::Intset(set) => set.memory(),
            Repr::Listpack(pack) => pack.memory(),
            Repr::Table(members) => members.table.allocated_bytes() + members.allocated,
        }
    }

    /// Says that so many members are about to be added: makes the set a table where they are too many, even if some
    /// of them are there already.
    pub fn make_room(&mut self, count: usize, limits: &Limits) {
        let most = match self.0 {
            Repr::Intset(_) => limits.intset_entries,
            Repr::Listpack(_) => limits.listpack_entries,
            Repr::Table(_) => return,
        };
        if count > most {
            self.make_table();
        }
    }

    fn make_table(&mut self) {
        let mut members = Members::default();
        for item in self.iter() {
            members.add(&Probe::of(item, &mut itoa::Buffer::new()));
        }
        self.0 = Repr::Table(members);
    }

    /// Adds a member; returns whether it was missing.
    pub fn add(&mut self, probe: &Probe<'_>, limits: &Limits) -> bool {
        match &mut self.0 {
            Repr::Table(members) => members.add(probe),
            Repr::Intset(set) => {
                if let Some(n) = probe.needle.integer() {
                    let added = set.insert(n);
                    if added && set.len() > limits.intset_entries.min(INTSET_ENTRIES_MAX) {
                        self.make_table();
                    }
                    return added;
                }
                if Self::intset_fits_listpack(set, probe, limits) {
                    let mut pack = Listpack::new();
                    for n in set.iter() {
                        pack.push_back(itoa::Buffer::new().format(n).as_bytes());
                    }
                    pack.push_back(probe.bytes());
                    self.0 = Repr::Listpack(pack);
                    return true;
                }
                self.make_table();
                self.add(probe, limits)
            }
            Repr::Listpack(pack) => {
                if find(pack, probe).is_some() {
                    return false;
                }
                if pack.len() < limits.listpack_entries
                    && probe.bytes().len() <= limits.listpack_value
                    && pack.byte_len() + probe.bytes().len() <= LISTPACK_BYTES_MAX
                {
                    pack.push_back(probe.bytes());
                    return true;
                }
                self.make_table();
                self.add(probe, limits)
            }
        }
    }

    /// Whether the integers and a string beside them may be a listpack.
    fn intset_fits_listpack(set: &Intset, string: &Probe<'_>, limits: &Limits) -> bool {
        let digits = |n: i64| itoa::Buffer::new().format(n).len();
        let longest = [set.at(0), set.at(set.len().wrapping_sub(1))].into_iter().flatten().map(digits).max();
        // No integer takes more than 11 bytes of a listpack.
        set.len() < limits.listpack_entries
            && string.bytes().len() <= limits.listpack_value
            && longest.unwrap_or(0) <= limits.listpack_value
            && set.len() * 11 + string.bytes().len() <= LISTPACK_BYTES_MAX
    }

    /// Makes a set of nothing but integers an intset, where it is small enough for one.
    pub fn make_intset(&mut self, limits: &Limits) {
        if self.as_intset().is_some() || self.len() > limits.intset_entries.min(INTSET_ENTRIES_MAX) {
            return;
        }
        let mut ints = Vec::with_capacity(self.len());
        for item in self.iter() {
            let n = match item {
                Item::Int(n) => n,
                Item::Bytes(text) => match Needle::new(text).integer() {
                    Some(n) => n,
                    None => return,
                },
            };
            ints.push(n);
        }
        let mut set = Intset::new();
        ints.sort_unstable();
        ints.into_iter().for_each(|n| _ = set.insert(n));
        self.0 = Repr::Intset(set);
    }

    /// Whether the member is there.
    #[inline]
    pub fn contains(&self, probe: &Probe<'_>) -> bool {
        match &self.0 {
            Repr::Intset(set) => probe.needle.integer().is_some_and(|n| set.contains(n)),
            Repr::Listpack(pack) => find(pack, probe).is_some(),
            Repr::Table(members) => members.contains(probe),
        }
    }

    /// Removes a member; returns whether it was there.
    pub fn remove(&mut self, probe: &Probe<'_>) -> bool {
        match &mut self.0 {
            Repr::Intset(set) => probe.needle.integer().is_some_and(|n| set.remove(n)),
            Repr::Listpack(pack) => match find(pack, probe) {
                Some(place) => {
                    pack.remove(place);
                    true
                }
                None => false,
            },
            Repr::Table(members) => members.remove(probe),
        }
    }

    /// All members: those of an intset ascending, those of a listpack as they were added.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        let (set, pack, table) = match &self.0 {
            Repr::Intset(set) => (Some(set), None, None),
            Repr::Listpack(pack) => (None, Some(pack), None),
            Repr::Table(members) => (None, None, Some(&members.table)),
        };
        let set = set.into_iter().flat_map(Intset::iter).map(Item::Int);
        let pack = pack.into_iter().flat_map(Listpack::iter);
        let table = table.into_iter().flat_map(|table| table.iter()).map(|member| Item::Bytes(member.bytes()));
        set.chain(pack).chain(table)
    }

    /// Calls `f` for every member from `cursor` on until about `budget` were visited; returns where to go on, 0 at the
    /// end. A compact set is visited as a whole, whatever the cursor is.
    pub fn scan(&self, cursor: u64, budget: usize, mut f: impl FnMut(Item<'_>)) -> u64 {
        match &self.0 {
            Repr::Table(members) => {
                // A cursor that is none of ours lies beyond the end.
                let Some(from) = cursor.checked_mul(1 << CURSOR_SHIFT) else { return 0 };
                let next = members.table.scan(from, budget, Member::hash, |member| f(Item::Bytes(member.bytes())));
                next.map_or(0, |next| next >> CURSOR_SHIFT)
            }
            _ => {
                self.iter().for_each(f);
                0
            }
        }
    }

    /// A random member, each as likely as any other.
    pub fn random(&self, rng: &mut Rng) -> Option<Item<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.0 {
            Repr::Intset(set) => set.at(rng.usize(..set.len())).map(Item::Int),
            Repr::Listpack(pack) => pack.seek(rng.usize(..pack.len())).map(|place| pack.at(place)),
            Repr::Table(members) => members.table.random(rng).map(|member| Item::Bytes(member.bytes())),
        }
    }

    /// Calls `f` for `count` different members (all, if there are fewer), every choice of so many as likely as any other.
    pub fn sample(&self, count: usize, rng: &mut Rng, mut f: impl FnMut(Item<'_>)) {
        let len = self.len();
        if let Repr::Table(members) = &self.0
            && count < len / 3
        {
            // One is drawn again so seldom that this is less than a walk. A member is known by its address.
            let mut seen = HashSet::with_capacity(count);
            while seen.len() < count
                && let Some(member) = members.table.random(rng)
            {
                if seen.insert(std::ptr::from_ref(member).addr()) {
                    f(Item::Bytes(member.bytes()));
                }
            }
            return;
        }
        // Each is taken with the probability that is left to it: as many as are wanted, of as many as are to come.
        let mut wanted = count.min(len);
        for (at, item) in self.iter().enumerate() {
            if rng.usize(..len - at) < wanted {
                f(item);
                wanted -= 1;
            }
        }
    }

    /// Removes and returns a random member, each as likely as any other.
    pub fn pop(&mut self, rng: &mut Rng) -> Option<Vec<u8>> {
        let member = self.random(rng)?.to_vec();
        self.remove(&Probe::new(&member));
        Some(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const LIMITS: Limits = Limits { intset_entries: 512, listpack_entries: 128, listpack_value: 64 };

    fn members(set: &Set) -> BTreeSet<Vec<u8>> {
        let all: Vec<_> = set.iter().map(Item::to_vec).collect();
        assert_eq!(all.len(), set.len(), "each member once");
        all.into_iter().collect()
    }

    fn filled(members: impl IntoIterator<Item = impl AsRef<[u8]>>, limits: &Limits) -> Set {
        let mut set = Set::default();
        for member in members {
            set.add(&Probe::new(member.as_ref()), limits);
        }
        set
    }

    fn numbers(range: std::ops::Range<i64>) -> impl Iterator<Item = String> {
        range.map(|n| n.to_string())
    }

    #[test]
    fn the_encoding_follows_what_is_in_it() {
        let encoding = |members: Vec<String>| filled(members, &LIMITS).encoding();
        assert_eq!(encoding(numbers(0..512).collect()), "intset");
        assert_eq!(encoding(numbers(0..513).collect()), "hashtable");
        assert_eq!(encoding(numbers(0..127).chain(["a".into()]).collect()), "listpack");
        assert_eq!(encoding(numbers(0..128).chain(["a".into()]).collect()), "hashtable");
        assert_eq!(encoding(vec!["a".repeat(64)]), "listpack");
        assert_eq!(encoding(vec!["a".repeat(65)]), "hashtable");
        assert_eq!(encoding(numbers(0..127).chain(["a".into()]).chain(numbers(500..501)).collect()), "hashtable");
        let narrow = Limits { listpack_value: 3, ..LIMITS };
        assert_eq!(filled(["1000", "a"], &narrow).encoding(), "hashtable");
        assert_eq!(filled(["-100", "a"], &narrow).encoding(), "hashtable");
        assert_eq!(filled(["100", "a"], &narrow).encoding(), "listpack");
    }

    #[test]
    fn a_new_set_suits_what_is_said_to_come() {
        let encoding = |first: &str, count| Set::expecting(&Probe::new(first.as_bytes()), count, &LIMITS).encoding();
        assert_eq!([encoding("1", 512), encoding("1", 513)], ["intset", "hashtable"]);
        assert_eq!([encoding("a", 128), encoding("a", 129), encoding("01", 1)], ["listpack", "hashtable", "listpack"]);
        let few = Limits { intset_entries: 2, ..LIMITS };
        assert_eq!(Set::expecting(&Probe::new(b"1"), 3, &few).encoding(), "listpack");
        let mut set = filled(["a"], &LIMITS);
        set.make_room(128, &LIMITS);
        assert_eq!(set.encoding(), "listpack");
        set.make_room(129, &LIMITS);
        assert_eq!((set.encoding(), set.len()), ("hashtable", 1));
    }

    #[test]
    fn a_listpack_of_integers_can_become_an_intset() {
        let mut set = Set::listpack();
        for n in ["3", "1", "2"] {
            set.add(&Probe::new(n.as_bytes()), &LIMITS);
        }
        set.make_intset(&Limits { intset_entries: 2, ..LIMITS });
        assert_eq!(set.encoding(), "listpack");
        set.make_intset(&LIMITS);
        assert_eq!((set.encoding(), set.iter().next()), ("intset", Some(Item::Int(1))));
        let mut set = filled(["1", "a"], &LIMITS);
        set.make_intset(&LIMITS);
        assert_eq!(set.encoding(), "listpack");
    }

    #[test]
    fn a_large_set_takes_little_more_than_its_members() {
        let count = if cfg!(miri) { 1500 } else { 100_000 };
        let set = filled((0..count).map(|n| format!("member:{n:09}")), &LIMITS);
        // 16 bytes each, and 9 for a place in a table that is between half and wholly full.
        assert!(set.memory() < count * 40, "{}", set.memory());
        let mut set = set;
        for n in 0..count {
            assert!(set.remove(&Probe::new(format!("member:{n:09}").as_bytes())));
        }
        assert_eq!((set.memory(), set.is_empty()), (0, true));
    }

    #[test]
    fn members_are_drawn_evenly() {
        let mut rng = Rng::with_seed(11);
        let count = 600;
        let texts: Vec<String> = (0..count).map(|n| format!("m{n}")).collect();
        let sets = [filled(numbers(0..100), &LIMITS), filled(&texts[..100], &LIMITS), filled(&texts, &LIMITS)];
        let draws = if cfg!(miri) { 1 } else { 200 };
        for set in &sets {
            for share in [10, 2, 1] {
                let mut met = std::collections::HashMap::<Vec<u8>, usize>::new();
                let size = set.len() / share;
                for _ in 0..draws * share {
                    let before = met.values().sum::<usize>();
                    let mut once = BTreeSet::new();
                    set.sample(size, &mut rng, |item| {
                        assert!(once.insert(item.to_vec()));
                        *met.entry(item.to_vec()).or_default() += 1;
                    });
                    assert_eq!(met.values().sum::<usize>() - before, size);
                }
                if !cfg!(miri) {
                    assert_eq!(met.len(), set.len());
                    // 200 expected, a deviation of 14 at most: 6 of them are exceeded once in 10^9 draws.
                    assert!(met.values().all(|times| (110..290).contains(times)), "{share}: {:?}", met.values().max());
                }
            }
            let mut all = 0;
            set.sample(usize::MAX, &mut rng, |_| all += 1);
            assert_eq!(all, set.len());
        }
    }

    #[test]
    fn a_scan_of_a_large_set_meets_each_member_once() {
        let set = filled((0..2000).map(|n| format!("m{n}")), &LIMITS);
        let (mut seen, mut cursor) = (BTreeSet::new(), 0);
        loop {
            cursor = set.scan(cursor, 10, |item| assert!(seen.insert(item.to_vec())));
            if cursor == 0 {
                break;
            }
            assert!(cursor < 1 << 53);
        }
        assert_eq!(seen, members(&set));
        // A cursor from nowhere ends the scan.
        assert_eq!(set.scan(u64::MAX, 10, |_| ()), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(Vec<u8>),
        Remove(Vec<u8>),
        Room(usize),
        Pop,
        /// The other side becomes a clone of this one, and what follows goes to the other.
        Fork,
        /// What follows goes to the other side.
        Switch,
    }

    fn member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => (-30i64..30).prop_map(|n| n.to_string().into_bytes()),
            2 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            4 => (0usize..40).prop_map(|n| vec![b'm'; n]),
            1 => (200usize..300).prop_map(|n| vec![b'l'; n]),
            1 => prop::sample::select(vec!["01", "-0", "+1", " 1", "9223372036854775808"]).prop_map(|s| s.into()),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            10 => member().prop_map(Step::Add),
            5 => member().prop_map(Step::Remove),
            1 => (0usize..12).prop_map(Step::Room),
            1 => Just(Step::Pop),
            1 => Just(Step::Fork),
            1 => Just(Step::Switch),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_holds_what_a_tree_holds(
            intset_entries in 0usize..30, listpack_entries in 0usize..30, listpack_value in 0usize..60,
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let limits = Limits { intset_entries, listpack_entries, listpack_value };
            let mut rng = Rng::with_seed(5);
            let mut sides: [(Set, BTreeSet<Vec<u8>>); 2] = Default::default();
            let mut side = 0;
            for step in steps {
                let (set, model) = &mut sides[side];
                match step {
                    Step::Add(m) => {
                        prop_assert_eq!(set.add(&Probe::new(&m), &limits), model.insert(m.clone()));
                        prop_assert!(set.contains(&Probe::new(&m)));
                    }
                    Step::Remove(m) => {
                        prop_assert_eq!(set.remove(&Probe::new(&m)), model.remove(&m));
                        prop_assert!(!set.contains(&Probe::new(&m)));
                    }
                    Step::Room(count) => set.make_room(count, &limits),
                    Step::Pop => match set.pop(&mut rng) {
                        Some(m) => prop_assert!(model.remove(&m)),
                        None => prop_assert!(model.is_empty()),
                    },
                    Step::Fork => {
                        sides[1 - side] = sides[side].clone();
                        side = 1 - side;
                    }
                    Step::Switch => side = 1 - side,
                }
                for (set, model) in &sides {
                    prop_assert_eq!(&members(set), model);
                    if let Repr::Table(table) = &set.0 {
                        let allocated: usize = table.table.iter().map(Member::allocated_bytes).sum();
                        prop_assert_eq!(allocated, table.allocated);
                    }
                }
            }
        }
    }
}
