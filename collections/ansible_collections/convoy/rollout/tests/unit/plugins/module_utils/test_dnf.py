# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What dnf 4.14 and rpm 4.18 say, and what is made of it."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.convoy.rollout.plugins.module_utils import dnf
from ansible_collections.convoy.rollout.plugins.module_utils.errors import PackageError
from ansible_collections.convoy.rollout.plugins.module_utils.package_tools import Done
from ansible_collections.convoy.rollout.plugins.module_utils.rpm_versions import Evr, Nevra, compare, parse_evr

KNOWN = """\
= hello 0 1.0~rc1 1 noarch

= hello 1 1.1 1 noarch
= hello 1 1.0 1 noarch
= hello 1 1.1 1 src
= hello-lib 0 2 1 noarch
= hello 0 1.0 1 x86_64
= hello 0 1.0 1 i686
"""
TWO_VERSIONS = """\
warning: hello-1.1-1.noarch.rpm: Header V4 RSA/SHA256 Signature, key ID 8483c65d: NOKEY
= hello 0 1.0~rc1 1 noarch 1795479498
= hello 1 1.1 1 noarch 1795479512
"""
VERIFIED = """\
S.5....T.  c /etc/hello.conf
S.5....T.    /usr/lib/hello/server.py
missing   c /etc/hello.d/a b
missing     /usr/lib/hello/with a blank
missing     /root/secret (Permission denied)
.......T.    /usr/lib/hello/touched.py
.M....G..    /var/log/hello
S.5....T.  g /var/lib/hello/state
....L....    /usr/lib/hello/current
Unsatisfied dependencies for hello-1:1.1-1.noarch:
"""
REFUSED = """\
error: Failed dependencies:
\thello-lib >= 2 is needed by hello-1:1.1-1.noarch
"""
UNRESOLVED = """\
Last metadata expiration check: 0:00:43 ago on Tue Nov 24 00:17:38 2026.
Error:
 Problem: problem with installed package other-1-1.noarch
  - package other-1-1.noarch conflicts with hello-lib = 2 provided by hello-lib-2-1.noarch
  - package hello-1:1.1-1.noarch requires hello-lib >= 2, but none of the providers can be installed
  - conflicting requests
(try to add '--allowerasing' to command line to replace conflicting packages)
"""
DAMAGED = """\
[FAILED] hello-1.1-1.noarch.rpm: No more mirrors to try - All mirrors were already tried without success

The downloaded packages were saved in cache until the next successful transaction.
You can remove cached packages by executing 'dnf clean packages'.
Error: Error downloading packages:
  hello-1:1.1-1.noarch: Cannot download, all mirrors were already tried without success
"""
WITHOUT_KEY = """\
You have enabled checking of packages via GPG keys. This is a good thing.
However, you do not have any GPG public keys installed. You need to download
Problem repository: [test]
type:
user_agent: libdnf (Debian GNU/Linux 12; generic; Linux.x86_64)
username:
"""
AFTER = """\
no licence for tuesdays
warning: %post(hello-1:1.3-1.noarch) scriptlet failed, exit status 1
"""
BEFORE = """\
error: %prein(hello-1:1.4-1.noarch) scriptlet failed, exit status 1
error: hello-1:1.4-1.noarch: install failed
error: hello-1:1.3-1.noarch: erase skipped
"""
BY_LUA = 'error: lua script failed: [string "%post(hello-1:1.3-1.noarch)"]:1: no licence for tuesdays\n'
OF_THE_OLD = "warning: %postun(hello-1:1.2-1.noarch) scriptlet failed, exit status 1\n"
HELLO = Nevra("hello", Evr(1, "1.1", "1.fc41"), "noarch")


def test_known_versions_are_the_newest_first() -> None:
    assert dnf.known_versions(KNOWN, "hello") == ["1:1.1-1", "1:1.0-1", "1.0-1", "1.0~rc1-1"]
    assert dnf.known_versions(KNOWN, "hello-lib") == ["2-1"]
    assert dnf.known_versions("", "hello") == []


@given(st.sets(st.builds(Evr, st.integers(0, 1), st.text("01~.", min_size=1, max_size=4), st.just("1"))))
def test_known_versions_are_sorted_and_none_is_lost(known: set[Evr]) -> None:
    text = "".join(f"= hello {evr.epoch} {evr.version} {evr.release} noarch\n" for evr in known)
    found = [parse_evr(version) for version in dnf.known_versions(text, "hello")]
    assert set(found) == known
    assert found == sorted(found, key=functools.cmp_to_key(compare), reverse=True)


def test_rows_stand_among_warnings() -> None:
    assert dnf.parse_rows(TWO_VERSIONS) == [
        dnf.Row(Nevra("hello", Evr(0, "1.0~rc1", "1"), "noarch"), 1795479498.0),
        dnf.Row(Nevra("hello", Evr(1, "1.1", "1"), "noarch"), 1795479512.0),
    ]
    assert dnf.parse_rows("package hello is not installed\n") == []


def test_altered_files_without_configuration_and_what_is_no_content() -> None:
    assert dnf.parse_verify(VERIFIED) == [
        "/usr/lib/hello/server.py",
        "/usr/lib/hello/with a blank",
        "/root/secret",
        "/usr/lib/hello/current",
    ]


def test_what_is_replaced() -> None:
    assert list(dnf.parse_obsoletes("= old-lib < 2\n= older  \nwarning: x\n= \n")) == [
        ("old-lib", "<", "2"),
        ("older", "", ""),
    ]
    assert dnf.is_named("1-1", "<", "2")
    assert not dnf.is_named("1:1-1", "<", "2")
    assert dnf.is_named("1:1-1", "", "")


@pytest.mark.parametrize(
    ("said", "failed"), [(AFTER, True), (BEFORE, True), (BY_LUA, True), (OF_THE_OLD, False), ("", False)]
)
def test_scripts_that_failed(said: str, failed: bool) -> None:
    assert bool(dnf.failed_scripts(said, {"hello"})) is failed
    assert not dnf.failed_scripts(said, {"hello-lib"})


def test_words_are_the_complaints() -> None:
    assert Done(1, REFUSED).words == "error: Failed dependencies:; hello-lib >= 2 is needed by hello-1:1.1-1.noarch"
    assert Done(1, UNRESOLVED).words.startswith("Problem: problem with installed package other-1-1.noarch; - package")
    assert Done(1, DAMAGED).words == (
        "Error: Error downloading packages:; hello-1:1.1-1.noarch: Cannot download, all mirrors were already tried "
        "without success"
    )
    assert Done(1, WITHOUT_KEY).words == (
        "You have enabled checking of packages via GPG keys. This is a good thing.; Problem repository: [test]"
    )
    assert Done(0, AFTER).words == "warning: %post(hello-1:1.3-1.noarch) scriptlet failed, exit status 1"
    assert "%prein(hello-1:1.4-1.noarch) scriptlet failed, exit status 1; error: hello-1:1.4" in Done(1, BEFORE).words
    assert Done(0, BY_LUA).words == BY_LUA.strip()


@pytest.mark.parametrize(
    ("entry", "is_locked"),
    [
        ("hello-1:1.1-1.fc41.*", True),
        ("hello-1:1.1-1.fc41.noarch", True),
        ("hello-1.1-1.fc41", True),
        ("hello-1:1.1-1.fc40.*", False),
        ("hello-0:1.1-1.fc41.*", False),
        ("hello-lib-1:1.1-1.fc41.*", False),
        ("hello", False),
    ],
)
def test_a_lock_is_of_one_version(entry: str, is_locked: bool) -> None:
    assert dnf.is_locked_at(HELLO, ["other-0:1-1.*", entry]) is is_locked


def test_locks_are_read_where_the_plugin_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, locks = tmp_path / "versionlock.conf", tmp_path / "locks"
    monkeypatch.setattr(dnf, "_LOCKS", str(options))
    assert (dnf._lock_list(), dnf._locked()) == (None, [])
    options.write_text(f"[main]\nenabled = 1\nlocklist = {locks}\n")
    assert (dnf._lock_list(), dnf._locked()) == (str(locks), [])
    locks.write_text("\n# Added lock on Tue Nov 24 00:18:27 2026\nhello-0:1.0-1.*\n!other-0:1-1.*\n")
    assert dnf._locked() == ["hello-0:1.0-1.*"]
    options.write_text(f"[main]\nenabled=0\nlocklist={locks}\n")
    assert dnf._lock_list() is None


def test_a_dnf_at_work_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rpmdb_lock.pid"
    assert dnf.dnf_at_work(str(path)) is None
    path.write_text(str(os.getpid()))
    assert str(dnf.dnf_at_work(str(path))).startswith(f"process {os.getpid()} (")
    for stale in ("", "4194999"):
        path.write_text(stale)
        assert dnf.dnf_at_work(str(path)) is None


def test_what_is_nowhere_is_named_with_what_dnf_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnf, "_CACHED", (f"{tmp_path}/*/packages",))
    with pytest.raises(PackageError, match=r"hello 1-1 could not be fetched, and is not in .* either; it is gone"):
        dnf._from_cache("hello", "1-1", PackageError("it is gone"))
