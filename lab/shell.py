"""Run a program and explain its failure."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import typing as t

from lab.errors import LabError

# The Debian/Ubuntu package of each program that the lab calls.
PACKAGES = {
    "haproxy": "haproxy",
    "ip": "iproute2",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
}


def require(programs: t.Iterable[str]) -> None:
    """Report every missing program at once, with the command that installs them."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[program] for program in missing}))
        raise LabError(
            f"The lab needs {', '.join(missing)}, not found on PATH. Install them: apt-get install {packages} "
            "(script/demo does so)."
        )


def run(
    argv: t.Sequence[str], *, stdin: str | None = None, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` to its end, with its output captured."""
    result = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, env=env)
    if check and result.returncode != 0:
        said = (result.stderr.strip() or result.stdout.strip())[-2000:]
        raise LabError(f"`{shlex.join(argv)}` ended with status {result.returncode}: {said}")
    return result


def tied_to_us(argv: t.Sequence[str]) -> list[str]:
    """``argv`` in a process name space that dies with this process: a killed lab leaves no builder behind."""
    death = ["setpriv", "--pdeathsig", "KILL", "--"]
    return [*death, "unshare", "--pid", "--fork", "--kill-child=KILL", "--", *argv]
