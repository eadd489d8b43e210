from shop import catalogue


def test_tag_line():
    assert catalogue.tag_line(["garden", "sale", "garden"]) == "garden, sale"


def test_sorted_tag_line():
    assert catalogue.sorted_tag_line(["sale", "garden", "tools", "sale"]) == "garden, sale, tools"


def test_tags_are_distinct():
    assert set(catalogue.tag_line(["sale", "garden", "sale"]).split(", ")) == {"garden", "sale"}


def test_no_tags():
    assert catalogue.tag_line([]) == ""
