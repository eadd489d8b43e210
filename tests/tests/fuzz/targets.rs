//! The readers, with documents that they should be able to read.

use flakefarm_coordinator::Submission;
use flakefarm_coordinator::history::columns::Columns;
use flakefarm_coordinator::history::ingest::{ctrf, junit};
use flakefarm_coordinator::notify::comment;
use flakefarm_coordinator::owners::Owners;
use flakefarm_coordinator::quarantine::file;
use flakefarm_coordinator::schedule::Rhythm;
use flakefarm_project::fetch::Credentials;
use flakefarm_project::snapshot::{self, Archive};
use flakefarm_repair::SourceTree;
use flakefarm_repair::adapt::AsyncStyle;
use flakefarm_repair::difference::from_difference;
use flakefarm_shared::samples::codec;
use flakefarm_shared::{JobMessage, JobReport, JobSpec, TestId, TestParts, WorkerMessage};
use flakefarm_worker::ceilings::Ceilings;
use flakefarm_worker::frameworks::events;
use flakefarm_worker::frameworks::reader::{Asked, AttemptReader, ExitSeen};
use flakefarm_worker::frameworks::seal::Nonce;
use std::ops::ControlFlow;
use std::time::Instant;

/// One reader.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// What it should be able to read.
    pub(crate) seeds: &'static [&'static [u8]],
    /// Words of its language.
    pub(crate) words: &'static [&'static [u8]],
    pub(crate) read: fn(&[u8]),
}

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "junit", seeds: JUNIT, words: XML_WORDS, read: read_junit },
    Target { name: "ctrf", seeds: CTRF, words: &[], read: read_ctrf },
    Target { name: "events", seeds: EVENTS, words: EVENT_WORDS, read: read_events },
    Target { name: "messages", seeds: MESSAGES, words: &[], read: read_messages },
    Target { name: "submission", seeds: SUBMISSION, words: &[], read: read_submission },
    Target { name: "samples", seeds: PACKS, words: &[], read: read_packs },
    Target { name: "columns", seeds: PACKS, words: &[], read: read_columns },
    Target { name: "quarantine", seeds: QUARANTINE, words: TOML_WORDS, read: read_quarantine },
    Target { name: "owners", seeds: OWNERS, words: &[b"*", b"**/", b"@"], read: read_owners },
    Target {
        name: "schedule",
        seeds: SCHEDULE,
        words: &[b"*/", b"L", b"W", b"#", b"-", b"?"],
        read: read_schedule,
    },
    Target { name: "comment", seeds: COMMENT, words: &[b"/flaky "], read: read_comment },
    Target { name: "test-ids", seeds: IDS, words: &[b"[", b"]#2"], read: read_ids },
    Target { name: "sources", seeds: SOURCES, words: PYTHON_WORDS, read: read_sources },
    Target {
        name: "patch",
        seeds: PATCHES,
        words: &[b"@@", b"+++ ", b"--- ", b"rename from "],
        read: read_patch,
    },
    Target { name: "archive", seeds: &[b"shop.py\0def total(): pass\n"], words: &[], read: read_archive },
    Target { name: "ceilings", seeds: CEILINGS, words: TOML_WORDS, read: read_ceilings },
    Target { name: "credentials", seeds: CREDENTIALS, words: &[], read: read_credentials },
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const XML_WORDS: &[&[u8]] = &[
    b"<testsuite>",
    b"</testsuite>",
    b"<testcase name=\"a\" time=\"1\"/>",
    b"<failure>",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"&#x0;",
    b"&lt;",
    b"<!ENTITY a \"b\">",
];
const JUNIT: &[&[u8]] = &[
    br#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" tests="3" timestamp="2026-11-01T10:00:00.123+00:00" hostname="h"><properties><property name="a" value="b"/></properties><testcase classname="tests.test_a.TestB" name="test_c[1-x]" file="tests/test_a.py" line="3" time="0.012"/><testcase classname="tests.test_a" name="test_d" time="1,234.5"><failure message="assert 1 == 2">tests/test_a.py:9: AssertionError</failure><system-out>out</system-out></testcase><testcase classname="c" name="d"><skipped type="pytest.skip" message="no"/></testcase></testsuite></testsuites>"#,
    br#"<!DOCTYPE testsuite [<!ENTITY x "yyyyyyyyyy"><!ENTITY z "&x;&x;&x;&x;">]><testsuite name="&z;"><testcase name="a" classname="b" time="-1e999"><rerunFailure message="m" type="t"><stackTrace>s</stackTrace></rerunFailure><flakyFailure>f</flakyFailure></testcase></testsuite>"#,
    b"\xff\xfe<\0t\0e\0s\0t\0s\0u\0i\0t\0e\0/\0>\0",
];

fn read_junit(bytes: &[u8]) {
    let reading = junit::read(bytes, &mut |_| ControlFlow::Continue(()));
    assert!(reading.problem_count >= reading.problems.len() as u64);
}

const CTRF: &[&[u8]] = &[
    br#"{"reportFormat":"CTRF","specVersion":"0.0.0","results":{"tool":{"name":"jest"},"summary":{"tests":2,"passed":1,"failed":1,"start":1700000000000,"stop":1700000001000},"tests":[{"name":"a","status":"passed","duration":12,"suite":"s","filePath":"a.test.js","retries":1,"flaky":true},{"name":"b","status":"failed","duration":1e9,"message":"m","trace":"t","retryAttempts":[{"attempt":1,"status":"failed","duration":3}]}]}}"#,
];

fn read_ctrf(bytes: &[u8]) {
    let reading = ctrf::read(bytes, &mut |_| ControlFlow::Continue(()));
    assert!(reading.problem_count >= reading.problems.len() as u64);
}

/// `NONCE` stands for the nonce of the attempt.
const EVENTS: &[&[u8]] = &[
    b"NONCE 0 {\"e\":\"session\",\"framework\":\"pytest 8\",\"python\":\"3.11\",\"mode\":\"run\"}\nNONCE 1 {\"e\":\"collected\",\"tests\":[\"a.py::b\",\"a.py::c\"],\"missing\":[]}\nNONCE 2 {\"e\":\"start\",\"test\":\"a.py::b\",\"i\":0}\nNONCE 3 {\"e\":\"end\",\"test\":\"a.py::b\",\"i\":0,\"outcome\":\"fail\",\"wall_us\":1000,\"cpu_us\":900,\"message\":\"m\"}\nNONCE 4 {\"e\":\"start\",\"test\":\"a.py::c\",\"i\":1}\nNONCE 5 {\"e\":\"end\",\"test\":\"a.py::c\",\"i\":1,\"outcome\":\"pass\",\"wall_us\":1000,\"cpu_us\":900}\nNONCE 6 {\"e\":\"finish\",\"exit\":1}\n",
    b"NONCE 0 {\"e\":\"session\",\"framework\":\"unittest\",\"python\":\"3\",\"mode\":\"list\"}\nnoise\n\nNONCE 1 {\"e\":\"collected\",\"tests\":[]}\n",
];
const EVENT_WORDS: &[&[u8]] = &[
    b"NONCE ",
    b"NONCE 1 {}",
    b"\"e\":\"end\"",
    b"\"e\":\"start\"",
    b"\"wall_us\":18446744073709551616",
    b"\"i\":-1",
];

fn read_events(bytes: &[u8]) {
    let nonce = Nonce::new();
    let text = text(bytes).replace("NONCE", nonce.as_str());
    let tests = [TestId::from("a.py::b"), TestId::from("a.py::c")];
    for asked in [Asked::List, Asked::Run(None), Asked::Run(Some(&tests))] {
        let mut reader = AttemptReader::new("pytest", nonce.clone(), asked, Instant::now());
        for line in text.split('\n') {
            let _event = events::parse(line.as_bytes());
            reader.feed(line.as_bytes(), Instant::now());
        }
        let reading = reader.conclude(ExitSeen { exit_code: 1, oom: false, timed_out: None }, &text);
        if let Asked::Run(Some(asked)) = asked {
            assert!(
                reading.samples.iter().all(|sample| asked.contains(&sample.sample.test)),
                "nobody else is charged"
            );
        }
    }
}

const MESSAGES: &[&[u8]] = &[
    br#"{"v":2,"job":"0190b1f0-0000-7000-8000-000000000000","sweep":"0190b1f0-0000-7000-8000-000000000001","class":"bulk","publication":1}"#,
    br#"{"v":2,"e":"beat","worker":"w","slots":2,"version":"0.1.0","jobs":[],"draining":false,"at":1700000000000000}"#,
    br#"{"v":2,"job":"0190b1f0-0000-7000-8000-000000000000","attempts":[{"index":0,"started_at":1,"wall_us":2}]}"#,
];

fn read_messages(bytes: &[u8]) {
    let _job = serde_json::from_slice::<JobMessage>(bytes);
    let _worker = serde_json::from_slice::<WorkerMessage>(bytes);
    let _report = serde_json::from_slice::<JobReport>(bytes);
    let _spec = serde_json::from_slice::<JobSpec>(bytes);
}

const SUBMISSION: &[&[u8]] = &[
    br#"{"context":{"v":2,"project":{"name":"p","framework":"pytest","environment":{"image":{"reference":"i"}}},"snapshot":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"question":{"kind":"detect","runs":{"fixed":10},"scope":"auto","seed":1},"class":"bulk","source":"s"}"#,
];

fn read_submission(bytes: &[u8]) {
    let _submission = serde_json::from_slice::<Submission>(bytes);
}

const PACKS: &[&[u8]] = &[
    b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c",
    b"\x02\x00\x10\xff\xff\xff\xff\x0f\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01",
    b"\x01\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
];

fn read_packs(bytes: &[u8]) {
    for day in [0, 20_000, 100_000_000] {
        let _pack = codec::unpack(day, bytes);
        let _chunks = codec::unpack_chunks(day, bytes);
        let _old = codec::unpack_v1(day, bytes);
    }
}

fn read_columns(bytes: &[u8]) {
    if let Some(columns) = Columns::read(bytes) {
        // As many as it says, and no more than anybody has.
        let _last = columns.tests().take(100_000).last();
    }
}

const TOML_WORDS: &[&[u8]] =
    &[b"[[quarantine]]\n", b"= \"\"\n", b"'''", b"\"\"\"", b"1979-05-27", b"[a.b.c]\n", b"{a={a={a="];
const QUARANTINE: &[&[u8]] = &[
    b"schema = \"flakefarm.quarantine/v1\"\n\n[[quarantine]]\ntest = \"tests/test_a.py::test_b[*]\"\nreason = \"races\"\nowner = \"@team\"\nticket = \"X-1\"\nexpires = 2027-01-01\nsignature = \"0123456789abcdef\"\n",
];

fn read_quarantine(bytes: &[u8]) {
    let read = file::read(&text(bytes));
    // What was read can be written and read again.
    let again = file::read(&file::write(&read.entries));
    assert_eq!(again.entries.len(), read.entries.len());
}

const OWNERS: &[&[u8]] = &[b"# all\n* @everybody\n/tests/ @team/tests a@b.example\n*.py @py\n**/slow/[ab]?.py @slow\n!docs @none\n\\#file @x\n"];

fn read_owners(bytes: &[u8]) {
    let owners = Owners::of_text(&text(bytes));
    for test in ["tests/test_a.py::test_b", "a/slow/b1.py::c", "", "../../x", "C:\\a\\b.py::c"] {
        let _owner = owners.of(test);
    }
}

const SCHEDULE: &[&[u8]] =
    &[b"0 2 * * 1-5\nEurope/Berlin", b"*/15 0-6,20 1,15 FEB *\nAmerica/New_York", b"30 2 29 2 *\nUTC"];

fn read_schedule(bytes: &[u8]) {
    let text = text(bytes);
    let (pattern, zone) = text.split_once('\n').unwrap_or((&text, "UTC"));
    if let Ok(rhythm) = Rhythm::parse(pattern, zone) {
        for after in [0, 1_700_000_000_000_000, i64::MAX] {
            assert!(rhythm.next_after(after).is_none_or(|next| next > after));
        }
    }
}

const COMMENT: &[&[u8]] = &[
    br#"{"action":"created","issue":{"number":7,"pull_request":{}},"comment":{"body":"/flaky tests/test_a.py::test_b:20\n/flaky test_c[a:b]:5","author_association":"MEMBER","user":{"login":"who"}}}"#,
];

fn read_comment(bytes: &[u8]) {
    assert!(!comment::is_signed("secret", &text(bytes), b"body"));
    let Ok(body) = serde_json::from_slice(bytes) else { return };
    let _asked = comment::read("issue_comment", &body);
}

const IDS: &[&[u8]] =
    &[b"tests/test_a.py::TestB::test_c[1-a b]#3", b"a.test.js > suite > name", b"pkg.module.Class.method"];

fn read_ids(bytes: &[u8]) {
    let parts = TestParts::of_recorded(&TestId::from(text(bytes).as_str()));
    assert_eq!(parts.key(), parts.key());
}

const PYTHON_WORDS: &[&[u8]] = &[
    b"def ",
    b"class A:\n",
    b"async ",
    b"await ",
    b"lambda: ",
    b"import ",
    b"    ",
    b"@",
    b"f\"{",
    b"**",
    b"yield ",
];
const SOURCES: &[&[u8]] = &[
    b"import shop\nfrom shop import total as t\n\n@pytest.mark.parametrize('a', [1, 2])\ndef test_total(a, monkeypatch):\n    monkeypatch.setattr('shop.RATE', 3)\n    assert shop.total([1], rate=2) == 2, f'{t}'\n\nclass TestA:\n    def test_b(self):\n        with pytest.raises(ValueError):\n            shop.Shop(1).sell(*[1], **{'a': 1})\n",
    b"async def test_it():\n    assert await shop.fetch() == [x for x in range(3) if x]\n",
];

fn read_sources(bytes: &[u8]) {
    let old = "RATE = 1\n\nclass Shop:\n    def __init__(self, n): ...\n    def sell(self, a): ...\n\ndef total(items, rate): return 0\n\ndef fetch(): return []\n";
    let new = "RATES = 1\n\nclass Store:\n    def __init__(self, *, n): ...\n    def sold(self, a, b=1): ...\n\ndef sum_up(items, rate): return 0\n\nasync def fetch(): return []\n";
    let tree = |code: &str| {
        let files = [("shop.py", code.as_bytes()), ("tests/test_shop.py", bytes)];
        SourceTree::new(files.map(|(path, bytes)| (path.to_owned(), bytes.to_vec()))).unwrap()
    };
    let proposed = from_difference(&tree(old), &tree(new), AsyncStyle::Auto);
    for file in &proposed.adapted.files {
        assert_ne!(file.text.as_bytes(), bytes, "a file that is named is changed");
    }
}

const PATCHES: &[&[u8]] = &[
    b"diff --git a/shop.py b/shop.py\n--- a/shop.py\n+++ b/shop.py\n@@ -1 +1 @@\n-def total(): pass\n+def total(): return 1\n",
    b"diff --git a/shop.py b/tests/shop.py\nsimilarity index 100%\nrename from shop.py\nrename to tests/shop.py\n",
    b"diff --git a/new b/new\nnew file mode 120000\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n",
];

fn packed(path: &str, content: &[u8]) -> Archive {
    let mut header = snapshot::header(tar::EntryType::Regular, 0o644, content.len() as u64);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, path, content).unwrap();
    let bytes = zstd::encode_all(tar.into_inner().unwrap().as_slice(), 0).unwrap();
    Archive { bytes, files: 1, total_bytes: content.len() as u64, revision: None, warnings: Vec::new() }
}

/// One in ten is given to git: each is a process.
fn read_patch(bytes: &[u8]) {
    if bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>() % 10 != 0 {
        return;
    }
    let base = packed("shop.py", b"def total(): pass\n");
    if let Ok(patched) = flakefarm_project::patch::apply(&base, std::path::Path::new(""), bytes, "a patch") {
        for path in snapshot::files(&patched.archive).unwrap().keys() {
            assert!(
                path.is_relative() && !path.components().any(|part| part.as_os_str() == ".."),
                "{path:?}"
            );
        }
    }
}

/// Damaged after it was packed, or before.
fn read_archive(bytes: &[u8]) {
    let damaged =
        |bytes: Vec<u8>| Archive { bytes, files: 1, total_bytes: 1, revision: None, warnings: Vec::new() };
    let mut whole = packed("shop.py", bytes);
    let place = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % whole.bytes.len();
    whole.bytes[place] ^= 0x55;
    for archive in [whole, damaged(bytes.to_vec()), damaged(zstd::encode_all(bytes, 0).unwrap())] {
        let _files = snapshot::files(&archive);
        let _links = snapshot::links(&archive);
        let into = tempfile::tempdir().unwrap();
        let _unpacked = snapshot::unpack(&archive, &into.path().join("in"));
        assert_eq!(
            std::fs::read_dir(into.path())
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().file_name() != "in")
                .count(),
            0
        );
    }
}

const CEILINGS: &[&[u8]] = &[b"memory = \"2GiB\"\npids = 200\nnetwork = true\n[setup]\nmemory = \"4GiB\"\nnetwork = \"none\"\n[projects.a]\nmemory = \"1GiB\"\n"];

fn read_ceilings(bytes: &[u8]) {
    let _ceilings = Ceilings::parse(&text(bytes));
}

const CREDENTIALS: &[&[u8]] = &[
    b"user:password\n",
    b"token\n",
    b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\ngit.example ssh-ed25519 AAAA\n",
];

fn read_credentials(bytes: &[u8]) {
    let said = format!("{:?}", Credentials::parse(&text(bytes)));
    assert!(!said.contains("password"), "a secret is not shown: {said}");
}
