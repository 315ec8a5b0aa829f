//! Any frames under many policies: the decision on the host against the oracle, which shares no code with it.
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
/// Vectors of one file that follow each other share buckets.
const FRAMES_MAX: usize = 4;

// The number of the policy, then frames, each behind its length in two bytes.
fuzz_target!(
    init: seeds::write(|| {
        let vectors = seeds::vector_frames();
        let mut all = Vec::new();
        for window in vectors.windows(FRAMES_MAX) {
            let number = window[0].0;
            let frames = window.iter().take_while(|(other, _)| *other == number);
            all.push(input(number, frames.map(|(_, frame)| frame.as_slice())));
        }
        for (number, frame) in seeds::captured_frames().iter().enumerate() {
            let one = |step| input(number * 7 + step * 61, [frame.as_slice()].into_iter());
            all.extend((0..POLICIES_A_CAPTURE).map(one));
        }
        all
    }),
    |data: &[u8]| {
        let Some((number, rest)) = data.split_first() else { return };
        SUBJECTS.with(|subjects| subjects[usize::from(*number) % subjects.len()].compare(Frames(rest).take(FRAMES_MAX)));
    }
);

fn input<'a>(number: usize, frames: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = vec![number as u8];
    for frame in frames {
        bytes.extend((frame.len() as u16).to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

/// The frames of an input; the last may be shorter than it says.
#[derive(Clone)]
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (frame, rest) = rest.split_at(length);
        self.0 = rest;
        Some(frame)
    }
}
