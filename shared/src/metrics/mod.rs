//! What a process counts of itself, as Prometheus reads it. Counting costs a lock and an addition; what is
//! counted stays in the process. [`catalogue`] is the list of all there is, and the only one.
//!
//! Labels have few values, known beforehand: never a test, a sweep, a revision or a project. What comes
//! as a label's value all the same is bounded.

pub mod catalogue;
mod process;

pub use catalogue::CATALOGUE;
pub use process::watch_runtime;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether anything is counted.
static COUNTING: AtomicBool = AtomicBool::new(true);

/// Counts nothing from now on, to measure what counting costs.
pub fn stop_counting() {
    COUNTING.store(false, Ordering::Relaxed);
}

/// Series of one metric; what comes after them is dropped.
const MOST_SERIES: usize = 1_000;

/// Which processes have a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// All of them.
    Both,
    /// Coordinators.
    Coordinator,
    /// Workers.
    Worker,
}

impl Owner {
    /// As a label's value.
    pub fn word(self) -> &'static str {
        match self {
            Owner::Both => "both",
            Owner::Coordinator => "coordinator",
            Owner::Worker => "worker",
        }
    }
}

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, counted by these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Prometheus's word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// Which series exist before anything was counted, so that a rate over the first count is seen.
#[derive(Debug, Clone, Copy)]
pub enum Seeds {
    /// One for each combination of these values, label by label.
    Product(&'static [&'static [&'static str]]),
    /// These.
    Only(&'static [&'static [&'static str]]),
    /// None: the values come with time.
    None,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// With its unit.
    pub name: &'static str,
    /// What it says.
    pub help: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Whose it is.
    pub owner: Owner,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Series that are there from the start.
    pub seeds: Seeds,
    series: Mutex<Series>,
}

type Labels = Vec<Cow<'static, str>>;
type Series = BTreeMap<Labels, Value>;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    /// Counts of each bucket and of what is above all, and the sum.
    Observed(Vec<u64>, f64),
}

impl Metric {
    const fn new(
        name: &'static str,
        kind: Kind,
        owner: Owner,
        labels: &'static [&'static str],
        seeds: Seeds,
        help: &'static str,
    ) -> Self {
        Self { name, help, kind, owner, labels, seeds, series: Mutex::new(BTreeMap::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, labels: &[Cow<'static, str>], change: impl FnOnce(&mut Value)) {
        debug_assert_eq!(labels.len(), self.labels.len(), "{}", self.name);
        if !COUNTING.load(Ordering::Relaxed) {
            return;
        }
        let mut series = self.lock();
        if let Some(value) = series.get_mut(labels) {
            change(value);
        } else if series.len() < MOST_SERIES {
            let mut value = self.empty();
            change(&mut value);
            series.insert(labels.to_vec(), value);
        }
    }

    fn empty(&self) -> Value {
        match self.kind {
            Kind::Counter | Kind::Gauge => Value::Number(0.0),
            Kind::Histogram(bounds) => Value::Observed(vec![0; bounds.len() + 1], 0.0),
        }
    }

    /// Counts one more.
    pub fn count(&self, labels: &[&'static str]) {
        self.add(labels, 1);
    }

    /// Counts `more`.
    pub fn add(&self, labels: &[&'static str], more: u64) {
        self.change(&fixed(labels), |value| {
            if let Value::Number(number) = value {
                *number += as_number(more);
            }
        });
    }

    /// Sets a gauge.
    pub fn set(&self, labels: &[&'static str], to: f64) {
        self.change(&fixed(labels), |value| *value = Value::Number(to));
    }

    /// Sets a gauge to a whole number.
    pub fn set_whole(&self, labels: &[&'static str], to: u64) {
        self.set(labels, as_number(to));
    }

    /// Notes a duration.
    pub fn observe(&self, labels: &[&'static str], took: Duration) {
        self.observe_of(&fixed(labels), took);
    }

    /// The same with labels that were read from something; their values are few all the same.
    pub fn observe_of(&self, labels: &[Cow<'static, str>], took: Duration) {
        let Kind::Histogram(bounds) = self.kind else { return };
        let seconds = took.as_secs_f64();
        let place = bounds.partition_point(|bound| *bound < seconds);
        self.change(labels, |value| {
            if let Value::Observed(counts, sum) = value {
                counts[place] += 1;
                *sum += seconds;
            }
        });
    }

    /// What a series has come to: a number, or how many durations were noted. None if there is no such series.
    pub fn value(&self, labels: &[&'static str]) -> Option<f64> {
        self.lock().get(fixed(labels).as_slice()).map(|value| match value {
            Value::Number(number) => *number,
            Value::Observed(counts, _) => as_number(counts.iter().sum()),
        })
    }

    fn seeded(&self) -> Series {
        let mut series = self.lock().clone();
        let mut seed = |labels: Labels| {
            series.entry(labels).or_insert_with(|| self.empty());
        };
        match self.seeds {
            Seeds::None => {}
            Seeds::Only(all) => all.iter().for_each(|labels| seed(fixed(labels))),
            Seeds::Product(values) => {
                let mut all: Vec<Labels> = vec![Vec::new()];
                for values in values {
                    let with = |labels: &Labels| {
                        let labels = labels.clone();
                        values.iter().map(move |value| {
                            let mut labels = labels.clone();
                            labels.push(Cow::Borrowed(*value));
                            labels
                        })
                    };
                    all = all.iter().flat_map(with).collect();
                }
                all.into_iter().for_each(seed);
            }
        }
        series
    }

    fn render(&self, text: &mut String) {
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            text.write_fmt(arguments).expect("text can be written to memory");
        };
        let name = self.name;
        line(format_args!("# HELP {name} {}\n# TYPE {name} {}\n", self.help, self.kind.word()));
        for (labels, value) in self.seeded() {
            match (value, self.kind) {
                (Value::Number(number), _) => {
                    line(format_args!("{name}{} {number}\n", braces(self.labels, &labels, None)));
                }
                (Value::Observed(counts, sum), Kind::Histogram(bounds)) => {
                    let mut below = 0;
                    for (place, count) in counts.iter().enumerate() {
                        below += count;
                        let bound = bounds.get(place).map_or("+Inf".to_owned(), f64::to_string);
                        let braces = braces(self.labels, &labels, Some(&bound));
                        line(format_args!("{name}_bucket{braces} {below}\n"));
                    }
                    let braces = braces(self.labels, &labels, None);
                    line(format_args!("{name}_sum{braces} {sum}\n{name}_count{braces} {below}\n"));
                }
                (Value::Observed(..), Kind::Counter | Kind::Gauge) => {}
            }
        }
    }
}

fn fixed(labels: &[&'static str]) -> Labels {
    labels.iter().map(|label| Cow::Borrowed(*label)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn as_number(whole: u64) -> f64 {
    whole as f64
}

fn braces(names: &[&str], values: &[Cow<'static, str>], bound: Option<&str>) -> String {
    let mut pairs: Vec<String> =
        names.iter().zip(values).map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    pairs.extend(bound.map(|bound| format!("le=\"{bound}\"")));
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All metrics of a process of this role, in Prometheus's text format.
pub fn render(role: Owner) -> String {
    process::read();
    catalogue::BUILD_INFO.set(&[role.word(), env!("CARGO_PKG_VERSION"), catalogue::WIRE], 1.0);
    let mut text = String::new();
    for metric in CATALOGUE.iter().filter(|metric| metric.owner == role || metric.owner == Owner::Both) {
        metric.render(&mut text);
    }
    text
}

/// A call to a store, with how long it took and whether it failed.
pub async fn timed<T, E>(
    store: &'static str,
    operation: &'static str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    if !COUNTING.load(Ordering::Relaxed) {
        return call.await;
    }
    let begun = Instant::now();
    let done = call.await;
    catalogue::STORE_REQUESTS.observe(&[store, operation], begun.elapsed());
    if done.is_err() {
        catalogue::STORE_ERRORS.count(&[store, operation]);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn text_is_as_prometheus_reads_it() {
        static TIMES: Metric = Metric::new(
            "flakefarm_a_seconds",
            Kind::Histogram(&[0.1, 1.0]),
            Owner::Both,
            &["to"],
            Seeds::Product(&[&["b"]]),
            "Of a.",
        );
        TIMES.observe(&["b"], Duration::from_millis(500));
        TIMES.observe(&["b"], Duration::from_secs(2));
        TIMES.observe_of(&[Cow::Owned("x\"\\\n".to_owned())], Duration::from_millis(100));
        let mut text = String::new();
        TIMES.render(&mut text);
        assert_eq!(
            text,
            "# HELP flakefarm_a_seconds Of a.\n# TYPE flakefarm_a_seconds histogram\n\
             flakefarm_a_seconds_bucket{to=\"b\",le=\"0.1\"} 0\n\
             flakefarm_a_seconds_bucket{to=\"b\",le=\"1\"} 1\n\
             flakefarm_a_seconds_bucket{to=\"b\",le=\"+Inf\"} 2\n\
             flakefarm_a_seconds_sum{to=\"b\"} 2.5\nflakefarm_a_seconds_count{to=\"b\"} 2\n\
             flakefarm_a_seconds_bucket{to=\"x\\\"\\\\\\n\",le=\"0.1\"} 1\n\
             flakefarm_a_seconds_bucket{to=\"x\\\"\\\\\\n\",le=\"1\"} 1\n\
             flakefarm_a_seconds_bucket{to=\"x\\\"\\\\\\n\",le=\"+Inf\"} 1\n\
             flakefarm_a_seconds_sum{to=\"x\\\"\\\\\\n\"} 0.1\nflakefarm_a_seconds_count{to=\"x\\\"\\\\\\n\"} 1\n"
        );
    }

    #[test]
    fn values_that_never_end_are_bounded() {
        static MANY: Metric =
            Metric::new("flakefarm_many", Kind::Histogram(&[]), Owner::Both, &["of"], Seeds::None, "Many.");
        for value in 0..2 * MOST_SERIES {
            MANY.observe_of(&[Cow::Owned(value.to_string())], Duration::ZERO);
        }
        assert_eq!(MANY.lock().len(), MOST_SERIES);
    }

    #[test]
    fn names_are_as_the_conventions_want_them() {
        let mut names = BTreeSet::new();
        for metric in CATALOGUE {
            let name = metric.name;
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("flakefarm_") || name.starts_with("process_"), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(!matches!(metric.kind, Kind::Histogram(_)) || name.ends_with("_seconds"), "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}: {}", metric.help);
            for label in metric.labels {
                assert!(!["test", "sweep", "revision", "project", "le"].contains(label), "{name}: {label}");
            }
            for series in metric.seeded().keys() {
                assert_eq!(series.len(), metric.labels.len(), "{name}");
            }
        }
        for role in [Owner::Coordinator, Owner::Worker] {
            let text = render(role);
            let expected = CATALOGUE.iter().filter(|metric| [role, Owner::Both].contains(&metric.owner));
            for metric in expected {
                assert!(text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
            }
        }
    }
}
