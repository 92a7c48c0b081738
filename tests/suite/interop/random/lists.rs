//! Random commands on lists.

use super::dice::{Command, Dice, Same, Words};

fn element(dice: &mut Dice) -> String {
    if dice.one_in(8) { dice.value() } else { dice.member() }
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let (k, k2, v, n) = (dice.key("l"), dice.key("l"), element(dice), dice.integer());
    let end = |dice: &mut Dice| dice.pick(&["LEFT", "RIGHT", "left", "Right", "x"]);
    let command = match dice.u8(..36) {
        0..=8 => {
            let mut command = Command::new(&[dice.pick(&["LPUSH", "RPUSH", "RPUSH", "LPUSHX", "RPUSHX"]), &k]);
            for _ in 0..dice.several() {
                command = command.and(&[&element(dice)]);
            }
            command
        }
        9..=11 => Command::new(&[dice.pick(&["LPOP", "RPOP"]), &k]).and_if(dice.one_in(4), &[&n]),
        12 => Command::new(&["LLEN", &k]),
        13 | 14 => Command::new(&["LINDEX", &k, &n]),
        // Redis 7.2 takes an index beyond 32 bits for its lower ones.
        15 | 16 => Command::new(&["LSET", &k, &dice.i32(-10..10).to_string(), &v]),
        17 | 18 => Command::new(&["LINSERT", &k, dice.pick(&["BEFORE", "AFTER", "x"]), &element(dice), &v]),
        19..=21 => Command::new(&["LRANGE", &k, &n, &dice.integer()]),
        22 => Command::new(&["LTRIM", &k, &n, &dice.integer()]),
        23 | 24 => Command::new(&["LREM", &k, &dice.i64(-3..4).to_string(), &v]),
        25..=27 => {
            let mut command = Command::new(&["LPOS", &k, &v]);
            while dice.one_in(3) {
                let number = dice.i64(-3..5).to_string();
                command = command.and(&[dice.pick(&["RANK", "COUNT", "MAXLEN"]), &number]);
            }
            command
        }
        28..=30 => Command::new(&["LMOVE", &k, &k2, end(dice), end(dice)]),
        31 => Command::new(&["RPOPLPUSH", &k, &k2]),
        32 | 33 => Command::new(&["LMPOP", "2", &k, &k2, end(dice)])
            .and_if(dice.one_in(3), &["COUNT", &dice.i64(0..12).to_string()]),
        _ => Command::new(&["OBJECT", "ENCODING", &k]).compared(Same::Encoding),
    };
    command.done()
}
