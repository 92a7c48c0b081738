//! A data set that comes by a connection of its own, while what the first one brings is kept for later.
//!
//! So the primary need not hold the stream until the data set has come. What must stay true: the stream is asked for from
//! exactly where the data set ends; where one of the two connections ends, so does the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::data_set;
use super::wire::{LOOK, Wire, connect};
use crate::config::table::Config;
use crate::observe::crash;
use crate::observe::log::{debug, notice, warning};
use crate::replication::handshake::{Begun, Handshake, Step};
use crate::server::tls::Tls;

/// Asks for the data set by a second connection and takes it over; the stream goes on at `first`, and `handshake` is its.
///
/// # Errors
/// What is to be logged. Where the primary does not understand us the next link has but one connection.
pub fn receive(config: &Config, tls: &Tls, first: &mut Wire<'_>, mut handshake: Handshake) -> Result<(), String> {
    notice!("PSYNC is not possible, initialize RDB channel.");
    let engine = first.engine;
    let (host, port) = {
        let primary = &mut engine.replication.state().primary;
        (primary.ahead_bytes, primary.ahead_peak_bytes) = (0, 0);
        (primary.host.clone(), primary.port)
    };
    let ended = AtomicBool::new(false);
    let mut second = first.second(connect(config, &host, port, tls)?, &ended);
    let begun = ask(&mut second, &handshake)?;
    let is_loaded = AtomicBool::new(false);
    let (received, heard) = std::thread::scope(|scope| {
        let hear = || {
            crash::prepare_thread();
            let heard = read_ahead(first, &mut handshake, &begun, &is_loaded);
            // Without the stream the data set is of no use.
            ended.store(heard.is_err(), Ordering::Release);
            heard
        };
        let hearing = std::thread::Builder::new().name("replica-ahead".into()).spawn_scoped(scope, hear);
        let hearing = hearing.map_err(|error| format!("No thread for the stream of the master: {error}"))?;
        let received = data_set::receive(config, &mut second, Some((begun.id.clone(), begun.offset)));
        // The first connection has no more to wait for, nor any reason to.
        is_loaded.store(true, Ordering::Release);
        hearing.thread().unpark();
        let heard = hearing.join().map_err(|_| "The stream of the master could not be read".to_owned())?;
        Ok::<_, String>((received, heard))
    })?;
    if let Err(reason) = &heard {
        warning!("Aborting dual channel sync. {reason}");
    }
    match (received, begun.db) {
        (Ok(()), Some(db)) => engine.replication.select(db, config.databases),
        (Ok(()), None) => {}
        // The one that ended first says why.
        (Err(reason), _) => return heard.and(Err(reason)),
    }
    super::go_on(engine, heard?);
    Ok(())
}

/// Has the primary send the data set by this connection; returns which part of the stream it will be a result of.
fn ask(second: &mut Wire<'_>, first: &Handshake) -> Result<Begun, String> {
    let (mut handshake, bytes) = first.second();
    second.send(&bytes)?;
    loop {
        match handshake.line(&second.line()?) {
            Step::Await => {}
            Step::Send(bytes) => second.send(&bytes)?,
            Step::Begun(begun) => return Ok(begun),
            Step::Unknown(reason) => {
                second.engine.replication.state().primary.has_one_channel = true;
                return Err(reason);
            }
            Step::Later(reason) | Step::Failed(reason) => return Err(reason),
            _ => return Err("The handshake ended early".into()),
        }
    }
}

/// Asks for the stream behind the data set, and keeps what comes of it until that is loaded; returns the stream's name, where
/// it has another by now.
fn read_ahead(
    first: &mut Wire<'_>,
    handshake: &mut Handshake,
    begun: &Begun,
    is_loaded: &AtomicBool,
) -> Result<Option<String>, String> {
    let engine = first.engine;
    first.send(&handshake.attach(begun))?;
    let name = loop {
        match handshake.line(&first.line()?) {
            Step::Await => {}
            Step::Send(bytes) => {
                engine.stand_still_when(|| true);
                first.send(&bytes)?;
            }
            Step::Continue(name) => break name,
            Step::Later(reason) | Step::Failed(reason) | Step::Unknown(reason) => return Err(reason),
            _ => return Err("The master does not go on with its stream".into()),
        }
    };
    if is_loaded.load(Ordering::Acquire) {
        debug!("Dual channel sync - psync established after rdb load");
    } else {
        notice!("MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization, RDB load in background.");
    }
    let (mut heard, mut is_full) = (Instant::now(), false);
    while !is_loaded.load(Ordering::Acquire) {
        first.show();
        // As they are configured by now.
        let config = engine.config.load();
        let most = match config.client_output_buffer_limit.replica.hard_bytes {
            0 => u64::MAX,
            most => most,
        };
        let room = most.saturating_sub(engine.replication.state().primary.ahead_bytes);
        if room == 0 {
            if !is_full {
                notice!(
                    "Replication buffer limit reached, stopping buffering. Further accumulation may occur on primary side. ({most} bytes)"
                );
                is_full = true;
            }
            first.check()?;
            std::thread::park_timeout(LOOK);
            continue;
        }
        if first.read_ahead(usize::try_from(room).unwrap_or(usize::MAX))? > 0 {
            heard = Instant::now();
        } else if heard.elapsed() > Duration::from_secs(config.repl_timeout.into()) {
            return Err("MASTER timeout: no data nor PING received...".into());
        }
    }
    Ok(name)
}
