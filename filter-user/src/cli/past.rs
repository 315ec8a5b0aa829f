//! What goes past a policy that has just been put in force: `apply` names what `doctor` would, in a line each.
//!
//! Looked at with the caller's rights; what these do not reach is said.

use std::path::Path;

use super::shell::Shell;
use crate::doctor::{self, Finding, Host};
use crate::engine;

/// Beyond, they are counted.
const NAMED_MAX: usize = 10;

pub(super) fn warn(file: &Path, shell: &Shell) {
    // It was in force a moment ago; who has changed it since is told by the next command.
    let Some(policy) = engine::load_policy(file).policy else {
        return;
    };
    let host = Host::read();
    let found = doctor::past_the_filter(&policy, &host);
    for line in lines(&found, host.unseen()) {
        shell.say(&line);
    }
}

fn lines(found: &[Finding], unseen: &[String]) -> Vec<String> {
    let found: Vec<&Finding> = found.iter().filter(|finding| finding.degrades()).collect();
    let named = found.iter().take(NAMED_MAX);
    let mut lines: Vec<String> = named
        .map(|finding| {
            let (id, what) = (finding.definition.id, &finding.what);
            format!("warning: past the filter: {id}: {what}")
        })
        .collect();
    if let more @ 1.. = found.len().saturating_sub(NAMED_MAX) {
        lines.push(format!("warning: past the filter: {more} more"));
    }
    if !unseen.is_empty() {
        lines.push(format!(
            "note: past the filter: not looked at: {}",
            unseen.join("; ")
        ));
    }
    if !found.is_empty() {
        lines.push("note: `keyfence doctor` says what each means and what to do".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::definitions;

    #[test]
    fn findings_are_named_up_to_a_bound_and_notes_are_left_to_doctor() {
        let tunnel = |name: usize| Finding::new(&definitions::UNWRAPS, format!("vx{name} (vxlan)"));
        let note = Finding::new(&definitions::NAT_OTHER, "NAT");
        assert_eq!(lines(std::slice::from_ref(&note), &[]), [""; 0]);
        let advice = "note: `keyfence doctor` says what each means and what to do";
        assert_eq!(
            lines(&[tunnel(0), note], &["a: 1".to_owned(), "b".to_owned()]),
            [
                "warning: past the filter: unwraps: vx0 (vxlan)",
                "note: past the filter: not looked at: a: 1; b",
                advice
            ]
        );
        let many: Vec<Finding> = (0..12).map(tunnel).collect();
        let said = lines(&many, &[]);
        assert_eq!(said.len(), NAMED_MAX + 2);
        assert_eq!(said[NAMED_MAX..], ["warning: past the filter: 2 more", advice]);
    }
}
