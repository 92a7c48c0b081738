//! The small grammar of usage lines, and the argument trees that COMMAND DOCS prints from them.
//!
//! A usage line reads like a synopsis, and says enough to be taken apart again:
//!
//! | written | means |
//! | --- | --- |
//! | `value` | a value; the type follows from some names (see [`Kind`]), else it is a string |
//! | `radius:double` | a value of that type |
//! | `addr/ip:port` | a value that is shown under another name |
//! | `newkey:key#1` | a key of another specification than the next one in order; `#-` of none |
//! | `KEEPTTL` | a token: a word of its own, without lower case letters |
//! | `"km"` | a token that has lower case letters |
//! | `change=CH` | a token whose name is not its word; it never takes what follows as its value |
//! | `EX seconds` | a value, block or choice that follows its token |
//! | `[x]` | `x` may be left out; several elements in brackets make a block |
//! | `a \| b` | a choice |
//! | `(a \| b)`, `by(a \| b)` | a choice that cannot be left out, and one with a name |
//! | `by(\| a)` | a choice of one |
//! | `{a b}`, `data{a b}` | a block, and one with a name |
//! | `x...` | once or more; after its token only the value repeats |
//! | `[GET x]...`, `{GET x}...` | the token repeats with its value |
//! | `x@6.2.0` | there is `x` since that version |
//!
//! Choices and blocks without a name are called by the names of their parts, joined by underscores.
//! What stays true: every line of the table of commands can be parsed; a test walks it.

use std::borrow::Cow;

/// What an argument is; [`Kind::wire`] is the name that COMMAND DOCS prints.
///
/// Without a type, `key` is a key, `pattern` a pattern, a name that begins with `unix-time` a time, and
/// `count`, `cursor`, `db`, `milliseconds`, `numkeys`, `offset`, `seconds` are integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the type of its name")]
pub enum Kind {
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    /// A word that stands for itself.
    PureToken,
    /// One of its arguments.
    OneOf,
    /// All of its arguments.
    Block,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::String,
        Kind::Integer,
        Kind::Double,
        Kind::Key,
        Kind::Pattern,
        Kind::UnixTime,
        Kind::PureToken,
        Kind::OneOf,
        Kind::Block,
    ];

    /// The name that COMMAND DOCS prints.
    pub fn wire(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Double => "double",
            Kind::Key => "key",
            Kind::Pattern => "pattern",
            Kind::UnixTime => "unix-time",
            Kind::PureToken => "pure-token",
            Kind::OneOf => "oneof",
            Kind::Block => "block",
        }
    }

    fn of_name(name: &str) -> Kind {
        match name {
            "key" => Kind::Key,
            "pattern" => Kind::Pattern,
            "count" | "cursor" | "db" | "milliseconds" | "numkeys" | "offset" | "seconds" => Kind::Integer,
            _ if name.starts_with("unix-time") => Kind::UnixTime,
            _ => Kind::String,
        }
    }
}

/// One argument of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument<'a> {
    /// Its name, unique among its neighbours.
    pub name: Cow<'a, str>,
    /// The name to show, where it is another one.
    pub display: Option<&'a str>,
    /// What it is.
    pub kind: Kind,
    /// Which of the command's key specifications finds it.
    pub key_spec: Option<u8>,
    /// The word before it; its own for [`Kind::PureToken`].
    pub token: Option<&'a str>,
    /// The version that introduced it, if the command is older.
    pub since: Option<&'a str>,
    /// It may be left out.
    pub optional: bool,
    /// It may be repeated.
    pub multiple: bool,
    /// It is repeated together with its token.
    pub multiple_token: bool,
    /// The parts of a choice or block.
    pub arguments: Vec<Argument<'a>>,
}

/// Why a usage line cannot be read, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Where it was noticed, in bytes from the line's start.
    pub at: usize,
    /// What is wrong.
    pub why: &'static str,
}

impl<'a> Argument<'a> {
    fn new(name: impl Into<Cow<'a, str>>, kind: Kind) -> Argument<'a> {
        Argument {
            name: name.into(),
            display: None,
            kind,
            key_spec: None,
            token: None,
            since: None,
            optional: false,
            multiple: false,
            multiple_token: false,
            arguments: Vec::new(),
        }
    }

    /// A choice or block of `arguments`, called `name` or by their names.
    fn group(name: Option<&'a str>, kind: Kind, arguments: Vec<Argument<'a>>) -> Argument<'a> {
        let joined = || arguments.iter().map(|a| &*a.name).collect::<Vec<_>>().join("_");
        let name = name.map_or_else(|| joined().into(), Cow::Borrowed);
        Argument { arguments, ..Argument::new(name, kind) }
    }

    /// How many words it takes at least.
    pub fn least(&self) -> usize {
        if self.optional { 0 } else { self.least_if_there() }
    }

    fn least_if_there(&self) -> usize {
        let token = usize::from(self.token.is_some());
        match self.kind {
            Kind::PureToken => 1,
            // What is chosen is there, although KILL's filters are each said to be optional.
            Kind::OneOf => token + self.arguments.iter().map(Argument::least_if_there).min().unwrap_or(0),
            Kind::Block => token + self.arguments.iter().map(Argument::least).sum::<usize>(),
            _ => token + 1,
        }
    }

    /// Whether it always takes the same number of words.
    pub fn is_fixed(&self) -> bool {
        let parts = self.arguments.iter().all(Argument::is_fixed);
        let same = self.kind != Kind::OneOf || self.arguments.windows(2).all(|w| w[0].least() == w[1].least());
        !self.optional && !self.multiple && parts && same
    }

    /// Calls `f` with this argument and all of its parts, in order.
    pub fn visit<'s>(&'s self, f: &mut impl FnMut(&'s Argument<'a>)) {
        f(self);
        self.arguments.iter().for_each(|part| part.visit(f));
    }
}

/// The arguments that a usage line describes.
///
/// # Errors
/// [`Malformed`] where it is not of the grammar above.
pub fn parse(line: &str) -> Result<Vec<Argument<'_>>, Malformed> {
    let mut parser = Parser { line, at: 0, keys: 0 };
    let arguments = parser.sequence()?;
    if parser.at < line.len() {
        return Err(parser.malformed("a choice stands in brackets, and these have partners"));
    }
    Ok(arguments)
}

struct Parser<'a> {
    line: &'a str,
    at: usize,
    /// How many keys there were: each is found by the next specification unless it says otherwise.
    keys: u8,
}

impl<'a> Parser<'a> {
    fn malformed(&self, why: &'static str) -> Malformed {
        Malformed { at: self.at, why }
    }

    fn rest(&self) -> &'a str {
        &self.line[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(' ').len();
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Elements up to the end, a bar or a closing bracket.
    fn sequence(&mut self) -> Result<Vec<Argument<'a>>, Malformed> {
        let mut arguments: Vec<Argument<'a>> = Vec::new();
        // A token that waits for what follows it, which becomes its value if nothing lies between.
        let mut token_waits = false;
        loop {
            self.blanks();
            if matches!(self.peek(), None | Some(b'|' | b']' | b')' | b'}')) {
                return Ok(arguments);
            }
            let (mut argument, binds) = self.element()?;
            let takes_token = token_waits && !argument.optional && argument.token.is_none();
            if takes_token && let Some(token) = arguments.pop() {
                argument.token = token.token;
                argument.since = argument.since.or(token.since);
            }
            token_waits = binds;
            arguments.push(argument);
        }
    }

    /// One element, and whether it is a token that may take what follows as its value.
    fn element(&mut self) -> Result<(Argument<'a>, bool), Malformed> {
        let start = self.at;
        let word = self.word();
        let mut binds = false;
        let mut argument = match self.peek() {
            Some(b'[') if word.is_empty() => {
                let mut argument = self.bracketed(None, "]")?;
                argument.optional = true;
                self.repeats(&mut argument, true);
                argument
            }
            Some(b'(') => {
                let mut argument = self.bracketed(Some(word), ")")?;
                self.repeats(&mut argument, false);
                argument
            }
            Some(b'{') => {
                let mut argument = self.bracketed(Some(word), "}")?;
                self.repeats(&mut argument, true);
                argument
            }
            _ if word.is_empty() => return Err(self.malformed("an argument is expected")),
            _ => {
                let mut argument = self.plain(word).ok_or(Malformed { at: start, why: "no such type" })?;
                binds = argument.kind == Kind::PureToken && !word.contains('=');
                self.repeats(&mut argument, false);
                argument
            }
        };
        if self.eat("@") {
            argument.since = Some(self.word());
        }
        Ok((argument, binds))
    }

    /// What stands in brackets; a choice where there are bars.
    fn bracketed(&mut self, name: Option<&'a str>, close: &'static str) -> Result<Argument<'a>, Malformed> {
        self.at += 1;
        let name = name.filter(|name| !name.is_empty());
        let mut choices = vec![self.sequence()?];
        while self.eat("|") {
            choices.push(self.sequence()?);
        }
        if !self.eat(close) {
            return Err(self.malformed("a bracket is not closed"));
        }
        // A bar in front makes a choice of what would else be a block: there may be one thing to choose.
        let choice = choices.len() > 1;
        if choice && choices[0].is_empty() {
            choices.remove(0);
        }
        if choices.iter().any(Vec::is_empty) {
            return Err(self.malformed("nothing to choose"));
        }
        let single = |mut parts: Vec<Argument<'a>>| match parts.len() {
            1 => parts.remove(0),
            _ => Argument::group(None, Kind::Block, parts),
        };
        Ok(match (choice, name) {
            (false, None) => single(choices.remove(0)),
            (false, Some(name)) => Argument::group(Some(name), Kind::Block, choices.remove(0)),
            _ => Argument::group(name, Kind::OneOf, choices.into_iter().map(single).collect()),
        })
    }

    /// The dots after an element; those after brackets repeat a token that stands inside them.
    fn repeats(&mut self, argument: &mut Argument<'a>, with_token: bool) {
        if self.eat("...") {
            argument.multiple = true;
            argument.multiple_token = with_token && argument.token.is_some();
        }
    }

    /// Bytes up to a blank, a bracket, dots or a version.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let ends = |(at, c): (usize, char)| " []{}()|@".contains(c) || rest[at..].starts_with("...");
        let len = rest
            .char_indices()
            .position(ends)
            .map_or(rest.len(), |n| rest.char_indices().nth(n).map_or(rest.len(), |(at, _)| at));
        self.at += len;
        &rest[..len]
    }

    /// A token or a value; `None` where its key specification is no number.
    fn plain(&mut self, word: &'a str) -> Option<Argument<'a>> {
        let named = word.split_once('=').filter(|(name, token)| !name.is_empty() && !token.is_empty());
        let token = named.map_or(word, |(_, token)| token);
        let quoted = token.strip_prefix('"').and_then(|token| token.strip_suffix('"'));
        if quoted.is_some() || !token.contains(|c: char| c.is_ascii_lowercase()) {
            // The empty string is documented as a pair of quotes; other quotes are of this grammar only.
            let token = quoted.filter(|token| !token.is_empty()).unwrap_or(token);
            let name = named.map_or_else(|| Cow::Owned(token.to_ascii_lowercase()), |(name, _)| Cow::Borrowed(name));
            return Some(Argument { token: Some(token), ..Argument::new(name, Kind::PureToken) });
        }
        let (word, spec) = word.split_once('#').map_or((word, None), |(word, spec)| (word, Some(spec)));
        let typed = word.rsplit_once(':').and_then(|(word, kind)| {
            Kind::ALL.into_iter().find(|known| known.wire() == kind).map(|kind| (word, Some(kind)))
        });
        let (word, kind) = typed.unwrap_or((word, None));
        let (name, display) = word.split_once('/').map_or((word, None), |(name, display)| (name, Some(display)));
        if kind.is_none() && name.contains(':') {
            return None;
        }
        let mut argument = Argument { display, ..Argument::new(name, kind.unwrap_or_else(|| Kind::of_name(name))) };
        argument.key_spec = match spec {
            Some("-") => None,
            Some(spec) => Some(spec.parse().ok()?),
            None if argument.kind == Kind::Key => Some(self.keys),
            None => None,
        };
        if let Some(spec) = argument.key_spec {
            self.keys = self.keys.max(spec.saturating_add(1));
        }
        Some(argument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An argument in one line, with everything that is not usual about it.
    fn shown(argument: &Argument<'_>) -> String {
        let mut text = format!("{}:{}", argument.name, argument.kind.wire());
        argument.token.iter().for_each(|token| text += &format!(" token={token}"));
        argument.key_spec.iter().for_each(|spec| text += &format!(" spec={spec}"));
        argument.since.iter().for_each(|since| text += &format!(" since={since}"));
        argument.display.iter().for_each(|display| text += &format!(" display={display}"));
        for (flag, name) in [
            (argument.optional, " optional"),
            (argument.multiple, " multiple"),
            (argument.multiple_token, " multiple_token"),
        ] {
            text += if flag { name } else { "" };
        }
        if !argument.arguments.is_empty() {
            text += &format!(" <{}>", show(&argument.arguments));
        }
        text
    }

    fn show(arguments: &[Argument<'_>]) -> String {
        arguments.iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn check(line: &str, expected: &str) {
        assert_eq!(show(&parse(line).unwrap()), expected);
    }

    #[test]
    fn values_take_their_type_from_their_name_or_say_it() {
        check("key value", "key:key spec=0, value:string");
        check("key count radius:double", "key:key spec=0, count:integer, radius:double");
        check("key1:key#0 key2:key#0", "key1:key spec=0, key2:key spec=0");
        check("key newkey:key", "key:key spec=0, newkey:key spec=1");
        check("key a:key#0 b:key", "key:key spec=0, a:key spec=0, b:key spec=1");
        check("key:string unix-time-seconds", "key:string, unix-time-seconds:unix-time");
        check("ID:string...", "ID:string multiple");
        check("pattern#1", "pattern:pattern spec=1");
        check("addr/ip:port", "addr:string display=ip:port");
    }

    #[test]
    fn tokens_stand_for_themselves_or_before_what_follows() {
        check("[KEEPTTL]", "keepttl:pure-token token=KEEPTTL optional");
        check("[change=CH]", "change:pure-token token=CH optional");
        check("EX seconds", "seconds:integer token=EX");
        check("get=GET value", "get:pure-token token=GET, value:string");
        check("NO ONE", "no:pure-token token=NO, one:pure-token token=ONE");
        check("\"km\" \"lib-ver\" version", "km:pure-token token=km, version:string token=lib-ver");
        check("BY by(a | b)", "by:oneof token=BY <a:string, b:string>");
        check("[= | ~]", "=_~:oneof optional <=:pure-token token==, ~:pure-token token=~>");
        check("(key | empty=\"\")", "key_empty:oneof <key:key spec=0, empty:pure-token token=\"\">");
    }

    #[test]
    fn brackets_make_blocks_and_choices() {
        check("[a b]", "a_b:block optional <a:string, b:string>");
        check("[LIMIT {offset count}]", "offset_count:block token=LIMIT optional <offset:integer, count:integer>");
        check("data{key value}...", "data:block multiple <key:key spec=0, value:string>");
        check(
            "[condition(NX | XX)@2.6.12]",
            "condition:oneof since=2.6.12 optional <nx:pure-token token=NX, xx:pure-token token=XX>",
        );
        check("(a b | c)", "a_b_c:oneof <a_b:block <a:string, b:string>, c:string>");
        check("[operation(| SCHEDULE)]", "operation:oneof optional <schedule:pure-token token=SCHEDULE>");
        check("[a [b]]", "a_b:block optional <a:string, b:string optional>");
    }

    #[test]
    fn dots_repeat_with_the_token_or_without() {
        check("[KEYS key...]", "key:key token=KEYS spec=0 optional multiple");
        check("[GET pattern]...", "pattern:pattern token=GET optional multiple multiple_token");
        check("{GET pattern}...", "pattern:pattern token=GET multiple multiple_token");
        check("[key...]", "key:key spec=0 optional multiple");
    }

    #[test]
    fn versions_stand_behind_what_they_belong_to() {
        check("[EX seconds@2.6.12]", "seconds:integer token=EX since=2.6.12 optional");
        check("[GET]@6.2.0", "get:pure-token token=GET since=6.2.0 optional");
    }

    #[test]
    fn what_is_not_of_the_grammar_is_refused_where_it_stands() {
        let at = |line| parse(line).unwrap_err().at;
        assert_eq!((at("a | b"), at("[a"), at("a]"), at("[a | ]"), at("a:nosuch"), at("a:key#x")), (2, 2, 1, 6, 0, 0));
    }

    #[test]
    fn the_least_number_of_words_counts_tokens() {
        let least = |line: &str| parse(line).unwrap().iter().map(Argument::least).sum::<usize>();
        assert_eq!(least("key [NX | XX] data{score member}..."), 3);
        assert_eq!(least("(host port | a NO ONE)"), 2);
        assert_eq!(least("STREAMS {key... id...}"), 3);
        assert!(parse("a {b c} (d | E)").unwrap().iter().all(Argument::is_fixed));
        assert!(!parse("(d | E f)").unwrap().iter().all(Argument::is_fixed));
    }
}
