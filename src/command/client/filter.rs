//! Which clients CLIENT LIST tells of and CLIENT KILL ends: all that pass every filter.

use crate::acl::users::Users;
use crate::client::shared::{Mark, Shared};
use crate::command::args::Args;
use crate::command::error::Error;
use crate::stdx::number::parse_i64;

/// What kind of client a filter's TYPE names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Neither of the others.
    Normal,
    /// Our primary.
    Primary,
    /// A replica of ours.
    Replica,
    /// Subscribed to something.
    PubSub,
}

impl Kind {
    /// The kind of this name.
    fn parse(name: &[u8]) -> Result<Kind, Error> {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        Ok(match () {
            () if is("normal") => Kind::Normal,
            () if is("master") || is("primary") => Kind::Primary,
            () if is("slave") || is("replica") => Kind::Replica,
            () if is("pubsub") => Kind::PubSub,
            () => {
                let name = String::from_utf8_lossy(name);
                return Err(Error::text(format!("ERR Unknown client type '{name}'")));
            }
        })
    }

    /// The kind of this client.
    pub fn of(client: &Shared) -> Kind {
        match () {
            () if client.has(Mark::Primary) => Kind::Primary,
            () if client.has(Mark::Replica) => Kind::Replica,
            () if client.figures.is_subscribed() => Kind::PubSub,
            () => Kind::Normal,
        }
    }
}

/// The filters of one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// ID: in the order they were given.
    pub ids: Option<Vec<i64>>,
    kind: Option<Kind>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    max_age_s: Option<u64>,
    /// SKIPME, where it was given.
    pub skip_me: Option<bool>,
}

impl<'a> Filter<'a> {
    /// The filter of the old form of CLIENT KILL: clients from this address.
    pub fn from_addr(addr: &'a [u8]) -> Filter<'a> {
        Filter { addr: Some(addr), ..Filter::default() }
    }

    /// Reads the filters of CLIENT KILL, from the third argument on.
    ///
    /// # Errors
    /// Redis' texts; [`Error::Syntax`] for a word that is no filter or lacks its value.
    pub fn for_kill(args: &Args<'a>, users: &Users) -> Result<Filter<'a>, Error> {
        let mut filter = Filter::default();
        let mut i = 2;
        while i < args.len() {
            let value = args.opt(i + 1).ok_or(Error::Syntax)?;
            if args.is(i, "ID") {
                let id = parse_i64(value).filter(|id| *id > 0);
                filter.ids = Some(vec![id.ok_or(Error::text("ERR client-id should be greater than 0"))?]);
            } else if args.is(i, "TYPE") {
                filter.kind = Some(Kind::parse(value)?);
            } else if !filter.read(args.at(i), value, users)? {
                return Err(Error::Syntax);
            }
            i += 2;
        }
        Ok(filter)
    }

    /// Reads the filters of CLIENT LIST, from the third argument on. ID takes all that follow which are
    /// no filters themselves; it and TYPE exclude each other, as in Redis.
    ///
    /// # Errors
    /// Redis' texts; [`Error::Syntax`] for a word that is no filter or lacks its value.
    pub fn for_list(args: &Args<'a>, users: &Users) -> Result<Filter<'a>, Error> {
        let mut filter = Filter::default();
        let mut i = 2;
        while i < args.len() {
            let value = args.opt(i + 1).ok_or(Error::Syntax)?;
            if args.is(i, "ID") && filter.kind.is_none() {
                let ids = filter.ids.get_or_insert_default();
                let rest = args.from(i + 2).take_while(|arg| !is_word(arg));
                for arg in std::iter::once(value).chain(rest) {
                    ids.push(parse_i64(arg).ok_or(Error::text("ERR Invalid client ID"))?);
                    i += 1;
                }
                i += 1;
                continue;
            } else if args.is(i, "TYPE") && filter.ids.is_none() {
                filter.kind = Some(Kind::parse(value)?);
            } else if !filter.read(args.at(i), value, users)? {
                return Err(Error::Syntax);
            }
            i += 2;
        }
        Ok(filter)
    }

    /// Reads a filter that LIST and KILL share; whether `word` is one.
    fn read(&mut self, word: &[u8], value: &'a [u8], users: &Users) -> Result<bool, Error> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("ADDR") {
            self.addr = Some(value);
        } else if is("LADDR") {
            self.laddr = Some(value);
        } else if is("USER") {
            if users.account(value).is_none() {
                let user = String::from_utf8_lossy(value);
                return Err(Error::text(format!("ERR No such user '{user}'")));
            }
            self.user = Some(value);
        } else if is("SKIPME") {
            self.skip_me = Some(match () {
                () if value.eq_ignore_ascii_case(b"yes") => true,
                () if value.eq_ignore_ascii_case(b"no") => false,
                () => return Err(Error::Syntax),
            });
        } else if is("MAXAGE") {
            let age = parse_i64(value).ok_or(Error::text("ERR maxage is not an integer or out of range"))?;
            let age = u64::try_from(age).ok().filter(|age| *age > 0);
            self.max_age_s = Some(age.ok_or(Error::text("ERR maxage should be greater than 0"))?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether a client passes every filter but SKIPME.
    pub fn passes(&self, client: &Shared, now_ms: u64) -> bool {
        let age_s = (now_ms / 1000).saturating_sub(client.created_ms / 1000);
        self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id.cast_signed()))
            && self.kind.is_none_or(|kind| kind == Kind::of(client))
            && self.addr.is_none_or(|addr| addr == client.addr.as_bytes())
            && self.laddr.is_none_or(|laddr| laddr == client.laddr.as_bytes())
            && self.user.is_none_or(|user| user == client.names.lock().user)
            && self.max_age_s.is_none_or(|least| age_s >= least)
    }
}

/// Whether an argument is the word of a filter.
fn is_word(arg: &[u8]) -> bool {
    const WORDS: [&str; 7] = ["ID", "TYPE", "ADDR", "LADDR", "USER", "SKIPME", "MAXAGE"];
    WORDS.iter().any(|word| arg.eq_ignore_ascii_case(word.as_bytes()))
}
