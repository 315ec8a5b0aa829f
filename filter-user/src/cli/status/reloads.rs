//! What became of the last reload, and what the next would do.

use std::fmt::Write;

use super::FILE_INVALID;
use super::answer::{Interface, Status};
use crate::cli::shell::{Shell, Tone};

/// Of an error, behind its first.
const ERROR_LINES_SHOWN: usize = 3;

/// What became of the last reload, and what to do about it.
pub(super) fn reloads(page: &mut String, status: &Status, gone: bool, shell: &Shell) {
    let policy = &status.policy;
    if !policy.reload_ok {
        let error = policy.last_error.as_deref().unwrap_or("see the daemon's log");
        let mark = shell.paint(Tone::Bad, "!");
        let at_start = status
            .not_ready
            .iter()
            .any(|reason| reason.starts_with(FILE_INVALID));
        let what = match at_start {
            true => "the policy file was invalid at the start, and the last confirmed policy serves for all",
            false => "the last reload changed nothing",
        };
        let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(page, "  {mark} {what}: {first}");
        for line in lines.by_ref().take(ERROR_LINES_SHOWN) {
            let _ = writeln!(page, "      {line}");
        }
        if lines.next().is_some() {
            // It asks the guard as well, which `check` does not know.
            let _ = writeln!(page, "    `keyfence plan {}` shows all", policy.file);
        }
    }
    let advice = match (gone, policy.reload_ok) {
        (true, _) => "the policy's file is gone: put it back, then `keyfence reload`",
        // What to do is said already.
        (false, _) if taken_off(status) || was_detached(status) => return,
        (false, false) => "mend the file, then `keyfence reload`",
        (false, true) if policy.file_error.is_some() => {
            let fault = policy.file_error.as_deref().unwrap_or_default();
            let fault = fault
                .lines()
                .map(str::trim)
                .find(|line| !line.is_empty())
                .unwrap_or_default();
            let mark = shell.paint(Tone::Warning, "!");
            let _ = writeln!(
                page,
                "  {mark} a reload or a start would not take the file: {fault}"
            );
            return;
        }
        (false, true) if policy.file_differs => {
            "the file says something else than what is in force: `keyfence plan FILE` shows what `keyfence reload` would change"
        }
        (false, true) => return,
    };
    let _ = writeln!(page, "  {} {advice}", shell.paint(Tone::Warning, "!"));
}

/// Whether no interface is filtered any more, and for no cause that the daemon knows.
pub(super) fn taken_off(status: &Status) -> bool {
    let unexplained = |interface: &Interface| {
        let bare = format!("interface {} is not filtered", interface.name);
        !interface.attached && status.not_ready.contains(&bare)
    };
    !status.interfaces.is_empty() && status.interfaces.iter().all(unexplained)
}

/// Whether a reload has met no filter; its error says what to do.
fn was_detached(status: &Status) -> bool {
    let error = status.policy.last_error.as_deref().unwrap_or_default();
    error.contains("restart the daemon")
}
