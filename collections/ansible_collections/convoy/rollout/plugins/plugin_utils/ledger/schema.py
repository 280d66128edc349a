# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tables. ``events`` is the truth; the others are projections of it, kept in the same transaction."""

from __future__ import annotations

VERSION = 3

# What brings the tables of an older version to the next one.
CHANGES: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE convoy_streams ADD COLUMN clock_at FLOAT NOT NULL DEFAULT 0",
        "UPDATE convoy_streams SET clock_at = seen_at",
    ),
    2: (),  # PostgreSQL got the questions, which are made where they are missing
}

# What a transaction has to know of a stream, and writes.
HEAD = ("head", "head_hash", "token", "rollout", "holder", "seen_at", "clock_at")

try:
    from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text
except ImportError:
    INSTALLED = False  # a Ledger says so when one is asked for
else:
    INSTALLED = True
    metadata = MetaData()

    ledger_version = Table("convoy_ledger", metadata, Column("version", Integer, primary_key=True))

    streams = Table(
        "convoy_streams",
        metadata,
        Column("name", String(255), primary_key=True),
        Column("head", BigInteger, nullable=False),
        Column("head_hash", String(64), nullable=False),
        Column("token", BigInteger, nullable=False),
        Column("rollout", String(64)),  # the rollout that is open
        Column("holder", Text),  # the run that holds the token, as JSON
        Column("seen_at", Float, nullable=False),  # when that run was last heard of, by the ledger's time
        Column("clock_at", Float, nullable=False),  # what the clock said then
    )

    events = Table(
        "convoy_events",
        metadata,
        Column("stream", String(255), primary_key=True),
        Column("seq", BigInteger, primary_key=True),
        Column("rollout", String(64), nullable=False, index=True),
        Column("kind", String(32), nullable=False),
        Column("host", String(255)),
        Column("at", Float, nullable=False),
        Column("actor", String(255), nullable=False),
        Column("data", Text, nullable=False),
        Column("hash", String(64), nullable=False),
    )

    rollouts = Table(
        "convoy_rollouts",
        metadata,
        Column("id", String(64), primary_key=True),
        Column("stream", String(255), nullable=False, index=True),
        Column("opened_at", Float, nullable=False),
        Column("status", String(32), nullable=False),
        Column("facts", Text, nullable=False),
        Column("rules", Text, nullable=False),
        Column("digest", String(64), nullable=False),
        Column("state", Text, nullable=False),
    )

    hosts = Table(
        "convoy_hosts",
        metadata,
        Column("rollout", String(64), primary_key=True),
        Column("name", String(255), primary_key=True),
        Column("position", Integer, nullable=False),
        Column("phase", Integer, nullable=False),
        Column("zone", String(255), nullable=False),
        Column("from_release", String(128)),
        Column("to_release", String(128), nullable=False),
        Column("status", String(32), nullable=False),
        Column("why", Text, nullable=False),
        Column("updated_at", Float, nullable=False),
        Index("convoy_hosts_by_status", "rollout", "status", "phase", "position"),
    )

    # What runs ask in PostgreSQL while another one decides, which answers them with its own. Nothing in here has to
    # outlive the server: who asks has lost the connection then, and asks anew.
    questions = Table(
        "convoy_questions",
        MetaData(),
        Column("asker", String(36), primary_key=True),
        Column("stream", String(255), nullable=False),
        Column("rollout", String(64), nullable=False),
        Column("host", String(255), nullable=False),
        Column("actor", String(255), nullable=False),
        Column("question", Text, nullable=False),
        Column("asked_at", Float, nullable=False),
        Column("answer", Text),
        prefixes=["UNLOGGED"],
    )
