# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""apt and dpkg as the package manager of a host. See packages.Manager for what every method promises."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import tempfile

from ansible_collections.convoy.rollout.plugins.module_utils import record
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import PackageError
from ansible_collections.convoy.rollout.plugins.module_utils.package_tools import (
    ASK,
    DOWNLOAD,
    INSTALL,
    holder,
    run,
    wait_for,
)
from ansible_collections.convoy.rollout.plugins.module_utils.packages import (
    Change,
    Installed,
    Kept,
    unknown_version,
)
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Callable, Iterator, Sequence

_DPKG = "/var/lib/dpkg"
_CACHE = "/var/cache/apt"
_INSTALL_LOCKS = (f"{_DPKG}/lock-frontend", f"{_DPKG}/lock", f"{_CACHE}/archives/lock")
_LIST_LOCKS = ("/var/lib/apt/lists/lock",)
# The user that apt gives its downloads to.
_SANDBOX_USER = "_apt"
_CONFOLD = "--force-confold"
_KEEP_CONFIGURATION = ("-o", f"Dpkg::Options::={_CONFOLD}")
_EXACTLY = ("-y", "-q", "--allow-downgrades", "--allow-change-held-packages", "-o", "Dpkg::Use-Pty=0")
# What is kept must do: a repository that is away, or has changed, is no reason not to go back.
_OFFLINE = (
    *("-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Etc::sourceparts=/dev/null"),
    *("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="),
    *("--no-install-recommends", "--no-remove", "--reinstall"),
)
_CHANGE = re.compile(r"(Inst|Remv) (\S+)(?: \[([^\]]+)\])?(?: \((\S+))?")
_VERIFIED = re.compile(r"(?:[?.5A-Z]{9}|missing  ) (.) (/.*)")
_HALF = ("half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending")


class Apt:
    """The apt of this host. `patience`: seconds to wait for others that install."""

    name = "apt"
    spare = f"{_CACHE}/archives"

    def __init__(self, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience

    def installed(self, name: str) -> Installed | None:
        """See Manager."""
        form = "${db:Status-Want} ${db:Status-Eflag} ${db:Status-Status} ${Version} ${Architecture}\\n"
        done = run(["dpkg-query", "-W", f"-f={form}", name], ASK)
        return None if done.code else parse_status(done.said, lambda architecture: _unpacked_at(name, architecture))

    def plan(self, name: str, version: str) -> tuple[Change, ...]:
        """See Manager. Lists are only fetched anew where they do not know the version."""
        if version not in self._known(name):
            self._refresh()
        known = self._known(name)
        if version not in known:
            raise unknown_version(name, version, known)
        done = run(["apt-get", "-s", *_EXACTLY, "install", f"{name}={version}"], ASK)
        if done.code:
            raise PackageError(f"{name} {version} cannot be installed on this host; apt-get says: {done.words}")
        return parse_simulation(done.said)

    def fetch(self, wanted: Sequence[tuple[str, str]], place: str) -> list[Kept]:
        """See Manager. apt downloads as its own user; what is kept has the digest of the repository's signed list."""
        kept = []
        for name, version in wanted:
            try:
                path = self._download(name, version, place)
            except PackageError as error:
                path = self._download_by_new_lists(name, version, place, error)
            os.chmod(path, 0o644)
            kept.append(Kept(path, name, version))
        return kept

    def wait(self) -> None:
        """See Manager."""
        self._wait_for(_INSTALL_LOCKS)

    def repair(self) -> bool:
        """See Manager. What could not be ended now may be what the next installation mends."""
        form = "${db:Status-Eflag} ${db:Status-Status} ${Package}\\n"
        if not _is_journal_open() and not half_installed(run(["dpkg-query", "-W", f"-f={form}"], ASK).said):
            return False
        run(["dpkg", _CONFOLD, "--configure", "-a"], INSTALL)
        return True

    def refusal(self, paths: Sequence[str]) -> str | None:
        """See Manager."""
        done = run(["apt-get", "-s", *_EXACTLY, *_OFFLINE, "install", *paths], ASK)
        return done.words if done.code else None

    def install(self, paths: Sequence[str]) -> None:
        """See Manager. A configuration file that was changed on the host stays as it is."""
        self.wait()
        if _is_journal_open():
            run(["dpkg", _CONFOLD, "--configure", "-a"], INSTALL)
        before = set(self._manual())
        waiting = ("-o", f"DPkg::Lock::Timeout={self._patience:.0f}")
        done = run(["apt-get", *_EXACTLY, *_OFFLINE, *_KEEP_CONFIGURATION, *waiting, "install", *paths], INSTALL)
        if done.code:
            raise PackageError(f"apt-get could not install it: {done.words}")
        self._keep_automatic(set(self._manual()) - before, paths[0])

    def remove(self, name: str) -> None:
        """See Manager."""
        self.wait()
        self.hold(name, False)
        done = run(["dpkg", "--force-remove-reinstreq", "--remove", name], INSTALL)
        if done.code:
            raise PackageError(f"dpkg could not remove {name}: {done.words}")

    def hold(self, name: str, is_held: bool) -> None:
        """See Manager."""
        self.wait()
        done = run(["apt-mark", "hold" if is_held else "unhold", name], ASK)
        if done.code:
            raise PackageError(f"apt-mark could not {'hold' if is_held else 'unhold'} {name}: {done.words}")

    def can_hold(self) -> bool:
        """See Manager."""
        return True

    def altered(self, name: str) -> list[str]:
        """See Manager."""
        return parse_verify(run(["dpkg", "--verify", name], ASK).said)

    def is_older(self, one: str, other: str) -> bool:
        """See Manager."""
        return run(["dpkg", "--compare-versions", one, "lt", other], ASK).code == 0

    def _known(self, name: str) -> list[str]:
        """The versions that the lists of the repositories have, the newest first."""
        lines = (line.split("|") for line in run(["apt-cache", "madison", name], ASK).said.splitlines())
        return list(
            dict.fromkeys(fields[1].strip() for fields in lines if len(fields) == 3 and "Packages" in fields[2])
        )

    def _refresh(self) -> None:
        self._wait_for(_LIST_LOCKS)
        done = run(["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"], DOWNLOAD)
        if done.code:
            raise PackageError(f"the lists of the repositories could not be fetched; apt-get update says: {done.words}")

    def _download(self, name: str, version: str, place: str) -> str:
        with _sandbox() as directory:
            done = run(["apt-get", "-q", "download", f"{name}={version}"], DOWNLOAD, directory)
            found = [entry.path for entry in os.scandir(directory) if entry.name.endswith(".deb")]
            if done.code or len(found) != 1:
                raise PackageError(f"apt-get says: {done.words}")
            path: str = shutil.copy(found[0], place)
        self._check_digest(name, version, path)
        return path

    def _download_by_new_lists(self, name: str, version: str, place: str, refused: PackageError) -> str:
        """A repository may have changed since its lists were fetched; one that has dropped a version is not the end."""
        with contextlib.suppress(PackageError):
            self._refresh()
            return self._download(name, version, place)
        return _from_cache(name, version, place, refused)

    def _check_digest(self, name: str, version: str, path: str) -> None:
        shown = run(["apt-cache", "show", f"{name}={version}"], ASK).said
        if record.digest_of(path) not in re.findall(r"^SHA256: ([0-9a-f]{64})$", shown, re.MULTILINE):
            os.unlink(path)
            raise PackageError(f"{name} {version} as it was downloaded is not what the repository's signed list names")

    def _manual(self) -> list[str]:
        return run(["apt-mark", "showmanual"], ASK).said.split()

    def _keep_automatic(self, marked: set[str], asked: str) -> None:
        """What came along counts as installed by itself, so that it can be removed when nothing needs it any more."""
        itself = run(["dpkg-deb", "-f", asked, "Package"], ASK).said.strip()
        if marked - {itself}:
            run(["apt-mark", "auto", *sorted(marked - {itself})], ASK)

    def _wait_for(self, paths: Sequence[str]) -> None:
        wait_for(self._clock, self._patience, lambda: next(filter(None, map(holder, paths)), None))


def parse_status(text: str, unpacked_at: Callable[[str], float]) -> Installed | None:
    """A line of dpkg-query: wanted, error, status, version, architecture. None for a package that is not there."""
    fields = text.split()
    if len(fields) != 5 or fields[2] in ("not-installed", "config-files"):
        return None
    wanted, fault, status, version, architecture = fields
    is_whole = status == "installed" and fault == "ok"
    return Installed(version, wanted == "hold", is_whole, unpacked_at(architecture))


def parse_simulation(text: str) -> tuple[Change, ...]:
    """What `apt-get -s` says that it would do."""
    found = (match.groups() for match in map(_CHANGE.match, text.splitlines()) if match)
    return tuple(Change(name, old, None if verb == "Remv" else new) for verb, name, old, new in found)


def parse_verify(text: str) -> list[str]:
    """The files that `dpkg --verify` complains of, without those of the configuration."""
    found = (match.groups() for match in map(_VERIFIED.match, text.splitlines()) if match)
    return [path for attribute, path in found if attribute != "c"]


def half_installed(text: str) -> list[str]:
    """The packages whose installation did not end, of lines with error flag, status and name."""
    rows = (line.split() for line in text.splitlines())
    return [row[2] for row in rows if len(row) == 3 and (row[0] == "reinstreq" or row[1] in _HALF)]


def _is_journal_open() -> bool:
    """Whether dpkg was killed while it worked; apt does nothing until that was mended."""
    try:
        return any(name.isdigit() for name in os.listdir(f"{_DPKG}/updates"))
    except FileNotFoundError:
        return False


def _unpacked_at(name: str, architecture: str) -> float:
    """When dpkg last wrote the package's files."""
    for listed in (f"{name}.list", f"{name}:{architecture}.list"):
        with contextlib.suppress(FileNotFoundError):
            return os.stat(f"{_DPKG}/info/{listed}").st_mtime
    return 0.0


@contextlib.contextmanager
def _sandbox() -> Iterator[str]:
    """A directory that apt's own user may write to, as its downloads ask for."""
    with tempfile.TemporaryDirectory(prefix="convoy-", dir=_CACHE) as directory:
        with contextlib.suppress(KeyError):
            os.chown(directory, pwd.getpwnam(_SANDBOX_USER).pw_uid, 0)
        yield directory


def _from_cache(name: str, version: str, place: str, refused: PackageError) -> str:
    """A package that no repository has any more, from what apt still has of it; it was verified when it came there."""
    plain, _colon, _architecture = name.partition(":")
    archives = f"{_CACHE}/archives"
    prefix = f"{plain}_{version.replace(':', '%3a')}_"
    for entry in sorted(os.listdir(archives) if os.path.isdir(archives) else []):
        if entry.startswith(prefix) and entry.endswith(".deb"):
            return str(shutil.copy(os.path.join(archives, entry), place))
    raise PackageError(
        f"{name} {version} could not be fetched, and is not in {archives} either; {refused.message}",
        package=name,
        version=version,
    )
