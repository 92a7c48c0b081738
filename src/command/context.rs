//! What a command may touch while it runs.

use std::cell::OnceCell;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::client::session::Session;
use crate::command::args::Args;
use crate::command::blocking::Wait;
use crate::command::call::notable_ns;
use crate::command::engine::Engine;
use crate::command::error::Error;
use crate::config::table::Config;
use crate::keyspace::db::Db;
use crate::keyspace::entry::Value;
use crate::resp::reply::Output;

/// What a command leaves behind.
pub enum Outcome {
    /// Its reply is written.
    Done,
    /// Its reply is written and has an error in it, which is counted.
    Failed,
    /// It has more to do, and the worker's other connections come first.
    Continue(Job),
    /// It waits for one of its keys.
    Wait(Box<Wait>),
    /// It needs more than is held, and has changed nothing: it is to be run again, alone.
    Alone,
}

/// The rest of a command that works in pieces of about a millisecond.
///
/// It is called again and again until it is done. Between calls nothing is held: it must not keep
/// anything that refers to keys. A command with keys hands over a job before it has written any of its reply.
pub type Job = Box<dyn FnMut(&mut Context<'_>) -> Reply + Send>;

/// How a command ends: with its reply written, or with an error to be written.
pub type Reply = Result<Outcome, Error>;

/// The usual end of a handler.
pub const DONE: Reply = Ok(Outcome::Done);

/// The rest of a command, to be run as the next piece.
///
/// # Errors
/// None; a handler ends with it.
pub fn later<W: Send + 'static>(work: W, run: fn(W, &mut Context<'_>) -> Reply) -> Reply {
    let mut work = Some(work);
    Ok(Outcome::Continue(Box::new(move |ctx| match work.take() {
        Some(work) => run(work, ctx),
        None => DONE,
    })))
}

/// What runs a command: reads all its arguments, then touches keys, then writes its reply.
pub type Handler = fn(&mut Context<'_>, &Args<'_>) -> Reply;

/// What a command may touch.
pub struct Context<'a> {
    /// The selected database, over the shards of the command's keys.
    pub db: Db<'a>,
    /// Where its reply goes.
    pub out: &'a mut Output,
    /// The connection that sent it.
    pub session: &'a mut Session,
    /// What is there once per server.
    pub engine: &'a Engine,
    /// The configuration, the same for a whole batch but for who changes it inside of EXEC.
    pub config: &'a Config,
    /// Where a later one would be kept.
    pub renewal: &'a Renewal,
    /// The time that TIME tells.
    pub hands: Hands,
    /// The number of the worker that runs it, if it is one.
    pub worker: Option<usize>,
    /// Whether memory was below its limit before this command.
    pub has_room: bool,
    /// Whether a script asks for what runs now.
    pub scripted: bool,
    /// Positions of arguments that logs must not show.
    pub hidden: SmallVec<[usize; 4]>,
    /// From how many nanoseconds on a command may belong in SLOWLOG or LATENCY.
    pub notable_ns: u64,
}

/// The hands of the clock that TIME looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hands {
    /// They move.
    Move,
    /// They stand still, as all through EXEC and scripts: where they were when they were looked at first, in Unix
    /// microseconds.
    Stand(Option<u64>),
}

/// Configurations that were made while a request ran: each holds the next.
#[derive(Default)]
pub struct Renewal(OnceCell<Box<(Arc<Config>, Renewal)>>);

impl Context<'_> {
    /// Follows a configuration that was changed by what ran inside.
    pub fn renew_config(&mut self) {
        let newest = self.engine.config.load();
        if !std::ptr::eq(&**newest, self.config) {
            let (config, next) = &**self.renewal.0.get_or_init(|| Box::new((Arc::clone(&newest), Renewal::default())));
            (self.config, self.renewal, self.notable_ns) = (config, next, notable_ns(config));
        }
    }

    /// Whether this is a part of something larger, which is told of as a whole: of EXEC or of a script.
    pub fn is_in_group(&self) -> bool {
        self.db.effects.group.is_some()
    }

    /// Has time stand still for TIME, as it does for everything else that runs inside of one request; returns whether
    /// it did not before.
    pub fn stand_still(&mut self) -> bool {
        let begins = self.hands == Hands::Move;
        if begins {
            self.hands = Hands::Stand(None);
        }
        begins
    }

    /// What TIME tells, in Unix microseconds.
    pub fn time_us(&mut self) -> u64 {
        match &mut self.hands {
            Hands::Move => self.engine.clock.now_us(),
            // A script that keeps others waiting may be waiting for time to pass.
            Hands::Stand(at) if self.engine.scripts.running.is_busy() => *at.insert(self.engine.clock.now_us()),
            Hands::Stand(at) => *at.get_or_insert_with(|| self.engine.clock.now_us()),
        }
    }

    /// Whether the command runs inside of another: of EXEC, of a script.
    pub fn is_inside(&self) -> bool {
        self.db.effects.group.is_some()
    }
}

/// Writes a string value, a large one by reference.
#[inline]
pub fn write_string(out: &mut Output, value: Value<'_>) -> Result<(), Error> {
    match value {
        Value::Bytes(bytes) => out.bulk(bytes),
        Value::Int(n) => out.bulk_integer(n),
        Value::Large(large) => out.bulk_shared(large.share()),
        Value::Object(_) => return Err(Error::WrongType),
    }
    Ok(())
}
