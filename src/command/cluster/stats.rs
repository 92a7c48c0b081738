//! CLUSTER SLOT-STATS: what each slot holds and costs.

use crate::cluster::shared::Cluster;
use crate::cluster::stats::Cost;
use crate::cluster::view::View;
use crate::command::args::{Args, word};
use crate::command::cluster::{cluster, keys, slot_of};
use crate::command::context::{Context, DONE, Reply};
use crate::command::error::Error;
use crate::command::help;
use crate::keyspace::shard::SLOTS;

/// What slots can be ordered by.
const METRICS: [&str; 4] = ["KEY-COUNT", "CPU-USEC", "NETWORK-BYTES-IN", "NETWORK-BYTES-OUT"];

pub fn slot_stats(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let cluster = cluster(ctx)?;
    if args.len() == 5 && args.is(2, "SLOTSRANGE") {
        let (first, last) = (slot_of(args.at(3))?, slot_of(args.at(4))?);
        if first > last {
            return Err(Error::text(format!("ERR Start slot number {first} is greater than end slot number {last}")));
        }
        let mut slots = served(cluster);
        slots.retain(|slot| (first..=last).contains(slot));
        return write(ctx, cluster, &slots);
    }
    if !args.is(2, "ORDERBY") {
        return Err(help::wrong_form("CLUSTER", args.at(1)));
    }
    let wanted = if ctx.config.cluster_slot_stats_enabled { &METRICS[..] } else { &METRICS[..1] };
    let metric = word(args.at(3), wanted).ok_or(Error::text("ERR Unrecognized sort metric for ORDERBY."))?;
    let (mut limit, mut descending) = (None, None);
    let mut at = 4;
    while at < args.len() {
        let option = word(args.at(at), &["LIMIT", "ASC", "DESC"]);
        let again = match option {
            Some("LIMIT") if at + 1 < args.len() => {
                at += 1;
                let most = args.integer(at)?;
                let most = usize::try_from(most).ok().filter(|most| (1..=SLOTS).contains(most));
                let text = "ERR Limit has to lie in between 1 and 16384 (maximum number of slots).";
                limit.replace(most.ok_or(Error::text(text))?).is_some()
            }
            Some(order @ ("ASC" | "DESC")) => descending.replace(order == "DESC").is_some(),
            _ => return Err(Error::Syntax),
        };
        if again {
            return Err(Error::text("ERR Multiple filters of the same type are disallowed."));
        }
        at += 1;
    }
    let mut slots: Vec<(u64, usize)> =
        served(cluster).into_iter().map(|slot| (value(ctx, cluster, slot, metric), slot)).collect();
    match descending.unwrap_or(true) {
        true => slots.sort_by_key(|(value, slot)| (u64::MAX - value, *slot)),
        false => slots.sort_unstable(),
    }
    let slots: Vec<usize> = slots.into_iter().take(limit.unwrap_or(SLOTS)).map(|(_, slot)| slot).collect();
    write(ctx, cluster, &slots)
}

/// The slots of this node's shard.
fn served(cluster: &Cluster) -> Vec<usize> {
    let view = cluster.view().load();
    let ours = |slot: u16| {
        let owner = view.owner(slot);
        owner == Some(View::MYSELF) || view.is_replica && owner.is_some() && owner == view.primary
    };
    (0..SLOTS).filter(|slot| u16::try_from(*slot).is_ok_and(ours)).collect()
}

fn value(ctx: &mut Context<'_>, cluster: &Cluster, slot: usize, metric: &str) -> u64 {
    let Cost { ns, bytes_in, bytes_out } = cluster.stats.of(slot);
    match metric {
        "CPU-USEC" => ns / 1000,
        "NETWORK-BYTES-IN" => bytes_in,
        "NETWORK-BYTES-OUT" => bytes_out,
        _ => keys::count(ctx, slot) as u64,
    }
}

fn write(ctx: &mut Context<'_>, cluster: &Cluster, slots: &[usize]) -> Reply {
    let metrics = if ctx.config.cluster_slot_stats_enabled { &METRICS[..] } else { &METRICS[..1] };
    ctx.out.array(slots.len());
    for slot in slots {
        ctx.out.array(2);
        ctx.out.integer(*slot as i64);
        ctx.out.map(metrics.len());
        for metric in metrics {
            let value = value(ctx, cluster, *slot, metric);
            ctx.out.bulk(metric.to_ascii_lowercase().as_bytes());
            ctx.out.integer(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
    DONE
}
