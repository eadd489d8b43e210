"""What the sources say of each listed test: a fingerprint, which changes when the test or what it
touches changes, a digest of its body, which stays when it is renamed or moved, and risks, which make
flakiness likelier. Sources are parsed, never run, each file once; what does not parse is taken as the
bytes it is.
"""

import ast
import gc
import hashlib
import os
import re
import sys
from collections import deque

from flakefarm_risks import Definitions, imports_of, statements_of

# Definitions looked through for the risks of one test: enough for a test and its helpers, few
# enough for a project in which everything calls everything.
REACH = 300
FOREIGN = ("site-packages", "dist-packages", ".tox", ".nox", "node_modules", "__pycache__")


def describe(items, root, configuration):
    """One description per item, in order. `configuration` counts as touched by all."""
    collecting = gc.isenabled()
    gc.disable()  # syntax trees are many, and none of them is garbage yet
    try:
        sources = Sources(root)
        base = digest(configuration)
        return [sources.describe(item, base) for item in items]
    finally:
        if collecting:
            gc.enable()


class Sources:
    """The project's files, each read once."""

    def __init__(self, root):
        self.root = os.path.realpath(root)
        self.files = {}
        self.surroundings = {}
        self.places = {}
        self.named = {}
        inside = [os.path.realpath(entry or ".") for entry in sys.path]
        self.bases = unique(
            [self.root, os.path.join(self.root, "src")] + [entry for entry in inside if self.is_ours(entry)]
        )

    def is_ours(self, path):
        if path != self.root and not path.startswith(self.root + os.sep):
            return False
        return not any(part in FOREIGN for part in path[len(self.root):].split(os.sep))

    def file(self, path):
        known = self.files.get(path)
        if known is None:
            known = self.files[path] = File(path)
        return known

    def describe(self, item, base):
        told = {"fingerprint": self.fingerprint(item, base), "risks": self.risks(item)}
        body = self.file(path_of(item)).body_digest(names_of(item))
        if body is not None:
            told["body"] = body
        return told

    # Fingerprints

    def fingerprint(self, item, base):
        path = path_of(item)
        file = self.file(path)
        return digest([base, file.own_digest(names_of(item)), self.surroundings_of(path)])

    def surroundings_of(self, path):
        """A digest of the conftest files on the path of a test file and of every project file that
        it or they import, directly or not."""
        known = self.surroundings.get(path)
        if known is not None:
            return known
        reached = set()
        waiting = self.imported_by(path) + self.conftests(path)
        while waiting:
            other = waiting.pop()
            if other not in reached and other != path:
                reached.add(other)
                waiting.extend(self.imported_by(other))
        parts = []
        for other in sorted(reached):
            parts += [os.path.relpath(other, self.root), self.file(other).digest]
        known = self.surroundings[path] = digest(parts)
        return known

    def conftests(self, path):
        found = []
        directory = os.path.dirname(path)
        while self.is_ours(directory):
            candidate = os.path.join(directory, "conftest.py")
            if os.path.isfile(candidate):
                found.append(candidate)
            if directory == self.root:
                break
            directory = os.path.dirname(directory)
        return found

    def imported_by(self, path):
        file = self.file(path)
        if file.imported is None:
            file.imported = []
            for module, names, level in file.imports:
                file.imported.extend(self.files_of(path, module, names, level))
        return file.imported

    def files_of(self, importer, module, names, level):
        """The project files that an import statement loads: packages on the way, the module, and
        the names that are modules themselves."""
        found = []
        directory, steps = os.path.dirname(importer), [part for part in module.split(".") if part]
        for _ in range(level - 1):
            directory = os.path.dirname(directory)
        for base in [directory] if level else unique(self.bases + [directory]):
            found = self.walk(base, steps)
            if found or level:
                for name in names:
                    found = found + self.walk(os.path.join(base, *steps), [name])
                break
        return found

    def walk(self, base, steps):
        found = []
        for step in steps:
            base = os.path.join(base, step)
            place = self.places.get(base)
            if place is None:
                candidates = (os.path.join(base, "__init__.py"), base + ".py")
                place = next((path for path in candidates if os.path.isfile(path)), "")
                self.places[base] = place = place if place and self.is_ours(place) else ""
            if place:
                found.append(place)
            elif not os.path.isdir(base):
                return found
        return found

    # Risks

    def risks(self, item):
        """Risks in the test's own code and in what it names, through helpers, fixtures and the code
        under test, as far as names tell."""
        path = path_of(item)
        names = names_of(item)
        waiting = deque((path, ".".join(names[:depth])) for depth in range(len(names), -1, -1))
        fixtures = [path] + self.conftests(path)
        for name in getattr(item, "fixturenames", ()):
            home = next((file for file in fixtures if name in self.file(file).definitions), None)
            if home is not None:
                waiting.append((home, name))
        risks, seen = set(), set()
        while waiting and len(seen) < REACH:
            place = waiting.popleft()
            if place in seen:
                continue
            seen.add(place)
            definition = self.file(place[0]).definitions.get(place[1])
            if definition is None:
                continue
            risks.update(definition.risks)
            waiting.extend(self.named_by(place, definition))
        return sorted(risks)

    def named_by(self, place, definition):
        """The places that the definition at `place` names, read once: most tests of a project come past the same."""
        known = self.named.get(place)
        if known is None:
            known = [meant for name in definition.names for meant in self.meant_by(place[0], name)]
            self.named[place] = known
        return known

    def meant_by(self, path, name):
        """The definitions in the project that a dotted name in `path` may stand for."""
        file = self.file(path)
        first, _, rest = name.partition(".")
        if first in file.definitions:
            return [(path, first)]
        bound = file.bound.get(first)
        if bound is None:
            return []
        module, attribute, level = bound
        chain = module.split(".") + [attribute or ""] + rest.split(".")
        chain = [part for part in chain if part]
        # The longest leading part that is a module; what follows is the definition.
        for cut in range(len(chain) - 1, -1, -1):
            files = self.files_of(path, ".".join(chain[:cut]), [], level)
            if files and (cut or level) and is_module(files[-1], chain[:cut]):
                return [(files[-1], chain[cut])]
        return []


class File:
    """One source file: its text, what it imports, what it defines."""

    def __init__(self, path):
        self.lines = []
        self.inside = set()
        self.tree = None
        self.imports = []
        self.imported = None
        self.bound = {}
        self.definitions = {}
        self.own = {}
        self.bodies = {}
        self.rest = None
        try:
            with open(path, "rb") as source:
                content = source.read()
        except OSError:
            content = b""
        self.digest = digest([content])
        if not path.endswith(".py"):
            return
        try:
            self.tree = ast.parse(content, path)
            text = content.decode("utf-8-sig")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            self.tree = None
            return
        statements = statements_of(self.tree)
        self.lines, self.inside = meaningful_lines(text, statements)
        self.digest = digest([line for line in self.lines if line is not None])
        self.imports, self.bound = imports_of(statements)
        self.definitions = Definitions(self.tree, self.bound)

    def own_digest(self, names):
        """A digest of what one test is: its code, and what its file holds beside other tests."""
        key = ".".join(names)
        if self.tree is None or not names:
            return self.digest
        known = self.own.get(key)
        if known is None:
            known = self.own[key] = self.digest_without_other_tests(names)
        return known

    def chain_of(self, names):
        """The classes around a test and its function; none if it is inherited, generated, or the
        interpreter is too old to say where definitions end."""
        chain, body = [], self.tree.body
        for name in names:
            # Of two definitions of one name, the later one counts.
            node = next((node for node in reversed(body) if getattr(node, "name", None) == name), None)
            if node is None or getattr(node, "end_lineno", None) is None:
                return None
            chain.append(node)
            body = getattr(node, "body", [])
        return chain

    def digest_without_other_tests(self, names):
        chain = self.chain_of(names)
        if chain is None:
            return self.digest  # all of the file
        parts = [self.text_of(chain[-1])]
        for node in chain[:-1]:
            parts += [self.text_of(child) for child in frame_of(node) if not is_test(child)]
            parts += [self.head_of(node)]
        if self.rest is None:
            kept = [self.text_of(node) for node in self.tree.body if not is_test(node)]
            self.rest = digest(kept)
        return digest(parts + [self.rest])

    def body_digest(self, names):
        """A digest of what a test does, whatever it is called and wherever it stands: its decorators,
        parameters and statements. None where that cannot be told, or there is nothing to tell it by."""
        if self.tree is None or not names:
            return None
        key = ".".join(names)
        if key not in self.bodies:
            chain = self.chain_of(names)
            self.bodies[key] = self.digest_of_body(chain[-1]) if chain else None
        return self.bodies[key]

    def digest_of_body(self, node):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
        body = node.body[1:] if says_only(node.body[0], str) else node.body
        if all(isinstance(child, ast.Pass) or says_only(child, type(Ellipsis)) for child in body):
            return None
        parts = [self.text_without_margin(each) for each in node.decorator_list]
        # As a method it has a `self` that it has not as a function.
        names = [each.arg for each in getattr(node.args, "posonlyargs", []) + node.args.args]
        parts.append(",".join(names[1:] if names[:1] in (["self"], ["cls"]) else names))
        parts.append(type(node).__name__)
        parts += [self.text_without_margin(child) for child in body]
        return digest(parts)

    def text_without_margin(self, node):
        """Its lines as if it stood at the left margin."""
        decorators = getattr(node, "decorator_list", [])
        start = min([node.lineno] + [decorator.lineno for decorator in decorators])
        margin = re.compile("[ \t]{0,%d}" % node.col_offset)
        lines = []
        for number in range(start - 1, node.end_lineno):
            line = self.lines[number]
            if line is None:
                continue
            if number == start - 1:
                # Offsets count bytes.
                line = line.encode("utf-8", "surrogatepass")[node.col_offset:].decode("utf-8", "replace")
            elif number not in self.inside:
                line = margin.sub("", line, count=1)
            lines.append(line)
        return "\n".join(lines)

    def head_of(self, node):
        first = min([node.lineno] + [decorator.lineno for decorator in node.decorator_list])
        return self.text_between(first, node.body[0].lineno - 1)

    def text_of(self, node):
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno] + [decorator.lineno for decorator in decorators])
        return self.text_between(first, getattr(node, "end_lineno", None) or len(self.lines))

    def text_between(self, first, last):
        return "\n".join(line for line in self.lines[first - 1:last] if line is not None)


def meaningful_lines(text, statements):
    """The lines of a file, none for those that say nothing to the interpreter, and the numbers of those
    within a string, which are part of it, whatever they look like."""
    lines = text.splitlines()
    inside = set()
    if '"""' in text or "'''" in text or "\\\n" in text:
        for statement in statements:
            for node in expressions_over_lines(statement):
                last = getattr(node, "end_lineno", None)
                if last is not None and last > node.lineno and isinstance(node, (ast.Constant, ast.JoinedStr)):
                    inside.update(range(node.lineno, last))
    for number, line in enumerate(lines):
        stripped = line.strip()
        if number not in inside and (not stripped or stripped.startswith("#")):
            lines[number] = None
        elif number not in inside:
            lines[number] = line.rstrip()
    return lines, inside


def expressions_over_lines(statement):
    """The expressions of a statement if its own part, without the statements in it, has several lines."""
    first, last = getattr(statement, "lineno", None), getattr(statement, "end_lineno", None)
    body = getattr(statement, "body", None)
    if isinstance(body, list) and body:
        last = getattr(body[0], "lineno", last)
    if first is None or last is None or last == first:
        return
    for child in ast.iter_child_nodes(statement):
        if not isinstance(child, (ast.stmt, ast.excepthandler)):
            for node in ast.walk(child):
                yield node


def is_test(node):
    """Whether a top-level or class-level node is a test, which other tests do not depend on."""
    name = getattr(node, "name", "")
    if isinstance(node, ast.ClassDef):
        return name.startswith("Test") or any("TestCase" in ast.dump(base) for base in node.bases)
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and name.startswith("test")


def says_only(node, kind):
    """Whether a statement is a constant of a kind, such as a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, kind)
    )


def frame_of(node):
    return [child for child in node.body if getattr(child, "lineno", None) is not None]


def is_module(path, chain):
    name = os.path.basename(path)
    return not chain or name == chain[-1] + ".py" or os.path.basename(os.path.dirname(path)) == chain[-1]


def path_of(item):
    return os.path.realpath(str(getattr(item, "path", None) or item.fspath))


def names_of(item):
    """Class and function names of a test, as the source has them."""
    _, _, names = item.nodeid.partition("::")
    return [name for name in names.split("[", 1)[0].split("::") if name.isidentifier()]


def unique(entries):
    return sorted(set(entries), key=entries.index)


def digest(parts):
    """A digest of texts that does not confuse ("ab", "c") with ("a", "bc")."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        hasher.update(b"%d:" % len(data))
        hasher.update(data)
    return hasher.hexdigest()
