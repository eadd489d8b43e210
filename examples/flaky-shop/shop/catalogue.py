"""Tags of products."""


def tag_line(tags):
    """Distinct tags, in no particular order: that is the defect."""
    return ", ".join(set(tags))


def sorted_tag_line(tags):
    return ", ".join(sorted(set(tags)))
