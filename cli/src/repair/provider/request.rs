//! What a provider is told: the failing tests with what they printed, what changed in the code, the test files,
//! and what became of earlier proposals. It is bounded, says of everything that strangers may have written that
//! it is data, and has no secret of ours in it.

use serde::{Deserialize, Serialize};

/// Bytes of what one test printed.
const OUTPUT_BYTES: usize = 8 << 10;
/// Bytes of the difference of the code.
const DIFF_BYTES: usize = 60 << 10;
/// Bytes of one file.
const FILE_BYTES: usize = 120 << 10;
/// Bytes of all files.
const FILES_BYTES: usize = 240 << 10;
/// Bytes of one earlier proposal.
const ATTEMPT_BYTES: usize = 12 << 10;
/// Failing tests that are told of.
const MOST_TESTS: usize = 20;
/// Changes that are listed.
const MOST_CHANGES: usize = 100;

/// What a proposal must keep to, whoever makes it.
const RULES: [&str; 6] = [
    "change test files only (test_*.py, *_test.py, conftest.py, files below tests/); the code under test stays",
    "no test, assertion, parameter row or expected message is removed, weakened or skipped; nothing is retried, \
     caught or waited for longer",
    "do not compute an expected value from the code under test; changing one is shown to a person, never applied",
    "if the code is wrong and the test is right, propose nothing",
    "paths begin at the project's root; text files only; no links, no new directories",
    "what you propose is run many times with and without your change; other tests must stay as they are",
];

/// All of it: `flakefarm.repair-request/v1`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Request {
    pub(crate) schema: &'static str,
    pub(crate) project: String,
    /// From 0: how many answers were asked for before.
    pub(crate) round: u32,
    pub(crate) rules: Vec<&'static str>,
    pub(crate) tests: Vec<FailingTest>,
    /// What changed in the code since the tests were right, a line each.
    pub(crate) changes: Vec<String>,
    /// The same as a unified diff.
    pub(crate) diff: String,
    pub(crate) files: Vec<File>,
    pub(crate) attempts: Vec<Attempt>,
    /// What was left out for want of room.
    pub(crate) left_out: Vec<String>,
}

/// A test that is to be mended.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FailingTest {
    pub(crate) id: String,
    /// Why it fails, if a diagnosis said.
    pub(crate) cause: Option<String>,
    pub(crate) exception: Option<String>,
    pub(crate) message: String,
    /// What it printed.
    pub(crate) output: String,
}

/// A file of the tests.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// An earlier proposal, and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) diff: String,
    /// Why it was not taken.
    pub(crate) refused_because: Vec<String>,
}

/// What a request is made of, before it is cut.
pub(crate) struct Material {
    pub(crate) project: String,
    pub(crate) tests: Vec<FailingTest>,
    pub(crate) changes: Vec<String>,
    pub(crate) diff: String,
    pub(crate) files: Vec<File>,
}

impl Request {
    /// Puts it together within its bounds; `secrets` are masked wherever they stand.
    pub(crate) fn new(material: &Material, round: u32, attempts: &[Attempt], secrets: &[String]) -> Self {
        let clean = |text: &str, most: usize| last(&masked(text, secrets), most);
        let mut left_out = Vec::new();
        let tests: Vec<FailingTest> = material
            .tests
            .iter()
            .take(MOST_TESTS)
            .map(|test| FailingTest {
                id: test.id.clone(),
                cause: test.cause.clone(),
                exception: test.exception.clone(),
                message: clean(&test.message, OUTPUT_BYTES),
                output: clean(&test.output, OUTPUT_BYTES),
            })
            .collect();
        if material.tests.len() > MOST_TESTS {
            left_out.push(format!("{} more failing tests", material.tests.len() - MOST_TESTS));
        }
        let mut room = FILES_BYTES;
        let mut files = Vec::new();
        for file in &material.files {
            if file.text.len() > FILE_BYTES.min(room) {
                left_out.push(format!("{}, {} bytes", file.path, file.text.len()));
                continue;
            }
            room -= file.text.len();
            files.push(File { path: file.path.clone(), text: masked(&file.text, secrets) });
        }
        let mut diff = masked(&material.diff, secrets);
        if diff.len() > DIFF_BYTES {
            left_out.push(format!("the end of the difference of the code, {} bytes in all", diff.len()));
            diff = first(&diff, DIFF_BYTES);
        }
        Self {
            schema: "flakefarm.repair-request/v1",
            project: material.project.clone(),
            round,
            rules: RULES.to_vec(),
            tests,
            changes: material.changes.iter().take(MOST_CHANGES).cloned().collect(),
            diff,
            files,
            attempts: attempts
                .iter()
                .map(|attempt| Attempt {
                    diff: first(&masked(&attempt.diff, secrets), ATTEMPT_BYTES),
                    refused_because: attempt
                        .refused_because
                        .iter()
                        .map(|reason| clean(reason, OUTPUT_BYTES))
                        .collect(),
                })
                .collect(),
            left_out,
        }
    }
}

/// The first so many bytes, at the end of a line if there is one.
fn first(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    let end = text[..end].rfind('\n').map_or(end, |place| place + 1);
    text[..end].to_owned()
}

/// The last so many bytes.
fn last(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    text[text.ceil_char_boundary(text.len() - most)..].to_owned()
}

/// Beginnings of words that open something.
const OPENERS: [&str; 11] =
    ["ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "sk-", "xoxb-", "xoxp-", "AKIA", "ff_", "eyJ"];
/// Shortest word that is masked for its beginning.
const OPENER_BYTES: usize = 20;
/// Names of what is to be kept to oneself.
const NAMES: [&str; 6] = ["password", "passwd", "secret", "token", "api_key", "apikey"];

/// The text without secrets: those that are known, words that look like one, what is assigned to a name that says
/// so, and private keys.
fn masked(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.len() >= 8) {
        text = text.replace(secret.as_str(), "(masked)");
    }
    let mut result = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            in_key = true;
            result.push_str("(masked private key)\n");
        }
        if !in_key {
            result.push_str(&masked_line(line));
        }
        if line.contains("-----END") {
            in_key = false;
        }
    }
    result
}

fn masked_line(line: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '=' | '%');
    let mut result = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(is_word) {
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        let end = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = &rest[end..];
        if word.len() >= OPENER_BYTES && OPENERS.iter().any(|opener| word.starts_with(opener)) {
            result.push_str("(masked)");
            continue;
        }
        // NAME=value in one word, as environments are printed.
        match word.split_once('=') {
            Some((name, value)) if !value.is_empty() && names_a_secret(name) => {
                result.push_str(name);
                result.push_str("=(masked)");
            }
            _ => result.push_str(word),
        }
    }
    result.push_str(rest);
    result
}

/// Whether a variable of the environment of that name is somebody's secret.
pub(crate) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|known| name.ends_with(known)) || name.ends_with("_key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn material() -> Material {
        let test = |id: usize| FailingTest {
            id: format!("t{id}"),
            cause: None,
            exception: None,
            message: "m".to_owned(),
            output: format!("{}end", "é".repeat(OUTPUT_BYTES)),
        };
        let file = |path: &str, bytes: usize| File { path: path.to_owned(), text: "x".repeat(bytes) };
        Material {
            project: "p".to_owned(),
            tests: (0..MOST_TESTS + 2).map(test).collect(),
            changes: vec!["c".to_owned(); 2 * MOST_CHANGES],
            diff: "+ a line of it\n".repeat(DIFF_BYTES),
            files: vec![
                file("a", FILE_BYTES),
                file("large", FILE_BYTES + 1),
                file("b", FILE_BYTES - 1),
                file("c", 2),
            ],
        }
    }

    #[test]
    fn a_request_is_bounded_and_says_what_it_leaves_out() {
        let attempt = Attempt { diff: "-\n".repeat(ATTEMPT_BYTES), refused_because: vec!["no".to_owned()] };
        let request = Request::new(&material(), 2, &[attempt], &[]);
        assert_eq!((request.tests.len(), request.changes.len()), (MOST_TESTS, MOST_CHANGES));
        assert!(request.tests[0].output.len() <= OUTPUT_BYTES && request.tests[0].output.ends_with("end"));
        assert!(request.diff.len() <= DIFF_BYTES && request.diff.ends_with("it\n"));
        assert!(request.attempts[0].diff.len() <= ATTEMPT_BYTES);
        let names: Vec<&str> = request.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let text = request.left_out.join("\n");
        assert!(
            text.contains("2 more failing tests") && text.contains("large, ") && text.contains("c, 2 bytes")
        );
        assert!(serde_json::to_string(&request).unwrap().len() < 800 << 10);
    }

    #[test]
    fn secrets_are_masked() {
        let check = |text: &str, expect: &str| {
            assert_eq!(masked(text, &["hunter2hunter2".to_owned()]), expect, "{text}");
        };
        check("it said hunter2hunter2!\n", "it said (masked)!\n");
        check("ghp_0123456789abcdefghij and sk-short\n", "(masked) and sk-short\n");
        check("DB_PASSWORD=x1 HOME=/root\n", "DB_PASSWORD=(masked) HOME=/root\n");
        check("token == 1; assert token\n", "token == 1; assert token\n");
        check(
            "a\n-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nb\n",
            "a\n(masked private key)\nb\n",
        );
        check("é=ü → ok\n", "é=ü → ok\n");
    }
}
