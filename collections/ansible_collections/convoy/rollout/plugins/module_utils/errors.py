# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the target side.

Every error that a module may meet on a host derives from ConvoyTargetError. It is raised where
the cause is known, and turned into a message once, in the module's main().
"""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.module_utils.typed import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


class ConvoyTargetError(Exception):
    """Something a person must know: the message says what, which value, which limit, what next.

    The keyword arguments become keys of the module's result, beside RV(msg).
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InputError(ConvoyTargetError):
    """A value given to a module cannot be right; nothing was touched."""


class PrivilegeError(ConvoyTargetError):
    """The module runs without the rights that it needs."""


class StaleTokenError(ConvoyTargetError):
    """A newer rollout has been here: the caller has lost its right to change this host."""


class LockedError(ConvoyTargetError):
    """Another call is changing the same release tree."""


class TreeError(ConvoyTargetError):
    """The release tree on this host is not in a state that Convoy may work on."""


class NotIntactError(TreeError):
    """A release is missing, incomplete, or differs from its record."""


class SpaceError(ConvoyTargetError):
    """The file system has too few bytes or inodes left."""


class ArchiveError(ConvoyTargetError):
    """The artifact is refused: wrong digest, hostile member, over a limit, not as the manifest says."""


class FetchError(ConvoyTargetError):
    """The artifact could not be fetched, or what lies there is another one."""


class SupervisorError(ConvoyTargetError):
    """The service manager refused, failed or did not answer in time."""


class ActivationError(ConvoyTargetError):
    """A release did not come into service, or not healthy; the details say what is active now."""


class PackageError(ConvoyTargetError):
    """The package manager refused, failed, or does not know what is asked for."""


class ContainerError(ConvoyTargetError):
    """What runs containers refused, failed, or cannot run the image that is asked for."""


class GateError(ConvoyTargetError):
    """The description of a gate cannot be right: the message names field, value and rule."""


class TrafficError(ConvoyTargetError):
    """The load balancer refused, failed or did not answer in time."""


def failure(error: ConvoyTargetError | OSError) -> dict[str, Any]:
    """What a module returns that ended in an error."""
    if isinstance(error, ConvoyTargetError):
        return dict(error.details, failed=True, msg=error.message)
    return {"failed": True, "msg": f"{error.filename or 'the host'}: {error.strerror or error}"}
