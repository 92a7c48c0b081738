//! Random commands on places: on a grid of few, so that they meet again.

use super::dice::{Command, Dice, Same, Words};

fn degrees(dice: &mut Dice, most: i32) -> String {
    match dice.u8(..30) {
        0 => dice.pick(&["x", "181", "-86", "nan"]).into(),
        1 => most.to_string(),
        _ => format!("{}.{}", dice.i32(10..20), dice.u8(..10)),
    }
}

fn size(dice: &mut Dice) -> String {
    dice.pick(&["0", "1", "50", "200", "500", "1000", "5000", "20000", "-1", "x"]).to_owned()
}

fn unit(dice: &mut Dice) -> &'static str {
    dice.pick(&["km", "km", "km", "KM", "mi", "m", "ft", "yd"])
}

fn limits(dice: &mut Dice, mut command: Command) -> Command {
    if dice.one_in(3) {
        command = command.and(&["COUNT", &dice.i64(0..6).to_string()]).and_if(dice.one_in(3), &["ANY"]);
    }
    command.and_if(dice.one_in(3), &[dice.pick(&["ASC", "DESC"])])
}

/// One command.
pub fn command(dice: &mut Dice) -> (Words, Same) {
    let (k, k2, m) = (dice.key("g"), dice.key("g"), dice.member());
    let command = match dice.u8(..24) {
        0..=6 => {
            let mut command = Command::new(&["GEOADD", &k]);
            if dice.one_in(4) {
                command = command.options(dice, &["NX", "XX", "CH"]);
            }
            for _ in 0..dice.several() {
                command = command.and(&[&degrees(dice, 180), &degrees(dice, 85), &dice.member()]);
            }
            command
        }
        7 => Command::new(&["GEOPOS", &k, &m, &dice.member()]),
        8 => Command::new(&["GEOHASH", &k, &m, &dice.member()]),
        9 | 10 => {
            let with_unit = dice.bool();
            Command::new(&["GEODIST", &k, &m, &dice.member()]).and_if(with_unit, &[unit(dice)])
        }
        11..=15 => {
            let store = dice.one_in(4);
            let command =
                if store { Command::new(&["GEOSEARCHSTORE", &k2, &k]) } else { Command::new(&["GEOSEARCH", &k]) };
            let command = match dice.bool() {
                true => command.and(&["FROMMEMBER", &m]),
                false => command.and(&["FROMLONLAT", &degrees(dice, 180), &degrees(dice, 85)]),
            };
            let command = match dice.bool() {
                true => command.and(&["BYRADIUS", &size(dice), unit(dice)]),
                false => command.and(&["BYBOX", &size(dice), &size(dice), unit(dice)]),
            };
            let command = limits(dice, command);
            match store {
                // Redis 7.0 computes some distances by another formula, which shows in the last digit.
                true => command.and_if(dice.newer && dice.one_in(3), &["STOREDIST"]),
                false => command.options(dice, &["WITHCOORD", "WITHDIST", "WITHHASH"]),
            }
        }
        16..=20 => {
            let name = dice.pick(&["GEORADIUS", "GEORADIUS_RO", "GEORADIUSBYMEMBER", "GEORADIUSBYMEMBER_RO"]);
            let command = Command::new(&[name, &k]);
            let command = match name.contains("MEMBER") {
                true => command.and(&[&m]),
                false => command.and(&[&degrees(dice, 180), &degrees(dice, 85)]),
            };
            let command = command.and(&[&size(dice), unit(dice)]);
            let command = limits(dice, command);
            match dice.one_in(3) {
                true => command.and(&["STORE", &k2]),
                false => command.options(dice, &["WITHCOORD", "WITHDIST", "WITHHASH"]),
            }
        }
        21 => Command::new(&["ZREM", &k, &m]),
        22 => Command::new(&["ZREMRANGEBYRANK", &k, &dice.i64(-5..5).to_string(), &dice.i64(-5..5).to_string()]),
        _ => Command::new(&["OBJECT", "ENCODING", &k]).compared(Same::Encoding),
    };
    command.done()
}
