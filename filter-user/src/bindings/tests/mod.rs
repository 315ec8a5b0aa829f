//! The bindings from outside: requests in, answers, kernel, store and audit log out.

mod fixture;
mod single;
