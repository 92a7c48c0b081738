//! What PFSELFTEST asks: registers keep what is written, both encodings agree, the error is what it should be.

use fastrand::Rng;

use crate::types::hyperloglog::{
    Encoding, HEADER, REGISTERS, Registers, add, add_dense, count, dense, empty, encoding, to_dense,
};

/// How often all registers are written with random values and read back.
const ROUNDS: u32 = 1000;
/// How many elements are added.
const ELEMENTS: u64 = 10_000_000;
/// Elements of one [`SelfTest::step`].
const ELEMENTS_A_STEP: u64 = 10_000;
/// Rounds of one step.
const ROUNDS_A_STEP: u32 = 5;
/// The error must stay within so many standard errors.
const STANDARD_ERRORS: f64 = 6.0;

/// The test, run in steps of about a millisecond.
pub struct SelfTest {
    rng: Rng,
    rounds: u32,
    added: u64,
    /// The next number of elements at which the estimates are looked at.
    checkpoint: u64,
    seed: u64,
    sparse_max_bytes: usize,
    /// Dense from its beginning.
    dense: Vec<u8>,
    /// Sparse as long as it may be.
    other: Vec<u8>,
}

impl SelfTest {
    /// A test with chance of its own.
    pub fn new(rng: Rng, sparse_max_bytes: usize) -> SelfTest {
        let mut rng = rng;
        let seed = rng.u64(..);
        let mut dense = empty();
        to_dense(&mut dense).expect("what `empty` makes is valid");
        SelfTest { rng, rounds: 0, added: 0, checkpoint: 1, seed, sparse_max_bytes, dense, other: empty() }
    }

    /// Goes on; whether all is done.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn step(&mut self) -> Result<bool, String> {
        if self.rounds < ROUNDS {
            self.rounds += ROUNDS_A_STEP;
            return (0..ROUNDS_A_STEP).try_for_each(|_| self.round()).map(|()| false);
        }
        for _ in 0..ELEMENTS_A_STEP {
            self.added += 1;
            let element = (self.added ^ self.seed).to_le_bytes();
            let element = || std::iter::once(&element[..]);
            let valid =
                add_dense(&mut self.dense, element()).and(add(&mut self.other, element(), self.sparse_max_bytes));
            valid.map_err(|invalid| format!("TESTFAILED {invalid:?}"))?;
            if self.added == self.checkpoint {
                self.check()?;
                self.checkpoint *= 10;
            }
        }
        Ok(self.added >= ELEMENTS)
    }

    /// Every register is written, then every register read.
    fn round(&mut self) -> Result<(), String> {
        let mut packed = vec![0; dense::BYTES];
        let mut expected = Registers::new();
        for index in 0..REGISTERS {
            let value = self.rng.u8(..64);
            expected.0[index] = value;
            dense::set(&mut packed, index, value);
        }
        for (index, expected) in expected.0.iter().enumerate() {
            let found = dense::value(&packed, index);
            if found != *expected {
                return Err(format!("TESTFAILED Register {index} should be {expected} but is {found}"));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let n = self.added;
        if n < self.sparse_max_bytes as u64 / 2 && encoding(&self.other) != Ok(Encoding::Sparse) {
            return Err("TESTFAILED sparse encoding not used".into());
        }
        let estimate = count(&self.dense);
        if estimate != count(&self.other) {
            return Err("TESTFAILED dense/sparse disagree".into());
        }
        let error = estimate.unwrap_or(0).abs_diff(n);
        // With ten elements one that shares its register with another is unlikely, but happens.
        let allowed = match n {
            10 => 1,
            _ => (1.04 / (REGISTERS as f64).sqrt() * STANDARD_ERRORS * n as f64).ceil() as u64,
        };
        if error > allowed {
            return Err(format!("TESTFAILED Too big error. card:{n} abserr:{error}"));
        }
        debug_assert_eq!(self.dense.len(), HEADER + dense::BYTES);
        Ok(())
    }
}
