//! Any frame under many policies: the decision on the host against the oracle, which shares no code with it.
#![no_main]

use keyfence_fuzz::{
    seeds,
    subject::{Subject, subjects},
};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static SUBJECTS: Vec<Subject> = subjects();
}
/// Captured frames are given to as many policies, spread over all.
const POLICIES_A_CAPTURE: usize = 2;

// The first byte is the number of the policy.
fuzz_target!(
    init: seeds::write(|| {
            let with = |number: usize, frame: &[u8]| [&[number as u8], frame].concat();
            let vectors = seeds::vector_frames();
            let mut all: Vec<_> = vectors.iter().map(|(number, frame)| with(*number, frame)).collect();
            for (number, frame) in seeds::captured_frames().iter().enumerate() {
                all.extend((0..POLICIES_A_CAPTURE).map(|step| with(number * 7 + step * 61, frame)));
            }
            all
    }),
    |data: &[u8]| {
        let Some((number, frame)) = data.split_first() else { return };
        SUBJECTS.with(|subjects| subjects[usize::from(*number) % subjects.len()].compare(frame));
    }
);
