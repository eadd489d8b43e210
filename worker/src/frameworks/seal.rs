//! Whose lines on the results channel are: the plugin's carry the attempt's nonce and a number that counts
//! up. What else is written there is somebody else's, and a number out of turn means that somebody took or
//! repeated a line. A test that goes looking for the nonce in its own interpreter finds it; docs/sandboxes.md
//! tells what is left to it.

use std::fmt;

/// What only the worker and the plugin of one attempt know: 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A new one, of 128 random bits.
    #[expect(clippy::new_without_default, reason = "a nonce is made on purpose, never by default")]
    pub fn new() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Not shown: what is logged may be read by tests.
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce")
    }
}

/// One line of the results channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Nothing but white space.
    Blank,
    /// The plugin's: its number, from 0, and the event.
    Own(u64, &'a [u8]),
    /// Somebody else's.
    Foreign(&'a [u8]),
}

/// `NONCE NUMBER EVENT`.
pub(super) fn read<'a>(line: &'a [u8], nonce: &Nonce) -> Line<'a> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Line::Blank;
    }
    own(line, nonce).unwrap_or(Line::Foreign(line))
}

fn own<'a>(line: &'a [u8], nonce: &Nonce) -> Option<Line<'a>> {
    let rest = line.strip_prefix(nonce.0.as_bytes())?.strip_prefix(b" ")?;
    let space = rest.iter().position(|byte| *byte == b' ')?;
    let number = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
    Some(Line::Own(number, &rest[space + 1..]))
}

/// Whether a line that is not of this attempt has the form of one: somebody has tried.
pub(super) fn looks_sealed(line: &[u8]) -> bool {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let digits = |part: Option<&[u8]>| part.is_some_and(|part| part.iter().all(u8::is_ascii_hexdigit));
    digits(parts.next()) && digits(parts.next()) && parts.next().is_some_and(|event| event.starts_with(b"{"))
}

/// A line as the plugin writes it.
#[cfg(test)]
pub(super) fn seal(nonce: &Nonce, number: u64, event: &str) -> String {
    format!("{} {number} {event}", nonce.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_nonce_makes_a_line_ones_own() {
        let (nonce, other) = (Nonce("n".repeat(32)), Nonce("m".repeat(32)));
        let line = seal(&nonce, 7, "{\"e\":1} x");
        assert_eq!(read(line.as_bytes(), &nonce), Line::Own(7, b"{\"e\":1} x"));
        assert_eq!(read(line.as_bytes(), &other), Line::Foreign(line.as_bytes()));
        assert_eq!(read(b" \t", &nonce), Line::Blank);
        for foreign in ["{}", "n 1 {}", &"n".repeat(32), &format!("{} x {{}}", "n".repeat(32))] {
            assert_eq!(read(foreign.as_bytes(), &nonce), Line::Foreign(foreign.as_bytes()), "{foreign}");
        }
    }

    #[test]
    fn a_nonce_is_not_shown() {
        let nonce = Nonce::new();
        assert_eq!(nonce.as_str().len(), 32);
        assert!(!format!("{nonce:?}").contains(nonce.as_str()));
    }
}
