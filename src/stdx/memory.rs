//! How much memory is allocated: a wrapper around the allocator that counts.
//!
//! Each thread owns a padded slot and is its only writer, so counting is a load and a store of a
//! line that stays in the core's cache (below a nanosecond). Sizes are those of the `Layout`, that
//! is, what was asked for, not what the allocator rounded it up to. Memory may be freed by another
//! thread than the one that took it, so a single slot means nothing; the sum over all does, exactly
//! so whenever no other thread is allocating.
//!
//! The allocator is called before `main`, while thread-locals are torn down and in signal handlers:
//! nothing here allocates, locks, initialises lazily or has a destructor. A slot is therefore never
//! given back; threads beyond the first 256 share one, with an atomic addition.
#![allow(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many threads of the process's lifetime have a slot of their own.
const SLOTS: usize = 256;

/// Two cache lines wide, because processors fetch lines in pairs.
#[repr(align(128))]
struct Slot(AtomicU64);

static USED: [Slot; SLOTS + 1] = [const { Slot(AtomicU64::new(0)) }; SLOTS + 1];
static NEXT: AtomicUsize = AtomicUsize::new(0);

const UNASSIGNED: usize = usize::MAX;

thread_local! {
    // Constant and without a destructor: reading it neither allocates nor fails, at any time of a thread's life.
    static MINE: Cell<usize> = const { Cell::new(UNASSIGNED) };
}

/// An allocator that counts what passes through it; [`used`] has the result.
#[derive(Debug, Default)]
pub struct Counting<A: GlobalAlloc>(pub A);

/// Bytes allocated and not freed through [`Counting`], by all threads.
///
/// Exact when no thread is allocating meanwhile, otherwise off by what is in flight. Reads all
/// slots that were ever used: cheap enough for every few milliseconds, not for every command.
pub fn used() -> usize {
    let threads = NEXT.load(Ordering::Relaxed).min(SLOTS);
    let own = USED[..threads].iter().map(|slot| slot.0.load(Ordering::Relaxed));
    let sum = own.fold(USED[SLOTS].0.load(Ordering::Relaxed), u64::wrapping_add);
    // A free may be seen before the allocation that it answers.
    (sum as i64).max(0) as usize
}

/// Bytes that this thread has taken and not given back, wrapping: what it frees for others makes it less. Says something
/// only as a difference, how much more or less it is than before.
#[inline]
pub fn used_by_this_thread() -> u64 {
    match MINE.get() {
        UNASSIGNED => 0,
        mine => USED[mine].0.load(Ordering::Relaxed),
    }
}

/// Whether memory is counted at all: false in a program that did not make [`Counting`] its allocator.
pub fn installed() -> bool {
    NEXT.load(Ordering::Relaxed) > 0
}

#[inline]
fn count(delta: u64) {
    let mine = MINE.get();
    if mine < SLOTS {
        // This thread is the only writer. A signal handler that allocates between load and store
        // is forgotten, which only a crash report does.
        let used = &USED[mine].0;
        used.store(used.load(Ordering::Relaxed).wrapping_add(delta), Ordering::Relaxed);
    } else {
        count_rare(mine, delta);
    }
}

#[cold]
#[inline(never)]
fn count_rare(mine: usize, delta: u64) {
    let slot = if mine == UNASSIGNED {
        let slot = NEXT.fetch_add(1, Ordering::Relaxed).min(SLOTS);
        MINE.set(slot);
        slot
    } else {
        mine
    };
    USED[slot].0.fetch_add(delta, Ordering::Relaxed);
}

// SAFETY: every call is passed on unchanged to an allocator that fulfils the contract; counting
// touches neither the memory nor the layout, cannot unwind and does not allocate.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of the inner allocator.
        let at = unsafe { self.0.alloc(layout) };
        if !at.is_null() {
            count(layout.size() as u64);
        }
        at
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those of the inner allocator.
        let at = unsafe { self.0.alloc_zeroed(layout) };
        if !at.is_null() {
            count(layout.size() as u64);
        }
        at
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those of the inner allocator.
        unsafe { self.0.dealloc(at, layout) };
        count((layout.size() as u64).wrapping_neg());
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are those of the inner allocator.
        let moved = unsafe { self.0.realloc(at, layout, new_size) };
        if !moved.is_null() {
            count((new_size as u64).wrapping_sub(layout.size() as u64));
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;
    use std::sync::atomic::AtomicPtr;
    use std::sync::{Mutex, PoisonError};

    /// The counters are the process's, so tests of exact figures take turns. The test binary does
    /// not install the allocator: only these tests count.
    static TURN: Mutex<()> = Mutex::new(());

    #[test]
    fn what_is_freed_is_subtracted_by_whichever_thread() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = used();
        let layout = Layout::from_size_align(1000, 8).unwrap();
        // SAFETY: the layout is not empty, and the block is freed with the layout it has by then.
        let at = AtomicPtr::new(unsafe { Counting(System).alloc(layout) });
        assert_eq!(used() - before, 1000);
        assert!(installed());
        std::thread::spawn(move || {
            // SAFETY: as above; nobody else uses the block.
            unsafe { Counting(System).dealloc(at.into_inner(), layout) }
        })
        .join()
        .unwrap();
        assert_eq!(used(), before);
    }

    #[test]
    fn a_block_that_grows_or_shrinks_counts_its_new_size() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = used();
        let counting = Counting(System);
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: sizes are not zero, and every call names the layout that the block has.
        unsafe {
            let at = counting.alloc_zeroed(layout(64));
            assert_eq!((*at, used() - before), (0, 64));
            let at = counting.realloc(at, layout(64), 4096);
            assert_eq!(used() - before, 4096);
            let at = counting.realloc(at, layout(4096), 16);
            assert_eq!(used() - before, 16);
            counting.dealloc(at, layout(16));
        }
        assert_eq!(used(), before);
    }

    #[test]
    fn threads_beyond_the_last_slot_are_counted_all_the_same() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = used();
        let threads = if cfg!(miri) { 4 } else { SLOTS + 10 };
        let counted = AtomicU64::new(0);
        let layout = Layout::from_size_align(24, 8).unwrap();
        for _ in 0..threads / 2 {
            let one = || {
                // SAFETY: the layout is not empty, and the blocks are freed below with it.
                unsafe {
                    let (a, b) = (Counting(System).alloc(layout), Counting(System).alloc(layout));
                    counted.fetch_add(48, Ordering::Relaxed);
                    Counting(System).dealloc(a, layout);
                    Counting(System).dealloc(b, layout);
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(one);
                scope.spawn(one);
            });
        }
        assert_eq!(counted.load(Ordering::Relaxed), threads as u64 / 2 * 96);
        assert_eq!(used(), before);
    }
}
