//! JSON as it is read: its lines counted, its long strings cut.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

/// Longest text that is kept, in bytes.
pub(super) const LONGEST_TEXT: usize = 16 << 10;

/// How far a document was read.
#[derive(Debug)]
pub(super) struct Place {
    line: Cell<u64>,
    /// Bytes since the last case, without what was cut.
    since_case: Cell<u64>,
}

impl Default for Place {
    fn default() -> Self {
        Self { line: Cell::new(1), since_case: Cell::new(0) }
    }
}

impl Place {
    /// Bytes without a case beyond which no more of them are read: a test of megabytes is nothing but a burden.
    pub(super) const MOST_WITHOUT_A_CASE: u64 = 8 << 20;

    /// The line, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line.get()
    }

    /// A case was found.
    pub(super) fn got_case(&self) {
        self.since_case.set(0);
    }
}

/// Counts what is read.
pub(super) struct Lines<R> {
    input: R,
    place: Rc<Place>,
}

impl<R> Lines<R> {
    /// From the first line on; `place` says how far it has come.
    pub(super) fn new(input: R, place: &Rc<Place>) -> Self {
        Self { input, place: Rc::clone(place) }
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(into)?;
        let ends = into[..length].iter().filter(|byte| **byte == b'\n').count();
        self.place.line.set(self.place.line.get() + ends as u64);
        let since = self.place.since_case.get() + length as u64;
        self.place.since_case.set(since);
        if since > Place::MOST_WITHOUT_A_CASE {
            let most = Place::MOST_WITHOUT_A_CASE >> 20;
            return Err(io::Error::other(format!("more than {most} MiB without a test")));
        }
        Ok(length)
    }
}

/// JSON with its long strings cut, so that no string is held that is longer than what is kept of it.
/// Strings end only at the end of a character and of an escape.
pub(super) struct Shortened<R> {
    input: R,
    in_string: bool,
    /// Digits of an escape that are still to come, or [`AFTER_BACKSLASH`].
    escape: u8,
    /// Whether the escape's first two digits are those of the first half of a pair.
    surrogate: [bool; 2],
    length: usize,
    dropping: bool,
}

/// An escape of which only the backslash has come.
const AFTER_BACKSLASH: u8 = 5;

impl<R: BufRead> Shortened<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, in_string: false, escape: 0, surrogate: [false; 2], length: 0, dropping: false }
    }

    /// Whether a byte is kept.
    fn keeps(&mut self, byte: u8) -> bool {
        if !self.in_string {
            if byte == b'"' {
                (self.in_string, self.length, self.dropping, self.escape) = (true, 0, false, 0);
                self.surrogate = [false, false];
            }
            return true;
        }
        let begins = self.escape == 0 && byte & 0xc0 != 0x80;
        if begins {
            // The second half of a pair of escapes comes along.
            self.dropping |= self.length >= LONGEST_TEXT && self.surrogate != [true, true];
            self.surrogate = [false, false];
        }
        self.length += 1;
        match (self.escape, byte) {
            (0, b'\\') => self.escape = AFTER_BACKSLASH,
            (0, b'"') => {
                self.in_string = false;
                return true;
            }
            (0, _) => {}
            (AFTER_BACKSLASH, b'u') => self.escape = 4,
            (AFTER_BACKSLASH, _) => self.escape = 0,
            (4, digit) => (self.escape, self.surrogate[0]) = (3, matches!(digit, b'd' | b'D')),
            (3, digit) => {
                (self.escape, self.surrogate[1]) =
                    (2, matches!(digit, b'8' | b'9' | b'a' | b'b' | b'A' | b'B'));
            }
            (rest, _) => self.escape = rest - 1,
        }
        !self.dropping
    }
}

impl<R: BufRead> Read for Shortened<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.input.fill_buf()?.len().min(into.len());
            if length == 0 {
                return Ok(0);
            }
            into[..length].copy_from_slice(&self.input.fill_buf()?[..length]);
            self.input.consume(length);
            let mut kept = 0;
            for at in 0..length {
                if self.keeps(into[at]) {
                    into[kept] = into[at];
                    kept += 1;
                }
            }
            if kept > 0 {
                return Ok(kept);
            }
        }
    }
}
