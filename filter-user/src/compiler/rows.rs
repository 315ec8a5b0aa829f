//! Sets of services as rows of bits, each distinct set once; row 0 is the empty one.

use std::collections::HashMap;

use filter_common::bounds::ROWS_MAX;

use super::CompileError;

pub struct Rows {
    width: usize,
    pub words: Vec<u64>,
    numbers: HashMap<Vec<u64>, u32>,
}

impl Rows {
    pub fn new(width: usize) -> Self {
        let empty = vec![0; width];
        Self {
            width,
            words: empty.clone(),
            numbers: HashMap::from([(empty, 0)]),
        }
    }

    /// Of what a compile gave.
    pub fn of_words(width: usize, words: Vec<u64>) -> Self {
        let numbers = (0..)
            .zip(words.chunks(width))
            .map(|(number, row)| (row.to_vec(), number));
        Self {
            width,
            numbers: numbers.collect(),
            words,
        }
    }

    pub(super) fn bounded(&self) -> Result<(), CompileError> {
        let needed = self.count();
        if needed > ROWS_MAX as usize {
            return Err(CompileError::TableFull {
                table: "rows",
                what: "sets of services",
                needed,
                max: ROWS_MAX,
            });
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.words.len() / self.width
    }

    /// The row that holds these services.
    pub fn of(&mut self, services: impl Iterator<Item = u32>) -> u32 {
        let mut row = vec![0u64; self.width];
        for service in services {
            row[service as usize / 64] |= 1 << (service % 64);
        }
        let next = self.numbers.len() as u32;
        let words = &mut self.words;
        *self.numbers.entry(row).or_insert_with_key(|row| {
            words.extend_from_slice(row);
            next
        })
    }

    /// Two services that both rows hold, where they hold more than one in common.
    pub(super) fn two_common(&self, first: u32, second: u32) -> Option<(u32, u32)> {
        let row = |number: u32| &self.words[number as usize * self.width..][..self.width];
        let mut common = row(first)
            .iter()
            .zip(row(second))
            .enumerate()
            .flat_map(|(word, (a, b))| {
                let both = a & b;
                (0..64)
                    .filter(move |bit| both >> bit & 1 == 1)
                    .map(move |bit| word as u32 * 64 + bit)
            });
        Some((common.next()?, common.next()?))
    }
}
