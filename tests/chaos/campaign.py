# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts over the lab with a fault in the middle of each: ``python -m tests.chaos.campaign --runs 100``.

One line a run, a table in the end, exit code 1 if anything did not hold. What happened in each run is kept, as a line
of JSON and with all that was said, in a directory below .convoy/chaos. A seed can be run again alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.audit import audit
from tests.integration.environment import ALL_AT_ONCE, STREAM, Ended, Environment, Run
from tests.integration.fleet import TOP, Fleet
from tests.ledger.cluster import Cluster

from . import invariants
from .faults import FAULTS, ON_NO_DISK, Fault, Scene
from .outside import Containers, Observer, Seen, Story, observed
from .scenarios import GATE, KINDS, MAY_DROP, OF_A_HOST, Kind, Scenario, scenario

HISTORY = TOP / ".convoy" / "chaos"
DOCS = TOP / "docs" / "chaos.md"
FIRST, SECOND, BAD = "1.0.0", "1.1.0", "1.2.0"
DEADLINE = 300.0  # seconds for a run of a playbook; one that hangs is killed then, and that is a fault found
AGAIN = 4  # times at most that the same command is run until everything is well
BEGIN = "<!-- figures -->"
END = "<!-- end of figures -->"


@dataclass
class Record:
    """What happened in a run of the campaign."""

    seed: int
    kind: str
    scenario: dict[str, Any]
    version: str
    began: str
    seconds: float = 0.0
    hit: bool = False
    ended: str = ""  # what the rollout was that the fault met, when the first run had ended
    runs: list[dict[str, Any]] = field(default_factory=list)
    answered: int = 0
    dropped: int = 0
    broken: list[str] = field(default_factory=list)
    story: list[dict[str, Any]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        """For people."""
        codes = " ".join(str(run["rc"]) for run in self.runs)
        verdict = "ok" if not self.violations else "VIOLATED: " + "; ".join(self.violations)
        met = self.ended if self.hit else f"{self.ended}, missed"
        return f"seed {self.seed:<5} {self.kind:<18} {met:<16} {self.seconds:4.0f} s  exit codes {codes}  {verdict}"


class Theatre:
    """The lab with an environment on it, and the ledger in one kind of database."""

    def __init__(self, lab: str, fleet: Fleet, cluster: Cluster, ledger: str) -> None:
        directory = Path(tempfile.mkdtemp(prefix="convoy-"))  # short, since sockets of ssh are in it
        url = cluster.database() if ledger == "postgresql" else ""
        self.ledger = ledger
        self.cluster = cluster
        self.environment = Environment(fleet, directory, url)
        self.containers = Containers(lab, self.environment.hosts)
        self.environment.on_each(ON_NO_DISK)
        self.environment.wipe()
        self.environment.publish(FIRST, SECOND)
        self.artifacts = {
            version: _artifact(directory / f"build/hello-{version}.tar.gz") for version in (FIRST, SECOND)
        }
        self.deploy_whole(FIRST)
        self.story = Story(self.environment.ledger_url)

    def leave(self) -> None:
        """Leave nothing behind."""
        self.environment.leave()
        shutil.rmtree(self.environment.directory)

    def deploy_whole(self, version: str) -> None:
        """Everything on that version, without any fault."""
        ended = self.environment.run("deploy.yml", version, rollout_phases=ALL_AT_ONCE, component_gate=GATE)
        assert ended.rc == 0, ended.said

    def renew(self, version: str) -> None:
        """Publish the version again, with a serial above all others: no deployment goes to a lower one."""
        shutil.rmtree(self.environment.directory / "depot/components/hello" / version, ignore_errors=True)
        artifact = self.environment.directory / f"build/hello-{version}.tar.gz"
        ended = self.environment.run("playbooks/publish.yml", version, component_artifact=str(artifact))
        assert ended.rc == 0, ended.said

    def version(self) -> str:
        """What the fleet runs, if it is all of one and in service; else ''."""
        seen = self.containers.look_at_all().values()
        found = {look.active.partition("-")[0] if look and look.running == look.active else "" for look in seen}
        return found.pop() if len(found) == 1 and self.in_service() else ""

    def in_service(self, seconds: float = 15) -> bool:
        """Whether HAProxy has every server up, now or within that time."""
        deadline = time.monotonic() + seconds
        while set(self.environment.balancer().values()) != {"UP"}:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.3)
        return True


class Play:
    """One run of the campaign."""

    def __init__(self, theatre: Theatre, play: Scenario, directory: Path) -> None:
        self.theatre, self.scenario, self.directory = theatre, play, directory
        self.environment, self.containers, self.story = theatre.environment, theatre.containers, theatre.story
        directory.mkdir(parents=True, exist_ok=True)
        self.was = theatre.version()
        self.target = SECOND if self.was == FIRST else FIRST
        self.first = BAD if play.bad else self.target
        self.record = Record(
            play.seed, play.kind, asdict(play), self.first, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        )
        self.head = self.story.head()
        self.start_of = {host: look.active if look else "" for host, look in self.containers.look_at_all().items()}

    def play(self) -> Record:
        """The whole run."""
        began = time.monotonic()
        if not self.was:
            self.violated("0 start: the fleet was not well")
            return self.record
        scene = Scene(
            self.scenario, self.environment, self.containers, self.theatre.cluster, lambda: self.start(self.first)
        )
        fault = FAULTS[self.scenario.kind](scene)
        for version in dict.fromkeys((self.first, self.target)):
            self.theatre.renew(version)
        fault.prepare()
        try:
            self.theatre.in_service()
            with observed(self.environment.fleet.address("lb1"), self.containers) as observer:
                self.meet(fault)
                self.recover()
            self.judge(observer, scene.stale)
        finally:
            fault.leave()
        self.record.seconds = time.monotonic() - began
        return self.record

    def meet(self, fault: Fault) -> None:
        """The rollout, the fault in the middle of it, and the same command again until the rollout has ended."""
        with self.illness():
            run = self.start(self.first)
            try:
                self.record.hit = self.moment(run)
                if self.record.hit:
                    fault.cause(run)
                    self.last(fault, run)
            finally:
                if self.record.hit:
                    fault.undo(run)
                for one in (run, *fault.scene.others):
                    self.end(one)
            self.truth()
            self.record.ended = self.status()
            for _attempt in range(AGAIN):
                if self.status() in ("succeeded", "reverted", "failed"):
                    break
                self.end(self.start(self.first))
                self.truth()

    def last(self, fault: Fault, run: Run) -> None:
        """Let the fault last; where it outlasts the runs, see that the ledger says then what the hosts are."""
        runs = (run, *fault.scene.others)
        for one in runs:
            one.lives(min(self.scenario.lasts, DEADLINE))
        if self.story.head() >= 0 and not any(one.lives(0) for one in runs):
            self.truth()

    @contextmanager
    def illness(self) -> Iterator[None]:
        """A host on which the release is unhealthy meanwhile."""
        with ExitStack() as meanwhile:
            if self.scenario.ill:
                meanwhile.enter_context(
                    self.environment.host_variables(self.scenario.ill, hello_settings={"health_status": 500})
                )
            yield

    def moment(self, run: Run) -> bool:
        """Wait for the moment of the fault; whether it came while the run was under way."""
        while run.lives(0.1):
            events = self.story.since(self.head)
            going = [json.loads(event.data)["now"] == "admitted" for event in events if event.kind == "moved"]
            if events and sum(going) >= self.scenario.admitted:
                return run.lives(self.scenario.delay)
            if any(event.kind == "turned_back" for event in events):
                return run.lives(self.scenario.delay)
        return False

    def recover(self) -> None:
        """The command again, for a release that is well: until everything is there, and once more for nothing.

        Where a rollout has ended with the whole fleet on one release, that is well enough for most runs.
        """
        if not self.scenario.to_the_end and self.theatre.version():
            return
        well = not self.scenario.ill and not self.scenario.bad and self.record.runs[-1]["rc"] == 0
        done = well and self.theatre.version() == self.target
        for _attempt in range(AGAIN + 1):
            before, head = self.containers.look_at_all(), self.story.head()
            ended = self.end(self.start(self.target))
            self.truth()
            if done:
                after = self.containers.look_at_all()
                for violation in invariants.same(before, after, (head, self.story.head())):
                    self.violated(violation)
                if ended.rc:
                    self.violated(f"9 again: a second run ended with exit code {ended.rc}")
                return
            done = ended.rc == 0 and self.theatre.version() == self.target
        self.violated(f"0 recovery: after {AGAIN + 1} runs of the same command not all is well")

    def start(self, version: str) -> Run:
        """Begin a run of the command."""
        return self.environment.start("deploy.yml", version, "--forks", "8", **self.scenario.variables)

    def end(self, run: Run) -> Ended:
        """Wait for its end; what hangs is killed, and counts as a fault."""
        began = time.monotonic()
        if run.lives(DEADLINE):
            run.kill()
            self.violated(f"0 hangs: a run did not end within {DEADLINE:g} s")
        ended = run.end()
        (self.directory / f"{self.scenario.seed}-{len(self.record.runs)}.log").write_text(ended.said)
        said = {"rc": ended.rc, "status": self.status(), "summary": ended.summary[-2000:]}
        self.record.runs.append({**said, "waited": round(time.monotonic() - began, 1)})
        if "Traceback" in ended.said:
            self.violated("0 traceback: a run ended with one")
        return ended

    def status(self) -> str:
        """Where the newest rollout stands; '' where the ledger cannot be read, or nothing was opened."""
        _told, rollouts = invariants.steps(self.story.since(self.head))
        return str(list(rollouts.values())[-1].state.status) if rollouts else ""

    def truth(self) -> None:
        """Compare what the ledger says in the end of a rollout with what the hosts are."""
        _told, rollouts = invariants.steps(self.story.since(self.head))
        spared = {self.scenario.victim} if self.scenario.kind in OF_A_HOST else set()
        for violation in invariants.named_truly(rollouts, self.containers.look_at_all(), spared):
            self.violated(violation)

    def judge(self, observer: Observer, stale: int) -> None:
        """All that can be said when it is over."""
        kind, entries = self.scenario.kind, self.story.since(self.head)
        told, rollouts = invariants.steps(entries)
        seen = self.containers.look_at_all()
        skewed = kind is Kind.CLOCK_STEPPED and self.scenario.ledger == "sqlite"
        spared = {self.scenario.victim} if kind in OF_A_HOST else set()
        known = {host: {active} for host, active in self.start_of.items()}
        for rollout in rollouts.values():
            for host, (_status, old, new) in rollout.hosts.items():
                known[host] |= {release for release in (old, new) if release}
        view = self.environment.view()
        locked = [host for host in self.containers.hosts if self.containers.locked(host)]
        found = [
            *invariants.within_the_window(observer.moments, told, spared, skewed),
            *invariants.phases_in_order(entries, seen, skewed),
            *invariants.old_or_new(observer.active, known),
            *(invariants.stale_did_nothing(seen, stale) if stale else ()),
            *invariants.nothing_left(
                self.environment.balancer(), seen, locked, None if view.holder is None else str(view.holder)
            ),
            *self.whole(seen),
            *self.ledger_holds(),
        ]
        if kind not in MAY_DROP and observer.watched.broken:
            found.append(f"10 dropped: {len(observer.watched.broken)} requests, the first {observer.watched.broken[0]}")
        for violation in found:
            self.violated(violation)
        watched = observer.watched
        self.record.answered, self.record.dropped = watched.answered, len(watched.broken)
        self.record.broken = watched.broken[:20]
        self.record.story = [{**asdict(entry), "data": json.loads(entry.data)} for entry in entries]

    def whole(self, seen: Mapping[str, Seen | None]) -> list[str]:
        """Whether what hosts have active is what was published, and what this run made has its greeting."""
        found = []
        for host, look in seen.items():
            version = look.active.partition("-")[0] if look else ""
            if look and version in self.theatre.artifacts:
                old = look.active in self.start_of.values()
                greeting = "" if old else self.scenario.variables["hello_greeting"]
                faults = self.containers.faults(host, look.active, self.theatre.artifacts[version], greeting)
                found += [f"5 whole: {fault}" for fault in faults]
        return found

    def ledger_holds(self) -> list[str]:
        """Whether the chain holds, and the tables are what the events say."""
        with self.story.ledger.reading() as connection:
            looked = audit(connection, STREAM, 1)
        found = [f"8 ledger: {looked.broken}"] if looked.broken else []
        return [*found, *(f"8 ledger: {differs}" for differs in looked.differs)]

    def violated(self, what: str) -> None:
        """Something that must hold does not."""
        if what not in self.record.violations:
            self.record.violations.append(what)


def _artifact(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: sha256(content.read()).hexdigest() for name, content in files.items() if content}


def campaign(seeds: Sequence[int], lab: str, directory: Path) -> list[Record]:
    """Run all seeds, see _turn; the records, in the order in which they were made."""
    fleet = Fleet(Path(f"/var/lib/convoy-lab/labs/{lab}/hosts"))
    hosts = sorted(name for name in fleet.variables if name.startswith("app"))
    plays = sorted((scenario(seed, hosts) for seed in seeds), key=_turn)
    records: list[Record] = []
    cluster = Cluster()
    theatre: Theatre | None = None
    try:
        cluster.create()
        for play in plays:
            if theatre is None or theatre.ledger != play.ledger or not theatre.version():
                if theatre:
                    theatre.leave()
                theatre = Theatre(lab, fleet, cluster, play.ledger)
            records.append(_played(theatre, play, directory))
            with (directory / "history.jsonl").open("a") as history:
                history.write(json.dumps(asdict(records[-1]), sort_keys=True) + "\n")
            print(records[-1].line, flush=True)
    finally:
        if theatre:
            theatre.leave()
        with suppress(ProcessLookupError):
            cluster.remove()
    return records


def _turn(play: Scenario) -> tuple[str, bool]:
    """One kind of ledger after the other. After a clock was ahead the times in a file are no longer this machine's."""
    return play.ledger, play.kind is Kind.CLOCK_STEPPED


def _played(theatre: Theatre, play: Scenario, directory: Path) -> Record:
    act = Play(theatre, play, directory / "said")
    try:
        return act.play()
    except AssertionError as error:  # a helper's word that it could not do its part
        act.violated(f"0 campaign: {error}")
        return act.record


COLUMNS = ("fault", "runs", "met", "succeeded", "reverted", "failed", "taken up", "seconds", "dropped", "violations")


def table(records: Sequence[Record]) -> list[list[str]]:
    """The figures by kind of fault, and over all."""
    rows = [list(COLUMNS)]
    for kind in (*KINDS, None):
        of_kind = [record for record in records if kind is None or record.kind == kind]
        if not of_kind:
            continue
        ends = [record.ended for record in of_kind]
        left = sum(end not in ("succeeded", "reverted", "failed") for end in ends)
        times = [record.seconds for record in of_kind]
        rows.append(
            [
                kind or "all",
                str(len(of_kind)),
                str(sum(record.hit for record in of_kind)),
                *(str(ends.count(end)) for end in ("succeeded", "reverted", "failed")),
                str(left),
                f"{statistics.median(times):.0f} ({max(times):.0f})",
                str(sum(record.dropped for record in of_kind)),
                str(sum(bool(record.violations) for record in of_kind)),
            ]
        )
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """The table for a terminal."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The table for the docs."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def kept(histories: Sequence[Path]) -> list[Record]:
    """The records of earlier campaigns, by seed; of a seed that was run again, the last one."""
    lines = [line for history in histories for line in history.read_text().splitlines()]
    found = {record.seed: record for record in (Record(**json.loads(line)) for line in lines)}
    return [found[seed] for seed in sorted(found)]


def write_docs(records: Sequence[Record], path: Path = DOCS) -> None:
    """Put the figures between their marks."""
    text = path.read_text()
    before, _mark, rest = text.partition(BEGIN)
    _old, _mark, after = rest.partition(END)
    seeds = sorted(record.seed for record in records)
    when = min(record.began for record in records)[:10]
    told = f"{len(records)} runs, seeds {seeds[0]} to {seeds[-1]}, {when}:"
    path.write_text(f"{before}{BEGIN}\n{told}\n\n{markdown(table(records))}\n{END}{after}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Rollouts over the lab with a fault in the middle of each.")
    parser.add_argument("--runs", type=int, default=100, help="how many (100)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1); the others follow it")
    parser.add_argument("--seed", type=int, action="append", help="this seed instead; may be given several times")
    parser.add_argument("--lab", default=os.environ.get("CONVOY_LAB", "chaos"), help="the lab's name")
    parser.add_argument(
        "--kept", type=Path, nargs="+", metavar="HISTORY", help="run nothing: the figures of these histories"
    )
    parser.add_argument("--write-docs", action="store_true", help="put the figures into docs/chaos.md")
    given = parser.parse_args()
    records = kept(given.kept) if given.kept else run(given)
    print(f"\n{aligned(table(records))}")
    if given.write_docs:
        write_docs(records)
    return 1 if any(record.violations for record in records) else 0


def run(given: argparse.Namespace) -> list[Record]:
    """Run the campaign that the command line asks for."""
    seeds = given.seed or list(range(given.first, given.first + given.runs))
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # to leave nothing behind
    HISTORY.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=HISTORY))
    records = campaign(seeds, given.lab, directory)
    print(f"\nhistory: {directory}/history.jsonl")
    return records


if __name__ == "__main__":
    sys.exit(main())
