//! What a run draws from: chance, keys, and values near the borders of encodings.

use std::ops::{Deref, DerefMut};

use fastrand::Rng;

/// The words of a command.
pub type Words = Vec<String>;

/// How the replies to a command are compared.
#[derive(Clone, Copy, Debug)]
pub enum Same {
    /// Byte by byte.
    Bytes,
    /// In any order.
    Unordered,
    /// But for what a clock may have moved on by, in the unit of the reply.
    Near(i128),
    /// But for how long entries have been pending, which XPENDING tells of each.
    Pending,
    /// But for the times at which something happened to groups; and what only Redis 7.2 tells of consumers is left out.
    Info,
    /// The name of an encoding: Redis 7.0 has other ones for small lists and sets.
    Encoding,
}

/// A source of chance that is decided by its seed.
pub struct Dice {
    rng: Rng,
    /// Whether the other server is Redis 7.2: what is newer than 7.0 is asked then.
    pub newer: bool,
}

impl Deref for Dice {
    type Target = Rng;

    fn deref(&self) -> &Rng {
        &self.rng
    }
}

impl DerefMut for Dice {
    fn deref_mut(&mut self) -> &mut Rng {
        &mut self.rng
    }
}

/// The letters that keys of the families begin with.
const FAMILIES: &[&str] = &["s", "l", "h", "t", "z", "g", "b", "p", "x"];
/// Keys of no family.
const OTHERS: &[&str] = &["{t}1", "{t}2", "\u{0}\r\n", "none", "lex"];

/// Whether a word may be a key.
pub fn is_key(word: &str) -> bool {
    OTHERS.contains(&word) || word.len() == 2 && FAMILIES.contains(&&word[..1]) && word.as_bytes()[1].is_ascii_digit()
}

/// All keys that there can be.
pub fn keys() -> impl Iterator<Item = String> {
    let own = FAMILIES.iter().flat_map(|family| (1..=4).map(move |i| format!("{family}{i}")));
    own.chain(OTHERS.iter().map(|key| (*key).to_owned()))
}

impl Dice {
    /// Dice that fall as `seed` says.
    pub fn new(seed: u64, newer: bool) -> Dice {
        Dice { rng: Rng::with_seed(seed), newer }
    }

    /// One of these.
    pub fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.usize(..of.len())]
    }

    /// Whether one of so many throws succeeds.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(..n) == 0
    }

    /// A key, most often of a family's own ones (a letter and a digit), else of any family.
    pub fn key(&mut self, family: &str) -> String {
        if self.one_in(12) {
            return self.any_key();
        }
        format!("{family}{}", self.rng.u8(1..=4))
    }

    /// A key of any family.
    pub fn any_key(&mut self) -> String {
        match self.rng.u8(..10) {
            // The last one has only members of one score.
            0 => self.pick(&OTHERS[..OTHERS.len() - 1]).to_owned(),
            _ => format!("{}{}", self.pick(FAMILIES), self.rng.u8(1..=4)),
        }
    }

    /// An element, field or member: of few, so that they meet again; some at the borders of encodings.
    pub fn member(&mut self) -> String {
        match self.rng.u8(..24) {
            0 => "m".repeat(self.rng.usize(62..67)),
            1 => self.pick(&["", "012", "-3", "\r\n\u{0}", "1.5", "+5", "-0", " 7"]).into(),
            2 => self
                .pick(&[
                    "32767",
                    "-32769",
                    "2147483648",
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775808",
                ])
                .into(),
            3..=6 => self.rng.i64(-20..20).to_string(),
            7 => self.rng.i64(-5000..5000).to_string(),
            8 => format!("m{}", self.rng.u16(..400)),
            _ => char::from(self.rng.u8(b'a'..=b'p')).to_string(),
        }
    }

    /// Anything that may be stored as a string.
    pub fn value(&mut self) -> String {
        match self.rng.u8(..10) {
            0 => self.rng.i64(-1000..1000).to_string(),
            1 => self
                .pick(&["9223372036854775807", "-9223372036854775808", "9223372036854775808", "0", "-0", "007"])
                .into(),
            2 => self.pick(&["0.5", "3.0e3", "1e10", "-2.25", "inf", "nan", " 1"]).into(),
            3 => String::new(),
            4 => "x".repeat(self.rng.usize(40..50)),
            5 => "ab".repeat(self.rng.usize(..300)),
            6 if self.one_in(30) => "long ".repeat(self.rng.usize(500..4000)),
            _ => self.pick(&["hello", "Hello, World", "a\u{0}b", "\r\n", "foo", "ohmytext", "mynewtext"]).into(),
        }
    }

    /// Most often a small integer, rarely none.
    pub fn integer(&mut self) -> String {
        match self.rng.u8(..14) {
            0 => self
                .pick(&[
                    "abc",
                    "",
                    " 1",
                    "1.5",
                    "9223372036854775807",
                    "-9223372036854775808",
                    "1e3",
                    "+1",
                    "9999999999999999999",
                ])
                .into(),
            1 => self.rng.i64(..).to_string(),
            2 => self.rng.i64(-600..600).to_string(),
            _ => self.rng.i64(-30..30).to_string(),
        }
    }

    /// How many elements to add at once: few most often, sometimes enough for a border to be crossed.
    pub fn several(&mut self) -> usize {
        match self.rng.u8(..40) {
            0 => self.rng.usize(100..160),
            1..=3 => self.rng.usize(8..40),
            _ => self.rng.usize(1..4),
        }
    }
}

/// A command under construction.
pub struct Command {
    words: Words,
    same: Same,
}

impl Command {
    /// A command of these words, whose replies are to be the same bytes.
    pub fn new(words: &[&str]) -> Command {
        Command { words: words.iter().map(|w| (*w).to_owned()).collect(), same: Same::Bytes }
    }

    /// With these words behind.
    pub fn and(mut self, words: &[&str]) -> Command {
        self.words.extend(words.iter().map(|w| (*w).to_owned()));
        self
    }

    /// With the word behind, if so.
    pub fn and_if(self, so: bool, words: &[&str]) -> Command {
        if so { self.and(words) } else { self }
    }

    /// With none, some or all of these options behind, each perhaps more than once.
    pub fn options(mut self, dice: &mut Dice, of: &[&str]) -> Command {
        while dice.one_in(3) {
            let option = dice.pick(of);
            self.words.push(option.to_owned());
        }
        self
    }

    /// Its replies are compared in this way.
    pub fn compared(mut self, same: Same) -> Command {
        self.same = same;
        self
    }

    /// What the runner wants.
    pub fn done(self) -> (Words, Same) {
        (self.words, self.same)
    }
}
