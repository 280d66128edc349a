# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository of rpm packages, built and served on the host that is to install from it by dnf.

The host is a Debian one, which has dnf and rpm as packages. Its rpm wants to be told that it is meant, and of dnf's
plugins, which come all together, the one that keeps a repository of its own is put out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .fleet import Fleet
from .repository import CONFIG, LIBRARY, PACKAGE, PORT, REPOSITORY_PORT, SERVER, SERVICE, UNIT

PLACE = "/srv/convoy-test-rpms"
LOCKS = "/etc/dnf/plugins/versionlock.list"
FILES = {"/usr/lib/convoy-test-hello/server.py": SERVER, f"/usr/lib/systemd/system/{UNIT}": SERVICE}

SET_UP = f"""
set -e
export DEBIAN_FRONTEND=noninteractive
if ! command -v dnf rpmbuild createrepo_c >/dev/null || [ ! -e {LOCKS} ]; then
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends dnf dnf-plugins-core rpm createrepo-c >/dev/null 2>&1
fi
printf '#!/bin/sh\\nexec /usr/bin/rpm --force-debian "$@"\\n' > /usr/local/sbin/rpm
chmod +x /usr/local/sbin/rpm
sed -i 's/^enabled *=.*/enabled = false/' /etc/dnf/plugins/local.conf
mkdir -p /etc/rpm /etc/yum.repos.d
echo '%_dbpath /var/lib/rpm' > /etc/rpm/macros.convoy-test
rm -rf {PLACE} && mkdir -p {PLACE}/specs
python3 -c 'import json, sys
for name, text in json.load(sys.stdin).items(): open("{PLACE}/specs/" + name, "w").write(text)'
for spec in {PLACE}/specs/*; do
    rpmbuild --quiet -bb --define '_topdir {PLACE}/top' --define '_rpmdir {PLACE}/repository' "$spec" >/dev/null 2>&1
done
createrepo_c --quiet {PLACE}/repository
cat > /etc/yum.repos.d/test-of-convoy.repo <<END
[test-of-convoy]
name=Convoy
baseurl=http://127.0.0.1:{REPOSITORY_PORT}
gpgcheck=0
metadata_expire=1
END
rpm --upgrade --replacepkgs {PLACE}/repository/noarch/convoy-test-base-1-1.noarch.rpm
"""
OPEN = f"""
systemctl is-active --quiet test-rpms || systemd-run --quiet --collect --unit test-rpms \\
    --property WorkingDirectory={PLACE}/repository python3 -m http.server {REPOSITORY_PORT} --bind 127.0.0.1
until python3 -c 'import socket; socket.create_connection(("127.0.0.1", {REPOSITORY_PORT}))' 2>/dev/null; do :; done
"""
CLOSE = "systemctl stop test-rpms 2>/dev/null || true"
REMOVE = f"""
systemctl stop {UNIT} 2>/dev/null
rpm --erase --allmatches --noscripts {PACKAGE} {LIBRARY} >/dev/null 2>&1 || {{
    rpm --erase --allmatches --noscripts {PACKAGE}; rpm --erase --allmatches {LIBRARY}; }} >/dev/null 2>&1
sed -i /convoy-test/d {LOCKS}
rm -f {CONFIG}*
systemctl daemon-reload
true
"""
TAKE_DOWN = f"""
rpm --erase convoy-test-base 2>/dev/null
rm -rf {PLACE} /var/cache/dnf/test-of-convoy* /etc/yum.repos.d/test-of-convoy.repo
rm -f /etc/rpm/macros.convoy-test /usr/local/sbin/rpm
true
"""


@dataclass(frozen=True)
class Build:
    """A version of the package: `status` is what its health page answers, `post` what its script does."""

    evr: str
    needs: str = f"{LIBRARY} >= 1"
    status: int = 200
    post: str = ""

    def spec(self) -> str:
        """What rpmbuild makes it of."""
        files = {path: text.format(status=self.status, version=self.evr, port=PORT) for path, text in FILES.items()}
        made = {**files, CONFIG: f"brought by {self.evr}\n"}
        return "\n".join(
            [
                _head(PACKAGE, self.evr, f"Requires: {self.needs}"),
                "%install",
                *(f"mkdir -p $(dirname %{{buildroot}}{path})" for path in made),
                *(f"cat > %{{buildroot}}{path} <<'END'\n{text}END" for path, text in made.items()),
                *(["%post", self.post] if self.post else []),
                "%files",
                *files,
                f"%config(noreplace) {CONFIG}",
            ]
        )


BUILDS = (
    Build("1.0~rc1-1"),
    Build("1:1.0-1", needs=f"{LIBRARY} = 1"),
    Build("1:1.1-1", needs=f"{LIBRARY} >= 2"),
    Build("1:1.2-1", status=500),
    Build("1:1.3-1", post="echo no licence for tuesdays >&2; exit 1"),
    Build("1:1.4-1", needs="convoy-test-nowhere"),
)
LIBRARIES = ("1-1", "2-1")


def make_and_serve(fleet: Fleet, host: str) -> None:
    """Have a host build the repository, know it, and reach it."""
    specs = {f"hello-{number}.spec": build.spec() for number, build in enumerate(BUILDS)}
    specs |= {f"lib-{evr}.spec": _head(LIBRARY, evr) + "\n%files\n" for evr in LIBRARIES}
    # What scripts need of a distribution whose packages are all of rpm.
    specs["base.spec"] = _head("convoy-test-base", "1-1", "Provides: /bin/sh") + "\n%files\n"
    fleet.shell(host, SET_UP, json.dumps(specs))
    fleet.shell(host, OPEN)


def _head(name: str, evr: str, *more: str) -> str:
    epoch, _colon, rest = evr.rpartition(":")
    version, _dash, release = rest.partition("-")
    fields = {"Name": name, "Version": version, "Release": release, **({"Epoch": epoch} if epoch else {})}
    fields |= {"Summary": "a test of Convoy", "License": "none", "BuildArch": "noarch", "AutoReqProv": "no"}
    lines = [f"{key}: {value}" for key, value in fields.items()]
    return "\n".join([*lines, *more, "%description", "A test."])
