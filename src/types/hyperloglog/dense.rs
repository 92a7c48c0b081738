//! Dense registers: six bits each, from the lowest bit of the first byte on; four lie in three bytes.

use crate::types::hyperloglog::REGISTERS;
use crate::types::hyperloglog::estimate::Histogram;

/// Bits of a register.
const BITS: usize = 6;
/// The largest value of a register.
const MAX: u32 = (1 << BITS) - 1;
/// Bytes of all registers.
pub const BYTES: usize = REGISTERS * BITS / 8;

/// The four registers in three bytes.
fn unpack(bytes: [u8; 3]) -> [u8; 4] {
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
    [0, 1, 2, 3].map(|n| (word >> (BITS * n) & MAX) as u8)
}

/// Sets a register.
pub fn set(registers: &mut [u8], index: usize, value: u8) {
    let at = index / 4 * 3;
    let shift = BITS * (index % 4);
    let word = u32::from_le_bytes([registers[at], registers[at + 1], registers[at + 2], 0]);
    let word = word & !(MAX << shift) | u32::from(value) << shift;
    registers[at..at + 3].copy_from_slice(&word.to_le_bytes()[..3]);
}

/// The value of a register.
pub fn value(registers: &[u8], index: usize) -> u8 {
    let at = index / 4 * 3;
    unpack([registers[at], registers[at + 1], registers[at + 2]])[index % 4]
}

/// Sets a register where that raises it; returns whether it does.
pub fn raise(registers: &mut [u8], index: usize, to: u8) -> bool {
    let higher = value(registers, index) < to;
    if higher {
        set(registers, index, to);
    }
    higher
}

/// Raises each of `into` to what it is here.
pub fn merge(registers: &[u8], into: &mut [u8; REGISTERS]) {
    for (packed, into) in registers.as_chunks::<3>().0.iter().zip(into.as_chunks_mut::<4>().0) {
        for (own, into) in unpack(*packed).into_iter().zip(into) {
            *into = own.max(*into);
        }
    }
}

/// Counts how often each value occurs.
pub fn fill(registers: &[u8], histogram: &mut Histogram) {
    // Four at a time: neighbours are often equal, and one would have to wait for the other's count.
    let mut apart = [const { [0u32; MAX as usize + 1] }; 4];
    for packed in registers.as_chunks::<3>().0 {
        for (value, counts) in unpack(*packed).into_iter().zip(&mut apart) {
            counts[usize::from(value)] += 1;
        }
    }
    for counts in &apart {
        counts.iter().enumerate().for_each(|(value, count)| histogram.add(value as u8, *count));
    }
}
