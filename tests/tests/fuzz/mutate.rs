//! Damage: what a broken disk, a cut connection and somebody with bad intentions make of a document.

use flakefarm_tests::dice::Dice;

/// Bytes of an input.
pub(crate) const LARGEST: usize = 256 << 10;

/// Numbers and bytes that readers trip over.
const WORDS: &[&[u8]] = &[
    b"0",
    b"-1",
    b"4294967296",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"1e308",
    b"-1e-308",
    b"NaN",
    b"null",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    "\u{202e}".as_bytes(),
    b"\r\n",
    b"\n\n",
    b"\t",
    b"../",
    b"%s",
    b"\\",
    b"\"",
    b"'",
    b"<",
    b">",
    b"&",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b":",
    b"::",
    b",",
];

/// One of `seeds`, changed a few times.
pub(crate) fn mutated(seeds: &[&[u8]], words: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let seed = |dice: &mut Dice| seeds[dice.next(seeds.len() as u64) as usize];
    let mut bytes = seed(dice).to_vec();
    for _ in 0..1 + dice.next(6) {
        let at = dice.next(bytes.len() as u64 + 1) as usize;
        let scale = dice.next(9);
        let length = (1 + dice.next(1 << scale)) as usize;
        let end = (at + length).min(bytes.len());
        match dice.next(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.next(8),
            1 if at < bytes.len() => bytes[at] = dice.next(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let word = if words.is_empty() || dice.next(2) == 0 { WORDS } else { words };
                let word = word[dice.next(word.len() as u64) as usize];
                bytes.splice(at..at, word.iter().copied());
            }
            4 => {
                let word = WORDS[dice.next(WORDS.len() as u64) as usize];
                bytes.splice(at..end, word.iter().copied());
            }
            // The same again, and again: what grows by more than it was given is found by that.
            5 => {
                let piece = bytes[at..end].to_vec();
                let times = 1_usize << dice.next(13);
                let room = LARGEST.saturating_sub(bytes.len());
                let times = times.min(room / piece.len().max(1));
                bytes.splice(at..at, piece.repeat(times));
            }
            6 => bytes.truncate(at),
            7 => {
                let other = seed(dice);
                let from = dice.next(other.len() as u64 + 1) as usize;
                bytes.splice(at..end, other[from..].iter().copied());
            }
            _ => {
                let from = dice.next(bytes.len() as u64 + 1) as usize;
                let piece = bytes[at..end].to_vec();
                let from = from.min(bytes.len());
                bytes.splice(from..from, piece);
            }
        }
    }
    bytes.truncate(LARGEST);
    bytes
}
