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
    description: What to read, and by which rules to judge it. Each has one source.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What it is called in messages.
        type: str
        required: true
      judge:
        description:
          - V(threshold) holds each look against limits. V(sequential) compares the canary's rate of events with the
            baseline's, and may be asked at any time. V(mann_whitney) compares values of hosts when the time is over, as
            Kayenta does.
          - Counters have V(sequential) by default, values V(threshold).
        type: str
        choices: [threshold, sequential, mann_whitney]
      haproxy:
        description: Counters of the servers of a HAProxy backend, from its statistics page.
        type: dict
        suboptions: &source
          url:
            description:
              - The address. For HAProxy that of the page as CSV, or a list of them for several load balancers; for
                Prometheus the server's; for a page with C({host}) where the host's name belongs.
            type: raw
            required: true
          headers:
            description: Sent with each request. Redirects are not followed.
            type: dict
          backend:
            description: The backend, for HAProxy.
            type: str
          events:
            description:
              - What is counted. Columns for HAProxy, by default C([hrsp_5xx, eresp, econ]); for Prometheus and pages a
                selector of counters as they are, without C(rate) or C(sum).
            type: raw
          total:
            description:
              - What the events are out of. A column for HAProxy, by default C(stot); otherwise a selector of counters.
                Without it events are counted by the time.
            type: str
          query:
            description: A query that gives values, for Prometheus.
            type: str
          label:
            description:
              - The label that names the host, for Prometheus, by default C(instance). A port behind the name does not
                matter.
            type: str
          value:
            description: A selector of one gauge, for a page.
            type: str
      prometheus:
        description: A query, or counters, of a Prometheus server.
        type: dict
        suboptions: *source
      page:
        description: A gauge, or counters, of each host's own page in Prometheus's text format.
        type: dict
        suboptions: *source
      against:
        description:
          - V(hosts) compares with O(baseline), V(before) with the same hosts in the time that O(before) names. The
            latter needs Prometheus.
        type: str
        choices: [hosts, before]
        default: hosts
      dry_run:
        description: Record the verdict, but let it decide nothing.
        type: bool
        default: false
      inconclusive_limit:
        description: How many looks may find nothing, over the whole time.
        type: int
        default: 3
      error_limit:
        description: How many looks in a row may fail to read the source.
        type: int
        default: 4
      success:
        description: For V(threshold). A condition such as C(< 0.01), or a list of which all have to hold.
        type: raw
      failure:
        description: For V(threshold). A condition, or a list of which one is enough.
        type: raw
      failure_limit:
        description: For V(threshold). How many bad looks are allowed.
        type: int
        default: 0
      consecutive:
        description: For V(threshold). Whether bad looks are counted in a row.
        type: bool
        default: false
      successes:
        description: For V(threshold). How many good looks in a row are enough. With 0 it looks to the end.
        type: int
        default: 0
      alpha:
        description: For V(sequential). The probability of a false alarm, over all looks together.
        type: float
        default: 0.01
      beta:
        description: For V(sequential). The probability of passing what is worse by the minimum effect.
        type: float
        default: 0.01
      minimum_effect:
        description: For V(sequential). The smallest ratio of the rates that matters.
        type: float
        default: 2.0
      acceptable:
        description: For V(sequential). A share of the requests that is good enough, whatever the baseline has.
        type: float
        default: 0.001
      undecided:
        description: For V(sequential). What to say when the time is over and the data prove nothing.
        type: str
        choices: [inconclusive, pass]
        default: inconclusive
      of:
        description: For V(sequential). What is counted, for messages.
        type: str
        default: errors
      direction:
        description: For V(mann_whitney). Which difference is bad.
        type: str
        choices: [increase, decrease, either]
        default: either
      confidence:
        description: For V(mann_whitney). The confidence of the interval of the shift.
        type: float
        default: 0.98
      tolerance:
        description: For V(mann_whitney). Beyond how much of its estimate the interval has to lie.
        type: float
        default: 0.25
      allowed_increase:
        description: For V(mann_whitney). The ratio of the means from which on more is bad.
        type: float
        default: 1.0
      allowed_decrease:
        description: For V(mann_whitney). The ratio of the means below which less is bad.
        type: float
        default: 1.0
      nan:
        description: For V(mann_whitney). Whether values that are no numbers are removed, or replaced by 0.
        type: str
        choices: [remove, replace]
        default: remove
      outliers:
        description: For V(mann_whitney). Whether outliers are kept or removed.
        type: str
        choices: [keep, remove]
        default: keep
      unit:
        description: For V(mann_whitney). Whether the mean of a host is one observation, or each sample.
        type: str
        choices: [host, sample]
        default: host
      least_hosts:
        description: For V(mann_whitney). How many hosts each side needs.
        type: int
        default: 5
      group:
        description: For V(mann_whitney). The metric's group in O(score).
        type: str
        default: metrics
      critical:
        description: For V(mann_whitney). Whether the score is 0 when it does not pass.
        type: bool
        default: false
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
      - The time to compare with, for metrics with O(metrics[].against=before).
    type: dict
    suboptions:
      until:
        description: When it ended, in seconds since the epoch.
        type: float
        required: true
      seconds:
        description: How long it was, in seconds.
        type: float
        default: 3600.0
      step:
        description: How often it is read, in seconds.
        type: float
        default: 60.0
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
    description: How metrics with the judge C(mann_whitney) are scored together, as Kayenta does.
    type: dict
    suboptions:
      pass:
        description: The least score that passes.
        type: float
        default: 95.0
      marginal:
        description: The least score that is inconclusive, not a failure.
        type: float
        default: 75.0
      weights:
        description: The weight of groups, in percent. Groups without one share the rest.
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
