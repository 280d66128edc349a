#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Example of a site's own module: asks pages of a service that has just been started, before anybody else does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: warm_up
short_description: Ask pages of a service until they come fast enough
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Fills caches and pools of a service that has just been started, while its host is still out of the load balancer.
  - Asks every page again and again until all of them come within O(within), and fails when that takes longer than
    O(patience).
options:
  urls:
    description: The pages, as seen from the host.
    type: list
    elements: str
    required: true
  within:
    description: Seconds within which a page must be there for the service to count as warm.
    type: float
    default: 0.5
  patience:
    description: Seconds within which the service must be warm.
    type: float
    default: 30
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: It only looks, so it does the same in check mode.
"""

EXAMPLES = r"""
- name: Warm the service up
  warm_up:
    urls:
      - http://127.0.0.1:8080/
    within: 0.2
"""

RETURN = r"""
rounds:
  description: How many times every page was asked.
  returned: success
  type: int
  sample: 3
slowest:
  description: How long the slowest page of the last round took, in seconds.
  returned: success
  type: float
  sample: 0.041
"""

import time
import urllib.error
import urllib.request

from ansible.module_utils.basic import AnsibleModule

PAUSE = 0.1  # seconds between two rounds


def ask(url: str, timeout: float) -> str | None:
    """Why the page is not there, None when it is. Proxies are for others: the service is on this host."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        return f"{url} answered {error.code}"
    except (OSError, ValueError) as error:
        return f"{url} did not answer: {error}"
    return None


def ask_all(urls: list[str], timeout: float) -> tuple[float, str | None]:
    """How long the slowest page took, and what was wrong with one of them."""
    slowest, fault = 0.0, None
    for url in urls:
        began = time.monotonic()
        fault = ask(url, timeout) or fault
        slowest = max(slowest, time.monotonic() - began)
    return slowest, fault


def warm_up(module: AnsibleModule, urls: list[str], within: float, patience: float) -> None:
    """Ask until it is warm, or fail."""
    end, rounds = time.monotonic() + patience, 0
    while True:
        rounds += 1
        slowest, fault = ask_all(urls, max(within, end - time.monotonic()))
        if fault is None and slowest <= within:
            module.exit_json(changed=False, rounds=rounds, slowest=slowest)
        if time.monotonic() >= end:
            slow = f"the slowest page took {slowest:.2f} s, {within:g} s are the limit"
            module.fail_json(msg=f"not warm after {patience:g} s and {rounds} rounds: {fault or slow}")
        time.sleep(PAUSE)


def main() -> None:
    """Read the options."""
    module = AnsibleModule(
        argument_spec={
            "urls": {"type": "list", "elements": "str", "required": True},
            "within": {"type": "float", "default": 0.5},
            "patience": {"type": "float", "default": 30},
        },
        supports_check_mode=True,
    )
    warm_up(module, **module.params)


if __name__ == "__main__":
    main()
