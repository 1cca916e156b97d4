//! The `logyard` binary.

use std::process::ExitCode;

/// Ingest allocates and frees small pieces on many threads, which it is faster at and gives back sooner.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    logyard::cli::main()
}
