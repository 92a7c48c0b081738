//! Black-box tests over real sockets, one crate.
