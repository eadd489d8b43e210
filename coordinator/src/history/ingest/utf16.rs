//! Text in UTF-16, as PowerShell writes it, read as UTF-8.

use std::io::{self, BufRead, Read};

/// Which byte of a unit comes first, by the mark that a text begins with; none: it is no UTF-16, or has no mark.
pub(super) fn is_big_endian(start: &[u8]) -> Option<bool> {
    match start {
        [0xff, 0xfe, ..] => Some(false),
        [0xfe, 0xff, ..] => Some(true),
        _ => None,
    }
}

/// The text as UTF-8; units that are no text become U+FFFD.
pub(super) struct FromUtf16<R> {
    input: R,
    big_endian: bool,
    /// Bytes that are not yet a character.
    rest: Vec<u8>,
    text: Vec<u8>,
    given: usize,
}

impl<R: BufRead> FromUtf16<R> {
    /// From the mark on.
    pub(super) fn new(mut input: R, big_endian: bool) -> Self {
        input.consume(2);
        Self { input, big_endian, rest: Vec::new(), text: Vec::new(), given: 0 }
    }

    /// Reads the next buffer of the input; gives whether there was one.
    fn read_on(&mut self) -> io::Result<bool> {
        let buffer = self.input.fill_buf()?;
        let length = buffer.len();
        self.rest.extend_from_slice(buffer);
        self.input.consume(length);
        let unit = |bytes: &[u8; 2]| {
            if self.big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) }
        };
        let (whole, _) = self.rest.as_chunks::<2>();
        let mut units: Vec<u16> = whole.iter().map(unit).collect();
        // The first half of a pair waits for the second.
        if length > 0 && units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
            units.pop();
        }
        self.rest.drain(..2 * units.len());
        (self.text, self.given) = (String::from_utf16_lossy(&units).into_bytes(), 0);
        Ok(length > 0)
    }
}

impl<R: BufRead> BufRead for FromUtf16<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.given == self.text.len() && self.read_on()? {}
        Ok(&self.text[self.given..])
    }

    fn consume(&mut self, length: usize) {
        self.given += length;
    }
}

impl<R: BufRead> Read for FromUtf16<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_in_either_order_and_however_it_is_cut() {
        let text = "{\"name\": \"ü🦀\"}\n".repeat(50);
        for big in [false, true] {
            let bytes: Vec<u8> = std::iter::once(0xfeff)
                .chain(text.encode_utf16())
                .flat_map(|unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                .collect();
            for size in [2, 3, 5, 7, 1_000] {
                let input = io::BufReader::with_capacity(size, &bytes[..]);
                let mut read = String::new();
                let mut input = input;
                assert_eq!(is_big_endian(input.fill_buf().unwrap()), Some(big));
                FromUtf16::new(input, big).read_to_string(&mut read).unwrap();
                assert_eq!(read, text, "{size}");
            }
        }
        let mut half = String::new();
        FromUtf16::new(&b"\xff\xfea\0\x3d\xd8"[..], false).read_to_string(&mut half).unwrap();
        assert_eq!(half, "a\u{fffd}");
    }
}
