//! INFO: the value of every field of [`observe::info`](crate::observe::info).
//!
//! Each section has a function that answers its fields. What is dear to find out is found out once, and
//! only if a field asks for it.

use std::cell::OnceCell;
use std::env;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sha1::{Digest, Sha1};

use crate::client::shared::{Mark, Shared};
use crate::cluster::machine::Machine;
use crate::command::args::Args;
use crate::command::context::{Context, DONE, Reply};
use crate::command::engine::{Engine, PauseMode};
use crate::command::memory::Usage;
use crate::command::table::Command;
use crate::config::choice::Supervised;
use crate::config::table::Config;
use crate::keyspace::hold::Hold;
use crate::keyspace::space::DbCounts;
use crate::observe::allocator;
use crate::observe::info::{
    self, Answer, Human, Keyspace, Percent, Selection, answer_commandstats, answer_from_stats, answer_latencystats,
};
use crate::observe::process::{self, CpuTime, Whose};
use crate::observe::stats::Counter;
use crate::pubsub::Kind;
use crate::replication::{Primary, Stage};
use crate::spec::{Arity, Flag, Group};
use crate::stdx::ticks::Ticks;

/// This family's commands.
pub const COMMANDS: &[Command] = &[INFO];

/// The Redis version whose commands and replies these are.
pub const REDIS_VERSION: &str = "7.2.4";

/// Replies with what is known of the server, a section after the other.
pub const INFO: Command = Command {
    name: "INFO",
    since: "1.0.0",
    group: Group::Server,
    arity: Arity::AtLeast(1),
    flags: &[Flag::Loading, Flag::Stale],
    categories: &[crate::spec::Category::Dangerous],
    keys: &[],
    usage: "[section...]",
    summary: "Returns information and statistics about the server.",
    complexity: "O(1)",
    tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
    history: &[("7.0.0", "Added support for taking multiple section arguments.")],
    deprecated: None,
    subcommands: &[],
    run: info_command,
};

fn info_command(ctx: &mut Context<'_>, args: &Args<'_>) -> Reply {
    let selection = Selection::parse(args.from(1));
    let text = text(ctx.engine, ctx.config, &mut ctx.db.hold, &selection);
    ctx.out.verbatim("txt", text.as_bytes());
    DONE
}

/// The selected sections as INFO prints them.
///
/// Takes the locks of shards and of the client registry one at a time; `hold` holds nothing or everything.
pub fn text(engine: &Engine, config: &Config, hold: &mut Hold<'_>, selection: &Selection) -> String {
    let mut scene = Scene::new(engine, config, hold);
    info::render(selection, |field, to| scene.answer(field, to))
}

/// What the answers are taken from.
struct Scene<'a, 'h, 'k> {
    engine: &'a Engine,
    config: &'a Config,
    hold: &'h mut Hold<'k>,
    now_ms: u64,
    usage: Option<Usage>,
    clients: OnceCell<Vec<Arc<Shared>>>,
}

impl<'a, 'h, 'k> Scene<'a, 'h, 'k> {
    fn new(engine: &'a Engine, config: &'a Config, hold: &'h mut Hold<'k>) -> Self {
        Scene { engine, config, hold, now_ms: engine.clock.now_ms(), usage: None, clients: OnceCell::new() }
    }

    /// Answers one field; a field that is unknown here stays without an answer.
    fn answer(&mut self, field: &'static str, to: &mut Answer<'_>) {
        let _ = answer_from_stats(&self.engine.stats, field, to)
            || self.server(field, to)
            || self.clients(field, to)
            || self.memory(field, to)
            || self.persistence(field, to)
            || self.stats(field, to)
            || self.replication(field, to)
            || self.rows(field, to);
    }

    fn server(&self, field: &str, to: &mut Answer<'_>) -> bool {
        let (engine, config) = (self.engine, self.config);
        let uptime_s = self.now_ms.saturating_sub(engine.identity.started_ms) / 1000;
        match field {
            "redis_version" => to.put(REDIS_VERSION),
            "server_name" => to.put("spinel"),
            "spinel_version" => to.put(env!("CARGO_PKG_VERSION")),
            "redis_git_sha1" => to.put("00000000"),
            "redis_git_dirty" => to.put(0),
            "redis_build_id" => to.put(build_id()),
            "redis_mode" => to.put(if config.cluster_enabled { "cluster" } else { "standalone" }),
            "os" => to.put(process::operating_system()),
            "arch_bits" => to.put(usize::BITS),
            "monotonic_clock" => to.put(Ticks::source()),
            "multiplexing_api" => to.put(if cfg!(target_os = "linux") { "epoll" } else { "kqueue" }),
            "atomicvar_api" => to.put("rust-core"),
            "process_id" => to.put(std::process::id()),
            "process_supervised" => to.put(supervised(config)),
            "run_id" => to.put(&engine.identity.run_id),
            "tcp_port" => to.put(if engine.host.port() == 0 { config.tls_port } else { engine.host.port() }),
            "server_time_usec" => to.put(engine.clock.now_us()),
            "uptime_in_seconds" => to.put(uptime_s),
            "uptime_in_days" => to.put(uptime_s / 86_400),
            "hz" | "configured_hz" => to.put(config.hz),
            "lru_clock" => to.put((self.now_ms / 1000) & 0xff_ffff),
            "executable" => to.put(engine.host.executable()),
            "config_file" => to.put(engine.host.config_file().unwrap_or_default()),
            "availability_zone" => {
                if !config.availability_zone.is_empty() {
                    to.put(String::from_utf8_lossy(&config.availability_zone));
                }
            }
            "shutdown_in_milliseconds" => {
                if let Some(until_ms) = engine.farewell.until_ms() {
                    to.put(until_ms.saturating_sub(self.now_ms));
                }
            }
            "io_threads_active" => to.flag(config.io_threads > 1),
            "listener" => self.listeners(to),
            _ => return false,
        }
        true
    }

    fn listeners(&self, to: &mut Answer<'_>) {
        let binds: String = self.config.bind.0.iter().map(|address| format!("bind={address},")).collect();
        // Each kind has its number, whether the others are there or not.
        for (n, name, port) in [(0, "tcp", self.engine.host.port()), (2, "tls", self.config.tls_port)] {
            if n == 2
                && let Some(path) = &self.config.unixsocket
            {
                to.row(1, format!("name=unix,bind={}", String::from_utf8_lossy(path)));
            }
            if port != 0 {
                to.row(n, format!("name={name},{binds}port={port}"));
            }
        }
    }

    fn clients(&mut self, field: &str, to: &mut Answer<'_>) -> bool {
        let all = || self.clients.get_or_init(|| self.engine.clients.all());
        let largest = |bytes: &dyn Fn(&Shared) -> usize| all().iter().map(|client| bytes(client)).max().unwrap_or(0);
        match field {
            // Replicas are told of elsewhere.
            "connected_clients" => {
                let replicas = self.engine.replication.state().replicas.len();
                to.put(self.engine.clients.len().saturating_sub(replicas));
            }
            "maxclients" => to.put(self.config.maxclients),
            "client_recent_max_input_buffer" => to.put(largest(&|client| {
                let figures = &client.figures;
                figures.query_bytes.load(Ordering::Relaxed) + figures.query_free.load(Ordering::Relaxed)
            })),
            "client_recent_max_output_buffer" => {
                to.put(largest(&|client| client.figures.output_bytes.load(Ordering::Relaxed) + client.outbox.bytes()))
            }
            "watching_clients" => {
                to.put(all().iter().filter(|client| client.figures.watched.load(Ordering::Relaxed) > 0).count());
            }
            "total_blocking_keys" => to.put(self.engine.keyspace.listened(self.hold).blocking),
            "total_blocking_keys_on_nokey" => to.put(self.engine.keyspace.listened(self.hold).needed),
            "total_watched_keys" => to.put(self.engine.keyspace.listened(self.hold).watched),
            "blocked_clients" => to.put(
                all().iter().filter(|client| client.has(Mark::Blocked)).count()
                    + self.engine.pause.waiting(self.now_ms),
            ),
            "pubsub_clients" => to.put(all().iter().filter(|client| client.figures.is_subscribed()).count()),
            "tracking_clients" => to.put(self.engine.tracking.clients()),
            "cluster_connections" => to.put(self.links(|machine| machine.links().count() as u64)),
            "clients_in_timeout_table" => {
                let is_timed = |client: &&Arc<Shared>| client.has(Mark::Blocked) && client.has(Mark::Timed);
                to.put(all().iter().filter(is_timed).count());
            }
            "paused_reason" | "paused_actions" | "paused_timeout_milliseconds" => {
                if let Some((mode, until_ms)) = self.engine.pause.active(self.now_ms) {
                    match field {
                        "paused_reason" if self.engine.pause.is_handing_over() => to.put("failover_in_progress"),
                        "paused_reason" if self.engine.pause.is_ending() => to.put("shutdown_in_progress"),
                        "paused_reason" => to.put("client_pause"),
                        "paused_actions" => to.put(if mode == PauseMode::All { "all" } else { "write" }),
                        _ => to.put(until_ms - self.now_ms),
                    }
                }
            }
            _ => return false,
        }
        true
    }

    fn usage(&mut self) -> &Usage {
        let (engine, hold, now_ms) = (self.engine, &mut *self.hold, self.now_ms);
        self.usage.get_or_insert_with(|| Usage::now(engine, hold, now_ms))
    }

    fn memory(&mut self, field: &str, to: &mut Answer<'_>) -> bool {
        if let Some(bytes) = self.memory_bytes(field.strip_suffix("_human").unwrap_or(field)) {
            if field.ends_with("_human") {
                to.put(Human(bytes))
            } else {
                to.put(bytes)
            }
            return true;
        }
        match field {
            "used_memory_peak_perc" => to.put(Percent(self.usage().used, self.usage().peak)),
            "used_memory_dataset_perc" => to.put(Percent(self.usage().dataset(), self.usage().since_startup())),
            "number_of_cached_scripts" => to.put(self.engine.scripts.cache.len()),
            "number_of_functions" => to.put(self.engine.scripts.libraries.load().functions()),
            "number_of_libraries" => to.put(self.engine.scripts.libraries.load().len()),
            "maxmemory_policy" => to.put(self.config.maxmemory_policy.name()),
            "allocator_frag_ratio" => to.put(ratio(self.usage().fragmentation().ratio())),
            "allocator_frag_bytes" => to.put(self.usage().fragmentation().bytes()),
            "allocator_rss_ratio" => to.put(ratio(self.usage().retained().ratio())),
            "allocator_rss_bytes" => to.put(self.usage().retained().bytes()),
            "rss_overhead_ratio" => to.put(ratio(self.usage().beyond_allocator().ratio())),
            "rss_overhead_bytes" => to.put(self.usage().beyond_allocator().bytes()),
            "mem_fragmentation_ratio" => to.put(ratio(self.usage().in_all().ratio())),
            "mem_fragmentation_bytes" => to.put(self.usage().in_all().bytes()),
            "mem_allocator" => to.put(allocator::name()),
            "active_defrag_running" => to.put(0),
            "lazyfree_pending_objects" => to.put(self.engine.keyspace.reclaimer().pending()),
            "lazyfreed_objects" => to.put(self.engine.keyspace.reclaimer().freed()),
            _ => return false,
        }
        true
    }

    /// Fields that are an amount of memory, some of which are printed for people too.
    fn memory_bytes(&mut self, field: &str) -> Option<u64> {
        Some(match field {
            "used_memory" => self.usage().used,
            "used_memory_rss" => self.usage().resident,
            "used_memory_peak" => self.usage().peak,
            "used_memory_overhead" => self.usage().overhead(),
            "used_memory_startup" => self.usage().startup,
            "used_memory_dataset" => self.usage().dataset(),
            "allocator_allocated" => self.usage().allocator.allocated,
            "allocator_active" => self.usage().allocator.active,
            "allocator_resident" => self.usage().allocator.resident,
            "total_system_memory" => process::machine_memory_bytes(),
            "maxmemory" => self.engine.memory_limit(self.config),
            "mem_clients_normal" => self.usage().clients,
            // Scripts and functions run on the same machines.
            "used_memory_lua" | "used_memory_vm_eval" | "used_memory_vm_total" => {
                self.engine.scripts.machines.memory() as u64
            }
            "used_memory_scripts_eval" => self.engine.scripts.cache.memory() as u64,
            "used_memory_functions" => self.engine.scripts.libraries.load().memory() as u64,
            "used_memory_scripts" => self.engine.scripts.memory() as u64,
            "used_memory_vm_functions" | "mem_replica_full_sync_buffer" => 0,
            "mem_replication_backlog" => {
                let backlog = self.stream_memory();
                backlog.min(self.config.repl_backlog_size)
            }
            "mem_total_replication_buffers" => self.stream_memory(),
            "mem_not_counted_for_evict" => self.engine.uncounted_memory(),
            "mem_clients_slaves" => self.engine.replicas_memory(),
            "mem_cluster_links" => {
                let waiting = self.engine.cluster.as_ref().map_or(0, |cluster| cluster.waiting_bytes());
                waiting + self.links(|machine| machine.links().map(|(_, link)| link.queued as u64).sum())
            }
            "mem_aof_buffer" => self.engine.aof.appender.buffered() as u64,
            // A table that grows rehashes one segment at a time and keeps no second copy of itself.
            "mem_overhead_db_hashtable_rehashing" => 0,
            _ => return None,
        })
    }

    /// What the part of the stream takes that is held for replicas, in bytes.
    fn stream_memory(&self) -> u64 {
        self.engine.replication.state().backlog.as_ref().map_or(0, |backlog| backlog.memory() as u64)
    }

    /// What is to be told of the connections of the cluster bus; 0 where there is none.
    fn links(&self, of: impl FnOnce(&Machine) -> u64) -> u64 {
        self.engine.cluster.as_ref().map_or(0, |cluster| cluster.with(self.now_ms, |machine| of(machine)))
    }

    /// How much of the file that is being loaded has been read, from 0 to 1.
    fn loaded_share(&self) -> f64 {
        let loading = &self.engine.saves.loading;
        let total = loading.total_bytes.load(Ordering::Relaxed).max(1);
        loading.progress.bytes.load(Ordering::Relaxed) as f64 / total as f64
    }

    fn persistence(&self, field: &str, to: &mut Answer<'_>) -> bool {
        let (saves, aof) = (&self.engine.saves, &self.engine.aof);
        match field {
            "loading" => to.flag(saves.loading.active.load(Ordering::Relaxed)),
            "loading_start_time"
            | "loading_total_bytes"
            | "loading_rdb_used_mem"
            | "loading_loaded_bytes"
            | "loading_loaded_perc"
            | "loading_eta_seconds"
                if !saves.loading.active.load(Ordering::Relaxed) => {}
            "loading_start_time" => to.put(saves.loading.started_ms.load(Ordering::Relaxed) / 1000),
            "loading_total_bytes" => to.put(saves.loading.total_bytes.load(Ordering::Relaxed)),
            "loading_rdb_used_mem" => to.put(saves.loading.progress.used_memory.load(Ordering::Relaxed)),
            "loading_loaded_bytes" => to.put(saves.loading.progress.bytes.load(Ordering::Relaxed)),
            "loading_loaded_perc" => to.put(format_args!("{:.2}", self.loaded_share() * 100.0)),
            "loading_eta_seconds" => {
                let elapsed_s = self.now_ms.saturating_sub(saves.loading.started_ms.load(Ordering::Relaxed)) / 1000;
                let share = self.loaded_share();
                let left = if share > 0.0 { elapsed_s as f64 / share - elapsed_s as f64 } else { 1.0 };
                to.put(left as u64);
            }
            "rdb_bgsave_in_progress" => to.flag(saves.is_running()),
            "rdb_saves" => to.put(saves.count.load(Ordering::Relaxed)),
            "rdb_last_load_keys_expired" => to.put(saves.loaded_expired.load(Ordering::Relaxed)),
            "rdb_last_load_keys_loaded" => to.put(saves.loaded_keys.load(Ordering::Relaxed)),
            "rdb_last_bgsave_status" => to.put(if saves.failed.load(Ordering::Relaxed) { "err" } else { "ok" }),
            "rdb_last_bgsave_time_sec" => to.put(saves.took_s.load(Ordering::Relaxed)),
            "rdb_current_bgsave_time_sec" => match saves.running.lock().as_ref() {
                Some(running) => to.put(self.now_ms.saturating_sub(running.started_ms) / 1000),
                None => to.put(-1),
            },
            "current_save_keys_processed" => {
                to.put(saves.running.lock().as_ref().map_or(0, |running| running.progress.done()));
            }
            "current_save_keys_total" => to.put(saves.running.lock().as_ref().map_or(0, |running| running.keys)),
            "rdb_changes_since_last_save" => to.put(self.engine.dirty.load(Ordering::Relaxed)),
            // Before the first save this is when the server started.
            "rdb_last_save_time" => to.put(saves.last_s.load(Ordering::Relaxed)),
            "aof_enabled" => to.flag(aof.is_on()),
            "aof_rewrite_in_progress" => to.flag(aof.is_rewriting()),
            "aof_rewrite_scheduled" => to.flag(aof.scheduled.load(Ordering::Relaxed)),
            "aof_last_rewrite_time_sec" => to.put(aof.took_s.load(Ordering::Relaxed)),
            "aof_current_rewrite_time_sec" => match aof.rewrite.lock().as_ref() {
                Some(rewrite) => to.put(self.now_ms.saturating_sub(rewrite.started_ms) / 1000),
                None => to.put(-1),
            },
            "aof_last_bgrewrite_status" => to.put(if aof.failed.load(Ordering::Relaxed) { "err" } else { "ok" }),
            "aof_rewrites" => to.put(aof.rewrites.load(Ordering::Relaxed)),
            "aof_rewrites_consecutive_failures" => to.put(aof.failures.load(Ordering::Relaxed)),
            "aof_last_write_status" => to.put(if aof.appender.trouble().is_some() { "err" } else { "ok" }),
            "aof_last_cow_size" => to.put(aof.peak_bytes.load(Ordering::Relaxed)),
            "aof_current_size"
            | "aof_base_size"
            | "aof_pending_rewrite"
            | "aof_buffer_length"
            | "aof_pending_bio_fsync"
            | "aof_delayed_fsync"
                if !aof.is_on() => {}
            "aof_current_size" => to.put(aof.bytes()),
            "aof_base_size" => to.put(aof.base_bytes.load(Ordering::Relaxed)),
            // What comes after a rewrite goes to a file of its own: nothing waits for its end.
            "aof_pending_rewrite" => to.put(0),
            "aof_buffer_length" => to.put(aof.appender.buffered()),
            "aof_pending_bio_fsync" => to.flag(aof.appender.is_syncing()),
            "aof_delayed_fsync" => to.put(aof.appender.delayed.load(Ordering::Relaxed)),
            "current_cow_size" => {
                to.put(saves.running.lock().as_ref().map_or(0, |running| running.progress.kept_bytes()));
            }
            "current_cow_peak" => {
                to.put(saves.running.lock().as_ref().map_or(0, |running| running.progress.peak_bytes()));
            }
            "rdb_last_cow_size" => to.put(saves.peak_bytes.load(Ordering::Relaxed)),
            "current_fork_perc" => to.put("0.00"),
            "async_loading" => to.flag(saves.loading.aside.load(Ordering::Relaxed)),
            "current_cow_size_age" | "module_fork_in_progress" | "module_fork_last_cow_size" => to.put(0),
            _ => return false,
        }
        true
    }

    fn stats(&self, field: &str, to: &mut Answer<'_>) -> bool {
        let by_threads = |counter| if self.config.io_threads > 1 { self.engine.stats.total(counter) } else { 0 };
        match field {
            "expired_stale_perc" => to.put("0.00"),
            // Every worker reads and writes for its own connections.
            "io_threaded_reads_processed" => to.put(by_threads(Counter::ReadsProcessed)),
            "io_threaded_writes_processed" => to.put(by_threads(Counter::WritesProcessed)),
            "current_eviction_exceeded_time" => {
                let since = self.engine.exceeded_since_us.load(Ordering::Relaxed);
                let now = self.engine.clock.monotonic_us();
                to.put(if since == 0 { 0 } else { now.saturating_sub(since) / 1000 });
            }
            "migrate_cached_sockets" => to.put(self.engine.host.kept_peers()),
            "pubsub_channels" => to.put(self.engine.pubsub.topics(Kind::Channel).len()),
            "pubsub_patterns" => to.put(self.engine.pubsub.topics(Kind::Pattern).len()),
            "pubsubshard_channels" => to.put(self.engine.pubsub.topics(Kind::ShardChannel).len()),
            "slave_expires_tracked_keys" => to.put(self.engine.replication.own.lock().len()),
            "latest_fork_usec"
            | "active_defrag_hits"
            | "active_defrag_misses"
            | "active_defrag_key_hits"
            | "active_defrag_key_misses"
            | "total_active_defrag_time"
            | "current_active_defrag_time" => to.put(0),
            "tracking_total_keys" => to.put(self.engine.tracking.keys()),
            "tracking_total_items" => to.put(self.engine.tracking.items()),
            "tracking_total_prefixes" => to.put(self.engine.tracking.prefixes()),
            _ => return false,
        }
        true
    }

    fn replication(&self, field: &str, to: &mut Answer<'_>) -> bool {
        let (replication, config) = (&self.engine.replication, self.config);
        let state = replication.state();
        let backlog = state.backlog.as_ref();
        match field {
            "role" => to.put(if replication.is_following() { "slave" } else { "master" }),
            "connected_slaves" => to.put(state.replicas.len()),
            "slave" => {
                for (n, replica) in state.replicas.iter().enumerate() {
                    to.row(
                        n,
                        format_args!(
                            "ip={},port={},state={},offset={},lag={},type={}",
                            replica.ip(),
                            replica.about.port,
                            replica.stage.name(),
                            replica.acked,
                            replica.lag_s(self.now_ms),
                            replica.channel()
                        ),
                    );
                }
            }
            "min_slaves_good_slaves" => {
                if config.min_replicas_to_write > 0 && config.min_replicas_max_lag > 0 {
                    to.put(state.replicas.good(config.min_replicas_max_lag.into(), self.now_ms));
                }
            }
            "master_failover_state" => to.put(state.takeover.stage.name()),
            "master_replid" => to.put(&state.history.id),
            "master_replid2" => to.put(&state.history.second),
            "master_repl_offset" => to.put(replication.offset()),
            "second_repl_offset" => match state.history.common {
                Some(common) => to.put(common + 1),
                None => to.put(-1),
            },
            "repl_backlog_active" => to.flag(backlog.is_some()),
            "repl_backlog_size" => to.put(config.repl_backlog_size),
            "repl_backlog_first_byte_offset" => to.put(backlog.map_or(0, |backlog| backlog.first() + 1)),
            "repl_backlog_histlen" => to.put(backlog.map_or(0, |backlog| backlog.len())),
            "replicas_repl_buffer_size" | "replicas_repl_buffer_peak" if !replication.is_following() => {}
            "replicas_repl_buffer_size" => to.put(state.primary.ahead_bytes),
            "replicas_repl_buffer_peak" => to.put(state.primary.ahead_peak_bytes),
            "replicas_waiting_psync" => to.put(state.replicas.waiting()),
            _ => return self.primary(field, &state.primary, to),
        }
        true
    }

    /// What a replica tells of its primary.
    fn primary(&self, field: &str, primary: &Primary, to: &mut Answer<'_>) -> bool {
        let (replication, config) = (&self.engine.replication, self.config);
        let (up, transfers) = (primary.stage() == Stage::Connected, primary.stage == Stage::Transfer);
        let seconds_since = |ms: u64| self.now_ms.saturating_sub(ms) / 1000;
        let known = field.starts_with("master_")
            || [
                "slave_read_repl_offset",
                "slave_repl_offset",
                "slave_priority",
                "slave_read_only",
                "replica_announced",
            ]
            .contains(&field);
        if !replication.is_following() {
            return known;
        }
        match field {
            "master_host" => to.put(&primary.host),
            "master_port" => to.put(primary.port),
            "master_link_status" => to.put(if up { "up" } else { "down" }),
            "master_last_io_seconds_ago" if up => to.put(seconds_since(primary.heard_ms)),
            "master_last_io_seconds_ago" => to.put(-1),
            "master_sync_in_progress" => to.flag(transfers),
            "slave_read_repl_offset" | "slave_repl_offset" if !up && !primary.resumes => to.put(1),
            "slave_read_repl_offset" => to.put(primary.read_offset.max(replication.offset())),
            "slave_repl_offset" => to.put(replication.offset()),
            "master_sync_total_bytes"
            | "master_sync_read_bytes"
            | "master_sync_left_bytes"
            | "master_sync_perc"
            | "master_sync_last_io_seconds_ago"
                if !transfers => {}
            "master_sync_total_bytes" => to.put(primary.total_bytes.unwrap_or(0)),
            "master_sync_read_bytes" => to.put(primary.read_bytes),
            "master_sync_left_bytes" => {
                let total = primary.total_bytes.unwrap_or(0);
                to.put(total.cast_signed() - primary.read_bytes.cast_signed());
            }
            "master_sync_perc" => {
                let share = primary.total_bytes.map_or(0.0, |total| primary.read_bytes as f64 / total.max(1) as f64);
                to.put(format_args!("{:.2}", share * 100.0));
            }
            "master_sync_last_io_seconds_ago" => to.put(seconds_since(primary.read_ms)),
            "master_link_down_since_seconds" if up => {}
            "master_link_down_since_seconds" if primary.down_since_ms == 0 => to.put(-1),
            "master_link_down_since_seconds" => to.put(seconds_since(primary.down_since_ms)),
            "slave_priority" => to.put(config.replica_priority),
            "slave_read_only" => to.flag(config.replica_read_only),
            "replica_announced" => to.flag(config.replica_announced),
            _ => return false,
        }
        true
    }

    /// The last sections: processor, commands, cluster, keyspace.
    fn rows(&mut self, field: &str, to: &mut Answer<'_>) -> bool {
        let stats = &self.engine.stats;
        let cpu = |time: std::time::Duration| format!("{}.{:06}", time.as_secs(), time.subsec_micros());
        let of = |whose, part: fn(CpuTime) -> std::time::Duration| cpu(part(process::cpu_time(whose)));
        match field {
            "used_cpu_sys" => to.put(of(Whose::Process, |time| time.system)),
            "used_cpu_user" => to.put(of(Whose::Process, |time| time.user)),
            "used_cpu_sys_children" => to.put(of(Whose::Children, |time| time.system)),
            "used_cpu_user_children" => to.put(of(Whose::Children, |time| time.user)),
            "used_cpu_sys_main_thread" => to.put(of(Whose::MainThread, |time| time.system)),
            "used_cpu_user_main_thread" => to.put(of(Whose::MainThread, |time| time.user)),
            "cmdstat_" | "latency_percentiles_usec_" => {
                let names = self.engine.commands.names();
                let name = |command: u16| names[usize::from(command)];
                if field == "cmdstat_" {
                    answer_commandstats(stats, name, to);
                } else {
                    answer_latencystats(stats, name, &self.config.latency_tracking_info_percentiles.0, to);
                }
            }
            "cluster_enabled" => to.flag(self.config.cluster_enabled),
            "db" => {
                for (db, counts) in self.engine.keyspace.counts(self.hold, self.now_ms) {
                    let DbCounts { keys, volatile: expires, mean_ttl_ms: avg_ttl_ms, with_volatile_fields: subexpiry } =
                        counts;
                    to.row(db, Keyspace { keys, expires, avg_ttl_ms, subexpiry });
                }
            }
            _ => return false,
        }
        true
    }
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// Tells builds apart that differ in version, features or target.
fn build_id() -> String {
    let build = [
        env!("CARGO_PKG_VERSION"),
        env::consts::ARCH,
        env::consts::OS,
        if cfg!(debug_assertions) { "debug" } else { "release" },
        if cfg!(feature = "jemalloc") { "jemalloc" } else { "libc" },
    ];
    let digest = Sha1::digest(build.join(" "));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The supervisor that is told when the server is ready; `auto` goes by the environment.
fn supervised(config: &Config) -> &'static str {
    let there = |name| env::var_os(name).is_some();
    match config.supervised {
        Supervised::Auto if there("UPSTART_JOB") => "upstart",
        Supervised::Auto if there("NOTIFY_SOCKET") => "systemd",
        Supervised::Auto => "no",
        set => set.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::Bench;

    #[test]
    fn no_field_is_left_unanswered() {
        let bench = Bench::new();
        let config = bench.engine.config.load_full();
        let mut hold = bench.engine.keyspace.hold_none();
        let mut scene = Scene::new(&bench.engine, &config, &mut hold);
        assert_eq!(info::unanswered(|field, to| scene.answer(field, to)), Vec::<&str>::new());
    }

    fn value(bench: &mut Bench, section: &str, field: &str) -> String {
        let text = bench.run(&format!("INFO {section}"));
        let found = text.split('|').find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned));
        found.unwrap_or_else(|| panic!("no {field} in {text}"))
    }

    #[test]
    fn sections_are_selected_by_name() {
        let mut bench = Bench::new();
        assert_eq!(bench.run("INFO nonsense"), "$0||");
        assert_eq!(bench.run("INFO modules CLUSTER"), "$43|# Modules||# Cluster|cluster_enabled:0||");
        let text = bench.run("INFO");
        assert!(text.contains("# Server|") && text.contains("# Keyspace|") && !text.contains("# Commandstats|"));
        assert!(bench.run("INFO everything").contains("# Commandstats|"));
    }

    #[test]
    fn the_server_tells_who_it_is_and_how_long_it_runs() {
        let mut bench = Bench::new();
        bench.clock.advance(100_000_000);
        assert_eq!(value(&mut bench, "server", "redis_version"), "7.2.4");
        assert_eq!(value(&mut bench, "server", "uptime_in_seconds"), "100000");
        assert_eq!(value(&mut bench, "server", "uptime_in_days"), "1");
        assert_eq!(value(&mut bench, "server", "tcp_port"), "6379");
        assert_eq!(value(&mut bench, "server", "listener0"), "name=tcp,bind=*,bind=-::*,port=6379");
        assert_eq!(value(&mut bench, "server", "run_id").len(), 40);
        assert_eq!(value(&mut bench, "replication", "master_replid").len(), 40);
        assert_ne!(value(&mut bench, "replication", "master_replid"), value(&mut bench, "server", "run_id"));
    }

    #[test]
    fn commands_errors_and_keys_are_counted() {
        let mut bench = Bench::new();
        ["SET a 1", "SET b 1 PX 60000", "GET a", "GET none", "INCR"].iter().for_each(|line| drop(bench.run(line)));
        assert_eq!(value(&mut bench, "keyspace", "db0"), "keys=2,expires=1,avg_ttl=60000");
        assert_eq!(value(&mut bench, "stats", "keyspace_hits"), "1");
        assert_eq!(value(&mut bench, "stats", "keyspace_misses"), "1");
        assert_eq!(value(&mut bench, "errorstats", "errorstat_ERR"), "count=1");
        assert!(value(&mut bench, "commandstats", "cmdstat_get").starts_with("calls=2,usec="));
        assert!(value(&mut bench, "latencystats", "latency_percentiles_usec_get").starts_with("p50="));
        assert_eq!(value(&mut bench, "persistence", "rdb_changes_since_last_save"), "2");
        assert_eq!(value(&mut bench, "clients", "connected_clients"), "1");
    }

    #[test]
    fn hashes_with_fields_that_expire_are_counted_where_there_are_any() {
        let mut bench = Bench::new();
        ["HSET h f 1 g 2", "HSET i f 1", "HEXPIRE h 60 FIELDS 1 f"].iter().for_each(|line| drop(bench.run(line)));
        assert_eq!(value(&mut bench, "keyspace", "db0"), "keys=2,expires=0,avg_ttl=0,subexpiry=1");
        bench.run("HPERSIST h FIELDS 1 f");
        assert_eq!(value(&mut bench, "keyspace", "db0"), "keys=2,expires=0,avg_ttl=0");
    }

    #[test]
    fn memory_is_told_in_bytes_and_for_people() {
        let mut bench = Bench::with("maxmemory 100mb\nmaxmemory-policy allkeys-lru\n");
        assert_eq!(value(&mut bench, "memory", "maxmemory"), "104857600");
        assert_eq!(value(&mut bench, "memory", "maxmemory_human"), "100.00M");
        assert_eq!(value(&mut bench, "memory", "maxmemory_policy"), "allkeys-lru");
        assert!(value(&mut bench, "memory", "used_memory_rss").parse::<u64>().unwrap() > 0);
    }

    #[test]
    fn a_pause_is_told_while_it_lasts() {
        let mut bench = Bench::new();
        assert!(!bench.run("INFO clients").contains("paused_reason"));
        bench.engine.pause.start(1_000_005_000, PauseMode::Write, 1_000_000_000);
        assert_eq!(value(&mut bench, "clients", "paused_actions"), "write");
        assert_eq!(value(&mut bench, "clients", "paused_timeout_milliseconds"), "5000");
    }
}
