//! Random places and areas: what is generated so that no formula is right by chance.

use std::fmt::Write as _;

use fastrand::Rng;

/// Degrees somewhere, with a preference for the edges.
fn degrees(rng: &mut Rng, most: f64) -> f64 {
    match rng.u8(..10) {
        0 => most,
        1 => -most,
        2 => 0.0,
        3 => most - rng.f64(),
        _ => (rng.f64() * 2.0 - 1.0) * most,
    }
}

/// A table of places that lie all over the world and in heaps, and of searches in them.
pub fn random() -> String {
    let seed = std::env::var("SPINEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SPINEL_SEED={seed} repeats this table");
    let mut rng = Rng::with_seed(seed);
    let mut table = format!("== random places, SPINEL_SEED={seed}\n");
    let mut line = |text: String| table.push_str(&(text + "\n"));
    let mut n = 0;
    for _ in 0..20 {
        let (longitude, latitude) = (degrees(&mut rng, 180.0), degrees(&mut rng, 85.05112878));
        let heap = 10f64.powi(rng.i32(-4..2));
        for _ in 0..15 {
            let near = |rng: &mut Rng, center: f64, most: f64| (center + (rng.f64() - 0.5) * heap).clamp(-most, most);
            let (x, y) = (near(&mut rng, longitude, 180.0), near(&mut rng, latitude, 85.05112878));
            line(format!("GEOADD g {x} {y} m{n}"));
            n += 1;
        }
    }
    let member = |rng: &mut Rng| format!("m{}", rng.usize(..n));
    for _ in 0..150 {
        line(format!("ZSCORE g {}", member(&mut rng)));
        line(format!("GEOPOS g {} {}", member(&mut rng), member(&mut rng)));
        line(format!("GEOHASH g {}", member(&mut rng)));
    }
    for _ in 0..500 {
        let mut text = String::from("GEOSEARCH g ");
        // Writing to a string cannot fail, here and below.
        let _ = match rng.bool() {
            true => write!(text, "FROMMEMBER {}", member(&mut rng)),
            false => write!(text, "FROMLONLAT {} {}", degrees(&mut rng, 180.0), degrees(&mut rng, 85.05112878)),
        };
        let unit = ["m", "km", "mi", "ft"][rng.usize(..4)];
        let size = |rng: &mut Rng| 10f64.powf(rng.f64() * 8.0) * if unit == "km" { 0.002 } else { 1.0 };
        let _ = match rng.bool() {
            true => write!(text, " BYRADIUS {} {unit}", size(&mut rng)),
            false => write!(text, " BYBOX {} {} {unit}", size(&mut rng), size(&mut rng)),
        };
        // Without an order it is that of the search, and that is to be the same too.
        text.push_str([" WITHHASH", " WITHCOORD ASC", " COUNT 5 ANY", " COUNT 7 DESC"][rng.usize(..4)]);
        line(text);
    }
    table
}
