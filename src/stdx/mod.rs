//! Tools that know no Redis: clock, random numbers, numbers as text, glob patterns, checksums, memory.

pub mod words;
