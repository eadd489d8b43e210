//! From a report's file to history, on real stores: counted once, attempts kept, flips suspected, incidents
//! excluded, damage said and the good part kept, in flat memory.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use flakefarm_coordinator::db::Db;
use flakefarm_coordinator::history::ingest::ci::CiJob;
use flakefarm_coordinator::history::ingest::{Ingested, News, SentReport, ingest};
use flakefarm_coordinator::stores::sqlite_samples::SqliteSamples;
use flakefarm_shared::samples::{PointOutcome, Retention, SampleStore};
use flakefarm_shared::{TestId, TreatmentClass, now_micros};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Place {
    directory: TempDir,
    db: Db,
    samples: SqliteSamples,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite:{}", directory.path().join("farm.db").display())).await.unwrap();
        let samples =
            SqliteSamples::open(&directory.path().join("samples.db"), Retention::default()).await.unwrap();
        Self { directory, db, samples }
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    async fn send(&self, path: &Path, ci: CiJob) -> Ingested {
        let report = SentReport {
            project: "shop".to_owned(),
            ci,
            variant: None,
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            path: path.to_owned(),
        };
        ingest(&self.db, &self.samples, &report, now_micros()).await.unwrap()
    }

    async fn outcomes(&self, test: &str) -> Vec<PointOutcome> {
        let points = self.samples.points("shop", &TestId::from(test), 0, i64::MAX).await.unwrap();
        assert!(points.iter().all(|stored| stored.class == TreatmentClass::Ci && stored.run.is_some()));
        points.into_iter().map(|stored| stored.point.outcome).collect()
    }
}

fn job(revision: &str, attempt: u32) -> CiJob {
    CiJob { revision: Some(revision.to_owned()), attempt: Some(attempt), ..CiJob::default() }
}

/// A suite of pytest's with one case per name; those that end in `!` failed.
fn suite(names: &[&str]) -> String {
    let mut text = "<testsuites><testsuite name=\"pytest\">".to_owned();
    for name in names {
        let failed = name.strip_suffix('!');
        let name = failed.unwrap_or(name);
        let inner = if failed.is_some() { "<failure message=\"boom\"/>" } else { "" };
        write!(text, "<testcase classname=\"tests.test_a\" name=\"{name}\" time=\"0.25\">{inner}</testcase>")
            .unwrap();
    }
    text + "</testsuite></testsuites>"
}

#[tokio::test]
async fn the_same_report_counts_once_and_another_attempt_counts_again() {
    let place = Place::new().await;
    let first = place.write("a.xml", suite(&["test_x", "test_y!"]).as_bytes());
    let sent = place.send(&first, job("3f2c1d", 1)).await;
    assert_eq!((sent.news, sent.counts.cases, sent.counts.failed), (News::New, 2, 1));
    let again =
        place.send(&place.write("b.xml", suite(&["test_x", "test_y!"]).as_bytes()), job("3f2c1d", 1)).await;
    assert_eq!((again.news, again.counts, again.run), (News::Known, sent.counts, sent.run));
    assert_eq!(place.outcomes("tests/test_a.py::test_y").await, [PointOutcome::Fail]);
    let retried = place.send(&first, job("3f2c1d", 2)).await;
    assert_eq!((retried.news, retried.run == sent.run), (News::New, false));
    assert_eq!(place.outcomes("tests/test_a.py::test_y").await, [PointOutcome::Fail; 2]);
    let parts = place.db.test("shop", &TestId::from("tests/test_a.py::test_y")).await.unwrap().unwrap().parts;
    assert!(parts.unwrap().contains("tests/test_a.py"));
}

#[tokio::test]
async fn a_flip_on_one_revision_is_suspected_and_one_between_revisions_is_not() {
    let place = Place::new().await;
    let red = place.write("red.xml", suite(&["test_x!", "test_y!", "test_z"]).as_bytes());
    let green = place.write("green.xml", suite(&["test_x", "test_y!", "test_z"]).as_bytes());
    assert_eq!(place.send(&red, job("aaa111", 1)).await.suspected, []);
    assert_eq!(place.send(&green, job("bbb222", 1)).await.suspected, [], "another revision");
    let flipped = place.send(&green, job("aaa111", 2)).await;
    assert_eq!(flipped.suspected, [TestId::from("tests/test_a.py::test_x")]);
    let suspects = place.db.suspects("shop", 0, i64::MAX).await.unwrap();
    assert_eq!(suspects.iter().map(|suspect| suspect.flips).collect::<Vec<_>>(), [1]);
    let linux = SentReport {
        project: "shop".to_owned(),
        ci: job("bbb222", 1),
        variant: Some("os=windows".to_owned()),
        name: "w".to_owned(),
        path: red,
    };
    let sent = ingest(&place.db, &place.samples, &linux, now_micros()).await.unwrap();
    assert_eq!(sent.suspected, [], "another variant");
}

#[tokio::test]
async fn a_run_in_which_most_failed_is_an_incident_and_suspects_nobody() {
    let place = Place::new().await;
    let names: Vec<String> = (0..20).map(|number| format!("test_{number}")).collect();
    let green: Vec<&str> = names.iter().map(String::as_str).collect();
    let red: Vec<String> = names.iter().map(|name| format!("{name}!")).collect();
    let red: Vec<&str> = red.iter().map(String::as_str).collect();
    place.send(&place.write("green.xml", suite(&green).as_bytes()), job("aaa111", 1)).await;
    let incident = place.send(&place.write("red.xml", suite(&red).as_bytes()), job("aaa111", 2)).await;
    assert!(incident.incident.unwrap().contains("20 of 20 tests failed at once"));
    assert_eq!(incident.suspected, []);
    assert_eq!(place.db.suspects("shop", 0, i64::MAX).await.unwrap(), []);
}

#[tokio::test]
async fn retries_within_a_report_are_flips_without_any_revision() {
    let place = Place::new().await;
    let text = "<testsuite name='s'><testcase classname='C' name='t' time='1'>\
                <flakyFailure message='m' type='T'/></testcase><testcase classname='C' name='u'/></testsuite>";
    let sent = place.send(&place.write("a.xml", text.as_bytes()), CiJob::default()).await;
    assert_eq!(sent.suspected, [TestId::from("C::t")]);
    assert_eq!(place.outcomes("C::t").await, [PointOutcome::Fail, PointOutcome::Pass]);
    assert_eq!(sent.counts.attempts, 3);
}

#[tokio::test]
async fn of_bad_input_the_good_part_is_kept() {
    let place = Place::new().await;
    let good = suite(&["test_x"]);
    let cut = &good[..good.len() - 20];
    let half = format!("{cut}\n<testcase classname=\"tests.test_a\" name=\"test_y");
    let sent = place.send(&place.write("half.xml", half.as_bytes()), job("aaa111", 1)).await;
    assert_eq!((sent.counts.cases, sent.reading.complete, sent.reading.problems[0].line), (1, false, 2));
    let utf16: Vec<u8> =
        format!("\u{feff}{}", suite(&["test_ü"])).encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(place.send(&place.write("utf16.xml", &utf16), job("aaa111", 2)).await.counts.cases, 1);
    for (name, content) in [
        ("empty.xml", &b""[..]),
        ("html.xml", b"<html><body>502</body></html>"),
        ("binary.xml", &[0, 159, 146, 150]),
        ("json.json", b"{\"results\": {\"tests\": ["),
        ("bomb.xml", b"<!DOCTYPE l [<!ENTITY a \"&b;&b;\"><!ENTITY b \"ha\">]><lolz>&a;</lolz>"),
    ] {
        let sent = place.send(&place.write(name, content), job("aaa111", 3)).await;
        assert_eq!((sent.counts.cases, sent.reading.complete), (0, false), "{name}");
        assert!(!sent.reading.problems.is_empty(), "{name}");
    }
    let strange = "<testsuite name='s' timestamp='2099-01-01T00:00:00'>\
        <testcase classname='a' name='&#27;[31m&lt;script&gt;' time='-5'/>\
        <testcase classname='a' name='u' time='1e300'/></testsuite>";
    let sent = place.send(&place.write("strange.xml", strange.as_bytes()), job("aaa111", 4)).await;
    assert_eq!((sent.counts.cases, sent.counts.without_duration, sent.counts.from_the_future), (2, 2, 2));
    let names: Vec<String> =
        place.db.tests("shop").await.unwrap().into_iter().map(|row| row.test.0).collect();
    assert!(names.contains(&"a::<script>".replace('<', "\u{fffd}[31m<")), "{names:?}");
    assert!(names.iter().all(|name| !name.contains('\u{1b}')));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_of_nonsense_are_refused_and_many_cases_are_read() {
    let place = Place::new().await;
    let mut bomb = b"<testsuite name='s'><testcase name='".to_vec();
    bomb.resize(100 << 20, b'x');
    let bomb = place.write("bomb.xml", &bomb);
    let started = std::time::Instant::now();
    let sent = place.send(&bomb, job("aaa111", 1)).await;
    eprintln!("100 MiB of one attribute took {:?}", started.elapsed());
    assert!(sent.reading.problems[0].what.contains("a tag of more than"), "{:?}", sent.reading);
    drop(bomb);

    let mut many = "<testsuite name='s' timestamp='2026-11-01T10:00:00'>".to_owned();
    for number in 0..20_000 {
        write!(many, "<testcase classname='pkg.Class{}' name='test_{number}' time='0.01'/>", number % 100)
            .unwrap();
    }
    many.push_str("</testsuite>");
    let started = std::time::Instant::now();
    let sent = place.send(&place.write("many.xml", many.as_bytes()), job("aaa111", 2)).await;
    eprintln!("20,000 cases took {:?}", started.elapsed());
    assert_eq!((sent.counts.cases, sent.reading.complete), (20_000, true));
}
