"""A headless Firefox, driven by its own protocol, Marionette: geckodriver is no Debian package, and WebDriver BiDi does not
reach the pages of extensions."""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PREFERENCES = {
    "marionette.port": 0,  # any that is free; Firefox writes it down in the profile
    "browser.shell.checkDefaultBrowser": False,
    "browser.aboutwelcome.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
    "extensions.update.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Firefox:
    """Use as a context manager."""

    def __init__(self, profile: Path, **preferences):
        profile.mkdir(parents=True)
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in (PREFERENCES | preferences).items()]
        (profile / "user.js").write_text("\n".join(lines))
        # System access: or the extension's own pages may not be opened.
        command = [shutil.which("firefox-esr"), "--headless", "--no-remote", "--marionette", "--remote-allow-system-access",
                   "--profile", profile]
        self._process = subprocess.Popen(command, env=os.environ | {"HOME": str(profile)},
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self._socket = self._connect(profile / "MarionetteActivePort")
            self._receive()  # its greeting
            self.call("WebDriver:NewSession", capabilities={"alwaysMatch": {"timeouts": {"script": 60_000}}})
        except BaseException:
            self._process.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)

    def install(self, folder: Path) -> None:
        self.call("Addon:Install", path=str(folder), temporary=True)

    def open_tab(self, url: str) -> None:
        self.call("WebDriver:SwitchToWindow", handle=self.call("WebDriver:NewWindow", type="tab")["handle"])
        self.call("WebDriver:Navigate", url=url)

    def ask(self, script: str, *arguments):
        """What the body of an async function gives in the current tab."""
        wrapped = ("const given = [...arguments], done = given.pop();"
                   f"(async () => {{ {script} }})()"
                   ".then((found) => done([found, null]), (error) => done([null, String(error)]));")
        found, error = self.call("WebDriver:ExecuteAsyncScript", script=wrapped, args=list(arguments))["value"]
        if error:
            raise RuntimeError(error)
        return found

    def call(self, command: str, **parameters):
        message = json.dumps([0, 1, command, parameters])
        self._socket.sendall(f"{len(message)}:{message}".encode())
        _, _, error, result = self._receive()
        if error:
            raise RuntimeError(f"{command}: {error['message']}")
        return result

    def _receive(self):
        length = b""
        while not length.endswith(b":"):
            length += self._read(1)
        return json.loads(self._read(int(length[:-1])))

    def _read(self, count: int) -> bytes:
        content = b""
        while len(content) < count:
            chunk = self._socket.recv(count - len(content))
            if not chunk:
                raise ConnectionError("Firefox has ended")
            content += chunk
        return content

    def _connect(self, port_file: Path) -> socket.socket:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if port_file.exists() and (port := port_file.read_text()):
                return socket.create_connection(("127.0.0.1", int(port)), timeout=120)
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError("Firefox did not start")
