//! What is told of the cluster.

use crate::cluster::machine::{Link, Machine};
use crate::cluster::node::{LinkId, Node, NodeKey, Way};
use crate::cluster::view::preferred;
use crate::command::args::Args;
use crate::command::cluster::{cluster, keys, refused, way};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::config::choice::EndpointType;
use crate::keyspace::shard::SLOTS;
use crate::resp::reply::Output;
use crate::stdx::crc::key_slot;

/// Has the machine looked at, without a change.
fn ask<R>(ctx: &Context<'_>, f: impl FnOnce(&mut Machine) -> R) -> Result<R, Error> {
    Ok(cluster(ctx)?.with(ctx.engine.clock.now_ms(), f))
}

pub fn info(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let text = ask(ctx, |machine| machine.info())?;
    ctx.out.verbatim("txt", text.as_bytes());
    DONE
}

pub fn nodes(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let way = way(&ctx.session.shared);
    let text = ask(ctx, |machine| machine.lines(way))?;
    ctx.out.verbatim("txt", text.as_bytes());
    DONE
}

pub fn myid(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let name = ask(ctx, |machine| machine.me().name)?;
    ctx.out.bulk(&name.0);
    DONE
}

pub fn myshardid(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let name = ask(ctx, |machine| machine.me().shard)?;
    ctx.out.bulk(&name.0);
    DONE
}

pub fn keyslot(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    ctx.out.integer(key_slot(args.at(2)).into());
    DONE
}

pub fn countkeysinslot(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let slot = usize::try_from(args.integer(2)?).ok().filter(|slot| *slot < SLOTS);
    let slot = slot.ok_or(Error::text("ERR Invalid slot"))?;
    let count = keys::count(ctx, slot);
    ctx.out.integer(count as i64);
    DONE
}

pub fn getkeysinslot(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    cluster(ctx)?;
    let (slot, most) = (args.integer(2)?, args.integer(3)?);
    let slot = usize::try_from(slot).ok().filter(|slot| *slot < SLOTS);
    let (Some(slot), Ok(most)) = (slot, usize::try_from(most)) else {
        return Err(Error::text("ERR Invalid slot or number of keys"));
    };
    let found = keys::some(ctx, slot, most);
    ctx.out.array(found.len());
    found.iter().for_each(|key| ctx.out.bulk(key));
    DONE
}

pub fn replicas(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let way = way(&ctx.session.shared);
    let lines = ask(ctx, |machine| {
        let key = find(machine, args.at(2))?;
        let node = machine.node(key);
        if node.is_replica() {
            return Err("The specified node is not a master".into());
        }
        Ok(node.replicas.iter().map(|replica| machine.line(*replica, way)).collect::<Vec<_>>())
    })?;
    let lines = lines.map_err(refused)?;
    ctx.out.array(lines.len());
    lines.iter().for_each(|line| ctx.out.bulk(line.as_bytes()));
    DONE
}

pub fn count_failure_reports(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let count = ask(ctx, |machine| Ok(find(machine, args.at(2)).map(|key| machine.count_reports(key))))?;
    let count = count.and_then(|found| found).map_err(refused)?;
    ctx.out.integer(count as i64);
    DONE
}

fn find(machine: &Machine, name: &[u8]) -> Result<NodeKey, String> {
    machine.find(name).ok_or_else(|| format!("Unknown node {}", String::from_utf8_lossy(name)))
}

pub fn slots(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let (kind, way) = (ctx.config.cluster_preferred_endpoint_type, way(&ctx.session.shared));
    let cluster = cluster(ctx)?;
    let out = &mut *ctx.out;
    cluster.with(ctx.engine.clock.now_ms(), |machine| {
        let mut ranges: Vec<(usize, usize, NodeKey)> = Vec::new();
        for slot in 0..SLOTS {
            let Some(owner) = machine.owner(slot) else { continue };
            match ranges.last_mut() {
                Some((_, last, of)) if *of == owner && *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot, owner)),
            }
        }
        out.array(ranges.len());
        for (first, last, owner) in ranges {
            let primary = machine.node(owner);
            let works = |key: &NodeKey| !machine.node(*key).has_failed() && machine.offset_of(*key) != 0;
            let replicas: Vec<NodeKey> = primary.replicas.iter().copied().filter(works).collect();
            out.array(3 + replicas.len());
            out.integer(first as i64);
            out.integer(last as i64);
            write_endpoint(out, primary, kind, way);
            replicas.iter().for_each(|key| write_endpoint(out, machine.node(*key), kind, way));
        }
    });
    DONE
}

/// A node as CLUSTER SLOTS shows it: the address that clients are to use, and what else is known.
fn write_endpoint(out: &mut Output, node: &Node, kind: EndpointType, way: Way) {
    let ip = node.ip(way);
    out.array(4);
    match kind {
        EndpointType::Unknown => out.null(),
        _ => out.bulk(preferred(kind, ip, &node.hostname).as_bytes()),
    }
    out.integer(node.address.port(way.tls).into());
    out.bulk(&node.name.0);
    let ip = (kind != EndpointType::Ip).then_some(("ip", ip));
    let hostname = kind != EndpointType::Hostname && !node.hostname.is_empty();
    let hostname = hostname.then_some(("hostname", node.hostname.as_str()));
    out.map(usize::from(ip.is_some()) + usize::from(hostname.is_some()));
    for (name, value) in [ip, hostname].into_iter().flatten() {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    }
}

pub fn shards(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let (kind, way) = (ctx.config.cluster_preferred_endpoint_type, way(&ctx.session.shared));
    let cluster = cluster(ctx)?;
    let out = &mut *ctx.out;
    cluster.with(ctx.engine.clock.now_ms(), |machine| {
        let shards = machine.shards();
        out.array(shards.len());
        for shard in shards {
            let first = machine.node(shard[0]);
            let primary = first.primary.map_or(first, |primary| machine.node(primary));
            // A primary whose place was taken has none, though it is the first that is known of its shard.
            let serves = shard.iter().map(|key| machine.node(*key)).find(|node| !node.slots.is_empty());
            let primary = serves.unwrap_or(primary);
            out.map(2);
            out.bulk(b"slots");
            out.array(2 * primary.slots.ranges().count());
            for (first, last) in primary.slots.ranges() {
                out.integer(first as i64);
                out.integer(last as i64);
            }
            out.bulk(b"nodes");
            out.array(shard.len());
            shard.iter().for_each(|key| write_member(out, machine, *key, kind, way));
        }
    });
    DONE
}

/// A node as CLUSTER SHARDS shows it.
fn write_member(out: &mut Output, machine: &Machine, key: NodeKey, kind: EndpointType, way: Way) {
    let node = machine.node(key);
    let ip = node.ip(way);
    let head = out.defer();
    let mut count = 0;
    let offset = machine.offset_of(key);
    let mut text = |out: &mut Output, name: &str, value: &[u8]| {
        out.bulk(name.as_bytes());
        out.bulk(value);
        count += 1;
    };
    text(out, "id", &node.name.0);
    let ports = [("port", node.address.port), ("tls-port", node.address.tls_port)];
    let mut numbers = 0;
    for (name, port) in ports.into_iter().filter(|(_, port)| *port != 0) {
        out.bulk(name.as_bytes());
        out.integer(port.into());
        numbers += 1;
    }
    text(out, "ip", ip.as_bytes());
    text(out, "endpoint", preferred(kind, ip, &node.hostname).as_bytes());
    if !node.hostname.is_empty() {
        text(out, "hostname", node.hostname.as_bytes());
    }
    text(out, "role", if node.is_replica() { b"replica" } else { b"master" });
    out.bulk(b"replication-offset");
    out.integer(i64::try_from(offset).unwrap_or(i64::MAX));
    numbers += 1;
    text(
        out,
        "health",
        match () {
            () if node.has_failed() => b"fail",
            () if node.is_replica() && offset == 0 => b"loading",
            () => b"online",
        },
    );
    out.finish_map(head, count + numbers);
}

pub fn links(ctx: &mut Context<'_>, _: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    let out = &mut *ctx.out;
    cluster.with(ctx.engine.clock.now_ms(), |machine| {
        let all: Vec<(LinkId, &Link, &Node)> =
            machine.links().filter_map(|(id, link)| link.node.map(|key| (id, link, machine.node(key)))).collect();
        out.array(all.len());
        for (_, link, node) in all {
            out.map(6);
            let texts = [("direction", if link.inbound { "from" } else { "to" })];
            texts.iter().for_each(|(name, value)| {
                out.bulk(name.as_bytes());
                out.bulk(value.as_bytes());
            });
            out.bulk(b"node");
            out.bulk(&node.name.0);
            out.bulk(b"create-time");
            out.integer(i64::try_from(link.created).unwrap_or(i64::MAX));
            out.bulk(b"events");
            out.bulk(if link.queued > 0 { b"rw" } else { b"r" });
            for name in ["send-buffer-allocated", "send-buffer-used"] {
                out.bulk(name.as_bytes());
                out.integer(link.queued as i64);
            }
        }
    });
    DONE
}
