# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same deployment for pyinfra, as one would write it there."""

import json
from io import StringIO
from shlex import quote

from pyinfra import host
from pyinfra.operations import files, server, systemd

name, version = host.data.name, host.data.version
root = f"/srv/{name}"
release, archive = f"{root}/releases/{version}", f"{root}/{version}.tar.gz"
page = f"http://127.0.0.1:{host.data.port}"
healthy = (
    "from urllib.request import urlopen as ask; "
    f"assert ask('{page}/healthz').read() == b'ok\\n' and b'\"{version}\"' in ask('{page}/version').read()"
)

files.put(name="Bring the archive", src=host.data.artifact, dest=archive, assume_exists=False)
server.shell(
    name="Verify and unpack it",
    commands=[
        f"echo '{host.data.digest}  {archive}' | sha256sum --check --quiet",
        f"mkdir -p {release}/etc && tar -xzf {archive} -C {release} --no-same-owner && rm {archive}",
    ],
)
config = StringIO(json.dumps(host.data.config))
files.put(name="Write the configuration", src=config, dest=f"{release}/etc/hello.json")
unit = files.put(name="Write the unit", src=StringIO(host.data.unit + "\n"), dest=f"/etc/systemd/system/{name}.service")
server.shell(
    name="Switch", commands=[f"ln -sT releases/{version} {root}/current.new && mv -T {root}/current.new {root}/current"]
)
systemd.service(name="Restart", service=f"{name}.service", restarted=True, daemon_reload=unit.will_change)
server.shell(
    name="Wait until health and version agree",
    commands=[f"for i in $(seq 60); do python3 -c {quote(healthy)} 2>/dev/null && exit 0; sleep 0.1; done; exit 1"],
)
server.shell(name="Prune", commands=[f"cd {root}/releases && ls -1t | tail -n +3 | xargs -r rm -rf"])
