//! What the tests upgrade to: the same program with tables, store and policies of formats that no release has.

use std::process::ExitCode;

fn main() -> ExitCode {
    filter_user::cli::main()
}
