# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""publish.yml, promote.yml and depot.yml see to the depot; deploy.yml takes from it only what it may."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.plan import HostFacts, make_plan
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.spec import (
    FailureBudget,
    Quantity,
    RolloutSpec,
    parse_phases,
)
from ansible_collections.convoy.rollout.plugins.plugin_utils.coordinator.state import HostStatus
from ansible_collections.convoy.rollout.plugins.plugin_utils.ledger.rollouts import Run
from ansible_collections.convoy.rollout.tests.unit.plugins.builders import BUILDER, POLICY_SOURCE, Builder
from ansible_collections.convoy.rollout.tests.unit.plugins.web_depot import Faults, serving

from .conftest import ROOT, STREAM, Ended, Site

BIN = Path(sys.executable).parent


def version(number: str) -> list[str]:
    return ["-e", f"component_version={number}"]


def given(**variables: Any) -> list[str]:
    """Extra variables that keep their types."""
    return ["-e", json.dumps(variables)]


def refused(ended: Ended, *said: str) -> None:
    assert ended.rc == 2, ended.said
    for words in said:
        assert words in ended.said
    assert "Traceback" not in ended.said


def see_to(site: Site, do: str, *arguments: str) -> Ended:
    return site.run("depot.yml", "-e", f"depot_do={do}", *arguments)


def depot_of(site: Site) -> Path:
    return Path(site.variables["depot_path"])


def states(site: Site, number: str) -> list[dict[str, Any]]:
    """The records of a release, oldest first."""
    directory = depot_of(site) / "components" / "hello" / number / "states"
    return [json.loads(path.read_text()) for path in sorted(directory.iterdir())]


def deployed(site: Site, number: str, kind: str = "deploy", serial: int | None = None, was: str | None = None) -> None:
    """Record a rollout that succeeded, of two hosts that ran ``was``."""
    spec = RolloutSpec(
        parse_phases([{"name": "fleet", "size": "100%"}], 1), FailureBudget(Quantity(0)), Quantity(1), 600
    )
    old = f"{was}-aaaaaaaaaaaa" if was else None
    hosts = {name: HostFacts(name, f"{number}-aaaaaaaaaaaa", old) for name in ("app1", "app2")}
    facts = {"kind": kind, "component": "hello", "version": number, "environment": "tiny", "serial": serial}
    rollouts = site.rollouts()
    rollout = f"r{rollouts.head()}"
    plan = make_plan(spec, list(hosts.values()))
    token = rollouts.open(plan, hosts, facts, Run("far", 1, 1, "ann"), lambda run: False, rollout, 600.0).token
    for host in hosts:
        rollouts.admit(rollout, token, host)
        rollouts.report(rollout, token, host, HostStatus.SUCCEEDED)
    rollouts.close(rollout, token)


@pytest.fixture
def publisher(site: Site, releases: Path) -> Site:
    """A site that may publish too."""
    site.variables["publish_signing_key"] = str(releases / "keys" / "release_key")
    return site


def publish(site: Site, number: str, artifact: Path, *arguments: str) -> Ended:
    return site.run("playbooks/publish.yml", *version(number), "-e", f"component_artifact={artifact}", *arguments)


@pytest.fixture
def artifact(releases: Path) -> Path:
    return releases / "build" / "hello-1.1.0.tar.gz"


def family(pid: int) -> list[int]:
    """The process and all that it has started, the youngest first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*(one for child in children for one in family(int(child))), pid]


# publishing


def test_a_release_that_its_environment_trusts_is_verified(publisher: Site, artifact: Path) -> None:
    ended = publish(publisher, "1.2.0", artifact)
    assert ended.rc == 0, ended.said
    assert "it is verified" in ended.said
    (record,) = states(publisher, "1.2.0")
    assert (record["state"], record["environment"]) == ("verified", "tiny")
    assert record["why"].startswith("signed by release@convoy.example (SHA256:")
    assert record["by"]


def test_a_release_by_somebody_else_is_in_quarantine_until_it_is_trusted(
    publisher: Site, artifact: Path, releases: Path
) -> None:
    other = publisher.directory / "other"
    subprocess.run([sys.executable, str(ROOT / "examples/keys"), str(other)], check=True, stdout=subprocess.DEVNULL)
    ended = publish(publisher, "1.2.0", artifact, "-e", f"publish_signing_key={other}/release_key")
    assert ended.rc == 0, ended.said
    assert "it is in quarantine: the key SHA256:" in ended.said
    refused(publisher.run("promote.yml", *version("1.2.0")), "hello 1.2.0 is in quarantine")
    again = publish(publisher, "1.2.0", artifact)
    assert "hello 1.2.0 was published before, its signature is added" in again.said
    assert [record["state"] for record in states(publisher, "1.2.0")] == ["quarantined", "verified"]
    assert "changed=0" in publish(publisher, "1.2.0", artifact).said
    assert publisher.run("promote.yml", *version("1.2.0")).rc == 0


def test_two_people_have_to_sign(publisher: Site, artifact: Path) -> None:
    second = publisher.directory / "second"
    command = [sys.executable, str(ROOT / "examples/keys"), str(second), "--identity", "second@convoy.example"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    both = publisher.directory / "both"
    first = Path(publisher.variables["environment_allowed_signers"])
    both.write_text(first.read_text() + (second / "allowed_signers").read_text())
    publisher.variables |= {"environment_allowed_signers": str(both), "environment_required_signers": 2}
    ended = publish(publisher, "1.2.0", artifact)
    assert "it is in quarantine: 2 people have to sign, and 1 did: release@convoy.example" in ended.said
    refused(publisher.deploy("--check", version="1.2.0"), "2 people have to sign, and 1 did")
    checked = publish(publisher, "1.2.0", artifact, "--check", "-e", f"publish_signing_key={second}/release_key")
    assert "its signature would be added" in checked.said
    ended = publish(publisher, "1.2.0", artifact, "-e", f"publish_signing_key={second}/release_key")
    assert "it is verified" in ended.said
    assert publisher.deploy("--check", version="1.2.0").rc == 0


def test_an_environment_that_nobody_has_to_sign_for(site: Site) -> None:
    refused(site.deploy(*given(environment_required_signers=0)), "environment_required_signers: 0 is out of range")


def test_publishing_that_is_killed_leaves_nothing_to_be_seen(publisher: Site) -> None:
    """kill -9 at any moment: the release is there whole or not at all, and the rest can be collected."""
    artifact = publisher.directory / "big.tar.gz"
    member = publisher.directory / "noise"
    member.write_bytes(random.Random(7).randbytes(30_000_000))
    with tarfile.open(artifact, "w:gz", compresslevel=1) as archive:
        archive.add(member, "noise")
    publisher.run("depot.yml")  # writes the inventory
    incoming, seen = depot_of(publisher) / "incoming", depot_of(publisher) / "components" / "hello" / "2.0.0"
    command = [BIN / "ansible-playbook", "playbooks/publish.yml", "-i", publisher.inventory, *version("2.0.0")]
    environment = {**os.environ, "ANSIBLE_HOME": str(publisher.directory / "ansible")}
    run = subprocess.Popen(
        [*map(str, command), "-e", f"component_artifact={artifact}"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any(incoming.rglob("artifact")) and run.poll() is None:
        time.sleep(0.005)
    for pid in family(run.pid):  # workers are in process groups of their own
        os.kill(pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not seen.exists()
    listed = publisher.run("depot.yml")
    assert (listed.rc, "hello 2.0.0" in listed.said) == (0, False), listed.said
    refused(see_to(publisher, "verify"), "was left by an upload that was interrupted")
    publisher.ledger()
    assert "removed: left by an interrupted upload" in see_to(publisher, "collect").said
    assert see_to(publisher, "verify").rc == 0
    assert publish(publisher, "2.0.0", artifact).rc == 0
    assert seen.exists()


# provenance and bills of material


@pytest.fixture
def builder(publisher: Site) -> Builder:
    """The builder whose provenance the environment demands."""
    made = Builder.make(publisher.directory)
    publisher.variables["environment_provenance"] = {
        "keys": [str(made.public)],
        "builders": [BUILDER],
        "sources": [POLICY_SOURCE],
    }
    return made


def file_of(site: Site, content: bytes, name: str) -> str:
    path = site.directory / name
    path.write_bytes(content)
    return str(path)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_environment_demands_provenance(publisher: Site, builder: Builder, artifact: Path) -> None:
    """Without it a release is published into quarantine, and neither promoted nor deployed; with it, all of these."""
    ended = publish(publisher, "1.2.0", artifact)
    assert "it is in quarantine: hello 1.2.0 has no provenance, and this environment demands it" in ended.said
    refused(publisher.deploy(version="1.2.0"), "hello 1.2.0 has no provenance", "publish_provenance=FILE")
    assert json.loads(publisher.ledger().entries(STREAM)[-1].data)["reason"] == "provenance-missing"
    envelope = file_of(publisher, builder.envelope(digest_of(artifact)), "good.json")
    given_too = ["-e", f"publish_provenance={envelope}"]
    assert "its provenance would be added" in publish(publisher, "1.2.0", artifact, "--check", *given_too).said
    ended = publish(publisher, "1.2.0", artifact, *given_too)
    assert "hello 1.2.0 was published before, its provenance is added" in ended.said
    assert "it is verified" in ended.said
    assert "changed=0" in publish(publisher, "1.2.0", artifact, *given_too).said
    assert f"built by {BUILDER} (SHA256:" in states(publisher, "1.2.0")[-1]["why"]
    assert publisher.run("promote.yml", *version("1.2.0")).rc == 0
    assert publisher.deploy("--check", version="1.2.0").rc == 0
    shown = see_to(publisher, "show", *version("1.2.0"))
    assert f"trusted here yes, release@convoy.example, built by {BUILDER}" in shown.said
    assert f"provenance it says: built by {BUILDER} from git+https://git.example/team/hello@refs/tags/v1" in shown.said


def test_a_deployment_refuses_provenance_that_is_not_accepted(
    publisher: Site, builder: Builder, artifact: Path
) -> None:
    envelope = file_of(
        publisher, builder.envelope(digest_of(artifact), sources=["git+https://evil.example/x"]), "x.json"
    )
    why = "it was built from 'git+https://evil.example/x', and accepted here is only"
    assert why in publish(publisher, "1.2.0", artifact, "-e", f"publish_provenance={envelope}").said
    refused(publisher.deploy(version="1.2.0"), why, "environment_provenance.sources")
    assert json.loads(publisher.ledger().entries(STREAM)[-1].data)["reason"] == "provenance-source"


def test_provenance_of_something_else_is_not_published(publisher: Site, builder: Builder, artifact: Path) -> None:
    envelope = file_of(publisher, builder.envelope("1e" * 32), "other.json")
    for more in ([], ["--check"]):
        ended = publish(publisher, "1.2.0", artifact, "-e", f"publish_provenance={envelope}", *more)
        refused(ended, f"the provenance is of {'1e' * 32}, and the artifact has the SHA-256")
    assert not (depot_of(publisher) / "components" / "hello" / "1.2.0").exists()


@pytest.mark.parametrize(
    ("demanded", "said"),
    [
        ({}, "missing required arguments: builders, keys, sources found in required_provenance"),
        ({"keys": ["/x"], "builders": ["x"], "sources": ["**"]}, "environment_provenance.sources: '**' would accept"),
    ],
)
def test_what_cannot_be_demanded_is_refused(site: Site, demanded: dict[str, Any], said: str) -> None:
    refused(site.deploy(*given(environment_provenance=demanded)), said)


def test_a_bill_of_material_is_kept_shown_exported_and_verified(publisher: Site, artifact: Path) -> None:
    content = b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "library", "name": "zlib"}]}'
    given_too = ["-e", f"publish_sbom={file_of(publisher, content, 'hello.cdx.json')}"]
    assert publish(publisher, "1.2.0", artifact, *given_too).rc == 0
    digest = hashlib.sha256(content).hexdigest()
    shown = see_to(publisher, "show", *version("1.2.0"))
    assert f"SBOM CycloneDX 1.6, 1 component, SHA-256 {digest}" in shown.said
    assert "changed=0" in shown.said
    target = publisher.directory / "audit"
    exporting = ["-e", f"depot_export={target}", *version("1.2.0")]
    assert f"{target}/sbom.json would be written" in see_to(publisher, "show", *exporting, "--check").said
    assert not target.exists()
    assert f"{target}/sbom.json is written" in see_to(publisher, "show", *exporting).said
    assert (target / "sbom.json").read_bytes() == content
    assert "changed=0" in see_to(publisher, "show", *exporting).said
    assert see_to(publisher, "verify").rc == 0
    kept = depot_of(publisher) / "components/hello/1.2.0/sbom.json"
    kept.write_bytes(content.replace(b"zlib", b"xz"))
    refused(see_to(publisher, "verify"), "WRONG: hello 1.2.0: the SBOM of hello 1.2.0", "was changed")
    assert "SBOM the SBOM of hello 1.2.0" in see_to(publisher, "show", *version("1.2.0")).said
    assert "its SBOM is added" in publish(publisher, "1.2.0", artifact, *given_too).said
    assert see_to(publisher, "verify").rc == 0


def test_what_is_no_bill_of_material_is_not_published(publisher: Site, artifact: Path) -> None:
    wrong = file_of(publisher, b"<bom/>", "bom.xml")
    refused(publish(publisher, "1.2.0", artifact, "-e", f"publish_sbom={wrong}"), f"the SBOM {wrong} is no JSON")
    assert not (depot_of(publisher) / "components" / "hello" / "1.2.0").exists()


# listing and showing


def test_the_list_is_what_is_told_by_default(site: Site) -> None:
    ended = site.run("depot.yml")
    assert ended.rc == 0, ended.said
    assert "component version state serial size published" in ended.said
    assert "hello 1.0.0 quarantined 1" in ended.said
    assert "hello 1.1.0 quarantined 2" in ended.said


def test_one_release_is_shown(site: Site) -> None:
    see_to(site, "verify")
    site.run("promote.yml", *version("1.1.0"), *given(depot_reason="it ran well"))
    ended = see_to(site, "show", *version("1.1.0"))
    assert ended.rc == 0, ended.said
    assert "state promoted: tiny" in ended.said
    assert "trusted here yes, release@convoy.example" in ended.said
    assert ended.said.index("quarantined") < ended.said.index("verified") < ended.said.index("it ran well")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-e", "depot_do=show"], "component_version is not set: give it with -e"),
        (["-e", "depot_do=show", *version("1.0.1")], "has no hello 1.0.1: publish it first; it has 1.0.0, 1.1.0"),
        (["-e", "depot_do=show", *given(component_version=1.1)], "component_version is the number 1.1, not a string"),
        (["-e", "depot_do=clean"], "list, show, verify, collect, promote, retire, push, got: clean"),
        (["-e", "depot_path=/nowhere/at/all"], "there is no depot at /nowhere/at/all: set depot_path"),
        (["-e", "depot_ledger={}"], "unknown variable depot_ledger: did you mean 'depot_ledgers'?"),
    ],
)
def test_what_makes_no_sense_is_refused(site: Site, arguments: list[str], said: str) -> None:
    refused(site.run("depot.yml", *arguments), said)


@pytest.mark.parametrize("mode", [0o755, 0o757, 0o770])
def test_a_depot_that_others_may_use_is_refused_with_the_command_that_repairs_it(site: Site, mode: int) -> None:
    depot_of(site).chmod(mode)
    for ended in (site.run("depot.yml"), site.deploy(), see_to(site, "verify")):
        refused(ended, f"has mode {mode:04o}", f"chmod 0750 {depot_of(site)}")
    subprocess.run(["chmod", "0750", str(depot_of(site))], check=True)
    assert site.run("depot.yml").rc == 0


# verifying


def test_all_is_verified_and_what_is_trusted_leaves_its_quarantine(site: Site) -> None:
    ended = see_to(site, "verify", "--check")
    assert "hello 1.0.0 would leave its quarantine" in ended.said
    assert len(states(site, "1.0.0")) == 1
    ended = see_to(site, "verify")
    assert (ended.rc, "hello 1.0.0 has left its quarantine" in ended.said) == (0, True)
    again = see_to(site, "verify")
    assert "2 releases verified: every digest, signature and record is as it must be" in again.said
    assert "changed=0" in again.said


def change_artifact(site: Site) -> None:
    for blob in (depot_of(site) / "blobs" / "sha256").iterdir():
        content = bytearray(blob.read_bytes())
        content[len(content) // 2] ^= 1
        blob.write_bytes(content)


def change_manifest(site: Site) -> None:
    path = depot_of(site) / "components/hello/1.0.0/manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"0644"', b'"0755"'))


def change_record(site: Site) -> None:
    path = depot_of(site) / "components/hello/1.0.0/states/000001.json"
    path.write_text(path.read_text().replace("quarantined", "good"))


def leave_an_artifact(site: Site) -> None:
    (depot_of(site) / "blobs/sha256" / ("0f" * 32)).write_bytes(b"x")


def open_a_file(site: Site) -> None:
    (depot_of(site) / "components/hello/1.0.0/manifest.json").chmod(0o644)


def put_something_there(site: Site) -> None:
    (depot_of(site) / "notes.txt").touch(0o600)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change_artifact, "was changed: its SHA-256 is"),
        (change_manifest, "the SHA-256"),
        (change_record, "states/000001.json is no record of a release's state ('good' is not a valid State)"),
        (leave_an_artifact, "was left by an upload that was interrupted: run depot.yml -e depot_do=collect"),
        (open_a_file, "manifest.json has mode 0644: it is open to others than those who publish: chmod -R g-w,o= "),
        (put_something_there, "notes.txt is no part of a depot: move it away"),
    ],
)
def test_what_is_wrong_is_named_and_fails_the_run(site: Site, spoil: Callable[[Site], None], said: str) -> None:
    spoil(site)
    refused(see_to(site, "verify"), "WRONG: ", said)
    assert site.run("depot.yml").rc == 0


# promoting and retiring


def test_an_environment_may_want_promoted_releases_only(site: Site) -> None:
    see_to(site, "verify")
    site.variables["environment_requires_promotion"] = True
    refused(
        site.deploy(),
        "hello 1.0.0 is verified, and tiny deploys only what is promoted for it (environment_requires_promotion)",
        "run promote.yml -e component_version=1.0.0 with this inventory",
    )
    entry = site.ledger().entries(STREAM)[-1]
    assert json.loads(entry.data)["reason"] == "release-not-promoted"
    checked = site.run("promote.yml", *version("1.0.0"), "--check")
    assert "hello 1.0.0 would be promoted for tiny" in checked.said
    assert "hello 1.0.0 is promoted for tiny" in site.run("promote.yml", *version("1.0.0")).said
    again = site.run("promote.yml", *version("1.0.0"))
    assert "hello 1.0.0 was promoted for tiny before, nothing changed" in again.said
    assert "changed=0" in again.said
    assert site.deploy("--check").rc == 0
    elsewhere = site.deploy("--check", "-e", "environment_name=other")
    refused(elsewhere, "hello 1.0.0 is promoted: tiny, and other deploys only what is promoted for it")


def test_a_release_for_others_is_not_promoted(publisher: Site, artifact: Path) -> None:
    publish(publisher, "1.2.0", artifact, *given(publish_audience=["production"]))
    refused(publisher.run("promote.yml", *version("1.2.0")), "was published for production, not for tiny")


def test_a_retired_release_goes_nowhere_but_back(publisher: Site, artifact: Path) -> None:
    publish(publisher, "1.2.0", artifact)
    assert see_to(publisher, "retire", *version("1.2.0"), *given(depot_reason="it leaks memory")).rc == 0
    said = ("hello 1.2.0 was retired at ", "it leaks memory", "rollback.yml")
    refused(publisher.deploy(version="1.2.0"), *said)
    refused(publisher.run("promote.yml", *version("1.2.0")), *said)
    refused(publish(publisher, "1.2.0", artifact), *said)
    assert "was retired before, nothing changed" in see_to(publisher, "retire", *version("1.2.0")).said
    back = publisher.run("rollback.yml", *version("1.2.0"), "--check")
    assert "has no good release of version 1.2.0" in back.said
    assert "retired" not in back.said


# collecting


def test_only_what_no_host_needs_is_collected(publisher: Site, releases: Path) -> None:
    for number in ("1.2.0", "1.3.0"):
        built = publisher.directory / "build"
        subprocess.run(
            [sys.executable, str(ROOT / "examples/build"), str(built), number], check=True, stdout=subprocess.DEVNULL
        )
        publish(publisher, number, built / f"hello-{number}.tar.gz")
    for number in ("1.0.0", "1.1.0", "1.2.0"):
        see_to(publisher, "retire", *version(number))
    before = None
    for serial, number in enumerate(("1.0.0", "1.1.0", "1.3.0"), start=1):
        deployed(publisher, number, serial=serial, was=before)
        before = number
    blobs = depot_of(publisher) / "blobs" / "sha256"
    checked = see_to(publisher, "collect", "--check", *given(component_keep=2))
    assert len(list(blobs.iterdir())) == 4
    ended = see_to(publisher, "collect", *given(component_keep=2))
    assert ended.rc == 0, ended.said
    for told, how in ((checked, "would be removed"), (ended, "removed")):
        assert f"{how}: the artifact of hello 1.0.0, retired" in told.said
        assert f"{how}: the artifact of hello 1.2.0, retired" in told.said
        assert "hello 1.1.0 is kept: hosts of tiny run it or could go back to it" in told.said
    assert len(list(blobs.iterdir())) == 2
    assert "changed=0" in see_to(publisher, "collect", *given(component_keep=2)).said
    assert see_to(publisher, "verify").rc == 0
    assert "its artifact was collected" in see_to(publisher, "show", *version("1.0.0")).said


def test_nothing_is_collected_where_a_ledger_cannot_be_read(site: Site) -> None:
    see_to(site, "retire", *version("1.0.0"))
    refused(
        see_to(site, "collect"), "what the hosts of tiny run or could go back to cannot be told", "there is no ledger"
    )
    deployed(site, "1.1.0", serial=2)
    site.run("promote.yml", *version("1.1.0"), "-e", "environment_name=production")
    see_to(site, "verify")
    site.run("promote.yml", *version("1.1.0"), "-e", "environment_name=production")
    refused(
        see_to(site, "collect"),
        "is used by production too, and what the hosts there run or could go back to is in other ledgers: "
        "name each with its URL in depot_ledgers",
    )
    assert len(list((depot_of(site) / "blobs" / "sha256").iterdir())) == 2
    other = f"sqlite:///{site.directory}/production.db"
    refused(see_to(site, "collect", *given(depot_ledgers={"production": other})), "of production run", "is no ledger")
    site.variables |= {"environment_name": "production", "environment_ledger_url": other}
    site.ledger()
    site.variables |= {"environment_name": "tiny", "environment_ledger_url": f"sqlite:///{site.directory}/ledger.db"}
    ended = see_to(site, "collect", *given(depot_ledgers={"production": other}))
    assert (ended.rc, "the artifact of hello 1.0.0, retired" in ended.said) == (0, True)


# a depot elsewhere


def test_a_release_is_deployed_from_a_web_server(publisher: Site, artifact: Path) -> None:
    """Its artifact is fetched once, though connections break; what was retired there is refused at once."""
    see_to(publisher, "verify")
    faults = Faults(cuts=1, errors=1)
    with serving(depot_of(publisher), faults) as url:
        elsewhere = ["-e", f"depot_url={url}", "-e", f"depot_cache={publisher.directory}/cache"]
        ended = publisher.deploy("--check", *elsewhere)
        assert ended.rc == 0, ended.said
        assert faults.asked == [0, 0]
        (cached,) = (publisher.directory / "cache").glob("*/blobs/sha256/*")
        assert digest_of(cached) == cached.name
        assert publisher.deploy("--check", *elsewhere).rc == 0
        assert faults.asked == [0, 0]
        refused(publisher.deploy("--check", *elsewhere, version="1.0.9"), "has no hello 1.0.9", "it has 1.0.0, 1.1.0")
        see_to(publisher, "retire", *version("1.0.0"))
        refused(publisher.deploy(*elsewhere), "hello 1.0.0 was retired at")
        entry = publisher.ledger().entries(STREAM)[-1]
        assert json.loads(entry.data)["reason"] == "release-retired"
        for ended in (
            publish(publisher, "1.2.0", artifact, *elsewhere),
            publisher.run("promote.yml", *version("1.1.0"), *elsewhere),
            publisher.run("depot.yml", *elsewhere),
        ):
            refused(ended, "depot_url is set, and only deployments read from there")


# serials


def test_no_deployment_goes_below_what_was_deployed(site: Site) -> None:
    deployed(site, "1.0.0", serial=1)
    deployed(site, "1.1.0", serial=2, was="1.0.0")
    said = ("hello 1.0.0 has serial 1, but 2 was seen already", "rollback.yml -e component_version=1.0.0")
    for ended in (site.deploy("--check"), site.deploy()):
        refused(ended, *said)
    assert json.loads(site.ledger().entries(STREAM)[-1].data)["reason"] == "release-replayed"
    assert site.deploy("--check", version="1.1.0").rc == 0
    assert "serial" not in site.run("rollback.yml", "--check", *version("1.0.0")).said
    deployed(site, "1.0.0", kind="rollback", was="1.1.0")
    assert site.deploy("--check").rc == 0
