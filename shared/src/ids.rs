//! Ids are types, so that a job cannot be passed where a sweep is meant.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id; ids made later sort later (UUID version 7).
            #[expect(clippy::new_without_default, reason = "an id is made on purpose, never by default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// One request to the farm.
    SweepId
);
uuid_id!(
    /// One bounded batch of attempts, the unit on the queue.
    JobId
);

impl JobId {
    /// The id of the job that a planner calls `key` in `sweep`. Derived, so that planning the same
    /// step twice names the same job.
    pub fn derive(sweep: SweepId, key: &str) -> Self {
        Self(Uuid::new_v5(&sweep.0, key.as_bytes()))
    }
}

/// What the test's own framework calls it (for pytest, its node id; a second test of the same
/// node id in one collection carries the suffix `#2`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TestId(pub String);

impl TestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file that an id names by itself. Only pytest's do; of others, listings tell the parts.
    pub fn own_file(&self) -> Option<&str> {
        self.0.split_once("::").map(|(file, _)| file)
    }
}

impl fmt::Display for TestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&str> for TestId {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What a test's id is made of. The [`TestId`] is the framework's own spelling, for people and for asking
/// the framework; parts are for grouping, matching and keeping.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TestParts {
    /// The file below the project's root, with `/` between directories; empty if it is in none.
    pub file: String,
    /// The classes (or what the framework has instead) around it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Its name, without parameters.
    pub name: String,
    /// Its parameters, as the framework spells them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<String>,
    /// 1, or more for a further test that the framework calls the same.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub ordinal: u32,
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_first(ordinal: &u32) -> bool {
    *ordinal == 1
}

impl TestParts {
    /// The parts of an id that was recorded before listings told them: all such ids are pytest's.
    pub fn of_recorded(test: &TestId) -> Self {
        let text = test.as_str();
        // Parameters may hold anything, brackets and colons included.
        let (path, parameters) = match text.split_once('[') {
            Some((path, rest)) => (path, Some(rest)),
            None => (text, None),
        };
        let (ordinal, parameters, path) = match parameters {
            Some(rest) => match rest.rsplit_once("]#") {
                Some((inner, digits)) if digits.parse::<u32>().is_ok() => {
                    (digits.parse().ok(), Some(inner), path)
                }
                Some(_) | None => (None, Some(rest.strip_suffix(']').unwrap_or(rest)), path),
            },
            None => match path.rsplit_once('#') {
                Some((inner, digits)) if digits.parse::<u32>().is_ok() => (digits.parse().ok(), None, inner),
                Some(_) | None => (None, None, path),
            },
        };
        let mut names: Vec<String> = path.split("::").map(str::to_owned).collect();
        let file = if names.len() > 1 { names.remove(0) } else { String::new() };
        let name = names.pop().unwrap_or_default();
        let parameters = parameters.map(str::to_owned);
        Self { file, classes: names, name, parameters, ordinal: ordinal.unwrap_or(1) }
    }

    /// Equal for equal parts, and for no others: the name under which a test is kept within a project.
    pub fn key(&self) -> Digest {
        let ordinal = self.ordinal.to_string();
        let parameters = self.parameters.as_deref().map_or_else(|| "-".to_owned(), |text| format!("+{text}"));
        let parts = [self.file.as_str(), self.name.as_str(), parameters.as_str(), ordinal.as_str()];
        let mut text = String::new();
        for part in parts.into_iter().chain(self.classes.iter().map(String::as_str)) {
            text.push_str(&format!("{}:{part}", part.len()));
        }
        Digest::of(text.as_bytes())
    }
}

/// One execution in one fresh sandbox. Derived, never random: it is the idempotency key of its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptId {
    /// The job it belongs to.
    pub job: JobId,
    /// Its place among the job's attempts.
    pub index: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.index)
    }
}

/// A worker process, named by its operator or its host; unique on the farm.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of some content, in lower-case hexadecimal: the name of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(content)))
    }

    /// The digest of all that `content` gives.
    pub fn of_reader(content: &mut impl std::io::Read) -> std::io::Result<Self> {
        let mut hash = Sha256::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            match content.read(&mut piece) {
                Ok(0) => return Ok(Self(hex::encode(hash.finalize()))),
                Ok(read) => hash.update(&piece[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// All 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people and for image tags.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;
    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// Text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a SHA-256 digest")]
pub struct NotADigest(String);

impl FromStr for Digest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ok = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if ok { Ok(Self(text.to_owned())) } else { Err(NotADigest(text.chars().take(100).collect())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_digest_is_refused_when_it_is_read() {
        let digest = Digest::of(b"content");
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        for text in ["", "x", "é", &"A".repeat(64), &"../".repeat(22)] {
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<Digest>(&json).is_err(), "{json}");
        }
    }

    fn parts(file: &str, classes: &[&str], name: &str, parameters: Option<&str>, ordinal: u32) -> TestParts {
        TestParts {
            file: file.to_owned(),
            classes: classes.iter().map(|&class| class.to_owned()).collect(),
            name: name.to_owned(),
            parameters: parameters.map(str::to_owned),
            ordinal,
        }
    }

    #[test]
    fn recorded_ids_are_taken_apart() {
        for (id, expected) in [
            ("tests/test_a.py::test_one", parts("tests/test_a.py", &[], "test_one", None, 1)),
            ("t.py::TestA::TestB::test_c", parts("t.py", &["TestA", "TestB"], "test_c", None, 1)),
            ("t.py::test_p[a::b[0]]", parts("t.py", &[], "test_p", Some("a::b[0]"), 1)),
            ("t.py::test_p[x]#2", parts("t.py", &[], "test_p", Some("x"), 2)),
            ("t.txt::twin#3", parts("t.txt", &[], "twin", None, 3)),
            ("alone", parts("", &[], "alone", None, 1)),
            ("t.py::test_p[", parts("t.py", &[], "test_p", Some(""), 1)),
            ("", parts("", &[], "", None, 1)),
        ] {
            assert_eq!(TestParts::of_recorded(&TestId::from(id)), expected, "{id}");
        }
    }

    #[test]
    fn keys_tell_all_parts_apart() {
        let different = [
            parts("a", &[], "b", None, 1),
            parts("a", &["b"], "b", None, 1),
            parts("a", &[], "b", Some(""), 1),
            parts("a", &[], "b", Some("1"), 1),
            parts("a", &[], "b", None, 2),
            parts("ab", &[], "", None, 1),
        ];
        let keys: std::collections::BTreeSet<_> = different.iter().map(TestParts::key).collect();
        assert_eq!(keys.len(), different.len());
    }

    #[test]
    fn parts_survive_being_written() {
        let whole = parts("a.py", &["C"], "n", Some("p"), 2);
        let text = serde_json::to_string(&whole).expect("parts serialise");
        assert_eq!(serde_json::from_str::<TestParts>(&text).expect("and are read"), whole);
        let short: TestParts = serde_json::from_str(r#"{"file":"a.py","name":"n"}"#).expect("short parts");
        assert_eq!(short, parts("a.py", &[], "n", None, 1));
    }
}
