//! The quarantine in the words of test runners: arguments and filters that leave its tests out, or let them
//! fail. An entry that mutes one failure only cannot be said to a runner; it is left out, and told.

use super::{Entry, Standing, file};
use flakefarm_shared::UnixMicros;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// A runner's way to hear of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The file that a project keeps.
    Toml,
    /// All of it, for programs.
    Json,
    /// Arguments of pytest, one a line, for `pytest @FILE`.
    PytestDeselect,
    /// A plugin of pytest that lets them fail: `pytest -p flakefarm_quarantine`.
    PytestXfail,
    /// An argument of jest: a pattern of names.
    Jest,
    /// A filter set of nextest: `cargo nextest run -E "$(…)"`.
    Nextest,
    /// A pattern for `go test -skip`.
    Go,
    /// The value of Surefire's `-Dtest=`.
    Surefire,
}

impl Format {
    /// All, in the order help texts list them.
    pub const ALL: [Format; 8] = [
        Format::Toml,
        Format::Json,
        Format::PytestDeselect,
        Format::PytestXfail,
        Format::Jest,
        Format::Nextest,
        Format::Go,
        Format::Surefire,
    ];

    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Format::Toml => "toml",
            Format::Json => "json",
            Format::PytestDeselect => "pytest-deselect",
            Format::PytestXfail => "pytest-xfail",
            Format::Jest => "jest",
            Format::Nextest => "nextest",
            Format::Go => "go",
            Format::Surefire => "surefire",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Format::ALL.into_iter().find(|format| format.word() == text);
        known.ok_or_else(|| {
            let words: Vec<_> = Format::ALL.into_iter().map(Format::word).collect();
            format!("`{text}` is none of {}", words.join(", "))
        })
    }
}

/// What is to be written, and what could not be said in this format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// It.
    pub text: String,
    /// A line for each entry that is left out.
    pub left_out: Vec<String>,
}

/// Writes entries in a format. What has expired is in no runner's words.
pub fn export(entries: &[Entry], format: Format, now: UnixMicros) -> Exported {
    match format {
        Format::Toml => return Exported { text: file::write(entries), left_out: Vec::new() },
        Format::Json => {
            let list: Vec<_> = entries
                .iter()
                .map(|entry| {
                    let mut value = serde_json::to_value(entry).expect("plain data serialises");
                    value["standing"] = json!(entry.standing(now));
                    value
                })
                .collect();
            let all = json!({ "schema": "flakefarm.quarantine/v1", "entries": list });
            let text = serde_json::to_string_pretty(&all).expect("plain data serialises") + "\n";
            return Exported { text, left_out: Vec::new() };
        }
        _ => {}
    }
    let mut left_out = Vec::new();
    let mut said: BTreeSet<&str> = BTreeSet::new();
    for entry in entries {
        let why = if entry.standing(now) == Standing::Expired {
            Some("it has expired")
        } else if entry.signature.is_some() {
            Some("it mutes one failure only, which `flakefarm run` and `check` can")
        } else if entry.test.contains('*') && format == Format::PytestDeselect {
            Some("pytest deselects ids and no patterns: pytest-xfail can")
        } else if entry.test.chars().any(char::is_control) {
            Some("its name has control characters")
        } else {
            None
        };
        match why {
            Some(why) => left_out.push(format!("{}: {why}", entry.test)),
            None => {
                said.insert(&entry.test);
            }
        }
    }
    let tests: Vec<&str> = said.into_iter().collect();
    let text = match format {
        Format::Toml | Format::Json => unreachable!("they are written above"),
        Format::PytestDeselect => lines(tests.iter().map(|test| format!("--deselect={test}"))),
        Format::PytestXfail => xfail(entries, &tests),
        Format::Jest => one_of(&tests, last_name).map_or_else(String::new, |names| {
            // The names of the tests around it stand before a test's own, with spaces between.
            format!("--testNamePattern=^(?!(.* )?({names})$).*$\n")
        }),
        Format::Nextest => nextest(&tests),
        Format::Go => go(&tests),
        Format::Surefire => surefire(&tests),
    };
    Exported { text, left_out }
}

fn lines(all: impl Iterator<Item = String>) -> String {
    all.map(|line| line + "\n").collect()
}

/// A test's own name: what stands last in an id.
fn last_name(test: &str) -> &str {
    test.rsplit_once("::").map_or(test, |(_, name)| name)
}

/// An alternative of regular expressions, each the whole name.
fn one_of<'t>(tests: &[&'t str], name: impl Fn(&'t str) -> &'t str) -> Option<String> {
    let names: BTreeSet<String> = tests.iter().map(|test| regex(name(test))).collect();
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("|"))
}

/// Text as a regular expression that matches it, with `*` for any text.
fn regex(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.chars() {
        match c {
            '*' => pattern.push_str(".*"),
            c if c.is_ascii_punctuation()
                && !matches!(
                    c,
                    '_' | '-'
                        | '"'
                        | '\''
                        | '/'
                        | ','
                        | ':'
                        | '='
                        | '@'
                        | '%'
                        | '&'
                        | '#'
                        | '~'
                        | '`'
                        | '<'
                        | '>'
                        | ';'
                        | '!'
                ) =>
            {
                pattern.push('\\');
                pattern.push(c);
            }
            c => pattern.push(c),
        }
    }
    pattern
}

/// Alternatives outside of brackets, and in each a pattern for every level of sub-tests: Go splits the whole at
/// `|` and at `/` before it reads any of it.
fn go(tests: &[&str]) -> String {
    let level = |name: &str| format!("^{}$", regex(name));
    let path = |test: &str| go_name(test).split('/').map(level).collect::<Vec<_>>().join("/");
    let paths: BTreeSet<String> = tests.iter().map(|test| path(test)).collect();
    if paths.is_empty() { String::new() } else { paths.into_iter().collect::<Vec<_>>().join("|") + "\n" }
}

/// The name of a test of Go without its package: `example.com/shop.TestTotal/empty` is `TestTotal/empty`.
fn go_name(test: &str) -> &str {
    let starts = [".Test", ".Fuzz", ".Example"];
    match (test.rsplit_once("::"), starts.iter().filter_map(|start| test.find(start)).min()) {
        (Some((_, name)), _) => name,
        (None, Some(dot)) => &test[dot + 1..],
        (None, None) => test,
    }
}

fn nextest(tests: &[&str]) -> String {
    if tests.is_empty() {
        return "all()\n".to_owned();
    }
    // A slash would end the expression.
    let whole = |text: &str| format!("/^{}$/", regex(text).replace('/', "\\/"));
    let each = tests.iter().flat_map(|test| {
        // As reports name it, with its binary before it: nobody says where that one's name ends.
        let of_binary =
            test.match_indices("::").chain(test.match_indices('.').take(1)).map(|(at, between)| {
                let (binary, name) = (&test[..at], &test[at + between.len()..]);
                format!("(binary_id({}) & test({}))", whole(binary), whole(name))
            });
        std::iter::once(format!("test({})", whole(test))).chain(of_binary).collect::<Vec<_>>()
    });
    format!("not ({})\n", each.collect::<Vec<_>>().join(" | "))
}

/// `!Class#method+other,…`: everything but these.
fn surefire(tests: &[&str]) -> String {
    let mut classes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for test in tests {
        let (class, method) = test
            .rsplit_once("::")
            .or_else(|| test.rsplit_once('#'))
            .or_else(|| test.rsplit_once('.'))
            .unwrap_or((test, "*"));
        // Repetitions and parameters are Surefire's own affair: the method is named.
        let method = method.split(['[', '(', '{', ' ']).next().unwrap_or(method);
        classes.entry(class).or_default().insert(method);
    }
    let each: Vec<String> = classes
        .into_iter()
        .map(|(class, methods)| format!("!{class}#{}", methods.into_iter().collect::<Vec<_>>().join("+")))
        .collect();
    if each.is_empty() { String::new() } else { each.join(",") + "\n" }
}

/// A plugin that marks them: they run, and what they do is shown and stops nobody.
fn xfail(entries: &[Entry], tests: &[&str]) -> String {
    let reasons: BTreeMap<&str, String> = entries
        .iter()
        .filter(|entry| tests.contains(&entry.test.as_str()))
        .map(|entry| (entry.test.as_str(), format!("quarantined: {}", entry.describe())))
        .collect();
    // JSON's strings are Python's, but for surrogates, which it writes as pairs: as text they stay whole.
    let table = serde_json::to_string_pretty(&reasons).expect("plain data serialises");
    format!(
        "\"\"\"Tests in quarantine run, and may fail. Written by `flakefarm quarantine export`.\n\n\
         Use: pytest -p flakefarm_quarantine\n\"\"\"\n\n\
         import re\n\nimport pytest\n\nQUARANTINE = {table}\n\n\n\
         def _pattern(test):\n    return re.compile(\".*\".join(re.escape(part) for part in test.split(\"*\")))\n\n\n\
         _EXACT = {{test: why for test, why in QUARANTINE.items() if \"*\" not in test}}\n\
         _PATTERNS = [(_pattern(test), why) for test, why in QUARANTINE.items() if \"*\" in test]\n\n\n\
         def pytest_collection_modifyitems(items):\n    \
         for item in items:\n        \
         why = _EXACT.get(item.nodeid) or next(\n            \
         (why for pattern, why in _PATTERNS if pattern.fullmatch(item.nodeid)), None\n        )\n        \
         if why is not None:\n            \
         item.add_marker(pytest.mark.xfail(reason=why, strict=False))\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;

    const NOW: UnixMicros = 1_795_824_000_000_000; // 2026-11-28

    fn said(format: Format, tests: &[&str]) -> String {
        let entries: Vec<Entry> = tests.iter().map(|test| entry(test, "2027-01-01")).collect();
        export(&entries, format, NOW).text
    }

    #[test]
    fn each_runner_is_told_in_its_own_words() {
        let check = |format: Format, tests: &[&str], expect: &str| assert_eq!(said(format, tests), expect);
        check(
            Format::PytestDeselect,
            &["a.py::b[x y]", "a.py::c"],
            "--deselect=a.py::b[x y]\n--deselect=a.py::c\n",
        );
        check(
            Format::Jest,
            &["a.test.js::adds (1+2)"],
            "--testNamePattern=^(?!(.* )?(adds \\(1\\+2\\))$).*$\n",
        );
        check(
            Format::Nextest,
            &["shop::bin/a::b*"],
            "not (test(/^shop::bin\\/a::b.*$/) | (binary_id(/^shop$/) & test(/^bin\\/a::b.*$/)) | \
             (binary_id(/^shop::bin\\/a$/) & test(/^b.*$/)))\n",
        );
        check(Format::Nextest, &[], "all()\n");
        let of_go = ["shop::TestA", "shop::TestB/sub.x", "example.com/shop.TestC/a(b|c)"];
        check(Format::Go, &of_go, "^TestA$|^TestB$/^sub\\.x$|^TestC$/^a\\(b\\|c\\)$\n");
        check(Format::Surefire, &["org.a.B::c", "org.a.B::d[1]", "org.a.E#f"], "!org.a.B#c+d,!org.a.E#f\n");
        assert!(
            said(Format::PytestXfail, &["a.py::b[\"\\]"])
                .contains(r#""a.py::b[\"\\]": "quarantined: it races"#)
        );
    }

    #[test]
    fn what_cannot_be_said_is_left_out_and_told() {
        let entries = [
            entry("a.py::old", "2026-01-01"),
            Entry { signature: Some("0".repeat(16)), ..entry("a.py::one", "2027-01-01") },
            entry("a.py::many*", "2027-01-01"),
            entry("a.py::line\nbreak", "2027-01-01"),
        ];
        let exported = export(&entries, Format::PytestDeselect, NOW);
        assert_eq!(exported.text, "");
        assert_eq!(exported.left_out.len(), 4, "{:?}", exported.left_out);
        assert_eq!(export(&entries, Format::Go, NOW).text, "^many.*$\n");
    }
}
