//! Test runs: frames judged by the kernel program itself, touching no interface.
//!
//! A run context goes in front of the frame, where no packet can reach; the judge answers in its place.

use aya::TestRun as _;
pub use aya::programs::Xdp;
use aya::programs::{ProgramError, TestRunOptions};
use filter_common::abi::{ClockAnswer, MAGIC, RunAnswer, RunContext, run_flags};
use filter_common::verdict::{Judgement, Reason, Verdict};
use thiserror::Error;

use super::{bytes_of, chain};

/// Frames under 14 bytes are refused by the kernel's test run.
pub const FRAME_MIN: usize = 14;
/// What is said of a frame that does not fit into the kernel's test run.
pub const TOO_LONG: &str = "too long for the kernel's test run";
/// Every kernel's test run takes frames up to this: they fit into one page.
const FRAME_SURE: usize = 2048;

#[derive(Debug, Error)]
pub enum RunError {
    /// The kernel's words.
    #[error("the kernel's test run refuses the frame: {0}")]
    Refused(String),
    /// How much is taken depends on the kernel: it is asked, not known.
    #[error("{TOO_LONG}")]
    TooLong,
    #[error("the judge gave no answer: the program under test is no judge of this layout")]
    NoAnswer,
}

/// `struct xdp_md` as a test run takes it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Md {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Judges frames one after the other, reusing its buffers.
#[derive(Default)]
pub struct Runner {
    input: Vec<u8>,
    output: Vec<u8>,
}

const CONTEXT: usize = size_of::<RunContext>();

impl Runner {
    pub fn judge(&mut self, program: &Xdp, frame: &[u8], context: RunContext) -> Result<Judgement, RunError> {
        self.run(program, frame, context)?;
        let answer: RunAnswer = from_bytes(&self.output[..CONTEXT]);
        // An unanswered context still has its own words where the verdict would be.
        judgement(&answer)
            .filter(|_| self.output[..CONTEXT] != self.input[..CONTEXT])
            .ok_or(RunError::NoAnswer)
    }

    /// How the program tells the time.
    pub fn clock(&mut self, program: &Xdp) -> Result<ClockAnswer, RunError> {
        let context = RunContext {
            flags: run_flags::CLOCK | run_flags::DRY | run_flags::NO_SOCKETS,
            ..RunContext::default()
        };
        self.run(program, &[0; FRAME_MIN], context)?;
        let answer: ClockAnswer = from_bytes(&self.output[..CONTEXT]);
        let is_answered = answer.magic == MAGIC && self.output[..CONTEXT] != self.input[..CONTEXT];
        is_answered.then_some(answer).ok_or(RunError::NoAnswer)
    }

    /// Leaves the answer at the start of the output.
    fn run(&mut self, program: &Xdp, frame: &[u8], context: RunContext) -> Result<(), RunError> {
        let context = RunContext {
            magic: MAGIC,
            ..context
        };
        self.input.clear();
        self.input.extend_from_slice(bytes_of(&context));
        self.input.extend_from_slice(frame);
        self.output.resize(self.input.len(), 0);
        let md = Md {
            data: CONTEXT as u32,
            data_end: self.input.len() as u32,
            ..Md::default()
        };
        let options = TestRunOptions {
            data_in: Some(&self.input),
            data_out: Some(&mut self.output),
            ctx_in: Some(bytes_of(&md)),
            ..TestRunOptions::default()
        };
        program
            .test_run(options)
            .map_err(|error| refused(&error, frame.len()))
            .map(drop)
    }
}

fn refused(error: &ProgramError, length: usize) -> RunError {
    let code = match error {
        ProgramError::SyscallError(call) => call.io_error.raw_os_error(),
        _ => None,
    };
    match code {
        Some(libc::E2BIG | libc::EINVAL | libc::ENOMEM | libc::EMSGSIZE) if length > FRAME_SURE => {
            RunError::TooLong
        }
        _ => RunError::Refused(chain(error)),
    }
}

fn judgement(answer: &RunAnswer) -> Option<Judgement> {
    if answer.magic != MAGIC {
        return None;
    }
    Some(Judgement {
        verdict: Verdict::from_number(u8::try_from(answer.verdict).ok()?)?,
        reason: Reason::from_number(u8::try_from(answer.reason).ok()?)?,
        service: answer.service,
        owner: answer.owner,
        bytes: answer.bytes,
    })
}

/// What a judge may answer with: integers alone.
trait Answer: Copy {}
impl Answer for RunAnswer {}
impl Answer for ClockAnswer {}

fn from_bytes<T: Answer>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>(), "the caller cuts a whole answer");
    // SAFETY: long enough, checked above; integers take any bytes, and the read needs no alignment.
    unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) }
}
