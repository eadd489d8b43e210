from shop import pricing


def test_clearance_sale_is_in_force():
    # Leaves its campaign behind, for every test that comes later in this process.
    pricing.start_campaign("clearance", 20)
    assert pricing.DISCOUNTS["clearance"] == 20


def test_ended_campaign_is_gone():
    pricing.start_campaign("flash", 50)
    pricing.end_campaign("flash")
    assert "flash" not in pricing.DISCOUNTS
