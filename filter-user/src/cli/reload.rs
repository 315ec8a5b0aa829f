//! `keyfence reload`.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::{self, Call, SocketArguments};
use super::exit::{Exit, Failure};
use super::shell::Shell;

/// A policy of millions of sources takes its time; the daemon gives up at the same time.
const PATIENCE: Duration = Duration::from_secs(605);

const AFTER_HELP: &str = "\
The daemon reads the file that `keyfence run` was given, as on SIGHUP. A policy with faults changes nothing: what \
was in force stays so. The caller must be one of `[daemon] operators` (default: root).

Exit codes:
  0  the file is in force
  1  it could not be applied, or the caller is no operator
  3  the policy is invalid
  4  a guard refused it
  5  the daemon is not reachable

Example:
  keyfence check /etc/keyfence/keyfence.toml && keyfence reload";

/// Let the daemon apply its policy file again
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    daemon: SocketArguments,
    /// One JSON object: what is in force, or the problem
    #[arg(long)]
    json: bool,
}

/// What of the answer is told in words.
#[derive(Deserialize)]
struct Reloaded {
    detail: String,
    mode: Option<String>,
    mode_was: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, shell: &Shell) -> Result<Exit, Failure> {
    let call = Call {
        method: Method::POST,
        path: "/v1/reload".to_owned(),
        body: None,
    };
    let (object, result) = match client::answer(&arguments.daemon.socket, call, PATIENCE) {
        Ok(answer) if answer.is_success() => (answer.body.clone(), Ok(answer.body)),
        Ok(answer) => {
            let failure = client::refused(&answer);
            (problem(&answer.body, &failure).to_string(), Err(failure))
        }
        Err(failure) => (problem("", &failure).to_string(), Err(failure)),
    };
    if arguments.json {
        shell.write(&format!("{}\n", object.trim_end()))?;
    }
    let body = result?;
    if !arguments.json {
        shell.write(&format!("{}\n", told(&body)?))?;
    }
    Ok(Exit::Done)
}

/// The daemon's problem document as it is, or one of what kept it from answering.
fn problem(body: &str, failure: &Failure) -> Value {
    let mut object = match serde_json::from_str(body) {
        Ok(Value::Object(object)) => object,
        _ => Map::from_iter([("detail".to_owned(), Value::from(failure.text.as_str()))]),
    };
    object.insert("schema".to_owned(), 1.into());
    Value::Object(object)
}

fn told(body: &str) -> Result<String, Failure> {
    let answer: Reloaded = serde_json::from_str(body).map_err(|error| {
        let text = format!("the daemon's answer is not understood: {error}");
        Failure::new(Exit::Failed, text)
    })?;
    let mode = match (answer.mode, answer.mode_was) {
        (Some(mode), Some(was)) => format!(", mode {mode} (was {was})"),
        _ => String::new(),
    };
    let warnings = answer
        .warnings
        .iter()
        .map(|warning| format!("\nwarning: {warning}"));
    Ok(answer.detail + &mode + &warnings.collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mode_is_told_where_it_changes() {
        let mut answer =
            json!({ "schema": 1, "detail": "generation 8", "mode": "enforce", "mode_was": null });
        assert_eq!(told(&answer.to_string()).unwrap(), "generation 8");
        answer["mode_was"] = "observe".into();
        assert_eq!(
            told(&answer.to_string()).unwrap(),
            "generation 8, mode enforce (was observe)"
        );
        answer["warnings"] = json!(["a.toml:3:1: no client"]);
        assert!(
            told(&answer.to_string())
                .unwrap()
                .ends_with("\nwarning: a.toml:3:1: no client")
        );
        assert_eq!(
            told(r#"{"detail": "of an older daemon"}"#).unwrap(),
            "of an older daemon"
        );
    }

    #[test]
    fn failure_is_one_object_with_its_problem() {
        let failure = Failure::new(Exit::Unreachable, "no answer");
        assert_eq!(
            problem("", &failure),
            json!({ "schema": 1, "detail": "no answer" })
        );
        let body = r#"{"code": "policy-invalid", "detail": "a.toml:1:1"}"#;
        let object = problem(body, &failure);
        assert_eq!(
            object,
            json!({ "schema": 1, "code": "policy-invalid", "detail": "a.toml:1:1" })
        );
    }
}
