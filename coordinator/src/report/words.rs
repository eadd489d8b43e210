//! Words and numbers as people read them, shared by the renderers, and the two defences every one of
//! them needs: text of tests made harmless for a terminal, and arguments quoted for a shell.

use super::model::{Cluster, ConditionCount, Report, Stopped, Subject, TestReport, Verdict};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// `1 flaky test`, `2 flaky tests`, `5,000 flaky tests`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// A number with its thousands apart.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The number of a percentage, as precise as it is worth: `0`, `0.04`, `3.1`, `12`, `100`.
/// What is not quite all or nothing is never rounded to it.
pub(crate) fn percent_number(share: f64) -> String {
    let percent = share * 100.0;
    let text = if percent <= 0.0 {
        "0".to_owned()
    } else if percent < 0.095 {
        format!("{:.2}", percent.max(0.01))
    } else if percent < 9.95 {
        format!("{percent:.1}")
    } else if percent > 99.0 && percent < 100.0 {
        format!("{:.1}", percent.min(99.9))
    } else {
        format!("{percent:.0}")
    };
    match text.strip_suffix(".0") {
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// `12 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", percent_number(share))
}

/// `3.1–24 %`.
pub(crate) fn interval(lower: f64, upper: f64) -> String {
    format!("{}–{} %", percent_number(lower), percent_number(upper))
}

/// A duration given in milliseconds: `0.4 ms`, `12 ms`, `1.24 s`, `2 min 5 s`, `1 h 3 min`.
pub(crate) fn duration(ms: f64) -> String {
    if ms < 0.0005 {
        return "0 ms".to_owned();
    }
    if ms < 9.95 {
        return format!("{ms:.1} ms");
    }
    if ms < 999.5 {
        return format!("{ms:.0} ms");
    }
    let seconds = ms / 1_000.0;
    if seconds < 9.995 {
        return format!("{seconds:.2} s");
    }
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    // The cast saturates; durations are far below its bound.
    let whole = seconds.round() as u64;
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours} h {minutes} min") } else { format!("{minutes} min {seconds} s") }
}

/// What was found, in one sentence, and where it was looked for if that was asked.
pub(crate) fn headline(report: &Report) -> String {
    let mut text = verdicts(report);
    let sweep = &report.sweep;
    if sweep.failed_starts > 0 {
        let _ = write!(
            text,
            " {} of {} could not start.",
            thousands(sweep.failed_starts),
            count(sweep.attempts, "attempt")
        );
    }
    for subject in [Subject::Fixture, Subject::File] {
        for verdict in Verdict::ALL {
            match report.count_of(subject, verdict) as u64 {
                0 => {}
                n => {
                    let is = if n == 1 { "is" } else { "are" };
                    let _ = write!(text, " {} {is} {}.", count(n, subject.word()), verdict.word());
                }
            }
        }
    }
    if let Some(ends) = sweep.odd_ends {
        let ran = count(ends.of, "attempt");
        let _ = write!(text, " The framework ended oddly after {} of {ran}.", thousands(ends.attempts));
    }
    if !report.tests.is_empty() && !sweep.collection_errors.is_empty() {
        let _ =
            write!(text, " {} could not be collected.", count(sweep.collection_errors.len() as u64, "file"));
    }
    text
}

fn verdicts(report: &Report) -> String {
    let found = found(report);
    match (asked(report), found.strip_suffix('.')) {
        (Some(asked), Some(sentence)) => format!("{sentence}, {asked}."),
        (_, _) => found,
    }
}

/// The condition and the order that everything was asked to run in.
fn asked(report: &Report) -> Option<String> {
    let under = report.sweep.under.as_ref().map(|under| format!("under {under}"));
    let order = report.sweep.order.as_ref().map(|order| format!("in order {order}"));
    let asked: Vec<String> = under.into_iter().chain(order).collect();
    (!asked.is_empty()).then(|| asked.join(", "))
}

fn found(report: &Report) -> String {
    let total = report.tests.iter().filter(|test| test.subject == Subject::Test).count() as u64;
    if total == 0 {
        return match report.sweep.collection_errors.len() as u64 {
            0 => "No test ran.".to_owned(),
            n => format!("No test ran: {} could not be collected.", count(n, "file")),
        };
    }
    let counts: Vec<(u64, &str)> = Verdict::ALL
        .iter()
        .map(|verdict| (report.count(*verdict) as u64, verdict.word()))
        .filter(|(n, _)| *n > 0)
        .collect();
    let is = |n: u64| if n == 1 { "is" } else { "are" };
    if let [(_, word)] = counts[..] {
        return match total {
            1 => format!("The only test is {word}."),
            2 => format!("Both tests are {word}."),
            _ => format!("All {} tests are {word}.", thousands(total)),
        };
    }
    let mut parts = counts.iter();
    let (first, word) = parts.next().expect("there are tests, so there is a verdict");
    let mut text = format!("{} of {} {} {word}", thousands(*first), count(total, "test"), is(*first));
    let rest: Vec<String> = parts.map(|(n, word)| format!("{} {} {word}", thousands(*n), is(*n))).collect();
    let (last, middle) = rest.split_last().expect("more than one verdict");
    for part in middle {
        let _ = write!(text, ", {part}");
    }
    let _ = write!(text, " and {last}.");
    text
}

/// What it cost.
pub(crate) fn cost(report: &Report) -> String {
    let sweep = &report.sweep;
    let mut text = format!(
        "{} in fresh {}, {}, {} of container time",
        count(sweep.attempts, "attempt"),
        if sweep.sandbox.as_deref().is_none_or(|level| level == "container") {
            "containers"
        } else {
            "sandboxes"
        },
        count(sweep.samples, "sample"),
        duration(sweep.container_seconds * 1_000.0),
    );
    if let Some(finished) = sweep.finished_at {
        let wall = (finished - sweep.started_at).as_seconds_f64();
        let _ = write!(text, " in {} on the clock", duration(wall * 1_000.0));
    }
    if sweep.infrastructure_errors > 0 {
        let _ =
            write!(text, "; {}, counted apart", count(sweep.infrastructure_errors, "infrastructure error"));
    }
    if let Some(saved) = &sweep.saved_vs_fixed {
        let than = count(saved.fixed_runs, "run");
        let _ = if saved.fraction > 0.0 {
            write!(text, "; {} less than {than} of every test, which prove as much", percent(saved.fraction))
        } else {
            write!(text, "; {} more than {than} of every test, which prove as much", percent(-saved.fraction))
        };
    }
    text
}

/// What a clean result of this sweep proves, or nothing when there is no such result.
pub(crate) fn guarantee(report: &Report) -> Option<String> {
    let sweep = &report.sweep;
    let confidence = sweep.confidence?;
    let healthy = || report.tests.iter().filter(|test| test.verdict == Verdict::Healthy);
    let ran = healthy().filter(|test| test.attempts > 0 || test.older_evidence.is_some());
    let least = ran.map(|test| test.attempts).min()?;
    let mut text = match (sweep.runs, sweep.max_flake_rate, sweep.guarantee.as_deref()) {
        // What the least of them proves: n passes in a row have probability 1 - confidence at this rate.
        (Some(_), _, _) => format!(
            "a healthy test never failed in at least {}; {}",
            count(least, "run"),
            would_have_been_seen(1.0 - (1.0 - confidence).powf(1.0 / least as f64), confidence),
        ),
        (None, Some(rate), Some("suite")) => format!(
            "of the suite: at least {} of the tests that flake {} of the time or more are found, given how often tests \
             flake; it says less of a single test",
            percent(confidence),
            percent(rate),
        ),
        (None, Some(rate), _) => {
            format!("of each test: a healthy test never failed; {}", would_have_been_seen(rate, confidence))
        }
        (None, None, _) => return None,
    };
    let mut conditions: Vec<&str> = Vec::new();
    for test in healthy().take(1_000) {
        for count in &test.conditions {
            if count.attempts > 0 && !conditions.contains(&count.condition.as_str()) {
                conditions.push(&count.condition);
            }
        }
    }
    if !conditions.is_empty() {
        let _ = write!(text, " (conditions: {})", conditions.join(", "));
    }
    Some(text)
}

fn would_have_been_seen(rate: f64, confidence: f64) -> String {
    format!(
        "had it flaked {} of the time or more, it would have been seen with probability {}",
        percent(rate),
        percent(confidence)
    )
}

/// What is expected to be missed, under both guarantees' numbers.
pub(crate) fn missed(report: &Report) -> Option<String> {
    let (suite, rate) = (report.sweep.suite?, report.sweep.max_flake_rate?);
    Some(format!(
        "of {} that never failed, {} are expected to flake {} of the time or more ({} of the tests that do), {} at any \
         rate; the risk of each is {} on average",
        count(suite.clean_tests, "test"),
        expected(suite.expected_missed),
        percent(rate),
        percent(suite.missed_share),
        expected(suite.expected_missed_at_any_rate),
        percent(suite.risk_per_test),
    ))
}

/// An expected number, as precise as it is worth.
fn expected(number: f64) -> String {
    if number >= 9.95 {
        thousands(number.round() as u64)
    } else if number >= 0.095 {
        format!("{number:.1}")
    } else {
        format!("{:.2}", number.max(0.01))
    }
}

/// How the sweep ended, when it did not simply answer.
pub(crate) fn ending(report: &Report) -> Option<&'static str> {
    match (report.is_finished(), report.sweep.stopped) {
        (false, _) => Some("still running: numbers will change"),
        (true, Some(Stopped::Budget)) => Some("the budget ended before every question was answered"),
        (true, Some(Stopped::Cancelled)) => Some("it was cancelled before every question was answered"),
        (true, Some(Stopped::Answered) | None) => None,
    }
}

/// What is proved of inconclusive tests that never failed.
pub(crate) fn unproved(report: &Report) -> Option<String> {
    let n = report.unproved().count() as u64;
    if n == 0 {
        return None;
    }
    let never_ran = report.unproved().filter(|test| test.attempts == 0).count() as u64;
    let worst = report.unproved().filter(|test| test.attempts > 0).filter_map(|test| test.rate);
    let mut text =
        format!("{} never failed, but ran too rarely to be called healthy", count(n, "inconclusive test"));
    if never_ran > 0 {
        let _ = write!(text, " ({} never ran)", thousands(never_ran));
    }
    if let Some(rate) = worst.max_by(|a, b| a.upper.total_cmp(&b.upper)) {
        let subject = if n == 1 { "if it flakes" } else { "if one flakes" };
        let _ = write!(
            text,
            "; {subject}, less than {} of the time ({})",
            percent(rate.upper),
            percent(rate.confidence)
        );
    }
    Some(text)
}

/// A category for people: known ones explained, others as they are.
pub(crate) fn category(word: &str) -> String {
    match word {
        "order_victim" => "order dependence: another test leaves something behind".to_owned(),
        "order_brittle" => "order dependence: it needs another test to run before it".to_owned(),
        "order_dependent" => "order dependence: it fails in some orders only".to_owned(),
        "non_deterministic" => {
            "not deterministic: it passes and fails although nothing was changed".to_owned()
        }
        other => visible(&other.replace('_', " ")),
    }
}

/// `33 % (15–56 %)`.
pub(crate) fn rate(test: &TestReport) -> String {
    match test.rate {
        Some(rate) if test.attempts > 0 => {
            format!("{} ({})", percent(rate.estimate), interval(rate.lower, rate.upper))
        }
        _ => "unknown".to_owned(),
    }
}

/// `12 tests fail together, in 2 of the 15 attempts that ran all of them: time zone`.
pub(crate) fn cluster(report: &Report, cluster: &Cluster) -> String {
    let causes: BTreeSet<&str> = report
        .tests
        .iter()
        .filter(|test| cluster.tests.contains(&test.id))
        .filter_map(|test| Some(test.cause.as_ref()?.category.as_str()))
        .collect();
    let mut text = format!(
        "{} fail together, in {} of {} that ran all of them",
        count(cluster.tests.len() as u64, "test"),
        thousands(cluster.together),
        count(cluster.attempts, "attempt"),
    );
    if let (Some(cause), 1) = (causes.first(), causes.len()) {
        let _ = write!(text, ": {}", category(cause));
    }
    text
}

/// Whether a condition changes something around the tests, beyond what runs and in which order.
pub(crate) fn is_world(condition: &str) -> bool {
    condition.parse::<flakefarm_shared::World>().is_ok()
}

/// `alone 0/20 · given 0/20 · shuffled 6/18`.
pub(crate) fn conditions(test: &TestReport) -> String {
    // Worlds that change nothing are told in one word.
    let plain = || test.conditions.iter().filter(|count| !is_world(&count.condition));
    let always = plain().all(|count| count.failures == count.attempts);
    let unchanged = |count: &ConditionCount| count.failures == if always { count.attempts } else { 0 };
    let (clean, told): (Vec<&ConditionCount>, Vec<&ConditionCount>) =
        test.conditions.iter().partition(|count| is_world(&count.condition) && unchanged(count));
    let one = |count: &ConditionCount| {
        format!("{} {}/{}", visible(&count.condition), count.failures, count.attempts)
    };
    let mut parts: Vec<String> = told.into_iter().map(one).collect();
    match clean.as_slice() {
        [] => {}
        [count] => parts.push(one(count)),
        counts => {
            let (failures, attempts) =
                counts.iter().fold((0, 0), |sum, count| (sum.0 + count.failures, sum.1 + count.attempts));
            parts.push(format!("{} other conditions {failures}/{attempts}", counts.len()));
        }
    }
    parts.join(" · ")
}

/// The first line that says something of the most frequent failure.
pub(crate) fn top_message(test: &TestReport) -> Option<String> {
    test.failures_by_signature.first().map(|signature| first_line(&signature.message, &signature.kind))
}

/// The first line that is not empty, made visible; `kind` when there is none.
pub(crate) fn first_line(message: &str, kind: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty());
    visible(line.unwrap_or(kind))
}

/// One line of text that does nothing to a terminal or a reader: control characters, and characters
/// that change the direction of text, are shown as their escapes.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push(' '),
            _ if is_hostile(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

/// The same for text of many lines, without the colours it may have been written in.
pub(crate) fn visible_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                // A control sequence ends with a byte from @ to ~; a broken one ends at the line's end.
                while let Some(next) = chars.next_if(|next| *next != '\n') {
                    if ('@'..='~').contains(&next) {
                        break;
                    }
                }
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\t' => out.push(c),
            '\r' => out.push('\n'),
            _ if is_hostile(c) => out.extend(c.escape_unicode()),
            _ => out.push(c),
        }
    }
    out
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Text of at most about `limit` characters: the head and, mostly, the tail, where failures explain
/// themselves.
pub(crate) fn bounded(text: &str, limit: usize) -> String {
    let total = text.chars().count();
    if total <= limit {
        return text.to_owned();
    }
    let head: String = text.chars().take(limit / 3).collect();
    let tail: String = text.chars().skip(total - (limit - limit / 3)).collect();
    let cut = thousands((total - limit) as u64);
    format!("{head}\n[... {cut} characters left out ...]\n{tail}")
}

/// One argument, quoted for a POSIX shell only if it needs it; control characters in the `$'…'` form
/// of bash and zsh.
pub(crate) fn shell_quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    if !argument.chars().any(is_hostile) {
        return format!("'{}'", argument.replace('\'', r"'\''"));
    }
    let mut out = String::from("$'");
    for c in argument.chars() {
        match c {
            '\'' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            _ if is_hostile(c) => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
            _ => out.push(c),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_as_precise_as_they_are_worth() {
        let cases = [
            (0.0, "0"),
            (0.00001, "0.01"),
            (0.0004, "0.04"),
            (0.031, "3.1"),
            (0.05, "5"),
            (0.1234, "12"),
            (0.9999, "99.9"),
            (1.0, "100"),
        ];
        for (share, expect) in cases {
            assert_eq!(percent_number(share), expect, "{share}");
        }
    }

    #[test]
    fn durations_are_readable_at_every_size() {
        let cases = [
            (0.0, "0 ms"),
            (0.41, "0.4 ms"),
            (12.3, "12 ms"),
            (1_240.0, "1.24 s"),
            (42_000.0, "42.0 s"),
            (125_000.0, "2 min 5 s"),
            (3_780_000.0, "1 h 3 min"),
        ];
        for (ms, expect) in cases {
            assert_eq!(duration(ms), expect, "{ms}");
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for argument in [
            "tests/a.py::test_x[1]",
            "it's",
            "a b",
            "$(id)`id`\\",
            "é::ü",
            "x\ny\u{1b}[31m",
            "",
            "-n",
            "~",
            "!!",
        ] {
            let script = format!("printf %s {}", shell_quote(argument));
            let out = std::process::Command::new("bash").args(["-c", &script]).output().expect("bash runs");
            assert_eq!(String::from_utf8_lossy(&out.stdout), argument, "{script}");
        }
    }

    #[test]
    fn a_fixed_number_of_runs_proves_what_the_least_of_them_proves() {
        let mut report = crate::report::sample::realistic();
        report.sweep.runs = Some(20);
        for test in report.tests.iter_mut().filter(|test| test.verdict == Verdict::Healthy) {
            test.attempts = 20;
        }
        let text = guarantee(&report).expect("there are healthy tests");
        assert!(
            text.starts_with("a healthy test never failed in at least 20 runs; had it flaked 14 %"),
            "{text}"
        );
        assert_eq!(guarantee(&crate::report::sample::one_test()), None, "nothing healthy, nothing proved");
    }

    #[test]
    fn text_of_tests_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(visible("a\u{1b}[2Jb\u{202e}c\nd"), "a\\u{1b}[2Jb\\u{202e}c\\nd");
        assert_eq!(visible_lines("\u{1b}[31mred\u{1b}[0m\r\nnext\u{7}"), "red\nnext\\u{7}");
    }
}
