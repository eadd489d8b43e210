//! CTRF, the common test report format in JSON, of any version so far: read case by case, in flat memory.
//! Long texts are cut before they are read, see [`Shortened`].

use super::case::{self, Case, CaseAttempt, CaseOutcome, Reading};
use super::shortened::{LONGEST_TEXT, Lines, Place, Shortened};
use super::utf16::{self, FromUtf16};
use super::when;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
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

/// Values of other types than the one that is read are that one's default.
macro_rules! no_such_value {
    ($type:ty) => {
        fn visit_bool<E>(self, _: bool) -> Result<$type, E> {
            Ok(<$type>::default())
        }

        fn visit_i64<E>(self, _: i64) -> Result<$type, E> {
            Ok(<$type>::default())
        }

        fn visit_u64<E>(self, _: u64) -> Result<$type, E> {
            Ok(<$type>::default())
        }

        fn visit_f64<E>(self, _: f64) -> Result<$type, E> {
            Ok(<$type>::default())
        }

        fn visit_str<E>(self, _: &str) -> Result<$type, E> {
            Ok(<$type>::default())
        }

        fn visit_unit<E>(self) -> Result<$type, E> {
            Ok(<$type>::default())
        }
    };
}

/// Reads a report in UTF-8, or in UTF-16 with its mark; gives its cases to `sink` in their order until it
/// breaks off.
pub fn read(mut input: impl BufRead, sink: &mut dyn FnMut(Case) -> ControlFlow<()>) -> Reading {
    // A mark is what JSON forbids and PowerShell writes. What cannot be read is told when it is.
    let mark = |start: &[u8]| (start.starts_with(b"\xef\xbb\xbf"), utf16::is_big_endian(start));
    let (in_utf8, in_utf16) = input.fill_buf().map(mark).unwrap_or_default();
    if let Some(big_endian) = in_utf16 {
        return read_text(FromUtf16::new(input, big_endian), sink);
    }
    if in_utf8 {
        input.consume(3);
    }
    read_text(input, sink)
}

fn read_text(input: impl BufRead, sink: &mut dyn FnMut(Case) -> ControlFlow<()>) -> Reading {
    let mut reading = Reading::default();
    let mut found = Found::Nothing;
    let place = Rc::new(Place::default());
    let counted = Lines::new(io::BufReader::new(Shortened::new(input)), &place);
    let mut deserializer = serde_json::Deserializer::from_reader(counted);
    let seed = Report { sink, reading: &mut reading, found: &mut found, place: &place };
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
    place: &'a Place,
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
                    map.next_value_seed(Results {
                        sink,
                        reading,
                        found: &mut *self.found,
                        place: self.place,
                    })?;
                }
                "specVersion" => {
                    let version = map.next_value::<Text>()?.0;
                    if !KNOWN_VERSIONS.iter().any(|known| version.starts_with(known)) {
                        let version = case::name(&version);
                        self.reading.note(
                            self.place.line(),
                            format!("CTRF of version `{version}`: read as version 1"),
                        );
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
    place: &'a Place,
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
                map.next_value_seed(Tests { sink, reading, found: &mut *self.found, place: self.place })?;
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
    place: &'a Place,
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
            let line = self.place.line();
            test.doubt(line, number, self.reading);
            let Some(case) = test.case(line) else {
                self.reading.note(line, format!("test {number} has no name"));
                continue;
            };
            self.reading.cases += 1;
            self.place.got_case();
            if (self.sink)(case).is_break() {
                *self.found = Found::Stopped;
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// One test, with only what is used of it. Whatever has another type than expected is taken for absent, and
/// of what is there twice the last counts.
#[derive(Debug, Default)]
struct Test {
    name: Text,
    status: Text,
    duration: Number,
    start: Number,
    suite: Text,
    message: Text,
    trace: Text,
    file: Text,
    flaky: Flag,
    retries: Number,
    retry_attempts: Attempts,
}

#[derive(Debug, Default)]
struct Attempt {
    status: Text,
    duration: Number,
    message: Text,
    trace: Text,
}

/// The first attempts, [`MOST_ATTEMPTS`] at the most.
#[derive(Debug, Default)]
struct Attempts(Vec<Attempt>);

impl<'de> Deserialize<'de> for Test {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyTest;
        impl<'de> Visitor<'de> for AnyTest {
            type Value = Test;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a test")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Test, A::Error> {
                let mut test = Test::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => test.name = map.next_value()?,
                        "status" => test.status = map.next_value()?,
                        "duration" => test.duration = map.next_value()?,
                        "start" => test.start = map.next_value()?,
                        "suite" => test.suite = map.next_value()?,
                        "message" => test.message = map.next_value()?,
                        "trace" => test.trace = map.next_value()?,
                        "file" | "filepath" | "filePath" => test.file = map.next_value()?,
                        "flaky" => test.flaky = map.next_value()?,
                        "retries" => test.retries = map.next_value()?,
                        "retryAttempts" => test.retry_attempts = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(test)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Test, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Test::default())
            }

            no_such_value!(Test);
        }
        deserializer.deserialize_any(AnyTest)
    }
}

impl<'de> Deserialize<'de> for Attempt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyAttempt;
        impl<'de> Visitor<'de> for AnyAttempt {
            type Value = Attempt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attempt")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attempt, A::Error> {
                let mut attempt = Attempt::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "status" => attempt.status = map.next_value()?,
                        "duration" => attempt.duration = map.next_value()?,
                        "message" => attempt.message = map.next_value()?,
                        "trace" => attempt.trace = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(attempt)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Attempt, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Attempt::default())
            }

            no_such_value!(Attempt);
        }
        deserializer.deserialize_any(AnyAttempt)
    }
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyAttempts;
        impl<'de> Visitor<'de> for AnyAttempts {
            type Value = Attempts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("attempts, a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Attempts, A::Error> {
                let mut attempts = Vec::new();
                while attempts.len() < MOST_ATTEMPTS
                    && let Some(attempt) = list.next_element()?
                {
                    attempts.push(attempt);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Attempts(attempts))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attempts, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Attempts::default())
            }

            no_such_value!(Attempts);
        }
        deserializer.deserialize_any(AnyAttempts)
    }
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
            .0
            .iter()
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
mod tests;
