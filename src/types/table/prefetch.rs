//! Asking the processor for a cache line ahead of its use.
//!
//! A prefetch is a hint: it reads nothing the program can see, and it cannot fault whatever the address.
#![allow(unsafe_code)] // the intrinsic is an unsafe function; see `Table::prefetch` for what it brings

/// Starts loading the cache line that holds `address` into all cache levels. Any number may be given; one that
/// is no address costs a little time and does nothing. A no-op on machines other than x86-64.
#[inline(always)]
pub fn prefetch(address: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: PREFETCHT0 is part of SSE, which every x86-64 has; it raises no fault for any address and
        // has no effect that the program can observe.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::without_provenance(address)) }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}
