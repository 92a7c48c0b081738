//! The link of a replica to its primary: a thread that connects, asks, takes the data set over, and follows the stream.
//!
//! What is said and what comes of the answers is decided in [`replication`](crate::replication); here are the socket
//! (`wire`) and the clock. `data_set` takes a data set over, `second` has it come by a connection of its own, and
//! `stream` follows. What must stay true: a link that was told to end runs no further command.

mod data_set;
mod second;
mod stream;
mod wire;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::wire::{LOOK, Wire, connect};
use crate::command::engine::{Engine, Refusal};
use crate::command::replication::failover;
use crate::config::table::Config;
use crate::observe::log::{notice, warning};
use crate::replication::Stage;
use crate::replication::handshake::{Handshake, Introduction, Step};
use crate::server::beside::Beside;
use crate::server::tls::Tls;

/// How long after a link that was up began the next one is tried, at the least.
const BRIEF: Duration = Duration::from_millis(100);
/// How long a link that failed rests before the next.
const REST: Duration = Duration::from_secs(1);

/// Starts the thread, which follows a primary whenever there is one to follow.
///
/// # Errors
/// Where the system refuses another thread.
pub fn start(engine: Arc<Engine>, tls: Arc<Tls>) -> io::Result<Beside> {
    Beside::start("replica", engine, move |engine, stop| {
        while !stop.load(Ordering::Acquire) {
            let turn = engine.replication.turn();
            if !engine.replication.is_following() || engine.is_refusing(Refusal::Loading) {
                std::thread::park_timeout(LOOK);
                continue;
            }
            let began = Instant::now();
            let ended = follow(engine, &tls, turn, stop);
            let was_connected = note_end(engine, turn);
            if let Err(reason) = ended {
                warning!("{reason}");
            }
            // What was up is tried again at once, and so is another primary: the longer nobody asks, the less of the
            // stream is still held.
            let until = if was_connected { began + BRIEF } else { Instant::now() + REST };
            while Instant::now() < until {
                if stop.load(Ordering::Acquire) || engine.replication.turn() != turn {
                    break;
                }
                std::thread::park_timeout(LOOK);
            }
        }
    })
}

/// Says that the link is down; returns whether it was up.
fn note_end(engine: &Engine, turn: u64) -> bool {
    let mut state = engine.replication.state();
    // Else what is there is of another link.
    if engine.replication.turn() != turn || !engine.replication.is_following() {
        return false;
    }
    let primary = &mut state.primary;
    (primary.client, primary.ahead_bytes) = (None, 0);
    let was_up = primary.stage == Stage::Connected;
    if was_up {
        primary.down_since_ms = engine.clock.now_ms();
    }
    primary.stage = Stage::Connect;
    drop(state);
    engine.refuse(Refusal::CutOff, true);
    was_up
}

/// One link, from its beginning to its end.
fn follow(engine: &Arc<Engine>, tls: &Tls, turn: u64, stop: &AtomicBool) -> Result<(), String> {
    let config = engine.config.load_full();
    let going = failover::is_going(engine);
    let introduced = introduce(engine, &config, tls, turn, stop, going);
    if going {
        let agrees = |link: &Link<'_>| matches!(link.step, Step::Full(_) | Step::Continue(_) | Step::Second);
        failover::answered(engine, introduced.as_ref().is_ok_and(agrees));
    }
    let Link { mut wire, handshake, step } = introduced?;
    match step {
        Step::Continue(id) => {
            notice!("Successful partial resynchronization with master.");
            go_on(engine, id);
            notice!("MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.");
        }
        Step::Full(stream) => data_set::receive(&config, &mut wire, stream)?,
        Step::Second => second::receive(&config, tls, &mut wire, handshake)?,
        Step::Later(reason) | Step::Failed(reason) | Step::Unknown(reason) => return Err(reason),
        Step::Await | Step::Send(_) | Step::SendForFull(_) | Step::Begun(_) => {
            return Err("The handshake ended early".into());
        }
    }
    stream::run(engine, wire)
}

/// Keeps the stream from here on, by the name that the primary has for it now.
fn go_on(engine: &Engine, id: Option<String>) {
    let mut state = engine.replication.state();
    engine.replication.keep_stream(&mut state);
    if let Some(id) = id.filter(|id| *id != state.history.id) {
        notice!("Master replication ID changed to {id}");
        let offset = engine.replication.offset();
        state.history.rename(&id, offset);
        // They learn the name when they come back, and go on where they are.
        state.replicas.iter().for_each(|replica| replica.client.close());
    }
}

/// A link whose primary has said how it is to go on.
struct Link<'e> {
    wire: Wire<'e>,
    handshake: Handshake,
    step: Step,
}

/// Connects and introduces us; returns the link and how it is to go on.
fn introduce<'e>(
    engine: &'e Arc<Engine>,
    config: &Config,
    tls: &Tls,
    turn: u64,
    stop: &'e AtomicBool,
    failover: bool,
) -> Result<Link<'e>, String> {
    let (host, port, has, has_one_channel) = {
        let mut state = engine.replication.state();
        state.primary.stage = Stage::Connecting;
        let has = state.primary.resumes.then(|| (state.history.id.clone(), engine.replication.offset()));
        (state.primary.host.clone(), state.primary.port, has, state.primary.has_one_channel)
    };
    notice!("Connecting to MASTER {host}:{port}");
    let stream = connect(config, &host, port, tls)?;
    notice!("MASTER <-> REPLICA sync started");
    set_stage(engine, turn, Stage::Handshake)?;
    let mut wire = Wire::new(stream, engine, turn, stop);
    if let Some((id, offset)) = &has {
        notice!("Trying a partial resynchronization (request {id}:{}).", offset + 1);
    } else {
        notice!("Partial resynchronization not possible (no cached master)");
    }
    let me = Introduction {
        auth: config.masterauth.clone().map(|password| (config.masteruser.clone(), password)),
        port: match (config.replica_announce_port, config.tls_replication, config.tls_port) {
            (0, true, port @ 1..) => port,
            (0, ..) => engine.host.port(),
            (port, ..) => port,
        },
        ip: config.replica_announce_ip.clone().filter(|ip| !ip.is_empty()),
        has,
        failover,
        two_channels: config.dual_channel_replication_enabled && !has_one_channel,
    };
    let (mut handshake, first) = Handshake::begin(me);
    wire.send(&first)?;
    let step = loop {
        let line = wire.line()?;
        match handshake.line(&line) {
            Step::Await => {}
            Step::Send(bytes) => wire.send(&bytes)?,
            Step::SendForFull(bytes) => {
                notice!(
                    "Master does not support PSYNC or is in error state (reply: {})",
                    String::from_utf8_lossy(&line)
                );
                notice!("Retrying with SYNC...");
                wire.send(&bytes)?;
                break Step::Full(None);
            }
            Step::Full(Some((id, offset))) => {
                notice!("Full resync from master: {id}:{offset}");
                break Step::Full(Some((id, offset)));
            }
            step => break step,
        }
    };
    Ok(Link { wire, handshake, step })
}

fn set_stage(engine: &Engine, turn: u64, stage: Stage) -> Result<(), String> {
    let mut state = engine.replication.state();
    if engine.replication.turn() != turn {
        return Err("The link was ended".into());
    }
    state.primary.stage = stage;
    Ok(())
}
