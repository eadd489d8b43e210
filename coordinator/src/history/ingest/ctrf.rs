//! CTRF, the common test report format in JSON, of any version so far: read case by case, in flat memory.
//! Long texts are cut before they are read, see [`Shortened`].

use super::case::{self, Case, CaseAttempt, CaseOutcome, Reading};
use super::shortened::{LONGEST_TEXT, Lines, Shortened};
use super::when;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead};
use std::ops::ControlFlow;
use std::rc::Rc;

/// Most attempts of one case.
const MOST_ATTEMPTS: usize = 1_000;
/// Versions that this reader was written for begin with one of these.
const KNOWN_VERSIONS: [&str; 2] = ["0.", "1."];
/// What a test may say of how it ended.
const STATUSES: [&str; 5] = ["passed", "failed", "skipped", "pending", "other"];
/// Bytes of an unknown one that are shown.
const LONGEST_STATUS: usize = 40;

/// Reads a report; gives its cases to `sink` in their order until it breaks off.
pub fn read(input: impl BufRead, sink: &mut dyn FnMut(Case) -> ControlFlow<()>) -> Reading {
    let mut reading = Reading::default();
    let mut found = Found::Nothing;
    let line = Rc::new(Cell::new(1));
    let counted = Lines::new(io::BufReader::new(Shortened::new(input)), &line);
    let mut deserializer = serde_json::Deserializer::from_reader(counted);
    let seed = Report { sink, reading: &mut reading, found: &mut found, line: &line };
    let read = seed.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (read, found) {
        (_, Found::Stopped) => {}
        (Err(error), _) => {
            let line = error.line() as u64;
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            let what = if error.is_eof() { format!("it is cut off: {what}") } else { what.to_owned() };
            reading.note(line.max(1), case::message(&what));
        }
        (Ok(()), Found::Nothing) => reading.note(1, "it is no CTRF report: it has no `results.tests`"),
        (Ok(()), Found::Tests) => reading.complete = true,
    }
    reading
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Tests,
    Stopped,
}

/// The whole report.
struct Report<'a> {
    sink: &'a mut dyn FnMut(Case) -> ControlFlow<()>,
    reading: &'a mut Reading,
    found: &'a mut Found,
    line: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for Report<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Report<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CTRF report, an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "results" => {
                    let (sink, reading) = (&mut *self.sink, &mut *self.reading);
                    map.next_value_seed(Results { sink, reading, found: &mut *self.found, line: self.line })?;
                }
                "specVersion" => {
                    let version = map.next_value::<Text>()?.0;
                    if !KNOWN_VERSIONS.iter().any(|known| version.starts_with(known)) {
                        let version = case::name(&version);
                        self.reading
                            .note(self.line.get(), format!("CTRF of version `{version}`: read as version 1"));
                    }
                }
                "reportFormat" => {
                    let format = map.next_value::<Text>()?.0;
                    if format != "CTRF" {
                        let format = case::name(&format);
                        return Err(A::Error::custom(format!("it is no CTRF report, but `{format}`")));
                    }
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct Results<'a> {
    sink: &'a mut dyn FnMut(Case) -> ControlFlow<()>,
    reading: &'a mut Reading,
    found: &'a mut Found,
    line: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for Results<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Results<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`results`, an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "tests" {
                *self.found = Found::Tests;
                let (sink, reading) = (&mut *self.sink, &mut *self.reading);
                map.next_value_seed(Tests { sink, reading, found: &mut *self.found, line: self.line })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Tests<'a> {
    sink: &'a mut dyn FnMut(Case) -> ControlFlow<()>,
    reading: &'a mut Reading,
    found: &'a mut Found,
    line: &'a Cell<u64>,
}

impl<'de> DeserializeSeed<'de> for Tests<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Tests<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`tests`, a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tests: A) -> Result<(), A::Error> {
        let mut number = 0u64;
        while let Some(test) = tests.next_element::<Test>()? {
            number += 1;
            let line = self.line.get();
            test.doubt(line, number, self.reading);
            let Some(case) = test.case(line) else {
                self.reading.note(line, format!("test {number} has no name"));
                continue;
            };
            self.reading.cases += 1;
            if (self.sink)(case).is_break() {
                *self.found = Found::Stopped;
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// One test, with only what is used of it. Whatever has another type than expected is taken for absent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Test {
    name: Text,
    status: Text,
    duration: Number,
    start: Number,
    suite: Text,
    message: Text,
    trace: Text,
    #[serde(alias = "filepath", alias = "filePath")]
    file: Text,
    flaky: Flag,
    retries: Number,
    #[serde(rename = "retryAttempts")]
    retry_attempts: Vec<Attempt>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attempt {
    status: Text,
    duration: Number,
    message: Text,
    trace: Text,
}

impl Test {
    /// Notes what of it nobody can believe. Texts that a status may be are those of all versions.
    fn doubt(&self, line: u64, number: u64, reading: &mut Reading) {
        let status = self.status.0.as_str();
        if case::name(&self.name.0).is_empty() {
            return;
        }
        if !status.is_empty() && !STATUSES.contains(&status) {
            let status = case::name(case::cut(status, LONGEST_STATUS));
            reading.note(line, format!("test {number} has the status `{status}`, so it counts as skipped"));
        }
        let numbers = [
            ("duration", self.duration.0, self.duration.milliseconds().is_some()),
            ("moment between 2000 and 2100", self.start.0, self.start.0.and_then(moment).is_some()),
        ];
        for (what, number, understood) in numbers {
            reading.doubt(
                line,
                what,
                &number.map(|number| number.to_string()).unwrap_or_default(),
                understood,
            );
        }
        reading.doubt_name(line, &self.name.0);
    }

    fn case(self, line: u64) -> Option<Case> {
        let name = case::name(&self.name.0);
        if name.is_empty() {
            return None;
        }
        let mut attempts: Vec<CaseAttempt> = self
            .retry_attempts
            .iter()
            .take(MOST_ATTEMPTS)
            .map(|attempt| CaseAttempt {
                outcome: outcome(&attempt.status.0, &attempt.message.0, &attempt.trace.0),
                wall_us: attempt.duration.milliseconds(),
            })
            .collect();
        let last = CaseAttempt {
            outcome: outcome(&self.status.0, &self.message.0, &self.trace.0),
            wall_us: self.duration.milliseconds(),
        };
        // Told to be flaky and nothing of its attempts: those before the one that passed failed.
        if attempts.is_empty() && self.flaky.0 && last.outcome == CaseOutcome::Pass {
            let failed = (self.retries.0.unwrap_or(1.0).max(1.0) as usize).min(MOST_ATTEMPTS);
            let outcome = CaseOutcome::Fail { kind: String::new(), message: case::message(&self.message.0) };
            attempts = vec![CaseAttempt { outcome, wall_us: None }; failed];
        }
        // Versions differ in whether the last attempt is among the attempts.
        if attempts
            .last()
            .is_none_or(|attempt| attempt.outcome != last.outcome || attempt.wall_us != last.wall_us)
        {
            attempts.push(last);
        }
        Some(Case {
            suite: case::name(&self.suite.0),
            class: String::new(),
            name,
            file: case::name(&self.file.0),
            attempts,
            at: self.start.0.and_then(moment),
            line,
        })
    }
}

/// Milliseconds since the epoch; early writers gave seconds.
fn moment(start: f64) -> Option<flakefarm_shared::UnixMicros> {
    when::micros((start * 1e3) as i128).or_else(|| when::micros((start * 1e6) as i128))
}

fn outcome(status: &str, message: &str, trace: &str) -> CaseOutcome {
    match status {
        "passed" => CaseOutcome::Pass,
        "failed" => {
            let told = if message.trim().is_empty() { trace } else { message };
            CaseOutcome::Fail { kind: String::new(), message: case::message(told) }
        }
        // skipped, pending, other, and what nobody knows: it did not say that it passed or failed.
        _ => CaseOutcome::Skip,
    }
}

/// Text; a list of texts is joined.
#[derive(Debug, Default)]
struct Text(String);

/// A number, if it is one.
#[derive(Debug, Default)]
struct Number(Option<f64>);

/// Whether something is `true`.
#[derive(Debug, Default)]
struct Flag(bool);

impl Number {
    fn milliseconds(&self) -> Option<u64> {
        case::micros(self.0? * 1e3)
    }
}

/// Takes whatever stands there.
struct Anything;

#[derive(Debug)]
enum Value {
    Text(String),
    Number(f64),
    Flag(bool),
    Other,
}

impl<'de> Visitor<'de> for Anything {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut joined = String::new();
        while let Some(Text(part)) = list.next_element()? {
            if joined.len() < LONGEST_TEXT && !part.is_empty() {
                if !joined.is_empty() {
                    joined.push_str(" > ");
                }
                joined.push_str(&part);
            }
        }
        Ok(Value::Text(joined))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match deserializer.deserialize_any(Anything)? {
            Value::Text(text) => Text(text),
            Value::Number(_) | Value::Flag(_) | Value::Other => Text::default(),
        })
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match deserializer.deserialize_any(Anything)? {
            Value::Number(number) => Number(Some(number)),
            Value::Text(_) | Value::Flag(_) | Value::Other => Number(None),
        })
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Flag(matches!(deserializer.deserialize_any(Anything)?, Value::Flag(true))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(document: &str) -> (Vec<Case>, Reading) {
        let mut cases = Vec::new();
        let reading = read(document.as_bytes(), &mut |case| {
            cases.push(case);
            ControlFlow::Continue(())
        });
        (cases, reading)
    }

    fn words(case: &Case) -> String {
        let word = |attempt: &CaseAttempt| match &attempt.outcome {
            CaseOutcome::Pass => "pass".to_owned(),
            CaseOutcome::Fail { message, .. } => format!("fail({message})"),
            CaseOutcome::Skip => "skip".to_owned(),
        };
        let attempts: Vec<String> = case.attempts.iter().map(word).collect();
        format!("{}/{}/{} {}", case.file, case.suite, case.name, attempts.join(","))
    }

    #[test]
    fn a_report_of_each_version_is_read() {
        let (found, reading) = cases(
            r#"{"reportFormat": "CTRF", "specVersion": "0.0.0", "results": {"tool": {"name": "x"}, "tests": [
            {"name": "a", "status": "passed", "duration": 12, "start": 1793527200000, "extra": {"deep": [1, {}]}},
            {"name": "b", "status": "failed", "duration": 1.5, "message": "boom", "suite": "S > T", "filePath": "b.ts"},
            {"name": "c", "status": "pending", "suite": ["S", "T"]}, {"name": "d", "status": "passed", "flaky": true,
            "retries": 2}, {"name": "e", "status": "passed", "retryAttempts": [{"attempt": 1, "status": "failed",
            "message": "first"}]}, {"status": "passed"}, {"name": 7}], "environment": {}}}"#,
        );
        let found: Vec<String> = found.iter().map(words).collect();
        assert_eq!(
            found,
            [
                "//a pass",
                "b.ts/S > T/b fail(boom)",
                "/S > T/c skip",
                "//d fail(),fail(),pass",
                "//e fail(first),pass"
            ]
        );
        assert_eq!((reading.complete, reading.cases, reading.problem_count), (true, 5, 2), "{reading:?}");
        let (found, _) = cases(r#"{"results":{"tests":[{"name":"a","duration":12,"start":1793527200000}]}}"#);
        assert_eq!((found[0].at, found[0].attempts[0].wall_us), (Some(1_793_527_200_000_000), Some(12_000)));
    }

    #[test]
    fn what_is_no_report_or_half_a_one_says_so() {
        #[track_caller]
        fn check(document: &str, kept: usize, line: u64, what: &str) {
            let (found, reading) = cases(document);
            assert_eq!((found.len(), reading.complete), (kept, what.starts_with("CTRF of")), "{reading:?}");
            let problem = &reading.problems[0];
            assert!(problem.what.contains(what) && problem.line == line, "{reading:?}");
        }
        check("{\"results\": {\"tests\": [{\"name\": \"a\"},\n{\"name\": \"b", 1, 2, "cut off");
        let unknown = "{\"results\": {\"tests\": [\n{\"name\": \"a\", \"status\": \"exploded\"}\n]";
        check(unknown, 1, 2, "status `exploded`, so it counts as skipped");
        let negative = "{\"results\": {\"tests\": [\n\n{\"name\": \"a\", \"duration\": -3}";
        check(negative, 1, 3, "`-3` is no duration");
        check("{\"reportFormat\": \"SARIF\", \"results\": {}}", 0, 1, "SARIF");
        check("{}", 0, 1, "no `results.tests`");
        check("[]", 0, 1, "an object");
        check("", 0, 1, "cut off");
        check(r#"{"results":{"tests":{"name":"a"}}}"#, 0, 1, "a list");
        check(r#"{"specVersion":"7.1","results":{"tests":[{"name":"a"}]}}"#, 1, 1, "CTRF of version `7.1`");
        let deep = format!("{{\"results\":{{\"tests\":[{}", "[".repeat(1_000));
        check(&deep, 0, 1, "recursion limit");
    }

    #[test]
    fn long_strings_are_cut_at_a_character() {
        for filler in ["x", "ü", "🦀", "\\n", "\\u00fc", "\\ud83e\\udd80", "\\\""] {
            for shift in 0..14 {
                let long = "y".repeat(shift) + &filler.repeat(3 * LONGEST_TEXT);
                let document = format!(
                    r#"{{"results":{{"tests":[{{"name":"a","status":"failed","message":"{long}"}},
                    {{"name":"b"}}]}}}}"#
                );
                let (found, reading) = cases(&document);
                assert_eq!((found.len(), reading.complete), (2, true), "{filler} {shift}: {reading:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_the_reader_panic(text in "[{}\\[\\]\":,a-z0-9\\\\ ]{0,80}") {
            let _ = cases(&format!("{{\"results\":{{\"tests\":[{text}"));
            let _ = cases(&text);
        }
    }
}
