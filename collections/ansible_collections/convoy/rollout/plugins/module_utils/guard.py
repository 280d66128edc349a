# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does by itself when nobody is there to help it.

Two things may outlive the call that made them. A deployment may cut its own network, so a release
that waits for a confirmation is taken back by a timer, also after a reboot. And a power cut may
come between the unit files and `current`, so that at the next boot they are made to fit before
anything starts. Both run guard.pyz, which is made of the very sources that made the call: the host
needs nothing but its Python.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time

from ansible_collections.convoy.rollout.plugins.module_utils import clock, durable
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError, TreeError
from ansible_collections.convoy.rollout.plugins.module_utils.host import Host
from ansible_collections.convoy.rollout.plugins.module_utils.journal import History
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Iterator, Sequence

PACKAGE = __name__.rsplit(".", 1)[0]
# A call that holds the lock ends by itself; until then there is nothing to take back.
_PATIENCE = 3600.0

_SERVICE = """\
# Written by Convoy, and removed by it.
[Unit]
Description=Take {component} back to its last good release unless the active one was confirmed

[Service]
ExecStart={command} revert
Restart=on-failure
RestartSec=10
"""
# OnCalendar knows a deadline that passed while the host was down; OnActiveSec one that a clock set back would delay.
_TIMER = """\
# Written by Convoy, and removed by it.
[Unit]
Description=Deadline for the confirmation of {component}

[Timer]
OnCalendar={deadline}
Persistent=true
OnActiveSec={seconds}s
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
_RECOVERY = """\
# Written by Convoy, and removed by it.
[Unit]
Description=Make the units of {component} fit its active release after a power cut
RequiresMountsFor={root}
Before={units}

[Service]
Type=oneshot
ExecStart={command} recover
"""


class Deadline(NamedTuple):
    """Until when a release must be confirmed: by the wall clock, and by the seconds that the host was up."""

    release: str
    seconds: float
    until: float
    boot: str
    armed_at: float

    def has_passed(self, wall: float, boot: str, uptime: float) -> bool:
        """Whether it is over, now that the clocks show these. A second early counts: timers are no more exact."""
        up = uptime - self.armed_at if boot == self.boot else uptime
        return wall >= self.until - 1 or up >= self.seconds - 1


# --- the deadline of a confirmation ------------------------------------------------------------------------------


def arm(host: Host, release: str, seconds: float) -> None:
    """Have the host leave `release` by itself in `seconds`, unless it is confirmed until then."""
    import datetime

    until = host.clock.wall() + seconds
    deadline = Deadline(release, seconds, until, clock.boot_id(), _uptime())
    timer, service = _timer_names(host)
    moment = datetime.datetime.fromtimestamp(until + 1, datetime.timezone.utc)
    texts = {
        service: _SERVICE.format(component=host.tree.component, command=_command(host)),
        timer: _TIMER.format(
            component=host.tree.component, deadline=f"{moment:%Y-%m-%d %H:%M:%S} UTC", seconds=int(seconds) + 1
        ),
    }
    _write_script(host)
    durable.write_file(_deadline_path(host), json.dumps(deadline._asdict()).encode("ascii"))
    for name, text in texts.items():
        durable.write_file(os.path.join(host.unit_directory, name), text.encode("utf-8"), 0o644)
    host.supervisor.enable([timer])
    host.supervisor.daemon_reload()
    host.supervisor.restart([timer])


def tidy(host: Host) -> None:
    """Remove a deadline that nothing waits for any more, and what a power cut would have needed."""
    deadline = read_deadline(host)
    if deadline is not None and not _is_awaited(deadline, host.history(), host.tree.look_at_current().release):
        disarm(host)
    stand_down(host)
    _clear_leftovers(host)


def _clear_leftovers(host: Host) -> None:
    """Remove what killed calls left of the files that are made here."""
    service, link = _recovery_paths(host)
    names = {*_timer_names(host), os.path.basename(service)}
    durable.clear_temporaries(host.unit_directory, names)
    if os.path.isdir(os.path.dirname(link)):
        durable.clear_temporaries(os.path.dirname(link), names)


def _is_awaited(deadline: Deadline, history: History, active: str | None) -> bool:
    standing = history.standings.get(deadline.release)
    return active == deadline.release and standing is not None and standing.is_unfinished


def disarm(host: Host) -> None:
    """Remove the timer. Its service is left to end: it may be the one that asks."""
    timer, service = _timer_names(host)
    host.supervisor.stop([timer])
    host.supervisor.disable([timer])
    for name in (timer, service):
        durable.unlink(os.path.join(host.unit_directory, name))
    host.supervisor.daemon_reload()
    durable.unlink(_deadline_path(host))


def read_deadline(host: Host) -> Deadline | None:
    """The deadline that is set, None when there is none."""
    path = _deadline_path(host)
    try:
        with open(path, "rb") as stream:
            return Deadline(**json.loads(stream.read().decode("ascii")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise TreeError(f"{path} cannot be read ({error}); remove it and run this again") from error


def _timer_names(host: Host) -> tuple[str, str]:
    return f"convoy-confirm-{host.tree.component}.timer", f"convoy-confirm-{host.tree.component}.service"


def _deadline_path(host: Host) -> str:
    return os.path.join(host.tree.state, "deadline.json")


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


# --- a power cut between units and switch ------------------------------------------------------------------------


def stand_by(host: Host, units: Sequence[str]) -> None:
    """Before unit files are changed: have the next boot make them fit `current` before it starts `units`."""
    _write_script(host)
    service, link = _recovery_paths(host)
    text = _RECOVERY.format(
        component=host.tree.component, root=_quoted(host.tree.root), units=" ".join(units), command=_command(host)
    )
    durable.write_file(service, text.encode("utf-8"), 0o644)
    durable.make_directory(os.path.dirname(link), 0o755)
    durable.replace_symlink(service, link)


def stand_down(host: Host) -> None:
    """After units and `current` fit each other."""
    service, link = _recovery_paths(host)
    durable.unlink(link)
    durable.unlink(service)


def _recovery_paths(host: Host) -> tuple[str, str]:
    name = f"convoy-recover-{host.tree.component}.service"
    return os.path.join(host.unit_directory, name), os.path.join(host.unit_directory, "multi-user.target.wants", name)


# --- the script --------------------------------------------------------------------------------------------------


def _command(host: Host) -> str:
    words = (sys.executable, _script_path(host), host.tree.component, host.tree.root)
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    """A word as a unit file has it, whatever is in it."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _script_path(host: Host) -> str:
    return os.path.join(host.tree.state, "guard.pyz")


def _write_script(host: Host) -> None:
    script, path = build_script(), _script_path(host)
    try:
        with open(path, "rb") as stream:
            if stream.read() == script:
                return
    except FileNotFoundError:
        pass
    durable.write_file(path, script)


@functools.lru_cache(maxsize=None)
def build_script() -> bytes:
    """A program of one file, made of the sources of this package, wherever they were loaded from.

    It is not compressed, which would take longer than all else that an activation does with it.
    """
    import io
    import zipfile

    start_of_time = (1980, 1, 1, 0, 0, 0)
    packed = io.BytesIO()
    begin = f"from {__name__} import main\n\nmain()\n".encode()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, source in (*_sources(), ("__main__.py", begin)):
            archive.writestr(zipfile.ZipInfo(name, start_of_time), source)
    return packed.getvalue()


def _sources() -> Iterator[tuple[str, bytes]]:
    parts = PACKAGE.split(".")
    for count in range(1, len(parts) + 1):
        yield "/".join((*parts[:count], "__init__.py")), b""
    place = os.path.dirname(__file__)
    for name, source in _in_directory(place) if os.path.isdir(place) else _in_archive(place):
        yield "/".join((*parts, f"{name}.py")), source


def _in_directory(place: str) -> Iterator[tuple[str, bytes]]:
    names = (name[: -len(".py")] for name in os.listdir(place) if name.endswith(".py") and name != "__init__.py")
    for name in sorted(names):
        with open(os.path.join(place, f"{name}.py"), "rb") as stream:
            yield name, stream.read()


def _in_archive(place: str) -> Iterator[tuple[str, bytes]]:
    """The same of where Ansible's own way has a module run from. What this takes to import costs 10 ms."""
    import importlib.util
    import pkgutil

    for name in sorted(found.name for found in pkgutil.iter_modules([place]) if not found.ispkg):
        spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
        # Loaders of different kinds have this method.
        get_source = getattr(spec.loader, "get_source", None) if spec is not None else None
        if get_source is not None:
            yield name, get_source(f"{PACKAGE}.{name}").encode("utf-8")


# --- what the script does ----------------------------------------------------------------------------------------


def main() -> None:
    """guard.pyz COMPONENT ROOT revert|recover"""
    from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
    from ansible_collections.convoy.rollout.plugins.module_utils.systemd import Systemd
    from ansible_collections.convoy.rollout.plugins.module_utils.tree import Tree

    component, root, what = sys.argv[1:]
    host = Host(Tree(root, component), Systemd(), Clock())
    try:
        with host.tree.lock(host.clock, _PATIENCE, f"guard {what}"):
            done = revert(host) if what == "revert" else recover(host)
    except (ConvoyTargetError, OSError) as error:
        raise SystemExit(str(error)) from error
    sys.stdout.write(done + "\n")


def revert(host: Host) -> str:
    """Leave the active release if its deadline has passed; what was done."""
    from ansible_collections.convoy.rollout.plugins.module_utils import activation

    deadline, active = read_deadline(host), host.tree.active()
    if deadline is None or not _is_awaited(deadline, host.history(), active):
        tidy(host)
        return "nothing waits for a confirmation"
    if not deadline.has_passed(host.clock.wall(), clock.boot_id(), _uptime()):
        return f"{active} may still be confirmed"
    message = activation.take_back(host, deadline.release, f"not confirmed within {deadline.seconds:g} s")
    tidy(host)
    return message


def recover(host: Host) -> str:
    """Make the unit files those of the active release; nothing of the component runs yet."""
    from ansible_collections.convoy.rollout.plugins.module_utils import activation

    changed = activation.fit_units(host)
    stand_down(host)
    return "the units were made to fit" if changed else "the units fit"
