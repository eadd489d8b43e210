import datetime
import os
import threading
import time

import pytest

from shop import orders


def test_total():
    assert orders.total([(250, 2), (100, 1)]) == 600


def test_numbers_are_distinct_across_tills():
    counter, taken = orders.Counter(), []
    tills = [threading.Thread(target=lambda: taken.extend(counter.take() for _ in range(50))) for _ in range(4)]
    for till in tills:
        till.start()
    for till in tills:
        till.join()
    assert sorted(taken) == list(range(1, 201))


def test_order_survives_a_file(tmp_path):
    orders.save(tmp_path / "order.json", {"number": 7, "lines": [[250, 2]]})
    assert orders.load(tmp_path / "order.json") == {"number": 7, "lines": [[250, 2]]}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("2024-03-04T08:59:59", False),
        ("2024-03-04T09:00:00", True),
        ("2024-03-10T12:00:00", False),
    ],
)
def test_opening_hours(when, expected):
    assert orders.is_open(datetime.datetime.fromisoformat(when)) is expected


def test_currency_from_the_environment(monkeypatch):
    monkeypatch.setenv("SHOP_CURRENCY", "CHF")
    assert orders.currency(os.environ) == "CHF"


def test_currency_by_default():
    assert orders.currency({}) == "EUR"


def test_waiting_takes_time():
    before = time.monotonic()
    time.sleep(0.05)
    assert time.monotonic() - before >= 0.04


@pytest.mark.skip(reason="the printer is at the repair shop")
def test_receipt_is_printed():
    raise AssertionError("never runs")
