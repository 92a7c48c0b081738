//! What outlives the process: [`log`], every change in order; [`rdb`], data sets in Redis' own format;
//! [`disk`], the one door to files.

pub mod disk;
pub mod log;
pub mod rdb;
