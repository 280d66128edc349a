# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A signed repository of Debian packages, made here and served on the hosts that are to install from it."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .fleet import Fleet

PACKAGE, LIBRARY, UNIT = "convoy-test-hello", "convoy-test-lib", "convoy-test-hello.service"
CONFIG = "/etc/convoy-test-hello.conf"
PORT, REPOSITORY_PORT = 18091, 18092
PLACE = "/srv/convoy-test-repository"

SERVER = """
import http.server, json

class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status} if self.path == "/healthz" else 200)
        self.end_headers()
        self.wfile.write(json.dumps({{"version": "{version}"}}).encode())

http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Pages).serve_forever()
"""
SERVICE = """
[Service]
ExecStart=/usr/bin/python3 /usr/lib/convoy-test-hello/server.py

[Install]
WantedBy=multi-user.target
"""

# apt knows this repository alone, and its lists are fetched by whoever needs them.
SET_UP = f"""
set -e
rm -rf {PLACE} && mkdir -p {PLACE} && base64 -d | tar -x -C {PLACE}
[ -e /etc/apt/sources.list.convoy-test ] || mv /etc/apt/sources.list /etc/apt/sources.list.convoy-test
signed="[signed-by={PLACE}/key.gpg]"
echo "deb $signed http://127.0.0.1:{REPOSITORY_PORT} ./" > /etc/apt/sources.list.d/convoy-test.list
"""
OPEN = f"""
systemctl is-active --quiet test-repository || systemd-run --quiet --collect --unit test-repository \\
    --property WorkingDirectory={PLACE} python3 -m http.server {REPOSITORY_PORT} --bind 127.0.0.1
until python3 -c 'import socket; socket.create_connection(("127.0.0.1", {REPOSITORY_PORT}))' 2>/dev/null; do :; done
"""
CLOSE = "systemctl stop test-repository 2>/dev/null || true"
# Also what a test that was broken off left behind.
REMOVE = f"""
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 0\\n' | tee /var/lib/dpkg/info/convoy-test-*.p* >/dev/null 2>&1
dpkg --force-confold --configure -a >/dev/null 2>&1
apt-mark unhold {PACKAGE} >/dev/null 2>&1
dpkg --force-remove-reinstreq --purge {PACKAGE} {LIBRARY} >/dev/null 2>&1
systemctl stop {UNIT} 2>/dev/null
rm -rf /run/convoy-test-slow-* /var/cache/apt/archives/convoy-test*
systemctl daemon-reload
true
"""
TAKE_DOWN = f"""
rm -rf {PLACE} /etc/apt/sources.list.d/convoy-test.list /var/lib/apt/lists/127.0.0.1*
[ ! -e /etc/apt/sources.list.convoy-test ] || mv /etc/apt/sources.list.convoy-test /etc/apt/sources.list
"""


@dataclass(frozen=True)
class Build:
    """A version of the package: `status` is what its health page answers, the scripts are what its maintainer wrote."""

    version: str
    needs: str = f"{LIBRARY} (>= 1)"
    status: int = 200
    preinst: str = ""
    postinst: str = ""

    def files(self) -> dict[str, str]:
        """What is in it."""
        files = {
            "DEBIAN/control": _control(PACKAGE, self.version, self.needs),
            "DEBIAN/conffiles": f"{CONFIG}\n",
            "usr/lib/convoy-test-hello/server.py": SERVER.format(status=self.status, version=self.version, port=PORT),
            f"lib/systemd/system/{UNIT}": SERVICE,
            CONFIG[1:]: f"brought by {self.version}\n",
        }
        scripts = {"DEBIAN/preinst": self.preinst, "DEBIAN/postinst": self.postinst}
        return {**files, **{path: f"#!/bin/sh\n{text}\n" for path, text in scripts.items() if text}}


# A maintainer's script that is slow while a file says so.
SLOW = "[ ! -e /run/convoy-test-slow-{0} ] || sleep 600"
BUILDS = (
    Build("1.0-1~rc1"),
    Build("1:1.0-1", needs=f"{LIBRARY} (= 1)"),
    Build("1:1.1-1", needs=f"{LIBRARY} (>= 2)", preinst=SLOW.format("preinst"), postinst=SLOW.format("postinst")),
    Build("1:1.2-1", status=500),
    Build("1:1.3-1", postinst="echo no licence for tuesdays >&2; exit 1"),
    Build("1:1.4-1", needs="convoy-test-nowhere"),
)
LIBRARIES = ("1", "2")


def make(directory: Path) -> bytes:
    """The repository, signed by a key of its own, as a tar."""
    for build in BUILDS:
        _pack(directory, PACKAGE, build.version, build.files())
    for version in LIBRARIES:
        _pack(directory, LIBRARY, version, {"DEBIAN/control": _control(LIBRARY, version)})
    packages = "\n".join(_listed(path) for path in sorted(directory.glob("*.deb"))).encode()
    (directory / "Packages").write_bytes(packages)
    (directory / "Release").write_text(
        f"Suite: stable\nDate: {email.utils.formatdate(usegmt=True)}\nArchitectures: all\n"
        f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    )
    _sign(directory)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in directory.iterdir():
            archive.add(path, path.name)
    return packed.getvalue()


def serve(fleet: Fleet, host: str, repository: bytes) -> None:
    """Have a host know the repository, and reach it."""
    fleet.shell(host, SET_UP, base64.b64encode(repository).decode())
    fleet.shell(host, OPEN)


def _control(name: str, version: str, needs: str = "") -> str:
    fields = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "Nobody <nobody@example.org>"}
    fields |= {"Description": "a test of Convoy", **({"Depends": needs} if needs else {})}
    return "".join(f"{key}: {value}\n" for key, value in fields.items())


def _pack(directory: Path, name: str, version: str, files: dict[str, str]) -> None:
    top = directory.with_name("packed") / f"{name}-{version}"
    for path, content in files.items():
        file = top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(0o755 if content.startswith("#!") else 0o644)
    target = directory / f"{name}_{version.rpartition(':')[2]}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(top), str(target)]
    subprocess.run(command, check=True, capture_output=True)


def _listed(path: Path) -> str:
    """A package as the repository's list has it."""
    fields = subprocess.run(["dpkg-deb", "--field", str(path)], check=True, capture_output=True, text=True).stdout
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return f"{fields}Filename: ./{path.name}\nSize: {len(content)}\nSHA256: {digest}\n"


def _sign(directory: Path) -> None:
    home = directory.with_name("gpg")
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "tests@convoy.example", "ed25519", "sign", "never"], check=True)
    subprocess.run([*gpg, "--clearsign", "-o", str(directory / "InRelease"), str(directory / "Release")], check=True)
    key = subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout
    (directory / "key.gpg").write_bytes(key)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
