//! The terminal, or what stands in its place: where commands write, and in which colours.

use std::io::{ErrorKind, IsTerminal, Write};

use clap::ColorChoice;

use super::exit::{Exit, Failure};

/// What a text is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Heading,
    Good,
    Warning,
    Bad,
}

impl Tone {
    /// A sequence of ECMA-48.
    fn sequence(self) -> &'static str {
        match self {
            Tone::Heading => "\x1b[1m",
            Tone::Good => "\x1b[32m",
            Tone::Warning => "\x1b[33m",
            Tone::Bad => "\x1b[31m",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shell {
    /// Whether standard output is coloured.
    pub(crate) colour_output: bool,
    /// Whether standard error is.
    pub(crate) colour_errors: bool,
}

impl Shell {
    pub(crate) fn new(choice: ColorChoice) -> Shell {
        // https://no-color.org: set to anything but the empty text.
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let decide = |terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && wanted,
        };
        Shell {
            colour_output: decide(std::io::stdout().is_terminal()),
            colour_errors: decide(std::io::stderr().is_terminal()),
        }
    }

    /// Writes data to standard output. A reader who has left (`| head`) is no failure; a full disk is.
    pub(crate) fn write(&self, text: &str) -> Result<(), Failure> {
        let mut output = std::io::stdout().lock();
        match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(
                Exit::Failed,
                format!("standard output cannot be written: {error}"),
            )),
            _ => Ok(()),
        }
    }

    /// Says something beside the data, on standard error.
    pub(crate) fn say(&self, text: &str) {
        // Nobody is left to tell if this cannot be written.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Says what went wrong.
    pub(crate) fn complain(&self, text: &str) {
        self.say(&format!(
            "{} {text}",
            paint(self.colour_errors, Tone::Bad, "error:")
        ));
    }

    /// A text for standard output, in its tone's colour.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.colour_output, tone, text)
    }
}

fn paint(colour: bool, tone: Tone, text: &str) -> String {
    if colour {
        format!("{}{text}\x1b[0m", tone.sequence())
    } else {
        text.to_owned()
    }
}
