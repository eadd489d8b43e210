use super::*;

fn tree(files: &[(&str, &str)]) -> SourceTree {
    SourceTree::new(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))).unwrap()
}

const SHOP: &str = "RATE = 17\n\ndef total(items, rate):\n    result = 0\n    for item in items:\n        result += item * rate\n    return result\n\n\ndef check(amount):\n    if amount < 0:\n        raise ValueError('negative amount')\n    return amount\n\n\ndef bill(items):\n    return check(total(items, RATE)) + 0\n\n\nclass Cart:\n    def add(self, item):\n        self.items = [item]\n        return len(self.items)\n";
const TESTS: &str = "from shop import bill, check, total, Cart\nimport pytest\n\ndef make():\n    return Cart()\n\ndef test_total():\n    assert total([1, 2], 2) == 6\n\ndef test_bill():\n    assert bill([1]) == 17\n\ndef test_check():\n    with pytest.raises(ValueError, match='negative amount'):\n        check(-1)\n\ndef test_cart():\n    assert make().add(1) == 1\n\ndef test_other():\n    assert 1 == 2\n";

/// The cause in a tree whose code is `new`.
fn cause(new: &str, test: &str, exception: &str, message: &str) -> Option<(CauseKind, String, bool)> {
    let old = tree(&[("shop.py", SHOP), ("test_shop.py", TESTS)]);
    let new = tree(&[("shop.py", new), ("test_shop.py", TESTS)]);
    let changes = Changes::between(&old, &new);
    let difference = Difference { old: &old, new: &new, changes: &changes };
    let test = format!("test_shop.py::{test}");
    let kind = if exception.ends_with("AssertionError") { "assertion" } else { "exception" };
    let symptom = Symptom { test: &test, kind, phase: "call", exception, message, fixture: None };
    let cause = explain(&symptom, Some(&difference))?;
    assert!(!cause.evidence.is_empty());
    Some((cause.kind, cause.subject, cause.confidence >= THRESHOLD))
}

fn sure(kind: CauseKind, subject: &str) -> Option<(CauseKind, String, bool)> {
    Some((kind, subject.to_owned(), true))
}

#[test]
fn what_the_exception_names_is_looked_up_in_the_difference() {
    let renamed = SHOP.replace("def total(", "def sum_up(").replace("check(total(", "check(sum_up(");
    let message = "cannot import name 'total' from 'shop' (/work/shop.py)";
    assert_eq!(
        cause(&renamed, "test_total", "builtins.ImportError", message),
        sure(CauseKind::Renamed, "shop.total")
    );
    let message = "<module 'shop' from '/work/shop.py'> does not have the attribute 'total'";
    assert_eq!(
        cause(&renamed, "test_total", "builtins.AttributeError", message),
        sure(CauseKind::MockTarget, "shop.total")
    );
    let signature = SHOP
        .replace("def total(items, rate)", "def total(items, rate, tax)")
        .replace("total(items, RATE)", "total(items, RATE, 0)");
    let message = "total() missing 1 required positional argument: 'tax'";
    assert_eq!(
        cause(&signature, "test_total", "builtins.TypeError", message),
        sure(CauseKind::Signature, "shop.total")
    );
    let asynchronous = SHOP.replace("def total(", "async def total(");
    let message = "assert <coroutine object total at 0x7f> == 6";
    assert_eq!(
        cause(&asynchronous, "test_total", "builtins.AssertionError", message),
        sure(CauseKind::Asynchronous, "shop.total")
    );
    let member = SHOP.replace("def add(", "def put(");
    let message = "'Cart' object has no attribute 'add'";
    assert_eq!(
        cause(&member, "test_cart", "builtins.AttributeError", message),
        sure(CauseKind::Renamed, "shop.Cart.add")
    );
    let gone = SHOP.split("class Cart").next().unwrap();
    let message = "cannot import name 'Cart' from 'shop' (/work/shop.py)";
    assert_eq!(
        cause(gone, "test_cart", "builtins.ImportError", message),
        sure(CauseKind::Removed, "shop.Cart")
    );
}

#[test]
fn what_differs_is_traced_to_what_changed() {
    let constant = SHOP
        .replace("RATE = 17", "RATE = 19")
        .replace("def total(", "def sum_up(")
        .replace("check(total(", "check(sum_up(");
    let message = "assert 19 == 17";
    assert_eq!(
        cause(&constant, "test_bill", "builtins.AssertionError", message),
        sure(CauseKind::Constant, "shop.RATE")
    );
    let behaviour = SHOP.replace("item * rate", "item + rate");
    let message = "assert 7 == 6";
    assert_eq!(
        cause(&behaviour, "test_total", "builtins.AssertionError", message),
        sure(CauseKind::Behaviour, "shop.total")
    );
    let words = SHOP.replace("'negative amount'", "'the amount is below 0'");
    let message = "Regex pattern did not match.";
    assert_eq!(
        cause(&words, "test_check", "builtins.AssertionError", message),
        sure(CauseKind::Exception, "shop.check")
    );
    // Through a helper of the test file.
    let helper = SHOP.replace("len(self.items)", "len(self.items) + 1");
    let message = "assert 2 == 1";
    assert_eq!(
        cause(&helper, "test_cart", "builtins.AssertionError", message),
        sure(CauseKind::Behaviour, "shop.Cart.add")
    );
}

#[test]
fn nothing_is_said_without_evidence() {
    let behaviour = SHOP.replace("item * rate", "item + rate");
    // Reaches nothing.
    assert_eq!(cause(&behaviour, "test_other", "builtins.AssertionError", "assert 1 == 2"), None);
    // Nothing changed.
    assert_eq!(cause(SHOP, "test_total", "builtins.AssertionError", "assert 7 == 6"), None);
    assert_eq!(
        cause(
            SHOP,
            "test_total",
            "builtins.TypeError",
            "total() missing 1 required positional argument: 'x'"
        ),
        None
    );
    // Two changes are as near: named, and not sure.
    let two = behaviour.replace("return amount", "return amount + 1");
    let tests = TESTS.replace("total([1, 2], 2) == 6", "check(total([1, 2], 2)) == 6");
    let (old, new) = (
        tree(&[("shop.py", SHOP), ("test_shop.py", &tests)]),
        tree(&[("shop.py", &two), ("test_shop.py", &tests)]),
    );
    let changes = Changes::between(&old, &new);
    let difference = Difference { old: &old, new: &new, changes: &changes };
    let symptom = Symptom {
        test: "test_shop.py::test_total",
        kind: "assertion",
        phase: "call",
        exception: "builtins.AssertionError",
        message: "assert 8 == 6",
        fixture: None,
    };
    let cause = explain(&symptom, Some(&difference)).unwrap();
    assert!(cause.confidence < THRESHOLD, "{cause:?}");
    assert_eq!(cause.evidence.last().unwrap(), "as near: shop.total");
}

#[test]
fn what_is_missing_where_tests_run_is_no_change_of_the_code() {
    let said = |exception, message| {
        let symptom = Symptom {
            test: "test_shop.py::test_total",
            kind: "exception",
            phase: "call",
            exception,
            message,
            fixture: None,
        };
        let cause = explain(&symptom, None).unwrap();
        (cause.kind, cause.subject)
    };
    assert_eq!(
        said("builtins.ModuleNotFoundError", "No module named 'requests'"),
        (CauseKind::MissingModule, "requests".to_owned())
    );
    assert_eq!(
        said("builtins.FileNotFoundError", "[Errno 2] No such file or directory: 'ffmpeg'"),
        (CauseKind::MissingTool, "ffmpeg".to_owned())
    );
    assert_eq!(
        said("builtins.PermissionError", "[Errno 13] Permission denied: '/etc/x'").0,
        CauseKind::Permission
    );
    assert_eq!(said("builtins.OSError", "[Errno 28] No space left on device").0, CauseKind::Disk);
    assert_eq!(
        said("socket.gaierror", "[Errno -3] Temporary failure in name resolution").0,
        CauseKind::Network
    );
    assert_eq!(said("builtins.MemoryError", "").0, CauseKind::Memory);
    let killed = Symptom { kind: "out_of_memory", ..Symptom::default() };
    assert_eq!(explain(&killed, None).unwrap().kind, CauseKind::Memory);
    let late = Symptom { kind: "timeout", ..Symptom::default() };
    assert_eq!(explain(&late, None).unwrap().kind, CauseKind::Timeout);
    let fixture = Symptom {
        kind: "exception",
        phase: "setup",
        exception: "shop.Error",
        fixture: Some("database"),
        ..Symptom::default()
    };
    assert_eq!(explain(&fixture, None).unwrap().subject, "database");
}

/// What is used otherwise and does what it did is no regression; what does something else besides may be one.
#[test]
fn what_is_used_otherwise_does_nothing_else() {
    let swapped = SHOP
        .replace("def total(items, rate)", "def total(rate, items)")
        .replace("total(items, RATE)", "total(RATE, items)");
    let message = "'int' object is not iterable";
    assert_eq!(
        cause(&swapped, "test_total", "builtins.TypeError", message),
        sure(CauseKind::Signature, "shop.total")
    );
    let renamed = SHOP.replace("rate", "factor");
    assert_eq!(
        cause(&renamed, "test_total", "builtins.AssertionError", "assert 5 == 6"),
        sure(CauseKind::Signature, "shop.total")
    );
    let besides = swapped.replace("item * rate", "item + rate");
    assert_eq!(
        cause(&besides, "test_total", "builtins.AssertionError", "assert 5 == 6"),
        sure(CauseKind::Behaviour, "shop.total")
    );
    // An error of types may come from how it was asked.
    assert_eq!(
        cause(&besides, "test_total", "builtins.TypeError", message),
        sure(CauseKind::Signature, "shop.total")
    );
    let property = SHOP.replace("    def add(self, item):", "    @property\n    def add(self, item=1):");
    assert_eq!(
        cause(&property, "test_cart", "builtins.TypeError", "'int' object is not callable"),
        sure(CauseKind::Behaviour, "shop.Cart.add")
    );
}
