//! Random commands on streams: ids are told, not taken from a clock.

use super::dice::{Command, Dice, Same, Words};

/// Milliseconds by which times of delivery may differ between the servers.
const CLOCK: i128 = 600_000;

fn id(dice: &mut Dice) -> String {
    match dice.u8(..30) {
        0 => dice.pick(&["0", "0-0", "18446744073709551615-18446744073709551615", "x", "1-", "-1", "5-*"]).into(),
        1..=9 => dice.u32(1..400).to_string(),
        _ => format!("{}-{}", dice.u32(1..400), dice.u32(..3)),
    }
}

fn end(dice: &mut Dice) -> String {
    match dice.u8(..6) {
        0 | 1 => "-".into(),
        2 | 3 => "+".into(),
        4 => format!("({}", id(dice)),
        _ => id(dice),
    }
}

fn trim(dice: &mut Dice, command: Command) -> Command {
    let (by, about) = (dice.pick(&["MAXLEN", "MINID"]), dice.pick(&["", "=", "="]));
    let to = if by == "MAXLEN" { dice.u32(..30).to_string() } else { id(dice) };
    let command = command.and(&[by]);
    command.and_if(!about.is_empty(), &[about]).and(&[&to])
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let k = dice.key("x");
    let group = dice.pick(&["g1", "g2"]);
    let consumer = dice.pick(&["alice", "bob"]);
    let count = dice.i64(-1..6).to_string();
    let command = match dice.u8(..44) {
        0..=11 => {
            let mut command = Command::new(&["XADD", &k]).and_if(dice.one_in(10), &["NOMKSTREAM"]);
            if dice.one_in(8) {
                command = trim(dice, command);
            }
            command = command.and(&[&id(dice)]);
            for _ in 0..dice.u8(1..3) {
                command = command.and(&[&dice.member(), &dice.member()]);
            }
            command
        }
        12 | 13 => Command::new(&["XDEL", &k, &id(dice), &id(dice)]),
        14 => {
            let command = Command::new(&["XTRIM", &k]);
            trim(dice, command)
        }
        15..=17 => Command::new(&[dice.pick(&["XRANGE", "XREVRANGE"]), &k, &end(dice), &end(dice)])
            .and_if(dice.one_in(3), &["COUNT", &count]),
        18 => Command::new(&["XLEN", &k]),
        19 | 20 => Command::new(&["XREAD", "COUNT", &count, "STREAMS", &k, &dice.key("x"), &id(dice), &id(dice)]),
        21 => Command::new(&["XSETID", &k, &id(dice)])
            .and_if(dice.one_in(3), &["ENTRIESADDED", &count, "MAXDELETEDID", &id(dice)]),
        22..=24 => Command::new(&["XGROUP", "CREATE", &k, group, dice.pick(&["0", "$", "5", "100-1"])])
            .and_if(dice.one_in(3), &["MKSTREAM"])
            .and_if(dice.one_in(4), &["ENTRIESREAD", &count]),
        25 if dice.one_in(3) => Command::new(&["XGROUP", "DESTROY", &k, group]),
        25 => Command::new(&["XGROUP", "SETID", &k, group, &id(dice)]),
        26 => Command::new(&["XGROUP", dice.pick(&["CREATECONSUMER", "DELCONSUMER"]), &k, group, consumer]),
        27..=31 => {
            let from = dice.pick(&[">", ">", ">", "0", "5"]);
            Command::new(&["XREADGROUP", "GROUP", group, consumer, "COUNT", &count])
                .and_if(dice.one_in(5), &["NOACK"])
                .and(&["STREAMS", &k, from])
        }
        32..=34 => Command::new(&["XACK", &k, group, &id(dice), &id(dice)]),
        35 => Command::new(&["XPENDING", &k, group]),
        36 => Command::new(&["XPENDING", &k, group, &end(dice), &end(dice), &count])
            .and_if(dice.one_in(3), &[consumer])
            .compared(Same::Near(CLOCK)),
        37 | 38 => Command::new(&["XCLAIM", &k, group, consumer, "0", &id(dice), &id(dice)])
            .options(dice, &["JUSTID", "FORCE"])
            .and_if(dice.one_in(4), &["RETRYCOUNT", &count])
            .and_if(dice.one_in(4), &["LASTID", &id(dice)]),
        39 => Command::new(&["XAUTOCLAIM", &k, group, consumer, "0", &end(dice), "COUNT", &count])
            .options(dice, &["JUSTID"]),
        40 | 41 => Command::new(&["XINFO", "GROUPS", &k]),
        42 => Command::new(&["XINFO", "STREAM", &k]),
        _ => Command::new(&["OBJECT", "ENCODING", &k]).compared(Same::Encoding),
    };
    command.done()
}
