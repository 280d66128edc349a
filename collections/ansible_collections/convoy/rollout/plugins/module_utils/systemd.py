# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd, as far as a release needs it. Everything goes through systemctl(1)."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils.errors import SupervisorError
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import subprocess
    from typing import Sequence

UNIT_DIRECTORY = "/etc/systemd/system"
# Longer than any sensible TimeoutStartSec: systemd itself ends a start that hangs.
_LONGEST_JOB = 600.0
_LONGEST_QUESTION = 30.0
_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Type",
    "Result",
    "MainPID",
    "UnitFileState",
    "NRestarts",
    "NeedDaemonReload",
    "FragmentPath",
    "DropInPaths",
)


class UnitStatus(NamedTuple):
    """A unit in systemd's own words. `pid` is 0 without a main process.

    `is_outdated` when its file was changed since systemd read it. `fragment` is the path of that file, `drop_ins` are
    the paths of the files that add to it.
    """

    name: str
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    kind: str = ""
    result: str = ""
    pid: int = 0
    file_state: str = ""
    restarts: int = 0
    is_outdated: bool = False
    fragment: str = ""
    drop_ins: tuple[str, ...] = ()


def unit_fault(status: UnitStatus) -> str | None:
    """Why a unit is not doing what it is for."""
    if status.load != "loaded":
        return f"systemd could not load it ({status.load})"
    if status.is_outdated:
        return "its file was changed and systemd has not read it again"
    is_done = status.kind == "oneshot" and status.active == "inactive" and status.result == "success"
    if status.active not in ("active", "reloading") and not is_done:
        return f"it is {status.active} ({status.sub}), result {status.result or 'unknown'}"
    return None


class Supervisor(Protocol):
    """What a release needs of a service manager. Every method raises SupervisorError when it could not be done."""

    def show(self, names: Sequence[str]) -> dict[str, UnitStatus]:
        """How the units are now."""

    def restart(self, names: Sequence[str]) -> None:
        """Restart, or start, and wait until systemd calls them started."""

    def reload(self, names: Sequence[str]) -> None:
        """Reload those that run and know how to; start those that do not run."""

    def forget_failures(self, names: Sequence[str]) -> None:
        """Let units start again that failed too often before."""

    def stop(self, names: Sequence[str]) -> None:
        """Stop, and wait until they have stopped."""

    def enable(self, names: Sequence[str]) -> None:
        """Let them start at boot, as their [Install] section says now."""

    def disable(self, names: Sequence[str]) -> None:
        """Let them no longer start at boot."""

    def daemon_reload(self) -> None:
        """Read the unit files again."""

    def last_words(self, names: Sequence[str], since: float) -> list[str]:
        """The last lines that the units logged since then (seconds since the epoch); empty when there is no journal."""


class Systemd:
    """The systemd of this host."""

    def show(self, names: Sequence[str]) -> dict[str, UnitStatus]:
        """One call, however many units and properties."""
        if not names:
            return {}
        properties = ",".join(_PROPERTIES)
        text = _systemctl(["show", f"--property={properties}", "--", *names], _LONGEST_QUESTION)
        return dict(zip(names, parse_show(text)))

    def restart(self, names: Sequence[str]) -> None:
        """See Supervisor."""
        if names:
            _systemctl(["restart", "--", *names], _LONGEST_JOB)

    def forget_failures(self, names: Sequence[str]) -> None:
        """See Supervisor. A unit that systemd no longer knows has none."""
        if names:
            _systemctl(["reset-failed", "--", *names], _LONGEST_QUESTION, may_fail=True)

    def reload(self, names: Sequence[str]) -> None:
        """See Supervisor."""
        if names:
            _systemctl(["reload-or-restart", "--", *names], _LONGEST_JOB)

    def stop(self, names: Sequence[str]) -> None:
        """See Supervisor. What counts is that they do not run: systemd complains of units that it cannot load."""
        if not names:
            return
        _systemctl(["stop", "--", *names], _LONGEST_JOB, may_fail=True)
        running = [name for name, status in self.show(names).items() if status.active not in ("inactive", "failed")]
        if running:
            raise SupervisorError(f"systemd did not stop {', '.join(running)}; see systemctl status {running[0]}")

    def enable(self, names: Sequence[str]) -> None:
        """See Supervisor. The caller reloads afterwards, once."""
        if names:
            _systemctl(["--no-reload", "--quiet", "reenable", "--", *names], _LONGEST_QUESTION)

    def disable(self, names: Sequence[str]) -> None:
        """See Supervisor. The caller reloads afterwards, once. A unit without a readable file has nothing to undo."""
        if names:
            _systemctl(["--no-reload", "--quiet", "disable", "--", *names], _LONGEST_QUESTION, may_fail=True)

    def daemon_reload(self) -> None:
        """See Supervisor."""
        _systemctl(["daemon-reload"], _LONGEST_JOB)

    def last_words(self, names: Sequence[str], since: float) -> list[str]:
        """See Supervisor."""
        if not names:
            return []
        wanted = [f"--since=@{int(since)}", *(f"--unit={name}" for name in names)]
        command = ["journalctl", "--no-pager", "--quiet", "--lines=20", "--output=cat", *wanted]
        try:
            done = _run(command, _LONGEST_QUESTION)
        except (OSError, SupervisorError):
            return []
        return done.stdout.splitlines()


def parse_show(text: str) -> list[UnitStatus]:
    """The answer of `systemctl show`: a block of KEY=VALUE lines for every unit, blank lines between them."""
    return [_unit_status(block) for block in text.strip().split("\n\n") if block]


def _unit_status(block: str) -> UnitStatus:
    values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    return UnitStatus(
        name=values.get("Id", ""),
        load=values.get("LoadState", "not-found"),
        active=values.get("ActiveState", "inactive"),
        sub=values.get("SubState", "dead"),
        kind=values.get("Type", ""),
        result=values.get("Result", ""),
        pid=int(values.get("MainPID", "0") or 0),
        file_state=values.get("UnitFileState", ""),
        restarts=int(values.get("NRestarts", "0") or 0),
        is_outdated=values.get("NeedDaemonReload") == "yes",
        fragment=values.get("FragmentPath", ""),
        drop_ins=tuple(values.get("DropInPaths", "").split()),
    )


def _systemctl(arguments: Sequence[str], timeout: float, may_fail: bool = False) -> str:
    command = ["systemctl", *arguments]
    try:
        done = _run(command, timeout)
    except OSError as error:
        raise SupervisorError(f"cannot run systemctl: {error.strerror}; Convoy needs systemd on its hosts") from error
    if done.returncode != 0 and not may_fail:
        said = " ".join(done.stderr.split()) or "it said nothing"
        raise SupervisorError(f"'{' '.join(command)}' ended with {done.returncode}: {said}")
    return done.stdout


def _run(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    import subprocess

    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SupervisorError(f"'{' '.join(command)}' gave no answer within {timeout:g} s") from error
