//! Why we stopped with a test, and what is proved of it, in words.

use crate::experiment::{
    Answer, Condition, ConditionCount, Guarantee, Ledger, Observation, Question, Record, Runs, Seen,
    TestAnswer, Verdict, WantsNetwork, asked_for_network,
};
use crate::score::interval::upper_bound_after_clean_runs;
use flakefarm_shared::{TestId, WorkerId, World};
use std::collections::BTreeSet;

/// What a test did, with nothing changed around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcomes {
    pub(super) passes: u32,
    pub(super) failures: u32,
    pub(super) skips: u32,
}

impl Outcomes {
    pub(super) fn of(observations: &[&Observation]) -> Self {
        let mut outcomes = Self { passes: 0, failures: 0, skips: 0 };
        for observation in observations {
            match observation.seen {
                Seen::Pass => outcomes.passes += 1,
                Seen::Fail(_) => outcomes.failures += 1,
                Seen::Skip => outcomes.skips += 1,
            }
        }
        outcomes
    }
}

/// One test and all that its verdict rests on.
pub(super) struct Case<'a> {
    pub(super) question: &'a Question,
    pub(super) ledger: &'a Ledger,
    pub(super) test: &'a TestId,
    /// With nothing changed around it.
    pub(super) observations: &'a [&'a Observation],
    pub(super) counts: Outcomes,
    pub(super) answer: TestAnswer,
    pub(super) conditions: &'a [ConditionCount],
}

impl Case<'_> {
    fn sure(&self) -> String {
        percent_down(self.question.confidence.get())
    }

    pub(super) fn never_failed(&self) -> (Verdict, String) {
        let passes = self.counts.passes;
        let old = self.answer.record.map_or(0.0, |record| record.clean_runs);
        if passes == 0 && old == 0.0 {
            return (Verdict::Inconclusive, self.why_never_ran());
        }
        let elsewhere = self.answer.elsewhere;
        let runs = f64::from(passes + elsewhere) + old;
        let bound = percent_up(upper_bound_after_clean_runs(runs, self.question.confidence));
        let sure = self.sure();
        let mut text = match passes {
            0 => "no new run".to_owned(),
            passes => format!("{} ({})", times(passes, "clean run", "clean runs"), words(self.conditions)),
        };
        if elsewhere > 0 {
            text.push_str(&format!(" and {elsewhere} in other worlds"));
        }
        if let Some(record) = self.answer.record.filter(|record| record.clean_runs > 0.0) {
            text.push_str(&older(&record));
        }
        if self.answer.answer != Answer::Healthy {
            let wanted = self.answer.clean_runs_wanted;
            let wanted =
                if f64::from(wanted) > runs { format!(" of {wanted} wanted") } else { String::new() };
            return (
                Verdict::Inconclusive,
                format!("{text}{wanted}: if it flakes, less than {bound} of the time ({sure})"),
            );
        }
        let text = match (self.question.runs, self.question.guarantee) {
            (Runs::Adaptive, Guarantee::PerSuite) => format!(
                "{text}, its share of the suite's guarantee: it flakes {} of the time or more with probability {}; by \
                 itself, less than {bound} of the time ({sure})",
                percent_down(self.question.max_flake_rate.get()),
                percent_up(self.answer.risk),
            ),
            (Runs::Adaptive, Guarantee::PerTest) | (Runs::Fixed(_), _) => format!(
                "{text}: were it to flake {bound} of the time or more, we would have seen it with {sure} probability"
            ),
        };
        (Verdict::Healthy, text)
    }

    pub(super) fn always_failed(&self, failures: u32) -> (Verdict, String) {
        let runs = failures + self.answer.elsewhere;
        let bound = percent_up(upper_bound_after_clean_runs(f64::from(runs), self.question.confidence));
        let sure = self.sure();
        let mut failed = format!("failed {failures} of {failures} ({})", words(self.conditions));
        if self.answer.elsewhere > 0 {
            failed.push_str(&format!(" and {} in other worlds", self.answer.elsewhere));
        }
        match self.answer.answer {
            Answer::Open(more) => {
                let needed = runs + more;
                let text = format!(
                    "{failed}, {needed} are needed: if it passes, less than {bound} of the time ({sure})"
                );
                (Verdict::Inconclusive, text)
            }
            Answer::GivenUp => (
                Verdict::Inconclusive,
                format!(
                    "{failed}, no more could be had: if it passes, less than {bound} of the time ({sure})"
                ),
            ),
            Answer::Healthy | Answer::Flaky | Answer::Broken | Answer::Skipped => {
                let text = format!(
                    "{failed}: were it to pass {bound} of the time or more, we would have seen it with {sure} \
                     probability{}",
                    self.network_wanted()
                );
                (Verdict::Broken, text)
            }
        }
    }

    /// What a test says that never passes and had no network, where none was tried.
    fn network_wanted(&self) -> String {
        let network = Condition::World(World::NetworkOn);
        if self.ledger.counts(self.test).iter().any(|count| count.condition == network) {
            return String::new();
        }
        let why = match asked_for_network(self.test, self.ledger) {
            None => return String::new(),
            Some(WantsNetwork::Said) => "its failure speaks of a network that is not there".to_owned(),
            Some(WantsNetwork::Counted(packets)) => format!(
                "it or a program that it started asked for a network that is not there ({} without a route)",
                times(packets, "packet", "packets")
            ),
        };
        format!("; {why}: give it one with --under network-on, or with `network = true` under [limits]")
    }

    pub(super) fn always_skipped(&self) -> (Verdict, String) {
        (Verdict::Skipped, format!("skipped every time ({})", self.counts.skips))
    }

    pub(super) fn why_flaky(&self) -> String {
        let Outcomes { passes, failures, .. } = self.counts;
        let workers = |wanted: fn(&Seen) -> bool| -> BTreeSet<&WorkerId> {
            self.observations.iter().filter(|o| wanted(&o.seen)).map(|o| &o.worker).collect()
        };
        let failing = workers(|seen| matches!(seen, Seen::Fail(_)));
        let every = workers(|seen| !matches!(seen, Seen::Skip));
        let confirmed = if failing.len() > 1 {
            format!(", seen to fail on {} workers", failing.len())
        } else if failures > 1 {
            String::new()
        } else if every.len() > 1 {
            ", one failure on one worker".to_owned()
        } else {
            ", one failure".to_owned()
        };
        format!(
            "witnessed: {} and {} on one snapshot{confirmed}",
            times(passes, "pass", "passes"),
            times(failures, "failure", "failures")
        )
    }

    fn why_never_ran(&self) -> String {
        let ledger = self.ledger;
        let file = ledger.file_of(self.test);
        if let Some(error) = ledger.collection_errors().into_iter().find(|error| error.path == file) {
            let last = error.message.lines().last().unwrap_or_default();
            return format!("never ran: {file} could not be collected: {last}");
        }
        if let Some(reason) = ledger.nothing_ran().into_iter().next() {
            return format!("never ran: {}", reason.lines().last().unwrap_or_default());
        }
        if let Some((_, reason)) = ledger.lost_jobs().next() {
            return format!("never ran: the farm lost its jobs: {reason}");
        }
        match ledger.infrastructure_errors() {
            0 => "never ran: no attempt said anything of it".to_owned(),
            errors => format!(
                "never ran: the farm failed ({})",
                times(errors, "infrastructure error", "infrastructure errors")
            ),
        }
    }
}

/// ` and 47.3 older ones in 3 sweeps, the last 2 days ago; nothing it touches has changed since`.
fn older(record: &Record) -> String {
    let weight = (record.clean_runs * 10.0).floor() / 10.0;
    let when = match record.age_days {
        days if days < 1.0 => "today".to_owned(),
        days if days < 2.0 => "1 day ago".to_owned(),
        days => format!("{} days ago", days.floor()),
    };
    let mut text = format!(
        " and {weight} older clean ones (by their age) in {}, the last {when}, with nothing changed that it is \
         known to touch",
        times(record.sweeps, "sweep", "sweeps"),
    );
    if record.failures > 0 {
        text.push_str(&format!(
            ", after {} in {} runs",
            times(record.failures, "failure", "failures"),
            record.attempts
        ));
    }
    text
}

fn words(conditions: &[ConditionCount]) -> String {
    let plain =
        |count: &&ConditionCount| !matches!(count.condition, Condition::World(_) | Condition::OtherSource);
    let words =
        conditions.iter().filter(plain).map(|count| format!("{} {}", count.attempts, count.condition));
    words.collect::<Vec<_>>().join(", ")
}

fn times(count: impl Into<u64>, one: &str, more: &str) -> String {
    let count = count.into();
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

/// With one decimal below ten per cent, and never less than the value.
fn percent_up(value: f64) -> String {
    percent(value, f64::ceil)
}

/// As [`percent_up`], never more than the value.
fn percent_down(value: f64) -> String {
    percent(value, f64::floor)
}

fn percent(value: f64, round: fn(f64) -> f64) -> String {
    let percent = value * 100.0;
    // Whole steps but for rounding are left alone.
    let step = if (0.1..=99.9).contains(&percent) { 10.0 } else { 1e4 };
    let near = (percent * step).round();
    let steps = if (near - percent * step).abs() < 1e-6 { near } else { round(percent * step) };
    format!("{} %", steps / step)
}
