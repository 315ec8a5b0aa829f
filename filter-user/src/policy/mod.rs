//! The policy file: `load` reads it with all its files, finds every fault at once, and hands out a checked
//! `Policy` that nothing after it needs to check again.
//!
//! Flow: files -> schema (a walk by the table of keys) -> validate -> model. Pure but for `files`: no
//! clock, no network, no interface; what is needed of the host is in `LoadContext`.

pub mod bounds;
mod diagnostic;
pub mod enforced;
mod files;
mod keys;
mod load;
pub mod model;
pub(crate) mod prefix;
mod print;
mod reference;
mod render;
mod report;
mod schema;
pub(crate) mod secret;
mod source;
mod sources_file;
mod suggest;
pub(crate) mod units;
mod validate;
mod words;

#[cfg(test)]
mod tests;

pub use diagnostic::{Diagnostic, Severity};
pub use enforced::{NotEnforced, entry_error, not_enforced, not_enforced_warnings};
pub use files::{DiskFiles, Files, MemoryFiles};
pub(crate) use files::{open_regular, read_regular};
pub use load::{LoadContext, Loaded, load, load_from};
pub use model::Policy;
pub(crate) use prefix::prefix_from_text;
pub use print::print;
pub use reference::reference;
pub use render::{Colour, render, render_lines};
pub use report::check_report_json;
pub(crate) use schema::compile_id_pattern;
pub use source::SourceFile;
pub(crate) use validate::share_port;

/// Any bytes as a policy file: never panics, whatever they are.
#[cfg(any(test, fuzzing))]
pub fn fuzz(data: &[u8]) {
    let root = std::path::PathBuf::from("policy.toml");
    let files = MemoryFiles::new([(root.clone(), data.to_vec())]);
    let loaded = load_from(&files, &root, &LoadContext::at(jiff::Timestamp::UNIX_EPOCH));
    let _ = (
        render(&loaded, Colour::Never),
        render_lines(&loaded),
        check_report_json(&loaded),
    );
    if let Some(policy) = &loaded.policy {
        let _ = print(policy);
    }
}
