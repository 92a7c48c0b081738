//! SORT and SORT_RO: the elements of a list, a set or a sorted set, ordered by themselves or by other keys' values.
//!
//! What must stay true: keys whose names are made from patterns are read like any other, so all shards are held
//! where there is such a pattern (see [`Keys::Unknown`]); what STORE leaves behind does not depend on the order in
//! which a set happens to keep its members, or else the log gets the result itself.

use std::cmp::Ordering;

use crate::command::args::{Args, word};
use crate::command::context::{Context, DONE, Reply, write_string};
use crate::command::error::Error;
use crate::command::hash::write_text;
use crate::command::list::limit_of;
use crate::command::permission;
use crate::command::table::Command;
use crate::keyspace::change::{Class, Effect};
use crate::keyspace::db::Db;
use crate::keyspace::entry::Value;
use crate::spec::{Access, Arity, Category, Flag, Group, Keys};
use crate::stdx::crc::{hash_tag, key_slot};
use crate::stdx::number::{append_i64, parse_f64};
use crate::types::hash::Text;
use crate::types::list::{End, List};
use crate::types::listpack::Item;
use crate::types::zset::Direction;
use crate::types::{Kind, Object, ObjectRef};

/// This family's commands.
pub const COMMANDS: &[Command] = &[SORT, SORT_RO];

/// What COMMAND INFO remarks of the keys that patterns lead to.
const PATTERNS_NOTE: &str = "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort";
/// And of the key to store in.
const STORE_NOTE: &str = "For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument array";

const PATTERNS: Keys = Keys::Unknown { words: &["BY", "GET"], access: Access::READ.noted(PATTERNS_NOTE) };

/// Sorts a list, a set or a sorted set; replies with the elements or with what GET asks for, or how many were stored.
pub const SORT: Command = Command {
    name: "SORT",
    since: "1.0.0",
    group: Group::Generic,
    arity: Arity::AtLeast(2),
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[Category::Set, Category::SortedSet, Category::List, Category::Dangerous],
    keys: &[
        Keys::At { first: 1, access: Access::READ },
        PATTERNS,
        Keys::Option {
            word: "STORE",
            from: 2,
            others: &[("BY", 1), ("GET", 1), ("LIMIT", 2)],
            access: Access::OVERWRITE.noted(STORE_NOTE),
        },
    ],
    usage: "key [BY by-pattern/pattern:pattern#1] [LIMIT limit{offset count}] [GET get-pattern/pattern:pattern#1]... [order(ASC | DESC)] [sorting=ALPHA] [STORE destination:key]",
    summary: "Sorts the elements in a list, a set, or a sorted set, optionally storing the result.",
    complexity: "O(N+M*log(M)) where N is the number of elements in the list or set to sort, and M the number of returned elements. When the elements are not sorted, complexity is O(N).",
    tips: &[],
    history: &[],
    deprecated: None,
    subcommands: &[],
    run: |ctx, args| sort(ctx, args, Mode::MayStore),
};

/// SORT without STORE, which so can run on a replica.
pub const SORT_RO: Command = Command {
    name: "SORT_RO",
    since: "7.0.0",
    flags: &[Flag::ReadOnly],
    keys: &[Keys::At { first: 1, access: Access::READ }, PATTERNS],
    usage: "key [BY by-pattern/pattern:pattern#1] [LIMIT limit{offset count}] [GET get-pattern/pattern:pattern#1]... [order(ASC | DESC)] [sorting=ALPHA]",
    summary: "Returns the sorted elements of a list, a set, or a sorted set.",
    run: |ctx, args| sort(ctx, args, Mode::OnlyReads),
    ..SORT
};

/// Which of the two commands it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    MayStore,
    OnlyReads,
}

/// What BY or GET name.
enum Pattern<'a> {
    /// `#`: the element itself.
    Element,
    /// No `*` in it: no key at all.
    Constant,
    /// The key with the element in place of the first `*`, or a field of the hash there.
    Key { before: &'a [u8], after: &'a [u8], field: Option<&'a [u8]> },
}

impl<'a> Pattern<'a> {
    fn parse(text: &'a [u8]) -> Pattern<'a> {
        if text == b"#" {
            return Pattern::Element;
        }
        let Some(star) = text.iter().position(|byte| *byte == b'*') else { return Pattern::Constant };
        let (before, after) = (&text[..star], &text[star + 1..]);
        match after.windows(2).position(|pair| pair == b"->") {
            // With nothing behind it the arrow is part of the key.
            Some(arrow) if arrow + 2 < after.len() => {
                Pattern::Key { before, after: &after[..arrow], field: Some(&after[arrow + 2..]) }
            }
            _ => Pattern::Key { before, after, field: None },
        }
    }
}

/// A value that a pattern led to.
enum Found<'e> {
    Element(&'e [u8]),
    String(Value<'e>),
    Field(Text<'e>),
}

impl Found<'_> {
    fn with<R>(self, f: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Found::Element(bytes) | Found::String(Value::Bytes(bytes)) => f(bytes),
            Found::String(Value::Int(n)) => f(itoa::Buffer::new().format(n).as_bytes()),
            Found::String(Value::Large(large)) => f(large.bytes()),
            Found::String(Value::Object(_)) => f(b""),
            Found::Field(text) => text.with(f),
        }
    }
}

/// The value that `pattern` leads to for an element. `name` is where the key's name is put together.
fn look_up<'e>(db: &'e mut Db<'_>, pattern: &Pattern<'_>, element: &'e [u8], name: &mut Vec<u8>) -> Option<Found<'e>> {
    let (before, after, field) = match pattern {
        Pattern::Element => return Some(Found::Element(element)),
        Pattern::Constant => return None,
        Pattern::Key { before, after, field } => (before, after, field),
    };
    name.clear();
    [before, element, after].into_iter().for_each(|part| name.extend_from_slice(part));
    let (key, now) = (db.key(name), db.now_ms());
    match (db.read(&key)?.value(), field) {
        (Value::Object(ObjectRef::Hash(hash)), Some(field)) => {
            hash.at(now).get(field).map(|found| Found::Field(found.value))
        }
        (Value::Object(_), _) | (_, Some(_)) => None,
        (string, None) => Some(Found::String(string)),
    }
}

/// Texts one behind the other in one allocation.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn at(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
    }

    fn push_item(&mut self, item: Item<'_>) {
        match item {
            Item::Int(n) => {
                append_i64(&mut self.bytes, n);
                self.ends.push(self.bytes.len());
            }
            Item::Bytes(bytes) => self.push(bytes),
        }
    }
}

/// What a request asks for.
struct Options<'a> {
    descending: bool,
    alpha: bool,
    /// The first element that is wanted, and how many; a negative number of them are all.
    offset: i64,
    count: i64,
    by: Option<Pattern<'a>>,
    /// Some BY names no key: elements come as they are kept, whatever another BY says.
    kept: bool,
    wanted: Vec<Pattern<'a>>,
    /// Position of the key to store in.
    store: Option<usize>,
}

impl<'a> Options<'a> {
    /// `any_key` says whether the client may follow names that stand in values, which an option and its pattern want.
    fn parse(
        args: &Args<'a>,
        mode: Mode,
        any_key: impl Fn(&str, &[u8]) -> Result<(), Error>,
    ) -> Result<Options<'a>, Error> {
        let mut options = Options {
            descending: false,
            alpha: false,
            offset: 0,
            count: -1,
            by: None,
            kept: false,
            wanted: Vec::new(),
            store: None,
        };
        let mut i = 2;
        while i < args.len() {
            let behind = args.len() - i - 1;
            match word(args.at(i), &["ASC", "DESC", "ALPHA", "LIMIT", "STORE", "BY", "GET"]) {
                Some("ASC") => options.descending = false,
                Some("DESC") => options.descending = true,
                Some("ALPHA") => options.alpha = true,
                Some("LIMIT") if behind >= 2 => {
                    (options.offset, options.count) = (args.integer(i + 1)?, args.integer(i + 2)?);
                    i += 2;
                }
                Some("STORE") if behind >= 1 && mode == Mode::MayStore => {
                    options.store = Some(i + 1);
                    i += 1;
                }
                Some("BY") if behind >= 1 => {
                    // `#` is no key to look up here: like any constant it says that nothing is to be sorted.
                    let by = match Pattern::parse(args.at(i + 1)) {
                        Pattern::Element => Pattern::Constant,
                        pattern => pattern,
                    };
                    if matches!(by, Pattern::Key { .. }) {
                        any_key("BY", args.at(i + 1))?;
                    }
                    options.kept |= matches!(by, Pattern::Constant);
                    options.by = Some(by);
                    i += 1;
                }
                Some("GET") if behind >= 1 => {
                    any_key("GET", args.at(i + 1))?;
                    options.wanted.push(Pattern::parse(args.at(i + 1)));
                    i += 1;
                }
                _ => return Err(Error::Syntax),
            }
            i += 1;
        }
        Ok(options)
    }

    /// Which of `len` elements are wanted: the first, and the one behind the last.
    fn range(&self, len: usize) -> (usize, usize) {
        let clamp = |n: i64| usize::try_from(n).unwrap_or(0).min(len);
        let start = clamp(self.offset);
        let end = if self.count < 0 { len } else { (start + clamp(self.count)).min(len) };
        (start, end)
    }
}

/// Whether all keys that a pattern can name are in the slot of this key.
fn names_slot_of(pattern: &[u8], key: &[u8]) -> bool {
    let fixed = pattern.split(|byte| *byte == b'*').next().unwrap_or(pattern);
    // What comes in the place of the asterisk decides on the slot unless there is a tag before it.
    let is_certain = fixed.len() == pattern.len() || hash_tag(fixed).len() < fixed.len();
    is_certain && key_slot(fixed) == key_slot(key)
}

fn denied(option: &str) -> Error {
    Error::text(format!("ERR {option} option of SORT denied due to insufficient ACL permissions."))
}

/// Whether the elements come as they are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Kept,
    Sorted,
}

/// The elements of what is sorted; those alone that are wanted where that is known from their position.
struct Source {
    elements: Texts,
    /// Which of the elements are wanted, once they are in order.
    range: (usize, usize),
    order: Order,
    /// Whether it is a set, which keeps its members in no order that another server would keep them in.
    unordered: bool,
}

fn load(value: Value<'_>, options: &mut Options<'_>, scripted: bool) -> Result<Source, Error> {
    let Value::Object(object) = value else { return Err(Error::WrongType) };
    let mut order = if options.kept { Order::Kept } else { Order::Sorted };
    let unordered = object.kind() == Kind::Set;
    if unordered && order == Order::Kept && (options.store.is_some() || scripted) {
        // What is stored, or a script goes by, must not depend on how this server keeps the set.
        (order, options.alpha, options.by) = (Order::Sorted, true, None);
    }
    let len = object.len();
    let wanted = options.range(len);
    let at_once = order == Order::Kept && !unordered;
    let (first, count) = if at_once { (wanted.0, wanted.1 - wanted.0) } else { (0, len) };
    let backwards = at_once && options.descending;
    let from = if backwards { (len - first).saturating_sub(1) } else { first };
    let mut elements = Texts::default();
    match object {
        ObjectRef::List(list) => {
            let end = if backwards { End::Tail } else { End::Head };
            list.take(from, end, count, |item| elements.push_item(item));
        }
        ObjectRef::SortedSet(zset) => {
            let direction = if backwards { Direction::Down } else { Direction::Up };
            zset.iter(from, direction).take(count).for_each(|(item, _)| elements.push_item(item));
        }
        ObjectRef::Set(set) => set.iter().for_each(|item| elements.push_item(item)),
        _ => return Err(Error::WrongType),
    }
    let range = if at_once { (0, elements.len()) } else { wanted };
    Ok(Source { elements, range, order, unordered })
}

/// A number as `strtod` reads the whole of a text: blanks in front are allowed, nothing at all is 0, and a NUL ends
/// the text. `None` where it is none, or not a number, or too large.
fn score(text: &[u8]) -> Option<f64> {
    let text = until_nul(text);
    if text.is_empty() {
        return Some(0.0);
    }
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    parse_f64(&text[blanks..])
}

/// A text as C's functions see it.
fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or(text)
}

/// What of a text counts in comparisons: all of it where the result is stored, else what strcoll looks at in the C
/// locale.
fn collated(text: &[u8], store: Option<usize>) -> &[u8] {
    if store.is_some() { text } else { until_nul(text) }
}

/// What elements are compared by: the numbers or the texts that BY leads to, or the elements themselves.
#[derive(Default)]
struct Weights {
    scores: Vec<f64>,
    /// Empty where elements are compared by their own text.
    texts: Texts,
    /// Which of the texts there are.
    there: Vec<bool>,
}

/// Looks up what the elements are compared by.
fn weigh(ctx: &mut Context<'_>, elements: &Texts, options: &Options<'_>) -> Result<Weights, Error> {
    let mut weights = Weights::default();
    let mut name = Vec::new();
    let mut bad = false;
    if options.alpha && options.by.is_none() {
        return Ok(weights);
    }
    for i in 0..elements.len() {
        let element = elements.at(i);
        let found = match &options.by {
            Some(by) => look_up(&mut ctx.db, by, element, &mut name),
            None => Some(Found::Element(element)),
        };
        if options.alpha {
            weights.there.push(found.is_some());
            match found {
                Some(found) => found.with(|text| weights.texts.push(text)),
                None => weights.texts.push(b""),
            }
        } else {
            let score = found.map_or(Some(0.0), |found| found.with(score));
            bad |= score.is_none();
            weights.scores.push(score.unwrap_or(0.0));
        }
    }
    if bad {
        return Err(Error::text("ERR One or more scores can't be converted into double"));
    }
    Ok(weights)
}

/// The positions of the elements that are wanted, in order.
///
/// Where two are equal by their weights, their own texts decide between numbers, and else which came first.
fn ordered(elements: &Texts, weights: &Weights, options: &Options<'_>, range: (usize, usize)) -> Vec<usize> {
    let compare = |a: usize, b: usize| match (options.alpha, &options.by) {
        (false, _) => {
            let by_score = weights.scores[a].partial_cmp(&weights.scores[b]).unwrap_or(Ordering::Equal);
            by_score.then_with(|| elements.at(a).cmp(elements.at(b)))
        }
        (true, None) => collated(elements.at(a), options.store).cmp(collated(elements.at(b), options.store)),
        (true, Some(_)) => {
            // One that is missing comes before any text, an empty one too.
            let by_presence = weights.there[a].cmp(&weights.there[b]);
            by_presence.then_with(|| {
                collated(weights.texts.at(a), options.store).cmp(collated(weights.texts.at(b), options.store))
            })
        }
    };
    let total = |a: &usize, b: &usize| {
        let by_weight = compare(*a, *b);
        if options.descending { by_weight.reverse() } else { by_weight }.then(a.cmp(b))
    };
    let mut positions: Vec<usize> = (0..elements.len()).collect();
    let (start, end) = range;
    if start >= end {
        return Vec::new();
    }
    if end < positions.len() {
        positions.select_nth_unstable_by(end, total);
        positions.truncate(end);
    }
    positions.sort_unstable_by(total);
    positions.drain(..start);
    positions
}

fn sort(ctx: &mut Context<'_>, args: &Args<'_>, mode: Mode) -> Reply {
    let any_key = |option: &str, pattern: &[u8]| {
        if ctx.config.cluster_enabled && pattern != b"#" && !names_slot_of(pattern, args.at(1)) {
            return Err(Error::text(format!(
                "ERR {option} option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots."
            )));
        }
        let entry = ctx.engine.commands.find(args.at(0));
        let may = entry.is_some_and(|entry| permission::may_read_any_key(ctx.session, entry, args));
        if may { Ok(()) } else { Err(denied(option)) }
    };
    let mut options = Options::parse(args, mode, any_key)?;
    let key = args.key(&ctx.db, 1);
    let Some(entry) = ctx.db.read(&key) else {
        let empty = Source { elements: Texts::default(), range: (0, 0), order: Order::Kept, unordered: false };
        return finish(ctx, args, &options, &empty, &[]);
    };
    let source = load(entry.value(), &mut options, ctx.scripted)?;
    let positions = if source.order == Order::Kept {
        (source.range.0..source.range.1).collect()
    } else {
        let weights = weigh(ctx, &source.elements, &options)?;
        ordered(&source.elements, &weights, &options, source.range)
    };
    finish(ctx, args, &options, &source, &positions)
}

/// Replies with the elements at `positions`, or stores them.
fn finish(
    ctx: &mut Context<'_>,
    args: &Args<'_>,
    options: &Options<'_>,
    source: &Source,
    positions: &[usize],
) -> Reply {
    let (elements, wanted) = (&source.elements, &options.wanted);
    let Some(at) = options.store else {
        ctx.out.array(positions.len() * wanted.len().max(1));
        let mut name = Vec::new();
        for &i in positions {
            if wanted.is_empty() {
                ctx.out.bulk(elements.at(i));
            }
            for pattern in wanted {
                match look_up(&mut ctx.db, pattern, elements.at(i), &mut name) {
                    None => ctx.out.null(),
                    Some(Found::Element(bytes)) => ctx.out.bulk(bytes),
                    Some(Found::String(value)) => write_string(ctx.out, value)?,
                    Some(Found::Field(text)) => write_text(ctx.out, text),
                }
            }
        }
        return DONE;
    };
    let mut results = Texts::default();
    let mut name = Vec::new();
    for &i in positions {
        if wanted.is_empty() {
            results.push(elements.at(i));
        }
        for pattern in wanted {
            match look_up(&mut ctx.db, pattern, elements.at(i), &mut name) {
                None => results.push(b""),
                Some(found) => found.with(|text| results.push(text)),
            }
        }
    }
    store(ctx, args, at, &results);
    // Members of a set that BY's texts do not tell apart may lie in another order elsewhere.
    if source.unordered && options.alpha && options.by.is_some() {
        ctx.db.effects.log_as(|| stored(args.at(at), &results));
    }
    ctx.out.integer(results.len() as i64);
    DONE
}

/// Replaces a key by the list of `results`, or removes it where there are none.
fn store(ctx: &mut Context<'_>, args: &Args<'_>, at: usize, results: &Texts) {
    let target = args.key(&ctx.db, at);
    if results.len() == 0 {
        if ctx.db.remove(&target) {
            ctx.db.note(&target, Class::Generic, "del");
        }
        return;
    }
    let limit = limit_of(ctx.config);
    let mut list = List::default();
    list.make_room(results.bytes.len(), results.len(), limit);
    (0..results.len()).for_each(|i| list.push(End::Tail, results.at(i), limit));
    ctx.db.put(&target, Object::List(list));
    ctx.db.note(&target, Class::List, "sortstore");
    ctx.db.effects.dirty += results.len() as u64 - 1;
}

/// What leaves the same list behind wherever it is run.
fn stored(target: &[u8], results: &Texts) -> Vec<Effect> {
    /// Elements that one command of the log adds.
    const AT_ONCE: usize = 512;
    let mut commands = vec![vec![b"DEL".to_vec(), target.to_vec()]];
    for from in (0..results.len()).step_by(AT_ONCE) {
        let mut push = vec![b"RPUSH".to_vec(), target.to_vec()];
        push.extend((from..results.len().min(from + AT_ONCE)).map(|i| results.at(i).to_vec()));
        commands.push(push);
    }
    commands
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn patterns_name_keys_of_a_slot_where_a_tag_says_so() {
        for (pattern, is_one) in [
            ("{a}by*", true),
            ("x{a}by*->f", true),
            ("{a}", true),
            ("{b}by*", false),
            ("by*", false),
            ("*{a}", false),
            ("{a*}", false),
            ("{}a*", false),
        ] {
            assert_eq!(names_slot_of(pattern.as_bytes(), b"{a}mylist"), is_one, "{pattern}");
        }
    }

    #[test]
    fn a_number_is_what_strtod_makes_of_the_whole_text() {
        for (text, expected) in [
            (&b""[..], Some(0.0)),
            (b"\0", Some(0.0)),
            (b" \t\n12", Some(12.0)),
            (b"0x1p4", Some(16.0)),
            (b"-1.5e1\0x", Some(-15.0)),
            (b"inf", Some(f64::INFINITY)),
            (b" ", None),
            (b"1 ", None),
            (b"nan", None),
            (b"1e999", None),
        ] {
            assert_eq!(score(text), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn equal_texts_stay_in_the_order_they_were_in_whatever_part_is_wanted() {
        let mut bench = Bench::new();
        let elements: Vec<String> = (0..500).map(|n| n.to_string()).collect();
        bench.run(&format!("RPUSH l {}", elements.join(" ")));
        for n in 0..500 {
            bench.run(&format!("SET w{n} {}", ["b", "a", "c"][n % 3]));
        }
        let all = |bench: &mut Bench, more: &str| -> Vec<usize> {
            let reply = bench.run(&format!("SORT l BY w* ALPHA {more}"));
            reply.split('|').skip(2).step_by(2).filter_map(|word| word.parse().ok()).collect()
        };
        let mut expected: Vec<usize> = (0..500).collect();
        expected.sort_by_key(|n| [1, 0, 2][n % 3]);
        assert_eq!(all(&mut bench, ""), expected);
        assert_eq!(all(&mut bench, "LIMIT 100 250"), expected[100..350]);
        expected.sort_by_key(|n| std::cmp::Reverse([1, 0, 2][n % 3]));
        assert_eq!(all(&mut bench, "DESC"), expected);
        assert_eq!(all(&mut bench, "DESC LIMIT 400 7"), expected[400..407]);
    }

    #[test]
    fn a_stored_result_is_announced_and_logged_as_a_list_where_another_server_might_see_it_otherwise() {
        let mut bench = Bench::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let ours = seen.clone();
        bench.engine.observe(Box::new(move |change| {
            ours.lock().expect("no test panics with it").push(format!(
                "{} {}",
                change.event,
                change.key.escape_ascii()
            ));
        }));
        let log = Arc::new(Mutex::new(Vec::new()));
        let ours = log.clone();
        bench.engine.log.read_with(Box::new(move |bytes| {
            let text = String::from_utf8_lossy(bytes).replace("\r\n", "|");
            ours.lock().expect("no test panics with it").push(text);
        }));
        bench.run("SADD s a b");
        bench.run("RPUSH l 2 1");
        let taken = |of: &Mutex<Vec<String>>| std::mem::take(&mut *of.lock().expect("no test panics with it"));
        taken(&seen);
        taken(&log);
        bench.run("SORT l STORE out");
        assert_eq!(taken(&seen), ["new out", "sortstore out"]);
        assert!(taken(&log).concat().ends_with("*4|$4|SORT|$1|l|$5|STORE|$3|out|"));
        bench.run("SORT l LIMIT 5 1 STORE out");
        assert_eq!(taken(&seen), ["del out"]);
        assert_eq!(bench.run("SORT l LIMIT 5 1 STORE out"), ":0|");
        taken(&log);
        bench.run("SORT s BY w* ALPHA STORE out");
        let logged = taken(&log).concat();
        assert!(logged.contains("*2|$3|DEL|$3|out|") && logged.contains("*4|$5|RPUSH|$3|out|"), "{logged}");
        assert!(!logged.contains("SORT"), "{logged}");
        bench.run("SORT s ALPHA GET # GET none* STORE out");
        assert_eq!(bench.run("LRANGE out 0 -1"), "*4|$1|a|$0||$1|b|$0||");
        assert!(taken(&log).concat().contains("|SORT|"));
    }

    #[test]
    fn keys_that_have_expired_and_fields_that_have_are_not_found() {
        let mut bench = Bench::new();
        bench.run("RPUSH l 1 2");
        bench.run("SET w1 5 PX 10");
        bench.run("SET w2 3");
        bench.run("HSET h1 f 5 g x");
        bench.run("HSET h2 f 3");
        bench.run("HPEXPIRE h1 10 FIELDS 1 f");
        assert_eq!(bench.run("SORT l BY w* GET h*->f"), "*2|$1|3|$1|5|");
        bench.clock.advance(11);
        assert_eq!(bench.run("SORT l BY w* GET h*->f"), "*2|$-1|$1|3|");
    }
}
