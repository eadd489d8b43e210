"""Prices in cents, and the discounts in force."""

# Percentages by campaign, for the whole process: whoever adds one must take it away again.
DISCOUNTS = {}


def price(cents, quantity=1):
    off = sum(DISCOUNTS.values())
    return cents * quantity * (100 - off) // 100


def with_tax(cents, percent):
    return cents + round(cents * percent / 100)


def start_campaign(name, percent):
    DISCOUNTS[name] = percent


def end_campaign(name):
    DISCOUNTS.pop(name, None)
