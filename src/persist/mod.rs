//! What outlives the process: [`log`], every change in order; [`disk`], the one door to files.

pub mod disk;
pub mod log;
