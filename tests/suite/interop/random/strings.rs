//! Random commands on strings.

use super::dice::{Command, Dice, Same, Words};
use super::keys::time;

/// Options of which some take a time.
pub fn timed(dice: &mut Dice, mut command: Command, of: &[&str]) -> Command {
    while dice.one_in(3) {
        let option = dice.pick(of);
        command = command.and(&[option]);
        if matches!(option, "EX" | "PX" | "EXAT" | "PXAT") {
            let time = time(dice, option);
            command = command.and(&[&time]);
        }
    }
    command
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let (k, k2, v, n) = (dice.key("s"), dice.key("s"), dice.value(), dice.integer());
    let command = match dice.u8(..26) {
        0..=4 => {
            let command = Command::new(&["SET", &k, &v]);
            timed(dice, command, &["NX", "XX", "GET", "KEEPTTL", "EX", "PX", "EXAT", "PXAT", "nonsense"])
        }
        5 => {
            let command = Command::new(&["GETEX", &k]);
            timed(dice, command, &["PERSIST", "EX", "PX", "EXAT", "PXAT", "nonsense"])
        }
        6..=8 => Command::new(&["GET", &k]),
        9 | 10 => Command::new(&[dice.pick(&["GETDEL", "STRLEN", "TYPE", "INCR", "DECR"]), &k]),
        11 | 12 => Command::new(&[dice.pick(&["GETSET", "SETNX", "APPEND"]), &k, &v]),
        13 => {
            let name = dice.pick(&["SETEX", "PSETEX"]);
            Command::new(&[name, &k, &time(dice, name), &v])
        }
        14 => Command::new(&["MSET", &k, &v, &k2, &n]),
        15 => Command::new(&["MSETNX", &k, &v, &k2, &n]),
        16 | 17 => Command::new(&["MGET", &k, &k2, &dice.any_key()]),
        18 | 19 => Command::new(&[dice.pick(&["INCRBY", "DECRBY"]), &k, &n]),
        20 => {
            let by = dice.pick(&["0.5", "-2.25", "1e3", "abc", "100", "0.1", "3", "inf", "-1e-5", "1e17", "12345.678"]);
            Command::new(&["INCRBYFLOAT", &k, by])
        }
        21 => Command::new(&["SETRANGE", &k, &dice.i32(-1..120).to_string(), &v]),
        22 | 23 => Command::new(&[dice.pick(&["GETRANGE", "SUBSTR"]), &k, &n, &dice.integer()]),
        24 => Command::new(&["LCS", &k, &k2])
            .options(dice, &["LEN", "IDX", "WITHMATCHLEN"])
            .and_if(dice.one_in(3), &["MINMATCHLEN", &dice.integer()]),
        _ => Command::new(&["OBJECT", "ENCODING", &k]).compared(Same::Encoding),
    };
    command.done()
}
