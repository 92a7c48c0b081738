//! What outlives the process: [`log`], every change in order; [`rdb`], data sets in Redis' own format;
//! [`saves`], what became of those; [`disk`], the one door to files.

pub mod disk;
pub mod log;
pub mod rdb;
pub mod saves;
