//! The JUnit reports of a CI job: which tests failed in it, and in which order they ran.

use crate::exit::Complaint;
use flakefarm_coordinator::history::ingest::case::Case;
use flakefarm_coordinator::history::ingest::junit;
use globset::{GlobBuilder, GlobSetBuilder};
use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Failed cases that are looked into; more than that is not a flaky test.
pub(super) const MOST_FAILED: usize = 200;
/// Reports that are read.
const MOST_REPORTS: usize = 10_000;
/// Cases of one report whose order is kept, and reports whose order is tried.
const LONGEST_ORDER: usize = 20_000;
const MOST_ORDERS: usize = 3;

/// What a job's reports say.
#[derive(Debug, Default)]
pub(crate) struct JobReports {
    pub(crate) files: usize,
    pub(crate) cases: u64,
    pub(crate) passed: u64,
    /// The orders of reports in which something failed, each up to its last failure; and how long what is
    /// in them took, as far as it is told.
    pub(crate) orders: Vec<Ordered>,
    /// Cases that failed and then passed within the job, at most [`MOST_FAILED`].
    pub(crate) flaked: Vec<Case>,
    /// Cases whose last attempt failed, at most [`MOST_FAILED`].
    pub(crate) failed: Vec<Case>,
    /// All of them.
    pub(crate) failures: u64,
    /// What could not be read, for people.
    pub(crate) warnings: Vec<String>,
}

/// What one report says of the order.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    /// Cases without their attempts.
    pub(crate) cases: Vec<Case>,
    pub(crate) wall_us: u64,
}

/// Reads every report that one of `patterns` names. Blocking.
pub(crate) fn read(patterns: &[String]) -> Result<JobReports, Complaint> {
    let files = files(patterns)?;
    if files.is_empty() {
        return Err(Complaint::usage(format!("no file matches {}", patterns.join(", ")))
            .hint("--junit names the reports that the job wrote; quote patterns, so that the shell leaves them alone"));
    }
    let mut reports = JobReports { files: files.len(), ..JobReports::default() };
    for file in files {
        let opened = File::open(&file)
            .map_err(|error| Complaint::usage(format!("failed to read {}: {error}", file.display())))?;
        let (mut order, mut last) = (Ordered::default(), 0);
        let reading = junit::read(BufReader::new(opened), &mut |case| {
            if order.cases.len() < LONGEST_ORDER {
                order.note(&case);
                if has_failed(&case) {
                    last = order.cases.len();
                }
            }
            reports.take(case);
            ControlFlow::Continue(())
        });
        order.cases.truncate(last);
        if order.cases.len() > 1 && reports.orders.len() < MOST_ORDERS {
            reports.orders.push(order);
        }
        for problem in &reading.problems {
            reports.warnings.push(format!("{}:{}: {}", file.display(), problem.line, problem.what));
        }
    }
    if reports.cases == 0 {
        return Err(Complaint::usage("there is no test case in the reports")
            .log(reports.warnings.join("\n"))
            .hint("--junit names JUnit XML files"));
    }
    Ok(reports)
}

impl JobReports {
    fn take(&mut self, case: Case) {
        self.cases += 1;
        if has_failed(&case) {
            self.failures += 1;
            if self.failed.len() < MOST_FAILED {
                self.failed.push(case);
            }
            return;
        }
        self.passed += 1;
        if case.attempts.iter().any(|attempt| attempt.outcome.is_failure()) && self.flaked.len() < MOST_FAILED
        {
            self.flaked.push(case);
        }
    }

    /// What one run of a failed test took at the longest, in milliseconds; 0 if nothing says.
    pub(super) fn longest_ms(&self) -> u32 {
        let all = self.failed.iter().flat_map(|case| &case.attempts).filter_map(|attempt| attempt.wall_us);
        all.max().map_or(0, |us| u32::try_from(us.div_ceil(1000)).unwrap_or(u32::MAX).max(1))
    }
}

impl Ordered {
    fn note(&mut self, case: &Case) {
        let wall_us = case.attempts.iter().filter_map(|attempt| attempt.wall_us);
        self.wall_us = wall_us.fold(self.wall_us, u64::saturating_add);
        self.cases.push(Case { attempts: Vec::new(), ..case.clone() });
    }
}

fn has_failed(case: &Case) -> bool {
    case.attempts.last().is_some_and(|attempt| attempt.outcome.is_failure())
}

/// Files that are named, or match a pattern below the part of it that has no pattern. Sorted.
pub(crate) fn files(patterns: &[String]) -> Result<Vec<PathBuf>, Complaint> {
    let mut found = Vec::new();
    for pattern in patterns {
        if !pattern.contains(['*', '?', '[', '{']) {
            let path = PathBuf::from(pattern);
            if !path.is_file() {
                return Err(Complaint::usage(format!("there is no report {pattern}"))
                    .hint("--junit names the reports that the job wrote"));
            }
            found.push(path);
            continue;
        }
        let plain = pattern.trim_start_matches("./");
        let wrong = |error: globset::Error| Complaint::usage(format!("--junit {pattern}: {error}"));
        let glob = GlobBuilder::new(plain).literal_separator(true).build().map_err(wrong)?;
        let set = GlobSetBuilder::new().add(glob).build().map_err(wrong)?;
        let fixed: PathBuf = Path::new(plain)
            .iter()
            .take_while(|part| !part.to_string_lossy().contains(['*', '?', '[', '{']))
            .collect();
        let start = if fixed.as_os_str().is_empty() { PathBuf::from(".") } else { fixed };
        for entry in ignore::WalkBuilder::new(&start).standard_filters(false).build().flatten() {
            let path = entry.path().strip_prefix("./").unwrap_or(entry.path());
            if set.is_match(path) && path.is_file() {
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    found.dedup();
    if found.len() > MOST_REPORTS {
        return Err(Complaint::usage(format!("{} reports are too many", found.len()))
            .hint(format!("choose at most {MOST_REPORTS}")));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_reach_into_directories() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.xml", "x/b.xml", "x/y/c.xml", "x/y/d.txt"] {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let count =
            |pattern: &str| files(&[format!("{}/{pattern}", dir.path().display())]).map(|found| found.len());
        assert_eq!(count("**/*.xml").ok(), Some(3));
        assert_eq!(count("*.xml").ok(), Some(1));
        assert_eq!(count("x/*/c.xml").ok(), Some(1));
        assert_eq!(count("x/b.xml").ok(), Some(1));
        assert!(count("none.xml").is_err());
        assert_eq!(count("none*.xml").ok(), Some(0));
    }
}
