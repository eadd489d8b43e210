//! What is proposed for each kind of finding.

use super::*;

fn tree(files: &[(&str, &str)]) -> SourceTree {
    SourceTree::new(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))).unwrap()
}

fn leaked(test: &str, kind: &str, name: &str, before: &str, after: &str) -> LeakedState {
    let [test, kind, name, before, after] = [test, kind, name, before, after].map(str::to_owned);
    LeakedState { test, kind, name, before, after }
}

fn finding(test: &str, category: Category, state: Vec<LeakedState>, others: &[&str]) -> Finding {
    Finding {
        test: test.to_owned(),
        category,
        state,
        others: others.iter().map(|other| (*other).to_owned()).collect(),
    }
}

/// The first proposal's strategy and the text of its only file.
fn first(files: &[(&str, &str)], finding: &Finding) -> (Strategy, String) {
    let proposals = propose(&tree(files), finding);
    let proposal = proposals.first().expect("something is proposed");
    assert_eq!(proposal.files.len(), 1, "{proposal:?}");
    (proposal.strategy, proposal.files[0].text.clone())
}

const DEPOT: (&str, &str) = ("depot/__init__.py", "UNIT = 'kg'\nSHELVES = {}\n");

#[test]
fn a_polluter_puts_back_what_it_changes() {
    let polluter = "import os\n\nimport depot\n\n\nclass TestExport:\n    def test_pounds(self):\n        depot.UNIT = 'lb'\n";
    let id = "tests/test_z.py::TestExport::test_pounds";
    let found = finding(
        "tests/test_a.py::test_victim",
        Category::OrderVictim,
        vec![
            leaked(id, "module global", "depot.UNIT", "'kg'", "'lb'"),
            leaked(id, "environment variable", "DEPOT", "", "x"),
        ],
        &[id],
    );
    let files = [DEPOT, ("tests/test_z.py", polluter), ("tests/test_a.py", "def test_victim(): pass\n")];
    let (strategy, text) = first(&files, &found);
    assert_eq!(strategy, Strategy::RestoreState);
    let objections = crate::gates::cheats("tests/test_z.py", Some(polluter), Some(&text), str::to_owned);
    assert!(objections.iter().all(|found| strategy.excused().contains(&found.rule)), "{objections:?}");
    assert_eq!(
        text,
        "import pytest\nimport os\n\nimport depot\n\n\n@pytest.fixture\ndef restored_depot_unit():\n    saved = depot.UNIT\n    yield\n    depot.UNIT = saved\n\n\n@pytest.fixture\ndef restored_depot():\n    saved = os.environ.get(\"DEPOT\")\n    yield\n    if saved is None:\n        os.environ.pop(\"DEPOT\", None)\n    else:\n        os.environ[\"DEPOT\"] = saved\n\n\nclass TestExport:\n    @pytest.mark.usefixtures(\"restored_depot_unit\")\n    @pytest.mark.usefixtures(\"restored_depot\")\n    def test_pounds(self):\n        depot.UNIT = 'lb'\n"
    );
}

#[test]
fn a_brittle_test_gets_what_it_lacked() {
    let setter =
        "import depot\n\ndef test_fill():\n    depot.SHELVES['A1'] = 'bolts'\n    assert depot.SHELVES\n";
    let test = "import depot\n\ndef test_shelf():\n    assert depot.SHELVES['A1'] == 'bolts'\n";
    let found = finding(
        "tests/test_b.py::test_shelf",
        Category::OrderBrittle,
        vec![leaked("tests/test_a.py::test_fill", "module global", "depot.SHELVES", "{}", "{'A1': 'bolts'}")],
        &["tests/test_a.py::test_fill"],
    );
    let files = [DEPOT, ("tests/test_a.py", setter), ("tests/test_b.py", test)];
    let proposals = propose(&tree(&files), &found);
    let strategies: Vec<Strategy> = proposals.iter().map(|proposal| proposal.strategy).collect();
    assert_eq!(strategies, [Strategy::ProvideState, Strategy::CopySetUp]);
    assert!(proposals[0].files[0].text.contains("patch.setattr(depot, \"SHELVES\", {'A1': 'bolts'})"));
    assert_eq!(
        proposals[1].files[0].text,
        "import depot\n\ndef test_shelf():\n    depot.SHELVES['A1'] = 'bolts'\n    assert depot.SHELVES['A1'] == 'bolts'\n"
    );
}

#[test]
fn what_a_test_leaves_for_its_second_run_is_put_back() {
    let id = "tests/test_n.py::test_label";
    let test = "_seen = []\n\ndef test_label():\n    assert 'x' not in _seen\n    _seen.append('x')\n";
    let found = finding(
        id,
        Category::NotIdempotent,
        vec![leaked(id, "module global", "test_n._seen", "[]", "['x']")],
        &[],
    );
    let (strategy, text) = first(&[("tests/test_n.py", test)], &found);
    assert_eq!(strategy, Strategy::RestoreState);
    assert!(text.contains("    global _seen\n    kept = _seen\n    saved = copy.deepcopy(kept)\n    yield\n    kept[:] = saved\n    _seen = kept\n"), "{text}");
    let file =
        "import os\n\ndef test_label():\n    os.close(os.open('/tmp/depot.lock', os.O_CREAT | os.O_EXCL))\n";
    let found =
        finding(id, Category::NotIdempotent, vec![leaked(id, "file", "/tmp/depot.lock", "", "0 bytes")], &[]);
    let (strategy, text) = first(&[("tests/test_n.py", file)], &found);
    assert_eq!(strategy, Strategy::OwnFile);
    assert!(
        text.contains(
            "def test_label(tmp_path):\n    os.close(os.open(str(tmp_path / \"depot.lock\"), os.O_CREAT"
        ),
        "{text}"
    );
}

#[test]
fn the_world_is_pinned() {
    #[track_caller]
    fn check(category: Category, body: &str, strategy: Strategy, expect: &str) {
        let test = format!(
            "import datetime\nimport os\nimport random\nimport subprocess\nimport time\n\ndef test_it(tmp_path):\n{body}"
        );
        let found = finding("tests/test_it.py::test_it", category, Vec::new(), &[]);
        let proposals = propose(&tree(&[("tests/test_it.py", &test)]), &found);
        let proposal =
            proposals.iter().find(|proposal| proposal.strategy == strategy).expect("it is proposed");
        assert!(proposal.files[0].text.contains(expect), "{}", proposal.files[0].text);
        // The gates object to nothing but what the strategy is for.
        let objections = crate::gates::cheats(
            "tests/test_it.py",
            Some(&test),
            Some(&proposal.files[0].text),
            str::to_owned,
        );
        let open: Vec<_> =
            objections.iter().filter(|violation| !strategy.excused().contains(&violation.rule)).collect();
        assert!(open.is_empty(), "{open:?}");
    }
    check(
        Category::Randomness,
        "    assert random.random() < 0.6\n",
        Strategy::SeedRandomness,
        "    random.seed(0)\n    assert",
    );
    check(
        Category::HashOrder,
        "    assert ','.join({'a', 'b'}) == 'a,b'\n",
        Strategy::SortUnordered,
        "','.join(sorted({'a', 'b'}))",
    );
    check(
        Category::TimeZone,
        "    assert time.localtime(0).tm_hour == 0\n",
        Strategy::PinTimeZone,
        "@pytest.mark.usefixtures(\"time_zone_utc\")\ndef test_it",
    );
    check(
        Category::Clock,
        "    assert datetime.datetime.now().month < 12\n",
        Strategy::PinClock,
        "patch.setattr(datetime, \"datetime\", FixedDateTime)",
    );
    check(
        Category::Timing,
        "    time.sleep(0.3)\n    assert os.path.exists('x')\n",
        Strategy::WaitForCondition,
        "    while not (os.path.exists('x')) and time.monotonic() < deadline:\n        time.sleep(0.01)\n    assert os.path.exists('x')",
    );
    check(
        Category::Timing,
        "    assert queue.get(timeout=0.3) == 'ready'\n",
        Strategy::GenerousTimeout,
        "queue.get(timeout=30)",
    );
    check(
        Category::Timing,
        "    start = time.monotonic()\n    assert time.monotonic() - start < 0.3\n",
        Strategy::MeasureCpuTime,
        "start = time.process_time()",
    );
    check(
        Category::FileSystem,
        "    listed = os.listdir(tmp_path)\n    assert listed == ['a']\n",
        Strategy::SortUnordered,
        "listed = sorted(os.listdir(tmp_path))",
    );
    check(
        Category::FileSystem,
        "    assert tmp_path.stat().st_mode & 0o40\n",
        Strategy::PinUmask,
        "saved = os.umask(0o022)",
    );
    check(
        Category::FileSystem,
        "    open(os.path.expanduser('~/x'), 'w')\n",
        Strategy::OwnHome,
        "def own_home(tmp_path)",
    );
    check(
        Category::Locale,
        "    open('x', 'w').write('ä')\n",
        Strategy::SayEncoding,
        "open('x', 'w', encoding=\"utf-8\")",
    );
    check(
        Category::Locale,
        "    subprocess.run(['x'], check=False)\n",
        Strategy::SayEncoding,
        "check=False, env={**os.environ, \"PYTHONUTF8\": \"1\"})",
    );
}

#[test]
fn what_a_report_says_is_not_trusted() {
    // Names come from what tests did: none of them becomes code.
    let id = "tests/test_n.py::test_label";
    for (kind, name) in [
        ("module global", "depot.UNIT; import os"),
        ("module global", "depot.UNIT\nimport os"),
        ("environment variable", "A\" + evil() + \""),
        ("file", "/tmp/x\")\nevil(\""),
        ("module global", "nowhere.at.all"),
    ] {
        let found = finding(id, Category::NotIdempotent, vec![leaked(id, kind, name, "", "x")], &[]);
        let proposals =
            propose(&tree(&[DEPOT, ("tests/test_n.py", "def test_label():\n    pass\n")]), &found);
        assert!(proposals.is_empty(), "{kind} {name}: {proposals:?}");
    }
    let found = finding("../../etc/passwd::x", Category::TimeZone, Vec::new(), &[]);
    assert!(propose(&tree(&[DEPOT]), &found).is_empty());
}
