//! The same commands to Spinel and to a real Redis: every reply must be the same, byte for byte.
//!
//! What is asked stands in tables of plain lines, one per family (`interop/*.table`, see [`language`]),
//! and in lists that are generated where every combination is wanted. Each is run in RESP2 and in RESP3.
//! A difference is printed with its line and both replies; the test goes on to the end of the table.

mod arity;
mod cluster;
mod connection;
mod counts;
mod events;
mod geo;
mod keys;
mod language;
mod lists;
pub mod random;
mod runner;
mod server;
mod strings;
mod waiting;

/// One test per family and protocol.
macro_rules! families {
    ($($name:ident: $table:expr, $args:expr;)*) => {
        mod resp2 {
            $(#[test]
            fn $name() {
                super::runner::run(stringify!($name), &$table, crate::support::reply::Protocol::Resp2, $args);
            })*
        }
        mod resp3 {
            $(#[test]
            fn $name() {
                super::runner::run(stringify!($name), &$table, crate::support::reply::Protocol::Resp3, $args);
            })*
        }
    };
}

families! {
    bitmaps: include_str!("interop/bitmaps.table"), &[];
    hyperloglog: include_str!("interop/hyperloglog.table"), &[];
    acl: include_str!("interop/acl.table"), &[];
    strings: include_str!("interop/strings.table"), &[];
    string_options: crate::interop::strings::options(), &[];
    lists: include_str!("interop/lists.table"), &[];
    lists_of_small_nodes: include_str!("interop/lists.table"), &["--list-max-listpack-size", "2"];
    compressed_lists: include_str!("interop/lists.table"), &["--list-max-listpack-size", "-1", "--list-compress-depth", "1"];
    list_encodings: crate::interop::lists::encodings(), &[];
    hashes: include_str!("interop/hashes.table"), &[];
    keys: include_str!("interop/keys.table"), &[];
    key_options: crate::interop::keys::options(), &[];
    connection: include_str!("interop/connection.table"), &[];
    login: include_str!("interop/login.table"), &["--requirepass", "sesame"];
    scripts: include_str!("interop/scripts.table"), &[];
    pubsub: include_str!("interop/pubsub.table"), &[];
    sets: include_str!("interop/sets.table"), &[];
    streams: include_str!("interop/streams.table"), &[];
    small_streams: include_str!("interop/streams.table"), &["--stream-node-max-entries", "3"];
    tracking: include_str!("interop/tracking.table"), &[];
    server: include_str!("interop/server.table"), &[];
    transactions: include_str!("interop/transactions.table"), &[];
    sort: include_str!("interop/sort.table"), &[];
    small_nodes_sort: include_str!("interop/sort.table"), &["--list-max-listpack-size", "2", "--zset-max-listpack-entries", "0"];
    sorted_sets: include_str!("interop/zset.table"), &["--enable-debug-command", "yes"];
    large_sorted_sets: include_str!("interop/zset.table"), &["--enable-debug-command", "yes", "--zset-max-listpack-entries", "0"];
    places: include_str!("interop/geo.table"), &[];
    places_in_trees: include_str!("interop/geo.table"), &["--zset-max-listpack-entries", "0"];
    random_places: crate::interop::geo::random(), &[];
}
