//! A question as the project's framework can answer it: what it cannot do is not planned, and said.

use super::filter::{TestFilter, matches};
use super::question::{Question, QuestionKind, ScopeChoice};
use super::sandbox::SandboxChoice;
use flakefarm_shared::capabilities::{Choice, OrderKind, Starts, Telling};
use flakefarm_shared::{Listing, Order, Scope, TestParts};

/// What is asked of a framework.
#[derive(Debug, Clone, PartialEq)]
pub struct Narrowed {
    /// The question, with what the framework can do in [`Question::able`].
    pub question: Question,
    /// What was left out of what was asked, a sentence each.
    pub left_out: Vec<String>,
}

/// The framework cannot answer at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{framework} cannot {what}, which this takes")]
pub struct Incapable {
    framework: String,
    what: &'static str,
}

/// The question as the framework of `listing` can answer it.
///
/// # Errors
///
/// If nothing would be left of it: causes and patches are looked for with tests alone, and in chosen orders.
pub fn narrowed(question: &Question, listing: &Listing) -> Result<Narrowed, Incapable> {
    let able = &listing.capabilities;
    let name = listing.framework_version.split([' ', ',']).next().unwrap_or_default();
    let framework = if name.is_empty() { "the framework" } else { name };
    let incapable = |what| Incapable { framework: framework.to_owned(), what };
    let chooses = able.choice == Choice::ById && able.can_run(Scope::Test);
    match question.kind {
        QuestionKind::Detect => {}
        _ if !chooses => return Err(incapable("run chosen tests alone")),
        QuestionKind::Diagnose { .. } if !able.can_order(Order::AsListed) => {
            return Err(incapable("run tests in a chosen order"));
        }
        QuestionKind::Diagnose { .. } | QuestionKind::Bisect(_) | QuestionKind::Validate(_) => {}
    }
    let mut asked = Question { able: able.clone(), ..question.clone() };
    asked.tests = by_file(&question.tests, listing);
    asked.tests_as_given = (asked.tests != question.tests).then(|| question.tests.clone());
    let mut left_out = Vec::new();
    asked.panel.retain(|world| able.gives(*world));
    let not_given = question.panel.iter().filter(|world| !able.gives(**world));
    let not_given: Vec<String> = not_given.map(ToString::to_string).collect();
    if !not_given.is_empty() {
        left_out.push(format!(
            "conditions that {framework} cannot give were not tried: {}",
            not_given.join(", ")
        ));
    }
    asked.scope = match question.scope {
        ScopeChoice::Auto | ScopeChoice::Test if !chooses => {
            left_out.push(format!("{framework} cannot run chosen tests alone: only the whole suite was run"));
            ScopeChoice::Suite
        }
        ScopeChoice::File if !able.can_run(Scope::File) => {
            left_out.push(format!("{framework} cannot run a file alone: the whole suite was run"));
            ScopeChoice::Suite
        }
        scope => scope,
    };
    if let Some(order) = question.order.filter(|order| !able.can_order(*order)) {
        asked.order = Some(Order::Given);
        left_out
            .push(format!("{framework} cannot run tests {}: they ran in its own order", order_words(order)));
    } else if question.order.is_none() {
        let missing: Vec<&str> = [Order::Reversed, Order::Shuffled { seed: 0 }]
            .into_iter()
            .filter(|order| !able.can_order(*order))
            .map(order_words)
            .collect();
        if !missing.is_empty() {
            left_out.push(format!("{framework} cannot run tests {}", missing.join(" or ")));
        }
    }
    if able.starts == Starts::Fresh {
        asked.sandbox = match question.sandbox {
            SandboxChoice::Forked | SandboxChoice::ForkedOnly => {
                left_out.push(format!(
                    "{framework} cannot be forked once it has collected the tests: attempts ran in the sandbox \
                     `nested`"
                ));
                SandboxChoice::Nested
            }
            SandboxChoice::Auto => SandboxChoice::Nested,
            other => other,
        };
    }
    if able.telling == Telling::AtEnd {
        left_out.push(format!(
            "{framework} tells of tests only when it ends: an attempt that died says nothing of any test"
        ));
    }
    Ok(Narrowed { question: asked, left_out })
}

fn order_words(order: Order) -> &'static str {
    match OrderKind::of(order) {
        OrderKind::Given => "in its own order",
        OrderKind::Reversed => "in reverse",
        OrderKind::Shuffled => "shuffled",
        OrderKind::AsListed => "in a chosen order",
    }
}

/// Patterns that match no id and do match files stand for the tests in these: ids of most frameworks do not
/// name files.
fn by_file(tests: &TestFilter, listing: &Listing) -> TestFilter {
    let mut patterns = Vec::new();
    for pattern in &tests.0 {
        let of_id = listing.tests.iter().any(|test| matches(pattern, test.as_str()));
        let in_file = |parts: &TestParts| !parts.file.is_empty() && matches(pattern, &parts.file);
        let found: Vec<String> = if of_id {
            Vec::new()
        } else {
            let placed = listing.tests.iter().zip(&listing.parts);
            placed.filter(|(_, parts)| in_file(parts)).map(|(test, _)| test.0.clone()).collect()
        };
        if found.is_empty() { patterns.push(pattern.clone()) } else { patterns.extend(found) }
    }
    TestFilter(patterns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::{Capabilities, TestId, World};
    use std::collections::BTreeSet;

    fn listing(able: Capabilities) -> Listing {
        let parts = |file: &str, name: &str| TestParts {
            file: file.to_owned(),
            classes: vec!["A".to_owned()],
            name: name.to_owned(),
            parameters: None,
            ordinal: 1,
        };
        Listing {
            tests: ["t.test_a.A.x", "t.test_a.A.y", "t.test_b.A.x"].map(TestId::from).to_vec(),
            parts: vec![parts("t/test_a.py", "x"), parts("t/test_a.py", "y"), parts("t/test_b.py", "x")],
            framework_version: "unittest, CPython 3.11.2".to_owned(),
            capabilities: able,
            ..Listing::default()
        }
    }

    fn able(change: impl FnOnce(&mut Capabilities)) -> Listing {
        let mut able = Capabilities::everything();
        change(&mut able);
        listing(able)
    }

    #[test]
    fn what_a_framework_can_do_is_asked_as_it_was() {
        let question = Question { panel: World::catalogue().to_vec(), ..Question::detect(1) };
        let asked = narrowed(&question, &listing(Capabilities::everything())).unwrap();
        assert_eq!((asked.question, asked.left_out), (question, Vec::new()));
    }

    #[test]
    fn what_it_cannot_do_is_left_out_and_said() {
        let panel = vec![World::Twice, World::Umask, World::Parallel { workers: 2 }];
        let question = Question { panel, ..Question::detect(1) };
        let no_worlds = able(|able| {
            able.worlds_without = BTreeSet::from(["twice".to_owned(), "parallel".to_owned()]);
        });
        let asked = narrowed(&question, &no_worlds).unwrap();
        assert_eq!(asked.question.panel, [World::Umask]);
        assert_eq!(
            asked.left_out,
            ["conditions that unittest cannot give were not tried: twice, parallel:2"]
        );
        let whole = able(|able| able.choice = Choice::Everything);
        let asked = narrowed(&question, &whole).unwrap();
        assert_eq!(asked.question.scope, ScopeChoice::Suite);
        assert_eq!(asked.left_out.len(), 1);
        let files = Question { scope: ScopeChoice::File, ..Question::detect(1) };
        let no_files = able(|able| able.scopes = BTreeSet::from([Scope::Test]));
        assert_eq!(narrowed(&files, &no_files).unwrap().question.scope, ScopeChoice::Suite);
        let reversed = Question { order: Some(Order::Reversed), ..Question::detect(1) };
        let in_order = able(|able| able.orders.clear());
        let asked = narrowed(&reversed, &in_order).unwrap();
        assert_eq!(asked.question.order, Some(Order::Given));
        assert_eq!(asked.left_out, ["unittest cannot run tests in reverse: they ran in its own order"]);
        let forked = Question { sandbox: SandboxChoice::Forked, ..Question::detect(1) };
        let fresh = able(|able| able.starts = Starts::Fresh);
        assert_eq!(narrowed(&forked, &fresh).unwrap().question.sandbox, SandboxChoice::Nested);
    }

    #[test]
    fn a_cause_is_not_looked_for_where_tests_cannot_be_chosen() {
        let tests = TestFilter(vec!["x".to_owned()]);
        let question = Question { kind: QuestionKind::Diagnose { tests }, ..Question::detect(1) };
        let refused = narrowed(&question, &able(|able| able.choice = Choice::Everything)).unwrap_err();
        assert_eq!(refused.to_string(), "unittest cannot run chosen tests alone, which this takes");
    }

    #[test]
    fn a_file_stands_for_its_tests_where_ids_do_not_name_it() {
        let asks = |pattern: &str| {
            let tests = TestFilter(vec![pattern.to_owned()]);
            let question = Question { tests, ..Question::detect(1) };
            let listing = listing(Capabilities::everything());
            narrowed(&question, &listing).unwrap().question.select(&listing.tests).len()
        };
        // Commands that repeat the sweep name what was named.
        let tests = TestFilter(vec!["t/test_a.py".to_owned()]);
        let question = Question { tests: tests.clone(), ..Question::detect(1) };
        let asked = narrowed(&question, &listing(Capabilities::everything())).unwrap().question;
        assert_eq!(asked.tests_as_given, Some(tests));
        assert_eq!((asks("t/test_a.py"), asks("t/*_b.py"), asks("test_a"), asks("nowhere")), (2, 1, 2, 0));
    }
}
