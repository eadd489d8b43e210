import random

from shop import delivery


def test_courier_quotes():
    assert delivery.quote(2_000) == 410


def test_seeded_courier_quotes():
    assert delivery.quote(500, random.Random(7)) == 395


def test_courier_answers_in_the_end():
    assert delivery.quote_with_retries(1_000) == 400


def test_dice_stay_in_range():
    rolls = [random.randint(1, 6) for _ in range(200)]
    assert all(1 <= roll <= 6 for roll in rolls)
