//! Bytes of a capture in order, a piece at a time: never more of a file in memory than one record.

use std::io::{self, Read};

/// What is asked of the file at once.
const READ_BYTES: usize = 1 << 18;

pub(super) struct Input<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes taken so far.
    taken: u64,
}

/// How much was there of what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Whole,
    /// The file ends inside it.
    Part,
    /// The file ended before it.
    Nothing,
}

impl<R: Read> Input<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            taken: 0,
        }
    }

    /// Sees to it that the next `length` bytes stand in `bytes`. The caller bounds `length`.
    pub(super) fn fill(&mut self, length: usize) -> io::Result<Piece> {
        if self.buffer.len() - self.start < length {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() < length {
                self.buffer.resize(length, 0);
            }
        }
        while self.end - self.start < length {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) if self.end == self.start => return Ok(Piece::Nothing),
                Ok(0) => return Ok(Piece::Part),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Piece::Whole)
    }

    /// The next bytes, which `fill` has found whole.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        &self.buffer[self.start..self.start + length]
    }

    /// Goes on behind bytes that `fill` has found whole.
    pub(super) fn advance(&mut self, length: usize) {
        self.start += length;
        self.taken += length as u64;
    }

    /// The last `length` bytes before where it stands, which `advance` has just passed.
    pub(super) fn behind(&self, length: usize) -> &[u8] {
        &self.buffer[self.start - length..self.start]
    }

    /// Leaves out bytes without keeping them; false where the file ends first.
    pub(super) fn skip(&mut self, length: u64) -> io::Result<bool> {
        let mut left = length;
        while left > 0 {
            let step = left.min(READ_BYTES as u64) as usize;
            if self.fill(step)? != Piece::Whole {
                return Ok(false);
            }
            self.advance(step);
            left -= step as u64;
        }
        Ok(true)
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte a read.
    struct Drops(Vec<u8>);

    impl Read for Drops {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() || into.is_empty() {
                return Ok(0);
            }
            into[0] = self.0.remove(0);
            Ok(1)
        }
    }

    #[test]
    fn pieces_come_whole_however_the_file_is_read() {
        let mut input = Input::new(Drops((0..10).collect()));
        assert_eq!(input.fill(4).unwrap(), Piece::Whole);
        assert_eq!(input.bytes(4), [0, 1, 2, 3]);
        input.advance(3);
        assert!(input.skip(2).unwrap());
        assert_eq!(input.fill(5).unwrap(), Piece::Whole);
        assert_eq!(input.bytes(5), [5, 6, 7, 8, 9]);
        assert_eq!(input.fill(6).unwrap(), Piece::Part);
        input.advance(5);
        assert_eq!(input.fill(1).unwrap(), Piece::Nothing);
        assert!(!input.skip(1).unwrap());
        assert_eq!(input.taken(), 10);
    }

    #[test]
    fn a_piece_larger_than_the_buffer_is_kept_whole() {
        let bytes: Vec<u8> = (0..READ_BYTES * 2).map(|at| at as u8).collect();
        let mut input = Input::new(bytes.as_slice());
        assert!(input.skip(3).unwrap());
        assert_eq!(input.fill(READ_BYTES + 10).unwrap(), Piece::Whole);
        assert_eq!(input.bytes(READ_BYTES + 10), &bytes[3..READ_BYTES + 13]);
    }
}
