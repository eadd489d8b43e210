//! Edits of a text: replacements of byte ranges. Everything outside the ranges stays byte for byte what it
//! was, line ends and odd indentation included. A replacement may take pieces of the text along, with the
//! edits made inside them: arguments that change places keep what is adapted in them.

use ruff_text_size::{TextRange, TextSize};
use std::ops::Range;

/// A part of a replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(String),
    /// What stands at these bytes of the original, edited as well.
    Source(Range<usize>),
}

impl Piece {
    /// What stands at `range`.
    pub fn source(range: TextRange) -> Self {
        Piece::Source(bytes(range))
    }
}

/// One replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Edit {
    /// Bytes of the original text; empty for an insertion.
    range: Range<usize>,
    /// What stands there afterwards.
    pieces: Vec<Piece>,
}

impl Edit {
    /// Whether the other edit is made within a piece that this one takes along.
    fn carries(&self, other: &Edit) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Source(range) => range.start <= other.range.start && other.range.end <= range.end,
            Piece::Text(_) => false,
        })
    }
}

/// Edits that contradict each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("two edits overlap at byte {at}")]
pub struct Overlap {
    /// Where the second one begins.
    pub at: usize,
}

/// The edits of one file, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits(Vec<Edit>);

impl Edits {
    /// Replaces what stands at `range`.
    pub fn replace(&mut self, range: TextRange, text: impl Into<String>) {
        self.compose(range, vec![Piece::Text(text.into())]);
    }

    /// Replaces what stands at `range` by pieces.
    pub fn compose(&mut self, range: TextRange, pieces: Vec<Piece>) {
        let edit = Edit { range: bytes(range), pieces };
        if !self.0.contains(&edit) {
            self.0.push(edit);
        }
    }

    /// Puts `text` before the byte at `at`. Insertions at one place stand in the order in which they were
    /// asked for.
    pub fn insert(&mut self, at: TextSize, text: impl Into<String>) {
        self.replace(TextRange::empty(at), text);
    }

    /// Makes these edits as well.
    pub fn extend(&mut self, more: Edits) {
        self.0.extend(more.0);
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text with all edits made.
    pub fn apply(&self, text: &str) -> Result<String, Overlap> {
        let all: Vec<&Edit> = self.0.iter().collect();
        let mut result = String::with_capacity(text.len());
        render(text, 0..text.len(), &all, &mut result)?;
        Ok(result)
    }
}

/// Writes what stands at `within`, with those of `edits` that lie in it.
fn render(text: &str, within: Range<usize>, edits: &[&Edit], result: &mut String) -> Result<(), Overlap> {
    let mut order: Vec<&Edit> = edits
        .iter()
        .copied()
        .filter(|edit| within.start <= edit.range.start && edit.range.end <= within.end)
        .collect();
    order.sort_by_key(|edit| {
        (edit.range.start, edit.range.end > edit.range.start, std::cmp::Reverse(edit.range.end))
    });
    let carriers: Vec<&Edit> = order
        .iter()
        .copied()
        .filter(|edit| edit.pieces.iter().any(|piece| matches!(piece, Piece::Source(_))))
        .collect();
    let mut at = within.start;
    for edit in &order {
        let carried = carriers.iter().any(|carrier| {
            !std::ptr::eq(*carrier, *edit) && carrier.carries(edit) && carrier.range.len() >= edit.range.len()
        });
        if carried {
            continue;
        }
        if edit.range.start < at {
            // Within a range that was replaced as a whole: gone with it.
            if edit.range.end <= at {
                continue;
            }
            return Err(Overlap { at: edit.range.start });
        }
        result.push_str(&text[at..edit.range.start]);
        for piece in &edit.pieces {
            match piece {
                Piece::Text(new) => result.push_str(new),
                Piece::Source(range) => {
                    let inside: Vec<&Edit> =
                        edits.iter().copied().filter(|other| !std::ptr::eq(*other, *edit)).collect();
                    render(text, range.clone(), &inside, result)?;
                }
            }
        }
        at = edit.range.end;
    }
    result.push_str(&text[at..within.end]);
    Ok(())
}

fn bytes(range: TextRange) -> Range<usize> {
    range.start().to_usize()..range.end().to_usize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, end: u32) -> TextRange {
        TextRange::new(TextSize::new(start), TextSize::new(end))
    }

    #[test]
    fn everything_outside_the_ranges_stays_as_it_is() {
        let mut edits = Edits::default();
        edits.replace(range(7, 8), "bb");
        edits.replace(range(0, 1), "xyz");
        edits.replace(range(0, 1), "xyz");
        edits.insert(TextSize::new(3), "!");
        assert_eq!(edits.apply("a\t \r\n  b\r\n").unwrap(), "xyz\t !\r\n  bb\r\n");
    }

    #[test]
    fn edits_that_contradict_each_other_are_refused() {
        let mut edits = Edits::default();
        edits.replace(range(0, 3), "x");
        edits.replace(range(2, 4), "y");
        assert_eq!(edits.apply("abcdef"), Err(Overlap { at: 2 }));
    }

    #[test]
    fn pieces_take_the_edits_inside_along() {
        let mut edits = Edits::default();
        let swapped = vec![Piece::source(range(5, 6)), Piece::Text(", ".into()), Piece::source(range(2, 3))];
        edits.compose(range(2, 6), swapped);
        edits.replace(range(2, 3), "one");
        edits.insert(TextSize::new(5), "await ");
        assert_eq!(edits.apply("f(a, b)").unwrap(), "f(await b, one)");
    }
}
