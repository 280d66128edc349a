# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab decides without touching the machine: addresses, inventories, configurations."""

from __future__ import annotations

import configparser
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def load_lab() -> ModuleType:
    """The program `lab/lab`, which has no `.py` to be imported by."""
    loader = importlib.machinery.SourceFileLoader("convoy_lab", str(ROOT / "lab" / "lab"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    wrote, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = wrote
    return module


lab = load_lab()


@pytest.mark.parametrize(
    ("name", "subnet"),
    [
        ("staging", "10.213.1.0/24"),
        ("production", "10.213.2.0/24"),
        ("test", "10.213.3.0/24"),
        ("molecule", "10.213.4.0/24"),
        ("bench", "10.213.5.0/24"),
    ],
)
def test_the_known_labs_have_subnets_of_their_own(name: str, subnet: str) -> None:
    assert lab.Lab(name).subnet == IPv4Network(subnet)


def test_other_names_get_a_subnet_that_stays_and_that_no_known_lab_has() -> None:
    subnets = [lab.Lab(f"lab-{number}").subnet for number in range(500)]
    again = [lab.Lab(f"lab-{number}").subnet for number in range(500)]
    assert subnets == again
    assert len(set(subnets)) > 100
    whole, known = IPv4Network("10.213.0.0/16"), IPv4Network("10.213.0.0/20")
    assert all(subnet.subnet_of(whole) and not subnet.subnet_of(known) for subnet in subnets)


@pytest.mark.parametrize("name", ["", "Staging", "1st", "a_b", "a/b", "-x", "a" * 32])
def test_a_bad_name_is_refused_and_named(name: str) -> None:
    with pytest.raises(lab.LabError, match=f"^'{name}' is no name for a lab"):
        lab.Lab(name)


def test_every_host_has_an_address_of_its_own_inside_the_subnet() -> None:
    one = lab.Lab("bench")
    hosts = [one.balancer(), *one.app_hosts(lab.MAX_HOSTS)]
    addresses = {host.address for host in hosts}
    assert len(addresses) == len(hosts) == lab.MAX_HOSTS + 1
    usable = {str(address) for address in one.subnet.hosts()} - {str(one.subnet[1])}
    assert addresses <= usable
    assert len({host.mac for host in hosts}) == len(hosts)


def test_zones_alternate_and_a_larger_lab_moves_nobody() -> None:
    one = lab.Lab("test")
    assert [host.zone for host in one.app_hosts(5)] == ["a", "b", "c", "a", "b"]
    assert one.app_hosts(9)[:5] == one.app_hosts(5)


@pytest.mark.parametrize(
    ("name", "have", "wanted", "count"),
    [
        ("staging", 0, None, 6),
        ("production", 0, None, 12),
        ("anything", 0, None, 6),
        ("staging", 0, 3, 3),
        ("staging", 4, None, 4),
        ("staging", 4, 9, 9),
        ("staging", 9, 4, 9),
    ],
)
def test_a_lab_grows_and_never_shrinks(name: str, have: int, wanted: int | None, count: int) -> None:
    assert lab.host_count(lab.Lab(name), have, wanted) == count


def test_hosts_are_counted_by_the_highest_number_of_this_lab_alone() -> None:
    names = ["convoy-test-lb1", "convoy-test-app2", "convoy-test-app11", "convoy-test-2-app30", "app40"]
    assert lab.app_count(lab.Lab("test"), names) == 11
    assert lab.app_count(lab.Lab("test"), []) == 0


def read_ini(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(allow_no_value=True, delimiters=("=",), interpolation=None)
    parser.read_string(text)
    return parser


def test_the_inventory_is_complete_in_itself() -> None:
    parsed = read_ini(lab.render_inventory(lab.Lab("test"), 2))
    assert parsed.sections() == ["app", "lb", "all:vars"]
    assert dict(parsed["app"]) == {
        "app1 ansible_host": "10.213.3.11 zone=a",
        "app2 ansible_host": "10.213.3.12 zone=b",
    }
    assert dict(parsed["lb"]) == {"lb1 ansible_host": "10.213.3.2"}
    assert dict(parsed["all:vars"]) == lab.connection_variables(lab.Lab("test"))


def test_host_keys_are_checked() -> None:
    arguments = lab.connection_variables(lab.Lab("test"))["ansible_ssh_common_args"]
    assert "-o StrictHostKeyChecking=yes" in arguments
    assert "-o UserKnownHostsFile=/var/lib/convoy-lab/labs/test/known_hosts" in arguments


@pytest.mark.parametrize(("name", "count"), [("staging", 6), ("production", 12)])
def test_the_inventories_of_the_project_are_those_of_the_lab(name: str, count: int) -> None:
    directory = ROOT / name
    assert directory.is_symlink()
    comment, hosts = (directory / "hosts").read_text().split("\n", 1)
    assert comment.startswith("#")
    assert hosts == lab.render_hosts(lab.Lab(name), count)
    variables = yaml.safe_load((directory / "group_vars" / "all" / "lab.yml").read_text())
    assert variables == lab.connection_variables(lab.Lab(name))


def test_known_hosts_names_a_host_and_its_address() -> None:
    host = lab.Lab("test").app_hosts(1)[0]
    lines = lab.render_known_hosts([(host, "ssh-ed25519 AAAA app1.test\n")])
    assert lines == "app1,10.213.3.11 ssh-ed25519 AAAA\n"


def test_haproxy_has_one_server_per_application_host() -> None:
    template = (ROOT / "lab" / "haproxy.cfg").read_text()
    text = lab.render_haproxy(template, lab.Lab("test").app_hosts(3))
    assert "$" not in text
    backend = text.partition("backend app\n")[2].partition("\n\n")[0].splitlines()
    servers = [line.split() for line in backend if line.split()[:1] == ["server"]]
    assert servers == [
        ["server", "app1", "10.213.3.11:8080"],
        ["server", "app2", "10.213.3.12:8080"],
        ["server", "app3", "10.213.3.13:8080"],
    ]
    assert "    option httpchk GET /healthz" in backend


def route(destination: str, **more: str) -> dict[str, str]:
    return {"dst": destination, "dev": "eth7", **more}


@pytest.mark.parametrize(
    "harmless",
    [
        route("default", gateway="192.0.2.1"),
        route("192.0.2.0/24"),
        route("10.213.4.0/24"),
        # A VPN's wide route: the lab's own is narrower, so it wins.
        route("10.0.0.0/8", gateway="192.0.2.1"),
    ],
)
def test_what_does_not_clash(harmless: dict[str, str]) -> None:
    other = {"name": "podman", "subnets": [{"subnet": "10.88.0.0/16"}, {"subnet": "fd00::/64"}]}
    assert lab.clash(lab.Lab("test").subnet, [harmless], [other, {"name": "host"}]) is None


@pytest.mark.parametrize(
    "clashing",
    [
        route("10.213.3.0/24"),
        route("10.213.3.77"),
        route("10.213.3.128/25", gateway="192.0.2.1"),
        # The machine itself is in that network.
        route("10.0.0.0/8"),
    ],
)
def test_a_route_that_clashes_is_named(clashing: dict[str, str]) -> None:
    reason = lab.clash(lab.Lab("test").subnet, [clashing], [])
    assert clashing["dst"] in reason
    assert "eth7" in reason


def test_a_network_that_clashes_is_named() -> None:
    other = {"name": "corp", "subnets": [{"subnet": "10.213.0.0/16"}]}
    assert lab.clash(lab.Lab("test").subnet, [], [other]) == "podman's network 'corp' has 10.213.0.0/16"


def test_every_change_of_the_recipe_makes_another_image(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    build, file = tmp_path / "build", tmp_path / "files" / "a"
    build.write_text("one")
    file.write_text("two")
    digests = [lab.recipe_digest(tmp_path)]
    file.write_text("three")
    digests.append(lab.recipe_digest(tmp_path))
    build.chmod(0o755)
    digests.append(lab.recipe_digest(tmp_path))
    file.rename(tmp_path / "files" / "b")
    digests.append(lab.recipe_digest(tmp_path))
    assert len(set(digests)) == 4
    assert lab.recipe_digest(tmp_path) == digests[-1]


def test_a_host_is_made_anew_when_its_keys_or_its_image_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lab, "STATE", tmp_path)
    one = lab.Lab("test")
    host = one.app_hosts(1)[0]
    one.host_key(host).parent.mkdir(parents=True)
    one.key.with_suffix(".pub").write_text("key")
    one.host_key(host).with_suffix(".pub").write_text("host key")
    base = lab.Base("image", "network")
    first = lab.spec_of(one, host, base)
    assert lab.spec_of(one, host, lab.Base("image", "network")) == first
    assert lab.spec_of(one, host, lab.Base("image2", "network")) != first
    assert lab.spec_of(one, host, lab.Base("image", "network2")) != first
    one.host_key(host).with_suffix(".pub").write_text("another")
    assert lab.spec_of(one, host, base) != first


def test_a_process_that_is_gone_is_not_alive() -> None:
    gone = lab.Container("convoy-test-app1", "test", "spec", "running", 2**22 + 1)
    assert not gone.alive


def test_a_process_that_only_waits_to_be_reaped_is_not_alive() -> None:
    process = subprocess.Popen(["/bin/true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not lab.Container("convoy-test-app1", "test", "spec", "running", process.pid).alive
    process.wait()


def test_only_a_process_of_a_running_container_is_alive() -> None:
    assert lab.Container("convoy-test-app1", "test", "spec", "running", os.getpid()).alive
    assert not lab.Container("convoy-test-app1", "test", "spec", "exited", os.getpid()).alive


def test_a_file_is_written_only_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    assert lab.write(path, "one")
    assert not lab.write(path, "one")
    assert lab.write(path, "two")
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
