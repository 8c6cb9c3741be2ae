"""A Dockerfile's steps without a Docker engine: each stage is an overlay over this machine's own root, in which the steps run
as in a build, and a container is a process in namespaces of its own with the stage as its root. The base image, then, is this
machine with its Python: what a slimmer one lacks does not show. Needs Linux and root."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MOUNT = 'mount -t overlay overlay -o "lowerdir=/,upperdir=$UPPER,workdir=$WORK" "$MERGED"'


def allowed(folder: Path) -> bool:
    """Whether this process may make namespaces, and mount overlays that lie in `folder`."""
    if not shutil.which("unshare"):
        return False
    places = {name.upper(): str(folder / name) for name in ("upper", "work", "merged")}
    for place in places.values():
        Path(place).mkdir()
    probe = ["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-c", MOUNT]
    return subprocess.run(probe, env=os.environ | places, capture_output=True).returncode == 0


@dataclass
class Stage:
    """What a stage says; once it is built, `upper` is the folder with what differs from this machine's root."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    upper: Path | None = None
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": SYSTEM_PATH})
    settings: dict[str, str] = field(default_factory=dict)  # the last of WORKDIR, USER, ENTRYPOINT, CMD, HEALTHCHECK, …

    def words(self, instruction: str) -> list[str]:
        """The command of ENTRYPOINT, CMD or HEALTHCHECK, which is in JSON's form."""
        return json.loads(re.search(r"\[.*\]$", self.settings[instruction])[0])


def parse(dockerfile: Path) -> dict[str, Stage]:
    lines = [line for line in dockerfile.read_text(encoding="utf8").splitlines() if not line.lstrip().startswith("#")]
    stages: dict[str, Stage] = {}
    for step in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        instruction, _, rest = step.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = rest.split()
            stage = stages[name] = Stage(name, base)
        elif instruction:
            stage.steps.append((instruction, rest.strip()))
    return stages


def context(root: Path) -> list[Path]:
    """The files that .dockerignore lets into the build, relative to `root`. The last pattern that fits a file, or a folder
    above it, decides."""
    patterns = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".venv", ".git"))]  # big, and never let in
        files += [Path(folder, name).relative_to(root) for name in names]
    return [file for file in files if not _ignored(file, patterns)]


def _ignored(file: Path, patterns: list[str]) -> bool:
    ignored = False
    for pattern in patterns:
        form = re.escape(pattern.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(form, str(path)) for path in (file, *file.parents)):
            ignored = not pattern.startswith("!")
    return ignored


class Builder:
    """Builds stages below `folder` from the files of `root`."""

    def __init__(self, stages: dict[str, Stage], root: Path, folder: Path):
        self.stages, self.root, self.folder = stages, root, folder
        self.context = folder / "context"
        for file in context(root):
            (self.context / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / file, self.context / file)

    def build(self, name: str) -> Stage:
        stage = self.stages[name]
        if stage.upper:
            return stage
        stage.upper = self.folder / name
        if stage.base in self.stages:
            base = self.build(stage.base)
            subprocess.run(["cp", "-a", base.upper, stage.upper], check=True)  # an overlay cannot lie on a part of its base
            stage.environment, stage.settings = dict(base.environment), dict(base.settings)
        else:
            stage.upper.mkdir()
            self._python(stage)
        for instruction, rest in stage.steps:
            if instruction == "RUN":
                self._run(stage, ["sh", "-c", rest])
            elif instruction == "COPY":
                self._copy(stage, rest)
            elif instruction == "ENV":
                pairs = [word.partition("=") for word in shlex.split(rest)]
                stage.environment |= {key: value.replace("$PATH", stage.environment["PATH"]) for key, _, value in pairs}
            else:
                stage.settings[instruction] = rest
        return stage

    def _python(self, stage: Stage) -> None:
        """The base image's `python`, which is this machine's, and which every user may start."""
        python = Path(os.path.realpath(sys._base_executable))
        shim = f'#!/bin/sh\nexec {python} "$@"\n'
        folders = " ".join(map(str, python.parents))
        self._inside(stage, f'printf %s "$0" > "$MERGED/usr/local/bin/python" && chmod 755 "$MERGED/usr/local/bin/python" && '
                            f'for folder in {folders}; do chmod o+x "$MERGED$folder"; done', [shim])

    def _run(self, stage: Stage, command: list[str]) -> None:
        environment = stage.environment | {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        self._inside(stage, 'mount --bind /dev "$MERGED/dev" && mount --bind /proc "$MERGED/proc" && '
                            'mount -t tmpfs tmpfs "$MERGED/tmp" && mount -t tmpfs tmpfs "$MERGED$PROJECT" && '
                            'exec chroot "$MERGED" env -i -C / "$0" "$@"',
                     [*(f"{key}={value}" for key, value in environment.items()), *command])

    def _copy(self, stage: Stage, rest: str) -> None:
        *sources, target = [word for word in rest.split() if not word.startswith("--")]
        origin = re.search(r"--from=(\S+)", rest)
        where = self._view(self.build(origin[1])) if origin else {"FROM": str(self.context)}
        view = 'mount -t overlay overlay -o "lowerdir=/,upperdir=$FROM_UPPER,workdir=$FROM_WORK" "$FROM" && ' if origin else ""
        for source in sources:
            name = source.strip("/")
            into = f"{target.rstrip('/')}/{Path(name).name}" if target.endswith("/") else target
            copy = 'if [ -d "$FROM/$0" ]; then mkdir -p "$MERGED$1" && cp -a "$FROM/$0/." "$MERGED$1"; ' \
                   'else mkdir -p "$(dirname "$MERGED$1")" && cp -a "$FROM/$0" "$MERGED$1"; fi'
            self._inside(stage, view + copy, [name, into], where)

    def _view(self, stage: Stage) -> dict[str, str]:
        for name in ("view", "view-work"):
            (self.folder / name).mkdir(exist_ok=True)
        return {"FROM": str(self.folder / "view"), "FROM_WORK": str(self.folder / "view-work"), "FROM_UPPER": str(stage.upper)}

    def _inside(self, stage: Stage, script: str, arguments: list[str], environment: dict[str, str] | None = None) -> None:
        """Run a shell script, with the stage's root mounted at $MERGED."""
        for name in ("work", "merged"):
            (self.folder / name).mkdir(exist_ok=True)
        places = {"UPPER": str(stage.upper), "WORK": str(self.folder / "work"),
                  "MERGED": str(self.folder / "merged"), "PROJECT": str(self.root)}
        result = subprocess.run(["unshare", "--mount", "sh", "-ec", f"{MOUNT} && {script}", *arguments], text=True,
                                env=os.environ | places | (environment or {}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert result.returncode == 0, f"{stage.name}: {script} {arguments}\n{result.stdout[-4000:]}"


class Container:
    """A running stage. Further commands run beside its first process, as its user and with its environment."""

    def __init__(self, process: subprocess.Popen, log: Path, user: list[str], environment: list[str], check: list[str]):
        self.process, self.log, self.user, self.environment, self.check = process, log, user, environment, check

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run([*self._beside(), *command], capture_output=True, text=True, timeout=90)

    def start(self, *command: str) -> None:
        """Start a program that ends with the container."""
        with self.log.open("a") as log:
            subprocess.Popen([*self._beside(), *command], stdout=log, stderr=subprocess.STDOUT)

    def _beside(self) -> list[str]:
        children = []
        while not children:
            assert self.process.poll() is None, self.log.read_text()
            children = psutil.Process(self.process.pid).children()
        enter = ["nsenter", "--target", str(children[0].pid), "--mount", "--net", "--pid", "--root", "--wd"]
        return [*enter, *self.user, "env", "-i", *self.environment]

    def wait_until_healthy(self, seconds: float = 60, check: list[str] | None = None) -> None:
        """Wait until the stage's HEALTHCHECK, or `check`, succeeds."""
        end = time.monotonic() + seconds
        while (done := self.run(*(check or self.check))).returncode:
            assert time.monotonic() < end, done.stderr + self.log.read_text()
            time.sleep(1)


@contextmanager
def container(stage: Stage, folder: Path, command: list[str], tmpfs: list[str], shown: dict[str, Path],
              environment: dict[str, str]):
    """The stage, started as with `docker run --read-only --cap-drop ALL --security-opt no-new-privileges`: its root can't be
    written, its VOLUME is a new one, at the paths of `shown` are folders of this machine that can be read, and nothing but its
    own loopback can be reached."""
    merged, volume, work, log = (folder / f"container{suffix}" for suffix in ("", ".volume", ".work", ".log"))
    for path in (merged, volume, work):
        path.mkdir()
    user = stage.settings["USER"]
    users = [line.split(":") for line in (stage.upper / "etc/passwd").read_text().splitlines()]
    group, = (gid for _, _, uid, gid, *_ in users if uid == user)
    drop = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs", "--bounding-set=-all",
            "--inh-caps=-all"]
    script = (f'{MOUNT} && ip link set lo up && cp -a "$MERGED$DATA/." "$VOLUME" && '
              'chown --reference="$MERGED$DATA" "$VOLUME" && for place in $SHOWN; do mkdir -p "$MERGED${place%%=*}" && '
              'mount --bind -o ro "${place#*=}" "$MERGED${place%%=*}"; done && mount -o remount,ro "$MERGED" && '
              'mount --bind "$VOLUME" "$MERGED$DATA" && '
              'for place in $TMPFS; do mount -t tmpfs -o mode=1777 tmpfs "$MERGED$place"; done && '
              'mount --bind /dev "$MERGED/dev" && mount -t proc proc "$MERGED/proc" && '
              'mount -t tmpfs tmpfs "$MERGED$PROJECT" && exec chroot "$MERGED" env -i -C "$WORKDIR" "$0" "$@"')
    variables = [f"{key}={value}" for key, value in (stage.environment | environment).items()]
    places = {"UPPER": str(stage.upper), "WORK": str(work), "MERGED": str(merged), "DATA": stage.settings["VOLUME"],
              "VOLUME": str(volume), "TMPFS": " ".join(tmpfs), "WORKDIR": stage.settings["WORKDIR"],
              "SHOWN": " ".join(f"{place}={path}" for place, path in shown.items()),
              "PROJECT": str(Path(__file__).resolve().parent.parent)}
    with log.open("a") as output:
        process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-ec", script, *variables, *drop,
             *stage.words("ENTRYPOINT"), *command],
            env=os.environ | places, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield Container(process, log, drop, variables, stage.words("HEALTHCHECK"))
        finally:
            if process.poll() is None:
                for first in psutil.Process(process.pid).children():  # with it go all of its namespace
                    first.kill()
                process.wait(30)
