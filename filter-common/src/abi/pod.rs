//! Marks the shared values as plain bytes, so that user space may copy them in and out of maps.
#![allow(
    unsafe_code,
    reason = "the marker trait is unsafe; the reasons stand at each type"
)]

use super::{
    Class, Count, Limit, LimitSet, Meta, Owner, OwnerState, RecordHead, RunAnswer, RunContext, Service,
    ServiceState, Source, Switch,
};
use crate::capture::{Counts, Wanted};

macro_rules! pod {
    ($($type:ty),* $(,)?) => {
        // SAFETY: repr(C) structs of integers and arrays of them, without padding (the size asserts beside
        // their definitions would fail) and without invalid bit patterns.
        $(unsafe impl aya::Pod for $type {})*
    };
}

pod!(
    Class,
    Count,
    Counts,
    Limit,
    LimitSet,
    Meta,
    Owner,
    OwnerState,
    RecordHead,
    RunAnswer,
    RunContext,
    Service,
    ServiceState,
    Source,
    Switch,
    Wanted,
);
