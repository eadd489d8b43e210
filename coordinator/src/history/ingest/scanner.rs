//! XML from anybody, cut into tags and texts in flat memory: no piece is kept beyond its bound, however
//! long it is in the file. Comments, processing instructions and document types are passed over, so that
//! no entity is ever defined. Attributes and references are read by quick-xml; what it cannot read is kept
//! as it stands.
//!
//! Text comes in UTF-8, UTF-16 with a byte order mark, or in a single-byte encoding that says so (read as
//! ISO 8859-1); bytes that are no text become U+FFFD.

use quick_xml::escape::unescape;
use quick_xml::events::BytesStart;
use std::io::{self, BufRead};

/// Longest text between two tags that is kept, in bytes.
const LONGEST_TEXT: usize = 16 << 10;
/// Longest tag that is kept, in bytes; attribute values are cut before.
const LONGEST_TAG: usize = 256 << 10;
/// Longest tag that is read, in bytes, with all that is cut.
const MOST_OF_A_TAG: usize = 4 << 20;
/// Longest attribute value that is kept, in bytes.
const LONGEST_VALUE: usize = 16 << 10;
/// Most tags, texts, comments and instructions without a test case among them.
const MOST_PIECES: u32 = 100_000;
/// Most attributes of a tag.
const MOST_ATTRIBUTES: usize = 200;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// The start of an element.
    Open(Element),
    /// The end of an element.
    Close(String),
    /// Text, references resolved, cut.
    Text(String),
}

/// The start of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    /// Its name, without a prefix.
    pub(super) name: String,
    /// Whether it ends at once.
    pub(super) empty: bool,
    attributes: Vec<(String, String)>,
}

impl Element {
    /// An attribute's value; empty if it is not there.
    pub(super) fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The first of several attributes that is there and not empty.
    pub(super) fn first_of(&self, names: &[&str]) -> &str {
        names.iter().map(|name| self.attribute(name)).find(|value| !value.is_empty()).unwrap_or("")
    }
}

/// Why a document cannot be read further.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    /// It cannot be read at all.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no XML from here on.
    #[error("{0}")]
    Malformed(String),
}

fn malformed<T>(what: impl Into<String>) -> Result<T, ScanError> {
    Err(ScanError::Malformed(what.into()))
}

/// How bytes are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Latin1,
    Utf16 { big_endian: bool },
}

/// Reads a document piece by piece.
pub(super) struct Scanner<R> {
    input: R,
    encoding: Encoding,
    line: u64,
    /// A byte that was read too far.
    pushed_back: Option<u8>,
    /// UTF-8 of a character of another encoding, still to be given.
    pending: ([u8; 4], u8, u8),
    /// Pieces since the last test case.
    pieces: u32,
    /// The first line with bytes that are no text in the document's encoding.
    no_text: Option<u64>,
    /// The first line with a reference that means nothing here.
    unresolved: Option<u64>,
}

impl<R: BufRead> Scanner<R> {
    /// Looks at how the document begins.
    pub(super) fn new(mut input: R) -> Result<Self, ScanError> {
        let start = input.fill_buf()?;
        let (encoding, mark) = match start {
            [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
            [0xff, 0xfe, ..] => (Encoding::Utf16 { big_endian: false }, 2),
            [0xfe, 0xff, ..] => (Encoding::Utf16 { big_endian: true }, 2),
            [b'<', 0, ..] => (Encoding::Utf16 { big_endian: false }, 0),
            [0, b'<', ..] => (Encoding::Utf16 { big_endian: true }, 0),
            other if declares_single_bytes(other) => (Encoding::Latin1, 0),
            _ => (Encoding::Utf8, 0),
        };
        input.consume(mark);
        Ok(Self {
            input,
            encoding,
            line: 1,
            pushed_back: None,
            pending: ([0; 4], 0, 0),
            pieces: 0,
            no_text: None,
            unresolved: None,
        })
    }

    /// A test case was found: it may go on as long again.
    pub(super) fn got_case(&mut self) {
        self.pieces = 0;
    }

    /// The line that reading has come to, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// What was read, but not as it was meant: lines, and what is odd there.
    pub(super) fn oddities(&self) -> impl Iterator<Item = (u64, &'static str)> + use<R> {
        let no_text = self.no_text.map(|line| (line, "bytes that are no text in its encoding were replaced"));
        let unresolved =
            self.unresolved.map(|line| (line, "a reference that nothing defines here was left as it is"));
        no_text.into_iter().chain(unresolved)
    }

    /// Bytes as text; what is none is replaced, and noted.
    fn text_of(&mut self, bytes: &[u8]) -> String {
        // One that is cut at its end is no fault of the document's.
        if std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_some()) {
            self.no_text.get_or_insert(self.line);
        }
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Text with its references resolved; one that cannot be is left, and noted.
    fn resolved(&mut self, text: String) -> String {
        match unescape(&text) {
            Ok(resolved) => resolved.into_owned(),
            Err(_) => {
                self.unresolved.get_or_insert(self.line);
                text
            }
        }
    }

    /// The next piece; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token>, ScanError> {
        loop {
            let Some(first) = self.byte()? else { return Ok(None) };
            self.pieces += 1;
            if self.pieces > MOST_PIECES {
                return malformed(format!("more than {MOST_PIECES} tags and texts without a test case"));
            }
            if first != b'<' {
                let text = self.text(first)?;
                if text.trim().is_empty() {
                    continue;
                }
                return Ok(Some(Token::Text(self.resolved(text))));
            }
            match self.byte()? {
                None => return malformed("it ends within a tag"),
                Some(b'!') => {
                    if let Some(text) = self.declaration()? {
                        return Ok(Some(Token::Text(text)));
                    }
                }
                Some(b'?') => self.skip_past(b"?>", "a processing instruction")?,
                Some(b'/') => {
                    let tag = self.tag(None)?;
                    return Ok(Some(Token::Close(local(tag.trim()).to_owned())));
                }
                Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 => {
                    let tag = self.tag(Some(byte))?;
                    let element = element(&tag, &mut |value| self.resolved(value))?;
                    return Ok(Some(Token::Open(element)));
                }
                Some(_) => return malformed("a `<` that begins no tag"),
            }
        }
    }

    /// Up to the next `<`; what goes beyond the bound is dropped.
    fn text(&mut self, first: u8) -> Result<String, ScanError> {
        let mut kept = vec![first];
        while let Some(byte) = self.byte()? {
            if byte == b'<' {
                self.pushed_back = Some(byte);
                break;
            }
            if kept.len() < LONGEST_TEXT {
                kept.push(byte);
            } else {
                self.skip_to(b'<')?;
            }
        }
        Ok(self.text_of(&kept))
    }

    /// Passes over what is in the buffers up to `end`, which is left; over nothing where bytes are not yet text.
    fn skip_to(&mut self, end: u8) -> Result<(), ScanError> {
        if self.encoding != Encoding::Utf8 || self.pushed_back.is_some() {
            return Ok(());
        }
        let buffer = self.input.fill_buf()?;
        let length = buffer.iter().position(|byte| *byte == end).unwrap_or(buffer.len());
        self.line += buffer[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.input.consume(length);
        Ok(())
    }

    /// After `<!`: a comment, a section of plain text (whose text is given), or a document type.
    fn declaration(&mut self) -> Result<Option<String>, ScanError> {
        match self.byte()? {
            Some(b'-') if self.byte()? == Some(b'-') => self.skip_past(b"-->", "a comment").map(|()| None),
            Some(b'[') => {
                for expected in b"CDATA[" {
                    if self.byte()? != Some(*expected) {
                        return malformed("a section of an unknown kind");
                    }
                }
                self.plain_text().map(Some)
            }
            Some(b'D') => self.document_type().map(|()| None),
            _ => malformed("a declaration of an unknown kind"),
        }
    }

    fn plain_text(&mut self) -> Result<String, ScanError> {
        let mut kept = Vec::new();
        let mut brackets = 0u8;
        loop {
            match self.byte()? {
                None => return malformed("it ends within a CDATA section"),
                Some(b'>') if brackets >= 2 => break,
                Some(b']') if brackets == 2 && kept.len() >= LONGEST_TEXT => {}
                Some(b']') if brackets == 2 => kept.push(b']'),
                Some(b']') => brackets += 1,
                Some(byte) => {
                    kept.extend(std::iter::repeat_n(b']', usize::from(std::mem::take(&mut brackets))));
                    kept.push(byte);
                    if kept.len() > LONGEST_TEXT {
                        kept.truncate(LONGEST_TEXT);
                        self.skip_to(b']')?;
                    }
                }
            }
        }
        Ok(self.text_of(&kept))
    }

    /// Passed over with all that it defines.
    fn document_type(&mut self) -> Result<(), ScanError> {
        let (mut depth, mut quote) = (1u32, None);
        while depth > 0 {
            match (self.byte()?, quote) {
                (None, _) => return malformed("it ends within a document type"),
                (Some(byte), Some(open)) if byte == open => quote = None,
                (Some(_), Some(_)) => {}
                (Some(byte @ (b'"' | b'\'')), None) => quote = Some(byte),
                (Some(b'<'), None) => depth = depth.saturating_add(1),
                (Some(b'>'), None) => depth -= 1,
                (Some(_), None) => {}
            }
        }
        Ok(())
    }

    /// `end` ends in `>`.
    fn skip_past(&mut self, end: &[u8], what: &str) -> Result<(), ScanError> {
        let mut last = [0u8; 3];
        loop {
            let Some(byte) = self.byte()? else { return malformed(format!("it ends within {what}")) };
            last = [last[1], last[2], byte];
            if last.ends_with(end) {
                return Ok(());
            }
            if self.encoding == Encoding::Utf8 {
                self.skip_before(b'>', &mut last)?;
            }
        }
    }

    /// Passes over what is in the buffer up to `end`, which is left; `last` are the last bytes that were passed.
    fn skip_before(&mut self, end: u8, last: &mut [u8; 3]) -> Result<(), ScanError> {
        let buffer = self.input.fill_buf()?;
        let length = buffer.iter().position(|byte| *byte == end).unwrap_or(buffer.len());
        for byte in &buffer[length.saturating_sub(3)..length] {
            *last = [last[1], last[2], *byte];
        }
        self.line += buffer[..length].iter().filter(|byte| **byte == b'\n').count() as u64;
        self.input.consume(length);
        Ok(())
    }

    /// Up to the `>` that ends the tag; attribute values are cut.
    fn tag(&mut self, first: Option<u8>) -> Result<String, ScanError> {
        let mut kept: Vec<u8> = first.into_iter().collect();
        let (mut quote, mut value, mut read) = (None, 0usize, 0usize);
        loop {
            let Some(byte) = self.byte()? else { return malformed("it ends within a tag") };
            read += 1;
            if kept.len() > LONGEST_TAG || read > MOST_OF_A_TAG {
                return malformed(format!("a tag of more than {} KiB", LONGEST_TAG >> 10));
            }
            match quote {
                Some(open) if byte == open => quote = None,
                Some(_) => {
                    value += 1;
                    // Never in the middle of a character.
                    if value > LONGEST_VALUE && !(value < LONGEST_VALUE + 4 && byte & 0xc0 == 0x80) {
                        continue;
                    }
                }
                None if byte == b'>' => return Ok(self.text_of(&kept)),
                None if byte == b'<' => return malformed("a tag within a tag"),
                None if matches!(byte, b'"' | b'\'') => (quote, value) = (Some(byte), 0),
                None => {}
            }
            kept.push(byte);
        }
    }

    /// The next byte of the text in UTF-8.
    fn byte(&mut self) -> Result<Option<u8>, ScanError> {
        if let Some(byte) = self.pushed_back.take() {
            return Ok(Some(byte));
        }
        if self.encoding == Encoding::Utf8 {
            let byte = self.raw()?;
            self.line += u64::from(byte == Some(b'\n'));
            return Ok(byte);
        }
        let (bytes, given, length) = &mut self.pending;
        if given < length {
            *given += 1;
            return Ok(Some(bytes[usize::from(*given) - 1]));
        }
        let Some(character) = self.character()? else { return Ok(None) };
        self.line += u64::from(character == '\n');
        let mut bytes = [0; 4];
        let length = character.encode_utf8(&mut bytes).len() as u8;
        self.pending = (bytes, 1, length);
        Ok(Some(bytes[0]))
    }

    /// The next character in another encoding than UTF-8.
    fn character(&mut self) -> Result<Option<char>, ScanError> {
        let Encoding::Utf16 { big_endian } = self.encoding else {
            return Ok(self.raw()?.map(char::from));
        };
        let Some(unit) = self.unit(big_endian)? else { return Ok(None) };
        let units = match unit {
            0xd800..=0xdbff => [Some(unit), self.unit(big_endian)?],
            _ => [Some(unit), None],
        };
        let decoded = char::decode_utf16(units.into_iter().flatten()).next();
        Ok(Some(decoded.and_then(Result::ok).unwrap_or(char::REPLACEMENT_CHARACTER)))
    }

    fn unit(&mut self, big_endian: bool) -> Result<Option<u16>, ScanError> {
        let (Some(first), Some(second)) = (self.raw()?, self.raw()?) else { return Ok(None) };
        let bytes = [first, second];
        Ok(Some(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }))
    }

    fn raw(&mut self) -> Result<Option<u8>, ScanError> {
        let byte = self.input.fill_buf()?.first().copied();
        if byte.is_some() {
            self.input.consume(1);
        }
        Ok(byte)
    }
}

fn declares_single_bytes(start: &[u8]) -> bool {
    let end = start.iter().position(|byte| *byte == b'>').unwrap_or(0).min(200);
    let declaration = String::from_utf8_lossy(&start[..end]).to_ascii_lowercase();
    declaration.starts_with("<?xml")
        && ["iso-8859-1", "iso-8859-15", "latin1", "windows-1252", "cp1252"]
            .iter()
            .any(|name| declaration.contains(name))
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

/// A tag's name and attributes, their values read by `resolve`.
fn element(tag: &str, resolve: &mut dyn FnMut(String) -> String) -> Result<Element, ScanError> {
    let (tag, empty) = match tag.strip_suffix('/') {
        Some(tag) => (tag, true),
        None => (tag, false),
    };
    let length = tag.find(|c: char| c.is_whitespace()).unwrap_or(tag.len());
    let start = BytesStart::from_content(tag, length);
    let mut attributes = Vec::new();
    for attribute in start.attributes().with_checks(false) {
        // One that cannot be read ends the tag's attributes, and not the document.
        let Ok(attribute) = attribute else { break };
        if attributes.len() == MOST_ATTRIBUTES {
            return malformed(format!("a tag of more than {MOST_ATTRIBUTES} attributes"));
        }
        let value = resolve(attribute.value.to_string());
        attributes.push((local(attribute.key.as_ref()).to_owned(), value));
    }
    Ok(Element { name: local(&tag[..length]).to_owned(), empty, attributes })
}

#[cfg(test)]
mod tests;
