"""A farm of processes for the drills: stores of its own on servers that run already (deploy/dev/services), coordinators,
and pods as the kubelet would run them. Everything that is started here is ended here."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def told(*_):
    # What was started is ended on this way, too.
    raise SystemExit("error: told to stop")


signal.signal(signal.SIGTERM, told)


def say(text):
    print("%s  %s" % (time.strftime("%H:%M:%S"), text), file=sys.stderr, flush=True)


def needed(variable):
    if not os.environ.get(variable):
        raise SystemExit("error: %s is not set\nhint: make scaling, make backup-drill and make upgrade-drill start the servers" % variable)
    return os.environ[variable]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, seconds, check):
    """The first true answer of `check`; an error that says what was waited for if there is none in time."""
    deadline, last = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            last = check()
            if last:
                return last
        except (OSError, urllib.error.URLError, ValueError) as error:
            last = error
        time.sleep(0.2)
    raise SystemExit("error: %s did not happen within %d s (last: %s)" % (what, seconds, last))


class Broker:
    """RabbitMQ through its management interface, as KEDA sees it."""

    def __init__(self, address):
        parts = urllib.parse.urlsplit(address)
        self.base = "http://%s:%d" % (parts.hostname, parts.port)
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, self.base, parts.username, parts.password)
        # The servers are this machine's: no proxy.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(passwords))

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"}, method=method)
        with self.opener.open(request, timeout=20) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def vhost(self, name):
        self.ask("PUT", "/api/vhosts/" + name, {})
        self.ask("PUT", "/api/permissions/%s/guest" % name, {"configure": ".*", "write": ".*", "read": ".*"})

    def remove_vhost(self, name):
        self.ask("DELETE", "/api/vhosts/" + name)

    def messages(self, vhost, queues):
        """Of each queue, those that workers have in hand included."""
        found = {}
        for queue in queues:
            try:
                found[queue] = self.ask("GET", "/api/queues/%s/%s" % (vhost, queue)).get("messages", 0)
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                found[queue] = 0
        return found


class Farm:
    """Addresses, a directory, and the processes that belong to it."""

    def __init__(self, binary, name):
        self.binary, self.name = str(pathlib.Path(binary).resolve()), "%s-%d" % (name, os.getpid())
        # Sockets lie below it: a short path.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ffdrill."))
        self.processes = []
        self.broker = Broker(needed("FLAKEFARM_TEST_AMQP_MANAGEMENT"))
        self.broker.vhost(self.name)
        queue = urllib.parse.urlsplit(needed("FLAKEFARM_TEST_AMQP_URL"))
        database = urllib.parse.urlsplit(needed("FLAKEFARM_TEST_PG_URL"))
        self.psql("CREATE DATABASE \"%s\"" % self.name)
        (self.dir / "blobs").mkdir()
        self.addresses = {
            "FLAKEFARM_DATABASE": database._replace(path="/" + self.name).geturl(),
            "FLAKEFARM_QUEUE": queue._replace(path="/" + self.name).geturl(),
            "FLAKEFARM_SAMPLES": needed("FLAKEFARM_TEST_REDIS_URL"),
            "FLAKEFARM_BLOBS": "file://%s/blobs" % self.dir,
            "FLAKEFARM_LOG_FORMAT": "json",
        }
        self.url, self.token = None, None

    def psql(self, statement, database=None):
        address = urllib.parse.urlsplit(needed("FLAKEFARM_TEST_PG_URL"))
        if database:
            address = address._replace(path="/" + database)
        done = subprocess.run([postgres("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", address.geturl(), "-c", statement], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit("error: %s: %s" % (statement, done.stderr.strip()))
        return done.stdout.strip()

    def environment(self, **more):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLAKEFARM_") or name in ("FLAKEFARM_EXTRA_CA_CERTIFICATES",)}
        return {**kept, **self.addresses, "FLAKEFARM_STATE": str(self.dir / "state"), **more}

    def spawn(self, name, command, **more):
        log = open(self.dir / (name + ".log"), "ab")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(**more), start_new_session=True)
        log.close()
        self.processes.append(process)
        return process

    def coordinator(self, name, binary=None, **more):
        port = free_port()
        process = self.spawn(name, [binary or self.binary, "coordinator", "--listen", "127.0.0.1:%d" % port], **more)
        url = "http://127.0.0.1:%d" % port
        eventually("%s answers" % name, 120, lambda: alive(process, self.log(name)) and fetch(url + "/healthz"))
        if self.url is None:
            self.url = url
        if self.token is None:
            # By the same version: a newer one would migrate the database.
            self.token = self.run("token", "create", "--kind", "admin", "--label", "drill", binary=binary).strip()
        return process, url

    def log(self, name):
        return self.dir / (name + ".log")

    def run(self, *arguments, check=True, url=None, binary=None, **more):
        """A command for people, against this farm."""
        farm = {"FLAKEFARM_FARM": url or self.url, "FLAKEFARM_TOKEN": self.token} if self.token else {}
        done = subprocess.run([binary or self.binary, *arguments], capture_output=True, text=True, env=self.environment(**farm, **more))
        if check and done.returncode != 0:
            raise SystemExit("error: flakefarm %s: %s" % (" ".join(arguments), done.stderr.strip()))
        return done.stdout

    def api(self, path, url=None):
        return json.loads(fetch((url or self.url) + path, self.token))

    def report(self, sweep):
        return json.loads(self.run("report", sweep, "--format", "json"))

    def submit(self, project, *options):
        """A sweep's id."""
        said = self.run("sweep", str(project), "--detach", *options)
        return re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", said)[0]

    def state(self, sweep, url=None):
        return self.api("/v1/sweeps/" + sweep, url)

    def waiting(self, seconds):
        """A project whose ten tests only wait that long."""
        project = self.dir / "waiting"
        shutil.copytree(HERE / "waiting", project)
        # Earlier drills have left samples of their own.
        settings = project / "flakefarm.toml"
        settings.write_text(settings.read_text().replace('"waiting"', '"%s"' % self.name))
        test = project / "tests/test_waiting.py"
        test.write_text(test.read_text().replace("SECONDS = 1.0", "SECONDS = %r" % seconds))
        return project

    def recorded(self, sweep):
        """Attempts that a sweep knows of."""
        return self.api("/v1/sweeps/%s/report" % sweep)["sweep"]["attempts"]

    def history(self, test):
        """Samples of a test that the store has."""
        told = json.loads(self.run("history", test, "--project", self.name, "--format", "json"))
        return sum(day["runs"] for kind in told["classes"] for day in kind["days"])

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for remove in (lambda: self.broker.remove_vhost(self.name), lambda: self.psql('DROP DATABASE IF EXISTS "%s" WITH (FORCE)' % self.name)):
            try:
                remove()
            except (OSError, SystemExit) as error:
                say("left behind: %s" % error)
        shutil.rmtree(self.dir, ignore_errors=True)


def alive(process, log):
    if process.poll() is not None:
        tail = log.read_text(errors="replace").splitlines()[-5:]
        raise SystemExit("error: a process ended at its start (%d):\n%s" % (process.returncode, "\n".join(tail)))
    return True


def postgres(program):
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/" + program), key=lambda path: int(path.parts[4]))
    return str(found[-1]) if found else program


def fetch(url, token=None, method="GET"):
    request = urllib.request.Request(url, headers={"authorization": "Bearer " + token} if token else {}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        return answer.read().decode() or "{}"


class Pod:
    """One worker with its engine beside it, as the kubelet runs them: the engine is started and has answered before the
    worker is; told to leave, the worker drains (preStop), is sent SIGTERM, and is killed only when its grace is over;
    the engine ends after it."""

    def __init__(self, farm, name, slots, grace, worker_grace, wait, binary=None, **more):
        self.farm, self.name, self.slots, self.grace = farm, name, slots, grace
        self.created, self.ready_at, self.told_at, self.gone_at = time.monotonic(), None, None, None
        self.killed, self.code, self.prestop, self.signalled, self.asked_at = False, None, None, False, 0.0
        self.binary, self.wait = binary or farm.binary, wait
        self.dir = farm.dir / name
        self.dir.mkdir()
        self.socket = self.dir / "docker.sock"
        real = urllib.parse.urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock").path
        self.engine = farm.spawn(name + "-engine", [sys.executable, str(HERE / "engine.py"), str(self.socket), real])
        self.worker = None
        self.health = "127.0.0.1:%d" % free_port()
        self.more = {"DOCKER_HOST": "unix://%s" % self.socket, "FLAKEFARM_STATE": str(self.dir / "state"), "FLAKEFARM_SPOOL": str(self.dir / "spool"), "FLAKEFARM_WORKER_ID": name, "FLAKEFARM_SLOTS": str(slots),
                     "FLAKEFARM_GRACE": worker_grace, "FLAKEFARM_HEALTH_LISTEN": self.health, **more}

    def is_there(self):
        return self.gone_at is None

    def is_ready(self):
        return self.ready_at is not None and self.told_at is None

    def step(self):
        """Whatever is due; never waits."""
        now = time.monotonic()
        if self.gone_at is not None:
            return
        if self.worker is None and self.told_at is None:
            # Startup probe of the sidecar.
            if self.socket.exists():
                self.worker = self.farm.spawn(self.name, [self.binary, "worker"], **self.more)
            return
        if self.worker is not None and self.ready_at is None and self.told_at is None and self.is_known(now):
            self.ready_at = now
        if self.told_at is None:
            if self.worker.poll() is not None:
                raise SystemExit("error: %s ended by itself (%s): see its log\n%s" % (self.name, self.worker.returncode, self.farm.log(self.name).read_text(errors="replace")[-2000:]))
            return
        if self.worker is not None and self.worker.poll() is None:
            if self.prestop is not None and self.prestop.poll() is not None and not self.signalled:
                self.worker.terminate()
                self.signalled = True
            if now - self.told_at > self.grace:
                self.killed = True
                self.worker.kill()
            return
        self.code = self.worker.returncode if self.worker else 0
        if self.engine.poll() is None:
            self.engine.terminate()
            return
        self.gone_at = now

    def is_known(self, now):
        """Whether the farm lists it: what its readiness says, and of versions without a health port, too. Asked once a
        second."""
        if now - self.asked_at < 1:
            return False
        self.asked_at = now
        return any(worker["id"] == self.name for worker in self.farm.api("/v1/workers")["workers"])

    def tell(self):
        """Deleted: preStop first, then the signal."""
        self.told_at = time.monotonic()
        if self.worker is None:
            return
        # Whatever comes of it, the signal follows: so the kubelet does.
        self.prestop = self.farm.spawn(self.name + "-prestop", [self.binary, "probe", "drain", "--wait", self.wait], **self.more)

    def seconds(self, until):
        return (self.gone_at or until) - self.created
