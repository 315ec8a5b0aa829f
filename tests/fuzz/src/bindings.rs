//! What the compiler knows of the bindings: filter-user's own source, without the rest of its module.

#[path = "../../../filter-user/src/bindings/seam.rs"]
pub mod seam;
#[path = "../../../filter-user/src/bindings/sources.rs"]
mod sources;
