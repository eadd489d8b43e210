from shop import stock


def test_load_stock():
    assert stock.load(["spade: 4", "rake: 2"]) == 2


def test_spades_on_the_shelf():
    # Works only after test_load_stock has filled the shelves in the same process.
    assert stock.count("spade") == 4


def test_parse_line():
    assert stock.parse("hose : 12") == ("hose", 12)


def test_unknown_product():
    assert stock.count("unicorn") == 0
