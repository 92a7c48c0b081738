//! Sparse registers: runs of equal ones, in order, all 16384 of them.
//!
//! ```text
//! 00nnnnnn           n + 1 zeros
//! 01nnnnnn nnnnnnnn  n + 1 zeros
//! 1vvvvvnn           n + 1 registers of v + 1
//! ```
//!
//! What must stay true: a change makes just the runs that Redis would make of it, although shorter ones exist.

use std::fmt::Write as _;

use smallvec::SmallVec;

use crate::types::hyperloglog::estimate::Histogram;
use crate::types::hyperloglog::{HEADER, Invalid, REGISTERS, invalidate};

/// The largest value that a run can have.
const VALUE_MAX: u8 = 32;
/// The most registers in a run that are not zero.
const VALUES_MAX: usize = 4;
/// The most zeros in a run of one byte.
const ZEROS_MAX: usize = 64;
/// After a change so many runs, from the one before it on, are looked at for equal neighbours.
const LOOKED_AT: usize = 5;

const VALUES: u8 = 0x80;
const ZEROS_LONG: u8 = 0x40;

/// Some equal registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    value: u8,
    registers: usize,
    /// In how many bytes it is written.
    bytes: usize,
}

impl Run {
    /// The run whose bytes come first. Where its second byte is missing that reads as zero.
    fn first(bytes: &[u8]) -> Option<Run> {
        let byte = *bytes.first()?;
        Some(if byte & VALUES != 0 {
            Run { value: (byte >> 2 & 0x1f) + 1, registers: usize::from(byte & 3) + 1, bytes: 1 }
        } else if byte & ZEROS_LONG != 0 {
            let low = bytes.get(1).copied().unwrap_or(0);
            Run { value: 0, registers: (usize::from(byte & 0x3f) << 8 | usize::from(low)) + 1, bytes: 2 }
        } else {
            Run { value: 0, registers: usize::from(byte) + 1, bytes: 1 }
        })
    }

    /// So many registers of a value, in as few bytes as they need; nothing where there are none.
    fn write(value: u8, registers: usize, to: &mut SmallVec<[u8; 8]>) {
        let Some(n) = registers.checked_sub(1) else { return };
        if value > 0 {
            to.push(VALUES | (value - 1) << 2 | n as u8);
        } else if registers <= ZEROS_MAX {
            to.push(n as u8);
        } else {
            to.extend([ZEROS_LONG | (n >> 8) as u8, n as u8]);
        }
    }
}

fn runs(mut bytes: &[u8]) -> impl Iterator<Item = Run> {
    std::iter::from_fn(move || {
        let run = Run::first(bytes)?;
        bytes = &bytes[run.bytes.min(bytes.len())..];
        Some(run)
    })
}

/// Appends the runs of registers that are all zero.
pub fn append_empty(hll: &mut Vec<u8>) {
    let mut run = SmallVec::new();
    Run::write(0, REGISTERS, &mut run);
    hll.extend_from_slice(&run);
}

/// Raises each of `into` to what it is here.
pub fn merge(bytes: &[u8], into: &mut [u8; REGISTERS]) -> Result<(), Invalid> {
    let mut at = 0;
    for run in runs(bytes) {
        let into = into.get_mut(at..at + run.registers).ok_or(Invalid::Registers)?;
        if run.value > 0 {
            into.iter_mut().for_each(|register| *register = run.value.max(*register));
        }
        at += run.registers;
    }
    if at == REGISTERS { Ok(()) } else { Err(Invalid::Registers) }
}

/// Counts how often each value occurs.
pub fn fill(bytes: &[u8], histogram: &mut Histogram) -> Result<(), Invalid> {
    let mut all = 0;
    for run in runs(bytes) {
        all += run.registers;
        if all > REGISTERS {
            return Err(Invalid::Registers);
        }
        histogram.add(run.value, run.registers as u32);
    }
    if all == REGISTERS { Ok(()) } else { Err(Invalid::Registers) }
}

/// The runs in words.
pub fn describe(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in runs(bytes) {
        let separator = if text.is_empty() { "" } else { " " };
        let registers = run.registers;
        let written = match run {
            Run { value: 0, bytes: 1, .. } => write!(text, "{separator}z:{registers}"),
            Run { value: 0, .. } => write!(text, "{separator}Z:{registers}"),
            Run { value, .. } => write!(text, "{separator}v:{value},{registers}"),
        };
        written.expect("a String takes everything");
    }
    text
}

/// What became of the wish to raise a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raised {
    /// It is higher now, and the cached cardinality stale.
    Yes,
    /// It was as high.
    No,
    /// It would be, but it cannot be written so or would take too many bytes; nothing has changed.
    TooLarge,
}

/// Where a change was made: the run before it begins at this byte, with this register. What comes later in order is
/// searched from there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hint {
    at: usize,
    first: usize,
}

/// Raises the register at `index` to `to`, which is more than zero, where `hll` then takes `max_bytes` at most.
///
/// `hint` must be new, or have been given to a call for a lower index of the same registers.
pub fn raise(hll: &mut Vec<u8>, index: usize, to: u8, max_bytes: usize, hint: &mut Hint) -> Result<Raised, Invalid> {
    if to > VALUE_MAX {
        return Ok(Raised::TooLarge);
    }
    let Some((before, at, first, run)) = search(&hll[HEADER..], index, *hint) else { return Err(Invalid::Registers) };
    if run.value >= to {
        return Ok(Raised::No);
    }
    let mut instead = SmallVec::new();
    Run::write(run.value, index - first, &mut instead);
    Run::write(to, 1, &mut instead);
    Run::write(run.value, first + run.registers - 1 - index, &mut instead);
    if instead.len() > run.bytes && hll.len() + instead.len() - run.bytes > max_bytes {
        return Ok(Raised::TooLarge);
    }
    drop(hll.splice(HEADER + at..HEADER + at + run.bytes, instead));
    *hint = before.unwrap_or_default();
    join(hll, HEADER + hint.at);
    invalidate(hll);
    Ok(Raised::Yes)
}

/// The run that has the register at `index`: where the run before it is, where it is itself, its first register.
fn search(bytes: &[u8], index: usize, from: Hint) -> Option<(Option<Hint>, usize, usize, Run)> {
    let (mut before, mut here) = (None, from);
    loop {
        let run = Run::first(&bytes[here.at..])?;
        if index < here.first + run.registers {
            // With the run that was begun with, the one before it is not known.
            if before.is_none() && here.at > 0 {
                return search(bytes, index, Hint::default());
            }
            // A run whose second byte is missing cannot be changed.
            return (here.at + run.bytes <= bytes.len()).then_some((before, here.at, here.first, run));
        }
        before = Some(here);
        here = Hint { at: (here.at + run.bytes).min(bytes.len()), first: here.first + run.registers };
    }
}

/// Joins equal neighbours among the runs from `at` on, where one run can hold them.
fn join(hll: &mut Vec<u8>, mut at: usize) {
    for _ in 0..LOOKED_AT {
        let Some(run) = Run::first(hll.get(at..).unwrap_or_default()) else { break };
        let next = Run::first(&hll[(at + run.bytes).min(hll.len())..]);
        match next {
            Some(next) if run.value > 0 && next.value == run.value && run.registers + next.registers <= VALUES_MAX => {
                hll.remove(at);
                hll[at] = VALUES | (run.value - 1) << 2 | (run.registers + next.registers - 1) as u8;
            }
            _ => at += run.bytes,
        }
    }
}
