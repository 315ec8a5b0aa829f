//! The part's figures beside what is to be reached.

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use super::figures::{Authorize, Bindings};
use crate::figures::Percentiles;

/// One row a figure.
pub(crate) fn table(of: &Bindings) -> Table {
    let mut table = Table::new();
    table
        .load_preset(ASCII_MARKDOWN)
        .set_header(["what", "measured", "to be reached"]);
    for (what, measured, wanted) in rows(of) {
        table.add_row([what, measured, wanted.to_owned()]);
    }
    table
}

/// What, measured, to be reached.
fn rows(of: &Bindings) -> Vec<(String, String, &'static str)> {
    let times =
        |ms: &Percentiles| format!("half {:.2}, p99 {:.2}, most {:.2} ms", ms.half, ms.of_99, ms.most);
    let rate = |lines: usize, seconds: f64| format!("{:.0}/s ({seconds:.1} s)", lines as f64 / seconds);
    let mut rows = vec![
        (
            format!("batch of {}", crate::short(of.batch.lines)),
            rate(of.batch.lines, of.batch.seconds),
            "100000/s",
        ),
        (
            "memory a binding".to_owned(),
            format!(
                "{:.0} B, most {:.0} B",
                of.bytes_a_binding, of.peak_bytes_a_binding
            ),
            "600 B",
        ),
        (
            format!("full sync, {} other", of.sync_changed),
            format!("{:.2} s, {} generations", of.sync.seconds, of.sync_generations),
            "5 s, no generation",
        ),
        (
            format!("PUT, {} clients", of.puts.clients),
            format!("{:.0}/s, {}", of.puts.a_second, times(&of.puts.ms)),
            "3000/s",
        ),
        ("fsync alone".to_owned(), times(&of.fsync_ms), ""),
        ("PUT, one client".to_owned(), times(&of.put_alone_ms), ""),
        (
            "the same beside another's batch".to_owned(),
            times(&of.put_beside_batch_ms),
            "at most 50 ms more",
        ),
        (
            "the same beside another's full sync".to_owned(),
            times(&of.put_beside_sync_ms),
            "at most 50 ms more",
        ),
        (
            "restart".to_owned(),
            format!(
                "{:.2} s; {} of {} looks found no filter",
                of.restart.seconds, of.restart.looks_without_filter, of.restart.looks
            ),
            "3 s, none",
        ),
    ];
    let restart = rows.pop();
    rows.extend(authorize(&of.authorize, times));
    rows.extend(restart);
    rows
}

fn authorize(of: &Authorize, times: impl Fn(&Percentiles) -> String) -> Vec<(String, String, &'static str)> {
    vec![
        (
            "authorize, the daemon's CPU".to_owned(),
            format!("{:.1} us at {:.0}/s", of.cpu_us, of.a_second),
            "20 us",
        ),
        (
            "a read and a write alone".to_owned(),
            format!("{:.1} us", of.floor_cpu_us),
            "",
        ),
        ("authorize".to_owned(), times(&of.ms), ""),
        ("a read and a write alone".to_owned(), times(&of.floor_ms), ""),
        (
            "the same beside a full sync".to_owned(),
            format!(
                "{} at {:.0}/s",
                times(&of.beside_sync_ms),
                of.beside_sync_a_second
            ),
            "p99 1 ms at 10000/s",
        ),
        (
            "a read and a write beside it".to_owned(),
            times(&of.floor_beside_sync_ms),
            "",
        ),
    ]
}
