//! What is to be told after a sweep: alarms and recoveries, tests of one cause together. Pure: what was told
//! before and what the sweep found go in, messages and what is to be remembered come out.

use super::channel::Channel;
use crate::owners::Owners;
use crate::report::{Report, TestReport, Verdict};
use flakefarm_shared::Digest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Messages of one sweep, beyond which the rest is one message.
const MOST: usize = 5;
/// Tests that a message names.
const NAMED: usize = 20;

/// What a message is about, for programs: past-tense events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Tests were found to be flaky.
    TestsFlaked,
    /// Tests were found to fail always.
    TestsBroke,
    /// Tests that were told of have been healthy for a while.
    TestsRecovered,
    /// A patch for tests that a schedule found newly flaky is proved.
    RepairProposed,
    /// A test's quarantine has changed.
    QuarantineChanged,
    /// A job, a worker or a whole sweep failed.
    FarmFailed,
    /// The week has passed.
    WeekPassed,
    /// Somebody tries the channel.
    ChannelTried,
}

/// A message, as any channel can tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What makes it this message: a second one of the same key is dropped.
    pub key: String,
    /// What stays the same from alarm to recovery.
    pub cause: String,
    /// What happened.
    pub event: Subject,
    /// The project.
    pub project: String,
    /// One line.
    pub title: String,
    /// More of it, in Markdown.
    pub text: String,
    /// The tests.
    pub tests: Vec<String>,
    /// Who answers for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<String>,
    /// The sweep that found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<String>,
    /// The issue or pull request that it answers, by its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

/// The answer to a comment that asked for reruns. Somebody who waits for it: it calls nobody else.
pub fn of_reruns(report: &Report, thread: &str) -> Message {
    let tests: Vec<&TestReport> = report.tests.iter().collect();
    let failed = tests.iter().filter(|test| test.failures > 0).count();
    let what = if failed == 0 {
        "no rerun failed".to_owned()
    } else {
        format!("{failed} of {} tests failed in reruns", tests.len())
    };
    let event = if failed == 0 { Subject::TestsRecovered } else { Subject::TestsFlaked };
    let nobody = Owners::default();
    let answer = message(report, &nobody, format!("pull-request/{thread}"), event, &what, &tests);
    Message { thread: Some(thread.to_owned()), ..answer }
}

/// What a channel knows of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The cause under which it was told of; none if all is well.
    #[serde(default)]
    pub alarm: Option<String>,
    /// Sweeps in a row since then that found it healthy.
    #[serde(default)]
    pub healthy: u32,
}

/// What follows from a report for a channel: messages, and what it knows then, of tests for which that
/// changed.
pub fn after_sweep(
    channel: &Channel,
    told: &BTreeMap<String, Told>,
    report: &Report,
    owners: &Owners,
) -> (Vec<Message>, BTreeMap<String, Told>) {
    let mut changed = BTreeMap::new();
    let mut alarms: BTreeMap<(String, bool), Vec<&TestReport>> = BTreeMap::new();
    let mut recovered: BTreeMap<String, Vec<&TestReport>> = BTreeMap::new();
    let unknown = Told::default();
    for test in &report.tests {
        if !channel.hears_of(owners.of(&test.id).as_deref()) {
            continue;
        }
        let known = told.get(&test.id).unwrap_or(&unknown);
        let fails = matches!(test.verdict, Verdict::Flaky | Verdict::Fragile | Verdict::Broken)
            && test.rate.as_ref().is_none_or(|rate| rate.estimate >= channel.alarm_rate);
        match (&known.alarm, fails) {
            (None, true) => {
                let cause = cause_of(report, test);
                alarms.entry((cause.clone(), test.verdict == Verdict::Broken)).or_default().push(test);
                changed.insert(test.id.clone(), Told { alarm: Some(cause), healthy: 0 });
            }
            (Some(_), true) if known.healthy > 0 => {
                changed.insert(test.id.clone(), Told { healthy: 0, ..known.clone() });
            }
            (Some(cause), false) if test.verdict == Verdict::Healthy => {
                if known.healthy + 1 >= channel.recovery_sweeps {
                    recovered.entry(cause.clone()).or_default().push(test);
                    changed.insert(test.id.clone(), Told::default());
                } else {
                    changed.insert(test.id.clone(), Told { healthy: known.healthy + 1, ..known.clone() });
                }
            }
            (Some(_) | None, _) => {}
        }
    }
    let alarms = alarms.into_iter().map(|((cause, broken), tests)| {
        let (event, what) =
            if broken { (Subject::TestsBroke, "broken") } else { (Subject::TestsFlaked, "flaky") };
        message(report, owners, cause, event, &format!("{} {what}", counted(tests.len())), &tests)
    });
    let recovered = recovered.into_iter().map(|(cause, tests)| {
        let title =
            format!("{} recovered", counted(tests.len()).trim_end_matches(" is").trim_end_matches(" are"));
        message(report, owners, cause, Subject::TestsRecovered, &title, &tests)
    });
    (bounded(report, alarms.chain(recovered).collect()), changed)
}

fn counted(tests: usize) -> String {
    if tests == 1 { "1 test is".to_owned() } else { format!("{tests} tests are") }
}

/// Tests that fail together in the same attempts have one cause; any other test has its own.
fn cause_of(report: &Report, test: &TestReport) -> String {
    let together = report.sweep.clusters.iter().find(|cluster| cluster.tests.contains(&test.id));
    let named = match together {
        Some(cluster) => cluster.tests.iter().min().cloned().unwrap_or_default(),
        None => test.id.clone(),
    };
    format!("test/{}", &Digest::of(named.as_bytes()).as_str()[..16])
}

fn message(
    report: &Report,
    owners: &Owners,
    cause: String,
    event: Subject,
    what: &str,
    tests: &[&TestReport],
) -> Message {
    let project = report.sweep.project.clone();
    let mut text = String::new();
    let mut answering = BTreeSet::new();
    for test in tests.iter().take(NAMED) {
        let owner = owners.of(&test.id);
        answering.extend(owner.iter().flat_map(|owner| owner.split_whitespace().map(str::to_owned)));
        let rate = test.rate.as_ref().map_or_else(String::new, |rate| {
            format!(", {:.1} to {:.1} % of the time", rate.lower * 100.0, rate.upper * 100.0)
        });
        writeln!(
            text,
            "- {}: failed in {} of {} runs{}{}",
            code(&test.id),
            test.failures,
            test.attempts,
            if test.failures > 0 { rate } else { String::new() },
            owner.map_or_else(String::new, |owner| format!(" ({})", called(&owner)))
        )
        .expect("writing to memory");
    }
    if tests.len() > NAMED {
        writeln!(text, "- and {} more", tests.len() - NAMED).expect("writing to memory");
    }
    if let Some(test) = tests.first().filter(|test| test.failures > 0) {
        writeln!(text, "\nAgain: {}", code(&test.reproduce)).expect("writing to memory");
    }
    let title = match tests {
        [only] => format!("{project}: {what}: {}", one_line(&only.id)),
        _ => format!("{project}: {what}"),
    };
    Message {
        key: format!("{}/{cause}/{event:?}", report.sweep.id),
        cause,
        event,
        project,
        title,
        text,
        tests: tests.iter().map(|test| test.id.clone()).collect(),
        owners: answering.into_iter().collect(),
        sweep: Some(report.sweep.id.clone()),
        thread: None,
    }
}

/// Owners as a host of code calls them: what CODEOWNERS may name, and nothing else, is not escaped.
pub fn called(owners: &str) -> String {
    let is_name = |owner: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '@' | '+');
        owner.contains('@') && owner.chars().all(plain)
    };
    let each =
        owners.split_whitespace().map(|owner| if is_name(owner) { owner.to_owned() } else { escaped(owner) });
    each.collect::<Vec<_>>().join(" ")
}

/// A day on which everything breaks is one message, not a thousand.
fn bounded(report: &Report, mut messages: Vec<Message>) -> Vec<Message> {
    if messages.len() <= MOST {
        return messages;
    }
    let rest = messages.split_off(MOST - 1);
    let titles: BTreeSet<&str> = rest.iter().map(|message| message.title.as_str()).collect();
    let mut text = String::new();
    for title in titles.iter().take(NAMED) {
        writeln!(text, "- {}", escaped(title)).expect("writing to memory");
    }
    if titles.len() > NAMED {
        writeln!(text, "- and {} more", titles.len() - NAMED).expect("writing to memory");
    }
    let flaked = rest.iter().any(|message| message.event == Subject::TestsFlaked);
    messages.push(Message {
        key: format!("{}/rest", report.sweep.id),
        cause: format!("rest/{}", report.sweep.id),
        event: if flaked { Subject::TestsFlaked } else { rest[0].event },
        project: report.sweep.project.clone(),
        title: format!("{}: {} more changes", report.sweep.project, rest.len()),
        text,
        tests: rest.iter().flat_map(|message| message.tests.iter().cloned()).collect(),
        owners: rest
            .iter()
            .flat_map(|message| &message.owners)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .cloned()
            .collect(),
        sweep: Some(report.sweep.id.clone()),
        thread: None,
    });
    messages
}

/// Without what ends a line or moves a cursor.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A code span that nothing in it can end.
pub fn code(text: &str) -> String {
    let text = one_line(text);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    format!("{fence} {text} {fence}")
}

/// Text that stays text in Markdown.
pub fn escaped(text: &str) -> String {
    let special =
        |c: char| matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '@' | '!' | '&');
    let mut safe = String::new();
    for c in one_line(text).chars() {
        if special(c) {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::channel::tests::slack;
    use super::*;
    use crate::report::sample::of_verdicts as report;

    #[test]
    fn a_test_is_told_of_once_and_told_to_be_well_after_two_healthy_sweeps() {
        let channel = slack(None, "UTC");
        let mut told = BTreeMap::new();
        let mut sweep = |verdict: Verdict| {
            let (messages, changed) =
                after_sweep(&channel, &told, &report(&[("a.py::a", verdict)]), &Owners::default());
            told.extend(changed);
            messages.into_iter().map(|message| message.event).collect::<Vec<_>>()
        };
        assert_eq!(sweep(Verdict::Healthy), []);
        assert_eq!(sweep(Verdict::Flaky), [Subject::TestsFlaked]);
        assert_eq!(sweep(Verdict::Flaky), [], "nothing changed");
        assert_eq!(sweep(Verdict::Healthy), []);
        assert_eq!(sweep(Verdict::Flaky), [], "it was not well yet");
        assert_eq!(sweep(Verdict::Healthy), []);
        assert_eq!(sweep(Verdict::Inconclusive), []);
        assert_eq!(sweep(Verdict::Healthy), [Subject::TestsRecovered]);
        assert_eq!(sweep(Verdict::Broken), [Subject::TestsBroke]);
    }

    #[test]
    fn owners_are_called_and_hear_of_their_own_tests_only() {
        let owners = Owners::of_text("/a/ @org/team-a me@example.org\n/b/ @all<img>\n");
        let found = report(&[
            ("a/t.py::a", Verdict::Flaky),
            ("b/t.py::b", Verdict::Flaky),
            ("c.py::c", Verdict::Flaky),
        ]);
        let told = |own: &[&str]| {
            let own = own.iter().map(|owner| (*owner).to_owned()).collect();
            let channel = Channel { owners: own, ..slack(None, "UTC") };
            after_sweep(&channel, &BTreeMap::new(), &found, &owners).0
        };
        let of_a = told(&["@org/team-a"]);
        assert_eq!(of_a.len(), 1, "{of_a:?}");
        assert_eq!(of_a[0].tests, ["a/t.py::a"]);
        assert_eq!(of_a[0].owners, ["@org/team-a", "me@example.org"]);
        assert!(of_a[0].text.contains("(@org/team-a me@example.org)"), "{}", of_a[0].text);
        assert_eq!(told(&["@org/team"]), []);
        let all = told(&[]);
        assert_eq!(all.len(), 3);
        assert!(all.iter().any(|message| message.text.contains("(\\@all\\<img\\>)")), "{all:?}");
    }

    #[test]
    fn a_day_on_which_everything_breaks_is_a_few_messages() {
        let names: Vec<String> = (0..300).map(|n| format!("t.py::test_{n}")).collect();
        let verdicts: Vec<_> = names.iter().map(|name| (name.as_str(), Verdict::Broken)).collect();
        let (messages, changed) =
            after_sweep(&slack(None, "UTC"), &BTreeMap::new(), &report(&verdicts), &Owners::default());
        assert_eq!((messages.len(), changed.len()), (MOST, 300));
        assert_eq!(messages.iter().map(|message| message.tests.len()).sum::<usize>(), 300);
    }

    #[test]
    fn tests_of_one_cause_are_one_message_and_markup_stays_text() {
        let hostile = "t.py::x`\n@all <img>";
        let mut found = report(&[("a.py::a", Verdict::Flaky), (hostile, Verdict::Flaky)]);
        found.sweep.clusters = vec![crate::report::model::Cluster {
            tests: vec!["a.py::a".to_owned(), hostile.to_owned()],
            together: 3,
            attempts: 4,
        }];
        let (messages, _) = after_sweep(&slack(None, "UTC"), &BTreeMap::new(), &found, &Owners::default());
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert!(!messages[0].title.contains('\n'));
        assert!(messages[0].text.contains("`` t.py::x`\u{fffd}@all <img> ``"), "{}", messages[0].text);
        for test in &mut found.tests {
            test.rate.as_mut().expect("the sample has a rate").estimate = 0.2;
        }
        let high = Channel { alarm_rate: 0.5, ..slack(None, "UTC") };
        assert_eq!(
            after_sweep(&high, &BTreeMap::new(), &found, &Owners::default()).0,
            [],
            "below the alarm's threshold"
        );
    }
}
