//! An explained packet as a page.

use std::fmt::Write as _;

use comfy_table::{Cell, Color, Table, presets};
use serde_json::Value;

use super::super::shell::{Shell, Tone};

/// A judgement in words: `pass, reason allowed, service payments, owner client/acme`.
fn shown(said: &Value) -> String {
    let text = |name: &str| said[name].as_str();
    let mut shown = format!(
        "{}, reason {}",
        text("verdict").unwrap_or("?"),
        text("reason").unwrap_or("?")
    );
    for what in ["service", "owner"] {
        if let Some(name) = text(what) {
            let _ = write!(shown, ", {what} {name}");
        }
    }
    shown
}

/// Where those who were asked do not say the same.
pub(super) fn difference(explained: &Value) -> Option<String> {
    if explained["agree"] == true {
        return None;
    }
    let said = [
        ("the reference", &explained["reference"]),
        ("the kernel program", &explained["kernel"]),
        ("the policy's entries, read one by one", &explained["read"]),
    ];
    let said = said
        .iter()
        .filter(|(_, said)| !said.is_null())
        .map(|(who, said)| format!("\n  {who}: {}", shown(said)));
    let frame = explained["frame"].as_str().unwrap_or_default();
    Some(format!(
        "THEY DO NOT AGREE: a fault of keyfence, please report it with the policy and the frame {frame}{}",
        said.collect::<String>()
    ))
}

/// Writing to a string cannot fail.
pub(super) fn page(explained: &Value, shell: &Shell) -> String {
    let text = |name: &str| explained[name].as_str();
    let mut page = String::new();
    let packet = match (text("from"), text("to")) {
        (Some(from), Some(to)) => format!("{from} to {to}"),
        _ => "a frame".to_owned(),
    };
    let tone = match text("verdict") {
        Some("pass") => Tone::Good,
        Some("drop") => Tone::Bad,
        _ => Tone::Warning,
    };
    let bytes = text("frame").unwrap_or_default().len() / 2;
    let interface = text("interface").unwrap_or_default();
    let _ = writeln!(page, "{packet}, {bytes} bytes on {interface}");
    if explained["detached"] == true {
        let warning = "the filter was detached: every packet passes until the daemon is started again; what follows is by the \
                       policy";
        let _ = writeln!(page, "{}", shell.paint(Tone::Warning, warning));
    }
    if explained["filtered"] == false {
        let warning = format!("{interface} is none of the policy's interfaces: nothing there is judged");
        let _ = writeln!(page, "{}", shell.paint(Tone::Warning, &warning));
    }
    let _ = writeln!(page, "{}\n", shell.paint(tone, &shown(explained)));
    let _ = writeln!(
        page,
        "{}\n{}",
        shell.paint(Tone::Heading, "Rules"),
        rules(explained, shell)
    );
    for kind in ["management", "deny", "service", "client", "binding"] {
        let entry = &explained["matched"][kind];
        if !entry.is_null() {
            page.push_str(&matched(kind, entry));
        }
    }
    let _ = writeln!(page, "\nreference       {}", shown(&explained["reference"]));
    let _ = match text("kernel_not_asked") {
        None => writeln!(page, "kernel program  {}", shown(&explained["kernel"])),
        Some(why) => writeln!(page, "kernel program  not asked: {why}"),
    };
    page
}

fn matched(kind: &str, entry: &Value) -> String {
    let place = |entry: &Value| match (entry["file"].as_str(), entry["line"].as_u64()) {
        (Some(file), Some(line)) => format!(" at {file}:{line}"),
        _ => String::from(", pushed"),
    };
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let mut page = format!("\n{kind} {}\n ", text(entry, "name"));
    let _ = writeln!(page, "{}", place(entry).trim_start_matches(','));
    let source = &entry["source"];
    if !source.is_null() {
        let _ = writeln!(page, "  by {}{}", text(source, "prefix"), place(source));
    }
    // Of a deny of run time.
    if let Some(owner) = entry["owner"].as_str() {
        let until = entry["ends_at"].as_str().unwrap_or("it is removed");
        let _ = writeln!(page, "  by {owner}, until {until}");
    }
    if let Some(reason) = entry["reason"].as_str() {
        let _ = writeln!(page, "  reason: {reason}");
    }
    if let Some(note) = entry["note"].as_str() {
        let _ = writeln!(page, "  note: {note}");
    }
    for (label, value) in entry["labels"].as_object().into_iter().flatten() {
        let _ = writeln!(page, "  {label}: {}", value.as_str().unwrap_or_default());
    }
    page
}

fn rules(explained: &Value, shell: &Shell) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for step in explained["rules"].as_array().into_iter().flatten() {
        let text = |name: &str| step[name].as_str().unwrap_or_default();
        let answer = Cell::new(text("answer"));
        let answer = match text("answer") {
            "yes" | "granted" | "paid" => answer.fg(Color::Green),
            "refused" => answer.fg(Color::Red),
            _ => answer,
        };
        let (number, name) = text("rule").split_once(' ').unwrap_or(("", text("rule")));
        table.add_row([
            Cell::new(name),
            Cell::new(format!("rule {number}")),
            answer,
            Cell::new(text("detail")),
        ]);
    }
    match shell.colour_output {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    let lines = table.lines().map(|line| format!(" {}", line.trim_end()));
    lines.collect::<Vec<_>>().join("\n")
}
