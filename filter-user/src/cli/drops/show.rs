//! Records, sums and a checked log as a person reads them.

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde_json::Value;

use crate::records::verify::Verified;

const HEADER: [&str; 8] = [
    "until", "verdict", "reason", "service", "source", "to", "packets", "bytes",
];

pub(super) fn page(answer: &Value, top: bool) -> String {
    let matched = &answer["matched"];
    let (dropped, observed) = (&matched["packets"]["drop"], &matched["packets"]["observe"]);
    let records = matched["records"].as_u64().unwrap_or(0);
    let hint = answer["hint"]
        .as_str()
        .map(|hint| format!("{hint}\n"))
        .unwrap_or_default();
    if records == 0 {
        let nothing = match answer["not_compared"].as_u64() {
            Some(1..) => "Nothing is known to match.",
            _ => "Nothing was dropped that matches.",
        };
        return format!("{nothing}\n{hint}");
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.force_no_tty();
    let rows = if top { &answer["top"] } else { &answer["records"] };
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    if top {
        table.set_header(["source", "packets", "bytes", "reasons", "services", "last"]);
        table.add_rows(rows.iter().map(top_row));
        right(&mut table, &[1, 2]);
    } else {
        table.set_header(HEADER);
        table.add_rows(rows.iter().map(record_row));
        right(&mut table, &[6, 7]);
    }
    let mut page = String::new();
    for line in table.lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
    page.push_str(&format!(
        "\n{records} records: {dropped} packets dropped, {observed} observed.\n"
    ));
    let shown = rows.len() as u64;
    if !top && shown < records {
        page.push_str(&format!(
            "The newest {shown} are shown; --limit shows more, --top adds up.\n"
        ));
    }
    if answer["top_beyond"].as_u64().unwrap_or(0) > 0 {
        page.push_str(
            "There were more sources than can be counted apart: some of these may have had more.\n",
        );
    }
    page + &hint
}

fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// To the millisecond; what is no time as it is.
fn time(value: &Value) -> String {
    let time = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    time.map_or_else(|| text(value), |time| format!("{time:.3}"))
}

fn end(end: &Value) -> String {
    let address = match &end["address"] {
        Value::Null => text(&end["ip"]),
        network => text(network),
    };
    match end["port"].as_u64() {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address,
    }
}

fn record_row(record: &Value) -> [String; 8] {
    let own = &record["keyfence"];
    let mut to = end(&record["destination"]);
    if let Some(transport) = record["network"]["transport"].as_str() {
        to = format!("{to}/{transport}");
    }
    [
        time(&record["event"]["end"]),
        text(&own["verdict"]),
        text(&own["reason"]),
        text(&own["service"]),
        end(&record["source"]),
        to,
        text(&record["network"]["packets"]),
        text(&record["network"]["bytes"]),
    ]
}

fn top_row(row: &Value) -> [String; 6] {
    let counted = |value: &Value| {
        let each = value.as_object().into_iter().flatten();
        let each: Vec<String> = each.map(|(name, packets)| format!("{name} {packets}")).collect();
        if each.is_empty() {
            "-".to_owned()
        } else {
            each.join(", ")
        }
    };
    let packets = [&row["packets"]["drop"], &row["packets"]["observe"]];
    let packets: u64 = packets.iter().filter_map(|packets| packets.as_u64()).sum();
    [
        text(&row["source"]),
        packets.to_string(),
        text(&row["bytes"]),
        counted(&row["reasons"]),
        counted(&row["services"]),
        time(&row["last"]),
    ]
}

/// One record as one line, for a stream.
pub(super) fn line(record: &Value) -> String {
    format!("{}\n", record_row(record).join("  "))
}

pub(super) fn whole(verified: &Verified) -> String {
    let Verified {
        records,
        checkpoints,
        packets,
        unvouched,
        torn_bytes,
        checkpoint,
        ..
    } = verified;
    let whole = match (checkpoints, unvouched) {
        (0, 1..) => "In order, with no checkpoint yet",
        (_, 1..) => "Whole up to its last checkpoint",
        _ => "Whole",
    };
    let mut text = format!("{whole}: {records} records of {packets} packets, {checkpoints} checkpoints.\n");
    if let Some(checkpoint) = checkpoint {
        text.push_str(&format!(
            "The last checkpoint is {checkpoint}: kept elsewhere, `--checkpoint` finds by it that the end was cut off.\n"
        ));
    }
    if *unvouched > 0 {
        text.push_str(&format!(
            "The last {unvouched} records have no checkpoint behind them yet: they are in order, and nothing more is known.\n"
        ));
    }
    if *torn_bytes > 0 {
        text.push_str(&format!(
            "The last line was torn after {torn_bytes} bytes, as by a crash: the daemon writes it again.\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn log_is_called_whole_as_far_as_a_checkpoint_says_so() {
        let of = |checkpoints, unvouched| {
            whole(&Verified {
                records: 5,
                checkpoints,
                unvouched,
                ..Verified::default()
            })
        };
        assert!(of(1, 0).starts_with("Whole: 5 records"));
        let part = of(1, 2);
        assert!(
            part.starts_with("Whole up to its last checkpoint: 5 records")
                && part.contains("The last 2 records")
        );
        assert!(of(0, 5).starts_with("In order, with no checkpoint yet: 5 records"));
    }

    #[test]
    fn records_and_sums_have_a_row_each() {
        let record = json!({
            "event": { "end": "2026-11-22T12:00:00Z" },
            "source": { "ip": "2001:db8::1", "port": 5 },
            "destination": { "ip": "203.0.113.10", "port": 443 },
            "network": { "transport": "tcp", "packets": 7, "bytes": 420 },
            "keyfence": { "verdict": "drop", "reason": "unlisted", "service": "web" },
        });
        let matched = json!({ "records": 3, "packets": { "drop": 9, "observe": 0 } });
        let found = page(&json!({ "records": [record.clone()], "matched": matched }), false);
        for part in [
            "[2001:db8::1]:5",
            "203.0.113.10:443/tcp",
            "unlisted",
            "web",
            "3 records: 9 packets dropped",
            "newest 1",
        ] {
            assert!(found.contains(part), "{part}: {found}");
        }
        let row = json!({ "source": "10.0.0.0/16", "packets": { "drop": 5, "observe": 2 }, "reasons": { "denied": 7 } });
        let found = page(
            &json!({ "top": [row], "matched": matched, "top_beyond": 1 }),
            true,
        );
        for part in ["10.0.0.0/16", "7", "denied 7", "more sources"] {
            assert!(found.contains(part), "{part}: {found}");
        }
        assert!(line(&record).starts_with("2026-11-22T12:00:00.000Z  drop  unlisted  web"));
        assert_eq!(page(&json!({}), false), "Nothing was dropped that matches.\n");
        let hidden = json!({ "not_compared": 5, "hint": "Five are hidden." });
        assert_eq!(
            page(&hidden, false),
            "Nothing is known to match.\nFive are hidden.\n"
        );
    }
}
