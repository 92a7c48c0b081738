//! Random commands on hashes.

use super::dice::{Command, Dice, Same, Words};

fn value(dice: &mut Dice) -> String {
    if dice.one_in(6) { dice.value() } else { dice.member() }
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let (k, f, v) = (dice.key("h"), dice.member(), value(dice));
    let command = match dice.u8(..30) {
        0..=6 => {
            let mut command = Command::new(&[dice.pick(&["HSET", "HSET", "HMSET"]), &k]);
            let mut names = Vec::new();
            for _ in 0..dice.several() {
                let name = dice.member();
                // Redis 7.2 chooses the encoding before it knows which fields are new, and 7.0 after.
                if dice.newer || !names.contains(&name) {
                    command = command.and(&[&name, &value(dice)]);
                    names.push(name);
                }
            }
            command.and_if(dice.one_in(40), &["odd"])
        }
        7 => Command::new(&["HSETNX", &k, &f, &v]),
        8..=10 => Command::new(&[dice.pick(&["HGET", "HEXISTS", "HSTRLEN"]), &k, &f]),
        11 => Command::new(&["HMGET", &k, &f, &dice.member(), &f]),
        12 | 13 => Command::new(&[dice.pick(&["HGETALL", "HKEYS", "HVALS"]), &k]).compared(Same::Unordered),
        14..=18 => {
            let mut command = Command::new(&["HDEL", &k]);
            for _ in 0..dice.several() {
                command = command.and(&[&dice.member()]);
            }
            command
        }
        19 => Command::new(&["HLEN", &k]),
        20..=22 => Command::new(&["HINCRBY", &k, &f, &dice.integer()]),
        23 | 24 => {
            let by = dice.pick(&["0.5", "-2.25", "1e3", "abc", "100", "0.1", "3", "inf", "-1e-5"]);
            Command::new(&["HINCRBYFLOAT", &k, &f, by])
        }
        25 => Command::new(&["HRANDFIELD", &k, dice.pick(&["5000", "0", "x"])])
            .and_if(dice.bool(), &["WITHVALUES"])
            .compared(Same::Unordered),
        26 => Command::new(&["HSCAN", &k, "0", "COUNT", "100000", "MATCH", dice.pick(&["*", "[a-f]", "?", "m*"])])
            .compared(Same::Unordered),
        _ => Command::new(&["OBJECT", "ENCODING", &k]).compared(Same::Encoding),
    };
    command.done()
}
