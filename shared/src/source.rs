//! What the sources say of a test before it runs: whether it is what it was, and what makes it risky.

use crate::ids::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the sources say of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestSource {
    /// Over the test's own code, its file without the other tests, and the project's files that
    /// these reach by static imports, `conftest.py` included. Equal fingerprints: nothing that the
    /// test is known to touch has changed. Comments and blank lines do not count.
    pub fingerprint: Digest,
    /// What was found in the test and in what it names; sorted.
    pub risks: Vec<Risk>,
    /// Over what the test itself does: it stays as long as the test is only renamed or moved. None where
    /// that could not be told, or where there is nothing to tell it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Digest>,
}

/// Something in the source of a test that makes flakiness likelier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// It waits for a fixed time.
    Sleep,
    /// Threads, processes or coroutines.
    Concurrency,
    /// The clock or the date.
    Clock,
    /// Sockets, or a client of something that has one.
    Network,
    /// Random numbers, unseeded.
    Randomness,
    /// The order of a set, a directory or hashes.
    Unordered,
    /// Other processes.
    Subprocess,
    /// Files at names that others may use.
    TemporaryFiles,
    /// Changes what other tests can see: globals, the process's environment or directory.
    SharedState,
    /// Something that a newer worker knows.
    #[serde(other)]
    Unknown,
}

impl Risk {
    /// What it is called in reports.
    pub fn word(self) -> &'static str {
        match self {
            Risk::Sleep => "sleeps",
            Risk::Concurrency => "concurrency",
            Risk::Clock => "clock",
            Risk::Network => "network",
            Risk::Randomness => "randomness",
            Risk::Unordered => "unordered iteration",
            Risk::Subprocess => "subprocesses",
            Risk::TemporaryFiles => "temporary files",
            Risk::SharedState => "shared state",
            Risk::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_worker_says_has_no_body() {
        let told = format!(r#"{{"fingerprint":"{}","risks":[]}}"#, Digest::of(b""));
        assert_eq!(serde_json::from_str::<TestSource>(&told).unwrap().body, None);
    }

    #[test]
    fn risks_of_a_newer_worker_are_read() {
        let read: Vec<Risk> = serde_json::from_str(r#"["sleep","moon_phase"]"#).unwrap();
        assert_eq!(read, [Risk::Sleep, Risk::Unknown]);
    }
}
