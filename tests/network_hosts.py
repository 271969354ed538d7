"""Network namespaces as the hosts of docker-compose.yml: one for each service, a bridge for each network, names as Docker gives them.

A service reaches only those with which it shares a network, by the names of the file, on the ports of the file; its
loopback is its own. There is no way out, of any network. Needs root and `ip` (iproute2).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NETNS_ETC = Path("/etc/netns")  # `ip netns exec` lays a folder of the namespace's name over /etc


@dataclass(frozen=True, kw_only=True)
class Host:
    """One namespace.

    Attributes:
        name: of its service, and its host name.
        namespace: what `ip netns` calls it.
        addresses: by network.
    """

    name: str
    namespace: str
    addresses: Mapping[str, str]

    def command(self, *command: str) -> list[str]:
        """A command that runs there."""
        return [
            "ip",
            "netns",
            "exec",
            self.namespace,
            "unshare",
            "--uts",
            "sh",
            "-c",
            'hostname "$0"; exec "$@"',
            self.name,
            *command,
        ]


def why_not() -> str | None:
    """Why this machine cannot have such hosts, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "unshare", "setpriv") if shutil.which(name) is None]
    return f"not on PATH: {', '.join(missing)}" if missing else None


@contextmanager
def hosts(services: Mapping[str, Any]) -> Iterator[dict[str, Host]]:
    """Hosts for services of the file; this process reaches all of them by their addresses."""
    mark, networks = os.getpid(), sorted({network for service in services.values() for network in service["networks"]})
    found = {
        name: Host(
            name=name,
            namespace=f"tributary-{mark}-{name}",
            addresses={network: f"10.213.{networks.index(network)}.{10 + number}" for network in service["networks"]},
        )
        for number, (name, service) in enumerate(services.items())
    }
    with ExitStack() as undo:
        for at, _ in enumerate(networks):
            bridge = f"tb{mark}-{at}"
            _ip("link", "add", bridge, "type", "bridge")
            undo.callback(_ip, "link", "del", bridge)
            _ip("addr", "add", f"10.213.{at}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
        for number, host in enumerate(found.values()):
            _ip("netns", "add", host.namespace)
            undo.callback(_ip, "netns", "del", host.namespace)
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            for network, address in host.addresses.items():
                at = networks.index(network)
                _ip(
                    "link",
                    "add",
                    f"tv{mark}-{number}-{at}",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    f"eth{at}",
                    "netns",
                    host.namespace,
                )
                _ip("link", "set", f"tv{mark}-{number}-{at}", "master", f"tb{mark}-{at}", "up")
                _ip("-n", host.namespace, "addr", "add", f"{address}/24", "dev", f"eth{at}")
                _ip("-n", host.namespace, "link", "set", f"eth{at}", "up")
            etc = NETNS_ETC / host.namespace
            etc.mkdir(parents=True)
            undo.callback(shutil.rmtree, etc)
            known = [
                f"{other.addresses[network]} {other.name}"
                for other in found.values()
                for network in host.addresses
                if network in other.addresses
            ]
            (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))
        yield found


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
