//! How many cases a randomised test runs: its own number, and ten times as many where `PROPTEST_CASES` is 2560, which
//! is ten times the library's.

use proptest::test_runner::Config;

const USUAL: u32 = 256;

/// Nothing is written beside the sources where a case fails: the test prints it.
pub(crate) fn cases(own: u32) -> Config {
    let library = Config::default();
    Config {
        cases: (own * library.cases).div_ceil(USUAL),
        failure_persistence: None,
        ..library
    }
}
