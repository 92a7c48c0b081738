//! HyperLogLogs: how many different elements were added, estimated with an error of 0.81 %, in Redis' own string.
//!
//! ```text
//! "HYLL" | encoding: 1 | zeros: 3 | cached cardinality: 8, little endian, its highest bit set where it is stale | registers
//! ```
//!
//! There are 16384 registers. An element's hash chooses one, which keeps the longest run of zeros that was met. They are
//! `dense`, six bits each, or `sparse`, runs of equal registers, until that takes more than the configured size.
//!
//! What must stay true: the bytes are those that Redis would have after the same commands, since GET, DUMP and
//! replicas show them; and no bytes whatever make these functions panic, since any string can be stored under a key.

mod dense;
mod estimate;
pub mod selftest;
mod sparse;

use crate::types::hyperloglog::estimate::{Histogram, cardinality};

/// How many registers there are.
pub const REGISTERS: usize = 1 << INDEX_BITS;
/// Bits of the hash that choose a register.
const INDEX_BITS: u32 = 14;
/// Bits of the hash that are searched for their first one.
const RUN_BITS: u32 = 64 - INDEX_BITS;
/// Bytes before the registers.
const HEADER: usize = 16;
const MAGIC: &[u8] = b"HYLL";
const ENCODING_AT: usize = 4;
const CARDINALITY_AT: usize = 8;
/// In the last byte of the cached cardinality: it has to be computed again.
const STALE: u8 = 0x80;
const HASH_SEED: u64 = 0xadc8_3b19;

/// A string that is no HyperLogLog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// It does not begin as one, or has another length than its encoding needs.
    Header,
    /// Its registers make no sense.
    Registers,
}

/// How the registers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Six bits each.
    Dense = 0,
    /// Runs of equal ones.
    Sparse = 1,
}

/// All registers, a byte each: what several are merged into.
pub struct Registers(Box<[u8; REGISTERS]>);

impl Registers {
    /// Those of a HyperLogLog to which nothing was added.
    pub fn new() -> Registers {
        Registers(Box::new([0; REGISTERS]))
    }

    /// Raises each to what it is in `hll`.
    ///
    /// # Errors
    /// [`Invalid`]; some may have been raised by then.
    pub fn merge(&mut self, hll: &[u8]) -> Result<(), Invalid> {
        match encoding(hll)? {
            Encoding::Dense => dense::merge(&hll[HEADER..], &mut self.0),
            Encoding::Sparse => sparse::merge(&hll[HEADER..], &mut self.0)?,
        }
        Ok(())
    }

    /// How many elements they have probably met.
    pub fn cardinality(&self) -> u64 {
        let mut histogram = Histogram::default();
        self.0.iter().for_each(|register| histogram.add(*register, 1));
        cardinality(&histogram)
    }

    /// Their values.
    pub fn values(&self) -> &[u8; REGISTERS] {
        &self.0
    }
}

impl Default for Registers {
    fn default() -> Registers {
        Registers::new()
    }
}

/// A HyperLogLog to which nothing was added: sparse, its cardinality known to be zero.
pub fn empty() -> Vec<u8> {
    let mut hll = vec![0; HEADER];
    hll[..MAGIC.len()].copy_from_slice(MAGIC);
    hll[ENCODING_AT] = Encoding::Sparse as u8;
    sparse::append_empty(&mut hll);
    hll
}

/// How the registers of a string are kept. Says nothing about whether they make sense.
///
/// # Errors
/// [`Invalid::Header`].
pub fn encoding(bytes: &[u8]) -> Result<Encoding, Invalid> {
    if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
        return Err(Invalid::Header);
    }
    match bytes[ENCODING_AT] {
        0 if bytes.len() == HEADER + dense::BYTES => Ok(Encoding::Dense),
        1 => Ok(Encoding::Sparse),
        _ => Err(Invalid::Header),
    }
}

/// The cardinality that was computed last, where nothing was added since.
pub fn cached(hll: &[u8]) -> Option<u64> {
    let field: [u8; 8] = hll.get(CARDINALITY_AT..HEADER)?.try_into().ok()?;
    (field[7] & STALE == 0).then(|| u64::from_le_bytes(field))
}

/// Keeps a cardinality in the string.
pub fn cache(hll: &mut [u8], cardinality: u64) {
    hll[CARDINALITY_AT..HEADER].copy_from_slice(&cardinality.to_le_bytes());
}

/// Says that the cardinality has to be computed again.
pub fn invalidate(hll: &mut [u8]) {
    hll[HEADER - 1] |= STALE;
}

/// How many elements were probably added, computed anew: tens of microseconds where it is dense.
///
/// # Errors
/// [`Invalid`].
pub fn count(hll: &[u8]) -> Result<u64, Invalid> {
    let mut histogram = Histogram::default();
    match encoding(hll)? {
        Encoding::Dense => dense::fill(&hll[HEADER..], &mut histogram),
        Encoding::Sparse => sparse::fill(&hll[HEADER..], &mut histogram)?,
    }
    Ok(cardinality(&histogram))
}

/// Adds elements; returns how many of them raised a register. Makes it dense where sparse it would be longer
/// than `sparse_max_bytes`.
///
/// # Errors
/// [`Invalid`]; what came before may have been added by then.
pub fn add<'a>(
    hll: &mut Vec<u8>,
    elements: impl Iterator<Item = &'a [u8]>,
    sparse_max_bytes: usize,
) -> Result<usize, Invalid> {
    encoding(hll)?;
    let mut raised = 0;
    for element in elements {
        let (index, run) = place(element);
        raised += usize::from(raise(hll, index, run, sparse_max_bytes)?);
    }
    Ok(raised)
}

/// The same where it is known to be dense, in place.
///
/// # Errors
/// [`Invalid`].
pub fn add_dense<'a>(hll: &mut [u8], elements: impl Iterator<Item = &'a [u8]>) -> Result<usize, Invalid> {
    if encoding(hll)? != Encoding::Dense {
        return Err(Invalid::Header);
    }
    let registers = &mut hll[HEADER..];
    let raised = elements.filter(|element| {
        let (index, run) = place(element);
        dense::raise(registers, index, run)
    });
    Ok(raised.count())
}

fn raise(hll: &mut Vec<u8>, index: usize, run: u8, sparse_max_bytes: usize) -> Result<bool, Invalid> {
    if encoding(hll)? == Encoding::Sparse {
        match sparse::raise(hll, index, run, sparse_max_bytes, &mut sparse::Hint::default())? {
            sparse::Raised::Yes => return Ok(true),
            sparse::Raised::No => return Ok(false),
            sparse::Raised::TooLarge => _ = to_dense(hll)?,
        }
    }
    Ok(dense::raise(&mut hll[HEADER..], index, run))
}

/// Raises each register of `hll` to what it is in `registers`; dense is what it becomes where it must, or where
/// `wanted` says so.
///
/// # Errors
/// [`Invalid`]; `hll` is to be thrown away then.
pub fn merge_into(
    hll: &mut Vec<u8>,
    registers: &Registers,
    wanted: Encoding,
    sparse_max_bytes: usize,
) -> Result<(), Invalid> {
    if wanted == Encoding::Dense {
        to_dense(hll)?;
    }
    // Registers come in order, so each search goes on where the last one ended.
    let mut hint = sparse::Hint::default();
    for (index, value) in registers.0.iter().enumerate().filter(|(_, value)| **value > 0) {
        if encoding(hll)? == Encoding::Sparse {
            match sparse::raise(hll, index, *value, sparse_max_bytes, &mut hint)? {
                sparse::Raised::Yes | sparse::Raised::No => continue,
                sparse::Raised::TooLarge => _ = to_dense(hll)?,
            }
        }
        dense::raise(&mut hll[HEADER..], index, *value);
    }
    invalidate(hll);
    Ok(())
}

/// Makes it dense; returns whether it was sparse.
///
/// # Errors
/// [`Invalid`]; it stays what it was.
pub fn to_dense(hll: &mut Vec<u8>) -> Result<bool, Invalid> {
    if encoding(hll)? == Encoding::Dense {
        return Ok(false);
    }
    let mut registers = Registers::new();
    registers.merge(hll)?;
    let mut dense = vec![0; HEADER + dense::BYTES];
    dense[..HEADER].copy_from_slice(&hll[..HEADER]);
    dense[ENCODING_AT] = Encoding::Dense as u8;
    for (index, value) in registers.0.iter().enumerate() {
        dense::set(&mut dense[HEADER..], index, *value);
    }
    *hll = dense;
    Ok(true)
}

/// The runs of a sparse one as PFDEBUG DECODE prints them, `Z:16000 v:1,2 z:382`; `None` where it is dense.
///
/// # Errors
/// [`Invalid::Header`].
pub fn decode(hll: &[u8]) -> Result<Option<String>, Invalid> {
    Ok(match encoding(hll)? {
        Encoding::Dense => None,
        Encoding::Sparse => Some(sparse::describe(&hll[HEADER..])),
    })
}

/// Which register an element belongs to, and the run that it shows: 1 to 51.
fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur64a(element, HASH_SEED);
    let index = hash as usize & (REGISTERS - 1);
    // A bit beyond the last ends a run of nothing but zeros.
    let rest = hash >> INDEX_BITS | 1 << RUN_BITS;
    (index, rest.trailing_zeros() as u8 + 1)
}

/// MurmurHash2 in its form for 64-bit machines, which reads little endian words.
fn murmur64a(bytes: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(M);
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> R
}

#[cfg(test)]
mod tests;
