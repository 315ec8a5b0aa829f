//! Which way a large sync takes the kernel, and how far it is.

/// Which way the kernel is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    There,
    Back,
}

/// How far the kernel is: additions of all rows, then removals.
#[derive(Clone, Copy)]
pub(super) struct Pass {
    pub(super) way: Way,
    pub(super) removals: bool,
    pub(super) at: usize,
}

impl Pass {
    pub(super) fn begin(way: Way) -> Pass {
        Pass {
            way,
            removals: false,
            at: 0,
        }
    }
}
