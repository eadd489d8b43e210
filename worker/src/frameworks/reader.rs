//! Reads the events of one attempt as they come, and concludes once the sandbox has ended. Clocks are passed
//! in by the supervisor, which enforces the deadlines.
//!
//! What comes out of a sandbox is untrusted. Who may say what is decided by the order of events and by what
//! was asked for: one session, then what was collected, then each asked-for test once, its start before its
//! end and one at a time, then the end. What breaks that order is a contradiction: the attempt counts for
//! nothing, and no test is charged with it.

mod collecting;
mod reading;

pub use super::ending::ExitSeen;
pub use reading::{AttemptReading, ReadDetail, ReadSample};

use super::bounds;
use super::ending::{Evidence, charged, decide};
use super::events::{self, EndEvent, Event, Mode};
use super::seal::{self, Line, Nonce};
use collecting::Collecting;
use flakefarm_shared::{AttemptEnd, FailureKind, NothingRan, Remark, TestId};
use reading::{Telling, merged, sorted_twins};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// What an attempt was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// The tests, none of which is to run.
    List,
    /// To run these tests, or all.
    Run(Option<&'a [TestId]>),
}

#[derive(Debug)]
struct Running {
    test: TestId,
    position: u32,
    started: Instant,
    /// Whether it was asked for.
    counts: bool,
    limit: Option<(String, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Opening,
    Collecting,
    Running,
    Finished(i64),
}

/// Reads the events of one attempt as they come.
#[derive(Debug)]
pub struct AttemptReader {
    framework: &'static str,
    nonce: Nonce,
    begun: Instant,
    cpus: u64,
    listing: bool,
    next_line: u64,
    stage: Stage,
    version: String,
    collecting: Collecting,
    running: Option<Running>,
    started: u32,
    ended: HashSet<TestId>,
    ended_session: Option<(TestId, FailureKind)>,
    telling: Telling,
    no_framework: Option<String>,
    unavailable: Option<String>,
    last_event: Option<Instant>,
    garbage: u64,
    foreign_bytes: u64,
    tampering: Option<String>,
    contradiction: Option<String>,
}

impl AttemptReader {
    /// A reader of an attempt of `framework` that begins at `begun` and was asked for something. What is said
    /// of a test that was not asked for is dropped.
    pub fn new(framework: &'static str, nonce: Nonce, asked: Asked<'_>, begun: Instant) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let expected = match asked {
            Asked::List | Asked::Run(None) => None,
            Asked::Run(Some(tests)) => Some(tests),
        };
        Self {
            framework,
            nonce,
            begun,
            cpus: u64::try_from(cpus).unwrap_or(u64::MAX),
            listing: asked == Asked::List,
            next_line: 0,
            stage: Stage::Opening,
            version: String::new(),
            collecting: Collecting::new(expected, asked == Asked::List),
            running: None,
            started: 0,
            ended: HashSet::new(),
            ended_session: None,
            telling: Telling::default(),
            no_framework: None,
            unavailable: None,
            last_event: None,
            garbage: 0,
            foreign_bytes: 0,
            tampering: None,
            contradiction: None,
        }
    }

    /// Takes one line of the results channel, read at `now`.
    pub fn feed(&mut self, line: &[u8], now: Instant) {
        if self.contradiction.is_some() {
            return;
        }
        let nonce = self.nonce.clone();
        match seal::read(line, &nonce) {
            Line::Blank => {}
            Line::Foreign(text) => self.take_foreign(text),
            Line::Own(number, _) if number != self.next_line => {
                self.contradict(format!("line {number} came where line {} was due", self.next_line));
            }
            Line::Own(_, event) => {
                self.next_line += 1;
                self.last_event = Some(now);
                match events::parse(event) {
                    Some(event) => {
                        if let Err(what) = self.take(event, now) {
                            self.contradict(what);
                        }
                    }
                    None => self.garbage += 1,
                }
            }
        }
    }

    fn take_foreign(&mut self, text: &[u8]) {
        self.garbage += 1;
        self.foreign_bytes = self.foreign_bytes.saturating_add(text.len() as u64 + 1);
        if events::parse(text).is_some() || seal::looks_sealed(text) {
            let what = format!("a result that is not {}'s own was written{}", self.framework, self.at());
            self.tampering.get_or_insert(what);
        }
        if self.foreign_bytes > bounds::FOREIGN_BYTES {
            self.contradict("the results channel was flooded".to_owned());
        }
    }

    fn contradict(&mut self, what: String) {
        let what = format!("{what}{}", self.at());
        self.contradiction = Some(what);
    }

    /// ` while TEST ran`.
    fn at(&self) -> String {
        self.running.as_ref().map_or_else(String::new, |running| format!(" while `{}` ran", running.test))
    }

    fn take(&mut self, event: Event, now: Instant) -> Result<(), String> {
        let untimely = |what: &str| Err(format!("{what} was told out of turn"));
        match (event, self.stage) {
            (Event::Session { framework, python, mode }, Stage::Opening) => {
                if self.listing != (mode == Mode::List) {
                    return Err("something else was done than was asked for".to_owned());
                }
                self.version = format!("{framework}, {python}");
                bounds::text(&mut self.version, bounds::MESSAGE_CHARS);
                self.stage = Stage::Collecting;
                Ok(())
            }
            (Event::NoFramework { message }, Stage::Opening) => {
                self.no_framework = Some(message);
                Ok(())
            }
            (Event::Unavailable { message }, Stage::Opening | Stage::Collecting) => {
                self.unavailable = Some(message);
                Ok(())
            }
            (Event::CollectError { path, message }, Stage::Collecting | Stage::Running) => {
                self.collecting.failed(path, message);
                Ok(())
            }
            (Event::CollectSkip { path, message }, Stage::Collecting | Stage::Running) => {
                self.collecting.skipped(path, message);
                Ok(())
            }
            (Event::Missing { tests }, Stage::Collecting) => self.collecting.missing(tests),
            (Event::Twins { groups }, Stage::Collecting) => {
                self.collecting.twins(groups);
                Ok(())
            }
            (Event::Meant { by, tests }, Stage::Collecting) => self.collecting.meant(by, tests),
            (Event::Collected { tests, more, reordered }, Stage::Collecting) => {
                if self.collecting.collected(tests, more, reordered)? {
                    self.stage = Stage::Running;
                }
                Ok(())
            }
            (Event::Parts { tests }, Stage::Running) => self.collecting.parts(tests),
            (Event::Path { directories }, Stage::Running) => {
                self.collecting.path(directories);
                Ok(())
            }
            (Event::Sources { tests }, Stage::Running) => self.collecting.sources(tests),
            (Event::Start { test, i }, Stage::Running) => self.test_starts(test, i, now),
            (Event::Limit { by, ms }, Stage::Running) => {
                if let Some(running) = &mut self.running {
                    running.limit = Some((by, Duration::from_millis(ms)));
                }
                Ok(())
            }
            (Event::End(end), Stage::Running) => self.test_ended(*end, now),
            (Event::Finish { exit }, Stage::Opening | Stage::Collecting | Stage::Running) => {
                self.stage = Stage::Finished(exit);
                Ok(())
            }
            (Event::Start { test, .. }, _) => untimely(&format!("the start of `{test}`")),
            (Event::End(end), _) => untimely(&format!("the end of `{}`", end.test)),
            (_, Stage::Finished(_)) => Err("something was told after the end".to_owned()),
            (_, Stage::Opening | Stage::Collecting | Stage::Running) => untimely("a step of the session"),
        }
    }

    fn test_starts(&mut self, test: TestId, position: u32, now: Instant) -> Result<(), String> {
        if let Some(running) = &self.running {
            return Err(format!("`{test}` was said to start before `{}` had ended", running.test));
        }
        if self.listing {
            return Err(format!("`{test}` was said to start in a listing"));
        }
        if self.ended.contains(&test) {
            return Err(format!("`{test}` was said to start a second time"));
        }
        if position != self.started {
            return Err(format!("`{test}` was said to start as number {position}, not {}", self.started));
        }
        if self.ended.len() >= bounds::TESTS {
            return Err(format!("more than {} tests were said to run", bounds::TESTS));
        }
        self.started += 1;
        let counts = self.collecting.was_asked_for(&test);
        self.running = Some(Running { test, position, started: now, counts, limit: None });
        Ok(())
    }

    fn test_ended(&mut self, mut end: EndEvent, now: Instant) -> Result<(), String> {
        let Some(running) = self.running.take_if(|running| running.test == end.test) else {
            return Err(format!("`{}` was said to end, which was not running", end.test));
        };
        self.ended.insert(running.test);
        if !running.counts {
            self.garbage += 1;
            return Ok(());
        }
        bounds::cut(&mut end, now.saturating_duration_since(self.begun), self.cpus);
        if end.last {
            self.ended_session = Some((end.test.clone(), end.failure_kind()));
        }
        self.telling.take(end, running.position);
        Ok(())
    }

    /// The test that runs now, and since when.
    pub fn running(&self) -> Option<(&TestId, Instant)> {
        self.running.as_ref().map(|running| (&running.test, running.started))
    }

    /// Since when the test that runs now has been running.
    pub fn test_started_at(&self) -> Option<Instant> {
        self.running.as_ref().map(|running| running.started)
    }

    /// When the last event came: outside tests, progress is an event.
    pub fn last_event_at(&self) -> Option<Instant> {
        self.last_event
    }

    /// Whether the framework has reported its own end. What follows (threads, exit handlers) says
    /// nothing about a test.
    pub fn has_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished(_))
    }

    /// Whether nothing that is still to come can count: the attempt should be ended.
    pub fn is_over(&self) -> bool {
        self.contradiction.is_some()
    }

    /// The reading, once the sandbox has ended; `stderr` is what it wrote beside its results.
    pub fn conclude(self, exit: ExitSeen, stderr: &str) -> AttemptReading {
        self.conclude_at(exit, stderr, Instant::now())
    }

    /// The reading of an attempt that was not made, because its world cannot be given.
    pub(crate) fn conclude_not_given(mut self, why: String) -> AttemptReading {
        self.unavailable = Some(why);
        self.conclude(ExitSeen { exit_code: 0, oom: false, timed_out: None }, "")
    }

    fn conclude_at(mut self, exit: ExitSeen, stderr: &str, now: Instant) -> AttemptReading {
        let running = self.running.take();
        let finished = match self.stage {
            Stage::Finished(code) => Some(code),
            Stage::Opening | Stage::Collecting | Stage::Running => None,
        };
        if self.contradiction.is_none()
            && let Some(what) = contradicted_by(exit, finished)
        {
            self.contradiction = Some(what);
        }
        let mut samples = self.telling.samples;
        let evidence = Evidence {
            framework: self.framework,
            listing: self.listing,
            finished,
            ended_session: self.ended_session.as_ref(),
            running: running.as_ref().filter(|running| running.counts).map(|running| {
                let ran = now.saturating_duration_since(running.started);
                (&running.test, ran, running.limit.as_ref())
            }),
            samples: samples.len(),
            collected: self.collecting.count(),
            missing: self.collecting.missing.len(),
            collection_errors: self.collecting.errors.len(),
            no_framework: self.no_framework.as_deref(),
            unavailable: self.unavailable.as_deref(),
        };
        let failed = samples.iter().any(|read| read.sample.outcome.is_failure())
            || !self.telling.tear_downs.is_empty();
        // The plugin has told that test's failure.
        let told = self.ended_session.as_ref().map(|(test, _)| test.clone());
        let mut end = decide(&evidence, exit, stderr);
        let mut remarks = self.collecting.remarks();
        remarks.extend(super::ending::abnormal(&evidence, failed, stderr));
        let mut details = self.telling.details;
        let mut tear_downs = self.telling.tear_downs;
        if let (AttemptEnd::Interrupted { by, .. }, Some(running)) = (&end, &running)
            && running.counts
            && told.is_none()
        {
            let wall = now.saturating_duration_since(running.started);
            let by_whom = running.limit.as_ref().map(|(by, _)| by.as_str());
            let sample = charged(
                (&running.test, running.position),
                by,
                by_whom,
                wall,
                exit,
                (self.framework, finished),
            );
            samples.push(ReadSample { sample, output: (!stderr.is_empty()).then(|| stderr.to_owned()) });
        }
        if let Some(what) = self.contradiction {
            samples.clear();
            details.clear();
            tear_downs.clear();
            let reason = format!("the results of the attempt contradict each other and do not count: {what}");
            end = AttemptEnd::NothingRan { reason, why: NothingRan::Tampered };
            self.tampering = Some(what);
        }
        if let AttemptEnd::Interrupted { running, .. } = &mut end
            && let Some(by) = self.collecting.meant.get(running)
        {
            *running = by.clone();
        }
        remarks.extend(self.tampering.map(|what| Remark::Tampering { what }));
        remarks.extend(tear_downs);
        remarks.sort();
        sorted_twins(&mut samples, &self.collecting.twins);
        let samples = merged(samples, &self.collecting.meant);
        let Collecting { errors, skips, missing, parts, sources, tests, path, .. } = self.collecting;
        let tests = tests.unwrap_or_default();
        AttemptReading {
            end,
            samples,
            details,
            collection_errors: errors,
            skipped_files: skips,
            remarks,
            framework_version: self.version,
            path,
            parts: if parts.len() == tests.len() { parts } else { Vec::new() },
            sources: if sources.len() == tests.len() { sources } else { Vec::new() },
            tests,
            missing,
            garbage_lines: self.garbage,
        }
    }
}

/// The second witness: a framework that has said how it ends ends like that, if nobody ended it.
fn contradicted_by(exit: ExitSeen, finished: Option<i64>) -> Option<String> {
    let by_itself = exit.timed_out.is_none() && !exit.oom && (0..128).contains(&exit.exit_code);
    let said = finished?;
    (by_itself && said.rem_euclid(256) != exit.exit_code).then(|| {
        format!("the end was told with exit code {said}, and the process ended with {}", exit.exit_code)
    })
}

/// Longer than any clock of a test: for tests of what reads the clock.
#[cfg(test)]
const LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
