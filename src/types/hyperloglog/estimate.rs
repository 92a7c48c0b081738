//! From registers to a cardinality: Otmar Ertl's improved estimator ("New cardinality estimation algorithms for
//! HyperLogLog sketches", arXiv:1702.01284), which needs no tables and no special cases.
//!
//! What must stay true: every operation is rounded as in Redis, so that both say the same number.

use crate::types::hyperloglog::{REGISTERS, RUN_BITS};

/// 1 / (2 ln 2).
const ALPHA: f64 = 0.721_347_520_444_481_7;

/// How many registers have each value.
pub struct Histogram([u32; 64]);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram([0; 64])
    }
}

impl Histogram {
    /// Counts `count` registers of a value, which is less than 64.
    #[inline]
    pub fn add(&mut self, value: u8, count: u32) {
        self.0[usize::from(value & 63)] += count;
    }
}

/// How many elements leave registers like these. Their number must be that of all registers.
pub fn cardinality(histogram: &Histogram) -> u64 {
    let m = REGISTERS as f64;
    let of = |value: u32| f64::from(histogram.0[value as usize]);
    let mut z = m * tau((m - of(RUN_BITS + 1)) / m);
    for value in (1..=RUN_BITS).rev() {
        z = (z + of(value)) * 0.5;
    }
    z += m * sigma(of(0) / m);
    (ALPHA * m * m / z).round() as u64
}

/// What the registers that are still zero add.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// What the registers that cannot rise any more take away.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}
