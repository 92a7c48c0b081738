//! Keyspace events: what happens to keys, published on channels of the key's and of the event's name.

use crate::command::engine::Engine;
use crate::command::pubsub::send;
use crate::config::special::EventClasses;
use crate::keyspace::change::{Change, Class, Effects};

/// The class of events as the configuration knows it.
fn class(class: Class) -> EventClasses {
    match class {
        Class::Generic => EventClasses::GENERIC,
        Class::String => EventClasses::STRING,
        Class::List => EventClasses::LIST,
        Class::Set => EventClasses::SET,
        Class::Hash => EventClasses::HASH,
        Class::SortedSet => EventClasses::SORTED_SET,
        Class::Stream => EventClasses::STREAM,
        Class::Expired => EventClasses::EXPIRED,
        Class::Evicted => EventClasses::EVICTED,
        Class::New => EventClasses::NEW_KEY,
        Class::Miss => EventClasses::KEY_MISS,
    }
}

/// Publishes a change as an event, if it is of one of `classes`: on the channel of the key, and on that of the event.
pub fn publish(engine: &Engine, effects: &mut Effects, classes: EventClasses, change: &Change) {
    if !classes.contains(class(change.class)) || !engine.pubsub.has_listeners() {
        return;
    }
    let channel = |kind: &str, of: &[u8]| [format!("__{kind}@{}__:", change.db).as_bytes(), of].concat();
    if classes.contains(EventClasses::KEYSPACE) {
        send(engine, effects, &channel("keyspace", &change.key), change.event.as_bytes());
    }
    if classes.contains(EventClasses::KEYEVENT) {
        send(engine, effects, &channel("keyevent", change.event.as_bytes()), &change.key);
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::Bench;

    fn events(bench: &mut Bench, line: &str) -> String {
        let reply = bench.run(line);
        let mut parts = reply.split(">4|$8|pmessage|$1|*|");
        parts.next();
        let fields = |part: &str| part.split('|').filter(|field| !field.starts_with('$')).collect::<Vec<_>>().join(" ");
        parts.map(fields).map(|event| event.trim_end().to_owned()).collect::<Vec<_>>().join(", ")
    }

    fn listening(classes: &str) -> Bench {
        let mut bench = Bench::new();
        bench.run("HELLO 3");
        assert_eq!(bench.run(&format!("CONFIG SET notify-keyspace-events {classes}")), "+OK|");
        assert_eq!(bench.run("PSUBSCRIBE *"), ">3|$10|psubscribe|$1|*|:1|");
        bench
    }

    #[test]
    fn an_event_is_published_by_key_and_then_by_name() {
        let mut bench = listening("KEA");
        assert_eq!(events(&mut bench, "SET a 1"), "__keyspace@0__:a set, __keyevent@0__:set a");
        bench.run("SELECT 3");
        assert_eq!(events(&mut bench, "DEL a"), "");
        bench.run("SET b 1");
        assert_eq!(events(&mut bench, "DEL b"), "__keyspace@3__:b del, __keyevent@3__:del b");
    }

    #[test]
    fn only_the_classes_asked_for_are_published() {
        let mut bench = listening("Kl");
        assert_eq!(events(&mut bench, "SET a 1"), "");
        assert_eq!(events(&mut bench, "LPUSH l 1"), "__keyspace@0__:l lpush");
        assert_eq!(bench.run("CONFIG SET notify-keyspace-events Enm"), "+OK|");
        assert_eq!(events(&mut bench, "SET b 1"), "__keyevent@0__:new b");
        assert_eq!(events(&mut bench, "SET b 2"), "");
        assert_eq!(events(&mut bench, "GET nosuch"), "__keyevent@0__:keymiss nosuch");
        for nothing in ["\"\"", "KE", "A", "lg"] {
            bench.run(&format!("CONFIG SET notify-keyspace-events {nothing}"));
            assert_eq!(bench.run("SET c 1"), "+OK|", "{nothing}");
        }
    }

    #[test]
    fn a_key_that_has_expired_is_told_when_it_is_met() {
        let mut bench = listening("Ex");
        bench.run("SET a 1 PX 10");
        bench.clock.advance(11);
        assert_eq!(events(&mut bench, "GET a"), "__keyevent@0__:expired a");
    }

    #[test]
    fn the_configuration_file_asks_for_events_too() {
        let mut bench = Bench::with("notify-keyspace-events KA\n");
        bench.run("HELLO 3");
        bench.run("PSUBSCRIBE *");
        assert_eq!(events(&mut bench, "SET a 1"), "__keyspace@0__:a set");
    }
}
