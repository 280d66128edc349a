#!/usr/bin/python
# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of an action: the work is done on the controller, by plugins/action/metric_gate.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: metric_gate
short_description: Judge a new release by what its hosts' metrics say
version_added: 0.1.0
author:
  - The Convoy contributors (@convoy-rollout)
description:
  - Reads metrics from HAProxy, from Prometheus or from the hosts' own pages, one look each O(interval), for at most
    O(duration), and makes one of four verdicts of them. A metric that fails ends the gate at once.
  - Only V(pass) lets the task succeed. No data is never a pass. What matches nothing is V(inconclusive), and what
    cannot be read is V(error), each with the reason.
  - All of it runs on the controller, which has to reach the sources. The host is not contacted.
options:
  metrics:
    description:
      - What to read, and by which rules to judge it.
      - Each has a C(name) and one source. C(haproxy) has C(url) (of the statistics page as CSV; a list of them for
        several load balancers) and C(backend); C(events) names the columns that are counted, C([hrsp_5xx, eresp, econ])
        by default, and C(total) what they are out of, C(stot) by default.
      - C(prometheus) has C(url) and either a C(query) that gives values, or C(events) and C(total), two selectors that
        give counters as they are, without C(sum) or C(rate). C(label) names the label that tells the host, C(instance)
        by default; a port behind the host's name does not matter.
      - C(page) has C(url) with C({host}) where the host's name belongs, and either C(value), a selector of one gauge,
        or C(events) and C(total), selectors of counters.
      - Each source may have C(headers), a mapping. Redirects are not followed.
      - C(judge) is C(sequential), C(threshold) or C(mann_whitney). Counters have C(sequential) by default, values
        C(threshold).
      - C(threshold) takes C(success) and C(failure), each a condition such as V(< 0.01) or a list of them, of which
        C(success) needs all and C(failure) one; C(failure_limit), the bad looks that are allowed (0), with
        C(consecutive) in a row; C(successes), the good looks in a row that are enough.
      - C(sequential) compares the canary's rate with the baseline's. It takes C(alpha), the probability of a false
        alarm over all looks together (0.01), C(beta), that of a wrong pass (0.01), C(minimum_effect), the smallest
        ratio of the rates that matters (2), C(acceptable), a share of the requests that is good enough in itself
        (0.001), C(undecided), what to say when the data prove nothing in time, V(inconclusive) or V(pass), and C(of),
        what is counted (errors).
      - C(mann_whitney) compares values of hosts when the time is over, as Kayenta does. It takes C(direction)
        (V(increase), V(decrease) or V(either)), C(confidence) (0.98), C(tolerance) (0.25), C(allowed_increase) and
        C(allowed_decrease) (1), C(nan) (V(remove) or V(replace)), C(outliers) (V(keep) or V(remove)), C(unit) (V(host)
        or V(sample)), C(least_hosts) a side (5), C(group), C(critical).
      - C(against) is V(hosts), to compare with O(baseline), or V(before), to compare with the same hosts in the time
        that O(before) names. The latter needs C(prometheus).
      - C(dry_run) records the verdict without letting it decide. C(inconclusive_limit) is how many looks may find
        nothing (3), C(error_limit) how many in a row may fail (4).
    type: list
    elements: dict
    required: true
  canary:
    description: The hosts that run the new release.
    type: list
    elements: str
    default: []
  baseline:
    description: The hosts that still run the old one, to compare with.
    type: list
    elements: str
    default: []
  zones:
    description: The zone of each host. Where it is given, hosts are compared with those of their own zone only.
    type: dict
    default: {}
  names:
    description:
      - What the sources call a host, where that is not its name in the inventory. A server's name in HAProxy, the
        address in Prometheus's label, the address that C({host}) stands for.
    type: dict
    default: {}
  before:
    description:
      - The time to compare with, for metrics that are C(against) V(before). C(until) is when it ended, in seconds since
        the epoch, C(seconds) how long it was (3600), C(step) how often it is read (60).
    type: dict
  duration:
    description: For how long to look, in seconds.
    type: float
    default: 600.0
  interval:
    description: How often to look, in seconds.
    type: float
    default: 60.0
  ends_early:
    description:
      - Whether the gate ends as soon as every metric has its verdict. Otherwise a pass has to last for the whole
        O(duration). A failure ends it at once in any case.
    type: bool
    default: true
  score:
    description:
      - How metrics with the judge C(mann_whitney) are scored together, as Kayenta does. C(pass) is the least score of a
        pass (95), C(marginal) that of V(inconclusive) (75), C(weights) gives groups their weight in percent.
    type: dict
  timeout:
    description: How long one source may take to answer, in seconds.
    type: float
    default: 10.0
  ca_path:
    description: A file with certificates of authorities, for sources with HTTPS. The system's are taken by default.
    type: path
attributes:
  action:
    description: Has a corresponding action plugin, so some parts of the options can be executed on the controller.
    support: full
    details: All of it runs on the controller. The host is not contacted.
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
    details: It looks once. Counters need two looks, so that they are V(inconclusive) then.
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in check mode), when in diff mode.
    support: none
    details: It changes nothing.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
seealso:
  - module: convoy.rollout.health_gate
  - module: convoy.rollout.verdict
"""

EXAMPLES = r"""
- name: Compare the errors of the canary hosts with those of the others, as HAProxy counts them
  convoy.rollout.metric_gate:
    canary: [app1]
    baseline: [app2, app3, app4]
    metrics:
      - name: errors
        haproxy:
          url: http://lb1:8404/stats;csv
          backend: app
        minimum_effect: 2
    duration: 900
    interval: 15

- name: Hold two thresholds against Prometheus
  convoy.rollout.metric_gate:
    metrics:
      - name: latency
        prometheus:
          url: http://prometheus:9090
          query: histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket{job="hello"}[2m])))
        success: "< 0.3"
        failure: "> 0.5"
        failure_limit: 1
      - name: firing alerts
        prometheus:
          url: http://prometheus:9090
          query: count(ALERTS{alertstate="firing", service="hello"}) or vector(0)
        success: "== 0"
    duration: 600

- name: Compare with the hour before the deployment, and see whether the queues of six hosts a side differ
  convoy.rollout.metric_gate:
    canary: "{{ groups['app'][:6] }}"
    baseline: "{{ groups['app'][6:] }}"
    before:
      until: 1767600000
    metrics:
      - name: errors
        prometheus:
          url: http://prometheus:9090
          events: http_requests_total{job="hello", code=~"5.."}
          total: http_requests_total{job="hello"}
        against: before
      - name: queue
        page:
          url: http://{host}:8080/metrics
          value: queue_length
        judge: mann_whitney
        direction: increase
        dry_run: true
"""

RETURN = r"""
verdict:
  description:
    - V(pass), V(fail), V(inconclusive) when the data do not tell, or V(error) when a source or the gate itself could
      not be used.
    - The task fails unless it is V(pass).
  returned: always
  type: str
  sample: fail
message:
  description: One sentence that says why, with the numbers.
  returned: always
  type: str
  sample: >-
    errors: canary hosts 34 errors in 1000 requests (3.4 %), baseline hosts 5 errors in 1000 requests (0.5 %), 6.8 times
    as many: 1.77e+05 to 1 against as good a release, where 100 are enough
metrics:
  description: What each metric said, in the order of O(metrics).
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The metric's name.
      type: str
      sample: errors
    judge:
      description: The judge that it has.
      type: str
      sample: sequential
    verdict:
      description: Its own verdict.
      type: str
      sample: fail
    message:
      description: Why, in one sentence.
      type: str
      sample: the query 'sum(up)' matches nothing (4 of 4 looks, 3 are allowed)
    dry_run:
      description: Whether the verdict was only recorded.
      type: bool
      sample: false
    looks:
      description: How often it was looked at.
      type: int
      sample: 5
    numbers:
      description: The numbers of the judge.
      type: dict
      sample:
        canary: {events: 34, exposure: 1000}
        baseline: {events: 5, exposure: 1000}
score:
  description: The score of the metrics with the judge C(mann_whitney), or null where none has it.
  returned: always
  type: float
  sample: 100.0
elapsed:
  description: How long the gate took, in seconds.
  returned: always
  type: float
  sample: 60.021
convoy:
  description: What is told in the terminal, in RV(convoy.lines).
  returned: always
  type: dict
  contains:
    lines:
      description: One line for each thing that happened.
      type: list
      elements: str
      sample: ["metrics: pass: latency: 11 of 11 looks good, the last with 0.12 (good is < 0.3)"]
"""
