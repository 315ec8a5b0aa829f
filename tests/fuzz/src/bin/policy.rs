//! Any bytes as a policy file: read, judged, shown and printed without a panic.
#![no_main]

use keyfence_fuzz::{policy, seeds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: seeds::write(|| seeds::vectors().into_iter().map(|file| file.policy.into_bytes()).collect()),
    |data: &[u8]| policy::fuzz(data)
);
