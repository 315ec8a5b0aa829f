//! Whether a slot is the one that is looked for, as a mask: the slots of a line are asked without a branch for each.
//!
//! Which one it is cannot be foreseen, and a wrong guess, told only when the line has come from memory, costs more than to
//! ask them all.

/// All of the upper 32 bits where both are equal, and none of them else.
#[inline(always)]
pub(super) const fn above_if_equal(one: u32, other: u32) -> u64 {
    ((one ^ other) as u64).wrapping_sub(1)
}

/// As `above_if_equal`, where no bit of `differs` is set.
#[inline(always)]
pub(super) const fn above_if_none(differs: u64) -> u64 {
    above_if_equal((differs >> 32) as u32 | differs as u32, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_equal_has_all_upper_bits() {
        for number in [0, 1, 0x8000_0000, u32::MAX] {
            assert_eq!(above_if_equal(number, number) >> 32, 0xffff_ffff);
            for other in [0, 1, 2, 0x8000_0000, u32::MAX] {
                assert_eq!(above_if_equal(number, other) >> 32 != 0, number == other);
            }
        }
        assert_eq!(above_if_none(0) >> 32, 0xffff_ffff);
        for bit in 0..64 {
            assert_eq!(above_if_none(1 << bit) >> 32, 0, "bit {bit}");
        }
    }
}
