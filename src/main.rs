//! The `logyard` binary.

fn main() {}
