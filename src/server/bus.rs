//! The cluster bus: the sockets of this node's machine, on a thread of their own.
//!
//! What must stay true: what the machine asks for is carried out in its order, and `nodes.conf` is on disk before anybody is
//! told what stands in it; the bus waits for no command. Removing the keys of a lost slot, which does, has another thread.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::cluster::machine::{Action, Durability, Machine, Replication, TICK_MS};
use crate::cluster::message::{PREFIX_BYTES, length};
use crate::cluster::node::LinkId;
use crate::cluster::shared::Cluster;
use crate::cluster::slots::SlotSet;
use crate::command::cluster::migration::import;
use crate::command::cluster::{keys, redirect};
use crate::command::engine::{Engine, PauseMode, ShutdownRequest};
use crate::command::pubsub;
use crate::command::replication::role;
use crate::observe::crash;
use crate::observe::log::{verbose, warning};
use crate::replication::Stage;
use crate::server::tls::{Halves, Tls};

/// Every so many ticks clients that wait are looked at although nothing has changed: one may have begun to wait just
/// as its slot left.
const LOOK_EVERY: u64 = 5;
/// So many events of the bus are seen to before what comes of them is carried out.
const EVENTS_TOGETHER: usize = 64;
/// How much room is made for a message before it is there.
const READ_BYTES: usize = 64 * 1024;

/// The bus's thread; dropped, it ends.
pub struct Running {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported where it happened.
            let _ = thread.join();
        }
    }
}

/// What happens on the bus.
enum Event {
    Accepted(TcpStream, SocketAddr),
    Connected(LinkId, IpAddr),
    Received(LinkId, Vec<u8>),
    Closed(LinkId),
}

/// A connection, as the bus holds it.
struct Link {
    outgoing: UnboundedSender<Bytes>,
    /// Bytes that wait to be sent.
    queued: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Bus {
    engine: Arc<Engine>,
    cluster: Arc<Cluster>,
    tls: Arc<Tls>,
    links: HashMap<LinkId, Link>,
    events: UnboundedSender<Event>,
    works: mpsc::Sender<Work>,
    /// The picture of the cluster by which clients that wait were looked at last.
    seen: u64,
    ticks: u64,
}

/// Starts the bus on these sockets.
///
/// # Errors
/// Where the system refuses a thread.
pub fn start(
    engine: Arc<Engine>,
    cluster: Arc<Cluster>,
    tls: Arc<Tls>,
    listeners: Vec<std::net::TcpListener>,
) -> io::Result<Running> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, bell) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (ring, facts) = (bell.clone(), Arc::downgrade(&engine));
    cluster.attach(
        move || ring.notify_one(),
        move || facts.upgrade().map_or_else(Replication::default, |engine| replication(&engine)),
    );
    let asked = stop.clone();
    let (works, waiting) = mpsc::channel();
    let theirs = engine.clone();
    let worker = std::thread::Builder::new().name("slots".into()).spawn(move || {
        crash::prepare_thread();
        work(&theirs, &waiting);
    })?;
    let thread = std::thread::Builder::new().name("bus".into()).spawn(move || {
        crash::prepare_thread();
        let (events, receiver) = unbounded_channel();
        let bus = Bus { engine, cluster, tls, links: HashMap::new(), events, works, seen: 0, ticks: 0 };
        runtime.block_on(bus.run(listeners, receiver, &bell, &asked));
        // It ends with the last that is to be done.
        if worker.join().is_err() {
            warning!("What is done beside the cluster bus ended by a panic");
        }
    })?;
    Ok(Running { stop, thread: Some(thread) })
}

/// How far this server's replication is.
fn replication(engine: &Engine) -> Replication {
    let replication = &engine.replication;
    let (copies, turn) = (replication.is_following(), replication.turn());
    if !copies {
        return Replication { offset: replication.offset(), turn, ..Replication::default() };
    }
    let state = replication.state();
    let primary = &state.primary;
    // Redis reckons a link that never was as one that broke in 1970.
    let since = if primary.stage == Stage::Connected { primary.heard_ms } else { primary.down_since_ms };
    let silent_ms = engine.clock.now_ms().saturating_sub(since);
    // What is being filled with the data set of its primary has nothing yet.
    let offset = if primary.resumes || primary.client.is_some() { replication.offset() } else { 0 };
    Replication { offset, silent_ms, copies, linked: primary.stage() == Stage::Connected, turn }
}

/// What takes locks that commands hold, and so is done beside the bus, in the order in which it came up.
enum Work {
    Replicate(String, u16),
    Promote,
    Empty,
    DropKeys(SlotSet),
    RollBack(SlotSet),
}

fn work(engine: &Engine, receiver: &mpsc::Receiver<Work>) {
    for work in receiver {
        match work {
            Work::Replicate(ip, port) => {
                let _alone = engine.keyspace.gates().alone();
                let same = {
                    let state = engine.replication.state();
                    engine.replication.is_following() && state.primary.host == ip && state.primary.port == port
                };
                if !same {
                    role::follow(engine, &ip, port);
                }
            }
            Work::Promote => {
                let _alone = engine.keyspace.gates().alone();
                role::lead(engine);
            }
            Work::Empty => keys::empty(engine),
            Work::DropKeys(slots) => _ = keys::drop_slots(engine, &slots),
            Work::RollBack(slots) => {
                if let Some(cluster) = &engine.cluster {
                    import::roll_back(engine, cluster, &slots);
                }
            }
        }
    }
}

impl Bus {
    async fn run(
        mut self,
        listeners: Vec<std::net::TcpListener>,
        mut receiver: UnboundedReceiver<Event>,
        bell: &Notify,
        stop: &Notify,
    ) {
        for listener in listeners {
            match TcpListener::from_std(listener) {
                Ok(listener) => _ = tokio::spawn(accept(listener, self.events.clone())),
                Err(error) => warning!("The cluster bus cannot listen: {error}"),
            }
        }
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.notified() => return,
                () = bell.notified() => {}
                _ = ticks.tick() => self.tick(),
                Some(event) = receiver.recv() => {
                    self.happen(event);
                    // What else has come is seen to with it: `nodes.conf` is written once for all of it.
                    for _ in 1..EVENTS_TOGETHER {
                        let Ok(event) = receiver.try_recv() else { break };
                        self.happen(event);
                    }
                }
            }
            self.carry_out();
            self.look_after_clients();
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Machine) -> R) -> R {
        self.cluster.with(self.engine.clock.now_ms(), f)
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let queues: Vec<(LinkId, usize)> =
            self.links.iter().map(|(id, link)| (*id, link.queued.load(Ordering::Relaxed))).collect();
        self.with(|machine| {
            queues.into_iter().for_each(|(link, bytes)| machine.note_queue(link, bytes));
            machine.tick();
        });
        import::tick(&self.engine);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Accepted(stream, peer) => {
                let local = stream.local_addr().map_or_else(|_| String::new(), |addr| plain(addr.ip()));
                let id = self.with(|machine| machine.accepted(plain(peer.ip()), local));
                let tls = self.tls();
                self.open(id, async move {
                    match tls {
                        Some(tls) => Wire::secured(stream, async |stream| tls.accept_task(stream).await).await,
                        None => Wire::plain(stream),
                    }
                });
            }
            // What a connection that was closed from here still tells is of no interest.
            Event::Connected(id, local) if self.links.contains_key(&id) => {
                self.with(|machine| machine.connected(id, plain(local)));
            }
            Event::Received(id, bytes) if self.links.contains_key(&id) => {
                self.with(|machine| machine.received(id, &bytes));
            }
            Event::Closed(id) => {
                if self.links.remove(&id).is_some() {
                    self.with(|machine| machine.closed(id));
                }
            }
            Event::Connected(..) | Event::Received(..) => {}
        }
    }

    /// What connections of the bus begin with, where they have TLS.
    fn tls(&self) -> Option<Arc<Tls>> {
        self.engine.config.load().tls_cluster.then(|| self.tls.clone())
    }

    /// Runs a connection in a task of its own.
    fn open(&mut self, id: LinkId, stream: impl Future<Output = io::Result<Wire>> + Send + 'static) {
        let (outgoing, waiting) = unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let (events, left) = (self.events.clone(), queued.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = converse(id, stream, &events, waiting, &left).await {
                verbose!("I/O error on a connection of the cluster bus: {error}");
            }
            // Nobody listens any more when the bus ends.
            let _ = events.send(Event::Closed(id));
        });
        self.links.insert(id, Link { outgoing, queued, task: task.abort_handle() });
    }

    /// Does what the machine asks for.
    fn carry_out(&mut self) {
        loop {
            let mut actions = self.cluster.take_actions();
            if actions.is_empty() {
                return;
            }
            // The newest file is as good for what comes before it: it is written once.
            let mut newest: Option<(String, Durability)> = None;
            actions.retain_mut(|action| match action {
                Action::Save(text, durability) => {
                    let most = newest.as_ref().map_or(*durability, |(_, before)| (*durability).max(*before));
                    newest = Some((std::mem::take(text), most));
                    false
                }
                _ => true,
            });
            if let Some((text, durability)) = newest
                && let Err(error) = self.cluster.save(&text, durability)
            {
                warning!("Could not write the cluster config file: {error}");
                warning!("Fatal: can't update cluster config file.");
                let request = ShutdownRequest { force: true, ..ShutdownRequest::default() };
                // An error means that the server ends already.
                let _ = self.engine.host.shutdown(request);
                return;
            }
            actions.into_iter().for_each(|action| self.act(action));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Save(..) => {}
            Action::Connect { link, ip, port } => {
                let tls = self.tls();
                self.open(link, async move {
                    let stream = TcpStream::connect((ip, port)).await?;
                    match tls {
                        Some(tls) => Wire::secured(stream, async |stream| tls.connect_task(stream).await).await,
                        None => Wire::plain(stream),
                    }
                });
            }
            Action::Send(id, bytes) => {
                if let Some(link) = self.links.get(&id) {
                    link.queued.fetch_add(bytes.len(), Ordering::Relaxed);
                    // An error means that its task is about to say that it has ended.
                    let _ = link.outgoing.send(bytes);
                }
            }
            Action::Close(id) => drop(self.links.remove(&id)),
            Action::Replicate(ip, port) => self.have_done(Work::Replicate(ip, port)),
            Action::Promote => self.have_done(Work::Promote),
            Action::Empty => self.have_done(Work::Empty),
            Action::DropKeys(slots) => self.have_done(Work::DropKeys(slots)),
            Action::RollBack(slots) => self.have_done(Work::RollBack(slots)),
            Action::DropChannels(slots) => {
                redirect::channels(&self.engine, &slots);
                slots.iter().for_each(|slot| self.cluster.stats.reset(slot));
            }
            Action::Pause(until) => self.engine.pause.start(until, PauseMode::Write, self.engine.clock.now_ms()),
            Action::Resume => self.engine.pause.end(),
            Action::Publish { channel, message, sharded } => {
                pubsub::receive(&self.engine, &channel, &message, sharded);
            }
        }
    }

    fn have_done(&self, work: Work) {
        // Its thread ends after the bus.
        let _ = self.works.send(work);
    }

    /// Sends away clients that wait for what is elsewhere now.
    fn look_after_clients(&mut self) {
        let version = self.cluster.version();
        if version != self.seen || self.ticks.is_multiple_of(LOOK_EVERY) {
            self.seen = version;
            redirect::blocked(&self.engine, &self.cluster.view().load());
        }
    }
}

/// An address as text: one of IPv4 that came over a socket of IPv6 is what it was.
fn plain(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

async fn accept(listener: TcpListener, events: UnboundedSender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if events.send(Event::Accepted(stream, peer)).is_err() {
                    return;
                }
            }
            Err(error) => {
                verbose!("Error accepting cluster node: {error}");
                // Descriptors may be used up: others have to be closed first.
                tokio::time::sleep(Duration::from_millis(TICK_MS)).await;
            }
        }
    }
}

/// A connection on which messages can go.
struct Wire {
    /// The address on this side.
    local: IpAddr,
    halves: Halves,
}

impl Wire {
    fn plain(stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?.ip();
        let (reader, writer) = stream.into_split();
        Ok(Wire { local, halves: (Box::new(reader), Box::new(writer)) })
    }

    async fn secured(stream: TcpStream, agree: impl AsyncFnOnce(TcpStream) -> io::Result<Halves>) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        Ok(Wire { local: stream.local_addr()?.ip(), halves: agree(stream).await? })
    }
}

/// Reads and writes until either side has enough.
async fn converse(
    id: LinkId,
    stream: impl Future<Output = io::Result<Wire>>,
    events: &UnboundedSender<Event>,
    outgoing: UnboundedReceiver<Bytes>,
    queued: &AtomicUsize,
) -> io::Result<()> {
    let Wire { local, halves: (reader, writer) } = stream.await?;
    if events.send(Event::Connected(id, local)).is_err() {
        return Ok(());
    }
    tokio::select! {
        ended = read(id, reader, events) => ended,
        ended = write(writer, outgoing, queued) => ended,
    }
}

async fn read(id: LinkId, mut reader: impl AsyncRead + Unpin, events: &UnboundedSender<Event>) -> io::Result<()> {
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        match reader.read_exact(&mut prefix).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let Some(len) = length(prefix) else {
            warning!("Bad message length or signature received on the Cluster bus.");
            return Ok(());
        };
        // Room grows with what has come, whatever is announced.
        let mut bytes = Vec::with_capacity(len.min(READ_BYTES));
        bytes.extend_from_slice(&prefix);
        let missing = (len - PREFIX_BYTES) as u64;
        if (&mut reader).take(missing).read_to_end(&mut bytes).await? as u64 != missing {
            return Ok(());
        }
        if events.send(Event::Received(id, bytes)).is_err() {
            return Ok(());
        }
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: UnboundedReceiver<Bytes>,
    queued: &AtomicUsize,
) -> io::Result<()> {
    while let Some(bytes) = outgoing.recv().await {
        writer.write_all(&bytes).await?;
        writer.flush().await?;
        queued.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    Ok(())
}
