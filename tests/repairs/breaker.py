"""Breaks packages in ways of which the right repair is known. Shares nothing with the repairer: refactorings are
those of rope (packages), and of `ast` where rope has none; the tests that rope changes along with the code are the
gold that repairs are compared with.

A breakage is two trees of texts, `old` and `new`, and the tests of `new` as they should become. In `new` the code has
changed and the tests have not.
"""

import ast
import dataclasses
import pathlib
import random
import re

import rope.base.project
import rope.base.libutils
from rope.refactor import change_signature, move, rename


class NotPossible(Exception):
    """The operator finds nothing to work on, or rope refuses."""


@dataclasses.dataclass
class Change:
    """One thing that was done to the code."""
    operator: str
    target: str  # its dotted path in the old code


def is_test(path):
    """Whether repairs may change the file: the same rule that people go by."""
    parts = pathlib.PurePosixPath(path)
    stem = parts.stem
    return (stem.startswith("test_") or stem.endswith("_test") or stem in ("conftest", "tests", "test")
            or any(part in ("tests", "test") for part in parts.parts[:-1]))


def sources(root):
    """The Python files below `root` that are part of the project, by path."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not re.match(r"(docs?|examples?|benchmarks?|bench|tools|scripts|build|setup\.py|\.)", name):
            try:
                found[name] = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
            except UnicodeDecodeError:
                continue
    return found


@dataclasses.dataclass
class Symbol:
    path: str  # the file
    name: str
    owner: str  # the class, or nothing
    kind: str  # function, method, class, constant
    node: ast.AST
    offset: int  # of the name, in characters


def module_name(path):
    parts = pathlib.PurePosixPath(path).with_suffix("").parts
    if parts[0] in ("src", "lib"):
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def offset_of(text, line, column):
    lines = text.split("\n")
    before = "\n".join(lines[:line - 1]) + ("\n" if line > 1 else "")
    return len(before) + len(lines[line - 1].encode()[:column].decode())


def symbols(files):
    """What the code (not the tests) defines, that somebody may rename."""
    found = []
    for path, text in files.items():
        if is_test(path) or path.endswith(("setup.py", "__main__.py", "_version.py")):
            continue
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        defined = {}
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                defined.setdefault(node.name, []).append(node)
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and len(defined[node.name]) == 1:
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                found.append(symbol(path, text, node, "", kind))
                if kind == "class":
                    for inner in node.body:
                        if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("__"):
                            found.append(symbol(path, text, inner, node.name, "method"))
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                name = node.targets[0]
                if not name.id.startswith("__"):
                    found.append(Symbol(path, name.id, "", "constant", node, offset_of(text, name.lineno, name.col_offset)))
    return found


def symbol(path, text, node, owner, kind):
    start = offset_of(text, node.lineno, node.col_offset)
    head = re.compile(r"(async\s+def|def|class)\s+").match(text, start)
    return Symbol(path, node.name, owner, kind, node, head.end())


def dotted(symbol):
    return ".".join(part for part in (module_name(symbol.path), symbol.owner, symbol.name) if part)


def named_in_tests(files):
    """How often each identifier stands in the tests."""
    counts = {}
    for path, text in files.items():
        if is_test(path):
            for word in re.findall(r"\w+", text):
                counts[word] = counts.get(word, 0) + 1
    return counts


WORDS = ["build", "make", "fetch", "apply", "load", "resolve", "derive", "emit", "assemble", "provide", "compose"]
ENDS = ["item", "entry", "value", "record", "part", "unit", "node", "piece", "data", "thing"]


def new_name(name, dice, taken):
    """Another name as people give them: a word more, a word less, another word, abbreviated."""
    private = re.match(r"_*", name).group()
    bare = name[len(private):]
    for _ in range(50):
        if bare.isupper():
            made = dice.choice(["DEFAULT_" + bare, bare + "_VALUE", "THE_" + bare, bare.replace("_", "") + "S"])
        elif bare[:1].isupper():
            made = dice.choice([dice.choice(ENDS).title() + bare, bare + dice.choice(ENDS).title(),
                                "Base" + bare, dice.choice(WORDS).title() + dice.choice(ENDS).title()])
        else:
            parts = bare.split("_")
            made = dice.choice([dice.choice(WORDS) + "_" + bare, bare + "_" + dice.choice(ENDS),
                                "_".join(parts[1:] + [dice.choice(ENDS)]) if len(parts) > 1 else dice.choice(WORDS) + "_" + bare,
                                dice.choice(WORDS) + "_" + dice.choice(ENDS)])
        if private + made not in taken and made.isidentifier():
            return private + made
    raise NotPossible("no name")


class Work:
    """A copy of the project on disk that rope works on."""

    def __init__(self, root, dice):
        self.root, self.dice = root, dice
        self.changes = []
        self.project = rope.base.project.Project(str(root), ropefolder=None, save_objectdb=False,
                                                 save_history=False, automatic_soa=False)

    def close(self):
        self.project.close()

    def files(self):
        return sources(self.root)

    def taken(self):
        return {word for text in self.files().values() for word in re.findall(r"\w+", text)}

    def pick(self, kinds, wanted=lambda symbol: True):
        files = self.files()
        used = named_in_tests(files)
        found = [s for s in symbols(files) if s.kind in kinds and used.get(s.name) and wanted(s)]
        touched = {change.target for change in self.changes}
        found = [s for s in found if dotted(s) not in touched]
        if not found:
            raise NotPossible("nothing to choose")
        return self.dice.choice(found)

    def resource(self, path):
        return rope.base.libutils.path_to_resource(self.project, str(self.root / path))

    def perform(self, changes):
        self.project.do(changes)

    def write(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        self.project.validate()


def strings_follow(work, old, new):
    """What rope leaves: dotted paths in strings of the tests, as mocks and import helpers take them."""
    pattern = re.compile(r"(?<=[\"'])" + re.escape(old) + r"(?=[\"'.])")
    for path, text in work.files().items():
        if is_test(path) and pattern.search(text):
            work.write(path, pattern.sub(new, text))


def last_names_follow(work, old, new):
    """`patch.object(x, "name")`, `setattr(x, "name", ...)`, where the name is that of one thing alone."""
    pattern = re.compile(r"((?:object|setattr|delattr|getattr|hasattr)\([\w.]+,\s*[\"'])" + re.escape(old) + r"(?=[\"'])")
    for path, text in work.files().items():
        if is_test(path) and pattern.search(text):
            work.write(path, pattern.sub(lambda match: match.group(1) + new, text))


def do_rename(work, kind):
    target = work.pick([kind])
    name = new_name(target.name, work.dice, work.taken())
    changer = rename.Rename(work.project, work.resource(target.path), target.offset)
    work.perform(changer.get_changes(name, docs=False))
    old = dotted(target)
    strings_follow(work, old, old[:len(old) - len(target.name)] + name)
    last_names_follow(work, target.name, name)
    return Change("rename_" + kind, old)


def rename_function(work):
    return do_rename(work, "function")


def rename_class(work):
    return do_rename(work, "class")


def rename_method(work):
    return do_rename(work, "method")


def rename_constant(work):
    return do_rename(work, "constant")


def parameters(symbol):
    names = [argument.arg for argument in symbol.node.args.args]
    return names[1:] if symbol.kind == "method" else names


def is_plain(symbol):
    """A function that rope understands: no decorators, no catch-alls."""
    arguments = symbol.node.args
    return not (symbol.node.decorator_list or arguments.posonlyargs or arguments.vararg or arguments.kwarg or arguments.kwonlyargs)


def rename_param(work):
    files = work.files()
    tests = "\n".join(text for path, text in files.items() if is_test(path))
    def by_name(symbol):
        return is_plain(symbol) and any(re.search(r"\b%s\([^()]*\b%s\s*=" % (symbol.name, name), tests) for name in parameters(symbol))
    target = work.pick(["function", "method"], by_name)
    name = work.dice.choice([n for n in parameters(target) if re.search(r"\b%s\([^()]*\b%s\s*=" % (target.name, n), tests)])
    argument = next(a for a in target.node.args.args if a.arg == name)
    offset = offset_of(files[target.path], argument.lineno, argument.col_offset)
    changer = rename.Rename(work.project, work.resource(target.path), offset)
    work.perform(changer.get_changes(new_name(name, work.dice, work.taken())))
    return Change("rename_param", dotted(target))


def signature_of(work, target):
    return change_signature.ChangeSignature(work.project, work.resource(target.path), target.offset)


def reorder_params(work):
    def enough(symbol):
        plain = is_plain(symbol) and len(parameters(symbol)) >= 2
        return plain and not symbol.node.args.defaults
    target = work.pick(["function", "method"], enough)
    count = len(target.node.args.args)
    first = count - len(parameters(target))
    order = list(range(first, count))
    while order == list(range(first, count)):
        work.dice.shuffle(order)
    signature = signature_of(work, target)
    work.perform(signature.get_changes([change_signature.ArgumentReorderer(list(range(first)) + order)]))
    return Change("reorder_params", dotted(target))


def add_required_param(work):
    target = work.pick(["function", "method"], lambda symbol: is_plain(symbol) and not symbol.node.args.defaults)
    name = work.dice.choice(["mode", "context", "limit", "options", "level"])
    if name in parameters(target):
        raise NotPossible("taken")
    value = work.dice.choice(["None", "0", "'plain'", "()"])
    first = len(target.node.args.args) - len(parameters(target))
    index = work.dice.randint(first, len(target.node.args.args))
    signature = signature_of(work, target)
    before = {path: text for path, text in work.files().items() if not is_test(path)}
    work.perform(signature.get_changes([change_signature.ArgumentAdder(index, name, None, value)]))
    # Only where the code itself shows the value: otherwise nobody could know it.
    after = work.files()
    shown = sum(after[path].count(value) for path in before) > sum(text.count(value) for text in before.values())
    if not shown and value != "None":
        raise NotPossible("no call shows the value")
    return Change("add_required_param", dotted(target))


def keyword_only(work):
    """The last parameter takes its argument by name only. Rope has none of that: calls are found by a unique name."""
    files = work.files()
    names = {}
    for s in symbols(files):
        names[s.name] = names.get(s.name, 0) + 1
    target = work.pick(["function"], lambda s: is_plain(s) and len(parameters(s)) >= 2 and names[s.name] == 1)
    last = target.node.args.args[-1]
    place = len(parameters(target)) - 1
    changed = 0
    for path, text in files.items():
        edits = []
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
                if called == target.name and len(node.args) > place:
                    if any(isinstance(a, ast.Starred) for a in node.args):
                        raise NotPossible("unpacked")
                    argument = node.args[place]
                    edits.append((offset_of(text, argument.lineno, argument.col_offset), last.arg + "="))
                    changed += is_test(path)
        if path == target.path:
            edits.append((offset_of(text, last.lineno, last.col_offset), "*, "))
        for offset, added in sorted(edits, reverse=True):
            text = text[:offset] + added + text[offset:]
        if edits:
            work.write(path, text)
    if not changed:
        raise NotPossible("no call by position")
    return Change("keyword_only", dotted(target))


def to_async(work):
    """A function that only tests call becomes a coroutine; without a plug-in for them, tests run it to its end."""
    files = work.files()
    code = "\n".join(text for path, text in files.items() if not is_test(path))
    def alone(s):
        simple = not any(isinstance(n, (ast.Yield, ast.YieldFrom)) for n in ast.walk(s.node))
        calls = len(re.findall(r"\b%s\b" % s.name, code))
        return simple and not s.node.decorator_list and len(re.findall(r"\bdef %s\b" % s.name, code)) == 1 and calls <= 3 \
            and not re.search(r"(?<!def )\b%s\(" % s.name, code)
    target = work.pick(["function"], alone)
    text = files[target.path]
    start = offset_of(text, target.node.lineno, target.node.col_offset)
    work.write(target.path, text[:start] + "async " + text[start:])
    changed = 0
    for path, text in files.items():
        if not is_test(path):
            continue
        edits = []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
                if called == target.name:
                    edits.append((offset_of(text, node.lineno, node.col_offset), 1, "asyncio.run("))
                    edits.append((offset_of(text, node.end_lineno, node.end_col_offset), 0, ")"))
        for offset, _, added in sorted(edits, reverse=True):
            text = text[:offset] + added + text[offset:]
        if edits:
            changed += 1
            if not re.search(r"^import asyncio$", text, re.M):
                text = with_import(text, "asyncio")
            work.write(path, text)
    if not changed:
        raise NotPossible("no call in tests")
    return Change("to_async", dotted(target))


def with_import(text, module):
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "__future__":
            at = offset_of(text, node.lineno, node.col_offset)
            return text[:at] + "import %s\n" % module + text[at:]
    return "import %s\n" % module + text


def rename_module(work):
    files = work.files()
    tests = "\n".join(text for path, text in files.items() if is_test(path))
    def named(path):
        stem = pathlib.PurePosixPath(path).stem
        return not is_test(path) and stem != "__init__" and len(pathlib.PurePosixPath(path).parts) > 1 and re.search(r"\b%s\b" % stem, tests)
    paths = [path for path in files if named(path)]
    if not paths:
        raise NotPossible("no module is named in tests")
    path = work.dice.choice(paths)
    name = new_name(pathlib.PurePosixPath(path).stem, work.dice, work.taken())
    old = module_name(path)
    changer = rename.Rename(work.project, work.resource(path), None)
    work.perform(changer.get_changes(name))
    strings_follow(work, old, old.rpartition(".")[0] + "." + name)
    return Change("move_module", old)


def move_function(work):
    """A function or class goes to another module, and is imported from there where it is used."""
    target = work.pick(["function", "class"], lambda s: len(pathlib.PurePosixPath(s.path).parts) > 1)
    directory = pathlib.PurePosixPath(target.path).parent
    others = [path for path in work.files() if pathlib.PurePosixPath(path).parent == directory and path != target.path
              and not path.endswith(("__init__.py", "__main__.py")) and not is_test(path)]
    if work.dice.random() < 0.5 or not others:
        destination = str(directory / (work.dice.choice(WORDS) + "_" + work.dice.choice(ENDS) + "s.py"))
        if (work.root / destination).exists():
            raise NotPossible("taken")
        work.write(destination, "")
    else:
        destination = work.dice.choice(others)
    changer = move.create_move(work.project, work.resource(target.path), target.offset)
    work.perform(changer.get_changes(work.resource(destination)))
    old = dotted(target)
    strings_follow(work, old, module_name(destination) + "." + target.name)
    return Change("move_symbol", old)


MOCKS = '''import importlib
from unittest import mock

import {module}


def test_{name}_is_replaced():
    with mock.patch("{module}.{name}", return_value="replaced") as replaced:
        assert {module}.{name}() == "replaced"
    replaced.assert_called_once_with()


def test_{name}_is_replaced_by_hand(monkeypatch):
    monkeypatch.setattr("{module}.{name}", lambda: "replaced")
    assert {module}.{name}() == "replaced"


def test_{name}_of_the_module(monkeypatch):
    module = importlib.import_module("{module}")
    monkeypatch.setattr({module}, "{name}", lambda: "replaced")
    assert module is {module}
    assert {module}.{name}() == "replaced"
'''


def mock_target(work):
    """Tests that replace a function by its path, and the function is renamed."""
    files = work.files()
    found = [s for s in symbols(files) if s.kind == "function" and re.fullmatch(r"[a-z][a-z_]+", s.name)
             and len(pathlib.PurePosixPath(s.path).parts) > 1 and not s.path.endswith("__init__.py")]
    if not found:
        raise NotPossible("no function")
    target = work.dice.choice(found)
    module = module_name(target.path)
    tests = sorted({str(pathlib.PurePosixPath(path).parent) for path in files if re.match(r"test_", pathlib.PurePosixPath(path).name)})
    path = (tests[0] + "/" if tests and tests[0] != "." else "") + "test_mocks_of_%s.py" % target.name
    work.write(path, MOCKS.format(module=module, name=target.name))
    work.before = {path: MOCKS.format(module=module, name=target.name)}
    name = new_name(target.name, work.dice, work.taken())
    changer = rename.Rename(work.project, work.resource(target.path), target.offset)
    work.perform(changer.get_changes(name, docs=False))
    old = dotted(target)
    strings_follow(work, old, old[:len(old) - len(target.name)] + name)
    last_names_follow(work, target.name, name)
    return Change("mock_target", old)


OPERATORS = {
    "rename_function": rename_function, "rename_class": rename_class, "rename_method": rename_method,
    "rename_constant": rename_constant, "rename_param": rename_param, "reorder_params": reorder_params,
    "add_required_param": add_required_param, "keyword_only": keyword_only, "to_async": to_async,
    "move_module": rename_module, "move_symbol": move_function, "mock_target": mock_target,
}
# Done the other way round: what was added is removed, what became a coroutine is none any more.
BACKWARDS = {"remove_param": "add_required_param", "from_async": "to_async"}


def noise(work):
    """Changes of bodies that change nothing, in a fifth of the functions, and a new function here and there."""
    for path, text in work.files().items():
        if is_test(path) or path.endswith("_version.py"):
            continue
        try:
            tree = ast.parse(text)
        except SyntaxError:
            continue
        lines = text.split("\n")
        edits = {}
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and work.dice.random() < 0.2:
                first = node.body[0]
                if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                    first = node.body[1]
                line = first.lineno - 1
                if getattr(first, "decorator_list", None) or lines[line][:first.col_offset].strip():
                    continue
                indent = lines[line][:first.col_offset]
                edits[line] = indent + work.dice.choice([
                    "# Looked at again: this is what callers rely on.",
                    "checked_here = True", "if False:\n%s    raise AssertionError(\"never\")" % indent,
                    "steps = [1, 2]; steps.reverse()"])
        for line, added in sorted(edits.items(), reverse=True):
            lines.insert(line, added)
        if work.dice.random() < 0.2:
            lines += ["", "", "def _%s_%s(first, second=None):" % (work.dice.choice(WORDS), work.dice.choice(ENDS)),
                      "    if second is None:", "        return first", "    return first, second", ""]
        made = "\n".join(lines)
        try:
            ast.parse(made)
        except SyntaxError:
            continue
        work.write(path, made)


class Mutation(ast.NodeVisitor):
    """Places in code where one small change makes a regression."""

    def __init__(self, text):
        self.text, self.found, self.around = text, [], []

    def add(self, start, end, made):
        self.found.append((start, end, made, ".".join(self.around)))

    def span(self, node):
        return (offset_of(self.text, node.lineno, node.col_offset), offset_of(self.text, node.end_lineno, node.end_col_offset))

    def visit_scope(self, node):
        self.around.append(node.name)
        self.generic_visit(node)
        self.around.pop()

    def visit_While(self, node):
        """Loops that never end are no regressions that a test could show."""

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = visit_scope

    def visit_Compare(self, node):
        swaps = {ast.Eq: "!=", ast.NotEq: "==", ast.Lt: ">=", ast.Gt: "<=", ast.LtE: ">", ast.GtE: "<",
                 ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is"}
        if len(node.ops) == 1 and self.around:
            left, right = self.span(node.left), self.span(node.comparators[0])
            if "(" not in self.text[left[1]:right[0]] and ")" not in self.text[left[1]:right[0]]:
                self.add(left[1], right[0], " %s " % swaps[type(node.ops[0])])
        self.generic_visit(node)

    def visit_BinOp(self, node):
        swaps = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*"}
        left, right = self.span(node.left), self.span(node.right)
        between = self.text[left[1]:right[0]]
        if type(node.op) in swaps and self.around and "(" not in between and ")" not in between:
            self.add(left[1], right[0], " %s " % swaps[type(node.op)])
        self.generic_visit(node)

    def visit_Return(self, node):
        if node.value is not None and self.around and not isinstance(node.value, ast.Constant):
            start, end = self.span(node.value)
            self.add(start, end, "None")
        self.generic_visit(node)

    def visit_Constant(self, node):
        if self.around and type(node.value) is int:
            start, end = self.span(node)
            self.add(start, end, str(node.value + 1))
        elif self.around and type(node.value) is bool:
            start, end = self.span(node)
            self.add(start, end, str(not node.value))


def mutate(work):
    """One first-order mutant of the code."""
    files = [(path, text) for path, text in work.files().items() if not is_test(path) and not path.endswith("_version.py")]
    found = []
    for path, text in files:
        try:
            visitor = Mutation(text)
            visitor.visit(ast.parse(text))
        except SyntaxError:
            continue
        found += [(path, text, *place) for place in visitor.found]
    if not found:
        raise NotPossible("nothing to mutate")
    path, text, start, end, made, around = work.dice.choice(found)
    made = text[:start] + made + text[end:]
    ast.parse(made)
    work.write(path, made)
    return Change("mutant", module_name(path) + "." + around)


FLAKY = '''import random


def test_a_coin_decides():
    assert random.random() < 0.5
'''
