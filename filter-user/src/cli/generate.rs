//! `keyfence generate`: pages and scripts made from the program's own definitions.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap_complete::Shell as CompletionShell;

use super::exit::{Exit, Failure};
use super::shell::Shell;

/// The section of the manual that commands of operators are in.
const MAN_SECTION: &str = "8";

const AFTER_HELP: &str = "\
Exit codes:
  0  written
  1  failed
  2  wrong usage

Examples:
  keyfence generate man --output /usr/local/share/man/man8
  keyfence generate completions bash > /etc/bash_completion.d/keyfence
  keyfence generate metrics-reference > docs/METRICS.md";

/// Write man pages, shell completions and reference pages
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Man pages: one a verb into a folder, or the whole manual to standard output
    Man {
        /// The folder, made if it is missing
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
    },
    /// A completion script for a shell, to standard output
    Completions {
        #[arg(value_name = "SHELL")]
        shell: CompletionShell,
    },
    /// docs/POLICY.md: every key of the policy file
    PolicyReference,
    /// docs/METRICS.md: every metric
    MetricsReference,
    /// docs/API.md: every request, answer and error of the listeners
    ApiReference,
    /// docs/DOCTOR.md: everything that `keyfence doctor` finds
    DoctorReference,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    match &arguments.what {
        What::Man { output: Some(folder) } => write_pages(folder)?,
        What::Man { output: None } => {
            let pages: Vec<String> = pages()?.into_iter().map(|(_, page)| page).collect();
            shell.write(&pages.concat())?;
        }
        What::Completions { shell: of } => shell.write(&completions(*of)?)?,
        What::PolicyReference => shell.write(&crate::policy::reference())?,
        What::MetricsReference => shell.write(&crate::metrics::reference())?,
        What::ApiReference => shell.write(&crate::api::reference())?,
        What::DoctorReference => shell.write(&crate::doctor::reference())?,
    }
    Ok(Exit::Done)
}

fn completions(shell: CompletionShell) -> anyhow::Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "keyfence", &mut script);
    String::from_utf8(script).context("the completion script is no text; this is a fault of keyfence")
}

fn write_pages(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for (name, page) in pages()? {
        let path = folder.join(format!("{name}.{MAN_SECTION}"));
        std::fs::write(&path, page).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Name and text of each man page: the program's, then each verb's, and below those theirs.
fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut root = super::command();
    root.build();
    let mut pages = vec![(root.get_name().to_owned(), page(&root, root.get_name())?)];
    for verb in shown(&root) {
        let name = format!("{}-{}", root.get_name(), verb.get_name());
        pages.push((name.clone(), page(verb, &name)?));
        for part in shown(verb) {
            let name = format!("{name}-{}", part.get_name());
            pages.push((name.clone(), page(part, &name)?));
        }
    }
    Ok(pages)
}

fn shown(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
}

fn page(command: &clap::Command, name: &str) -> anyhow::Result<String> {
    let mut command = command.clone().display_name(name.to_owned());
    // Has no page of its own.
    if command.find_subcommand("help").is_some() {
        command = command.mut_subcommand("help", |help| help.hide(true));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .title(name.to_uppercase())
        .section(MAN_SECTION)
        .source(concat!("keyfence ", env!("CARGO_PKG_VERSION")))
        .manual("Keyfence")
        .render(&mut page)
        .context("a man page cannot be made")?;
    let page = String::from_utf8(page).context("a man page is no text; this is a fault of keyfence")?;
    Ok(sections(&page))
}

/// What help says last, under the headings that a manual has for it (man-pages(7)).
fn sections(page: &str) -> String {
    let page = page
        .replace("\nExit codes:\n", "\n.SH \"EXIT STATUS\"\n")
        .replace("\nExamples:\n", "\n.SH EXAMPLES\n")
        .replace("\nExample:\n", "\n.SH EXAMPLES\n");
    page.replace(".SH EXTRA\n.SH", ".SH")
        .replace(".SH EXTRA\n", ".SH NOTES\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn man_page_has_each_verb_and_each_verb_has_a_page() {
        let pages = pages().unwrap();
        let verbs = [
            "init", "check", "run", "reload", "status", "explain", "replay", "detach", "doctor", "observe",
            "generate", "version", "why", "bindings", "bind", "unbind", "deny", "undeny", "audit", "backup",
            "restore",
        ];
        for verb in verbs {
            assert!(
                pages[0].1.contains(&format!("keyfence\\-{verb}({MAN_SECTION})")),
                "{verb}: {}",
                pages[0].1
            );
            let name = format!("keyfence-{verb}");
            let (_, page) = pages.iter().find(|(found, _)| *found == name).unwrap();
            assert!(page.starts_with(".ie") || page.contains(".TH"), "{page}");
        }
        let (_, status) = pages.iter().find(|(name, _)| name == "keyfence-status").unwrap();
        assert!(
            status.contains("\\-\\-socket") && status.contains(".SH \"EXIT STATUS\""),
            "{status}"
        );
    }

    #[test]
    fn each_command_says_its_exit_codes() {
        let mut root = super::super::command();
        root.build();
        let without = |command: &clap::Command| {
            let help = command.get_after_help().map(ToString::to_string);
            !help.is_some_and(|help| help.contains("Exit codes:\n  0  "))
        };
        let verbs = shown(&root).filter(|verb| without(verb));
        // Parts of what only writes pages say nothing of their own.
        let parts = shown(&root)
            .filter(|verb| verb.get_name() != "generate")
            .flat_map(shown);
        let silent: Vec<&str> = verbs
            .chain(parts.filter(|part| without(part)))
            .map(clap::Command::get_name)
            .collect();
        assert_eq!(silent, [""; 0]);
    }

    #[test]
    fn man_pages_name_no_page_that_is_not_made() {
        let pages = pages().unwrap();
        for (name, page) in &pages {
            assert!(!page.contains("help(8)"), "{name}: {page}");
            assert!(
                !page.contains("SH EXTRA") && !page.contains("Exit codes:"),
                "{name}: {page}"
            );
        }
    }

    #[test]
    fn man_pages_go_into_a_folder_that_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("man/man8");
        write_pages(&folder).unwrap();
        assert!(folder.join("keyfence.8").exists() && folder.join("keyfence-generate-man.8").exists());
    }

    #[test]
    fn completions_of_each_shell_know_the_verbs() {
        for shell in [CompletionShell::Bash, CompletionShell::Zsh, CompletionShell::Fish] {
            let script = completions(shell).unwrap();
            assert!(script.contains("status") && script.contains("replay"), "{shell}");
        }
    }
}
