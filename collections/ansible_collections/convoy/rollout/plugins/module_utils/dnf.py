# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dnf and rpm as the package manager of a host. See packages.Manager for what every method promises.

dnf resolves, downloads and verifies. What was kept is installed by rpm, in one transaction that needs no repository:
upgrades, downgrades and repeated installations together, and packages of modules, whose lists may be away.
Of dnf's two generations only what both understand is used, but for the lock of versions.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
import weakref
from fnmatch import fnmatchcase

from ansible_collections.convoy.rollout.plugins.module_utils import rpm_versions
from ansible_collections.convoy.rollout.plugins.module_utils.clock import Clock
from ansible_collections.convoy.rollout.plugins.module_utils.errors import PackageError
from ansible_collections.convoy.rollout.plugins.module_utils.package_tools import (
    ASK,
    DOWNLOAD,
    INSTALL,
    Done,
    holder,
    process,
    run,
    wait_for,
)
from ansible_collections.convoy.rollout.plugins.module_utils.packages import (
    Change,
    Installed,
    Kept,
    unknown_version,
)
from ansible_collections.convoy.rollout.plugins.module_utils.rpm_versions import Evr, Nevra
from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Iterator, Sequence

_CACHE = "/var/cache/dnf"
# Where either generation of dnf has what it has downloaded.
_CACHED = (f"{_CACHE}/*/packages", "/var/cache/libdnf5/*/packages")
_DNF_LOCK = "/var/lib/dnf/rpmdb_lock.pid"
_LOCKS = "/etc/dnf/plugins/versionlock.conf"
# A line that was asked for begins with it: rpm's warnings stand among them.
_MARK = "= "
_NEVRA = "%{NAME} %{EPOCHNUM} %{VERSION} %{RELEASE} %{ARCH}"
_EXACTLY = ("--oldpackage", "--replacepkgs")
_VERIFIED = re.compile(r"(?:(missing )|([.?SM5DLUGTPC]{8,9}))  (.) (/.*?)(?: \([A-Z][a-z ]+\))?")
# The letters of `rpm --verify` that tell of content: size, digest, device, target of a link.
_CONTENT = set("S5DL")
_SCRIPT_FAILED = re.compile(
    r"(?:error|warning): .*%(?:pre|prein|post|postin|pretrans|posttrans)\(([^()\s]+)\).*", re.MULTILINE
)


class Row(NamedTuple):
    """A package in rpm's database, and when it was installed, in epoch seconds."""

    package: Nevra
    at: float


class Dnf:
    """The dnf of this host. `patience`: seconds to wait for others that install."""

    name = "dnf"
    spare = f"{_CACHE}/convoy/packages"

    def __init__(self, clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._brought: dict[tuple[str, str], str] = {}
        self._place = ""

    def installed(self, name: str) -> Installed | None:
        """See Manager. Where an installation was interrupted, two versions of a package are there."""
        rows = self._rows(name)
        if not rows:
            return None
        newest = rows[0]
        for row in rows[1:]:
            if rpm_versions.compare(row.package.evr, newest.package.evr) > 0:
                newest = row
        is_whole = len({row.package.arch for row in rows}) == len(rows)
        return Installed(str(newest.package.evr), is_locked_at(newest.package, _locked()), is_whole, newest.at)

    def plan(self, name: str, version: str) -> tuple[Change, ...]:
        """See Manager. What dnf would install is told by what it downloads; fetch() takes it from there."""
        known = self._known(name)
        if version not in known:
            known = self._known(name, "--refresh")
        if version not in known:
            raise unknown_version(name, version, known)
        brought = self._resolve_anew("install", name, version)
        changes = [Change(one.name, self._version(one.name), one.version) for one in brought]
        return (*changes, *self._replaced(brought))

    def fetch(self, wanted: Sequence[tuple[str, str]], place: str) -> list[Kept]:
        """See Manager. dnf compares digests with the repository's, and signatures as its configuration demands."""
        kept = []
        for name, version in wanted:
            path = shutil.copy(self._brought.get((name, version)) or self._download(name, version), place)
            os.chmod(path, 0o644)
            kept.append(Kept(str(path), name, version))
        return kept

    def wait(self) -> None:
        """See Manager."""
        lock = run(["rpm", "--eval", "%{_rpmlock_path}"], ASK).said.strip()
        wait_for(self._clock, self._patience, lambda: holder(lock) or dnf_at_work(_DNF_LOCK))

    def repair(self) -> bool:
        """See Manager. rpm has none to end: its next installation of a package takes away what was left of it."""
        return False

    def refusal(self, paths: Sequence[str]) -> str | None:
        """See Manager."""
        done = run(["rpm", "--upgrade", "--test", *_EXACTLY, *paths], ASK)
        if done.code:
            return done.words
        gone = [f"{change.name} {change.old}" for change in self._replaced(_read(paths))]
        return f"it would replace {', '.join(gone)}" if gone else None

    def install(self, paths: Sequence[str]) -> None:
        """See Manager. rpm says of a script that failed after the files came, and ends as if all were well."""
        self.wait()
        done = run(["rpm", "--upgrade", *_EXACTLY, *paths], INSTALL)
        if done.code or failed_scripts(done.said, {kept.name for kept in _read(paths)}):
            raise PackageError(f"rpm could not install it, and ended with {done.code}: {done.words}")

    def remove(self, name: str) -> None:
        """See Manager. rpm keeps configuration that was changed, as .rpmsave."""
        self.wait()
        self._unlock(name)
        done = run(["rpm", "--erase", "--allmatches", name], INSTALL)
        if done.code:
            raise PackageError(f"rpm could not remove {name}, and ended with {done.code}: {done.words}")

    def can_hold(self) -> bool:
        """See Manager. The lock of dnf5 cannot be looked past, so that no other version could be staged."""
        return not _is_dnf5() and bool(_lock_list())

    def hold(self, name: str, is_held: bool) -> None:
        """See Manager. A lock names a version: one that is on another version is taken away first."""
        found = self.installed(name)
        if is_held and found is not None and found.is_held:
            return
        self._unlock(name)
        if is_held:
            self._lock("add", name)

    def altered(self, name: str) -> list[str]:
        """See Manager."""
        return parse_verify(run(["rpm", "--verify", "--nodeps", "--noscripts", name], INSTALL).said)

    def is_older(self, one: str, other: str) -> bool:
        """See Manager."""
        return rpm_versions.is_older(one, other)

    def _rows(self, name: str) -> list[Row]:
        done = run(["rpm", "--query", "--queryformat", f"{_MARK}{_NEVRA} %{{INSTALLTIME}}\\n", name], ASK)
        if done.code and "is not installed" not in done.said:
            raise PackageError(f"'rpm --query {name}' ended with {done.code}: {done.words}")
        return [row for row in parse_rows(done.said) if row.package.name == name]

    def _version(self, name: str) -> str | None:
        found = self.installed(name)
        return None if found is None else found.version

    def _known(self, name: str, *options: str) -> list[str]:
        """The versions that the repositories have, the newest first."""
        form = f"{_MARK}%{{name}} %{{epoch}} %{{version}} %{{release}} %{{arch}}\n"
        done = run(["dnf", "--quiet", *options, "repoquery", f"--queryformat={form}", name], DOWNLOAD)
        if done.code:
            raise PackageError(f"'dnf repoquery {name}' ended with {done.code}: {done.words}")
        return known_versions(done.said, name)

    def _resolve(self, verb: str, name: str, version: str, *options: str) -> list[Kept]:
        """What `install` or `reinstall` of this version brings: downloaded and verified, and not installed."""
        place = tempfile.mkdtemp(dir=self._downloads())
        spec = f"{name}-{_with_epoch(version)}"
        ours = () if _is_dnf5() else ("--disableplugin=versionlock",)
        done = run(["dnf", "-y", *ours, *options, verb, "--downloadonly", f"--destdir={place}", spec], DOWNLOAD)
        if done.code:
            raise PackageError(
                f"{name} {version} cannot be installed on this host; 'dnf {verb}' ended with {done.code}: {done.words}"
            )
        brought = _read(sorted(glob.glob(f"{place}/*.rpm")))
        self._brought.update({(kept.name, kept.version): kept.path for kept in brought})
        return brought

    def _download(self, name: str, version: str) -> str:
        """A version that may be installed already."""
        verb = "reinstall" if self._version(name) == version else "install"
        refused = PackageError(f"'dnf {verb}' brought nothing")
        try:
            self._resolve_anew(verb, name, version)
        except PackageError as error:
            refused = error
        return self._brought.get((name, version)) or _from_cache(name, version, refused)

    def _resolve_anew(self, verb: str, name: str, version: str) -> list[Kept]:
        """A repository may have changed since its lists were fetched."""
        try:
            return self._resolve(verb, name, version)
        except PackageError:
            return self._resolve(verb, name, version, "--refresh")

    def _downloads(self) -> str:
        """A directory that goes when this manager does."""
        if not self._place:
            os.makedirs(_CACHE, 0o755, exist_ok=True)
            self._place = tempfile.mkdtemp(prefix="convoy-", dir=_CACHE)
            weakref.finalize(self, shutil.rmtree, self._place, True)
        return self._place

    def _replaced(self, brought: Sequence[Kept]) -> list[Change]:
        """What rpm would take away since one of these says that it comes in its place, and none of them is its own."""
        if not brought:
            return []
        form = f"[{_MARK}%{{OBSOLETENAME}} %{{OBSOLETEFLAGS:depflags}} %{{OBSOLETEVERSION}}\\n]"
        said = run(["rpm", "--query", "--queryformat", form, "--package", *(kept.path for kept in brought)], ASK).said
        own = {kept.name for kept in brought}
        gone = []
        for name, relation, limit in parse_obsoletes(said):
            version = None if name in own else self._version(name)
            if version is not None and is_named(version, relation, limit):
                gone.append(Change(name, version, None))
        return gone

    def _unlock(self, name: str) -> None:
        if any(_names(entry) == name for entry in _locked()):
            self._lock("delete", name)

    def _lock(self, verb: str, name: str) -> None:
        """dnf asks no repository for this, so that it can be done without one."""
        done = run(["dnf", "--quiet", "--disablerepo=*", "versionlock", verb, name], ASK)
        if done.code:
            raise PackageError(f"'dnf versionlock {verb} {name}' ended with {done.code}: {done.words}")


def parse_rows(text: str) -> list[Row]:
    """Lines of name, epoch, version, release, architecture, and a time where one was asked for."""
    fields = (line[len(_MARK) :].split() for line in text.splitlines() if line.startswith(_MARK))
    return [
        Row(Nevra(row[0], Evr(int(row[1]), row[2], row[3]), row[4]), float(row[5]) if len(row) > 5 else 0.0)
        for row in fields
        if len(row) >= 5
    ]


def known_versions(text: str, name: str) -> list[str]:
    """The versions of one package in such lines, the newest first."""
    found = {row.package.evr for row in parse_rows(text) if row.package.name == name and row.package.arch != "src"}
    ordered: list[Evr] = []
    for evr in found:
        place = sum(rpm_versions.compare(other, evr) > 0 for other in ordered)
        ordered.insert(place, evr)
    return [str(evr) for evr in ordered]


def parse_obsoletes(text: str) -> Iterator[tuple[str, str, str]]:
    """Of every package that is replaced its name, a relation, and a version; these are empty for all versions."""
    for line in text.splitlines():
        fields = line[len(_MARK) :].split()
        if line.startswith(_MARK) and fields:
            yield fields[0], *(fields[1:] if len(fields) == 3 else ("", ""))


def is_named(version: str, relation: str, limit: str) -> bool:
    """Whether what is replaced is this version, or all of them."""
    return not limit or rpm_versions.satisfies(rpm_versions.parse_evr(version), relation, rpm_versions.parse_evr(limit))


def parse_verify(text: str) -> list[str]:
    """The files of `rpm --verify` whose content differs or that are gone, without those of the configuration."""
    found = (match.groups() for match in map(_VERIFIED.fullmatch, text.splitlines()) if match)
    return [path for missing, flags, kind, path in found if kind not in "cg" and (missing or _CONTENT & set(flags))]


def failed_scripts(text: str, names: set[str]) -> list[str]:
    """The lines in which rpm tells that a script of one of these packages failed."""
    found = ((match.group(0), match.group(1)) for match in _SCRIPT_FAILED.finditer(text))
    return [line for line, package in found if _names(package) in names]


def is_locked_at(package: Nevra, entries: Sequence[str]) -> bool:
    """Whether the list of locks keeps a package in just this version."""
    (name, (epoch, version, release), arch) = package
    forms = [f"{name}-{epoch}:{version}-{release}", f"{name}-{version}-{release}"]
    forms += [f"{form}.{arch}" for form in forms]
    return any(fnmatchcase(form, entry) for form in forms for entry in entries)


def dnf_at_work(path: str) -> str | None:
    """The dnf that its file says to be installing; None where the file is one of a dnf that has ended."""
    try:
        with open(path, encoding="ascii") as stream:
            return f"{process(int(stream.read()))}, which has {path}"
    except (OSError, ValueError):
        return None


def _is_dnf5() -> bool:
    found = shutil.which("dnf", path="/usr/local/bin:/usr/bin:/bin")
    return os.path.basename(os.path.realpath(found or "dnf")) == "dnf5"


def _lock_list() -> str | None:
    """The file with the locks of versions; None where dnf's plugin for them is not there, or is off."""
    with contextlib.suppress(OSError), open(_LOCKS, encoding="utf-8") as stream:
        options = dict(re.findall(r"^\s*(\w+)\s*[=:]\s*(\S+)\s*$", stream.read(), re.MULTILINE))
        if options.get("enabled", "1").lower() in ("1", "yes", "true", "on"):
            return options.get("locklist")
    return None


def _locked() -> list[str]:
    """The entries of that file which keep a version; others keep one out."""
    path = _lock_list()
    with contextlib.suppress(OSError), open(path or os.devnull, encoding="utf-8") as stream:
        lines = (line.strip() for line in stream)
        return [line for line in lines if line and line[0] not in "#!"]
    return []


def _names(entry: str) -> str:
    """The package that an entry of the locks is of, or a line of rpm's."""
    with contextlib.suppress(ValueError):
        return rpm_versions.parse_nevra(entry).name
    return entry


def _with_epoch(version: str) -> str:
    return version if ":" in version else f"0:{version}"


def _asked(paths: Sequence[str]) -> Done:
    return run(["rpm", "--query", "--queryformat", f"{_MARK}{_NEVRA}\\n", "--package", *paths], ASK)


def _read(paths: Sequence[str]) -> list[Kept]:
    """Which packages these archives are of."""
    if not paths:
        return []
    done = _asked(paths)
    packages = [row.package for row in parse_rows(done.said)]
    if len(packages) != len(paths):
        raise PackageError(f"'rpm --query' of {', '.join(paths)} ended with {done.code}: {done.words}")
    return [Kept(path, package.name, str(package.evr)) for path, package in zip(paths, packages)]


def _is_intact(path: str) -> bool:
    return run(["rpmkeys", "--checksig", path], ASK).code == 0


def _from_cache(name: str, version: str, refused: PackageError) -> str:
    """A package that no repository has any more, from what dnf still has of it, or somebody has put there."""
    evr = rpm_versions.parse_evr(version)
    for path in (path for place in _CACHED for path in sorted(glob.glob(f"{place}/{glob.escape(name)}-*.rpm"))):
        found = [row.package for row in parse_rows(_asked([path]).said)]
        if [package[:2] for package in found] == [(name, evr)] and _is_intact(path):
            return path
    raise PackageError(
        f"{name} {version} could not be fetched, and is not in {_CACHE} either; {refused.message}",
        package=name,
        version=version,
    )
