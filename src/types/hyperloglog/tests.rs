//! HyperLogLogs against a row of registers, against another crate's estimates, and against any bytes.

use std::collections::hash_map::RandomState;

use hyperloglogplus::{HyperLogLog as _, HyperLogLogPlus};
use proptest::prelude::*;

use super::*;

const SPARSE_MAX: usize = 3000;

fn add_all(hll: &mut Vec<u8>, elements: &[&[u8]], sparse_max: usize) -> Result<usize, Invalid> {
    add(hll, elements.iter().copied(), sparse_max)
}

/// The registers one by one.
fn values(hll: &[u8]) -> Vec<u8> {
    let mut registers = Registers::new();
    registers.merge(hll).unwrap();
    registers.values().to_vec()
}

#[test]
fn an_empty_one_is_a_run_of_zeros() {
    assert_eq!(empty(), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff");
    assert_eq!((cached(&empty()), count(&empty())), (Some(0), Ok(0)));
    assert_eq!(decode(&empty()), Ok(Some("Z:16384".into())));
}

#[test]
fn the_hash_is_the_one_that_redis_uses() {
    // As a Redis server shows them with PFDEBUG DECODE.
    let mut hll = empty();
    assert_eq!(add_all(&mut hll, &[b"a", b"b", b"c"], SPARSE_MAX), Ok(3));
    assert_eq!(decode(&hll), Ok(Some(DECODED_ABC.into())));
    assert_eq!(add_all(&mut hll, &[b"a", b"b", b"c"], SPARSE_MAX), Ok(0));
}

/// What `PFADD k a b c` leaves.
const DECODED_ABC: &str = "Z:8436 v:1,1 Z:4274 v:2,1 Z:3068 v:1,1 Z:603";

#[test]
fn a_change_makes_the_cardinality_stale_and_counting_does_not() {
    let mut hll = empty();
    add_all(&mut hll, &[b"x"], SPARSE_MAX).unwrap();
    assert_eq!((cached(&hll), count(&hll)), (None, Ok(1)));
    cache(&mut hll, 1);
    assert_eq!(cached(&hll), Some(1));
    invalidate(&mut hll);
    assert_eq!(cached(&hll), None);
}

#[test]
fn a_sparse_one_becomes_dense_where_it_would_be_too_long() {
    for limit in [0, 17, 18, 40, 300, 3000] {
        let mut hll = empty();
        for n in 0..4000u32 {
            add_all(&mut hll, &[&n.to_le_bytes()], limit).unwrap();
            if encoding(&hll) == Ok(Encoding::Sparse) {
                assert!(hll.len() <= limit.max(18));
            }
        }
        assert_eq!(encoding(&hll), Ok(Encoding::Dense));
        assert_eq!(hll.len(), HEADER + dense::BYTES);
    }
}

#[test]
fn estimates_are_as_near_as_those_of_another_implementation() {
    let mut other = HyperLogLogPlus::<u64, _>::new(14, RandomState::new()).unwrap();
    let mut hll = empty();
    let mut checkpoint = 10u64;
    for n in 1..=if cfg!(miri) { 100 } else { 200_000u64 } {
        other.insert(&n);
        add_all(&mut hll, &[&n.to_le_bytes()], SPARSE_MAX).unwrap();
        if n == checkpoint {
            let (ours, theirs) = (count(&hll).unwrap() as f64, other.count());
            // Six standard errors on either side; hardly ever are they that far apart.
            let allowed = (12.0 * 0.0081 * n as f64).max(2.0);
            assert!((ours - theirs).abs() <= allowed, "{ours} and {theirs} of {n}");
            assert!((ours - n as f64).abs() <= allowed / 2.0 + 1.0, "{ours} of {n}");
            checkpoint *= 2;
        }
    }
}

#[test]
fn what_is_no_hyperloglog_is_refused() {
    let dense = {
        let mut hll = empty();
        to_dense(&mut hll).unwrap();
        hll
    };
    for bytes in [&b""[..], b"HYLL", b"HYLK\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff", &dense[1..], &dense[..dense.len() - 1]]
    {
        assert_eq!(encoding(bytes), Err(Invalid::Header));
        assert_eq!(count(bytes), Err(Invalid::Header));
    }
    let mut unknown = dense.clone();
    unknown[ENCODING_AT] = 2;
    assert_eq!(encoding(&unknown), Err(Invalid::Header));
    // Too few registers, too many, none.
    for tail in [&b"\x7f\xfe"[..], b"\x7f\xff\x00", b"\x7f\xff\x80", b""] {
        let hll = [&empty()[..HEADER], tail].concat();
        assert_eq!(count(&hll), Err(Invalid::Registers));
    }
    let mut cut = [&empty()[..HEADER], b"\x7f"].concat();
    assert_eq!(add_all(&mut cut, &[b"a"], SPARSE_MAX), Err(Invalid::Registers));
}

#[test]
fn runs_beyond_the_last_register_are_refused() {
    let full = [0x7f, 0xff];
    for beyond in [&[0x80][..], &[0x00], &[0x40, 0x00], &[0x83, 0x80]] {
        let mut hll = empty();
        hll.truncate(HEADER);
        hll.extend_from_slice(&full);
        assert_eq!(Registers::new().merge(&hll), Ok(()));
        hll.extend_from_slice(beyond);
        assert_eq!(Registers::new().merge(&hll), Err(Invalid::Registers), "{beyond:?}");
        invalidate(&mut hll);
        assert_eq!(count(&hll), Err(Invalid::Registers), "{beyond:?}");
        assert_eq!(to_dense(&mut hll), Err(Invalid::Registers), "{beyond:?}");
    }
}

#[test]
fn the_test_of_itself_passes() {
    let mut test = selftest::SelfTest::new(fastrand::Rng::with_seed(7), SPARSE_MAX);
    // Not to its end, which takes seconds: beyond the registers, and two checkpoints into the estimates.
    for _ in 0..if cfg!(miri) { 1 } else { 230 } {
        assert_eq!(test.step(), Ok(false));
    }
}

/// A HyperLogLog as it may be found: right, or wrong in places.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let elements = prop::collection::vec(any::<u32>(), 0..400);
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    prop_oneof![
        (elements, any::<bool>(), flips, 0usize..3).prop_map(|(elements, dense, flips, cut)| {
            let mut hll = empty();
            for element in &elements {
                add_all(&mut hll, &[&element.to_le_bytes()], SPARSE_MAX).unwrap();
            }
            if dense {
                to_dense(&mut hll).unwrap();
            }
            for (at, byte) in flips {
                let at = at.index(hll.len());
                hll[at] = byte;
            }
            hll.truncate(hll.len() - cut);
            hll
        }),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|tail| [&empty()[..HEADER], &tail].concat()),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn both_encodings_hold_the_registers_of_a_plain_row(
        elements in prop::collection::vec(any::<u16>(), 0..600), limit in 18usize..1200,
    ) {
        let mut model = vec![0u8; REGISTERS];
        let (mut small, mut dense) = (empty(), empty());
        to_dense(&mut dense).unwrap();
        for element in &elements {
            let element = element.to_le_bytes();
            let (index, run) = place(&element);
            let raised = usize::from(model[index] < run);
            model[index] = model[index].max(run);
            prop_assert_eq!(add_all(&mut small, &[&element], limit), Ok(raised));
            prop_assert_eq!(add_dense(&mut dense, std::iter::once(&element[..])), Ok(raised));
        }
        prop_assert_eq!(&values(&small), &model);
        prop_assert_eq!(&values(&dense), &model);
        prop_assert_eq!(count(&small), count(&dense));
        let mut registers = Registers::new();
        registers.merge(&small).unwrap();
        prop_assert_eq!(Ok(registers.cardinality()), count(&small));
        let decoded = decode(&small).unwrap();
        prop_assert_eq!(decoded.is_some(), encoding(&small) == Ok(Encoding::Sparse));
    }

    #[test]
    fn merging_in_order_is_adding_one_by_one(
        a in prop::collection::vec(any::<u16>(), 0..400), b in prop::collection::vec(any::<u16>(), 0..400),
        limit in 18usize..1500, wanted in prop::sample::select(vec![Encoding::Dense, Encoding::Sparse]),
    ) {
        let (mut into, mut other) = (empty(), empty());
        for (hll, elements) in [(&mut into, &a), (&mut other, &b)] {
            for element in elements {
                add_all(hll, &[&element.to_le_bytes()], limit).unwrap();
            }
        }
        let mut registers = Registers::new();
        registers.merge(&other).unwrap();
        let mut expected = into.clone();
        if wanted == Encoding::Dense {
            to_dense(&mut expected).unwrap();
        }
        for (index, value) in registers.values().iter().enumerate().filter(|(_, value)| **value > 0) {
            raise(&mut expected, index, *value, limit).unwrap();
        }
        invalidate(&mut expected);
        merge_into(&mut into, &registers, wanted, limit).unwrap();
        prop_assert_eq!(into, expected);
    }

    #[test]
    fn no_bytes_lead_to_a_panic(
        hll in bytes(), elements in prop::collection::vec(any::<u32>(), 0..20), limit in 0usize..4000,
    ) {
        let _ = (count(&hll), decode(&hll), cached(&hll), to_dense(&mut hll.clone()));
        let mut registers = Registers::new();
        if registers.merge(&hll).is_ok() {
            registers.cardinality();
            let mut into = empty();
            prop_assert!(merge_into(&mut into, &registers, Encoding::Sparse, limit).is_ok());
        }
        let mut added = hll.clone();
        for element in elements {
            let _ = add_all(&mut added, &[&element.to_le_bytes()], limit);
        }
        let _ = merge_into(&mut added, &Registers::new(), Encoding::Dense, limit);
    }
}
