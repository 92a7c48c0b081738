//! What outlives the process: [`log`], every change in order; [`aof`], that log as files; [`rdb`], data sets in
//! Redis' own format;
//! [`saves`], what became of those; [`disk`], the one door to files.

pub mod aof;
pub mod disk;
pub mod log;
pub mod rdb;
pub mod saves;
