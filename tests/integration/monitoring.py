# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's Prometheus on the lab's load balancer, which reads the pages of the application hosts."""

from __future__ import annotations

import json
import time
import urllib.request

from .fleet import Fleet

PORT = 9090
PATIENCE = 60.0  # seconds for it to have read every page
INSTALL = """
set -eu
if ! command -v prometheus >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends prometheus
fi
cat >/etc/prometheus/prometheus.yml
systemctl restart prometheus
"""


def start_prometheus(fleet: Fleet, hosts: list[str]) -> str:
    """Have Prometheus read the hosts once a second, each with its name as the instance; its address."""
    targets = [{"targets": [f"{fleet.address(host)}:8080"], "labels": {"instance": host}} for host in hosts]
    job = {"job_name": "hello", "scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": targets}
    fleet.shell("lb1", INSTALL, json.dumps({"scrape_configs": [job]}))
    url = f"http://{fleet.address('lb1')}:{PORT}"
    deadline = time.monotonic() + PATIENCE
    while (up := _up(url)) < len(hosts):
        assert time.monotonic() < deadline, f"Prometheus reads {up} of {len(hosts)} hosts"
        time.sleep(0.5)
    return url


def stop_prometheus(fleet: Fleet) -> None:
    """It would only cost time."""
    fleet.shell("lb1", "systemctl disable --quiet --now prometheus")


def _up(url: str) -> int:
    """How many hosts it has read."""
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?query=up==1", timeout=5) as answer:
            return len(json.load(answer)["data"]["result"])
    except OSError:
        return 0
