# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a real database's schema, run once in a rollout: forward, back, and by a run that dies.

The database is SQLite's, in a file on the load balancer's machine. No statement of these migrations can be run twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .environment import STREAM, Environment

HOME = "/var/lib/convoy-test-migrations"
QUERY = f"""
import json, sqlite3, sys
with sqlite3.connect("{HOME}/app.db", isolation_level=None) as database:
    print(json.dumps([database.execute(one).fetchall() for one in sys.argv[1:]]))
"""
ADD = ("0001_add_tone", "ALTER TABLE greetings ADD COLUMN tone TEXT", "ALTER TABLE greetings DROP COLUMN tone")
DROP = ("0002_drop_old", "DROP TABLE old", "")
INDEX = ("0003_index_tone", "CREATE INDEX by_tone ON greetings (tone)", "DROP INDEX by_tone")


@dataclass
class Database:
    """The database, and the task files that change it."""

    environment: Environment
    directory: Path

    def ask(self, *statements: str) -> Any:
        script = f"mkdir -p {HOME}; python3 - {' '.join(repr(one) for one in statements)} <<'END'\n{QUERY}\nEND"
        return yaml.safe_load(self.environment.fleet.shell("lb1", script))

    @property
    def things(self) -> set[str]:
        """Columns, indexes and tables."""
        columns, others = self.ask("PRAGMA table_info(greetings)", "SELECT name FROM sqlite_master")
        return {row[1] for row in columns} | {row[0] for row in others}

    def tasks(self, name: str, statement: str, then: str = "true") -> str:
        """A task file that runs a statement, and a command after it."""
        argv = ["python3", "-c", QUERY, statement]
        tasks = [
            {"name": "Change the schema", "ansible.builtin.command": {"argv": argv}, "changed_when": True},
            {"name": "Go on", "ansible.builtin.shell": then, "changed_when": True},
        ]
        return written(self.directory / f"{name}.yml", tasks)

    def migration(self, which: tuple[str, str, str], then: str = "true", **options: Any) -> dict[str, Any]:
        name, forward, back = which
        undone = {"reverse": self.tasks(f"{name}.reverse", back)} if back else {"irreversible": True}
        return {"name": name, "tasks": self.tasks(name, forward, then), "run_on": "lb1", **undone, **options}


def written(path: Path, tasks: list[dict[str, Any]]) -> str:
    path.write_text(yaml.safe_dump(tasks))
    return str(path)


@pytest.fixture
def database(on_1_0_0: Environment, tmp_path: Path) -> Iterator[Database]:
    database = Database(on_1_0_0, tmp_path)
    on_1_0_0.fleet.shell("lb1", f"rm -rf {HOME}")
    database.ask("CREATE TABLE greetings (text TEXT)", "CREATE TABLE old (text TEXT)")
    assert database.things == {"greetings", "old", "text"}
    yield database
    on_1_0_0.fleet.shell("lb1", f"rm -rf {HOME}")


def told(environment: Environment) -> list[tuple[str, str]]:
    """What the ledger says of migrations in the newest rollout, in its order."""
    entries = environment.ledger().entries(STREAM, environment.view().id)
    here = [entry for entry in entries if entry.kind.startswith("migration_")]
    return [(entry.kind.removeprefix("migration_"), json.loads(entry.data)["migration"]) for entry in here]


def test_each_runs_once_where_it_belongs_and_a_rollback_goes_past_an_irreversible_one_when_that_is_accepted(
    database: Database,
) -> None:
    environment, few = database.environment, database.environment.few
    migrations = [
        database.migration(ADD),
        database.migration(DROP, before="last"),
        database.migration(INDEX, after="last"),
    ]
    ended = environment.deploy("1.1.0", **few, component_migrations=migrations)
    assert ended.rc == 0, ended.said
    assert database.things == {"greetings", "text", "tone", "by_tone"}
    assert told(environment) == [
        (kind, name) for name, _on, _back in (ADD, DROP, INDEX) for kind in ("started", "ended")
    ]
    passed = [event["at"] for event in environment.events("phase_passed")]
    started = [event["at"] for event in environment.events("migration_started")]
    assert started[0] < passed[0] < started[1] < passed[1] < started[2]

    with environment.untouched():
        refused = environment.run("rollback.yml", **few, component_migrations=migrations)
    assert refused.rc == 2, refused.said
    assert "0002_drop_old cannot be reversed" in " ".join(refused.said.split())

    accepted = environment.run(
        "rollback.yml", **few, component_migrations=migrations, rollout_accept_irreversible="nobody reads it"
    )
    assert accepted.rc == 0, accepted.said
    environment.see("1.0.0")
    assert database.things == {"greetings", "text", "tone"}
    assert told(environment) == [("started", "0003_index_tone"), ("ended", "0003_index_tone")]
    override = environment.view().facts["override"]
    assert override.startswith("migration 0002_drop_old (of 1.1.0), 0001_add_tone (of 1.1.0) stays, accepted by ")
    assert override.endswith(": nobody reads it")


def test_one_that_fails_turns_the_rollout_back_and_what_ran_is_reversed_when_all_hosts_are_back(
    database: Database, tmp_path: Path
) -> None:
    """It fails since its host is lost. The hosts go their road step by step, as a hook of the site wants it."""
    environment = database.environment
    hook = [{"name": "Say it", "ansible.builtin.debug": {"msg": "hooked"}}]
    variables = {
        **environment.few,
        "component_migrations": [database.migration(ADD), database.migration(INDEX, before="last", run_on="app6")],
        "rollout_hooks": {"before_drain": written(tmp_path / "hook.yml", hook)},
    }
    with environment.host_variables("app6", ansible_host="127.0.0.1", ansible_port=1, ansible_ssh_retries=0):
        ended = environment.deploy("1.1.0", **variables)
    assert ended.rc == 2, ended.said
    assert "migration 0003_index_tone failed: app6 cannot be reached, so that nothing was begun" in ended.summary
    assert database.things == {"greetings", "old", "text"}
    ran, failed = "0001_add_tone", "0003_index_tone"
    forward = [("started", ran), ("ended", ran), ("started", failed), ("failed", failed)]
    assert told(environment) == [*forward, ("started", ran), ("ended", ran)]
    back = max(event["at"] for event in environment.events("moved") if event["now"] == "returned")
    assert back < environment.events("migration_started")[-1]["at"]
    assert (environment.view().status, environment.view().state.migrations) == ("reverted", {})
    assert environment.statuses() == {"app1": "returned", "app2": "pending", "app3": "pending"}
    environment.see("1.0.0")


def test_a_run_that_is_killed_in_the_middle_leaves_it_in_doubt(database: Database) -> None:
    """The statement had been committed, and the run died before it could say so."""
    environment = database.environment
    until_the_test_ends = f"while test -e {HOME}/app.db; do sleep 1; done"  # on its host, without the run
    variables = {**environment.few, "component_migrations": [database.migration(ADD, until_the_test_ends)]}
    environment.publish("1.1.0")
    killed = environment.start("deploy.yml", "1.1.0", **variables)
    while "tone" not in database.things:
        assert killed.lives(0.1), killed.said
    killed.kill()
    with environment.untouched(*environment.hosts):
        taken_up = environment.start("deploy.yml", "1.1.0", **variables)
        taken_up.until("held: migration 0001_add_tone is in doubt")
    settled = environment.run(
        "playbooks/migration.yml", rollout_migration="0001_add_tone", rollout_order="done", rollout_reason="it is there"
    )
    assert settled.rc == 0, settled.said
    ended = taken_up.end()
    assert ended.rc == 0, ended.said
    environment.see("1.1.0", "app1", "app2", "app3")
    assert told(environment) == [(kind, "0001_add_tone") for kind in ("started", "in_doubt", "ended")]
    assert environment.events("migration_ended")[0]["why"].endswith(": it is there")
