//! The daemon's log: what is written where, and how loud.
//!
//! To standard error, always: text for people on a terminal, one JSON object a line for collectors. Set up once,
//! at the start of `run`; the records of the `log` crate (the kernel program's own lines) come along.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The variable that sets the level where `--log-level` is not given.
pub const LEVEL_VARIABLE: &str = "KEYFENCE_LOG";
/// The level where neither is given.
pub const LEVEL_DEFAULT: &str = "info";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text when standard error is a terminal, JSON lines otherwise.
    #[default]
    Auto,
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "{origin}: {text:?} is no log level{reason}; write error, warn, info, debug or trace, or one for a part \
         as in info,hyper=warn"
    )]
    Level {
        origin: &'static str,
        text: String,
        reason: String,
    },
    #[error("the log was set up twice: {0}; this is a fault of keyfence, please report it")]
    Twice(String),
}

/// Starts the log of this process. `level` is what `--log-level` was given; `colour` decides for text alone.
pub fn init(level: Option<&str>, format: Format, colour: bool) -> Result<(), LogError> {
    let variable = std::env::var(LEVEL_VARIABLE).ok();
    let filter = filter(level, variable.as_deref())?;
    let json = is_json(format, std::io::stderr().is_terminal());
    let written = |error: Box<dyn std::error::Error + Send + Sync>| LogError::Twice(error.to_string());
    if json {
        json_builder(filter, std::io::stderr).try_init().map_err(written)
    } else {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(colour)
            .with_target(false)
            .try_init()
            .map_err(written)
    }
}

type JsonBuilder<W> = tracing_subscriber::fmt::SubscriberBuilder<
    tracing_subscriber::fmt::format::JsonFields,
    tracing_subscriber::fmt::format::Format<tracing_subscriber::fmt::format::Json>,
    EnvFilter,
    W,
>;

fn json_builder<W>(filter: EnvFilter, writer: W) -> JsonBuilder<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(filter)
        .with_writer(writer)
}

fn is_json(format: Format, terminal: bool) -> bool {
    match format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !terminal,
    }
}

/// The argument before the variable before the default; an empty variable is one that is not set.
fn filter(argument: Option<&str>, variable: Option<&str>) -> Result<EnvFilter, LogError> {
    let (origin, text) = match (argument, variable) {
        (Some(text), _) => ("--log-level", text),
        (None, Some(text)) if !text.is_empty() => (LEVEL_VARIABLE, text),
        _ => ("the default", LEVEL_DEFAULT),
    };
    let fault = |reason: String| LogError::Level {
        origin,
        text: text.to_owned(),
        reason,
    };
    // A lone word that is no level would be read as a target's name, and silence everything else.
    if !text.contains(['=', ',', '[']) && text.parse::<tracing_subscriber::filter::LevelFilter>().is_err() {
        return Err(fault(String::new()));
    }
    EnvFilter::try_new(text).map_err(|error| fault(format!(": {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn argument_goes_before_variable_and_default() {
        assert_eq!(filter(Some("debug"), Some("warn")).unwrap().to_string(), "debug");
        assert_eq!(filter(None, Some("warn")).unwrap().to_string(), "warn");
        assert_eq!(filter(None, Some("")).unwrap().to_string(), LEVEL_DEFAULT);
        assert_eq!(filter(None, None).unwrap().to_string(), LEVEL_DEFAULT);
        assert!(filter(Some("info,hyper=warn"), None).is_ok());
    }

    #[test]
    fn word_that_is_no_level_is_refused_with_its_origin() {
        let error = filter(Some("loud"), None).unwrap_err().to_string();
        assert!(
            error.starts_with("--log-level: \"loud\" is no log level; write"),
            "{error}"
        );
        let error = filter(None, Some("keyfence=loud")).unwrap_err().to_string();
        assert!(error.starts_with("KEYFENCE_LOG: "), "{error}");
    }

    #[test]
    fn terminal_gets_text_and_anything_else_json() {
        assert!(!is_json(Format::Auto, true));
        assert!(is_json(Format::Auto, false));
        assert!(!is_json(Format::Text, false));
        assert!(is_json(Format::Json, true));
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0
                .lock()
                .expect("no writer panicked")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_line_holds_message_level_and_fields() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = json_builder(EnvFilter::new("info"), move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || tracing::warn!(interface = "eth0", "attached"));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "attached");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["interface"], "eth0");
    }
}
