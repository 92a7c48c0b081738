//! Tools that know no Redis: clock, random numbers, numbers as text, glob patterns, partial sorting, checksums,
//! compression, memory, threads that wait for others, take short turns, or keep to their cores.

pub mod affinity;
pub mod clock;
pub mod crc;
pub mod glob;
pub mod hash;
pub mod lzf;
pub mod memory;
pub mod number;
pub mod partial_sort;
pub mod priority;
pub mod random;
pub mod ticks;
pub mod turns;
pub mod words;
