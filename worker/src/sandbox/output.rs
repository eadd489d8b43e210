//! What a sandbox writes, bounded while it is read: standard output in capped lines, standard
//! error as its head and its tail. Pure; it never waits and never grows beyond its bounds.

use std::collections::VecDeque;

/// The head and the tail of an output, and how much is missing between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundedOutput {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl BoundedOutput {
    /// Keeps the first and the last `half` bytes of what is pushed.
    pub fn new(half: usize) -> Self {
        Self { half, head: Vec::new(), tail: VecDeque::new(), total: 0 }
    }

    /// Takes what was written next.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = self.half - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        bytes = rest;
        if bytes.len() > self.half {
            bytes = &bytes[bytes.len() - self.half..];
        }
        let excess = (self.tail.len() + bytes.len()).saturating_sub(self.half);
        self.tail.drain(..excess);
        self.tail.extend(bytes);
    }

    /// Bytes written in all, kept or not.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// Bytes that were not kept.
    pub fn left_out_bytes(&self) -> u64 {
        self.total - (self.head.len() + self.tail.len()) as u64
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Head and tail as text, with a line between them that says how many bytes were left out.
    pub fn to_text(&self) -> String {
        let (front, back) = self.tail.as_slices();
        let tail = [front, back].concat();
        match self.left_out_bytes() {
            0 => String::from_utf8_lossy(&[self.head.as_slice(), &tail].concat()).into_owned(),
            left_out => format!(
                "{}\n[{left_out} bytes left out]\n{}",
                String::from_utf8_lossy(&self.head),
                String::from_utf8_lossy(&tail)
            ),
        }
    }

    /// The last `count` lines of what was kept.
    pub fn last_lines(&self, count: usize) -> String {
        let text = self.to_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// Cuts a byte stream into lines of at most a given length; the rest of a longer line is dropped.
#[derive(Debug)]
pub(super) struct Lines {
    cap: usize,
    partial: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
}

impl Lines {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, partial: Vec::new(), ready: VecDeque::new() }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (content, ended) = match piece.strip_suffix(b"\n") {
                Some(content) => (content, true),
                None => (piece, false),
            };
            let room = self.cap - self.partial.len();
            self.partial.extend_from_slice(&content[..room.min(content.len())]);
            if ended {
                self.ready.push_back(std::mem::take(&mut self.partial));
            }
        }
    }

    /// The stream has ended: what follows the last newline is a line, too.
    pub(super) fn end(&mut self) {
        if !self.partial.is_empty() {
            self.ready.push_back(std::mem::take(&mut self.partial));
        }
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.ready.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_bounded(half: usize, writes: &[&str], expect: &str) {
        let mut output = BoundedOutput::new(half);
        for write in writes {
            output.push(write.as_bytes());
        }
        assert_eq!(output.to_text(), expect);
    }

    #[test]
    fn output_within_its_bounds_is_kept_whole() {
        check_bounded(4, &[], "");
        check_bounded(4, &["abc"], "abc");
        check_bounded(4, &["abcdefgh"], "abcdefgh");
        check_bounded(4, &["a", "bcdef", "gh"], "abcdefgh");
    }

    #[test]
    fn output_beyond_its_bounds_keeps_head_and_tail_and_says_what_is_missing() {
        check_bounded(4, &["abcdefghi"], "abcd\n[1 bytes left out]\nfghi");
        check_bounded(4, &["abc", "def", "ghi", "j"], "abcd\n[2 bytes left out]\nghij");
        check_bounded(2, &["abcdefghijklmnop", "q"], "ab\n[13 bytes left out]\npq");
    }

    fn check_lines(cap: usize, writes: &[&str], expect: &[&str]) {
        let mut lines = Lines::new(cap);
        for write in writes {
            lines.push(write.as_bytes());
        }
        lines.end();
        let got: Vec<Vec<u8>> = std::iter::from_fn(|| lines.pop()).collect();
        assert_eq!(got, expect.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
    }

    #[test]
    fn lines_are_put_together_across_writes() {
        check_lines(10, &["a", "b\nc", "\n", "\nlast"], &["ab", "c", "", "last"]);
    }

    #[test]
    fn the_rest_of_a_long_line_is_dropped_and_the_next_line_is_whole() {
        check_lines(3, &["abcdef", "gh\nxy\n"], &["abc", "xy"]);
    }

    #[test]
    fn last_lines_are_the_last() {
        let mut output = BoundedOutput::new(100);
        output.push(b"one\ntwo\nthree\n");
        assert_eq!(output.last_lines(2), "two\nthree");
    }
}
