//! A group that the kernel did not take because nothing judges packets any more: what lets nobody in is tried again by
//! itself.

use super::core::Core;
use super::job::{Job, Op};
use crate::bindings::refusal::Refusal;

/// What of these jobs is to be decided again, without the others; these are refused. Nothing of what was alone.
pub(super) fn parted(core: &mut Core, jobs: Vec<Job>, refusal: &Refusal) -> Vec<Vec<Job>> {
    let [mut revoking, mut reviews, mut others] = [Vec::new(), Vec::new(), Vec::new()];
    for job in jobs {
        let part = match &job {
            Job::Deny(_) | Job::Note(..) => &mut revoking,
            Job::Binding(job) => match job.op {
                Op::Delete { .. } => &mut revoking,
                // Time and policies let in as well as out.
                Op::Review => &mut reviews,
                Op::Put { .. } | Op::Renew { .. } => &mut others,
            },
            Job::Sync(_) | Job::Restore(_) => &mut others,
        };
        part.push(job);
    }
    let parts = [&revoking, &reviews, &others];
    let several = parts.iter().filter(|jobs| !jobs.is_empty()).count() > 1;
    core.refuse_all(others, refusal);
    let again = [revoking, reviews].into_iter().filter(|jobs| !jobs.is_empty());
    if several {
        return again.collect();
    }
    again.for_each(|jobs| core.refuse_all(jobs, refusal));
    Vec::new()
}
