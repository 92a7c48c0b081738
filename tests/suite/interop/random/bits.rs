//! Random commands on strings as bits, and as counters of what is unlike.

use super::dice::{Command, Dice, Same, Words};

fn offset(dice: &mut Dice) -> String {
    match dice.u8(..30) {
        0 => dice.pick(&["-1", "x", "4294967296", "", "#1"]).into(),
        1 => dice.u32(..20_000).to_string(),
        _ => dice.u32(..300).to_string(),
    }
}

/// Some operations of BITFIELD.
fn field(dice: &mut Dice, mut command: Command, write: bool) -> Command {
    for _ in 0..dice.u8(1..4) {
        let bits = format!("{}{}", dice.pick(&["i", "u"]), dice.u8(1..66));
        let at = format!("{}{}", dice.pick(&["", "", "#"]), dice.u8(..40));
        command = match if write { dice.u8(..4) } else { 0 } {
            0 => command.and(&["GET", &bits, &at]),
            1 => command.and(&["SET", &bits, &at, &dice.integer()]),
            2 => command.and(&["INCRBY", &bits, &at, &dice.integer()]),
            _ => command.and(&["OVERFLOW", dice.pick(&["WRAP", "SAT", "FAIL", "x"])]),
        };
    }
    command
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let (k, k2, k3) = (dice.key("b"), dice.key("b"), dice.key("b"));
    let command = match dice.u8(..30) {
        0..=5 => Command::new(&["SETBIT", &k, &offset(dice), dice.pick(&["0", "1", "1", "1", "2"])]),
        6 | 7 => Command::new(&["GETBIT", &k, &offset(dice)]),
        8..=10 => {
            let (from, to) = (dice.integer(), dice.integer());
            let range = dice.bool();
            Command::new(&["BITCOUNT", &k])
                .and_if(range, &[&from, &to])
                .and_if(range && dice.bool(), &[dice.pick(&["BYTE", "BIT", "x"])])
        }
        11..=13 => {
            let (from, to) = (dice.integer(), dice.integer());
            let mut command = Command::new(&["BITPOS", &k, dice.pick(&["0", "1", "2"])]);
            if dice.bool() {
                command = command.and(&[&from]);
                if dice.bool() {
                    command = command.and(&[&to]).and_if(dice.bool(), &[dice.pick(&["BYTE", "BIT", "x"])]);
                }
            }
            command
        }
        14..=16 => Command::new(&["BITOP", dice.pick(&["AND", "OR", "XOR"]), &k, &k2, &k3]),
        17 => Command::new(&["BITOP", "NOT", &k, &k2]),
        18..=20 => {
            let command = Command::new(&["BITFIELD", &k]);
            field(dice, command, true)
        }
        21 => {
            let command = Command::new(&["BITFIELD_RO", &k]);
            field(dice, command, false)
        }
        22..=25 => {
            let mut command = Command::new(&["PFADD", &dice.key("p")]);
            for _ in 0..dice.several() {
                command = command.and(&[&dice.member()]);
            }
            // Now and then so many that the sparse form has no room for them.
            if dice.one_in(12) {
                let from = dice.u32(..100_000);
                for n in from..from + dice.u32(..1500) {
                    command = command.and(&[&n.to_string()]);
                }
            }
            command
        }
        26 if dice.one_in(3) => Command::new(&[
            "PFDEBUG",
            dice.pick(&["ENCODING", "DECODE", "DECODE", "GETREG", "TODENSE"]),
            &dice.key("p"),
        ]),
        26 | 27 => Command::new(&["PFCOUNT", &dice.key("p"), &dice.key("p")]),
        28 => Command::new(&["PFMERGE", &dice.key("p"), &dice.key("p"), &dice.key("p")]),
        _ => Command::new(&["GET", dice.pick(&["b1", "b2", "p1", "p2"])]),
    };
    command.done()
}
