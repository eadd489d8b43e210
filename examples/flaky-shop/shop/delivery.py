"""Asking a courier for a quote. The courier is busy three times in ten."""

import random


class CourierBusy(Exception):
    """Nobody picked up."""


def quote(weight_grams, rng=random):
    if rng.random() < 0.3:
        raise CourierBusy(f"no courier for {weight_grams} g")
    return 390 + weight_grams // 100


def quote_with_retries(weight_grams, rng=random, attempts=40):
    for _ in range(attempts - 1):
        try:
            return quote(weight_grams, rng)
        except CourierBusy:
            continue
    return quote(weight_grams, rng)
