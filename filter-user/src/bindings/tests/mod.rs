//! The bindings from outside.
