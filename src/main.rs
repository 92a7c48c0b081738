//! The server binary: arguments, configuration, exit code.

fn main() {}
