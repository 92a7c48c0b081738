//! The table of directives: one row each, and everything reads it.
//!
//! A row makes the field of [`Config`], its default, and the [`Directive`] that CONFIG GET, SET and
//! REWRITE, configuration files, the command line and redis.conf.example go by. Names, defaults and
//! bounds are those of Redis 7.2; what only Valkey has, or had first, is Valkey's. Where both names of
//! a directive are known, the first is the one that Redis writes.

use super::check::{
    appenddirname, appendfilename, cluster_config_file, dbfilename, hostname, ipv4, ipv6, node_name, title_template,
};
use super::choice::{
    AclPubsubDefault, AppendFsync, EndpointType, LogFormat, LogLevel, LogTimestampFormat, MaxmemoryPolicy, OomScoreAdj,
    Permission, PropagationErrorBehavior, ReplDisklessLoad, SanitizeDumpPayload, ShutdownOptions, Supervised,
    SyslogFacility, TlsAuthClients,
};
use super::setting::{Manner, Reason, Setting, Written, anything, bytes, permissions, within};
use super::special::{
    Addresses, ClientsMemory, DataMemory, Directory, EventClasses, OomScores, OutputLimits, Percentiles,
    PrimaryAddress, SavePoints,
};

const I32: i128 = i32::MAX as i128;
const I32_MIN: i128 = i32::MIN as i128;
const U32: i128 = u32::MAX as i128;
const I64: i128 = i64::MAX as i128;
const U64: i128 = u64::MAX as i128;

/// Why `activedefrag` cannot be switched on: what a Redis says that was built without it.
const NO_DEFRAGMENTATION: &str = "Active defragmentation cannot be enabled: it requires a Redis server compiled with \
    a modified Jemalloc like the one shipped by default with the Redis source distribution";

/// A directive that has a value: one row of the table.
pub struct Directive {
    /// The name that CONFIG REWRITE writes; lower case.
    pub name: &'static str,
    /// Other names of the same value.
    pub aliases: &'static [&'static str],
    /// The part of redis.conf.example that it stands in.
    pub section: Section,
    /// Whether it does anything yet.
    pub state: State,
    /// Who may see and change it, and when.
    pub flags: Flags,
    /// Whether its value is made of any number of words.
    pub many: bool,
    doc: &'static str,
    assign: Assign,
    text: fn(&Config) -> Vec<u8>,
    written: fn(&Config, &Config, &str) -> Written,
    same: fn(&Config, &Config) -> bool,
    accepts: fn() -> String,
}

type Assign = fn(&mut Config, &[Vec<u8>], Manner) -> Result<(), Reason>;

/// What is special about a directive. Most have none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Only files and the command line set it.
    pub immutable: bool,
    /// No pattern finds it, only its full name.
    pub hidden: bool,
    /// CONFIG SET needs the leave of `enable-protected-configs`.
    pub protected: bool,
    /// Its value does not appear in logs.
    pub sensitive: bool,
    /// CONFIG SET is refused while data is being loaded.
    pub deny_loading: bool,
    /// Setting it to the same value again means something: the file behind it may have changed.
    pub volatile: bool,
}

impl Flags {
    const NONE: Flags = Flags {
        immutable: false,
        hidden: false,
        protected: false,
        sensitive: false,
        deny_loading: false,
        volatile: false,
    };
}

/// Whether a directive does anything yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It works.
    Effective,
    /// It is kept and reported, until the server has the capability of this name.
    Stored(&'static str),
    /// It is kept and reported, and there is nothing for it to do: why.
    Moot(&'static str),
}

use State::{Effective, Moot, Stored};

/// A part of redis.conf.example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the section of its title")]
pub enum Section {
    Includes,
    Modules,
    Network,
    Tls,
    General,
    Snapshotting,
    Replication,
    KeysTracking,
    Security,
    Clients,
    Memory,
    LazyFreeing,
    Threads,
    OutOfMemory,
    AppendOnly,
    Shutdown,
    LongCommands,
    Cluster,
    ClusterNat,
    SlowLog,
    Latency,
    Events,
    Encodings,
    Defragmentation,
    Testing,
}

impl Section {
    /// All of them, in the order of the file.
    pub const ALL: [Section; 25] = [
        Section::Includes,
        Section::Modules,
        Section::Network,
        Section::Tls,
        Section::General,
        Section::Snapshotting,
        Section::Replication,
        Section::KeysTracking,
        Section::Security,
        Section::Clients,
        Section::Memory,
        Section::LazyFreeing,
        Section::Threads,
        Section::OutOfMemory,
        Section::AppendOnly,
        Section::Shutdown,
        Section::LongCommands,
        Section::Cluster,
        Section::ClusterNat,
        Section::SlowLog,
        Section::Latency,
        Section::Events,
        Section::Encodings,
        Section::Defragmentation,
        Section::Testing,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Section::Includes => "INCLUDES",
            Section::Modules => "MODULES",
            Section::Network => "NETWORK",
            Section::Tls => "TLS",
            Section::General => "GENERAL",
            Section::Snapshotting => "SNAPSHOTTING",
            Section::Replication => "REPLICATION",
            Section::KeysTracking => "KEYS TRACKING",
            Section::Security => "SECURITY",
            Section::Clients => "CLIENTS",
            Section::Memory => "MEMORY MANAGEMENT",
            Section::LazyFreeing => "LAZY FREEING",
            Section::Threads => "THREADS",
            Section::OutOfMemory => "OUT OF MEMORY AND HUGE PAGES",
            Section::AppendOnly => "APPEND ONLY MODE",
            Section::Shutdown => "SHUTDOWN",
            Section::LongCommands => "LONG-RUNNING SCRIPTS",
            Section::Cluster => "CLUSTER",
            Section::ClusterNat => "CLUSTER BEHIND ADDRESS TRANSLATION",
            Section::SlowLog => "SLOW LOG",
            Section::Latency => "LATENCY",
            Section::Events => "EVENT NOTIFICATION",
            Section::Encodings => "ENCODINGS AND PERIODIC WORK",
            Section::Defragmentation => "ACTIVE DEFRAGMENTATION",
            Section::Testing => "TESTING",
        }
    }
}

macro_rules! directives {
    ($($section:ident { $(
        $(#[doc = $doc:literal])+
        $field:ident($name:literal $(| $alias:literal)*): $type:ty = $default:expr, $rule:expr, [$($flag:ident),*], $state:expr;
    )+ })+) => {
        /// The value of every directive, typed.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $($($(#[doc = $doc])+ pub $field: $type,)+)+
            /// What `rename-command`, `user` and `loadmodule` lines say, in their order; see [`FileLine`].
            pub lines: Vec<FileLine>,
            /// Which server this one is taken for.
            pub original: Original,
        }

        impl Default for Config {
            fn default() -> Self {
                Config { $($($field: $default,)+)+ lines: Vec::new(), original: Original::Redis }
            }
        }

        static DIRECTIVES: &[Directive] = &[$($(
            Directive {
                name: $name,
                aliases: &[$($alias),*],
                section: Section::$section,
                state: $state,
                flags: Flags { $($flag: true,)* ..Flags::NONE },
                many: <$type as Setting>::MANY,
                doc: concat!($($doc),+),
                assign: |config, words, manner| config.$field.assign(words, $rule, manner),
                text: |config| config.$field.text($rule),
                written: |config, default, name| config.$field.written(&default.$field, $rule, name),
                same: |one, other| one.$field == other.$field,
                accepts: || <$type as Setting>::accepts($rule),
            },
        )+)+];
    };
}

directives! {
    Network {
        /// The addresses to listen on, separated by blanks. `*` is every IPv4 address, `::*` every IPv6 address. A
        /// `-` in front means that the server starts even if the machine has no such address. An empty value
        /// listens on no TCP port at all.
        bind("bind"): Addresses = Addresses::default(), (), [], Effective;
        /// The local address that outgoing connections, to a primary or to cluster nodes, come from. Chosen by the
        /// system unless given.
        bind_source_addr("bind-source-addr"): Option<Vec<u8>> = None, anything, [], Effective;
        /// Refuses clients from other machines as long as the default user has no password. A server that anyone
        /// can reach is found by attackers within minutes: leave this on unless the network is closed.
        protected_mode("protected-mode"): bool = true, None, [], Effective;
        /// The TCP port that clients connect to. With 0 no TCP port is opened.
        port("port"): u16 = 6379, within(0, 65535), [], Effective;
        /// How many connections may wait to be accepted. The system cuts it to `net.core.somaxconn`.
        tcp_backlog("tcp-backlog"): u32 = 511, within(0, I32), [immutable], Effective;
        /// The path of a Unix socket to listen on beside the TCP port. There is none unless given.
        unixsocket("unixsocket"): Option<Vec<u8>> = None, anything, [immutable], Effective;
        /// The group that owns the Unix socket.
        unixsocketgroup("unixsocketgroup"): Option<Vec<u8>> = None, anything, [], Effective;
        /// The permissions of the Unix socket, in octal. 0 leaves them to the umask.
        unixsocketperm("unixsocketperm"): u32 = 0, permissions(), [immutable], Effective;
        /// Disconnects clients that were idle for so many seconds. 0 never does.
        timeout("timeout"): u32 = 0, within(0, I32), [], Effective;
        /// Seconds after which the system asks a silent peer whether it is still there, so that dead ones are
        /// noticed and firewalls keep the connection open. 0 never asks.
        tcp_keepalive("tcp-keepalive"): u32 = 300, within(0, I32), [], Effective;
        /// The mark that listening sockets carry, for routing and packet filters (`SO_MARK` on Linux). 0 sets none.
        socket_mark_id("socket-mark-id"): u32 = 0, within(0, U32), [immutable], Effective;
        /// How many new connections are accepted before those that exist are served again.
        max_new_connections_per_cycle("max-new-connections-per-cycle"): u32 = 10, within(1, 1000), [], Moot("connections are accepted by a thread of their own");
        /// The same for TLS connections, which cost more to accept.
        max_new_tls_connections_per_cycle("max-new-tls-connections-per-cycle"): u32 = 1, within(1, 1000), [], Moot("connections are accepted by a thread of their own");
    }
    Tls {
        /// The port for TLS connections. With 0 there is none; with `port 0` beside it there is nothing else.
        tls_port("tls-port"): u16 = 0, within(0, 65535), [], Effective;
        /// The certificate that the server shows, PEM.
        tls_cert_file("tls-cert-file"): Option<Vec<u8>> = None, anything, [volatile], Effective;
        /// The private key of the certificate, PEM.
        tls_key_file("tls-key-file"): Option<Vec<u8>> = None, anything, [volatile], Effective;
        /// The pass phrase of the private key, if it is encrypted.
        tls_key_file_pass("tls-key-file-pass"): Option<Vec<u8>> = None, anything, [sensitive], Effective;
        /// The certificate for connections that the server opens itself, to a primary or to cluster nodes. That of
        /// the server unless given.
        tls_client_cert_file("tls-client-cert-file"): Option<Vec<u8>> = None, anything, [volatile], Effective;
        /// The private key of the client certificate.
        tls_client_key_file("tls-client-key-file"): Option<Vec<u8>> = None, anything, [volatile], Effective;
        /// The pass phrase of the client key, if it is encrypted.
        tls_client_key_file_pass("tls-client-key-file-pass"): Option<Vec<u8>> = None, anything, [sensitive], Effective;
        /// Parameters for Diffie-Hellman key exchange, needed by old versions of OpenSSL only.
        tls_dh_params_file("tls-dh-params-file"): Option<Vec<u8>> = None, anything, [volatile], Moot("keys are exchanged by elliptic curves");
        /// The authorities that peers' certificates are checked against, one PEM file.
        tls_ca_cert_file("tls-ca-cert-file"): Option<Vec<u8>> = None, anything, [volatile], Effective;
        /// The same as a directory: every certificate in it.
        tls_ca_cert_dir("tls-ca-cert-dir"): Option<Vec<u8>> = None, anything, [volatile], Effective;
        /// Whether clients must show a valid certificate (`yes`), may (`optional`), or are not asked (`no`).
        tls_auth_clients("tls-auth-clients"): TlsAuthClients = TlsAuthClients::Yes, (), [], Effective;
        /// Whether the link to the primary uses TLS.
        tls_replication("tls-replication"): bool = false, None, [], Effective;
        /// Whether the cluster bus uses TLS.
        tls_cluster("tls-cluster"): bool = false, None, [], Effective;
        /// The TLS versions that are spoken: "TLSv1.2 TLSv1.3", which is also what is spoken unless given. Older ones are
        /// not.
        tls_protocols("tls-protocols"): Option<Vec<u8>> = None, anything, [], Effective;
        /// The ciphers of TLS 1.2 by their names in OpenSSL, with colons between: those of ECDHE with AES-GCM and
        /// CHACHA20-POLY1305, which are all that there are. Words such as DEFAULT or HIGH stand for all of them.
        tls_ciphers("tls-ciphers"): Option<Vec<u8>> = None, anything, [], Effective;
        /// The cipher suites of TLS 1.3, with colons between: TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256 and
        /// TLS_CHACHA20_POLY1305_SHA256.
        tls_ciphersuites("tls-ciphersuites"): Option<Vec<u8>> = None, anything, [], Effective;
        /// Whether the server's order of ciphers counts instead of the client's.
        tls_prefer_server_ciphers("tls-prefer-server-ciphers"): bool = false, None, [], Effective;
        /// Whether clients may take up an earlier session, which is cheaper than a new one.
        tls_session_caching("tls-session-caching"): bool = true, None, [], Effective;
        /// How many sessions are remembered. 0 is no limit.
        tls_session_cache_size("tls-session-cache-size"): u32 = 20 * 1024, within(0, I32), [], Effective;
        /// For how many seconds a session is remembered.
        tls_session_cache_timeout("tls-session-cache-timeout"): u32 = 300, within(0, I32), [], Effective;
    }
    General {
        /// Whether the server detaches from the terminal and runs in the background.
        daemonize("daemonize"): bool = false, None, [immutable], Effective;
        /// The supervisor to tell that the server is ready: `upstart`, `systemd`, `auto` (found out from the
        /// environment), or `no`.
        supervised("supervised"): Supervised = Supervised::No, (), [immutable], Effective;
        /// The file that the process id is written to, and that is removed at exit. In the background it is
        /// /var/run/redis.pid unless given. If it cannot be written, the server runs all the same.
        pidfile("pidfile"): Option<Vec<u8>> = None, anything, [immutable], Effective;
        /// How much is logged: `debug`, `verbose`, `notice`, `warning` or `nothing`.
        loglevel("loglevel"): LogLevel = LogLevel::Notice, (), [], Effective;
        /// The file to log to. An empty value logs to standard output, which in the background goes nowhere.
        logfile("logfile"): Vec<u8> = Vec::new(), anything, [immutable], Effective;
        /// The layout of a log line: `legacy` is Redis' own, `logfmt` is key=value pairs.
        log_format("log-format"): LogFormat = LogFormat::Legacy, (), [], Effective;
        /// How a log line tells the time: `legacy`, `iso8601` with time zone, or `milliseconds` since 1970.
        log_timestamp_format("log-timestamp-format"): LogTimestampFormat = LogTimestampFormat::Legacy, (), [], Effective;
        /// Whether to log to the system log too.
        syslog_enabled("syslog-enabled"): bool = false, None, [immutable], Effective;
        /// The name in the system log.
        syslog_ident("syslog-ident"): Vec<u8> = text("redis"), anything, [immutable], Effective;
        /// The facility in the system log: `user` or `local0` to `local7`.
        syslog_facility("syslog-facility"): SyslogFacility = SyslogFacility::Local0, (), [immutable], Effective;
        /// Whether a crash writes a report to the log.
        crash_log_enabled("crash-log-enabled"): bool = true, None, [], Effective;
        /// Whether a crash tests the memory. It can be slow, and it changes nothing about the crash.
        crash_memcheck_enabled("crash-memcheck-enabled"): bool = true, None, [], Moot("a program that has crashed is no judge of the memory it runs in");
        /// Keeps keys, values and arguments of users out of the log, crash reports included.
        hide_user_data_from_log("hide-user-data-from-log"): bool = true, None, [], Effective;
        /// The number of databases, numbered from 0. In a cluster there is one.
        databases("databases"): u32 = 16, within(1, I32), [immutable], Effective;
        /// Whether the start banner is shown even if standard output is no terminal.
        always_show_logo("always-show-logo"): bool = false, None, [immutable], Effective;
        /// Whether the process shows under a title of its own in `ps` and `top`.
        set_proc_title("set-proc-title"): bool = true, None, [immutable], Effective;
        /// The title of the process. Known are {title}, {listen-addr}, {server-mode}, {port}, {tls-port},
        /// {unixsocket} and {config-file}.
        proc_title_template("proc-title-template"): Vec<u8> = text("{title} {listen-addr} {server-mode}"), title_template, [], Effective;
        /// The locale by which SORT ALPHA compares. Empty takes it from the environment.
        locale_collate("locale-collate"): Vec<u8> = Vec::new(), anything, [], Moot("SORT compares as in the C locale");
        /// Accepted for files that were written for Valkey. Spinel always presents itself as Redis.
        extended_redis_compatibility("extended-redis-compatibility"): bool = false, None, [], Moot("clients always meet Redis");
        /// Names of start-up warnings to leave out.
        ignore_warnings("ignore-warnings"): Vec<u8> = Vec::new(), anything, [], Moot("there is no warning that stops the server");
    }
    Snapshotting {
        /// Saves a snapshot after so many seconds if at least so many changes were made; any number of pairs. An
        /// empty value never saves. Several lines add up.
        save("save"): SavePoints = SavePoints::default(), (), [], Effective;
        /// Whether writes are refused while the last snapshot could not be saved, so that somebody notices.
        stop_writes_on_bgsave_error("stop-writes-on-bgsave-error"): bool = true, None, [], Effective;
        /// Whether strings in snapshots are compressed.
        rdbcompression("rdbcompression"): bool = true, None, [], Effective;
        /// Whether snapshots end in a checksum that is verified on loading.
        rdbchecksum("rdbchecksum"): bool = true, None, [immutable], Effective;
        /// Whether values in snapshots and RESTORE are checked in depth: `no`, `yes`, or `clients` for all but the
        /// primary's. Spinel never trusts them with memory, whatever is set.
        sanitize_dump_payload("sanitize-dump-payload"): SanitizeDumpPayload = SanitizeDumpPayload::No, (), [], Moot("every payload is checked in depth");
        /// The name of the snapshot in `dir`.
        dbfilename("dbfilename"): Vec<u8> = text("dump.rdb"), dbfilename, [protected], Effective;
        /// Whether snapshots made for replication only are deleted afterwards, if neither snapshots nor the append
        /// only file are on.
        rdb_del_sync_files("rdb-del-sync-files"): bool = false, None, [], Effective;
        /// Whether a snapshot is synced to disk every few megabytes while it is written, to avoid one long stall at
        /// the end.
        rdb_save_incremental_fsync("rdb-save-incremental-fsync"): bool = true, None, [], Effective;
        /// The working directory: snapshot, append only files and cluster state are kept here. A name of a file
        /// cannot be given.
        dir("dir"): Directory = Directory(text("./")), (), [protected, deny_loading], Effective;
    }
    Replication {
        /// Makes this server a copy of the one at host and port. REPLICAOF changes it at run time.
        replicaof("replicaof" | "slaveof"): Option<PrimaryAddress> = None, (), [immutable], Effective;
        /// The password to log in to the primary with.
        masterauth("masterauth" | "primaryauth"): Option<Vec<u8>> = None, anything, [sensitive], Effective;
        /// The user to log in to the primary as. Without one the password alone is sent.
        masteruser("masteruser" | "primaryuser"): Option<Vec<u8>> = None, anything, [sensitive], Effective;
        /// Whether a replica answers from what it has while it is cut off or synchronising. Otherwise it answers
        /// -MASTERDOWN.
        replica_serve_stale_data("replica-serve-stale-data" | "slave-serve-stale-data"): bool = true, None, [], Effective;
        /// Whether clients may not write to a replica.
        replica_read_only("replica-read-only" | "slave-read-only"): bool = true, None, [], Effective;
        /// Whether a full synchronisation goes straight to the replicas' sockets instead of through a file.
        repl_diskless_sync("repl-diskless-sync"): bool = true, None, [], Effective;
        /// Seconds to wait for further replicas before a transfer without a file starts, because late ones must
        /// wait for the next.
        repl_diskless_sync_delay("repl-diskless-sync-delay"): u32 = 5, within(0, I32), [], Effective;
        /// The number of waiting replicas that ends the delay early. 0 always waits.
        repl_diskless_sync_max_replicas("repl-diskless-sync-max-replicas"): u32 = 0, within(0, I32), [], Effective;
        /// How a replica takes a full synchronisation: into a file first (`disabled`), straight into memory if it
        /// is empty (`on-empty-db`), beside the old data (`swapdb`), or in place of it (`flush-before-load`).
        repl_diskless_load("repl-diskless-load"): ReplDisklessLoad = ReplDisklessLoad::Disabled, (), [deny_loading], Effective;
        /// Whether a full synchronisation without a file has a connection of its own, where both sides have this set:
        /// the stream goes to the replica meanwhile, which keeps it, instead of the primary.
        dual_channel_replication_enabled("dual-channel-replication-enabled"): bool = false, None, [], Effective;
        /// Seconds between the pings that a primary sends to its replicas.
        repl_ping_replica_period("repl-ping-replica-period" | "repl-ping-slave-period"): u32 = 10, within(1, I32), [], Effective;
        /// Seconds of silence after which a replication link is given up. Keep it well above
        /// repl-ping-replica-period.
        repl_timeout("repl-timeout"): u32 = 60, within(1, I32), [], Effective;
        /// Whether the stream to replicas is sent in fewer, larger packets, which saves bandwidth and costs up to
        /// 40 ms.
        repl_disable_tcp_nodelay("repl-disable-tcp-nodelay"): bool = false, None, [], Effective;
        /// How much of the stream is kept, so that a replica that was cut off can go on where it stopped.
        repl_backlog_size("repl-backlog-size"): u64 = 1 << 20, bytes(1, I64), [], Effective;
        /// Seconds after the last replica has left until the backlog is dropped. 0 keeps it for ever.
        repl_backlog_ttl("repl-backlog-ttl"): u64 = 3600, within(0, I64), [], Effective;
        /// The replica with the lowest priority is promoted first by Sentinel. One with 0 never is.
        replica_priority("replica-priority" | "slave-priority"): u32 = 100, within(0, I32), [], Effective;
        /// Whether Sentinel tells clients about this replica.
        replica_announced("replica-announced"): bool = true, None, [], Effective;
        /// Writes are refused with fewer good replicas than this. 0 switches it off.
        min_replicas_to_write("min-replicas-to-write" | "min-slaves-to-write"): u32 = 0, within(0, I32), [], Effective;
        /// A replica is good if it was heard of within so many seconds. 0 switches it off.
        min_replicas_max_lag("min-replicas-max-lag" | "min-slaves-max-lag"): u32 = 10, within(0, I32), [], Effective;
        /// The address that a replica reports to its primary, where the one that the primary sees is wrong.
        replica_announce_ip("replica-announce-ip" | "slave-announce-ip"): Option<Vec<u8>> = None, anything, [], Effective;
        /// The port that a replica reports to its primary. 0 reports its own.
        replica_announce_port("replica-announce-port" | "slave-announce-port"): u16 = 0, within(0, 65535), [], Effective;
        /// Whether a replica goes on when it cannot write its own files, instead of stopping.
        replica_ignore_disk_write_errors("replica-ignore-disk-write-errors"): bool = false, None, [], Effective;
        /// What to do when a command from the primary or the append only file fails: `ignore`, `panic`, or
        /// `panic-on-replicas`.
        propagation_error_behavior("propagation-error-behavior"): PropagationErrorBehavior = PropagationErrorBehavior::Ignore, (), [], Effective;
        /// The zone that this server stands in, for clients that prefer a near one. Shown by INFO and HELLO.
        availability_zone("availability-zone"): Vec<u8> = Vec::new(), anything, [], Effective;
    }
    KeysTracking {
        /// How many keys are remembered for clients with tracking. Beyond it keys are invalidated to make room. 0
        /// is no limit.
        tracking_table_max_keys("tracking-table-max-keys"): u64 = 1_000_000, within(0, I64), [], Effective;
    }
    Security {
        /// How many denied accesses ACL LOG remembers.
        acllog_max_len("acllog-max-len"): u64 = 128, within(0, I64), [], Effective;
        /// A file of users, one to a line. Users are either there or in this file, never in both.
        aclfile("aclfile"): Vec<u8> = Vec::new(), anything, [immutable], Effective;
        /// The password of the default user.
        requirepass("requirepass"): Option<Vec<u8>> = None, anything, [sensitive], Effective;
        /// The channels of a new user: all of them (`allchannels`) or none (`resetchannels`).
        acl_pubsub_default("acl-pubsub-default"): AclPubsubDefault = AclPubsubDefault::ResetChannels, (), [], Effective;
        /// Who may change directives that say where files are written, `dir` and `dbfilename`: nobody (`no`),
        /// anybody (`yes`), or clients on this machine (`local`).
        enable_protected_configs("enable-protected-configs"): Permission = Permission::No, (), [immutable], Effective;
        /// Who may use DEBUG: `no`, `yes` or `local`.
        enable_debug_command("enable-debug-command"): Permission = Permission::No, (), [immutable], Effective;
        /// Who may use MODULE: `no`, `yes` or `local`.
        enable_module_command("enable-module-command"): Permission = Permission::No, (), [immutable], Effective;
    }
    Clients {
        /// How many clients may be connected at once, cluster links included. It is lowered at start if the system
        /// allows fewer open files.
        maxclients("maxclients"): u32 = 10_000, within(1, U32), [], Effective;
        /// Disconnects clients that do not read what they asked for: at the hard limit at once, at the soft limit
        /// after so many seconds. The classes are normal, replica and pubsub; 0 is no limit.
        client_output_buffer_limit("client-output-buffer-limit"): OutputLimits = OutputLimits::default(), (), [], Effective;
        /// The most that one client's unfinished request may take.
        client_query_buffer_limit("client-query-buffer-limit"): u64 = 1 << 30, bytes(1 << 20, I64), [], Effective;
        /// The most that all clients together may take, as memory or as a percentage of maxmemory. Beyond it the
        /// largest are disconnected. 0 is no limit.
        maxmemory_clients("maxmemory-clients"): ClientsMemory = ClientsMemory::Bytes(0), (), [], Effective;
        /// The longest single argument of a request.
        proto_max_bulk_len("proto-max-bulk-len"): u64 = 512 << 20, bytes(1 << 20, I64), [], Effective;
    }
    Memory {
        /// The most memory that data may take: an amount, or a share like `60%` of what the machine or the control
        /// group has. At the limit keys are removed as maxmemory-policy says, or writes
        /// are refused. 0 is no limit.
        maxmemory("maxmemory"): DataMemory = DataMemory::Bytes(0), (), [], Effective;
        /// Which keys make room: the least recently (lru) or least frequently (lfu) used, the least recently modified
        /// (lrm), random ones, or the next to expire (ttl), among those that can expire (volatile) or all (allkeys).
        /// `noeviction` refuses writes instead.
        maxmemory_policy("maxmemory-policy"): MaxmemoryPolicy = MaxmemoryPolicy::NoEviction, (), [], Effective;
        /// How many keys are looked at to find one to remove. More come closer to true LRU and cost more time.
        maxmemory_samples("maxmemory-samples"): u32 = 5, within(1, I32), [], Effective;
        /// How hard eviction works when it cannot keep up: 0 prefers latency, 100 works until it is done.
        maxmemory_eviction_tenacity("maxmemory-eviction-tenacity"): u32 = 10, within(0, 100), [], Effective;
        /// Whether a replica leaves eviction to its primary, so that both hold the same keys.
        replica_ignore_maxmemory("replica-ignore-maxmemory" | "slave-ignore-maxmemory"): bool = true, None, [], Effective;
        /// How much time goes into removing expired keys, from 1 to 10. Spinel removes them when they are due, at
        /// any setting.
        active_expire_effort("active-expire-effort"): u32 = 1, within(1, 10), [], Moot("keys are removed at their deadline whatever their share");
        /// How many accesses it takes for the LFU counter to saturate: the higher, the more.
        lfu_log_factor("lfu-log-factor"): u32 = 10, within(0, I32), [], Effective;
        /// Minutes after which an LFU counter is lowered by one. 0 never lowers it.
        lfu_decay_time("lfu-decay-time"): u32 = 1, within(0, I32), [], Effective;
    }
    LazyFreeing {
        /// Whether evicted values are freed in the background. Spinel frees large values in the background in every
        /// case; with `yes` replicas and files are told of UNLINK, with `no` of DEL.
        lazyfree_lazy_eviction("lazyfree-lazy-eviction"): bool = false, None, [], Effective;
        /// The same for values that have expired.
        lazyfree_lazy_expire("lazyfree-lazy-expire"): bool = false, None, [], Effective;
        /// The same for values that a command such as RENAME replaces.
        lazyfree_lazy_server_del("lazyfree-lazy-server-del"): bool = false, None, [], Effective;
        /// Whether DEL does what UNLINK does.
        lazyfree_lazy_user_del("lazyfree-lazy-user-del"): bool = false, None, [], Moot("large values are always freed off the data path");
        /// Whether FLUSHDB, FLUSHALL, SCRIPT FLUSH and FUNCTION FLUSH without SYNC or ASYNC are asynchronous.
        lazyfree_lazy_user_flush("lazyfree-lazy-user-flush"): bool = false, None, [], Effective;
        /// Whether a replica drops its old data in the background before a full synchronisation.
        replica_lazy_flush("replica-lazy-flush" | "slave-lazy-flush"): bool = false, None, [], Moot("what is flushed is always freed by a thread of its own");
    }
    Threads {
        /// The number of worker threads. Every worker reads requests, runs commands and writes replies for its
        /// share of the connections. The default is the number of cores.
        io_threads("io-threads"): u32 = default_io_threads(), within(1, 128), [immutable], Effective;
        /// Accepted for files that were written for Redis. Workers always read.
        io_threads_do_reads("io-threads-do-reads"): bool = false, None, [], Moot("a worker reads, runs and writes for its connections");
        /// Accepted for files that were written for Valkey.
        events_per_io_thread("events-per-io-thread"): u32 = 2, within(0, I32), [], Moot("a worker reads, runs and writes for its connections");
        /// How many keys of a pipeline are prefetched together. 0 and 1 switch it off.
        prefetch_batch_max_size("prefetch-batch-max-size"): u32 = 16, within(0, 128), [], Moot("batches are cut by the number of workers");
        /// The cores that the program runs on, such as 0-3,7 or 0-7:2. All unless given.
        server_cpulist("server_cpulist" | "server-cpulist"): Option<Vec<u8>> = None, anything, [immutable], Effective;
        /// The cores that the thread of the append only file runs on, instead of those.
        bio_cpulist("bio_cpulist" | "bio-cpulist"): Option<Vec<u8>> = None, anything, [immutable], Effective;
        /// The cores that rewriting the append only file runs on.
        aof_rewrite_cpulist("aof_rewrite_cpulist" | "aof-rewrite-cpulist"): Option<Vec<u8>> = None, anything, [immutable], Effective;
        /// The cores that saving snapshots runs on.
        bgsave_cpulist("bgsave_cpulist" | "bgsave-cpulist"): Option<Vec<u8>> = None, anything, [immutable], Effective;
    }
    OutOfMemory {
        /// Whether the system is told which process to kill first when memory runs out: `no`, `yes` (relative to
        /// the value at start), or `absolute`. Linux only.
        oom_score_adj("oom-score-adj"): OomScoreAdj = OomScoreAdj::No, (), [], Effective;
        /// The scores of a primary, a replica and background work, -2000 to 2000. The highest is killed first.
        oom_score_adj_values("oom-score-adj-values"): OomScores = OomScores::default(), (), [], Effective;
        /// Whether transparent huge pages are switched off for this process, because they make copying memory slow.
        disable_thp("disable-thp"): bool = true, None, [immutable], Moot("there is no fork that huge pages would make dear");
    }
    AppendOnly {
        /// Whether every write is logged to the append only file, which loses less in a crash than snapshots do.
        appendonly("appendonly"): bool = false, None, [deny_loading], Effective;
        /// What the names of the append only files begin with.
        appendfilename("appendfilename"): Vec<u8> = text("appendonly.aof"), appendfilename, [immutable], Effective;
        /// The directory in `dir` that holds them.
        appenddirname("appenddirname"): Vec<u8> = text("appendonlydir"), appenddirname, [immutable], Effective;
        /// When the append only file is synced to disk: before every reply (`always`), once a second (`everysec`),
        /// or when the system likes (`no`).
        appendfsync("appendfsync"): AppendFsync = AppendFsync::EverySec, (), [], Effective;
        /// Whether syncing pauses while a snapshot or a rewrite is busy with the disk.
        no_appendfsync_on_rewrite("no-appendfsync-on-rewrite"): bool = false, None, [], Effective;
        /// Rewrites the append only file when it has grown by so many percent since the last time. 0 never does.
        auto_aof_rewrite_percentage("auto-aof-rewrite-percentage"): u32 = 100, within(0, I32), [], Effective;
        /// The size below which it is not rewritten by itself.
        auto_aof_rewrite_min_size("auto-aof-rewrite-min-size"): u64 = 64 << 20, bytes(0, I64), [], Effective;
        /// Whether the server starts, and says so, when the append only file ends in the middle of a command, as it
        /// does after a crash.
        aof_load_truncated("aof-load-truncated"): bool = true, None, [], Effective;
        /// Whether a rewritten file begins with a snapshot, which is smaller and loads faster than commands.
        aof_use_rdb_preamble("aof-use-rdb-preamble"): bool = true, None, [], Effective;
        /// Whether the time is noted in the append only file, so that it can be restored to a point in time. Old
        /// parsers do not understand it.
        aof_timestamp_enabled("aof-timestamp-enabled"): bool = false, None, [], Effective;
        /// Whether a rewrite syncs to disk every few megabytes, to avoid one long stall at the end.
        aof_rewrite_incremental_fsync("aof-rewrite-incremental-fsync"): bool = true, None, [], Effective;
    }
    Shutdown {
        /// Seconds that shutting down waits for replicas that lag behind. 0 does not wait.
        shutdown_timeout("shutdown-timeout"): u32 = 10, within(0, I32), [], Effective;
        /// What SIGINT does: `default` saves if save points are configured; or any of `save`, `nosave`, `now` (no
        /// waiting for replicas) and `force` (exit even if saving fails).
        shutdown_on_sigint("shutdown-on-sigint"): ShutdownOptions = ShutdownOptions::default(), (), [], Effective;
        /// The same for SIGTERM.
        shutdown_on_sigterm("shutdown-on-sigterm"): ShutdownOptions = ShutdownOptions::default(), (), [], Effective;
    }
    LongCommands {
        /// Milliseconds after which a running script makes others be answered -BUSY, and may be killed. 0 never
        /// does.
        busy_reply_threshold("busy-reply-threshold" | "lua-time-limit"): u64 = 5000, within(0, I64), [], Effective;
    }
    Cluster {
        /// Whether this server is a node of a cluster.
        cluster_enabled("cluster-enabled"): bool = false, None, [immutable], Effective;
        /// Where a node keeps what it knows of the cluster. It is not edited by hand, and two nodes never share
        /// one.
        cluster_config_file("cluster-config-file"): Vec<u8> = text("nodes.conf"), cluster_config_file, [immutable], Effective;
        /// Milliseconds of silence after which a node is thought to have failed.
        cluster_node_timeout("cluster-node-timeout"): u64 = 15000, within(0, I64), [], Effective;
        /// The port of the cluster bus. 0 is `port` plus 10000.
        cluster_port("cluster-port"): u16 = 0, within(0, 65535), [immutable], Effective;
        /// A replica that was cut off for longer than this many node timeouts does not take over from its primary.
        /// With 0 it always tries.
        cluster_replica_validity_factor("cluster-replica-validity-factor" | "cluster-slave-validity-factor"): u32 = 10, within(0, I32), [], Effective;
        /// A primary lends a replica to one without only if so many are left.
        cluster_migration_barrier("cluster-migration-barrier"): u32 = 1, within(0, I32), [], Effective;
        /// Whether replicas move to primaries that have none.
        cluster_allow_replica_migration("cluster-allow-replica-migration"): bool = true, None, [], Effective;
        /// Whether a cluster with unserved slots refuses all requests.
        cluster_require_full_coverage("cluster-require-full-coverage"): bool = true, None, [], Effective;
        /// Whether this replica never takes over by itself.
        cluster_replica_no_failover("cluster-replica-no-failover" | "cluster-slave-no-failover"): bool = false, None, [], Effective;
        /// Whether reads are served while the cluster is down.
        cluster_allow_reads_when_down("cluster-allow-reads-when-down"): bool = false, None, [], Effective;
        /// Whether shard channels work while the cluster is down.
        cluster_allow_pubsubshard_when_down("cluster-allow-pubsubshard-when-down"): bool = true, None, [], Effective;
        /// The most that may wait to be sent to one node. Beyond it the link is dropped. 0 is no limit.
        cluster_link_sendbuf_limit("cluster-link-sendbuf-limit"): u64 = 0, bytes(0, U64), [], Effective;
        /// The host name that clients are told.
        cluster_announce_hostname("cluster-announce-hostname"): Option<Vec<u8>> = None, hostname, [], Effective;
        /// A name for people, shown in logs beside the node id.
        cluster_announce_human_nodename("cluster-announce-human-nodename"): Option<Vec<u8>> = None, node_name, [], Effective;
        /// What clients are told to connect to: the `ip`, the `hostname`, or `unknown-endpoint`, which means the
        /// address that they used.
        cluster_preferred_endpoint_type("cluster-preferred-endpoint-type"): EndpointType = EndpointType::Ip, (), [], Effective;
        /// Seconds that a forgotten node is not let back in.
        cluster_blacklist_ttl("cluster-blacklist-ttl"): u64 = 60, within(0, U64), [], Effective;
        /// Whether CPU time and traffic are counted for every slot.
        cluster_slot_stats_enabled("cluster-slot-stats-enabled"): bool = false, None, [], Effective;
        /// Slots that move as a whole are handed over once no more than this has yet to be sent. Writes to them are held
        /// back meanwhile.
        cluster_slot_migration_handoff_max_lag_bytes("cluster-slot-migration-handoff-max-lag-bytes"): u64 = 1 << 20, bytes(0, I64), [], Effective;
        /// The most milliseconds that writes to slots are held back while they are handed over.
        cluster_slot_migration_write_pause_timeout("cluster-slot-migration-write-pause-timeout"): u64 = 10_000, within(0, I32), [], Effective;
        /// How many ended moves of slots are remembered.
        cluster_slot_migration_log_max_len("cluster-slot-migration-log-max-len"): u64 = 1000, within(0, I64), [], Effective;
    }
    ClusterNat {
        /// The address that other nodes are told, where the one that they see is wrong: behind address translation,
        /// in containers.
        cluster_announce_ip("cluster-announce-ip"): Option<Vec<u8>> = None, anything, [], Effective;
        /// The IPv4 address that clients who are connected by IPv4 are told, where it differs from that of the bus.
        cluster_announce_client_ipv4("cluster-announce-client-ipv4"): Option<Vec<u8>> = None, ipv4, [], Effective;
        /// The IPv6 address that clients who are connected by IPv6 are told.
        cluster_announce_client_ipv6("cluster-announce-client-ipv6"): Option<Vec<u8>> = None, ipv6, [], Effective;
        /// The port that clients are told. 0 is `port`.
        cluster_announce_port("cluster-announce-port"): u16 = 0, within(0, 65535), [], Effective;
        /// The TLS port that clients are told. 0 is `tls-port`.
        cluster_announce_tls_port("cluster-announce-tls-port"): u16 = 0, within(0, 65535), [], Effective;
        /// The bus port that other nodes are told. 0 is `port` plus 10000.
        cluster_announce_bus_port("cluster-announce-bus-port"): u16 = 0, within(0, 65535), [], Effective;
    }
    SlowLog {
        /// Microseconds that a command must take to be remembered by SLOWLOG. 0 remembers all, -1 none.
        slowlog_log_slower_than("slowlog-log-slower-than"): i64 = 10_000, within(-1, I64), [], Effective;
        /// How many slow commands are remembered.
        slowlog_max_len("slowlog-max-len"): u64 = 128, within(0, I64), [], Effective;
    }
    Latency {
        /// Milliseconds that an event must take to be remembered by LATENCY. 0 switches it off.
        latency_monitor_threshold("latency-monitor-threshold"): u64 = 0, within(0, I64), [], Effective;
        /// Whether a histogram of latencies is kept for every command.
        latency_tracking("latency-tracking"): bool = true, None, [], Effective;
        /// The percentiles that INFO latencystats shows.
        latency_tracking_info_percentiles("latency-tracking-info-percentiles"): Percentiles = Percentiles::default(), (), [], Effective;
    }
    Events {
        /// Which events on keys are published: K on the key's channel, E on the event's; g generic, $ string, l
        /// list, s set, h hash, z sorted set, x expired, e evicted, t stream, d module, A all of these; m miss, n
        /// new key. Empty publishes none.
        notify_keyspace_events("notify-keyspace-events"): EventClasses = EventClasses::default(), (), [], Effective;
    }
    Encodings {
        /// A hash of at most so many fields is stored compactly.
        hash_max_listpack_entries("hash-max-listpack-entries" | "hash-max-ziplist-entries"): u64 = 512, within(0, I64), [], Effective;
        /// The longest field or value of a compact hash.
        hash_max_listpack_value("hash-max-listpack-value" | "hash-max-ziplist-value"): u64 = 64, bytes(0, I64), [], Effective;
        /// The size of one node of a list: so many elements, or with -1 to -5 at most 4, 8, 16, 32 or 64 kilobytes.
        list_max_listpack_size("list-max-listpack-size" | "list-max-ziplist-size"): i32 = -2, within(I32_MIN, I32), [], Effective;
        /// How many nodes at either end of a list stay uncompressed. 0 compresses none.
        list_compress_depth("list-compress-depth"): u32 = 0, within(0, I32), [], Effective;
        /// A set of at most so many integers is stored as a sorted array.
        set_max_intset_entries("set-max-intset-entries"): u64 = 512, within(0, I64), [], Effective;
        /// A set of at most so many members is stored compactly.
        set_max_listpack_entries("set-max-listpack-entries"): u64 = 128, within(0, I64), [], Effective;
        /// The longest member of a compact set.
        set_max_listpack_value("set-max-listpack-value"): u64 = 64, within(0, I64), [], Effective;
        /// A sorted set of at most so many members is stored compactly.
        zset_max_listpack_entries("zset-max-listpack-entries" | "zset-max-ziplist-entries"): u64 = 128, within(0, I64), [], Effective;
        /// The longest member of a compact sorted set.
        zset_max_listpack_value("zset-max-listpack-value" | "zset-max-ziplist-value"): u64 = 64, bytes(0, I64), [], Effective;
        /// The size up to which a HyperLogLog stays sparse. More than 16000 is of no use.
        hll_sparse_max_bytes("hll-sparse-max-bytes"): u64 = 3000, bytes(0, I64), [], Effective;
        /// The size of one node of a stream. 0 is no limit.
        stream_node_max_bytes("stream-node-max-bytes"): u64 = 4096, bytes(0, I64), [], Effective;
        /// The entries of one node of a stream. 0 is no limit.
        stream_node_max_entries("stream-node-max-entries"): u64 = 100, within(0, I64), [], Effective;
        /// Accepted for files that were written for Redis. Spinel's tables never need rehashing as a whole.
        activerehashing("activerehashing"): bool = true, None, [], Moot("tables grow one segment at a time");
        /// How often a second periodic work is done, 1 to 500.
        hz("hz"): u32 = 10, within(0, I32), [], Effective;
        /// Whether periodic work is done more often with many clients.
        dynamic_hz("dynamic-hz"): bool = true, None, [], Moot("what timers do does not grow with the number of clients");
        /// Whether the allocator gives memory back to the system in a thread of its own.
        jemalloc_bg_thread("jemalloc-bg-thread"): bool = true, None, [], Effective;
    }
    Defragmentation {
        /// Whether values are moved to closer ranks while the server runs, to give memory back.
        activedefrag("activedefrag"): bool = false, Some(NO_DEFRAGMENTATION), [], Stored("defragmentation");
        /// Wasted memory below which nothing is done.
        active_defrag_ignore_bytes("active-defrag-ignore-bytes"): u64 = 100 << 20, bytes(1, I64), [], Stored("defragmentation");
        /// The percentage of waste at which it begins.
        active_defrag_threshold_lower("active-defrag-threshold-lower"): u32 = 10, within(0, 1000), [], Stored("defragmentation");
        /// The percentage of waste at which it does its most.
        active_defrag_threshold_upper("active-defrag-threshold-upper"): u32 = 100, within(0, 1000), [], Stored("defragmentation");
        /// The percentage of CPU time at the lower threshold.
        active_defrag_cycle_min("active-defrag-cycle-min"): u32 = 1, within(1, 99), [], Stored("defragmentation");
        /// The percentage of CPU time at the upper threshold.
        active_defrag_cycle_max("active-defrag-cycle-max"): u32 = 25, within(1, 99), [], Stored("defragmentation");
        /// Values with more elements than this are moved in pieces.
        active_defrag_max_scan_fields("active-defrag-max-scan-fields"): u64 = 1000, within(1, I64), [], Stored("defragmentation");
    }
    Testing {
        /// Microseconds to wait after each key that is saved; negative: one microsecond after so many keys.
        rdb_key_save_delay("rdb-key-save-delay"): i32 = 0, within(I32_MIN, I32), [hidden], Effective;
        /// Microseconds to wait after each key that is loaded; negative: one microsecond after so many keys.
        key_load_delay("key-load-delay"): i32 = 0, within(I32_MIN, I32), [hidden], Effective;
        /// After how many loaded bytes clients are looked after.
        loading_process_events_interval_bytes("loading-process-events-interval-bytes"): u32 = 2 << 20, within(1024, I32), [hidden], Moot("commands are answered all the time");
        /// Milliseconds between pings on the cluster bus. 0 is the usual pace.
        cluster_ping_interval("cluster-ping-interval"): u64 = 0, within(0, I64), [hidden], Effective;
        /// Whether a failed assertion exits instead of aborting.
        use_exit_on_panic("use-exit-on-panic"): bool = false, None, [hidden], Effective;
        /// Whether costly assertions are checked.
        enable_debug_assert("enable-debug-assert"): bool = false, None, [immutable, hidden], Moot("costly assertions are those of a debug build");
        /// Whether append only files that are no longer needed stay.
        aof_disable_auto_gc("aof-disable-auto-gc"): bool = false, None, [hidden], Effective;
        /// Milliseconds after which a stall is reported in the log. 0 switches it off.
        watchdog_period("watchdog-period"): u32 = 0, within(0, I32), [hidden], Effective;
        /// A file that requests and replies are noted in.
        req_res_logfile("req-res-logfile"): Option<Vec<u8>> = None, anything, [immutable, hidden], Moot("only a build of Redis for its own tests writes one");
        /// The protocol version of new clients.
        client_default_resp("client-default-resp"): u8 = 2, within(2, 3), [immutable, hidden], Moot("only a build of Redis for its own tests has clients begin with another one");
        /// A text that crash reports show.
        debug_context("debug-context"): Vec<u8> = Vec::new(), anything, [hidden], Effective;
    }
}

/// A server that others take this one for: where the two differ, what is done is what that one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Original {
    /// Redis, unless the program is called otherwise.
    Redis,
    /// Valkey.
    Valkey,
}

/// A directive that only files and the command line know, and that has no value to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine {
    /// `rename-command`, `user`, `loadmodule`, or a module's own directive (which has a dot), lower case.
    pub directive: String,
    /// The words after it.
    pub words: Vec<Vec<u8>>,
    /// Where it stands, for errors that only show when it is carried out.
    pub place: Place,
}

/// A line of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1 over the file, standard input and the command line, in this order.
    pub line: usize,
    /// The line itself, without blanks at its ends.
    pub text: Vec<u8>,
}

/// A directive that only files and the command line know, for the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDirective {
    /// Its name.
    pub name: &'static str,
    /// The part of redis.conf.example that it stands in.
    pub section: Section,
    /// Whether it does anything yet.
    pub state: State,
    /// An example.
    pub example: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

/// The directives that have no value to ask for.
pub static FILE_DIRECTIVES: &[FileDirective] = &[
    FileDirective {
        name: "include",
        section: Section::Includes,
        state: Effective,
        example: "include /etc/redis/conf.d/*.conf",
        doc: "Reads another file at this place. The name may be a pattern, whose files are read in the order of \
              their names; it may then match none. What is set later wins, and CONFIG REWRITE writes to the main file \
              only, so included files belong at its beginning.",
    },
    FileDirective {
        name: "loadmodule",
        section: Section::Modules,
        state: Moot("there are no modules: a server that is told to load one does not start"),
        example: "loadmodule /usr/lib/redis/module.so argument",
        doc: "Loads a module of native code, of which there are none: a server that is told to load one does not start.",
    },
    FileDirective {
        name: "rename-command",
        section: Section::Security,
        state: Effective,
        example: "rename-command FLUSHALL \"\"",
        doc: "Gives a command another name, or none at all. Users with rules of their own are the better way.",
    },
    FileDirective {
        name: "user",
        section: Section::Security,
        state: Effective,
        example: "user worker on >secret ~jobs:* +@list +@connection",
        doc: "Declares a user and its rules, as ACL SETUSER does. A user is declared once.",
    },
];

/// Names that old files still have; their lines are accepted and do nothing.
pub(super) const FORGOTTEN: [&str; 3] =
    ["list-max-ziplist-entries", "list-max-ziplist-value", "lua-replicate-commands"];

/// The lowest and highest `hz` that has an effect; others are cut to these.
const HZ: std::ops::RangeInclusive<u32> = 1..=500;

/// The smallest backlog that is made; smaller wishes are raised to it.
const REPL_BACKLOG_LEAST: u64 = 16 * 1024;

/// Every directive that has a value, in the order of redis.conf.example.
pub fn directives() -> &'static [Directive] {
    DIRECTIVES
}

/// The directive of that name, or with that alias, in any case, and the name as the table spells it.
pub fn find(name: &[u8]) -> Option<(&'static Directive, &'static str)> {
    DIRECTIVES.iter().find_map(|directive| {
        let spelled = directive.names().find(|known| name.eq_ignore_ascii_case(known.as_bytes()))?;
        Some((directive, spelled))
    })
}

impl Directive {
    /// Its name and its aliases.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// What it is for: one paragraph.
    pub fn doc(&self) -> &'static str {
        self.doc.trim()
    }

    /// What may be written as its value.
    pub fn accepts(&self) -> String {
        (self.accepts)()
    }

    /// The value as CONFIG GET prints it.
    pub fn text(&self, config: &Config) -> Vec<u8> {
        (self.text)(config)
    }

    /// Sets the value from the words after the name. On error nothing has changed.
    pub fn assign(&self, config: &mut Config, words: &[Vec<u8>], manner: Manner) -> Result<(), Reason> {
        (self.assign)(config, words, manner)
    }

    /// The value as CONFIG REWRITE writes it, where `default` is what an empty file gives.
    pub fn written(&self, config: &Config, default: &Config) -> Written {
        (self.written)(config, default, self.name)
    }

    /// Whether two configurations agree in it.
    pub fn same(&self, one: &Config, other: &Config) -> bool {
        (self.same)(one, other)
    }
}

impl std::fmt::Debug for Directive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directive").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for Directive {
    /// A directive is its name.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Config {
    /// The defaults for a program of this name: it stands in for the server that was called so until now. Those of Valkey
    /// differ from those of Redis in what is freed in the background and in the size of the backlog.
    pub fn for_program(path: &str) -> Config {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !name.starts_with("valkey") {
            return Config::default();
        }
        Config {
            lazyfree_lazy_eviction: true,
            lazyfree_lazy_expire: true,
            lazyfree_lazy_server_del: true,
            lazyfree_lazy_user_del: true,
            lazyfree_lazy_user_flush: true,
            replica_lazy_flush: true,
            repl_backlog_size: 10 * 1024 * 1024,
            original: Original::Valkey,
            ..Config::default()
        }
    }

    /// Cuts what may be written but not used to what is used: `hz`, a backlog, and the databases of a cluster node.
    pub(super) fn settle(&mut self) {
        self.hz = self.hz.clamp(*HZ.start(), *HZ.end());
        self.repl_backlog_size = self.repl_backlog_size.max(REPL_BACKLOG_LEAST);
        if self.cluster_enabled {
            self.databases = 1;
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// One worker for each core.
fn default_io_threads() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    u32::try_from(cores).map_or(128, |n| n.min(128))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_name_is_used_twice() {
        let mut seen = HashSet::new();
        let names = DIRECTIVES.iter().flat_map(Directive::names).chain(FILE_DIRECTIVES.iter().map(|d| d.name));
        for name in names.chain(FORGOTTEN) {
            assert!(seen.insert(name), "{name}");
            assert_eq!(name, name.to_ascii_lowercase());
        }
    }

    #[test]
    fn every_default_can_be_printed_set_and_written() {
        let default = Config::default();
        for directive in directives() {
            let text = directive.text(&default);
            let words: Vec<Vec<u8>> = if directive.many {
                text.split(|b| *b == b' ').map(<[u8]>::to_vec).collect()
            } else {
                vec![text.clone()]
            };
            let mut config = default.clone();
            if directive.name != "replicaof" {
                directive.assign(&mut config, &words, Manner::Replace).unwrap_or_else(|e| panic!("{directive:?}: {e}"));
            }
            assert_eq!(config, default, "{directive:?}");
            assert!(!directive.accepts().is_empty());
            assert!(directive.doc().ends_with('.'), "{directive:?}");
            if let Written::Lines(lines) = directive.written(&default, &default) {
                assert!(lines.iter().all(|(line, _)| line.starts_with(directive.name.as_bytes())));
            }
        }
    }

    #[test]
    fn both_names_find_a_directive_in_any_case() {
        let (directive, name) = find(b"SLAVE-Priority").unwrap();
        assert_eq!((directive.name, name), ("replica-priority", "slave-priority"));
        assert!(find(b"slave-").is_none());
    }

    #[test]
    fn sections_are_in_the_order_of_the_file() {
        let order: Vec<usize> = directives()
            .iter()
            .map(|d| Section::ALL.iter().position(|s| *s == d.section).expect("every section is listed"))
            .collect();
        assert!(order.is_sorted());
    }

    #[test]
    fn hz_is_cut_a_backlog_raised_and_a_cluster_has_one_database() {
        let mut config = Config { hz: 10_000, repl_backlog_size: 1, cluster_enabled: true, ..Config::default() };
        config.settle();
        assert_eq!((config.hz, config.repl_backlog_size, config.databases), (500, 16 * 1024, 1));
        config.hz = 0;
        config.settle();
        assert_eq!(config.hz, 1);
    }

    #[test]
    fn defaults_are_those_of_redis() {
        let default = Config::default();
        // Every line was read from a running Redis 7 with an empty configuration.
        for (name, value) in [
            ("active-defrag-ignore-bytes", "104857600"),
            ("auto-aof-rewrite-min-size", "67108864"),
            ("bind", "* -::*"),
            ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
            ("client-query-buffer-limit", "1073741824"),
            ("latency-tracking-info-percentiles", "50 99 99.9"),
            ("lazyfree-lazy-user-del", "no"),
            ("list-max-listpack-size", "-2"),
            ("maxmemory-policy", "noeviction"),
            ("oom-score-adj-values", "0 200 800"),
            ("proto-max-bulk-len", "536870912"),
            ("repl-backlog-size", "1048576"),
            ("save", "3600 1 300 100 60 10000"),
            ("slowlog-log-slower-than", "10000"),
            ("tls-session-cache-size", "20480"),
        ] {
            let (directive, _) = find(name.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(directive.text(&default)).unwrap(), value, "{name}");
        }
    }
}
