//! Signatures: equal for failures that look alike. Pure and stable: signatures are kept in history,
//! so a change here splits every known failure in two.

use crate::outcome::Frame;
use crate::{Digest, FailureKind, Phase};

/// Sixteen hexadecimal digits over kind, phase, exception types, frames (path and function; lines
/// move with every edit) and the masked message. Limits and exit codes count, durations do not.
pub fn signature(
    kind: &FailureKind,
    phase: Phase,
    exceptions: &[String],
    frames: &[Frame],
    message: &str,
) -> String {
    let mut text = String::from(kind.word());
    match kind {
        FailureKind::Crash { exit_code } => text.push_str(&format!(" {exit_code}")),
        FailureKind::Assertion
        | FailureKind::Exception
        | FailureKind::Framework
        | FailureKind::Timeout { .. }
        | FailureKind::OutOfMemory => {}
    }
    text.push_str(match phase {
        Phase::Setup => "\nsetup\n",
        Phase::Call => "\ncall\n",
        Phase::Teardown => "\nteardown\n",
    });
    for exception in exceptions {
        text.push_str(exception);
        text.push('\n');
    }
    for frame in frames {
        text.push_str(&format!("{}:{}\n", frame.path, frame.function));
    }
    text.push_str(&mask(message));
    Digest::of(text.as_bytes()).as_str()[..16].to_owned()
}

/// Quoted text longer than this is data, not wording.
const LONG_QUOTED: usize = 40;

/// The message with what differs from run to run replaced: numbers, addresses and other long
/// hexadecimal words, UUIDs, dates and times, temporary paths, long quoted strings. White space is
/// folded.
pub fn mask(message: &str) -> String {
    let mut masked = String::with_capacity(message.len());
    let mut rest = message;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let (token, replacement) = next_token(rest, first, previous);
        previous = token.chars().next_back().unwrap_or(first);
        match replacement {
            Some(word) => masked.push_str(word),
            None if first.is_whitespace() => {
                if !masked.ends_with(' ') {
                    masked.push(' ');
                }
            }
            None => masked.push_str(token),
        }
        rest = &rest[token.len()..];
    }
    masked.trim().to_owned()
}

/// The next token of `rest` and what stands for it.
fn next_token(rest: &str, first: char, previous: char) -> (&str, Option<&'static str>) {
    // After a letter it is an apostrophe.
    if matches!(first, '\'' | '"')
        && !previous.is_alphanumeric()
        && let Some(end) = closing_quote(rest, first)
        && rest[..end].chars().count() > LONG_QUOTED + 2
    {
        return (&rest[..end], Some("<text>"));
    }
    if first == '/' && TEMPORARY.iter().any(|prefix| rest.starts_with(prefix)) {
        return (take(rest, |c| !c.is_whitespace() && !"'\"<>()[]{},;:".contains(c)), Some("<path>"));
    }
    if first.is_alphanumeric() || first == '_' {
        let word = take(rest, |c| c.is_alphanumeric() || c == '_');
        if first.is_ascii_alphanumeric()
            && let Some(uuid) = uuid(rest)
        {
            return (uuid, Some("<uuid>"));
        }
        if first.is_ascii_digit()
            && let Some(time) = date_or_time(rest)
        {
            return (time, Some("<time>"));
        }
        if is_hexadecimal(word) {
            return (word, Some("<hex>"));
        }
        if first.is_ascii_digit() {
            return (number(rest), Some("<n>"));
        }
        // A name, up to its first digit: `worker12` and `worker7` look alike.
        return (take(rest, |c| (c.is_alphanumeric() || c == '_') && !c.is_ascii_digit()), None);
    }
    (take_one(rest), None)
}

const TEMPORARY: [&str; 5] = ["/tmp/", "/var/tmp/", "/private/var/", "/var/folders/", "/dev/shm/"];

fn take(text: &str, keep: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !keep(c)).unwrap_or(text.len())]
}

fn take_one(text: &str) -> &str {
    &text[..text.chars().next().map_or(0, char::len_utf8)]
}

/// Where the quoted string ends (past the quote), on the same line.
fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return None,
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            c if c == quote && !escaped => return Some(at + 1),
            _ => {}
        }
        escaped = false;
    }
    None
}

fn is_hexadecimal(word: &str) -> bool {
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        return !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    }
    word.len() >= 8
        && word.bytes().all(|b| b.is_ascii_hexdigit())
        && word.bytes().any(|b| b.is_ascii_digit())
        && word.bytes().any(|b| b.is_ascii_alphabetic())
}

fn uuid(text: &str) -> Option<&str> {
    let candidate = text.get(..36)?;
    let shape = candidate.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    let ends = !text[36..].starts_with(|c: char| c.is_alphanumeric() || c == '-');
    (shape && ends).then_some(candidate)
}

/// `2024-05-06`, `2024-05-06T07:08:09.123+02:00`, `07:08:09`, `07:08`.
fn date_or_time(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let shaped = |from: usize, pattern: &[u8]| {
        bytes.len() >= from + pattern.len()
            && pattern.iter().enumerate().all(|(at, wanted)| match wanted {
                b'd' => bytes[from + at].is_ascii_digit(),
                other => bytes[from + at] == *other,
            })
    };
    let mut end = 0;
    if shaped(0, b"dddd-dd-dd") {
        end = 10;
        if matches!(bytes.get(end), Some(b'T' | b' ' | b't')) && shaped(end + 1, b"dd:dd") {
            end += 1;
        }
    }
    if shaped(end, b"dd:dd") {
        end += 5;
        if shaped(end, b":dd") {
            end += 3;
        }
        if matches!(bytes.get(end), Some(b'.' | b',')) && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            end += 1 + bytes[end + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        }
        if bytes.get(end) == Some(&b'Z') {
            end += 1;
        } else if shaped(end, b"+dd:dd") || shaped(end, b"-dd:dd") {
            end += 6;
        }
    }
    let complete = !matches!(bytes.get(end), Some(b) if b.is_ascii_digit());
    (end > 0 && complete).then(|| &text[..end])
}

/// A number with its fraction and exponent. Signs and units stay.
fn number(text: &str) -> &str {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    while matches!(bytes.get(end), Some(b'.' | b',' | b'_'))
        && bytes.get(end + 1).is_some_and(u8::is_ascii_digit)
    {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = if bytes.len() > end + 1 + sign { digits(end + 1 + sign) } else { 0 };
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_masked() {
        for (message, expected) in [
            ("", ""),
            ("plain words stay", "plain words stay"),
            ("assert 3 == 4", "assert <n> == <n>"),
            ("took 1.25s, limit 1e-3", "took <n>s, limit <n>"),
            ("1,234,567 rows of 10_000", "<n> rows of <n>"),
            ("worker12 lost thread_7", "worker<n> lost thread_<n>"),
            ("<Foo object at 0x7f3a2b00>", "<Foo object at <hex>>"),
            ("commit deadbeef01 differs", "commit <hex> differs"),
            ("deadbeef facade stay words", "deadbeef facade stay words"),
            ("id 123e4567-e89b-12d3-a456-426614174000 gone", "id <uuid> gone"),
            ("at 2024-05-06T07:08:09.123Z and 2024-05-06 07:08:09+02:00", "at <time> and <time>"),
            ("on 2024-05-06, 23:59", "on <time>, <time>"),
            ("no file /tmp/pytest-of-root/pytest-0/x/a.txt: gone", "no file <path>: gone"),
            ("'short' \"text\"", "'short' \"text\""),
            ("got 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'!", "got <text>!"),
            (
                "it's not a quotation, however far off that one's end may be",
                "it's not a quotation, however far off that one's end may be",
            ),
            ("many   spaces\n\tand lines", "many spaces and lines"),
            ("naïve ☃ 5", "naïve ☃ <n>"),
            ("port 127.0.0.1:54321 refused", "port <n>:<n> refused"),
            ("12:345 is no time", "<n>:<n> is no time"),
            ("0x", "<n>x"),
        ] {
            assert_eq!(mask(message), expected, "{message}");
        }
    }

    #[test]
    fn masking_twice_changes_nothing_and_never_panics() {
        for message in [
            "0x1f at 3.5e",
            "'",
            "\"\\\"",
            "é1é",
            "1.",
            "2024-05-0",
            "12:3",
            "1e+",
            "/tmp/",
            "☃".repeat(50).as_str(),
        ] {
            let once = mask(message);
            assert_eq!(mask(&once), once, "{message}");
        }
    }

    #[test]
    fn alike_failures_share_a_signature_and_others_do_not() {
        let frame = |line| Frame { path: "a.py".into(), line, function: "f".into() };
        let of = |kind: FailureKind, phase, line, message: &str| {
            signature(&kind, phase, &["builtins.ValueError".into()], &[frame(line)], message)
        };
        let one = of(FailureKind::Exception, Phase::Call, 3, "port 4000 is taken");
        assert_eq!(one.len(), 16);
        assert_eq!(one, of(FailureKind::Exception, Phase::Call, 9, "port 51234 is taken"));
        assert_ne!(one, of(FailureKind::Exception, Phase::Setup, 3, "port 4000 is taken"));
        assert_ne!(one, of(FailureKind::Assertion, Phase::Call, 3, "port 4000 is taken"));
        assert_ne!(one, of(FailureKind::Exception, Phase::Call, 3, "port 4000 is free"));
        assert_ne!(
            of(FailureKind::Crash { exit_code: 139 }, Phase::Call, 3, ""),
            of(FailureKind::Crash { exit_code: 134 }, Phase::Call, 3, ""),
        );
        assert_eq!(
            of(FailureKind::Timeout { limit_ms: 1 }, Phase::Call, 3, ""),
            of(FailureKind::Timeout { limit_ms: 2 }, Phase::Call, 3, ""),
        );
    }

    #[test]
    fn signatures_are_kept_in_history_so_this_one_never_changes() {
        let known = signature(
            &FailureKind::Assertion,
            Phase::Call,
            &["builtins.AssertionError".into()],
            &[],
            "assert 1 == 2",
        );
        assert_eq!(known, "281038e27454c46e");
    }
}
