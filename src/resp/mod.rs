//! The wire format: requests in, replies out, RESP2 and RESP3, bytes only.
//!
//! [`request::Parser`] cuts what a client sent into requests, without copying; [`reply::Output`] holds
//! what is still to be sent to it; [`value::Value`] is a reply read back.

pub mod push;
pub mod reply;
pub mod request;
pub mod value;
