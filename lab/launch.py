"""The first moments of a long-lived process: ``python -m lab.launch SPEC [LOCK]``; see ``processes.start``."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

from lab import cgroups, processes


def main(arguments: list[str]) -> None:
    spec = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    if not cgroups.systemd_runs():
        cgroups.join(spec["group"], spec["cores"])
    processes.record_self(Path(spec["record"]))
    if len(arguments) > 1:
        os.close(int(arguments[1]))
    for path in spec["uses"]:
        # For as long as this process lives: pruning sees that it is in use, whatever the lab and state directory.
        used = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(used, fcntl.LOCK_SH)
        os.set_inheritable(used, True)
    if spec["network"]:
        # Before the machine's own mounts: a sysfs shows the interfaces of the name space that mounted it.
        os.setns(os.open(spec["network"], os.O_RDONLY | os.O_CLOEXEC), os.CLONE_NEWNET)
    if spec["mounts"]:
        # The mounts are private to this process and end with it, however it ends.
        os.unshare(os.CLONE_NEWNS)
        subprocess.run(["mount", "--make-rslave", "/"], check=True)
        for mount in spec["mounts"]:
            subprocess.run(["mount", *mount], check=True)
    os.environ.update(spec["env"])
    os.execvp(spec["argv"][0], spec["argv"])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
