# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SFTP as a depot needs it: a server whose key is known, and keys instead of passwords.

fsspec by itself takes the word of any server. What promotes and retires releases is not signed, so that such a server
could make it up.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.convoy.rollout.plugins.plugin_utils.depot_place import (
    SILENCE,
    HostKeyError,
    RemoteDepotError,
)

KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")


def connected(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """fsspec's file system for the URL, and the path in it. Raises ImportError where a package is missing."""
    _refuse_what_is_weak(options)
    kind = _strict()
    path = kind._strip_protocol(url)
    if not path.strip("/"):
        raise RemoteDepotError(
            f"depot_url: {url} names no directory: append its path, as in sftp://convoy@releases.example/srv/depot"
        )
    asked = {name: value for name, value in kind._get_kwargs_from_urls(url).items() if value is not None}
    return kind(**{**asked, **options}), path


def _refuse_what_is_weak(options: Mapping[str, Any]) -> None:
    if options.get("password"):
        raise RemoteDepotError(
            "depot_options.password: over SFTP a depot is reached with a key. Name its file in "
            "depot_options.key_filename, or add it to the agent with ssh-add"
        )
    if "host_key_policy" in options:
        raise RemoteDepotError(
            "depot_options.host_key_policy: only a server whose key is known is used; take it out, and name the file "
            "with its key in depot_options.known_hosts, or add the key to ~/.ssh/known_hosts"
        )


def _known_hosts(named: str | None) -> list[str]:
    if named is not None:
        path = Path(named).expanduser()
        if not path.is_file():
            raise HostKeyError(f"depot_options.known_hosts: there is no file {path}: make it with ssh-keyscan")
        return [str(path)]
    return [str(path) for path in (Path(name).expanduser() for name in KNOWN_HOSTS) if path.is_file()]


def _fingerprint(key: Any) -> str:
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def _unknown(name: str, key: Any, known_hosts: str) -> HostKeyError:
    host, _separator, port = name.removeprefix("[").partition("]:")
    scan = f"ssh-keyscan {f'-p {port} ' if port else ''}{shlex.quote(host)}"
    return HostKeyError(
        f"the key of {name} ({_fingerprint(key)}) is in no known_hosts, so that anybody could be this server. Compare "
        f"it with what the server's administrator says, then: {scan} >> {known_hosts}"
    )


def _strict() -> Any:
    """The class of the file system, made here since its base is imported only where it is needed."""
    import paramiko
    from fsspec.implementations.sftp import SFTPFileSystem

    class OnlyKnown(paramiko.MissingHostKeyPolicy):
        """Refuses what is in no known_hosts."""

        def __init__(self, known_hosts: str) -> None:
            self.known_hosts = known_hosts

        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            raise _unknown(hostname, key, self.known_hosts)

    class StrictSftp(SFTPFileSystem):
        """fsspec's, but for how it connects."""

        cachable = False  # else a connection that broke would be given again

        def __init__(self, host: str, known_hosts: str | None = None, **ssh_kwargs: Any) -> None:
            self.known_hosts = known_hosts
            super().__init__(host, **ssh_kwargs)

        def _connect(self) -> None:
            self.client = paramiko.SSHClient()
            for path in _known_hosts(self.known_hosts):
                self.client.load_system_host_keys(path)
            self.client.set_missing_host_key_policy(OnlyKnown(self.known_hosts or KNOWN_HOSTS[0]))
            patience = {"timeout": SILENCE, "banner_timeout": SILENCE, "auth_timeout": SILENCE}
            try:
                self.client.connect(self.host, **{**patience, **self.ssh_kwargs})
            except paramiko.BadHostKeyException as error:
                raise HostKeyError(
                    f"{error.hostname} has another key ({_fingerprint(error.key)}) than known_hosts says "
                    f"({_fingerprint(error.expected_key)}): this may be another server. Nothing was asked of it. If "
                    "its administrator says that the key was changed, replace it in known_hosts"
                ) from error
            except (paramiko.AuthenticationException, paramiko.PasswordRequiredException) as error:
                raise _refused(self.host, error) from error
            except paramiko.SSHException as error:
                if "authentication methods" in str(error):  # it has no key at all to try
                    raise _refused(self.host, error) from error
                raise
            self.ftp = self.client.open_sftp()
            self.ftp.get_channel().settimeout(SILENCE)

    return StrictSftp


def _refused(host: str, error: Exception) -> RemoteDepotError:
    return RemoteDepotError(
        f"{host} lets nobody in with the keys that were tried ({error}): name the user in depot_url, and the file of a "
        "key that it knows in depot_options.key_filename, or add that key to the agent with ssh-add"
    )
