//! JUnit XML as everybody writes it: pytest (xunit1, xunit2), Surefire, Gradle, jest-junit, vitest,
//! nextest, gotestsum, mocha, PHPUnit and .NET loggers. One pass, flat memory, a case at a time.
//!
//! Attempts come in two spellings. Surefire, Gradle and nextest put them into one case: `flakyFailure` is
//! an attempt that failed before one passed, `rerunFailure` one that failed after the first. gotestsum and
//! Gradle without merging write the case again; that is another attempt only as long as all before it
//! failed, since nobody retries what passed: else two tests share a name, and the later ones get a number,
//! as pytest's ids do.

use super::case::{self, Case, CaseAttempt, CaseOutcome, Reading};
use super::scanner::{Element, Scanner, Token};
use super::when;
use flakefarm_shared::UnixMicros;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::BufRead;
use std::ops::ControlFlow;

/// Deepest nesting of elements.
const DEEPEST: usize = 100;
/// Attempts of one case beyond which more say nothing.
const MOST_ATTEMPTS: usize = 1_000;

/// Reads a report; gives its cases to `sink` in their order until it breaks off.
pub fn read(input: impl BufRead, sink: &mut dyn FnMut(Case) -> ControlFlow<()>) -> Reading {
    let mut reading = Reading::default();
    let mut scanner = match Scanner::new(input) {
        Ok(scanner) => scanner,
        Err(error) => {
            reading.note(1, error.to_string());
            return reading;
        }
    };
    let mut reader = Reader::default();
    loop {
        let token = match scanner.next() {
            Ok(Some(token)) => token,
            Ok(None) => {
                reader.end(&scanner, &mut reading);
                break;
            }
            Err(error) => {
                reading.note(scanner.line(), error.to_string());
                break;
            }
        };
        match reader.take(token, scanner.line(), &mut reading) {
            Ok(None) => {}
            Ok(Some(case)) => {
                scanner.got_case();
                reading.cases += 1;
                if sink(case).is_break() {
                    reading.complete = false;
                    return reading;
                }
            }
            Err(what) => {
                reading.note(scanner.line(), what);
                break;
            }
        }
    }
    for (line, what) in scanner.oddities() {
        reading.note(line, what);
    }
    reading.problems.sort_by_key(|problem| problem.line);
    if let Some((_, case)) = reader.held.take() {
        reading.cases += 1;
        if sink(case).is_break() {
            reading.complete = false;
        }
    }
    reading
}

/// A suite around the cases.
#[derive(Debug, Default, Clone)]
struct Suite {
    name: String,
    file: String,
    at: Option<UnixMicros>,
}

/// What was seen of a name in this report.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// Tests that share it.
    tests: u32,
    /// Whether an attempt at the last of them passed or was skipped.
    settled: bool,
}

#[derive(Default)]
struct Reader {
    depth: usize,
    rooted: bool,
    suites: Vec<(usize, Suite)>,
    case: Option<OpenCase>,
    /// By a hash of suite, class and name: a million names would not fit.
    seen: HashMap<u64, Seen>,
    /// Held back by one: pytest tells of a tear-down that failed in a case of its own.
    held: Option<(u64, Case)>,
}

/// A case whose end has not come.
struct OpenCase {
    depth: usize,
    case: Case,
    wall_us: Option<u64>,
    /// The ending, as far as it is known; a case without a word passed.
    last: Option<CaseOutcome>,
    /// Attempts before the last one, then after it.
    before: Vec<CaseAttempt>,
    after: Vec<CaseAttempt>,
    /// A failure whose text is being read.
    detail: Option<Detail>,
}

struct Detail {
    depth: usize,
    place: Place,
    kind: String,
    message: String,
    text: String,
    wall_us: Option<u64>,
}

/// Which attempt an element tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Last,
    Before,
    After,
}

impl Reader {
    /// What the end of the file means.
    fn end<R: BufRead>(&mut self, scanner: &Scanner<R>, reading: &mut Reading) {
        if !self.rooted {
            reading.note(scanner.line(), "it is no JUnit report: there is no testsuite in it");
        } else if self.depth > 0 {
            reading.note(scanner.line(), "it is cut off: its elements are not closed");
        } else {
            reading.complete = true;
        }
    }

    fn take(&mut self, token: Token, line: u64, reading: &mut Reading) -> Result<Option<Case>, String> {
        match token {
            Token::Open(element) => {
                if self.depth == DEEPEST {
                    return Err(format!("elements are nested more than {DEEPEST} deep"));
                }
                if !self.rooted {
                    if !matches!(element.name.as_str(), "testsuites" | "testsuite") {
                        let name = case::name(&element.name);
                        return Err(format!("it is no JUnit report: it begins with `{name}`"));
                    }
                    self.rooted = true;
                }
                self.depth += 1;
                self.open(&element, line, reading);
                if element.empty { Ok(self.close(line, reading)) } else { Ok(None) }
            }
            Token::Close(_) if self.depth == 0 => Err("an element is closed that was not open".to_owned()),
            // Names are not compared: a wrong one closes the innermost element, as its place says.
            Token::Close(_) => Ok(self.close(line, reading)),
            Token::Text(text) => {
                if let Some(detail) = self.case.as_mut().and_then(|open| open.detail.as_mut())
                    && detail.text.len() < case::LONGEST_MESSAGE
                {
                    detail.text.push_str(&text);
                }
                Ok(None)
            }
        }
    }

    fn open(&mut self, element: &Element, line: u64, reading: &mut Reading) {
        let depth = self.depth;
        match (element.name.as_str(), &mut self.case) {
            ("testsuite" | "testsuites", None) => {
                let outer = self.suites.last().map(|(_, suite)| suite.clone()).unwrap_or_default();
                let or = |own: &str, outer: &str| case::name(if own.trim().is_empty() { outer } else { own });
                let (timestamp, outer_at) = (element.attribute("timestamp"), outer.at);
                let at = when::parse(timestamp);
                reading.doubt(line, "moment between 2000 and 2100", timestamp, at.is_some());
                let suite = Suite {
                    name: or(element.attribute("name"), &outer.name),
                    file: or(element.first_of(&["file", "filepath"]), &outer.file),
                    at: at.or(outer_at),
                };
                self.suites.push((depth, suite));
            }
            ("testcase", None) => self.case = Some(self.begin(element, line, reading)),
            (name, Some(open)) if open.detail.is_none() => open.begin(name, element, depth),
            _ => {}
        }
    }

    fn begin(&self, element: &Element, line: u64, reading: &mut Reading) -> OpenCase {
        let suite = self.suites.last().map(|(_, suite)| suite.clone()).unwrap_or_default();
        let file = element.first_of(&["file", "filepath"]);
        let skipped = matches!(element.attribute("status"), "notrun" | "skipped" | "disabled")
            || matches!(element.attribute("result"), "skipped" | "suppressed");
        let (time, moment) =
            (element.first_of(&["time", "duration"]), element.first_of(&["timestamp", "started-at"]));
        let (wall_us, at) = (case::seconds(time), when::parse(moment));
        reading.doubt(line, "duration", time, wall_us.is_some());
        reading.doubt(line, "moment between 2000 and 2100", moment, at.is_some());
        reading.doubt_name(line, element.attribute("name"));
        let case = Case {
            class: case::name(element.first_of(&["classname", "class"])),
            name: case::name(element.attribute("name")),
            file: if file.is_empty() { suite.file } else { case::name(file) },
            suite: suite.name,
            attempts: Vec::new(),
            at: at.or(suite.at),
            line,
        };
        OpenCase {
            depth: self.depth,
            case,
            wall_us,
            last: skipped.then_some(CaseOutcome::Skip),
            before: Vec::new(),
            after: Vec::new(),
            detail: None,
        }
    }

    /// The end of the innermost element; gives a case that is complete.
    fn close(&mut self, line: u64, reading: &mut Reading) -> Option<Case> {
        let depth = self.depth;
        self.depth -= 1;
        if let Some(open) = &mut self.case {
            open.end_detail(depth);
            if open.depth < depth {
                return None;
            }
            let open = self.case.take().expect("it was there");
            return self.complete(open, line, reading);
        }
        if self.suites.last().is_some_and(|(at, _)| *at == depth) {
            self.suites.pop();
        }
        None
    }

    fn complete(&mut self, open: OpenCase, line: u64, reading: &mut Reading) -> Option<Case> {
        let mut case = open.finish();
        if case.name.is_empty() && case.class.is_empty() {
            reading.note(line, "a test case without a name");
            return None;
        }
        let key = key(&case);
        let seen = self.seen.entry(key).or_default();
        if let Some((held, before)) = &mut self.held
            && *held == key
            && tells_of_teardown(&case)
        {
            // One attempt, of which the call passed.
            before.attempts = case.attempts;
            seen.settled = false;
            return None;
        }
        let settled = case.attempts.iter().any(|attempt| !attempt.outcome.is_failure());
        if seen.tests == 0 || seen.settled {
            seen.tests = seen.tests.saturating_add(1);
        }
        seen.settled = settled;
        if seen.tests > 1 {
            case.name.push_str(&format!("#{}", seen.tests));
        }
        self.held.replace((key, case)).map(|(_, case)| case)
    }
}

/// By suite, class and name, as the report spells them.
fn key(case: &Case) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&case.suite, &case.class, &case.name).hash(&mut hasher);
    hasher.finish()
}

/// pytest's second case of a test whose tear-down failed.
fn tells_of_teardown(case: &Case) -> bool {
    let teardown = |attempt: &CaseAttempt| match &attempt.outcome {
        CaseOutcome::Fail { message, .. } => message.starts_with("failed on teardown with"),
        CaseOutcome::Pass | CaseOutcome::Skip => false,
    };
    case.attempts.len() == 1 && case.attempts.iter().all(teardown)
}

impl OpenCase {
    fn begin(&mut self, name: &str, element: &Element, depth: usize) {
        let place = match name {
            "failure" | "error" => Place::Last,
            "flakyFailure" | "flakyError" => Place::Before,
            "rerunFailure" | "rerunError" => Place::After,
            "skipped" | "ignored" | "disabled" => {
                self.last.get_or_insert(CaseOutcome::Skip);
                return;
            }
            _ => return,
        };
        self.detail = Some(Detail {
            depth,
            place,
            kind: case::name(element.attribute("type")),
            message: element.attribute("message").to_owned(),
            text: String::new(),
            wall_us: case::seconds(element.attribute("time")),
        });
    }

    fn end_detail(&mut self, depth: usize) {
        if self.detail.as_ref().is_none_or(|detail| detail.depth < depth) {
            return;
        }
        let Some(detail) = self.detail.take() else { return };
        let told = if detail.message.trim().is_empty() { &detail.text } else { &detail.message };
        let outcome = CaseOutcome::Fail { kind: detail.kind, message: case::message(told) };
        match detail.place {
            // A failure weighs more than a skip, and the first of several says what broke.
            Place::Last => {
                if !self.last.as_ref().is_some_and(CaseOutcome::is_failure) {
                    self.last = Some(outcome);
                }
            }
            Place::Before if self.before.len() < MOST_ATTEMPTS => {
                self.before.push(CaseAttempt { outcome, wall_us: detail.wall_us });
            }
            Place::After if self.after.len() < MOST_ATTEMPTS => {
                self.after.push(CaseAttempt { outcome, wall_us: detail.wall_us });
            }
            Place::Before | Place::After => {}
        }
    }

    fn finish(self) -> Case {
        let last = CaseAttempt { outcome: self.last.unwrap_or(CaseOutcome::Pass), wall_us: self.wall_us };
        let mut attempts = self.before;
        attempts.push(last);
        attempts.extend(self.after);
        Case { attempts, ..self.case }
    }
}

#[cfg(test)]
mod tests;
