# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ledger: the append-only, hash-chained record of every decision, in SQLite or PostgreSQL.

* ``chain``  what makes an edit of the record visible; pure
* ``schema`` the tables
* ``session`` a connection that a process keeps, and what is sent over it
* ``store``  transactions over one stream of events (one component in one environment)
* ``rollouts`` the coordinator's decisions, taken and recorded in one transaction each
* ``rebuild`` what the tables must say, told by the events alone; pure
* ``history`` what the events tell people; pure
* ``releases`` the serial that deployments may not go below, and which releases hosts may still need
* ``audit`` everything of a stream verified, compared and told
* ``export`` the events as lines of JSON
"""
