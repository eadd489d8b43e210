"""Finds in the source of Python functions what makes tests flaky more often than others. It reads
names, so it misses what is passed around under another name and blames what is never reached: good
for a guess at where to look first, and used for nothing else.
"""

import ast

# By the longest dotted name that fits; "" for what looks risky and is not.
NAMED = {
    "sleep": "time.sleep asyncio.sleep trio.sleep anyio.sleep gevent.sleep eventlet.sleep",
    "concurrency": "threading _thread multiprocessing concurrent.futures asyncio trio anyio gevent eventlet "
    "twisted queue sched joblib celery",
    "clock": "time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter "
    "time.perf_counter_ns time.process_time time.localtime time.gmtime time.ctime time.strftime "
    "datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today "
    "django.utils.timezone.now timeit pandas.Timestamp.now pandas.Timestamp.today arrow.now "
    "arrow.utcnow pendulum.now",
    "network": "socket ssl http.client http.server socketserver urllib.request urllib3 requests httpx aiohttp "
    "ftplib smtplib imaplib telnetlib xmlrpc websocket websockets grpc boto3 botocore paramiko redis "
    "psycopg psycopg2 pymysql pymongo pika kafka asyncpg elasticsearch",
    "randomness": "random secrets uuid.uuid1 uuid.uuid4 numpy.random os.urandom os.getrandom torch.rand "
    "torch.randn torch.randint torch.randperm faker hypothesis factory",
    "unordered": "os.listdir os.scandir os.walk glob.glob glob.iglob hash id",
    "subprocess": "subprocess os.system os.popen os.fork os.kill os.spawnl os.spawnv os.execv signal pexpect "
    "multiprocessing.Process",
    "temporary_files": "tempfile",
    "shared_state": "os.putenv os.unsetenv os.chdir os.umask os.environ.update os.environ.setdefault "
    "os.environ.pop os.environ.clear sys.path.insert sys.path.append sys.modules.pop locale.setlocale "
    "sys.setrecursionlimit",
    "": "random.seed random.Random numpy.random.seed numpy.random.RandomState numpy.random.default_rng "
    "asyncio.iscoroutinefunction time.strptime requests.exceptions socket.AF_INET signal.SIGTERM",
}
RISK_OF = dict((name, risk) for risk, names in NAMED.items() for name in names.split())

# Their result does not depend on the order in which they are given things.
CALM = {"sorted", "set", "frozenset", "len", "sum", "min", "max", "any", "all", "Counter", "dict"}
ORDERING = {"list", "tuple", "enumerate", "iter", "next", "zip", "map", "filter", "reversed"}
LISTING_METHODS = {"iterdir", "glob", "rglob"}
CHANGING_METHODS = {
    "append", "extend", "insert", "remove", "pop", "clear", "add", "discard", "update", "setdefault", "popitem",
}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Definition:
    """A function, a class with what is no test in it, or a module's own statements (named "")."""

    __slots__ = ("risks", "names")

    def __init__(self):
        self.risks = set()
        self.names = set()


def statements_of(tree):
    """All statements, without a look into expressions: a tenth of the nodes."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                waiting.extend(inner)
    return found


def imports_of(statements):
    """The import statements, as `(module, names, level)`, and what each local name is bound to, as
    `(module, attribute or None, level)`."""
    imports, bound = [], {}
    for node in statements:
        if isinstance(node, ast.Import):
            for alias in node.names:
                imports.append((alias.name, [], 0))
                if alias.asname:
                    bound[alias.asname] = (alias.name, None, 0)
                else:
                    first = alias.name.split(".", 1)[0]
                    bound[first] = (first, None, 0)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            imports.append((node.module or "", names, node.level))
            for alias in node.names:
                bound[alias.asname or alias.name] = (node.module or "", alias.name, node.level)
        elif isinstance(node, ast.Assign) and any(name_of(target) == "pytest_plugins" for target in node.targets):
            for child in ast.walk(node.value):
                plugin = getattr(child, "value", getattr(child, "s", None))
                if isinstance(plugin, str):
                    imports.append((plugin, [], 0))
    return imports, bound


class Definitions:
    """What a file defines, by dotted name; each is read when it is first asked for."""

    def __init__(self, tree, bound):
        self.bound = bound
        self.shared = set()
        self.nodes = {}
        self.read = {}
        own = []
        for node in tree.body:
            if isinstance(node, FUNCTIONS):
                self.nodes[node.name] = [node]
            elif isinstance(node, ast.ClassDef):
                self.add_class(node, node.name)
            elif not isinstance(node, (ast.Import, ast.ImportFrom)):
                own.append(node)
                for target in getattr(node, "targets", [getattr(node, "target", None)]):
                    self.shared.add(name_of(target))
        self.shared.discard(None)
        self.nodes[""] = own

    def add_class(self, node, name):
        own = self.nodes[name] = list(node.bases) + list(node.decorator_list)
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                self.add_class(child, name + "." + child.name)
            elif isinstance(child, FUNCTIONS) and child.name.startswith("test"):
                self.nodes[name + "." + child.name] = [child]
            else:
                own.append(child)

    def __contains__(self, name):
        return name in self.nodes

    def get(self, name):
        known = self.read.get(name)
        if known is None and name in self.nodes:
            known = self.read[name] = Definition()
            for node in self.nodes[name]:
                # What a module does to its own names as it is loaded is no sharing.
                Reader(self.bound, self.shared if name else set(), known).read(node)
        return known


class Reader(ast.NodeVisitor):
    """Collects the risks of one definition and the names it uses."""

    def __init__(self, bound, shared, found):
        self.bound = bound
        self.shared = shared
        self.sets = set()
        self.found = found
        self.calm = False

    def read(self, node):
        if isinstance(node, FUNCTIONS):
            own = set(arg.arg for arg in node.args.args + node.args.kwonlyargs)
            declared = set(name for child in ast.walk(node) if isinstance(child, ast.Global) for name in child.names)
            for child in ast.walk(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    own.add(child.id)
            self.shared = (self.shared - own) | declared
            self.found.names.update(arg.arg for arg in node.args.args)
        self.visit(node)

    def risk(self, risk):
        if risk:
            self.found.risks.add(risk)

    # Names

    def visit_Name(self, node):
        self.named(node, node.id)

    def visit_Attribute(self, node):
        name = dotted(node)
        if name is None:
            self.generic_visit(node)
        else:
            self.named(node, name)

    def named(self, node, name):
        self.found.names.add(name)
        first, _, rest = name.partition(".")
        bound = self.bound.get(first)
        if bound is not None:
            module, attribute, level = bound
            if level:
                return  # of the project itself
            known = ".".join(part for part in (module, attribute, rest) if part)
        elif first in ("hash", "id") and not rest:
            return  # calls count, see below
        else:
            return
        if self.calm and risk_of(known) == "unordered":
            return
        self.risk(risk_of(known))
        if isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)) and rest:
            self.risk("shared_state")

    def visit_Call(self, node):
        name = name_of(node.func)
        if name in ("hash", "id") and name not in self.bound and len(node.args) == 1:
            self.risk("unordered")
        if isinstance(node.func, ast.Attribute):
            method, on = node.func.attr, name_of(node.func.value)
            if method in LISTING_METHODS and not self.calm and self.bound.get(on, ("",))[0] != "glob":
                self.risk("unordered")
            if on in self.shared and method in CHANGING_METHODS:
                self.risk("shared_state")
            if method == "pop" and not node.args and self.is_set(node.func.value):
                self.risk("unordered")
            if method == "join" and node.args:
                self.taken_in_order(node.args[0])
        if name in ORDERING:
            for argument in node.args:
                self.taken_in_order(argument)
        before = self.calm
        self.visit(node.func)
        self.calm = before or name in CALM
        for argument in node.args + [keyword.value for keyword in node.keywords]:
            self.visit(argument)
        self.calm = before

    # Order

    def taken_in_order(self, node):
        if self.is_set(node) and not self.calm:
            self.risk("unordered")

    def is_set(self, node):
        if isinstance(node, (ast.Set, ast.SetComp)):
            return True
        if isinstance(node, ast.Call):
            return name_of(node.func) in ("set", "frozenset")
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.BitXor, ast.Sub)):
            return self.is_set(node.left) or self.is_set(node.right)
        return name_of(node) in self.sets

    def visit_For(self, node):
        self.taken_in_order(node.iter)
        self.generic_visit(node)

    visit_AsyncFor = visit_For

    def visit_comprehension(self, node):
        self.taken_in_order(node.iter)
        self.generic_visit(node)

    def visit_SetComp(self, node):
        before, self.calm = self.calm, True
        self.generic_visit(node)
        self.calm = before

    # State

    def visit_Assign(self, node):
        for target in node.targets:
            name = name_of(target)
            if name is not None and self.is_set(node.value):
                self.sets.add(name)
            self.stored(target)
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        self.stored(node.target)
        self.generic_visit(node)

    def visit_Delete(self, node):
        for target in node.targets:
            self.stored(target)
        self.generic_visit(node)

    def stored(self, target):
        if isinstance(target, ast.Subscript):
            on = dotted(target.value)
            bound = self.bound.get((on or "").split(".", 1)[0])
            if on in self.shared or (on and bound is not None):
                self.risk("shared_state")

    def visit_Global(self, node):
        self.risk("shared_state")

    # Forms

    def visit_AsyncFunctionDef(self, node):
        self.risk("concurrency")
        self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, str) and node.value.startswith(("/tmp/", "/var/tmp/", "/dev/shm/")):
            self.risk("temporary_files")


def risk_of(name):
    while name:
        risk = RISK_OF.get(name)
        if risk is not None:
            return risk
        name = name.rpartition(".")[0]
    return ""


def name_of(node):
    return node.id if isinstance(node, ast.Name) else None


def dotted(node):
    """`a.b.c` of an attribute of a name; none of anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id] + parts[::-1])
