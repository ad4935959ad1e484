"""A real kube-apiserver with its etcd, and a stand-in for the controllers and kubelets that it does not bring.

`TEST_ASSET_KUBE_APISERVER` and `TEST_ASSET_ETCD` name the two programs, as Kubernetes' own envtest does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.ports import free_ports

START_S = 60.0
# Namespaces, each with a service account's token that may be used in it.
NAMESPACES = [f"t{number}" for number in range(40)]


def programs() -> tuple[str, str] | None:
    """Paths of kube-apiserver and etcd."""
    found = [
        os.environ.get(variable) or shutil.which(name) or _envtest(name)
        for variable, name in (("TEST_ASSET_KUBE_APISERVER", "kube-apiserver"), ("TEST_ASSET_ETCD", "etcd"))
    ]
    if not all(found) or shutil.which("openssl") is None:
        return None
    return str(found[0]), str(found[1])


def _envtest(name: str) -> str | None:
    path = Path("/usr/local/kubebuilder/bin") / name
    return str(path) if path.exists() else None


class KubeServer:
    """Start, kill -9 and restart on the same port and data."""

    is_real = True

    def __init__(self, folder: Path) -> None:
        found = programs()
        if found is None:
            pytest.skip("no kube-apiserver and etcd: set TEST_ASSET_KUBE_APISERVER and TEST_ASSET_ETCD")
        self._apiserver, self._etcd = found
        self._folder = folder
        self._etcd_port, self._peer_port, self.port = free_ports(3)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        key = self._folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        lines = ['admin,admin,1,"system:masters"']
        lines += [f"scaler-{name},system:serviceaccount:{name}:penstock-scaler,{name}" for name in NAMESPACES]
        (self._folder / "tokens").write_text("\n".join(lines) + "\n")
        etcd, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        self._run(
            "etcd",
            [
                self._etcd,
                f"--data-dir={self._folder / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls={peer}",
            ],
        )
        self.start_api()

    def start_api(self) -> None:
        key = self._folder / "sa.key"
        self._run(
            "kube-apiserver",
            [
                self._apiserver,
                f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
                f"--secure-port={self.port}",
                "--insecure-port=0",
                "--bind-address=127.0.0.1",
                f"--cert-dir={self._folder}",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--authorization-mode=RBAC",
                f"--token-auth-file={self._folder / 'tokens'}",
                "--service-account-issuer=https://kube.local",
                f"--service-account-key-file={key}",
                f"--service-account-signing-key-file={key}",
                "--disable-admission-plugins=ServiceAccount",
                "--allow-privileged=true",
            ],
        )
        self._wait_until_ready()

    def kill_api(self) -> None:
        process = self._processes.pop("kube-apiserver")
        process.send_signal(signal.SIGKILL)
        process.wait()

    def hang(self) -> None:
        """It takes connections and says nothing."""
        self._processes["kube-apiserver"].send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._processes["kube-apiserver"].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for process in reversed(self._processes.values()):
            process.kill()
            process.wait()

    def kubeconfig(self, namespace: str, token: str = "") -> str:
        """Of the scaler in that namespace, or with another token."""
        path = self._folder / f"{namespace}-{token or 'scaler'}.yaml"
        path.write_text(
            f"""
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test, namespace: {namespace}}}}}]
clusters: [{{name: test, cluster: {{server: "{self.url}", insecure-skip-tls-verify: true}}}}]
users: [{{name: test, user: {{token: "{token or f"scaler-{namespace}"}"}}}}]
"""
        )
        return str(path)

    def _run(self, name: str, command: list[str]) -> None:
        with (self._folder / f"{name}.log").open("ab") as out:
            self._processes[name] = subprocess.Popen(command, stdout=out, stderr=out)

    def _wait_until_ready(self) -> None:
        trusting = ssl._create_unverified_context()
        request = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": "Bearer admin"})
        give_up_at = time.monotonic() + START_S
        while time.monotonic() < give_up_at:
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(request, context=trusting, timeout=2) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(0.1)
        raise AssertionError(f"kube-apiserver was not ready within {START_S:g} s: see {self._folder}")


def forget_sockets() -> None:
    """lightkube's client leaves a socket to the collector where it is cancelled in the middle of a TLS handshake."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@contextlib.contextmanager
def kube_server(folder: Path) -> Generator[KubeServer]:
    server = KubeServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
