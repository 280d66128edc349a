# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The unit that runs the image of a component of the kind container, made of ``component_container``. Pure.

It is a part of the release as any unit is, so that going back brings back ports, volumes and environment as well. Which
image it runs it reads from a file of the active release. Hosts need no quadlet, which podman has from 4.4 on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from ansible_collections.convoy.rollout.plugins.module_utils.containers import IMAGE_FILE, IMAGE_VARIABLE, LABEL
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, nearest

VARIABLE = "component_container"
READY = ("started", "notify")
STOP_TIMEOUT = 10
# What the unit sets itself.
TAKEN = (
    *("--name", "--rm", "--replace", "--detach", "--interactive", "--tty", "--pull", "--cgroups", "--sdnotify"),
    *("--cidfile", "--conmon-pidfile", "--log-driver", "--restart", "--stop-timeout"),
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPTION = re.compile(r"--[a-z][a-z0-9-]*(=.*)?", re.DOTALL)
_INSIDE = "./"

_UNIT = """\
[Unit]
Description={component} in a container
Wants=network-online.target
After=network-online.target
RequiresMountsFor="{root}" /var/lib/containers

[Service]
Type=notify
NotifyAccess=all
Environment=PODMAN_SYSTEMD_UNIT=%n
EnvironmentFile={image_file}
ExecStart=/usr/bin/podman run {options} ${{{variable}}}{command}
ExecStop=/usr/bin/podman stop --ignore --time {stop_timeout} {component}
ExecStopPost=-/usr/bin/podman rm --force --ignore {component}
Restart=always
RestartSec=1
SuccessExitStatus=143
TimeoutStartSec=300
TimeoutStopSec={longest_stop}

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Settings:
    """``component_container``, validated. A path that begins with ``./`` is one of the release."""

    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    environment_files: tuple[str, ...] = ()
    user: str = ""
    network: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    ready: str = READY[0]
    stop_timeout: int = STOP_TIMEOUT


def unit_name(component: str) -> str:
    """The unit of a component."""
    return f"{component}.service"


def parse(asked: object) -> Settings:
    """``component_container`` as it was written. Raises SpecError naming the field."""
    if not isinstance(asked, Mapping):
        raise SpecError(f"{VARIABLE}: {asked!r} is no mapping: write it with keys such as ports and volumes")
    known = [field.name for field in fields(Settings)]
    for key in asked:
        if key not in known:
            raise SpecError(f"{VARIABLE}: unknown key {key!r}: {nearest(str(key), known)}")
    lists = {key: _texts(key, asked.get(key, ())) for key in ("ports", "volumes", "environment_files", "command")}
    ready, stop_timeout = asked.get("ready", READY[0]), asked.get("stop_timeout", STOP_TIMEOUT)
    if ready not in READY:
        raise SpecError(f"{VARIABLE}.ready: unknown value {ready!r}: {nearest(str(ready), READY)}")
    if isinstance(stop_timeout, bool) or not isinstance(stop_timeout, int) or stop_timeout < 0:
        raise SpecError(f"{VARIABLE}.stop_timeout: {stop_timeout!r} is not a number of seconds, 0 or more")
    for volume in lists["volumes"]:
        if not volume.partition(":")[2].startswith("/"):
            raise SpecError(f"{VARIABLE}.volumes: {volume!r} is not of the form SOURCE:/PATH, or SOURCE:/PATH:OPTIONS")
    return Settings(
        **lists,
        environment=_environment(asked.get("environment", {})),
        args=_args(asked.get("args", ())),
        user=_text("user", asked.get("user", "")),
        network=_text("network", asked.get("network", "")),
        ready=ready,
        stop_timeout=stop_timeout,
    )


def unit(component: str, root: str, asked: object) -> dict[str, str]:
    """The unit as the module ``release`` takes it."""
    settings, root = parse(asked), _text("root", root).rstrip("/")
    current = f"{root}/current"
    content = _UNIT.format(
        component=component,
        root=root.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%"),
        image_file=f"{current}/{IMAGE_FILE}".replace("%", "%%"),
        variable=IMAGE_VARIABLE,
        options=" ".join(_word(option) for option in _options(component, current, settings)),
        command="".join(f" {_word(word)}" for word in settings.command),
        stop_timeout=settings.stop_timeout,
        longest_stop=settings.stop_timeout + 60,
    )
    return {"name": unit_name(component), "content": content}


def _options(component: str, current: str, settings: Settings) -> list[str]:
    def place(path: str) -> str:
        return f"{current}/{path[len(_INSIDE) :]}" if path.startswith(_INSIDE) else path

    return [
        *("--rm", "--replace", "--detach", "--pull=never", f"--name={component}", f"--label={LABEL}={component}"),
        *("--cgroups=no-conmon", f"--sdnotify={'container' if settings.ready == 'notify' else 'conmon'}"),
        *("--log-driver=passthrough", f"--stop-timeout={settings.stop_timeout}"),
        *(f"--publish={port}" for port in settings.ports),
        *(f"--volume={place(volume)}" for volume in settings.volumes),
        *(f"--env-file={place(path)}" for path in settings.environment_files),
        *(f"--env={name}={value}" for name, value in settings.environment),
        *([f"--user={settings.user}"] if settings.user else []),
        *([f"--network={settings.network}"] if settings.network else []),
        *settings.args,
    ]


def _environment(asked: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(asked, Mapping):
        raise SpecError(f"{VARIABLE}.environment: {asked!r} is no mapping of names to values")
    for name in asked:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SpecError(f"{VARIABLE}.environment: {name!r} is not the name of a variable")
    return tuple((name, _text(f"environment.{name}", value)) for name, value in sorted(asked.items()))


def _args(asked: object) -> tuple[str, ...]:
    args = _texts("args", asked)
    for one in args:
        if not _OPTION.fullmatch(one):
            raise SpecError(f"{VARIABLE}.args: {one!r} is not an option of podman run in one word, such as --memory=1g")
        if one.partition("=")[0] in TAKEN:
            raise SpecError(f"{VARIABLE}.args: {one!r} is set by Convoy itself: leave it away")
    return args


def _texts(key: str, asked: object) -> tuple[str, ...]:
    if not isinstance(asked, list | tuple):
        raise SpecError(f"{VARIABLE}.{key}: {asked!r} is no list")
    return tuple(_text(key, one) for one in asked)


def _text(key: str, value: object) -> str:
    """A word that can stand in a unit. A number is taken as it is written; what YAML made a truth is not."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise SpecError(f"{VARIABLE}.{key}: {value!r} is no string: write it in quotes")
    text = str(value)
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise SpecError(
            f"{VARIABLE}.{key}: {text!r} holds a control character: put it into a file by component_config, and name "
            "that in environment_files or volumes"
        )
    return text


def _word(word: str) -> str:
    """A word as a command of a unit has it, systemd.service(5): nothing of it is expanded."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[A-Za-z0-9_./:=,@%+-]+", escaped) else f'"{escaped}"'
