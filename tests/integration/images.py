# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of a tiny service, made here without a registry, and hosts of the lab that can run them."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.convoy.rollout.tests.unit.plugins.layouts import Layout

PORT = 18093
# It answers everything with its version, its greeting and what its file says, unless it is ill or dies.
SERVER = r"""
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void end(int number) { (void)number; _exit(0); }

static const char *said(const char *name) { const char *value = getenv(name); return value ? value : ""; }

int main(void) {
    signal(SIGTERM, end);
    if (*said("DIES")) return 3;
    int one = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons(atoi(said("PORT")))};
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server, (struct sockaddr *)&place, sizeof place) || listen(server, 16)) { perror("bind"); return 1; }
    for (;;) {
        char asked[1024] = "", file[256] = "", answer[2048];
        int client = accept(server, NULL, NULL);
        if (client < 0) continue;
        if (read(client, asked, sizeof asked - 1) > 0) {
            FILE *stream = fopen("/etc/told", "r");
            if (stream) { if (!fgets(file, sizeof file, stream)) *file = 0; fclose(stream); }
            file[strcspn(file, "\n")] = 0;
            const char *status = strncmp(asked, "GET /healthz", 12) ? "200" : said("STATUS");
            int size = snprintf(answer, sizeof answer,
                "HTTP/1.0 %s -\r\nContent-Type: application/json\r\n\r\n"
                "{\"version\": \"%s\", \"greeting\": \"%s\", \"file\": \"%s\", \"user\": %d}",
                status, said("VERSION"), said("GREETING"), file, (int)getuid());
            if (write(client, answer, size) < 0) perror("write");
        }
        shutdown(client, SHUT_WR);
        close(client);
    }
}
"""

# What a host of the lab, which is a container itself, needs to run containers: a storage that needs no mount, the
# network of the host, and control groups that may be written to.
PREPARE = r"""
set -e
export DEBIAN_FRONTEND=noninteractive
if ! command -v podman >/dev/null || ! command -v runc >/dev/null; then
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends podman runc >/dev/null 2>&1
fi
printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' \
    > /etc/containers/storage.conf
printf '[engine]\nruntime = "runc"\n' > /etc/containers/containers.conf
for place in $(awk '$2 ~ "^/sys/fs/cgroup" && $3 != "tmpfs" {print $2}' /proc/mounts); do
    mount -o remount,rw,bind "$place"
done
podman info >/dev/null
"""
# As a component says how its container runs, inside a host of the lab.
NESTED: dict[str, Any] = {"network": "host", "args": ["--cgroupns=private"]}


@functools.cache
def server() -> bytes:
    """The service as one static program."""
    with tempfile.TemporaryDirectory() as directory:
        source, program = Path(directory) / "server.c", Path(directory) / "server"
        source.write_text(SERVER)
        subprocess.run(["cc", "-static", "-O1", "-s", "-o", str(program), str(source)], check=True)
        return program.read_bytes()


def make(directory: Path, version: str, architecture: str = "amd64", **environment: str) -> Path:
    """A layout with a version of the service; ``STATUS`` is what its health page answers, ``DIES`` lets it end."""
    layout = Layout(directory)
    known = {"VERSION": version, "STATUS": "200", "PORT": str(PORT), **environment}
    config = {"Entrypoint": ["/server"], "Env": [f"{name}={value}" for name, value in known.items()]}
    layout.index([layout.image({"server": server()}, config, architecture)])
    return directory
