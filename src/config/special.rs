//! Values with a grammar of their own: `save`, `bind`, output buffer limits, keyspace events and others.

use super::memory::{format_bytes, parse_bytes};
use super::setting::{Manner, Reason, Setting, Written, one, parse_lenient};
use crate::stdx::words::quoted;

fn is_empty_word(words: &[Vec<u8>]) -> bool {
    matches!(words, [word] if word.is_empty())
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(" ")
}

/// Save a snapshot after `seconds` if there were at least `changes` since the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavePoint {
    /// At least 1.
    pub seconds: u64,
    /// May be 0: every `seconds`, whatever happened.
    pub changes: u64,
}

/// When snapshots are saved by themselves; empty for never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavePoints(pub Vec<SavePoint>);

impl Default for SavePoints {
    fn default() -> Self {
        let point = |(seconds, changes)| SavePoint { seconds, changes };
        SavePoints([(3600, 1), (300, 100), (60, 10000)].map(point).to_vec())
    }
}

impl Setting for SavePoints {
    type Rule = ();
    const MANY: bool = true;

    /// The first line replaces the default, further ones add to it, and an empty value clears all.
    fn assign(&mut self, words: &[Vec<u8>], (): (), manner: Manner) -> Result<(), Reason> {
        if is_empty_word(words) {
            self.0.clear();
            return Ok(());
        }
        let mut points = Vec::with_capacity(words.len() / 2);
        let number = |word: &[u8], least| {
            let number = parse_lenient(word, 10).and_then(|n| u64::try_from(n).ok());
            number.filter(|n| *n >= least).ok_or("Invalid save parameters")
        };
        for pair in words.chunks(2) {
            let [seconds, changes] = pair else { return Err("Invalid save parameters".into()) };
            points.push(SavePoint { seconds: number(seconds, 1)?, changes: number(changes, 0)? });
        }
        match manner {
            Manner::Replace => self.0 = points,
            Manner::Add => self.0.extend(points),
        }
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        joined(self.0.iter().map(|p| format!("{} {}", p.seconds, p.changes))).into_bytes()
    }

    /// Always written, a line for each: without any the default would come back.
    fn written(&self, _: &Self, (): (), name: &str) -> Written {
        if self.0.is_empty() {
            return Written::line(name, b"\"\"", true);
        }
        let line = |p: &SavePoint| (format!("{name} {} {}", p.seconds, p.changes).into_bytes(), true);
        Written::Lines(self.0.iter().map(line).collect())
    }

    fn accepts((): ()) -> String {
        "seconds changes ..., or empty for never".into()
    }
}

/// When a client that does not read its replies is disconnected. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutputLimit {
    /// Bytes that are too many at once.
    pub hard_bytes: u64,
    /// Bytes that are too many for `soft_seconds`.
    pub soft_bytes: u64,
    /// How long the soft limit may be exceeded.
    pub soft_seconds: u64,
}

/// The limits of each class of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Clients that send commands and read replies.
    pub normal: OutputLimit,
    /// Replicas, MONITOR included.
    pub replica: OutputLimit,
    /// Clients with subscriptions.
    pub pubsub: OutputLimit,
}

impl Default for OutputLimits {
    fn default() -> Self {
        OutputLimits {
            normal: OutputLimit::default(),
            replica: OutputLimit { hard_bytes: 256 << 20, soft_bytes: 64 << 20, soft_seconds: 60 },
            pubsub: OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 },
        }
    }
}

impl Setting for OutputLimits {
    type Rule = ();
    const MANY: bool = true;

    /// Classes that are not mentioned keep their limits.
    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let mut limits = *self;
        if !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        let bad = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        let amount = |word: &[u8]| parse_bytes(word).and_then(|n| u64::try_from(n).ok()).ok_or(bad);
        for group in words.chunks_exact(4) {
            let class = match group[0].to_ascii_lowercase().as_slice() {
                b"normal" => &mut limits.normal,
                b"replica" | b"slave" => &mut limits.replica,
                b"pubsub" => &mut limits.pubsub,
                _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
            };
            let seconds = parse_lenient(&group[3], 10).filter(|n| *n <= i32::MAX.into());
            let seconds = seconds.and_then(|n| u64::try_from(n).ok());
            *class = OutputLimit {
                hard_bytes: amount(&group[1])?,
                soft_bytes: amount(&group[2])?,
                soft_seconds: seconds.ok_or(bad)?,
            };
        }
        *self = limits;
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        // CONFIG GET says `slave` and CONFIG REWRITE `replica`, and clients know it so.
        let classes = [("normal", self.normal), ("slave", self.replica), ("pubsub", self.pubsub)];
        let text =
            |(name, l): (&str, OutputLimit)| format!("{name} {} {} {}", l.hard_bytes, l.soft_bytes, l.soft_seconds);
        joined(classes.into_iter().map(text)).into_bytes()
    }

    fn written(&self, default: &Self, (): (), name: &str) -> Written {
        let classes = [
            ("normal", self.normal, default.normal),
            ("replica", self.replica, default.replica),
            ("pubsub", self.pubsub, default.pubsub),
        ];
        let line = |(class, limit, default): (&str, OutputLimit, OutputLimit)| {
            let (hard, soft) = (format_bytes(limit.hard_bytes.into()), format_bytes(limit.soft_bytes.into()));
            (format!("{name} {class} {hard} {soft} {}", limit.soft_seconds).into_bytes(), limit != default)
        };
        Written::Lines(classes.into_iter().map(line).collect())
    }

    fn accepts((): ()) -> String {
        "class hard soft seconds ..., class being normal, replica or pubsub".into()
    }
}

/// The memory that data may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataMemory {
    /// So many bytes; 0 is no limit.
    Bytes(u64),
    /// A share of what the machine, or the control group, has: 1 to 100.
    PercentOfMachine(u8),
}

impl DataMemory {
    /// The limit in bytes where the machine has `machine` bytes; 0 is no limit. A share of an unknown whole is none.
    #[inline]
    pub fn limit(self, machine: u64) -> u64 {
        match self {
            DataMemory::Bytes(bytes) => bytes,
            DataMemory::PercentOfMachine(percent) => (u128::from(machine) * u128::from(percent) / 100) as u64,
        }
    }
}

impl Setting for DataMemory {
    type Rule = ();

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let word = one(words)?;
        if let Some(percent) = word.strip_suffix(b"%") {
            let percent = std::str::from_utf8(percent).ok().and_then(|digits| digits.parse().ok());
            *self = match percent.ok_or("argument must be a memory value")? {
                0u8 => DataMemory::Bytes(0),
                percent @ 1..=100 => DataMemory::PercentOfMachine(percent),
                _ => return Err("argument must be a memory value".into()),
            };
            return Ok(());
        }
        let bytes = parse_bytes(word).ok_or("argument must be a memory value")?;
        *self = DataMemory::Bytes(u64::try_from(bytes).unwrap_or(u64::MAX));
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        match self {
            DataMemory::Bytes(bytes) => bytes.to_string().into_bytes(),
            DataMemory::PercentOfMachine(percent) => format!("{percent}%").into_bytes(),
        }
    }

    fn written(&self, default: &Self, (): (), name: &str) -> Written {
        let text = match self {
            DataMemory::Bytes(bytes) => format_bytes((*bytes).into()).into_bytes(),
            DataMemory::PercentOfMachine(_) => self.text(()),
        };
        Written::line(name, &text, self != default)
    }

    fn accepts((): ()) -> String {
        "memory, or a percentage of the machine's, 0% to 100%".into()
    }
}

/// The memory that all clients together may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientsMemory {
    /// So many bytes; 0 is no limit.
    Bytes(u64),
    /// A share of `maxmemory`, 1 to 100.
    PercentOfMaxmemory(u8),
}

impl ClientsMemory {
    /// The limit in bytes where memory is limited to `maxmemory`; 0 is no limit.
    pub fn limit(self, maxmemory: u64) -> u64 {
        match self {
            ClientsMemory::Bytes(bytes) => bytes,
            ClientsMemory::PercentOfMaxmemory(percent) => (u128::from(maxmemory) * u128::from(percent) / 100) as u64,
        }
    }
}

impl Setting for ClientsMemory {
    type Rule = ();

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let word = one(words)?;
        if let Some(bytes) = parse_bytes(word) {
            let bytes = i64::try_from(bytes).ok().and_then(|n| u64::try_from(n).ok());
            let bytes = bytes.ok_or_else(|| format!("argument must be between -100 and {} inclusive", i64::MAX))?;
            *self = ClientsMemory::Bytes(bytes);
            return Ok(());
        }
        let percent = word.strip_suffix(b"%").filter(|digits| !digits.is_empty());
        let percent = percent.filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let percent = percent.and_then(|digits| parse_lenient(digits, 10));
        *self = match percent.ok_or("argument must be a memory or percent value")? {
            0 => ClientsMemory::Bytes(0),
            percent => match u8::try_from(percent) {
                Ok(percent @ 1..=100) => ClientsMemory::PercentOfMaxmemory(percent),
                _ => return Err("percentage argument must be less or equal to 100".into()),
            },
        };
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        match self {
            ClientsMemory::Bytes(bytes) => bytes.to_string().into_bytes(),
            ClientsMemory::PercentOfMaxmemory(percent) => format!("{percent}%").into_bytes(),
        }
    }

    fn written(&self, default: &Self, (): (), name: &str) -> Written {
        let text = match self {
            ClientsMemory::Bytes(bytes) => format_bytes((*bytes).into()).into_bytes(),
            ClientsMemory::PercentOfMaxmemory(_) => self.text(()),
        };
        Written::line(name, &text, self != default)
    }

    fn accepts((): ()) -> String {
        "memory, or a percentage of maxmemory, 0% to 100%".into()
    }
}

/// The addresses to listen on. A leading `-` means that a missing address is no error, `*` is every
/// address. Empty: listen on none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(pub Vec<String>);

/// More addresses are refused.
const MAX_ADDRESSES: usize = 16;

impl Default for Addresses {
    fn default() -> Self {
        Addresses(vec!["*".into(), "-::*".into()])
    }
}

impl Setting for Addresses {
    type Rule = ();
    const MANY: bool = true;

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        if words.len() > MAX_ADDRESSES {
            return Err("Too many bind addresses specified.".into());
        }
        let words = if is_empty_word(words) { &[] } else { words };
        self.0 = words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        self.0.join(" ").into_bytes()
    }

    fn written(&self, default: &Self, (): (), name: &str) -> Written {
        match self {
            addresses if addresses == default => Written::Nothing,
            Addresses(none) if none.is_empty() => Written::line(name, b"\"\"", true),
            addresses => Written::line(name, &addresses.text(()), true),
        }
    }

    fn accepts((): ()) -> String {
        "up to 16 addresses, or empty for none".into()
    }
}

/// A set of classes of keyspace events, and how they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventClasses(pub u16);

impl EventClasses {
    /// `K`: published on `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: EventClasses = EventClasses(1);
    /// `E`: published on `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: EventClasses = EventClasses(1 << 1);
    /// `g`: DEL, EXPIRE, RENAME and others of no type.
    pub const GENERIC: EventClasses = EventClasses(1 << 2);
    /// `$`.
    pub const STRING: EventClasses = EventClasses(1 << 3);
    /// `l`.
    pub const LIST: EventClasses = EventClasses(1 << 4);
    /// `s`.
    pub const SET: EventClasses = EventClasses(1 << 5);
    /// `h`.
    pub const HASH: EventClasses = EventClasses(1 << 6);
    /// `z`.
    pub const SORTED_SET: EventClasses = EventClasses(1 << 7);
    /// `x`: a key has expired.
    pub const EXPIRED: EventClasses = EventClasses(1 << 8);
    /// `e`: a key was evicted.
    pub const EVICTED: EventClasses = EventClasses(1 << 9);
    /// `t`.
    pub const STREAM: EventClasses = EventClasses(1 << 10);
    /// `m`: a key was looked for and not there; not part of `A`.
    pub const KEY_MISS: EventClasses = EventClasses(1 << 11);
    /// `d`.
    pub const MODULE: EventClasses = EventClasses(1 << 12);
    /// `n`: a key was created; not part of `A`.
    pub const NEW_KEY: EventClasses = EventClasses(1 << 13);

    /// `A`: `g$lshzxetd`.
    const ALL: EventClasses = EventClasses(0b1_0111_1111_1100);

    /// The letters in the order in which they are printed.
    const LETTERS: [(u8, EventClasses); 14] = [
        (b'g', Self::GENERIC),
        (b'$', Self::STRING),
        (b'l', Self::LIST),
        (b's', Self::SET),
        (b'h', Self::HASH),
        (b'z', Self::SORTED_SET),
        (b'x', Self::EXPIRED),
        (b'e', Self::EVICTED),
        (b't', Self::STREAM),
        (b'd', Self::MODULE),
        (b'n', Self::NEW_KEY),
        (b'K', Self::KEYSPACE),
        (b'E', Self::KEYEVENT),
        (b'm', Self::KEY_MISS),
    ];

    /// Whether any event is published at all: there is a class, and a channel to publish it on.
    pub fn are_published(self) -> bool {
        let channels = Self::KEYSPACE.0 | Self::KEYEVENT.0;
        self.0 & channels != 0 && self.0 & !channels != 0
    }

    /// Whether all of `classes` are in the set.
    #[inline]
    pub fn contains(self, classes: EventClasses) -> bool {
        self.0 & classes.0 == classes.0
    }
}

impl Setting for EventClasses {
    type Rule = ();

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let mut classes = 0;
        for letter in one(words)? {
            classes |= match Self::LETTERS.iter().find(|(known, _)| known == letter) {
                Some((_, class)) => class.0,
                None if *letter == b'A' => Self::ALL.0,
                None => return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
            };
        }
        *self = EventClasses(classes);
        Ok(())
    }

    /// `A` stands for all of its classes, and swallows `n`, as it does in Redis.
    fn text(&self, (): ()) -> Vec<u8> {
        let all = self.contains(Self::ALL);
        let hidden = |class: EventClasses| all && (Self::ALL.contains(class) || class == Self::NEW_KEY);
        let letters = Self::LETTERS.iter().filter(|(_, class)| self.contains(*class) && !hidden(*class));
        all.then_some(b'A').into_iter().chain(letters.map(|(letter, _)| *letter)).collect()
    }

    fn written(&self, default: &Self, (): (), name: &str) -> Written {
        Written::line(name, &quoted(&self.text(())), self != default)
    }

    fn accepts((): ()) -> String {
        "letters of Ag$lshzxeKEtmdn, or empty for none".into()
    }
}

/// What `oom_score_adj` becomes for a primary, a replica, and work in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomScores(pub [i32; 3]);

impl Default for OomScores {
    fn default() -> Self {
        OomScores([0, 200, 800])
    }
}

impl Setting for OomScores {
    type Rule = ();
    const MANY: bool = true;

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let [primary, replica, background] = words else { return Err("wrong number of arguments".into()) };
        let score = |word: &Vec<u8>| {
            let score = parse_lenient(word, 10).filter(|n| (-2000..=2000).contains(n));
            score
                .and_then(|n| i32::try_from(n).ok())
                .ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")
        };
        self.0 = [score(primary)?, score(replica)?, score(background)?];
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        joined(self.0.iter().map(i32::to_string)).into_bytes()
    }

    fn accepts((): ()) -> String {
        "three integers, -2000 to 2000".into()
    }
}

/// The primary that we replicate from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryAddress {
    /// Name or address.
    pub host: String,
    /// 0 to 65535.
    pub port: u16,
}

impl Setting for Option<PrimaryAddress> {
    type Rule = ();
    const MANY: bool = true;

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let [host, port] = words else { return Err("wrong number of arguments".into()) };
        if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            *self = None;
            return Ok(());
        }
        let port = parse_lenient(port, 10).and_then(|port| u16::try_from(port).ok());
        *self = Some(PrimaryAddress {
            host: String::from_utf8_lossy(host).into_owned(),
            // In the words of old and new: somebody may look for either.
            port: port.ok_or("Invalid master port (Invalid primary port)")?,
        });
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        self.as_ref().map_or_else(Vec::new, |at| format!("{} {}", at.host, at.port).into_bytes())
    }

    fn written(&self, _: &Self, (): (), name: &str) -> Written {
        match self {
            Some(_) => Written::line(name, &self.text(()), true),
            None => Written::Nothing,
        }
    }

    fn accepts((): ()) -> String {
        "host port, or no one".into()
    }
}

/// The percentiles that INFO latencystats shows, 0 to 100; empty for none.
#[derive(Debug, Clone, PartialEq)]
pub struct Percentiles(pub Vec<f64>);

impl Default for Percentiles {
    fn default() -> Self {
        Percentiles(vec![50.0, 99.0, 99.9])
    }
}

impl Setting for Percentiles {
    type Rule = ();
    const MANY: bool = true;

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let words = if is_empty_word(words) { &[] } else { words };
        let mut percentiles = Vec::with_capacity(words.len());
        for word in words {
            let number = std::str::from_utf8(word).ok().and_then(|text| text.parse::<f64>().ok());
            let number = number.filter(|n| !n.is_nan());
            let number = number.ok_or("Invalid latency-tracking-info-percentiles parameters")?;
            if !(0.0..=100.0).contains(&number) {
                return Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".into());
            }
            percentiles.push(number);
        }
        self.0 = percentiles;
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        let text = |p: &f64| format!("{p:.6}").trim_end_matches('0').trim_end_matches('.').to_owned();
        joined(self.0.iter().map(text)).into_bytes()
    }

    /// Always written: without a line the default would come back.
    fn written(&self, _: &Self, (): (), name: &str) -> Written {
        let text = if self.0.is_empty() { b"\"\"".to_vec() } else { self.text(()) };
        Written::line(name, &text, true)
    }

    fn accepts((): ()) -> String {
        "numbers from 0 to 100, or empty for none".into()
    }
}

/// The working directory. The server stores the absolute path here once it has changed into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(pub Vec<u8>);

impl Setting for Directory {
    type Rule = ();

    fn assign(&mut self, words: &[Vec<u8>], (): (), _: Manner) -> Result<(), Reason> {
        let word = one(words)?;
        if word.is_empty() {
            return Err("dir can't be empty".into());
        }
        self.0 = word.to_vec();
        Ok(())
    }

    fn text(&self, (): ()) -> Vec<u8> {
        self.0.clone()
    }

    /// Always written, so that the data is found wherever the server is started from.
    fn written(&self, _: &Self, (): (), name: &str) -> Written {
        Written::line(name, &quoted(&self.0), true)
    }

    fn accepts((): ()) -> String {
        "an existing directory".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|w| w.as_bytes().to_vec()).collect()
    }

    fn set<T: Setting<Rule = ()>>(mut value: T, text: &str) -> Result<String, Reason> {
        value.assign(&words(text), (), Manner::Replace)?;
        Ok(String::from_utf8(value.text(())).unwrap())
    }

    #[test]
    fn save_points_add_up_over_the_lines_of_a_file() {
        let mut points = SavePoints::default();
        assert_eq!(points.text(()), b"3600 1 300 100 60 10000");
        points.assign(&words("900 1"), (), Manner::Replace).unwrap();
        points.assign(&words("100 100"), (), Manner::Add).unwrap();
        assert_eq!(points.text(()), b"900 1 100 100");
        points.assign(&words(""), (), Manner::Add).unwrap();
        assert_eq!(points.text(()), b"");
        assert_eq!(points.written(&SavePoints::default(), (), "save"), Written::line("save", b"\"\"", true));
    }

    #[test]
    fn bad_save_points_change_nothing() {
        let mut points = SavePoints::default();
        for bad in ["10", "10 a", "0 1", "10 -1", "1 1 1", "1 1  1 1"] {
            assert_eq!(points.assign(&words(bad), (), Manner::Replace), Err("Invalid save parameters".into()), "{bad}");
        }
        assert_eq!(points, SavePoints::default());
    }

    #[test]
    fn buffer_limits_of_other_classes_stay() {
        assert_eq!(
            set(OutputLimits::default(), "normal 1kb 2 3 SLAVE 1mb 2kb 4").as_deref(),
            Ok("normal 1024 2 3 slave 1048576 2048 4 pubsub 33554432 8388608 60")
        );
        for (bad, reason) in [
            ("normal 1 2 2147483648", "Error in hard, soft or soft_seconds setting in buffer limit configuration."),
            ("normal 1", "Wrong number of arguments in buffer limit configuration."),
            ("master 1 2 3", "Invalid client class specified in buffer limit configuration."),
            ("pubsub 1 2 -1", "Error in hard, soft or soft_seconds setting in buffer limit configuration."),
            ("pubsub 1x 2 1", "Error in hard, soft or soft_seconds setting in buffer limit configuration."),
        ] {
            assert_eq!(set(OutputLimits::default(), bad), Err(reason.into()));
        }
    }

    #[test]
    fn data_memory_is_bytes_or_a_share_of_the_machines() {
        let zero = DataMemory::Bytes(0);
        assert_eq!(set(zero, "1kb").as_deref(), Ok("1024"));
        assert_eq!(set(zero, "60%").as_deref(), Ok("60%"));
        assert_eq!(set(zero, "0%").as_deref(), Ok("0"));
        for bad in ["-1", "1x", "%", "-5%", "5.5%", "101%", "1000%"] {
            assert_eq!(set(zero, bad), Err("argument must be a memory value".into()), "{bad}");
        }
        assert_eq!(DataMemory::PercentOfMachine(50).limit(1001), 500);
        assert_eq!(DataMemory::Bytes(7).limit(1001), 7);
    }

    #[test]
    fn client_memory_is_bytes_or_a_percentage() {
        let zero = ClientsMemory::Bytes(0);
        assert_eq!(set(zero, "1kb").as_deref(), Ok("1024"));
        assert_eq!(set(zero, "50%").as_deref(), Ok("50%"));
        assert_eq!(set(zero, "0%").as_deref(), Ok("0"));
        assert_eq!(set(zero, "200%"), Err("percentage argument must be less or equal to 100".into()));
        for bad in ["-1", "1x", "%", "-5%"] {
            assert_eq!(set(zero, bad), Err("argument must be a memory or percent value".into()), "{bad}");
        }
        assert_eq!(ClientsMemory::PercentOfMaxmemory(50).limit(1000), 500);
    }

    #[test]
    fn event_classes_are_printed_in_one_order() {
        for (given, printed) in
            [("KEA", "AKE"), ("Kx", "xK"), ("mdtexzhsl$gKE", "AKEm"), ("An", "A"), ("nK", "nK"), ("", "")]
        {
            assert_eq!(set(EventClasses::default(), given).as_deref(), Ok(printed), "{given}");
        }
        assert!(set(EventClasses::default(), "q").unwrap_err().starts_with("Invalid event class character."));
    }

    #[test]
    fn percentiles_are_printed_without_trailing_zeros() {
        assert_eq!(set(Percentiles::default(), "50.50 99 99.999999 100").as_deref(), Ok("50.5 99 99.999999 100"));
        assert_eq!(set(Percentiles::default(), "").as_deref(), Ok(""));
        assert_eq!(
            set(Percentiles::default(), "101"),
            Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".into())
        );
        for bad in ["x", "nan", "1  2"] {
            assert_eq!(
                set(Percentiles::default(), bad),
                Err("Invalid latency-tracking-info-percentiles parameters".into())
            );
        }
    }

    #[test]
    fn a_primary_has_host_and_port() {
        assert_eq!(set(None::<PrimaryAddress>, "a 80").as_deref(), Ok("a 80"));
        assert_eq!(set(Some(PrimaryAddress { host: "a".into(), port: 1 }), "NO one").as_deref(), Ok(""));
        for bad in ["a b", "a -1", "a 65536"] {
            assert_eq!(set(None::<PrimaryAddress>, bad), Err("Invalid master port (Invalid primary port)".into()));
        }
        assert_eq!(set(None::<PrimaryAddress>, "a"), Err("wrong number of arguments".into()));
    }

    #[test]
    fn oom_scores_are_three_in_bounds() {
        assert_eq!(set(OomScores::default(), "1 -2000 2000").as_deref(), Ok("1 -2000 2000"));
        assert_eq!(set(OomScores::default(), "1 2"), Err("wrong number of arguments".into()));
        assert!(set(OomScores::default(), "1 2 2001").unwrap_err().starts_with("Invalid oom-score-adj-values"));
    }

    #[test]
    fn an_empty_address_listens_nowhere() {
        assert_eq!(set(Addresses::default(), "").as_deref(), Ok(""));
        assert_eq!(set(Addresses::default(), "127.0.0.1 ::1").as_deref(), Ok("127.0.0.1 ::1"));
        assert_eq!(set(Addresses::default(), &["a"; 17].join(" ")), Err("Too many bind addresses specified.".into()));
    }

    proptest! {
        #[test]
        fn what_is_printed_of_event_classes_is_read_as_printed(letters in "[Ag$lshzxeKEtmdn]{0,8}") {
            let printed = set(EventClasses::default(), &letters).unwrap();
            prop_assert_eq!(set(EventClasses::default(), &printed).unwrap(), printed);
        }
    }
}
