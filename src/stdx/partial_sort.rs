//! Sorting of which only a part is wanted: Bentley and McIlroy's quicksort ("Engineering a Sort Function", 1993), without
//! the parts that are outside.
//!
//! What must stay true: equal elements end up in the order in which Redis' sort, of the same descent, leaves them. That
//! fixes every choice of a pivot and every exchange; only what an enemy has arranged is sorted otherwise.

use std::cmp::Ordering;
use std::ops::Range;

/// Fewer are sorted by insertion.
const FEW: usize = 7;
/// Of more the pivot is a median of three medians.
const MANY: usize = 40;

/// Sorts so that the elements at the positions `wanted` are those that they would be if all were sorted.
///
/// O(n) for a few positions, O(n log n) for all.
pub fn partial_sort<T>(elements: &mut [T], wanted: Range<usize>, mut compare: impl FnMut(&T, &T) -> Ordering) {
    // So many halvings of halves that are none are no chance.
    let patience = 4 * (elements.len().max(2).ilog2() + 1);
    let mut parts = vec![(0..elements.len(), patience)];
    while let Some((part, patience)) = parts.pop() {
        if part.end <= wanted.start || wanted.end <= part.start {
            continue;
        }
        let elements = &mut elements[part.clone()];
        if elements.len() < FEW {
            insertion_sort(elements, &mut compare);
        } else if patience == 0 {
            elements.sort_by(&mut compare);
        } else {
            let (below, above) = partition(elements, &mut compare);
            // A single element needs no sorting.
            for (len, start) in [(above, part.end - above), (below, part.start)] {
                if len > 1 {
                    parts.push((start..start + len, patience - 1));
                }
            }
        }
    }
}

fn insertion_sort<T>(elements: &mut [T], compare: &mut impl FnMut(&T, &T) -> Ordering) {
    for end in 1..elements.len() {
        let mut at = end;
        while at > 0 && compare(&elements[at - 1], &elements[at]).is_gt() {
            elements.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// The position of the middle one of three elements.
fn median<T>(elements: &[T], (a, b, c): (usize, usize, usize), compare: &mut impl FnMut(&T, &T) -> Ordering) -> usize {
    let mut less = |one: usize, other: usize| compare(&elements[one], &elements[other]).is_lt();
    // Which of equal ones it is matters, and is not the same on both sides.
    if less(a, b) {
        if less(b, c) {
            b
        } else if less(a, c) {
            c
        } else {
            a
        }
    } else if less(c, b) {
        b
    } else if less(a, c) {
        a
    } else {
        c
    }
}

/// Parts the elements by one of them; returns how many are less and how many are greater: those are in front and
/// at the end, with what is equal between them.
fn partition<T>(elements: &mut [T], compare: &mut impl FnMut(&T, &T) -> Ordering) -> (usize, usize) {
    let len = elements.len();
    let (mut low, mut middle, mut high) = (0, len / 2, len - 1);
    if len > FEW {
        if len > MANY {
            let step = len / 8;
            low = median(elements, (low, low + step, low + 2 * step), compare);
            middle = median(elements, (middle - step, middle, middle + step), compare);
            high = median(elements, (high - 2 * step, high - step, high), compare);
        }
        middle = median(elements, (low, middle, high), compare);
    }
    elements.swap(0, middle);
    // Equal ones gather at both ends; between them those that are less, those not looked at, those that are greater.
    let (mut left_equal, mut next) = (1, 1);
    let (mut right_equal, mut end) = (len, len);
    loop {
        while next < end {
            match compare(&elements[next], &elements[0]) {
                Ordering::Greater => break,
                Ordering::Equal => {
                    elements.swap(left_equal, next);
                    left_equal += 1;
                }
                Ordering::Less => {}
            }
            next += 1;
        }
        while next < end {
            match compare(&elements[end - 1], &elements[0]) {
                Ordering::Less => break,
                Ordering::Equal => {
                    right_equal -= 1;
                    elements.swap(end - 1, right_equal);
                }
                Ordering::Greater => {}
            }
            end -= 1;
        }
        if next >= end {
            break;
        }
        elements.swap(next, end - 1);
        next += 1;
        end -= 1;
    }
    let (less, greater) = (next - left_equal, right_equal - next);
    let moved = left_equal.min(less);
    swap_ranges(elements, 0, next - moved, moved);
    let moved = greater.min(len - right_equal);
    swap_ranges(elements, next, len - moved, moved);
    (less, greater)
}

/// Exchanges so many elements from two positions on.
fn swap_ranges<T>(elements: &mut [T], one: usize, other: usize, count: usize) {
    (0..count).for_each(|i| elements.swap(one + i, other + i));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_elements_end_up_where_a_real_redis_leaves_them() {
        // What GEOSEARCH with ASC COUNT 20 told of sixty members at five places, twelve each.
        let mut elements: Vec<(u32, u32)> = (0..60).map(|i| (i / 12, i % 12)).collect();
        partial_sort(&mut elements, 0..20, |a, b| a.0.cmp(&b.0));
        let nearest = [1, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 2].map(|i| (0, i));
        let next = [11, 0, 1, 2, 3, 4, 5, 6].map(|i| (1, i));
        assert_eq!(elements[..20], [&nearest[..], &next].concat());
    }

    #[test]
    fn what_an_enemy_has_arranged_is_sorted_too() {
        // Each comparison decides as badly for quicksort as it can: McIlroy's adversary.
        let len = 20_000;
        let mut values = vec![usize::MAX; len];
        let (mut solid, mut candidate, mut asked) = (0, 0, 0u64);
        let mut elements: Vec<usize> = (0..len).collect();
        partial_sort(&mut elements, 0..len, |a, b| {
            asked += 1;
            if values[*a] == usize::MAX && values[*b] == usize::MAX {
                values[if *a == candidate { *a } else { *b }] = solid;
                solid += 1;
            }
            if values[*a] == usize::MAX {
                candidate = *a;
            } else if values[*b] == usize::MAX {
                candidate = *b;
            }
            values[*a].cmp(&values[*b])
        });
        assert!(elements.windows(2).all(|w| values[w[0]] <= values[w[1]]));
        assert!(asked < 4_000_000, "{asked} comparisons");
    }

    proptest! {
        #[test]
        fn the_wanted_are_those_of_a_whole_sort(
            elements in proptest::collection::vec(0..40u8, 0..300), from in 0..300usize, count in 0..300usize,
        ) {
            let wanted = from.min(elements.len())..(from + count).min(elements.len());
            let (mut sorted, mut ours) = (elements.clone(), elements);
            sorted.sort_unstable();
            partial_sort(&mut ours, wanted.clone(), u8::cmp);
            prop_assert_eq!(&ours[wanted.clone()], &sorted[wanted]);
            ours.sort_unstable();
            prop_assert_eq!(ours, sorted);
        }
    }
}
