//! One client as CLIENT LIST and CLIENT INFO describe it: a line of `name=value` fields.

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::client::shared::{Mark, Shared};
use crate::client::tracking::Choice;

/// So many bytes of waiting replies count as Redis' fixed buffer, the others as its list of replies.
const FIXED_BUFFER: usize = 16 * 1024;

/// What a line tells beyond the client itself.
pub struct Scene<'a> {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// The full names of commands by number.
    pub commands: &'a [&'a str],
    /// Whether a client waits for the end of CLIENT PAUSE.
    pub waits: &'a dyn Fn(u64) -> bool,
}

/// Appends a client's line, which ends with a line feed.
pub fn append(line: &mut Vec<u8>, client: &Shared, scene: &Scene<'_>) {
    let figures = &client.figures;
    let small = |figure: &AtomicU32| figure.load(Ordering::Relaxed);
    let size = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
    let long = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    let names = client.names.lock().clone();
    let seconds_since = |ms: u64| scene.now_ms.saturating_sub(ms) / 1000;
    let (output, pushed) = (size(&figures.output_bytes), client.outbox.bytes());
    let fixed = output.min(FIXED_BUFFER);
    let listed = output - fixed;
    let blocks = listed.div_ceil(FIXED_BUFFER) + client.outbox.len();
    let command = figures.command.load(Ordering::Relaxed).checked_sub(1);
    let command = command.and_then(|number| scene.commands.get(usize::from(number))).unwrap_or(&"NULL");
    let capacity = size(&figures.output_capacity);
    let mut text = |args: std::fmt::Arguments<'_>| line.write_fmt(args).expect("a vector takes all that is written");
    text(format_args!("id={} addr={} laddr={} fd={} name=", client.id, client.addr, client.laddr, client.fd));
    line.extend_from_slice(&names.name);
    let mut text = |args: std::fmt::Arguments<'_>| line.write_fmt(args).expect("a vector takes all that is written");
    text(format_args!(
        " age={} idle={} flags={} db={}",
        seconds_since(client.created_ms),
        seconds_since(long(&figures.active_ms)),
        flags(client, scene),
        small(&figures.db),
    ));
    text(format_args!(
        " sub={} psub={} ssub={} multi={} watch={}",
        small(&figures.channels),
        small(&figures.patterns),
        small(&figures.shard_channels),
        figures.queued.load(Ordering::Relaxed),
        small(&figures.watched),
    ));
    text(format_args!(
        " qbuf={} qbuf-free={} argv-mem={} multi-mem={}",
        size(&figures.query_bytes),
        size(&figures.query_free),
        size(&figures.argument_bytes),
        size(&figures.queued_bytes),
    ));
    text(format_args!(
        " rbs={capacity} rbp={capacity} obl={fixed} oll={blocks} omem={} tot-mem={}",
        listed + pushed,
        client.memory(),
    ));
    text(format_args!(" events={} cmd={command} user=", if output + pushed > 0 { "rw" } else { "r" },));
    line.extend_from_slice(&names.user);
    let mut text = |args: std::fmt::Arguments<'_>| line.write_fmt(args).expect("a vector takes all that is written");
    text(format_args!(
        " redir={} resp={} lib-name=",
        client.tracked.shown_redirect(),
        figures.protocol.load(Ordering::Relaxed)
    ));
    line.extend_from_slice(&names.library);
    line.extend_from_slice(b" lib-ver=");
    line.extend_from_slice(&names.version);
    writeln!(
        line,
        " tot-net-in={} tot-net-out={} tot-cmds={}",
        long(&figures.net_input),
        long(&figures.net_output),
        long(&figures.commands),
    )
    .expect("a vector takes all that is written");
}

/// A letter for each thing that is special about a client; `N` where nothing is.
fn flags(client: &Shared, scene: &Scene<'_>) -> String {
    let blocked = client.has(Mark::Blocked) || (scene.waits)(client.id);
    let letters = [
        ('O', client.has(Mark::Monitor)),
        ('S', client.has(Mark::Replica)),
        ('M', client.has(Mark::Primary)),
        ('P', client.figures.is_subscribed()),
        ('x', client.figures.queued.load(Ordering::Relaxed) >= 0),
        ('b', blocked),
        ('t', client.tracked.has(Choice::On)),
        ('R', client.tracked.has(Choice::Broken)),
        ('B', client.tracked.has(Choice::Broadcast)),
        ('d', client.watch.lock().as_ref().is_some_and(|watch| watch.is_dirty())),
        ('r', client.has(Mark::ReadOnly)),
        ('i', client.has(Mark::Imports)),
        ('c', client.has(Mark::Closing)),
        ('U', client.has(Mark::Unix)),
        ('e', client.has(Mark::NoEvict)),
        ('T', client.has(Mark::NoTouch)),
    ];
    let set: String = letters.iter().filter(|(_, on)| *on).map(|(letter, _)| *letter).collect();
    if set.is_empty() { "N".into() } else { set }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::shared::Link;
    use bytes::Bytes;

    fn line(client: &Shared, waits: bool) -> String {
        let mut line = Vec::new();
        let scene = Scene { now_ms: 65_999, commands: &["get", "client|list"], waits: &|_| waits };
        append(&mut line, client, &scene);
        String::from_utf8(line).unwrap()
    }

    fn client(link: Link) -> Shared {
        Shared::new(7, link, "1.2.3.4:5".into(), "5.6.7.8:9".into(), 11, 1_000)
    }

    #[test]
    fn a_new_client_is_described_field_by_field() {
        let client = client(Link::Tcp);
        let memory = client.memory();
        assert_eq!(
            line(&client, false),
            format!(
                "id=7 addr=1.2.3.4:5 laddr=5.6.7.8:9 fd=11 name= age=64 idle=64 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 watch=0 \
                 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem={memory} events=r cmd=NULL \
                 user=default redir=-1 resp=2 lib-name= lib-ver= tot-net-in=0 tot-net-out=0 tot-cmds=0\n"
            )
        );
    }

    #[test]
    fn what_waits_to_be_sent_is_counted_and_told_by_letters() {
        let client = client(Link::Unix);
        [Mark::Monitor, Mark::NoEvict, Mark::NoTouch, Mark::Closing].iter().for_each(|mark| client.mark(*mark, true));
        client.figures.queued.store(2, Ordering::Relaxed);
        client.figures.patterns.store(1, Ordering::Relaxed);
        client.figures.command.store(2, Ordering::Relaxed);
        client.figures.output_bytes.store(FIXED_BUFFER + 10, Ordering::Relaxed);
        let before = client.memory();
        client.push(Bytes::from_static(b"hello"));
        assert_eq!(client.memory(), before + 5);
        let line = line(&client, true);
        assert!(line.contains(" flags=OPxbcUeT "), "{line}");
        assert!(
            line.contains(" psub=1 ") && line.contains(" multi=2 ") && line.contains(" cmd=client|list "),
            "{line}"
        );
        assert!(line.contains(" obl=16384 oll=2 omem=15 ") && line.contains(" events=rw "), "{line}");
    }
}
