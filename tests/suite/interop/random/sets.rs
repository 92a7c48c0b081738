//! Random commands on sets: whole numbers are many, so that some stay sets of integers.

use super::dice::{Command, Dice, Same, Words};

fn member(dice: &mut Dice) -> String {
    if dice.bool() { dice.i64(-300..300).to_string() } else { dice.member() }
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let (k, k2, k3, m) = (dice.key("t"), dice.key("t"), dice.key("t"), member(dice));
    let command = match dice.u8(..36) {
        0..=8 => {
            let mut command = Command::new(&["SADD", &k]);
            let integers = dice.bool();
            for _ in 0..dice.several() {
                let m = if integers { dice.i64(-300..300).to_string() } else { member(dice) };
                command = command.and(&[&m]);
            }
            command
        }
        9..=14 => {
            let mut command = Command::new(&["SREM", &k]);
            for _ in 0..dice.several() {
                command = command.and(&[&member(dice)]);
            }
            command
        }
        15 => Command::new(&["SMEMBERS", &k]).compared(Same::Unordered),
        16 => Command::new(&["SISMEMBER", &k, &m]),
        17 => Command::new(&["SMISMEMBER", &k, &m, &member(dice)]),
        18 => Command::new(&["SCARD", &k]),
        19 => Command::new(&["SPOP", &k, dice.pick(&["5000", "0", "-1", "x"])]).compared(Same::Unordered),
        20 => Command::new(&["SRANDMEMBER", &k, dice.pick(&["5000", "0", "x"])]).compared(Same::Unordered),
        21..=23 => Command::new(&["SMOVE", &k, &k2, &m]),
        24..=26 => Command::new(&[dice.pick(&["SUNION", "SINTER", "SDIFF"]), &k, &k2, &k3]).compared(Same::Unordered),
        27..=30 => Command::new(&[dice.pick(&["SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE"]), &k, &k2, &k3]),
        31 => {
            Command::new(&["SINTERCARD", "2", &k, &k2]).and_if(dice.one_in(3), &["LIMIT", &dice.i64(-1..9).to_string()])
        }
        32 => Command::new(&["SSCAN", &k, "0", "COUNT", "100000", "MATCH", dice.pick(&["*", "[a-f]", "?", "-*"])])
            .compared(Same::Unordered),
        _ => Command::new(&["OBJECT", "ENCODING", &k]).compared(Same::Encoding),
    };
    command.done()
}
