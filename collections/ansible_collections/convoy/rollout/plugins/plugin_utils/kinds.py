# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What kind of component is deployed, and whether its variables are those of its kind. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ansible_collections.convoy.rollout.plugins.module_utils import packages
from ansible_collections.convoy.rollout.plugins.module_utils.errors import ConvoyTargetError
from ansible_collections.convoy.rollout.plugins.plugin_utils import container_unit
from ansible_collections.convoy.rollout.plugins.plugin_utils.by_tasks import check_tasks
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import SpecError, nearest
from ansible_collections.convoy.rollout.plugins.plugin_utils.manifest import Manifest

KINDS = ("archive", "package", "container", "tasks")
PACKAGE_KEYS = ("name", "lock_timeout", "manager")
MANAGERS = ("auto", "apt", "dnf")
# Of the action `rollout`: the options that are for what is in a depot, and the variables that they are given by.
NOT_FOR_PACKAGES: Mapping[str, str] = {
    "artifact": "component_artifact",
    "config": "component_config",
    "transfer": "component_transfer",
    "artifact_url": "component_artifact_url",
    "pull": "component_pull",
}
OF_TEMPLATES = ("src", "secret")  # what is said of a unit that is rendered

# What an environment may demand of a release in a depot: the option, its variable, and what it is without a demand.
DEMANDS: Mapping[str, tuple[str, object]] = {
    "requires_promotion": ("environment_requires_promotion", False),
    "required_provenance": ("environment_provenance", None),
    "required_signers": ("environment_required_signers", 1),
}


def check_kind(asked: Mapping[str, Any]) -> None:
    """Raise SpecError for a kind that is unknown, and for variables that are of another one.

    ``asked`` are the arguments of the action ``rollout``.
    """
    kind, package = asked["component_kind"], asked["package"]
    if kind not in KINDS:
        raise SpecError(f"component_kind: unknown kind {kind!r}: {nearest(kind, KINDS)}")
    for other, given in (("package", package), ("container", asked["container"]), ("tasks", asked.get("tasks"))):
        if given and kind != other:
            raise SpecError(
                f"component_{other}: it is for component_kind: {other}, and that is {kind!r}: set one right"
            )
    if kind == "container":
        _check_container(asked)
    if kind == "tasks":
        check_tasks(asked["tasks"], asked["in_doubt"], asked["confirm_within"], asked["kind"])
    if kind == "package":
        _check_package(package, asked.get("version"))
        _refuse_what_is_in_a_depot(asked)
        _refuse_demands(asked)


def check_published(kind: str, manifest: Manifest) -> None:
    """Raise SpecError for a release that was published as another kind."""
    if (kind == "container") != (manifest.image is not None):
        published = "container" if manifest.image is not None else "archive"
        raise SpecError(
            f"component_kind: it is {kind!r}, and {manifest.component} {manifest.version} was published as "
            f"{published!r}: set it right, or publish a new version with component_kind: {kind}"
        )


def _check_container(asked: Mapping[str, Any]) -> None:
    container_unit.parse(asked["container"])
    name = container_unit.unit_name(asked["component"])
    if any(isinstance(unit, Mapping) and unit.get("name") == name for unit in asked["units"]):
        raise SpecError(
            f"component_units: {name} is the unit that runs the container, and is written by Convoy: leave it away, "
            "and say in component_container how the container is to run"
        )


def _check_package(package: Mapping[str, Any], version: str | None) -> None:
    for key in package:
        if key not in PACKAGE_KEYS:
            raise SpecError(f"component_package: unknown key {key!r}: {nearest(str(key), PACKAGE_KEYS)}")
    name, timeout = package.get("name"), package.get("lock_timeout", 0)
    if not isinstance(name, str):
        raise SpecError("component_package.name is missing: give the name that the package has in its repository")
    if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
        raise SpecError(f"component_package.lock_timeout: {timeout!r} is not a number of seconds, 0 or more")
    manager = package.get("manager", MANAGERS[0])
    if manager not in MANAGERS:
        raise SpecError(f"component_package.manager: unknown manager {manager!r}: {nearest(str(manager), MANAGERS)}")
    try:
        packages.check_name(name)
        if version is not None:
            packages.check_version(version)
    except ConvoyTargetError as error:
        raise SpecError(error.message) from error


def _refuse_what_is_in_a_depot(asked: Mapping[str, Any]) -> None:
    """Variables that would be ignored are an error: whoever set them believes in what they say."""
    wrong = [name for option, name in NOT_FOR_PACKAGES.items() if asked[option] and asked[option] != "push"]
    wrong += [
        f"component_units[{n}].{key}" for n, unit in enumerate(asked["units"]) for key in OF_TEMPLATES if key in unit
    ]
    if wrong:
        raise SpecError(
            f"{', '.join(wrong)}: not for component_kind: package. A package brings its files, configuration and "
            "units itself, and every host fetches it from its own repositories: leave these away, and give units by "
            "their names"
        )


def _refuse_demands(asked: Mapping[str, Any]) -> None:
    demanded = [variable for option, (variable, none) in DEMANDS.items() if asked[option] not in (none, None)]
    if demanded and asked["kind"] != "rollback":
        raise SpecError(
            f"component_kind: a package is in no depot, so that it cannot be what {', '.join(demanded)} of the "
            "environment demands: deploy an archive, or take the demand away from environments that have packages"
        )


def package_digest(name: str, version: str) -> str:
    """What stands for the artifact of a package in a release's id: hosts have that from their own repositories."""
    return hashlib.sha256(f"package {name} {version}".encode()).hexdigest()
