//! The one binary.

use std::process::ExitCode;

// Millions of small rows that come and go: glibc's heap was most of a profile of a batch.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    filter_user::cli::main()
}
