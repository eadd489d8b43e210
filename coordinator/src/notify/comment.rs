//! Comments that ask for reruns: a line `/flaky TEST:COUNT`. And whether a delivery is its sender's: HMAC over
//! the body as it came. Pure.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// Most runs that a comment asks for.
pub const MOST_RUNS: u32 = 1_000;
/// Requests of one comment.
const MOST_REQUESTS: usize = 5;
/// Longest name of a test.
const LONGEST_TEST: usize = 1_000;
/// Who may ask: on a public project anybody can write a comment.
const TRUSTED: [&str; 3] = ["OWNER", "MEMBER", "COLLABORATOR"];

/// What a delivery asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nothing of ours, and why.
    Nothing(&'static str),
    /// Reruns, and the issue or pull request to answer on.
    Reruns {
        /// Tests and runs of each.
        tests: Vec<(String, u32)>,
        /// The number.
        thread: u64,
        /// Who asked.
        who: String,
    },
}

/// Whether `header` (`sha256=HEX`) signs `body` under `secret`. Compared in constant time.
pub fn is_signed(secret: &str, header: &str, body: &[u8]) -> bool {
    let Some(signature) = header.strip_prefix("sha256=").and_then(|hex| hex::decode(hex).ok()) else {
        return false;
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key has any length");
    mac.update(body);
    mac.verify_slice(&signature).is_ok()
}

/// Reads a delivery of the event `event`.
pub fn read(event: &str, body: &Value) -> Asked {
    if event != "issue_comment" || body["action"] != "created" {
        return Asked::Nothing("it is no new comment");
    }
    if body["issue"]["pull_request"].is_null() {
        return Asked::Nothing("it is not on a pull request");
    }
    let tests = requests(body["comment"]["body"].as_str().unwrap_or_default());
    if tests.is_empty() {
        return Asked::Nothing("it asks for nothing");
    }
    let association = body["comment"]["author_association"].as_str().unwrap_or_default();
    if !TRUSTED.contains(&association) {
        return Asked::Nothing("its author may not ask");
    }
    let Some(thread) = body["issue"]["number"].as_u64() else {
        return Asked::Nothing("it is on nothing that has a number");
    };
    let who = body["comment"]["user"]["login"].as_str().unwrap_or("somebody").chars().take(100).collect();
    Asked::Reruns { tests, thread, who }
}

/// The requests of a comment, one a line: the count stands behind the last colon.
fn requests(comment: &str) -> Vec<(String, u32)> {
    let request = |line: &str| {
        let (test, count) = line.trim().strip_prefix("/flaky ")?.trim().rsplit_once(':')?;
        let count: u32 = count.parse().ok().filter(|count| (1..=MOST_RUNS).contains(count))?;
        let test = test.trim_end_matches(':').trim().trim_matches('`');
        let fits =
            !test.is_empty() && test.chars().count() <= LONGEST_TEST && !test.chars().any(char::is_control);
        fits.then(|| (test.to_owned(), count))
    };
    comment.lines().filter_map(request).take(MOST_REQUESTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_secret_signs_is_its_senders() {
        // Python: hmac.new(b"0123456789abcdef", b"{}", "sha256").hexdigest()
        let signed = "sha256=f91e3e9f05cc2df64ac1c26f8adccdffda8d1e4a7a8c50a1a08eeadac6ddfec5";
        assert!(is_signed("0123456789abcdef", signed, b"{}"));
        assert!(!is_signed("0123456789abcdef", signed, b"{} "), "the body as it came");
        assert!(!is_signed("another secret..", signed, b"{}"));
        for forged in ["", "sha256=", "sha256=00", "sha1=00", "sha256=zz", &signed[..20]] {
            assert!(!is_signed("0123456789abcdef", forged, b"{}"), "{forged}");
        }
    }

    #[test]
    fn a_line_of_a_trusted_author_on_a_pull_request_asks() {
        let comment = |text: &str, author: &str| {
            json!({
                "action": "created",
                "issue": { "number": 12, "pull_request": {} },
                "comment": { "body": text, "author_association": author, "user": { "login": "me" } },
            })
        };
        let asked = |text: &str| match read("issue_comment", &comment(text, "MEMBER")) {
            Asked::Reruns { tests, thread: 12, .. } => tests,
            other => panic!("{other:?}"),
        };
        assert_eq!(asked("see:\n/flaky t.py::a[x:1]:20\n"), [("t.py::a[x:1]".to_owned(), 20)]);
        assert_eq!(asked("/flaky `t.py::a`:3"), [("t.py::a".to_owned(), 3)]);
        assert_eq!(asked(&"/flaky a:1\n".repeat(50)).len(), MOST_REQUESTS);
        for nothing in [
            "",
            "flaky a:1",
            "/flaky a",
            "/flaky a:0",
            "/flaky a:1001",
            "/flaky a:-1",
            "/flaky :5",
            "x /flaky a:1",
        ] {
            assert_eq!(
                read("issue_comment", &comment(nothing, "OWNER")),
                Asked::Nothing("it asks for nothing"),
                "{nothing}"
            );
        }
        for stranger in ["NONE", "CONTRIBUTOR", "FIRST_TIMER", ""] {
            assert_eq!(
                read("issue_comment", &comment("/flaky a:1", stranger)),
                Asked::Nothing("its author may not ask")
            );
        }
        assert!(matches!(read("push", &comment("/flaky a:1", "OWNER")), Asked::Nothing(_)));
        let mut edited = comment("/flaky a:1", "OWNER");
        edited["action"] = json!("edited");
        assert!(matches!(read("issue_comment", &edited), Asked::Nothing(_)));
        assert!(matches!(read("issue_comment", &json!([])), Asked::Nothing(_)));
    }
}
