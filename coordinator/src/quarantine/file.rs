//! The quarantine as a file that a project keeps: TOML, written by us or by hand. What is wrong in it is
//! told with line and key, and an entry that is not right mutes nothing.

use super::{Entry, MOST_ENTRIES, Origin};
use std::fmt::Write as _;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a project keeps it, below its root.
pub const NAME: &str = "flakefarm-quarantine.toml";
/// What the file calls itself.
const SCHEMA: &str = "flakefarm.quarantine/v1";
/// Problems that are told; more are counted.
const SHOWN: usize = 50;
const KEYS: [&str; 6] = ["test", "reason", "owner", "ticket", "expires", "signature"];

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineFile {
    /// Entries that are right; expired ones among them.
    pub entries: Vec<Entry>,
    /// What is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The key, as a path; empty for the file as a whole.
    pub key: String,
    /// What is wrong, in words.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Problem { line, key, what } = self;
        if key.is_empty() {
            write!(f, "line {line}: {what}")
        } else {
            write!(f, "line {line}, `{key}`: {what}")
        }
    }
}

/// Reads one.
pub fn read(text: &str) -> QuarantineFile {
    let mut reader = Reader { text, file: QuarantineFile::default() };
    match DeTable::parse(text) {
        Ok(table) => reader.table(table.get_ref()),
        Err(error) => {
            let what = error.message().lines().next().unwrap_or_default().to_owned();
            reader.note(error.span().unwrap_or(0..0), "", what);
        }
    }
    // Tables are read key by key.
    reader.file.problems.sort_by_key(|problem| problem.line);
    reader.file
}

struct Reader<'t> {
    text: &'t str,
    file: QuarantineFile,
}

impl Reader<'_> {
    fn note(&mut self, span: Range<usize>, key: &str, what: impl Into<String>) {
        if self.file.problems.len() < SHOWN {
            let before = self.text.as_bytes().iter().take(span.start);
            let line = 1 + before.filter(|byte| **byte == b'\n').count();
            self.file.problems.push(Problem { line, key: key.to_owned(), what: what.into() });
        }
    }

    fn table(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match (name, value.get_ref()) {
                ("schema", DeValue::String(schema)) if schema == SCHEMA => {}
                ("schema", _) => self.note(value.span(), name, format!("this reads {SCHEMA}")),
                ("quarantine", DeValue::Array(entries)) => {
                    if entries.len() > MOST_ENTRIES {
                        let what = format!("{} entries are more than {MOST_ENTRIES}", entries.len());
                        self.note(value.span(), name, what);
                    }
                    for entry in entries.iter().take(MOST_ENTRIES) {
                        self.entry(entry);
                    }
                }
                ("quarantine", _) => {
                    self.note(value.span(), name, "entries are written as [[quarantine]]");
                }
                _ => self.note(key.span(), name, "there is no such key: schema, quarantine"),
            }
        }
    }

    fn entry(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Table(table) = value.get_ref() else {
            return self.note(value.span(), "quarantine", "an entry is a table: [[quarantine]]");
        };
        let before = self.file.problems.len();
        let mut read = |key: &'static str| -> Option<(String, Range<usize>)> {
            let value = table.get(key)?;
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Datetime(date) if key == "expires" => {
                    date.date.map_or_else(|| date.to_string(), |date| date.to_string())
                }
                other => {
                    let what = format!("a string is needed, not {}", other.type_str());
                    self.note(value.span(), key, what);
                    return None;
                }
            };
            Some((text, value.span()))
        };
        let [test, reason, owner, ticket, expires, signature] = KEYS.map(&mut read);
        for key in table.keys() {
            if !KEYS.contains(&key.get_ref().as_ref()) {
                let what = format!("there is no such key: {}", KEYS.join(", "));
                self.note(key.span(), key.get_ref().as_ref(), what);
            }
        }
        for (key, given) in [("test", &test), ("reason", &reason), ("expires", &expires)] {
            if given.is_none() && !table.contains_key(key) {
                let what =
                    if key == "expires" { "it is missing: the entry has expired" } else { "it is missing" };
                self.note(value.span(), key, what);
            }
        }
        let spans = [
            ("test", &test),
            ("reason", &reason),
            ("owner", &owner),
            ("ticket", &ticket),
            ("expires", &expires),
            ("signature", &signature),
        ]
        .map(|(key, given)| (key, given.as_ref().map(|(_, span)| span.clone())));
        let text = |given: Option<(String, Range<usize>)>| given.map(|(text, _)| text);
        let entry = Entry {
            test: text(test).unwrap_or_default(),
            signature: text(signature).map(|signature| signature.to_lowercase()),
            reason: text(reason).unwrap_or_default(),
            owner: text(owner),
            ticket: text(ticket),
            expires: text(expires).unwrap_or_default(),
            added_at: 0,
            added_by: String::new(),
            origin: Origin::File,
            runs: 0,
            failures: 0,
            measured_by: None,
            measured_at: None,
        };
        for (key, what) in entry.wrong() {
            // What is missing was told.
            if let Some((_, Some(span))) = spans.iter().find(|(known, span)| *known == key && span.is_some())
            {
                self.note(span.clone(), key, what);
            }
        }
        // One without a date that can be read is kept: it has expired, which is to be seen.
        let only_the_date = self.file.problems[before.min(self.file.problems.len())..]
            .iter()
            .all(|problem| problem.key == "expires");
        if only_the_date && before < SHOWN && !entry.test.is_empty() {
            self.file.entries.push(entry);
        }
    }
}

/// Writes entries, sorted by test.
pub fn write(entries: &[Entry]) -> String {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| (&a.test, &a.signature).cmp(&(&b.test, &b.signature)));
    let mut text = format!("schema = \"{SCHEMA}\"\n");
    for entry in sorted {
        text.push_str("\n[[quarantine]]\n");
        let pairs = [
            ("test", Some(&entry.test)),
            ("reason", Some(&entry.reason)),
            ("owner", entry.owner.as_ref()),
            ("ticket", entry.ticket.as_ref()),
            ("expires", Some(&entry.expires)),
            ("signature", entry.signature.as_ref()),
        ];
        for (key, value) in pairs.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            writeln!(text, "{key} = {}", toml::Value::String(value.clone())).expect("writing to memory");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;
    use proptest::prelude::*;

    fn problems(text: &str) -> Vec<String> {
        read(text).problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_key() {
        let good = "[[quarantine]]\ntest = \"a.py::b\"\nreason = \"races\"\nexpires = 2027-01-01\n";
        let read_good = read(good);
        assert_eq!(read_good.problems, []);
        assert_eq!(read_good.entries[0].expires, "2027-01-01");
        let check = |text: &str, expect: &str, entries: usize| {
            let found = read(text);
            let said = problems(text).join("\n");
            assert!(said.contains(expect), "{expect} in {said}");
            assert_eq!(found.entries.len(), entries, "{text}");
        };
        check(&format!("{good}owners = \"@me\"\n"), "line 5, `owners`", 0);
        check(&good.replace("\"races\"", "12"), "line 3, `reason`: a string is needed", 0);
        check(&good.replace("2027-01-01", "\"some day\""), "line 4, `expires`", 1);
        check("[[quarantine]]\ntest = \"a\"\nreason = \"b\"\n", "`expires`: it is missing", 1);
        check(
            &format!("{good}\n[[quarantine]]\nreason = \"b\"\nexpires = 2027-01-01\n"),
            "`test`: it is missing",
            1,
        );
        check(&format!("{good}signature = \"xyz\"\n"), "line 5, `signature`", 0);
        check("[[quarantine]]\ntest = \"a\n", "line 2", 0);
        check("quarantine = 3\n", "line 1, `quarantine`", 0);
        check("schema = \"other/v9\"\n", "line 1, `schema`", 0);
        check("[[quarantine]]\ntest = \"*\"\nreason = \"b\"\nexpires = 2027-01-01\n", "line 2, `test`", 0);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(test in "[^\\*]{1,40}", reason in "\\PC{1,40}") {
            let written = Entry { test, reason, origin: Origin::File, ..entry("a", "2027-01-01") };
            prop_assume!(written.wrong().is_empty());
            let found = read(&write(std::slice::from_ref(&written)));
            prop_assert_eq!(found.problems, []);
            prop_assert_eq!(found.entries, [written]);
        }

        #[test]
        fn no_text_is_too_much(text in "\\PC*") {
            let _any = read(&text);
        }
    }
}
