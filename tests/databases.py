"""A real MariaDB server in a temporary folder, and the collectors that tests of the store run as processes of their own.

It imports little, so that such a process starts at once.
"""

import atexit
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pymysql
import sqlalchemy

import tagwright.store
from tagwright.store import Item, ItemStore, Work

PROCESSES = get_context("forkserver")  # a fork of the test run itself would inherit its threads and its connections
PROCESSES.set_forkserver_preload(["tagwright.store"])
# no waiting for the disk: these tests kill the server, not the machine
OPTIONS = ["--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--debug-no-sync", "--skip-log-bin",
           "--skip-name-resolve", "--performance-schema=OFF", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M",
           "--innodb-log-buffer-size=4M", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=1M"]


class MariaDb:
    """A context manager: the server runs inside it, and nothing of it is left afterwards."""

    def __init__(self):
        missing = [name for name in ("mariadbd", "mariadb-install-db") if not _program(name)]
        if missing:
            raise RuntimeError(f"{missing[0]} is not installed, which these tests need: apt-get install mariadb-server")
        self._user = getpass.getuser()
        self._password = secrets.token_urlsafe(12)
        self._process = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self) -> "MariaDb":
        self._folder = Path(tempfile.mkdtemp(prefix="mariadb-"))  # not pytest's: a socket's path must be short
        self.data = self._folder / "data"
        atexit.register(self.__exit__)  # for a test run that ends without tidying up
        try:
            # root of the server is the user who runs the tests, by the socket alone: no password-less door for others
            subprocess.run([_program("mariadb-install-db"), "--no-defaults", f"--datadir={self.data}", f"--user={self._user}",
                            "--auth-root-authentication-method=socket", f"--auth-root-socket-user={self._user}",
                            "--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=16M"],
                           check=True, stdout=(self._folder / "install.log").open("w"), stderr=subprocess.STDOUT)
            self.start()
            self._execute(f"CREATE USER tagwright@'127.0.0.1' IDENTIFIED BY '{self._password}'")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        atexit.unregister(self.__exit__)
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, on the data it had; returns when it answers."""
        with (self._folder / "server.log").open("a") as log:
            # setpriv: the server dies with the test run even where that is killed
            self._process = subprocess.Popen(
                [shutil.which("setpriv"), "--pdeathsig", "KILL", _program("mariadbd"), "--no-defaults",
                 f"--datadir={self.data}", f"--socket={self._socket}", f"--pid-file={self._folder / 'pid'}",
                 f"--port={self.port}", "--bind-address=127.0.0.1", f"--user={self._user}", *OPTIONS],
                stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while True:
            try:
                return self._execute("SELECT 1")
            except pymysql.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    tail = (self._folder / "server.log").read_text(errors="replace")[-3000:]
                    raise RuntimeError(f"MariaDB does not start: {error}\n{tail}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Kill the server, as a power cut would."""
        if self._process:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def new_database(self) -> str:
        """Create an empty database; returns its URL."""
        name = f"test_{secrets.token_hex(4)}"
        # a server's default may be anything: the store must not depend on it
        self._execute(f"CREATE DATABASE {name} CHARACTER SET latin1", f"GRANT ALL ON {name}.* TO tagwright@'127.0.0.1'")
        return f"mysql+pymysql://tagwright:{self._password}@127.0.0.1:{self.port}/{name}"

    @property
    def _socket(self) -> str:
        return str(self._folder / "socket")

    def _execute(self, *statements: str) -> None:
        with pymysql.connect(unix_socket=self._socket, user=self._user) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def execute(url: str, statement: str) -> None:
    """Change a database behind the store's back."""
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement))
    engine.dispose()


def make_item(id: str, site: str = "site", **fields) -> Item:
    values = {"url": f"https://site/{id}", "title": f"Title {id}", "body": f"<p>{id}</p>", "tags": ["a"], "score": 1,
              "created": 1_600_000_000, "source": "api"}
    return Item(site, id, **values | fields)


@contextmanager
def small_disk(folder: Path, size: str):
    """A file system of its own, mounted on a folder."""
    folder.mkdir(exist_ok=True)
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode:
        import pytest  # here, since the processes need none of it

        pytest.skip("a small disk can be mounted by root alone, and not in every container")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


# --- what runs in processes of its own ----------------------------------------------------------------------------


def run(target, *arguments):
    """Start a process that calls `target` with arguments."""
    process = PROCESSES.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def finish_all(processes: list, within: float) -> None:
    """Wait for processes, each of which must end well and in time."""
    deadline = time.monotonic() + within
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * len(processes)  # None: not in time


def open_together(url: str, barrier) -> None:
    barrier.wait(20)
    store = ItemStore(url)
    store.add([Work("site", "page", str(os.getpid()))])


def claim_and_wait(url: str) -> None:
    print(*(work.key for work in ItemStore(url).claim("site", "page", 2)), flush=True)
    time.sleep(60)


def claim_and_finish(store: ItemStore, log: Path) -> None:
    """Do all work three at a time, noting each in a file."""
    with log.open("w") as file:
        while works := store.claim("site", "page", 3):
            file.writelines(f"{work.key}\n" for work in works)
            store.finish(works, [make_item(work.key) for work in works])


def work_through(url: str, log: Path, barrier) -> None:
    store = ItemStore(url)
    barrier.wait(20)
    claim_and_finish(store, log)


def walk(url: str, pages: int, pipe=None) -> None:
    """Do all work as a crawler does: page n gives three items and leads to the pages 2n+1 and 2n+2."""
    store = ItemStore(url)
    if pipe:
        pipe.send("open")
    while works := store.claim("site", "page", 3):
        time.sleep(0.005)  # what fetching takes: else all were done before the last kill
        numbers = [int(work.key) for work in works]
        found = [Work("site", "page", str(number), number) for at in numbers for number in (2 * at + 1, 2 * at + 2)
                 if number < pages]
        store.finish(works, [make_item(f"{number}-{part}") for number in numbers for part in range(3)], found=found)


def take_turns(url: str, delay: float, turns: int, pipe) -> None:
    """Send the moments that were reserved: the store's own reading of the clock, plus what it said to wait."""
    store, clock = ItemStore(url), SimpleNamespace(now=0.0)
    clock.time = lambda: clock.__dict__.update(now=time.time()) or clock.now
    tagwright.store.time = clock
    pipe.send([store.turn("host", delay) + clock.now for _ in range(turns)])
