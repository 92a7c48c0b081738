//! What outlives the process. The write log is where it begins: every change, in order.

pub mod log;
