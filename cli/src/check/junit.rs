//! The answers as JUnit XML: what makes the job fail is a failure; a test that fails now and then and does
//! not make it fail is a passing case with a `<flakyFailure>`, as Surefire writes it; the rest says why.

use super::answers::{Answer, Answered, fails};
use super::render::Checked;
use crate::args::CheckGate;
use flakefarm_coordinator::report::junit::named;
use quick_junit::{NonSuccessKind, Report, TestCaseStatus, TestRerun, TestSuite};

/// Writes it; a job fails of what `gates` name.
pub(super) fn render(checked: &Checked, gates: &[CheckGate]) -> String {
    let mut suite = TestSuite::new("flakefarm check");
    suite.add_test_cases(checked.answers.iter().map(|answered| {
        let evidence = format!("{}: {}", answered.answer.words(), checked.evidence(answered));
        let mut case = named(&answered.id, status(answered, &evidence, gates));
        if let Answer::Before = answered.answer {
            case.set_system_out(&evidence);
        }
        case
    }));
    let mut report = Report::new("flakefarm check");
    report.add_test_suite(suite);
    report.to_string().expect("writing to memory cannot fail")
}

fn status(answered: &Answered, evidence: &str, gates: &[CheckGate]) -> TestCaseStatus {
    let words = answered.answer.words();
    if fails(answered.answer, gates) {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_message(evidence).set_type(words).set_description(answered.message.as_str());
        return status;
    }
    match answered.answer {
        Answer::Quarantined | Answer::CouldNotRun => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(evidence);
            status
        }
        Answer::Flaky | Answer::NotReproduced | Answer::Broken => {
            let mut failure = TestRerun::new(NonSuccessKind::Failure);
            failure.set_message(evidence).set_type(words).set_description(answered.message.as_str());
            let mut status = TestCaseStatus::success();
            status.add_rerun(failure);
            status
        }
        Answer::Before => TestCaseStatus::success(),
    }
}
