"""What is on the shelves. Loaded once per process, by whoever asks first."""

_shelves = {}


def load(lines):
    for line in lines:
        name, count = line.split(":")
        _shelves[name.strip()] = int(count)
    return len(_shelves)


def count(name):
    return _shelves.get(name, 0)


def parse(line):
    name, count = line.split(":")
    return name.strip(), int(count)
