//! What CI sends: a large report, and hostile ones.

use super::{Claim, Figures, HistorySize, Memory};
use crate::Unmeasured;
use crate::bench::meter;
use flakefarm_coordinator::history::ingest::ci::CiJob;
use flakefarm_coordinator::history::ingest::{SentReport, ingest};
use flakefarm_shared::now_micros;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

/// CPU time of this process, all of its threads.
fn cpu_seconds() -> f64 {
    // Every thread's name contains the empty one.
    meter::thread_seconds(&[""])
}

pub(super) async fn measure(
    memory: &Memory,
    size: HistorySize,
    state: &Path,
    figures: &mut Figures,
) -> Result<(), Unmeasured> {
    let path = state.join("report.xml");
    write_report(&path, size.cases)?;
    let megabytes = std::fs::metadata(&path)?.len() as f64 / 1e6;
    let resident = meter::ResidentPeak::start();
    let (cpu, begun) = (cpu_seconds(), Instant::now());
    let ingested =
        ingest(&memory.db, memory.samples.as_ref(), &report(&path, "ingest"), now_micros()).await?;
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let cases = ingested.counts.cases as f64;
    let claim = Some(Claim::AtLeast(100_000.0));
    figures.add(
        format!("JUnit cases a minute and core, of {cases} ({megabytes:.0} MB)"),
        cases / cpu.max(wall) * 60.0,
        "/min",
        claim,
    );
    figures.add("memory that reading it takes", resident.growth_mib(), "MiB", Some(Claim::AtMost(256.0)));
    for (what, start, part) in HOSTILE {
        write_hostile(&path, start, part, size.hostile)?;
        let resident = meter::ResidentPeak::start();
        let begun = Instant::now();
        let ingested =
            ingest(&memory.db, memory.samples.as_ref(), &report(&path, what), now_micros()).await?;
        let seconds = begun.elapsed().as_secs_f64();
        if ingested.counts.cases > 0 || ingested.reading.problem_count == 0 {
            return Err(Unmeasured::farm(format!("{what} was not refused: {ingested:?}")));
        }
        let megabytes = size.hostile / 1_000_000;
        figures.add(format!("{megabytes} MB of {what}, refused"), seconds, "s", Some(Claim::AtMost(2.0)));
        figures.add(
            "memory that refusing it takes",
            resident.growth_mib(),
            "MiB",
            Some(Claim::AtMost(256.0)),
        );
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

fn report(path: &Path, job: &str) -> SentReport {
    SentReport {
        project: "bench-reports".to_owned(),
        ci: CiJob { revision: Some("3f2c1d".to_owned()), job: Some(job.to_owned()), ..CiJob::default() },
        variant: None,
        name: job.to_owned(),
        path: path.to_owned(),
    }
}

/// As pytest writes it; one in a hundred failed.
fn write_report(path: &Path, cases: u32) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    write!(file, "<?xml version=\"1.0\" encoding=\"utf-8\"?><testsuites><testsuite name=\"pytest\">")?;
    for case in 0..cases {
        let (module, time) = (case / 50, 0.001 + f64::from(case % 97) / 1_000.0);
        write!(
            file,
            "<testcase classname=\"tests.unit.test_module_{module}.TestThings\" name=\"test_case_{case}[param]\" time=\"{time:.3}\""
        )?;
        if case % 100 == 7 {
            write!(
                file,
                "><failure message=\"AssertionError: assert {case} == 5\">def test(): assert {case} == 5\nE  assert</failure></testcase>"
            )?;
        } else {
            write!(file, " />")?;
        }
    }
    write!(file, "</testsuite></testsuites>")?;
    file.flush()
}

const BOMB: &str =
    "<!DOCTYPE t [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]><testsuite>";

/// What is wrong with a report, how it begins, and what comes again and again.
const HOSTILE: [(&str, &str, &str); 14] = [
    ("noise", "", "\u{7f}\u{1}<&\u{2}>]]"),
    ("open elements", "<testsuites>", "<testsuite>"),
    ("entities", BOMB, "&b;&b;&b;"),
    ("one attribute", "<testsuite name=\"", "aaaaaaaaaaaaaaaa"),
    ("comments", "<testsuite>", "<!-- - -> -->"),
    ("one comment", "<testsuite><!--", "- - -> <!-- "),
    ("instructions", "<testsuite>", "<?php x ?>"),
    ("failures of one test", "<testsuite><testcase name=\"a\">", "<failure message=\"x\">y</failure>"),
    ("one section of text", "<testsuite><testcase name=\"a\"><failure><![CDATA[", "abc]] > "),
    ("brackets", "{\"results\": ", "[[[[[[[[[[[["),
    ("tests without a name", "{\"results\": {\"tests\": [", "{},"),
    ("attempts of one test", "{\"results\": {\"tests\": [{\"retryAttempts\": [", "{},"),
    ("one string", "{\"results\": {\"tests\": [{\"name\": \"", "a\\u0041"),
    ("one list", "{\"results\": {\"tests\": [], \"x\": [", "1,\"a\","),
];

fn write_hostile(path: &Path, start: &str, part: &str, bytes: usize) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    file.write_all(start.as_bytes())?;
    for _ in 0..bytes / part.len() {
        file.write_all(part.as_bytes())?;
    }
    file.flush()
}
