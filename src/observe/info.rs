//! INFO: which fields there are, in which order, in which section; and how values are written.
//!
//! [`SECTIONS`] is the table. The values come from the floors above, which answer [`render`] field
//! by field: what is not in the table cannot be printed, and [`unanswered`] finds what is in the
//! table and would not be. Lines end with CRLF; a blank line stands between sections.

use std::fmt::{self, Display, Write};

use crate::observe::stats::{Counter, Peak, Rate, Stats, commandstat, latencystat};

/// How often a field is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Once, whatever the state of the server.
    Always,
    /// Once or not at all, depending on the state.
    Sometimes,
    /// Any number of times: the name in the table is what the printed ones begin with (`db`, `slave`).
    Rows,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// As printed, or the beginning of it.
    pub name: &'static str,
    /// How often.
    pub kind: Kind,
}

/// When a section is printed although nobody named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// By INFO without arguments, and whenever more is asked for.
    Default,
    /// By `all` and `everything`.
    All,
    /// Never: it has to be named.
    Named,
}

/// One section.
#[derive(Debug)]
pub struct Section {
    /// What clients ask for, lower case.
    pub name: &'static str,
    /// The heading.
    pub title: &'static str,
    /// When it is printed.
    pub shown: Shown,
    /// Its fields in order.
    pub fields: &'static [Field],
}

macro_rules! kind {
    () => {
        Kind::Always
    };
    ($kind:ident) => {
        Kind::$kind
    };
}

macro_rules! section {
    ($name:literal, $title:literal, $shown:ident, [$($field:ident $(: $kind:ident)?),* $(,)?]) => {
        Section {
            name: $name,
            title: $title,
            shown: Shown::$shown,
            fields: &[$(Field { name: stringify!($field), kind: kind!($($kind)?) }),*],
        }
    };
}

/// All that INFO can print.
#[rustfmt::skip]
pub const SECTIONS: &[Section] = &[
    section!("server", "Server", Default, [
        redis_version, server_name: Sometimes, spinel_version, redis_git_sha1, redis_git_dirty, redis_build_id,
        redis_mode, os, arch_bits, monotonic_clock, multiplexing_api, atomicvar_api, gcc_version: Sometimes,
        rustc_version: Sometimes, process_id, process_supervised, run_id, tcp_port, server_time_usec,
        uptime_in_seconds, uptime_in_days, hz, configured_hz, lru_clock, executable, config_file,
        availability_zone: Sometimes, io_threads_active, shutdown_in_milliseconds: Sometimes, listener: Rows,
    ]),
    section!("clients", "Clients", Default, [
        connected_clients, cluster_connections, maxclients, client_recent_max_input_buffer,
        client_recent_max_output_buffer, blocked_clients, tracking_clients, pubsub_clients, watching_clients,
        clients_in_timeout_table, total_watched_keys, total_blocking_keys, total_blocking_keys_on_nokey,
        paused_reason: Sometimes, paused_actions: Sometimes, paused_timeout_milliseconds: Sometimes,
    ]),
    section!("memory", "Memory", Default, [
        used_memory, used_memory_human, used_memory_rss, used_memory_rss_human, used_memory_peak,
        used_memory_peak_human, used_memory_peak_perc, used_memory_overhead, used_memory_startup,
        used_memory_dataset, used_memory_dataset_perc, allocator_allocated, allocator_active, allocator_resident,
        allocator_muzzy: Sometimes, total_system_memory, total_system_memory_human, used_memory_lua,
        used_memory_vm_eval, used_memory_lua_human, used_memory_scripts_eval, number_of_cached_scripts,
        number_of_functions, number_of_libraries, used_memory_vm_functions, used_memory_vm_total,
        used_memory_vm_total_human, used_memory_functions, used_memory_scripts, used_memory_scripts_human,
        maxmemory, maxmemory_human, maxmemory_policy, allocator_frag_ratio, allocator_frag_bytes,
        allocator_rss_ratio, allocator_rss_bytes, rss_overhead_ratio, rss_overhead_bytes, mem_fragmentation_ratio,
        mem_fragmentation_bytes, mem_not_counted_for_evict, mem_replication_backlog,
        mem_total_replication_buffers, mem_replica_full_sync_buffer, mem_clients_slaves, mem_clients_normal,
        mem_cluster_links, mem_aof_buffer, mem_allocator, mem_overhead_db_hashtable_rehashing,
        active_defrag_running, lazyfree_pending_objects, lazyfreed_objects,
    ]),
    section!("persistence", "Persistence", Default, [
        loading, async_loading, current_cow_peak, current_cow_size, current_cow_size_age, current_fork_perc,
        current_save_keys_processed, current_save_keys_total, rdb_changes_since_last_save,
        rdb_bgsave_in_progress, rdb_last_save_time, rdb_last_bgsave_status, rdb_last_bgsave_time_sec,
        rdb_current_bgsave_time_sec, rdb_saves, rdb_last_cow_size, rdb_last_load_keys_expired,
        rdb_last_load_keys_loaded, aof_enabled, aof_rewrite_in_progress, aof_rewrite_scheduled,
        aof_last_rewrite_time_sec, aof_current_rewrite_time_sec, aof_last_bgrewrite_status, aof_rewrites,
        aof_rewrites_consecutive_failures, aof_last_write_status, aof_last_cow_size, module_fork_in_progress,
        module_fork_last_cow_size, aof_current_size: Sometimes, aof_base_size: Sometimes,
        aof_pending_rewrite: Sometimes, aof_buffer_length: Sometimes, aof_pending_bio_fsync: Sometimes,
        aof_delayed_fsync: Sometimes, loading_start_time: Sometimes, loading_total_bytes: Sometimes,
        loading_rdb_used_mem: Sometimes, loading_loaded_bytes: Sometimes, loading_loaded_perc: Sometimes,
        loading_eta_seconds: Sometimes,
    ]),
    section!("stats", "Stats", Default, [
        total_connections_received, total_commands_processed, instantaneous_ops_per_sec, total_net_input_bytes,
        total_net_output_bytes, total_net_repl_input_bytes, total_net_repl_output_bytes,
        instantaneous_input_kbps, instantaneous_output_kbps, instantaneous_input_repl_kbps,
        instantaneous_output_repl_kbps, rejected_connections, sync_full, sync_partial_ok, sync_partial_err,
        expired_subkeys, expired_keys, expired_stale_perc, expired_time_cap_reached_count,
        expire_cycle_cpu_milliseconds, evicted_keys, evicted_clients, evicted_scripts,
        total_eviction_exceeded_time, current_eviction_exceeded_time, keyspace_hits, keyspace_misses,
        pubsub_channels, pubsub_patterns, pubsubshard_channels, latest_fork_usec, total_forks,
        migrate_cached_sockets, slave_expires_tracked_keys, active_defrag_hits, active_defrag_misses,
        active_defrag_key_hits, active_defrag_key_misses, total_active_defrag_time, current_active_defrag_time,
        tracking_total_keys, tracking_total_items, tracking_total_prefixes, unexpected_error_replies,
        total_error_replies, dump_payload_sanitizations, total_reads_processed, total_writes_processed,
        io_threaded_reads_processed, io_threaded_writes_processed, client_query_buffer_limit_disconnections,
        client_output_buffer_limit_disconnections, reply_buffer_shrinks, reply_buffer_expands, eventloop_cycles,
        eventloop_duration_sum, eventloop_duration_cmd_sum, instantaneous_eventloop_cycles_per_sec,
        instantaneous_eventloop_duration_usec, acl_access_denied_auth, acl_access_denied_cmd,
        acl_access_denied_key, acl_access_denied_channel, total_cluster_links_buffer_limit_exceeded: Sometimes,
        expire_lag_usec_p50, expire_lag_usec_p99, expire_lag_usec_max,
    ]),
    section!("replication", "Replication", Default, [
        role, master_host: Sometimes, master_port: Sometimes, master_link_status: Sometimes,
        master_last_io_seconds_ago: Sometimes, master_sync_in_progress: Sometimes,
        slave_read_repl_offset: Sometimes, slave_repl_offset: Sometimes,
        replicas_repl_buffer_size: Sometimes, replicas_repl_buffer_peak: Sometimes,
        master_sync_total_bytes: Sometimes, master_sync_read_bytes: Sometimes, master_sync_left_bytes: Sometimes,
        master_sync_perc: Sometimes, master_sync_last_io_seconds_ago: Sometimes,
        master_link_down_since_seconds: Sometimes, slave_priority: Sometimes, slave_read_only: Sometimes,
        replica_announced: Sometimes, connected_slaves, min_slaves_good_slaves: Sometimes, slave: Rows,
        replicas_waiting_psync,
        master_failover_state, master_replid, master_replid2, master_repl_offset, second_repl_offset,
        repl_backlog_active, repl_backlog_size, repl_backlog_first_byte_offset, repl_backlog_histlen,
    ]),
    section!("cpu", "CPU", Default, [
        used_cpu_sys, used_cpu_user, used_cpu_sys_children, used_cpu_user_children, used_cpu_sys_main_thread,
        used_cpu_user_main_thread,
    ]),
    section!("modules", "Modules", Default, []),
    section!("commandstats", "Commandstats", All, [cmdstat_: Rows]),
    section!("errorstats", "Errorstats", Default, [errorstat_: Rows]),
    section!("latencystats", "Latencystats", All, [latency_percentiles_usec_: Rows]),
    section!("cluster", "Cluster", Default, [cluster_enabled]),
    section!("keyspace", "Keyspace", Default, [db: Rows]),
    section!("debug", "Debug", Named, [
        eventloop_duration_aof_sum, eventloop_duration_cron_sum, eventloop_duration_max,
        eventloop_cmd_per_cycle_max,
    ]),
];

/// The sections that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection([bool; SECTIONS.len()]);

impl Selection {
    /// The sections of these names in whatever case, of `default`, `all` and `everything` too; names
    /// that do not exist are ignored. No name at all means `default`.
    pub fn parse<N: AsRef<[u8]>>(names: impl IntoIterator<Item = N>) -> Selection {
        let mut selection = Selection([false; SECTIONS.len()]);
        let mut named = false;
        for name in names {
            named = true;
            let name = name.as_ref().to_ascii_lowercase();
            match name.as_slice() {
                b"default" => selection.include(|section| section.shown == Shown::Default),
                b"all" | b"everything" => selection.include(|section| section.shown != Shown::Named),
                name => selection.include(|section| section.name.as_bytes() == name),
            }
        }
        if !named {
            selection.include(|section| section.shown == Shown::Default);
        }
        selection
    }

    fn include(&mut self, wanted: impl Fn(&Section) -> bool) {
        for (included, section) in self.0.iter_mut().zip(SECTIONS) {
            *included |= wanted(section);
        }
    }

    /// Whether the section of this name will be printed: spares gathering what nobody sees.
    pub fn includes(&self, name: &str) -> bool {
        self.sections().any(|section| section.name == name)
    }

    fn sections(&self) -> impl Iterator<Item = &'static Section> {
        SECTIONS.iter().zip(self.0).filter(|(_, included)| *included).map(|(section, _)| section)
    }
}

/// Where the answer to one field is written.
#[derive(Debug)]
pub struct Answer<'a> {
    field: &'static Field,
    out: &'a mut String,
    lines: usize,
}

impl Answer<'_> {
    /// Prints the field with this value.
    ///
    /// # Panics
    /// In debug builds, if the field has rows or was printed already.
    pub fn put(&mut self, value: impl Display) {
        debug_assert!(self.field.kind != Kind::Rows && self.lines == 0, "{} is printed once", self.field.name);
        self.line("", value);
    }

    /// Prints yes and no as Redis does, 1 and 0.
    pub fn flag(&mut self, yes: bool) {
        self.put(u8::from(yes));
    }

    /// Prints one row of the field: its name, `rest` (`0` of `db0`, `get` of `cmdstat_get`), the value.
    ///
    /// # Panics
    /// In debug builds, if the field is one that is printed once.
    pub fn row(&mut self, rest: impl Display, value: impl Display) {
        debug_assert!(self.field.kind == Kind::Rows, "{} has no rows", self.field.name);
        self.line(rest, value);
    }

    fn line(&mut self, rest: impl Display, value: impl Display) {
        self.lines += 1;
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{}{rest}:{value}\r\n", self.field.name);
    }
}

/// Writes the selected sections. `answer` is called for every field of them, in order, with the
/// field's name: it prints the value, or nothing where the state has none.
pub fn render(selection: &Selection, mut answer: impl FnMut(&'static str, &mut Answer<'_>)) -> String {
    let mut out = String::with_capacity(4096);
    for section in selection.sections() {
        if !out.is_empty() {
            out.push_str("\r\n");
        }
        let _ = write!(out, "# {}\r\n", section.title);
        for field in section.fields {
            answer(field.name, &mut Answer { field, out: &mut out, lines: 0 });
        }
    }
    out
}

/// The fields that `answer` leaves out although they are always printed: none, in a server that is
/// complete. For the test beside the answers.
pub fn unanswered(mut answer: impl FnMut(&'static str, &mut Answer<'_>)) -> Vec<&'static str> {
    let mut out = String::new();
    let all = SECTIONS.iter().flat_map(|section| section.fields);
    all.filter(|field| {
        let mut one = Answer { field, out: &mut out, lines: 0 };
        answer(field.name, &mut one);
        field.kind == Kind::Always && one.lines != 1
    })
    .map(|field| field.name)
    .collect()
}

/// Answers the fields that are nothing but statistics; returns whether `field` is one of them.
pub fn answer_from_stats(stats: &Stats, field: &str, to: &mut Answer<'_>) -> bool {
    let counter = match field {
        "total_connections_received" => Counter::ConnectionsReceived,
        "total_commands_processed" => Counter::CommandsProcessed,
        "total_net_repl_input_bytes" => Counter::NetReplInputBytes,
        "total_net_repl_output_bytes" => Counter::NetReplOutputBytes,
        "rejected_connections" => Counter::ConnectionsRejected,
        "sync_full" => Counter::SyncFull,
        "sync_partial_ok" => Counter::SyncPartialOk,
        "sync_partial_err" => Counter::SyncPartialErr,
        "expired_subkeys" => Counter::ExpiredSubkeys,
        "expired_keys" => Counter::ExpiredKeys,
        "expired_time_cap_reached_count" => Counter::ExpiredTimeCapReached,
        "evicted_keys" => Counter::EvictedKeys,
        "evicted_clients" => Counter::EvictedClients,
        "evicted_scripts" => Counter::EvictedScripts,
        "keyspace_hits" => Counter::KeyspaceHits,
        "keyspace_misses" => Counter::KeyspaceMisses,
        "total_forks" => Counter::Forks,
        "unexpected_error_replies" => Counter::UnexpectedErrorReplies,
        "total_error_replies" => Counter::ErrorReplies,
        "dump_payload_sanitizations" => Counter::DumpPayloadSanitizations,
        "total_reads_processed" => Counter::ReadsProcessed,
        "total_writes_processed" => Counter::WritesProcessed,
        "client_query_buffer_limit_disconnections" => Counter::QueryBufferDisconnections,
        "client_output_buffer_limit_disconnections" => Counter::OutputBufferDisconnections,
        "reply_buffer_shrinks" => Counter::ReplyBufferShrinks,
        "reply_buffer_expands" => Counter::ReplyBufferExpands,
        "eventloop_cycles" => Counter::LoopCycles,
        "eventloop_duration_sum" => Counter::LoopUs,
        "eventloop_duration_aof_sum" => Counter::LoopAofUs,
        "eventloop_duration_cron_sum" => Counter::LoopCronUs,
        "acl_access_denied_auth" => Counter::AccessDeniedAuth,
        "acl_access_denied_cmd" => Counter::AccessDeniedCommand,
        "acl_access_denied_key" => Counter::AccessDeniedKey,
        "acl_access_denied_channel" => Counter::AccessDeniedChannel,
        _ => return answer_from_figures(stats, field, to),
    };
    to.put(stats.total(counter));
    true
}

/// The fields of statistics that are more than a counter.
fn answer_from_figures(stats: &Stats, field: &str, to: &mut Answer<'_>) -> bool {
    let kbps = |rate| format!("{:.2}", stats.rate(rate) as f64 / 1024.0);
    let both = |a, b| stats.total(a) + stats.total(b);
    match field {
        "instantaneous_ops_per_sec" => to.put(stats.rate(Rate::Commands)),
        "total_net_input_bytes" => to.put(both(Counter::NetInputBytes, Counter::NetReplInputBytes)),
        "total_net_output_bytes" => to.put(both(Counter::NetOutputBytes, Counter::NetReplOutputBytes)),
        "instantaneous_input_kbps" => to.put(kbps(Rate::NetInput)),
        "instantaneous_output_kbps" => to.put(kbps(Rate::NetOutput)),
        "instantaneous_input_repl_kbps" => to.put(kbps(Rate::NetReplInput)),
        "instantaneous_output_repl_kbps" => to.put(kbps(Rate::NetReplOutput)),
        "instantaneous_eventloop_cycles_per_sec" => to.put(stats.rate(Rate::LoopCycles)),
        "instantaneous_eventloop_duration_usec" => to.put(stats.rate(Rate::LoopUs)),
        "expire_cycle_cpu_milliseconds" => to.put(stats.total(Counter::ExpireCycleUs) / 1000),
        "total_eviction_exceeded_time" => to.put(stats.total(Counter::EvictionExceededUs) / 1000),
        "eventloop_duration_cmd_sum" => {
            to.put(stats.commands().iter().map(|(_, totals)| totals.nanoseconds).sum::<u64>() / 1000);
        }
        "eventloop_duration_max" => to.put(stats.largest(Peak::LoopUs)),
        "eventloop_cmd_per_cycle_max" => to.put(stats.largest(Peak::CommandsPerCycle)),
        "expire_lag_usec_p50" => to.put(stats.expire_lag.summary().p50),
        "expire_lag_usec_p99" => to.put(stats.expire_lag.summary().p99),
        "expire_lag_usec_max" => to.put(stats.expire_lag.summary().max),
        "errorstat_" => stats.errors().into_iter().for_each(|(code, n)| to.row(code, format_args!("count={n}"))),
        _ => return false,
    }
    true
}

/// Answers `cmdstat_`: a row for each command that was called or refused. `name` gives the name that
/// belongs to an index, lower case, a subcommand's with its container's (`config|set`).
pub fn answer_commandstats<N: Display>(stats: &Stats, name: impl Fn(u16) -> N, to: &mut Answer<'_>) {
    for (command, totals) in stats.commands() {
        to.row(name(command), commandstat(&totals));
    }
}

/// Answers `latency_percentiles_usec_`: a row for each command whose durations were tracked.
pub fn answer_latencystats<N: Display>(
    stats: &Stats,
    name: impl Fn(u16) -> N,
    percentiles: &[f64],
    to: &mut Answer<'_>,
) {
    for (command, totals) in stats.commands() {
        if totals.histogram.total() > 0 {
            to.row(name(command), latencystat(&totals.histogram, percentiles));
        }
    }
}

/// A number of bytes for people: `894.97K`, `1.50G`, and `200B` below a kilobyte.
#[derive(Clone, Copy, Debug)]
pub struct Human(pub u64);

impl Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(char, u32); 6] = [('E', 60), ('P', 50), ('T', 40), ('G', 30), ('M', 20), ('K', 10)];
        match UNITS.iter().find(|(_, bits)| self.0 >> bits > 0) {
            Some((unit, bits)) => write!(f, "{:.2}{unit}", self.0 as f64 / (1u64 << bits) as f64),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// `part` of `whole` in percent: `99.50%`; 0 of nothing.
#[derive(Clone, Copy, Debug)]
pub struct Percent(pub u64, pub u64);

impl Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = if self.1 == 0 { 0.0 } else { self.0 as f64 * 100.0 / self.1 as f64 };
        write!(f, "{percent:.2}%")
    }
}

/// How many times `part` is of `whole`: `1.08`; 0 where `whole` is nothing.
#[derive(Clone, Copy, Debug)]
pub struct Ratio(pub u64, pub u64);

impl Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = if self.1 == 0 { 0.0 } else { self.0 as f64 / self.1 as f64 };
        write!(f, "{ratio:.2}")
    }
}

/// The value of `dbN`.
#[derive(Clone, Copy, Debug)]
pub struct Keyspace {
    /// How many keys it has.
    pub keys: u64,
    /// How many of them expire.
    pub expires: u64,
    /// How long those live on average, milliseconds.
    pub avg_ttl_ms: u64,
    /// How many of the keys are hashes with fields that expire; said where there are any.
    pub subexpiry: u64,
}

impl Display for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys={},expires={},avg_ttl={}", self.keys, self.expires, self.avg_ttl_ms)?;
        // Those who know nothing of them may want three figures and no more.
        if self.subexpiry > 0 { write!(f, ",subexpiry={}", self.subexpiry) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::stats::{ErrorOrigin, Outcome};
    use std::collections::HashSet;

    fn select(names: &[&str]) -> Vec<&'static str> {
        Selection::parse(names).sections().map(|section| section.name).collect()
    }

    #[test]
    fn no_field_is_in_the_table_twice_and_rows_do_not_hide_fields() {
        let all: Vec<&Field> = SECTIONS.iter().flat_map(|section| section.fields).collect();
        let names: HashSet<_> = all.iter().map(|field| field.name).collect();
        assert_eq!(names.len(), all.len());
        for rows in all.iter().filter(|field| field.kind == Kind::Rows) {
            let digits = |name: &str| name.strip_prefix(rows.name).is_some_and(|rest| rest.parse::<u32>().is_ok());
            assert!(!all.iter().any(|field| digits(field.name)), "{}", rows.name);
        }
    }

    #[test]
    fn sections_are_chosen_by_name_in_any_case_and_unknown_ones_are_ignored() {
        let default = select(&[]);
        assert_eq!(default, select(&["DEFAULT"]));
        assert!(!default.contains(&"commandstats") && default.contains(&"errorstats"));
        assert_eq!(select(&["All"]), select(&["everything"]));
        assert!(select(&["all"]).contains(&"latencystats") && !select(&["all"]).contains(&"debug"));
        assert_eq!(select(&["bogus", "KEYSPACE", "cpu", "cpu"]), ["cpu", "keyspace"]);
        assert!(select(&["bogus"]).is_empty());
        assert!(Selection::parse(["debug"]).includes("debug"));
    }

    #[test]
    fn lines_end_with_crlf_and_a_blank_line_stands_between_sections() {
        let text = render(&Selection::parse(["cluster", "modules", "keyspace"]), |field, to| match field {
            "cluster_enabled" => to.flag(true),
            "db" => {
                to.row(0, Keyspace { keys: 3, expires: 1, avg_ttl_ms: 20, subexpiry: 2 });
                to.row(9, Keyspace { keys: 1, expires: 0, avg_ttl_ms: 0, subexpiry: 0 });
            }
            other => panic!("{other}"),
        });
        assert_eq!(
            text,
            "# Modules\r\n\r\n# Cluster\r\ncluster_enabled:1\r\n\r\n# Keyspace\r\n\
             db0:keys=3,expires=1,avg_ttl=20,subexpiry=2\r\ndb9:keys=1,expires=0,avg_ttl=0\r\n"
        );
        assert_eq!(render(&Selection::parse(["bogus"]), |_, _| ()), "");
    }

    #[test]
    fn a_field_that_is_forgotten_is_found() {
        let missing = unanswered(|field, to| match field {
            "role" => {}
            "slave" | "db" | "listener" | "cmdstat_" | "errorstat_" | "latency_percentiles_usec_" => to.row(1, 1),
            _ => to.put(1),
        });
        assert_eq!(missing, ["role"]);
    }

    #[test]
    fn statistics_answer_their_fields() {
        let stats = Stats::new(1, 2);
        stats.worker(0).add(Counter::NetInputBytes, 10);
        stats.add(Counter::NetReplInputBytes, 5);
        stats.worker(0).called(1, 3_000, Outcome::Failed, true);
        stats.error(Some(0), b"ERR", ErrorOrigin::Server);
        stats.expire_lag.record(250);
        let names = ["get", "config|set"];
        let text = render(&Selection::parse(["everything"]), |field, to| {
            if !answer_from_stats(&stats, field, to) {
                match field {
                    "cmdstat_" => answer_commandstats(&stats, |n| names[usize::from(n)], to),
                    "latency_percentiles_usec_" => {
                        answer_latencystats(&stats, |n| names[usize::from(n)], &[50.0], to);
                    }
                    _ => {}
                }
            }
        });
        for line in [
            "total_net_input_bytes:15",
            "total_net_repl_input_bytes:5",
            "total_error_replies:1",
            "errorstat_ERR:count=1",
            "cmdstat_config|set:calls=1,usec=3,usec_per_call=3.00,rejected_calls=0,failed_calls=1",
            "latency_percentiles_usec_config|set:p50=3.071",
            "instantaneous_input_kbps:0.00",
            "expire_lag_usec_max:250",
        ] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} is not in {text}");
        }
        assert!(!text.contains("get:"));
    }

    #[test]
    fn sizes_and_shares_are_written_as_redis_writes_them() {
        let human = |bytes| Human(bytes).to_string();
        assert_eq!(human(0), "0B");
        assert_eq!(human(1023), "1023B");
        assert_eq!(human(916_448), "894.97K");
        assert_eq!(human(12_152_832), "11.59M");
        assert_eq!(human(25_274_793_984), "23.54G");
        assert_eq!(human(u64::MAX), "16.00E");
        assert_eq!(Percent(995, 1000).to_string(), "99.50%");
        assert_eq!(Percent(1, 0).to_string(), "0.00%");
        assert_eq!(Ratio(182, 169).to_string(), "1.08");
    }
}
