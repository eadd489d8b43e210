//! `flakefarm upload`: what CI already knows becomes evidence, here or on a farm. A report that cannot be
//! read wholly is said with file and line, and its good part counts.

use crate::args::{AnswerFormat, UploadArgs};
use crate::exit::{Complaint, Exit};
use crate::memory::{Memory, Place};
use crate::output;
use crate::say::say;
use flakefarm_coordinator::history::ingest::ci::{self, CiJob};
use flakefarm_coordinator::history::ingest::{self, IngestError, Ingested, News, SentReport};
use flakefarm_shared::now_micros;
use globset::{GlobBuilder, GlobSetBuilder};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Reports of one call.
const MOST_REPORTS: usize = 20_000;
/// Suspected tests shown to people.
const SHOWN_SUSPECTS: usize = 20;

pub(crate) async fn upload(args: &UploadArgs) -> Result<Exit, Complaint> {
    let files = expand(&args.junit)?;
    if files.is_empty() {
        return Err(Complaint::new(
            Exit::NothingRan,
            format!("no report matches {}: that is missing data, not a pass", args.junit.join(" ")),
        )
        .hint("quote patterns, and run this also when the tests failed (`if: always()` in GitHub Actions)"));
    }
    let memory = Memory::of(&args.memory)?;
    let project = memory.project.clone();
    let ci = job(args)?;
    let variant = {
        let parts: BTreeSet<&str> = args.variant.iter().map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.into_iter().collect::<Vec<_>>().join(","))
    };
    let reports: Vec<SentReport> = files
        .into_iter()
        .map(|path| SentReport {
            project: project.clone(),
            ci: ci.clone(),
            variant: variant.clone(),
            name: path.display().to_string(),
            path,
        })
        .collect();
    let mut ingested = Vec::new();
    match memory.open().await? {
        Place::Here { db, samples } => {
            for report in &reports {
                match ingest::ingest(&db, samples.as_ref(), report, now_micros()).await {
                    Ok(read) => ingested.push(read),
                    // The others still count; this one may be sent again.
                    Err(error @ IngestError::Io { .. }) => {
                        say(format!("warning: {}", flakefarm_shared::chain(&error)));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            db.close().await;
        }
        Place::Farm(farm) => {
            for report in &reports {
                ingested.push(farm.send_results(report).await?);
            }
        }
    }
    tell(args, &project, &ci, &ingested)?;
    let read_something = ingested.iter().any(|report| report.counts.cases > 0);
    Ok(if read_something { Exit::Clean } else { Exit::NothingRan })
}

/// Where the reports come from: as the CI system says, and over that as the user says.
fn job(args: &UploadArgs) -> Result<CiJob, Complaint> {
    let detected = ci::detect(&|name| std::env::var(name).ok());
    if let (None, Some(revision)) = (&args.revision, &detected.revision)
        && !ci::is_revision(revision)
    {
        return Err(Complaint::usage(format!(
            "the revision that {} names is none: `{}`",
            detected.provider.as_deref().unwrap_or("the CI system"),
            ingest::case::name(revision)
        ))
        .hint("pass --revision"));
    }
    Ok(CiJob {
        revision: args.revision.clone().or(detected.revision),
        branch: args.branch.clone().or(detected.branch),
        attempt: args.attempt.or(detected.attempt),
        url: args.job_url.clone().or(detected.url),
        ..detected
    })
}

/// Files by name, and those below this directory that a pattern matches; each once, sorted.
fn expand(patterns: &[String]) -> Result<Vec<PathBuf>, Complaint> {
    let mut files = BTreeSet::new();
    let mut globs = GlobSetBuilder::new();
    let mut roots = BTreeSet::new();
    for pattern in patterns {
        if Path::new(pattern).is_file() {
            files.insert(PathBuf::from(pattern));
            continue;
        }
        if Path::new(pattern).is_dir() {
            let pattern = pattern.trim_end_matches('/');
            return Err(Complaint::usage(format!("{pattern} is a directory"))
                .hint(format!("name the reports in it: '{pattern}/**/*.xml'")));
        }
        if !pattern.contains(['*', '?', '[', '{']) {
            return Err(Complaint::new(
                Exit::NothingRan,
                format!("there is no report {pattern}: that is missing data, not a pass"),
            ));
        }
        let text = pattern.strip_prefix("./").unwrap_or(pattern);
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .build()
            .map_err(|error| Complaint::usage(format!("`{pattern}` is no pattern: {}", error.kind())))?;
        globs.add(glob);
        roots.insert(root(text));
    }
    let globs = globs.build().map_err(|error| Complaint::usage(error.to_string()))?;
    for root in roots {
        for entry in
            ignore::WalkBuilder::new(&root).standard_filters(false).follow_links(false).build().flatten()
        {
            let path = entry.path().strip_prefix("./").unwrap_or(entry.path());
            if entry.file_type().is_some_and(|kind| kind.is_file()) && globs.is_match(path) {
                files.insert(path.to_owned());
            }
            if files.len() > MOST_REPORTS {
                return Err(Complaint::usage(format!("more than {MOST_REPORTS} reports match"))
                    .hint("name a narrower pattern"));
            }
        }
    }
    Ok(files.into_iter().collect())
}

/// The directory that everything lies in that a pattern can match.
fn root(pattern: &str) -> PathBuf {
    let fixed: PathBuf = Path::new(pattern)
        .components()
        .take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']))
        .collect();
    if fixed.as_os_str().is_empty() { PathBuf::from(".") } else { fixed }
}

fn tell(args: &UploadArgs, project: &str, ci: &CiJob, ingested: &[Ingested]) -> Result<(), Complaint> {
    for report in ingested {
        for problem in &report.reading.problems {
            say(format!("warning: {}:{}: {}", report.name, problem.line, problem.what));
        }
        let more = report.reading.problem_count - report.reading.problems.len() as u64;
        if more > 0 {
            say(format!("warning: {}: {more} more problems", report.name));
        }
    }
    if args.format == AnswerFormat::Json {
        let text = serde_json::json!({
            "schema": "flakefarm.upload/v1", "project": project, "ci": ci, "reports": ingested,
        });
        return output::print(&format!("{}\n", serde_json::to_string_pretty(&text)?));
    }
    if args.format == AnswerFormat::Csv {
        let mut text = "report,news,cases,attempts,failed,skipped,problems\n".to_owned();
        for report in ingested {
            let counts = &report.counts;
            text.push_str(&format!(
                "{},{},{},{},{},{},{}\n",
                crate::memory::csv(&report.name),
                if report.news == News::New { "new" } else { "known" },
                counts.cases,
                counts.attempts,
                counts.failed,
                counts.skipped,
                report.reading.problem_count
            ));
        }
        return output::print(&text);
    }
    output::print(&summary(project, ci, ingested))
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("{number} {what}") } else { format!("{number} {what}s") }
}

fn summary(project: &str, ci: &CiJob, ingested: &[Ingested]) -> String {
    let sum = |of: fn(&Ingested) -> u64| {
        ingested.iter().filter(|report| report.news == News::New).map(of).sum::<u64>()
    };
    let known = ingested.iter().filter(|report| report.news == News::Known).count();
    let mut text = format!(
        "{project}: {} in {}, {}, {} failed, {} skipped\n",
        counted(sum(|report| report.counts.cases), "test"),
        counted((ingested.len() - known) as u64, "new report"),
        counted(sum(|report| report.counts.attempts), "attempt"),
        sum(|report| report.counts.failed),
        sum(|report| report.counts.skipped),
    );
    if known > 0 {
        let (sent, count) = if known == 1 { ("was", "counts") } else { ("were", "count") };
        let known = counted(known as u64, "report");
        text.push_str(&format!("{known} {sent} sent before and {count} once\n"));
    }
    match (&ci.revision, &ci.branch) {
        (Some(revision), Some(branch)) => text.push_str(&format!("revision {revision}, branch {branch}\n")),
        (Some(revision), None) => text.push_str(&format!("revision {revision}\n")),
        (None, _) => text.push_str(
            "no revision: flips are looked for within this upload only (pass --revision, or run this in CI)\n",
        ),
    }
    let future = sum(|report| report.counts.from_the_future);
    if future > 0 {
        let (lay, were) = if future == 1 { ("lies", "is") } else { ("lie", "are") };
        text.push_str(&format!("{} {lay} in the future and {were} taken for now\n", counted(future, "test")));
    }
    // The last report knows most of the run.
    if let Some(incident) = ingested.iter().rev().find_map(|report| report.incident.as_ref()) {
        text.push_str(&format!("excluded: {incident}\n"));
    }
    let suspected: BTreeSet<&str> =
        ingested.iter().flat_map(|report| &report.suspected).map(|test| test.as_str()).collect();
    if !suspected.is_empty() {
        text.push_str(
            "suspected (passed and failed on this revision; `flakefarm sweep --tests` proves it):\n",
        );
        for test in suspected.iter().take(SHOWN_SUSPECTS) {
            text.push_str(&format!("  {test}\n"));
        }
        if suspected.len() > SHOWN_SUSPECTS {
            text.push_str(&format!("  and {} more\n", suspected.len() - SHOWN_SUSPECTS));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_start_where_they_are_fixed() {
        assert_eq!(root("reports/**/*.xml"), Path::new("reports"));
        assert_eq!(root("*.xml"), Path::new("."));
        assert_eq!(root("/var/ci/{a,b}/x.xml"), Path::new("/var/ci"));
    }
}
