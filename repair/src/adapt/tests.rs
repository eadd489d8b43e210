//! What becomes of tests when the code changes: one table per kind of change.

use super::*;

fn tree(files: &[(&str, &str)]) -> SourceTree {
    SourceTree::new(files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))).unwrap()
}

/// Adapts one test to the change from `old` to `new`, and back: what comes back is what was there.
#[track_caller]
fn check_with(style: AsyncStyle, old: &[(&str, &str)], new: &[(&str, &str)], test: &str, expect: &str) {
    let tests = tree(&[("tests/test_it.py", test)]);
    let changes = Changes::between(&tree(old), &tree(new));
    let adapted = adapt(&tests, &changes, style);
    let text = adapted.files.first().map_or(test, |file| file.text.as_str());
    assert_eq!(text, expect, "{:?} {:?}", adapted.notes, changes.list());
}

#[track_caller]
fn check(old: &[(&str, &str)], new: &[(&str, &str)], test: &str, expect: &str) {
    check_with(AsyncStyle::Run, old, new, test, expect);
}

const TOTAL: &str =
    "    result = 0\n    for item in items:\n        result += item.price\n    return result\n";

#[test]
fn renamed_functions() {
    let old = format!("def total(items):\n{TOTAL}\ndef other(): return 'unlike the first'\n");
    let new = old.replace("def total", "def sum_up");
    let (old, new) = ([("shop.py", old.as_str())], [("shop.py", new.as_str())]);
    check(
        &old,
        &new,
        "from shop import other, total\n\ndef test_a():\n    assert total([]) == 0  # total stays in comments\n",
        "from shop import other, sum_up\n\ndef test_a():\n    assert sum_up([]) == 0  # total stays in comments\n",
    );
    check(
        &old,
        &new,
        "import shop\nimport shop as s\n\ndef test_a(total):\n    assert shop.total([]) == s.total(total)\n",
        "import shop\nimport shop as s\n\ndef test_a(total):\n    assert shop.sum_up([]) == s.sum_up(total)\n",
    );
    check(
        &old,
        &new,
        "from shop import total as t\nfrom unittest.mock import patch\n\n@patch('shop.total')\ndef test_a(m, monkeypatch):\n    import shop\n    monkeypatch.setattr(shop, \"total\", t)\n    getattr(shop, 'total')\n",
        "from shop import sum_up as t\nfrom unittest.mock import patch\n\n@patch('shop.sum_up')\ndef test_a(m, monkeypatch):\n    import shop\n    monkeypatch.setattr(shop, \"sum_up\", t)\n    getattr(shop, 'sum_up')\n",
    );
    check(
        &old,
        &new,
        "from shop import *\n\ndef test_a():\n    total([])\n",
        "from shop import *\n\ndef test_a():\n    sum_up([])\n",
    );
    check(
        &old,
        &new,
        "from shop import total\n\ndef test_a():\n    sum_up = 1\n    assert total([]) < sum_up\n",
        "from shop import sum_up as total\n\ndef test_a():\n    sum_up = 1\n    assert total([]) < sum_up\n",
    );
}

#[test]
fn moved_modules_and_functions() {
    let body = format!("def total(items):\n{TOTAL}");
    let old = [("shop/__init__.py", ""), ("shop/sums.py", body.as_str())];
    let moved =
        [("shop/__init__.py", ""), ("shop/core/__init__.py", ""), ("shop/core/sums.py", body.as_str())];
    check(
        &old,
        &moved,
        "from shop.sums import total\nimport shop.sums\nfrom shop import sums\n\ndef test_a():\n    shop.sums.total(sums.total([]))\n    patch('shop.sums.json.loads')\n",
        "from shop.core.sums import total\nimport shop.core.sums\nfrom shop.core import sums\n\ndef test_a():\n    shop.core.sums.total(sums.total([]))\n    patch('shop.core.sums.json.loads')\n",
    );
    let apart = [
        ("shop/__init__.py", ""),
        ("shop/sums.py", "def other(): return 'x'\n"),
        ("shop/more.py", body.as_str()),
    ];
    let together = format!("{body}def other(): return 'x'\n");
    let before = [("shop/__init__.py", ""), ("shop/sums.py", together.as_str())];
    check(
        &before,
        &apart,
        "from shop.sums import (\n    other,\n    total,\n)\n\ndef test_a():\n    total(other())\n",
        "from shop.sums import other\nfrom shop.more import total\n\ndef test_a():\n    total(other())\n",
    );
    check(
        &before,
        &apart,
        "from shop import sums\n\ndef test_a():\n    sums.total(sums.other())\n",
        "from shop import sums\nimport shop.more\n\ndef test_a():\n    shop.more.total(sums.other())\n",
    );
}

#[test]
fn re_exports_are_followed() {
    let body = format!("def total(items):\n{TOTAL}");
    let renamed = body.replace("total", "sum_up");
    check(
        &[("shop/__init__.py", "from ._impl import total\n"), ("shop/_impl.py", &body)],
        &[("shop/__init__.py", "from ._impl import sum_up\n"), ("shop/_impl.py", &renamed)],
        "import shop\nfrom shop import total\n\ndef test_a():\n    shop.total(total([]))\n",
        "import shop\nfrom shop import sum_up\n\ndef test_a():\n    shop.sum_up(sum_up([]))\n",
    );
    // Where the old name still leads there, nothing is to be done.
    check(
        &[("shop/__init__.py", "from ._impl import total\n"), ("shop/_impl.py", &body)],
        &[("shop/__init__.py", "from ._impl import sum_up as total\n"), ("shop/_impl.py", &renamed)],
        "from shop import total\n\ndef test_a():\n    total([])\n",
        "from shop import total\n\ndef test_a():\n    total([])\n",
    );
}

#[test]
fn in_package_tests_stay_relative() {
    let body = format!("def total(items):\n{TOTAL}");
    let tests = tree(&[
        ("shop/__init__.py", ""),
        ("shop/tests/__init__.py", ""),
        (
            "shop/tests/test_it.py",
            "from ..sums import total\nfrom .. import sums\n\ndef test_a():\n    total(sums.total([]))\n",
        ),
    ]);
    let changes = Changes::between(
        &tree(&[("shop/__init__.py", ""), ("shop/sums.py", &body)]),
        &tree(&[("shop/__init__.py", ""), ("shop/adding.py", &body)]),
    );
    let adapted = adapt(&tests, &changes, AsyncStyle::Run);
    assert_eq!(
        adapted.files[0].text,
        "from ..adding import total\nfrom .. import adding\n\ndef test_a():\n    total(adding.total([]))\n"
    );
}

const CART: &str = "class Cart:\n    def __init__(self, owner):\n        self.owner = owner\n        self.lines = []\n    def put(self, item, count):\n        self.lines.append((item, count))\n    @classmethod\n    def empty(cls):\n        return cls('nobody')\n";

#[test]
fn members_are_renamed_where_it_is_known_whose_they_are() {
    let new = CART.replace("def put", "def put_in").replace("lines", "rows");
    check(
        &[("shop.py", CART)],
        &[("shop.py", &new)],
        "import pytest\nfrom shop import Cart\n\n@pytest.fixture\ndef cart():\n    return Cart('x')\n\ndef test_a(cart):\n    cart.put(1, 2)\n    assert cart.lines\n    other = Cart.empty()\n    other.put(1, count=2)\n\nclass Loud(Cart):\n    def put(self, item, count):\n        super().put(item, count)\n",
        "import pytest\nfrom shop import Cart\n\n@pytest.fixture\ndef cart():\n    return Cart('x')\n\ndef test_a(cart):\n    cart.put_in(1, 2)\n    assert cart.rows\n    other = Cart.empty()\n    other.put_in(1, count=2)\n\nclass Loud(Cart):\n    def put_in(self, item, count):\n        super().put_in(item, count)\n",
    );
    // Somebody else's member of that name is left alone.
    let twice = format!(
        "{CART}class Golf:\n    def hole(self):\n        return 'putt'\n    def put(self):\n        return self.hole()\n"
    );
    let renamed = twice.replace("def put(self, item", "def put_in(self, item");
    check(
        &[("shop.py", &twice)],
        &[("shop.py", &renamed)],
        "from shop import Cart, Golf\n\ndef test_a(unknown):\n    Cart('x').put(1, 2)\n    Golf().put()\n    unknown.put()\n",
        "from shop import Cart, Golf\n\ndef test_a(unknown):\n    Cart('x').put_in(1, 2)\n    Golf().put()\n    unknown.put()\n",
    );
}

#[test]
fn calls_follow_signatures() {
    let new = CART.replace("def put(self, item, count)", "def put(self, count, item)");
    check(
        &[("shop.py", CART)],
        &[("shop.py", &new)],
        "from shop import Cart\n\ndef test_a():\n    cart = Cart('x')\n    cart.put(cart.put(1, 2), 3)\n    cart.put(item=1, count=2)\n",
        "from shop import Cart\n\ndef test_a():\n    cart = Cart('x')\n    cart.put(3, cart.put(2, 1))\n    cart.put(item=1, count=2)\n",
    );
    let new = CART
        .replace("def __init__(self, owner)", "def __init__(self, owner, currency)")
        .replace("cls('nobody')", "cls('nobody', 'EUR')");
    check(
        &[("shop.py", CART)],
        &[("shop.py", &new)],
        "from shop import Cart\n\ndef test_a():\n    Cart(\n        'x',\n    )\n",
        "from shop import Cart\n\ndef test_a():\n    Cart(\n        'x', 'EUR',\n    )\n",
    );
}

#[test]
fn a_value_that_nothing_shows_is_assumed_and_said() {
    let old = format!("def total(items):\n{TOTAL}");
    let new = old.replace("(items)", "(items, unit)");
    let tests = tree(&[("tests/test_it.py", "from shop import total\n\ndef test_a():\n    total([])\n")]);
    let changes = Changes::between(&tree(&[("shop.py", &old)]), &tree(&[("shop.py", &new)]));
    let adapted = adapt(&tests, &changes, AsyncStyle::Run);
    assert!(adapted.files[0].text.contains("total([], None)"));
    assert!(!adapted.is_proved());
}

#[test]
fn coroutines_are_awaited() {
    let old = "def fetch(url):\n    return get(url)\n";
    let new = "async def fetch(url):\n    return await get(url)\n";
    let test = "from shop import fetch\n\ndef helper():\n    return fetch('x').text\n\nclass TestIt:\n    def test_a(self):\n        assert helper() == fetch('y')\n";
    check_with(
        AsyncStyle::Marked,
        &[("shop.py", old)],
        &[("shop.py", new)],
        test,
        "import pytest\nfrom shop import fetch\n\nasync def helper():\n    return (await fetch('x')).text\n\nclass TestIt:\n    @pytest.mark.asyncio\n    async def test_a(self):\n        assert await helper() == await fetch('y')\n",
    );
    check_with(
        AsyncStyle::Run,
        &[("shop.py", old)],
        &[("shop.py", new)],
        test,
        "import asyncio\nfrom shop import fetch\n\ndef helper():\n    return asyncio.run(fetch('x')).text\n\nclass TestIt:\n    def test_a(self):\n        assert helper() == asyncio.run(fetch('y'))\n",
    );
    check(
        &[("shop.py", new)],
        &[("shop.py", old)],
        "import pytest\nfrom shop import fetch\n\n@pytest.mark.asyncio\nasync def test_a():\n    assert await fetch('y')\n",
        "import pytest\nfrom shop import fetch\n\ndef test_a():\n    assert fetch('y')\n",
    );
}

#[test]
fn a_regression_is_not_adapted_to() {
    let old = format!("def total(items):\n{TOTAL}");
    let new = old.replace("+=", "-=");
    let test = "from shop import total\n\ndef test_a():\n    assert total([]) == 0\n";
    check(&[("shop.py", &old)], &[("shop.py", &new)], test, test);
    check(&[("shop.py", &old)], &[("shop.py", "x = 1\n")], test, test);
}

#[test]
fn line_ends_and_tabs_stay() {
    let old = format!("def total(items):\n{TOTAL}");
    let new = old.replace("total", "sum_up");
    check(
        &[("shop.py", &old)],
        &[("shop.py", &new)],
        "from shop import total\r\n\r\ndef test_a():\r\n\tassert total( [] )==0\r\n",
        "from shop import sum_up\r\n\r\ndef test_a():\r\n\tassert sum_up( [] )==0\r\n",
    );
}

/// A renamed function, and a test file of odd bytes: only the name changes.
#[track_caller]
fn check_bytes(test: &[u8]) {
    let old = format!("def total(items):\n{TOTAL}");
    let new = old.replace("total", "sum_up");
    let files = |code: &str| {
        let files = [("shop.py", code.as_bytes()), ("tests/test_it.py", test)];
        SourceTree::new(files.map(|(path, text)| (path.to_owned(), text.to_vec()))).unwrap()
    };
    let (old, new) = (files(&old), files(&new));
    let adapted = adapt(&new, &Changes::between(&old, &new), AsyncStyle::Run);
    let text = adapted.files[0].text.as_bytes();
    let mut expect = Vec::new();
    let mut rest = test;
    while let Some(at) = rest.windows(5).position(|window| window == b"total") {
        expect.extend_from_slice(&rest[..at]);
        expect.extend_from_slice(b"sum_up");
        rest = &rest[at + 5..];
    }
    expect.extend_from_slice(rest);
    assert!(text == expect, "{}", String::from_utf8_lossy(text));
}

#[test]
fn everything_but_the_edit_stays_byte_for_byte() {
    check_bytes(b"from shop import total\r\n\r\ndef test_a():\r\n\tassert total([]) == 0 \t\r\n");
    check_bytes(b"\xef\xbb\xbffrom shop import total\n\ndef test_a():\n    assert total([]) == 0");
    check_bytes("# -*- coding: utf-8 -*-\nfrom shop import total\n\ndef test_ä():\n    x = 'ö\u{2028}'; assert total([]) == 0\n\x0c\n".as_bytes());
    check_bytes(b"from shop import total\rdef test_a():\r  assert total([]) == 0\r");
    check_bytes(b"from shop import total\ndef test_a():\n\tif 1:\n\t        assert total([]) == \\\n 0\n");
    let long: String =
        (0..10_000).map(|n| format!("def test_{n}():\n    assert total([]) == 0\n\n")).collect();
    check_bytes(format!("from shop import total\n\n{long}").as_bytes());
}

#[test]
fn code_that_cannot_be_read_is_not_gone() {
    let old = format!("def total(items):\n{TOTAL}");
    let test = "from shop import total\n\ndef test_a():\n    assert total([]) == 0\n";
    let moved = old.replace("total", "sum_up");
    let new = [("shop.py", "def total(items:\n"), ("other.py", moved.as_str())];
    check(&[("shop.py", &old)], &new, test, test);
    let changes = Changes::between(&tree(&[("shop.py", &old)]), &tree(&new));
    assert!(changes.is_empty(), "{:?}", changes.list());
}

#[test]
fn a_function_that_is_no_coroutine_any_more_is_not_run_by_asyncio() {
    let new = format!("def total(items):\n{TOTAL}");
    let old = format!("async {new}");
    let (old, new) = ([("shop.py", old.as_str())], [("shop.py", new.as_str())]);
    let test = "import asyncio\nimport shop\n\ndef test_a():\n    assert asyncio.run(shop.total([])) == 0\n";
    let expect = "import shop\n\ndef test_a():\n    assert shop.total([]) == 0\n";
    check(&old, &new, test, expect);
    check(&new, &old, expect, test);
}

#[test]
fn a_property_that_is_a_method_now_is_called_and_the_other_way_about() {
    let old = "class Order:\n    def __init__(self, prices): self.prices = prices\n    @property\n    def total(self): return sum(self.prices)\n    def count(self): return len(self.prices)\n    def part(self, at, n=1): return self.prices[at:n]\n";
    let new = "class Order:\n    def __init__(self, prices): self.prices = prices\n    def total(self): return sum(self.prices)\n    @property\n    def count(self): return len(self.prices)\n    def part(self, at, n=1): return self.prices[at:n]\n";
    check(
        &[("shop.py", old)],
        &[("shop.py", new)],
        "from shop import Order\n\ndef test_a(order):\n    made = Order([1])\n    assert made.total == order.total != made.count() + made.count() - len([])\n    assert str(made.total).upper() and made.part(1) and Order.total and Order.count\n",
        "from shop import Order\n\ndef test_a(order):\n    made = Order([1])\n    assert made.total() == order.total() != made.count + made.count - len([])\n    assert str(made.total()).upper() and made.part(1) and Order.total and Order.count\n",
    );
    // With another name, and as what a method of the same name gives; what is assigned to is left alone.
    check(
        &[("shop.py", old)],
        &[("shop.py", &new.replace("total", "amount"))],
        "import shop\n\ndef test_a():\n    made = shop.Order([1])\n    assert made.total.real == 1\n    made.total = 3\n",
        "import shop\n\ndef test_a():\n    made = shop.Order([1])\n    assert made.amount().real == 1\n    made.amount = 3\n",
    );
    // It asks for something now: what, nobody knows.
    check(
        &[("shop.py", old)],
        &[("shop.py", &new.replace("def total(self)", "def total(self, tax)"))],
        "import shop\n\ndef test_a():\n    assert shop.Order([1]).total == 1\n",
        "import shop\n\ndef test_a():\n    assert shop.Order([1]).total == 1\n",
    );
}

#[test]
fn keywords_that_are_unpacked_where_they_are_written() {
    let old = "def area(width, height, scale=1):\n    return width * height * scale\n";
    let new = old.replace("scale", "factor");
    check(
        &[("shapes.py", old)],
        &[("shapes.py", &new)],
        "from shapes import area\n\ndef test_a(given):\n    assert area(1, 2, **{'scale': 3, \"x\": 1}) == area(1, 2, **dict(scale=3))\n    area(**given)\n    area(1, 2, **{given: 1}, **given)\n",
        "from shapes import area\n\ndef test_a(given):\n    assert area(1, 2, **{'factor': 3, \"x\": 1}) == area(1, 2, **dict(factor=3))\n    area(**given)\n    area(1, 2, **{given: 1}, **given)\n",
    );
}

#[test]
fn imported_names_are_replaced_where_the_code_that_uses_them_went() {
    let old = "import math\nfrom time import sleep\n\ndef area(r):\n    sleep(1)\n    return math.pi * r * r\n\ndef other(): return 'unlike the first'\n";
    let moved = "import math\nfrom time import sleep as pause\n\ndef area(r):\n    pause(1)\n    return math.pi * r * r\n";
    let left = "def other(): return 'unlike the first'\n";
    let test = "from unittest.mock import patch\n\n@patch('shapes.math.pi', 3)\n@patch('shapes.sleep')\ndef test_a(m):\n    'shapes.math'\n";
    check(
        &[("shapes.py", old)],
        &[("shapes.py", left), ("rounds.py", moved)],
        test,
        "from unittest.mock import patch\n\n@patch('rounds.math.pi', 3)\n@patch('rounds.pause')\ndef test_a(m):\n    'rounds.math'\n",
    );
    // Of two that import it, the one that the module became; what is still imported there stays.
    let two = "import math\n\ndef other(): return 'unlike the first'\n";
    check(
        &[("shapes.py", old)],
        &[("squares.py", two), ("rounds.py", &moved.replace(" as pause", "").replace("pause", "sleep"))],
        "from unittest.mock import patch\n\n@patch('shapes.math.pi', 3)\n@patch('shapes.sleep')\ndef test_a(m): pass\n",
        "from unittest.mock import patch\n\n@patch('rounds.math.pi', 3)\n@patch('rounds.sleep')\ndef test_a(m): pass\n",
    );
    check(
        &[("shapes.py", old)],
        &[("shapes.py", two), ("rounds.py", moved)],
        "from unittest.mock import patch\n\n@patch('shapes.math.pi', 3)\ndef test_a(m): pass\n",
        "from unittest.mock import patch\n\n@patch('shapes.math.pi', 3)\ndef test_a(m): pass\n",
    );
}

#[test]
fn members_of_classes_that_tests_derive() {
    let old = "class Cart:\n    def total(self): return 1\n    def shown(self): return str(self.total())\nclass Bill:\n    def total(self): return 2\n";
    let new = "class Cart:\n    def amount(self): return 1\n    def shown(self): return str(self.amount())\nclass Bill:\n    def total(self): return 2\n";
    check(
        &[("shop.py", old)],
        &[("shop.py", new)],
        "from shop import Bill, Cart\n\nclass Big(Cart):\n    pass\n\ndef test_a():\n    class Small(Cart):\n        def total(self):\n            def total(): return super().total()\n            return 0\n    class Other(Bill):\n        def total(self): return 3\n    small, other = Small(), Other()\n    assert Big().total() + Small().total() == Other().total()\n",
        "from shop import Bill, Cart\n\nclass Big(Cart):\n    pass\n\ndef test_a():\n    class Small(Cart):\n        def amount(self):\n            def total(): return super().amount()\n            return 0\n    class Other(Bill):\n        def total(self): return 3\n    small, other = Small(), Other()\n    assert Big().amount() + Small().amount() == Other().total()\n",
    );
}
