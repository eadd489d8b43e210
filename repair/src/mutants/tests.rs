//! Which mutants are chosen, what they become, and what is made of what the tests noticed.

use super::*;

const SHOP: &str = "LIMIT = 3\n\n\ndef total(items, rate):\n    \"\"\"Sums up.\"\"\"\n    if len(items) > LIMIT:\n        raise ValueError(\"too many\")\n    result = 0\n    for item in items:\n        result = result + item * rate\n    return result\n\n\ndef far():\n    return [1]\n";
const TESTS: &str = "import shop\n\n\ndef test_total():\n    assert shop.total([1, 2], 2) == 6\n";

fn tree(files: &[(&str, &str)]) -> SourceTree {
    SourceTree::new(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))).unwrap()
}

fn planned() -> Mutants {
    let new_shop = SHOP.replace("total", "sum_up");
    let old = tree(&[("shop.py", SHOP), ("tests/test_shop.py", TESTS)]);
    let new =
        tree(&[("shop.py", &new_shop), ("tests/test_shop.py", &TESTS.replace("shop.total", "shop.sum_up"))]);
    let changes = Changes::between(&old, &new);
    plan(&old, &new, &changes, &["tests/test_shop.py::test_total".to_owned()]).unwrap()
}

#[test]
fn both_trees_have_the_same_mutants_behind_a_switch() {
    let mutants = planned();
    assert!(mutants.mutants.len() <= MAX_MUTANTS);
    assert_eq!(mutants.mutants[0].purpose, Purpose::Probe);
    assert!(mutants.mutants.iter().all(|mutant| mutant.function == "shop.sum_up"), "{:?}", mutants.mutants);
    let what: Vec<&str> = mutants.mutants.iter().map(|mutant| mutant.what.as_str()).collect();
    assert_eq!(
        what,
        ["an error at the beginning", "`len(items) <= LIMIT` for `len(items) > LIMIT`", "nothing is raised"]
    );
    let code =
        |files: &[FileAdaptation]| files.iter().find(|file| file.path == "shop.py").unwrap().text.clone();
    let on = |number: usize| format!("__import__(\"os\").environ.get(\"FLAKEFARM_MUTANT\") == \"{number}\"");
    let expect = SHOP
        .replace("    if len(items) > LIMIT:", &format!("    if {}: raise RuntimeError(\"a mutant\")\n    if ((len(items) <= LIMIT) if {} else (len(items) > LIMIT)):", on(1), on(2)))
        .replace("raise ValueError", &format!("if not ({}): raise ValueError", on(3)));
    assert_eq!(code(&mutants.before), expect);
    assert_eq!(code(&mutants.after), expect.replace("total", "sum_up"));
    assert_eq!(mutants.tests[0], "tests/test_flakefarm_mutant_00_test_shop.py::test_total");
    assert_eq!(mutants.tests.len(), mutants.mutants.len() + 1);
}

#[test]
fn a_repair_after_which_less_is_noticed_or_run_is_seen() {
    let mutants = planned();
    let copy = |number: usize| copied("tests/test_shop.py::test_total", number);
    let ended = |failed: &[usize]| {
        let ended: Vec<(String, bool)> =
            (0..=mutants.mutants.len()).map(|number| (copy(number), failed.contains(&number))).collect();
        mutants.noticed(ended.iter().map(|(id, failed)| (id.as_str(), *failed)))
    };
    let before = ended(&[1, 2]);
    assert!(mutants.compare(&before, &ended(&[1, 2])).is_kept());
    let missed = mutants.compare(&before, &ended(&[1]));
    assert!(!missed.is_kept(), "{missed:?}");
    assert_eq!(
        missed.missed,
        ["tests/test_shop.py::test_total: `len(items) <= LIMIT` for `len(items) > LIMIT` in shop.sum_up"]
    );
    let not_run = mutants.compare(&before, &ended(&[2]));
    assert_eq!(not_run.not_run, ["tests/test_shop.py::test_total: shop.sum_up"]);
    assert!(!not_run.is_kept());
    // What fails without any mutant says nothing.
    assert!(ended(&[0, 1, 2]).is_empty());
    assert!(mutants.compare(&Noticed::new(), &Noticed::new()).is_kept());
}

#[test]
fn every_change_of_code_is_code() {
    let text = "def f(a, b):\n    if a and b: return 1\n    try:\n        x = a is not b\n    except ValueError as error:\n        raise TypeError(\n            'x') from error\n    y = lambda z: z == 1\n    if a: raise ValueError\n    return {\n        'k': [a + 1, b // 2],  # kept\n    }, x, y, f'{a + 1}', (yield a + 1)\n";
    let old = tree(&[("m.py", text), ("test_m.py", "import m\ndef test_f():\n    assert m.f(1, 2)\n")]);
    let changes = Changes::between(&old, &old);
    let mutants = plan(&old, &old, &changes, &["test_m.py::test_f".to_owned()]).unwrap();
    for file in &mutants.before {
        ruff_python_parser::parse_module(&file.text).unwrap();
    }
}

/// What is changed in a function of one line, apart from the error at its beginning.
fn changes_of(result: &str) -> Vec<String> {
    let code = format!("def f(a, b):\n    return {result}\n");
    let old = tree(&[("m.py", &code), ("test_m.py", "import m\ndef test_f():\n    assert m.f(1, 2)\n")]);
    let changes = Changes::between(&old, &old);
    let mutants = plan(&old, &old, &changes, &["test_m.py::test_f".to_owned()]).unwrap().mutants;
    mutants.into_iter().filter(|mutant| mutant.purpose == Purpose::Change).map(|mutant| mutant.what).collect()
}

#[test]
fn what_cannot_be_turned_round_is_changed_within_or_left_out() {
    assert_eq!(changes_of("sum(a) * (1 + b)"), ["`sum(a) + (1 + b)` for `sum(a) * (1 + b)`"]);
    assert_eq!(changes_of("(a - b) < (b)"), ["`(a - b) >= (b)` for `(a - b) < (b)`"]);
    assert_eq!(changes_of("'<%s>' % a"), ["None is returned"]);
    assert_eq!(changes_of("a ** 2"), ["`3` for `2`"]);
    assert_eq!(changes_of("1 < a < b"), ["`2` for `1`"]);
    assert_eq!(changes_of("(a +  # one\n            3)"), ["`4` for `3`"]);
    assert_eq!(changes_of("a + \\\n        g(b)"), Vec::<String>::new());
}

#[test]
fn the_number_of_mutants_is_bounded() {
    let code: String =
        (0..100).map(|n| format!("def f{n}(a):\n    return a + {n} if a > {n} else a < {n}\n\n")).collect();
    let calls: String = (0..100).map(|n| format!("    m.f{n}(1)\n")).collect();
    let old = tree(&[("m.py", &code), ("test_m.py", &format!("import m\ndef test_f():\n{calls}"))]);
    let changes = Changes::between(&old, &old);
    let mutants = plan(&old, &old, &changes, &["test_m.py::test_f".to_owned()]).unwrap();
    assert_eq!(mutants.mutants.len(), MAX_MUTANTS);
    let probes = mutants.mutants.iter().filter(|mutant| mutant.purpose == Purpose::Probe).count();
    assert_eq!(probes, MAX_PROBES);
}
