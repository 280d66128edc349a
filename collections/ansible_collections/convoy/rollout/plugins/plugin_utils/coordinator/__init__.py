# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The coordinator: everything that decides about a rollout, as pure functions over immutable values.

Nothing here reads a clock, a file, a database or an Ansible object; time is an argument (``now``, epoch seconds).

* ``spec``   what the user asked for, validated
* ``plan``   which host goes in which phase, in which order
* ``state``  where a rollout stands, as a fold over its events
* ``decide`` what happens next: admission, reports, gates, turning back, the verdict
"""
