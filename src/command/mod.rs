//! Every command, and the way of a request to it.
