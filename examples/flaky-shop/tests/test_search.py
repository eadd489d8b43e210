import time

import pytest

from shop import search


@pytest.fixture
def index():
    index = search.Index()
    yield index
    index.close()


def test_order_is_found_soon(index):
    index.add("A-1")
    # A tick comes every 20 ms; this waits 13 ms and hopes.
    time.sleep(0.013)
    assert index.find("A-1")


def test_order_is_found_when_waited_for(index):
    index.add("A-2")
    assert index.wait_for("A-2", seconds=10)


def test_unknown_order_is_not_found(index):
    assert not index.find("B-9")
