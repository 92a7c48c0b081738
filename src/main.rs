//! The server binary: arguments, configuration, exit code.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: spinel::stdx::memory::Counting<tikv_jemallocator::Jemalloc> =
    spinel::stdx::memory::Counting(tikv_jemallocator::Jemalloc);

#[cfg(not(feature = "jemalloc"))]
#[global_allocator]
static ALLOCATOR: spinel::stdx::memory::Counting<std::alloc::System> =
    spinel::stdx::memory::Counting(std::alloc::System);

fn main() -> ExitCode {
    spinel::server::standalone::main(std::env::args_os().collect())
}
