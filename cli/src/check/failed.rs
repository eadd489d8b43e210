//! The failed tests of a CI job, for commands that look into them.

use super::{mapping, reports};
use crate::ask::Session;
use crate::exit::Complaint;

/// The failed tests, and files that could not be collected, of the reports that `patterns` name; `command` is
/// what was typed.
pub(crate) async fn of_reports(
    patterns: &[String],
    session: &Session<'_>,
    command: &str,
) -> Result<Vec<String>, Complaint> {
    let patterns = patterns.to_vec();
    let job = tokio::task::spawn_blocking(move || reports::read(&patterns)).await??;
    for warning in &job.warnings {
        session.progress.note(&format!("warning: {warning}"));
    }
    let mut tests = Vec::new();
    for case in &job.failed {
        match mapping::map(&session.root, case) {
            mapping::Mapped::Test(id) => tests.push(id),
            mapping::Mapped::File(file) => tests.push(file),
            mapping::Mapped::Unknown(name) => {
                session.progress.note(&format!("warning: {name} is no test of this project"));
            }
        }
    }
    if tests.is_empty() && job.failures > 0 {
        return Err(Complaint::usage("none of the failed tests of the reports is a test of this project")
            .hint(format!("name the project's root: flakefarm {command} PATH --junit GLOB")));
    }
    Ok(tests)
}
