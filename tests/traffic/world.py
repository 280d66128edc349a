# Copyright (c) the Convoy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real nginx in a directory of its own, with real servers behind it, on the loopback interface."""

from __future__ import annotations

import http.client
import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.convoy.rollout.plugins.module_utils.calls import nginx, nginx_info

PATIENCE = 60.0  # seconds; nothing takes as long, unless it hangs
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")

MAIN = """
daemon off;
user root;
worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/conf.d/*.conf;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_next_upstream off;
            proxy_connect_timeout 5s;
        }}
    }}
}}
"""

UPSTREAM = """# Servers of the application.
upstream app {{
\tserver {servers[0]} max_fails=0;  # the first
\tserver {servers[1]}   max_fails=0 weight=1 ;
\tserver "{servers[2]}"
\t\tmax_fails=0;
}}
"""


class Server:
    """A server of the application: each answer is its name. `sick` and `held` are what its pages do then."""

    def __init__(self) -> None:
        self.port = free_port()
        self.name = f"127.0.0.1:{self.port}"
        self.sick = False
        self.let_go = threading.Event()
        self.asked: list[str] = []
        self._server: http.server.ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen, and answer."""
        world = self

        class Pages(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                world.asked.append(self.path)
                if self.path == "/held":
                    world.let_go.wait(PATIENCE)
                body = world.name.encode()
                self.send_response(500 if world.sick and self.path == "/healthz" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Pages)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End at once, with open requests or without."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def requests(self) -> list[str]:
        """What was asked for by clients."""
        return [path for path in self.asked if path != "/healthz"]


class World:
    """Nginx before three servers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.servers = [Server() for _ in range(3)]
        self.names = [server.name for server in self.servers]
        self.config = directory / "conf.d" / "app.conf"
        self.config.parent.mkdir()
        self.main = directory / "nginx.conf"
        self.main.write_text(MAIN.format(directory=directory, port=self.port))
        self.config.write_text(UPSTREAM.format(servers=self.names))
        self.original = self.config.read_bytes()
        self.started: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start nginx, and wait until it listens."""
        assert NGINX, "nginx is not installed"
        self.started = subprocess.Popen([NGINX, "-c", str(self.main)], stderr=subprocess.DEVNULL)
        self.until(lambda: is_open(self.port))
        self.until((self.directory / "nginx.pid").exists)

    def stop(self) -> None:
        """End nginx, gracelessly."""
        if self.started:
            self.started.terminate()
            self.started.wait(PATIENCE)
            self.started = None

    def end(self) -> None:
        """End all that was started."""
        for server in self.servers:
            server.let_go.set()
        self.stop()
        for server in self.servers:
            server.stop()

    @property
    def params(self) -> dict[str, Any]:
        """What every call is given."""
        return {
            "config": str(self.config),
            "upstream": "app",
            "probe": "http://{server}/healthz",
            "executable": NGINX,
            "main": str(self.main),
            "pid_file": str(self.directory / "nginx.pid"),
            "fence": str(self.directory / "fence"),
        }

    def call(self, state: str, *servers: Server, dry: bool = False, **arguments: Any) -> dict[str, Any]:
        """The result of the module nginx."""
        names = [server.name for server in servers]
        return nginx.run(
            checked(nginx, {**self.params, "state": state, "servers": names, "min_up": 0, **arguments}), dry
        )

    def done(self, state: str, *servers: Server, **arguments: Any) -> dict[str, Any]:
        """The same, which has to go well."""
        result = self.call(state, *servers, **arguments)
        assert "failed" not in result, result
        return result

    def info(self, **arguments: Any) -> dict[str, Any]:
        """The servers, by the module nginx_info."""
        result = nginx_info.run(checked(nginx_info, {**self.params, **arguments}), False)
        assert "failed" not in result, result
        servers: dict[str, Any] = result["servers"]
        return servers

    def states(self) -> list[str]:
        """The state of each server."""
        servers = self.info()
        return [servers[name]["state"] for name in self.names]

    def get(self, path: str = "/") -> str:
        """Which server answers a client, or its status where that is not 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            return body if answer.status == 200 else str(answer.status)
        finally:
            connection.close()

    def hold(self, pool: ThreadPoolExecutor, server: Server) -> Future[str]:
        """A request that this server has begun and does not end before it is let go."""
        others = [other for other in self.servers if other is not server]
        self.done("drained", *others)
        held = pool.submit(self.get, "/held")
        self.until(lambda: "/held" in server.asked)
        self.done("ready", *others)
        return held

    @contextmanager
    def under_load(self, clients: int = 3) -> Iterator[list[str]]:
        """Clients that ask all the time, meanwhile. What they were told: a server, a status or an error."""
        told: list[str] = []
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                try:
                    told.append(self.get())
                except (OSError, http.client.HTTPException) as error:
                    told.append(repr(error))
                over.wait(0.005)

        with ThreadPoolExecutor(clients) as pool:
            asking = [pool.submit(ask) for _ in range(clients)]
            try:
                yield told
            finally:
                over.set()
            for one in asking:
                one.result()

    def until(self, is_so: Any) -> None:
        """Wait until it is so."""
        ends = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < ends, "it does not come to pass"
            time.sleep(0.02)


def checked(call: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments as a module gets them, with defaults."""
    validated = ArgumentSpecValidator(call.arguments()).validate(arguments)
    assert not validated.error_messages, validated.error_messages
    parameters: dict[str, Any] = validated.validated_parameters
    return parameters


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
