# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the module ``drift_info``."""

from __future__ import annotations

from ansible_collections.convoy.rollout.plugins.plugin_utils.courier import CallAction


class ActionModule(CallAction):
    """``convoy.rollout.drift_info``"""

    NAME = "drift_info"
