//! Counting verdicts and interfaces, on the CPU's own counters.

use filter_common::bounds::INTERFACES_MAX;

use crate::tables::{COUNTERS, INTERFACE_COUNT, INTERFACE_NUMBERS, INTERFACES};

/// Adds one packet to a verdict's counter of this CPU.
#[inline(always)]
pub fn count(index: u32, bytes: u32) {
    let Some(count) = COUNTERS.get_ptr_mut(index) else {
        return;
    };
    // SAFETY: a slot of this CPU's own: no other writes it, and XDP does not interrupt itself.
    let count = unsafe { &mut *count };
    count.packets += 1;
    count.bytes += bytes as u64;
}

/// Adds one packet to the counter of an interface and verdict; slot 0 is for interfaces not of the policy.
#[inline(always)]
pub fn count_interface(index: u32, verdict: u8) {
    let Some(counts) = INTERFACES.get_ptr_mut(interface_slot(index)) else {
        return;
    };
    // SAFETY: a slot of this CPU's own.
    let counts = unsafe { &mut *counts };
    counts[(verdict & 3) as usize] += 1;
}

#[inline(always)]
fn interface_slot(index: u32) -> u32 {
    let used = INTERFACE_COUNT.load();
    for slot in 0..INTERFACES_MAX {
        if slot >= used {
            break;
        }
        let numbers = (&raw const INTERFACE_NUMBERS).cast::<u32>();
        // SAFETY: the loop stays below the array's length.
        let number = unsafe { numbers.add(slot as usize) };
        // SAFETY: a constant of the loaded program, inside the array.
        if unsafe { core::ptr::read_volatile(number) } == index {
            return slot + 1;
        }
    }
    0
}
