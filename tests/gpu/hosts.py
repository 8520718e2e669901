"""A host for real engines on a machine without systemd: what the roles leave on one, made with the product's own code.

usage: python3 -m tests.gpu.hosts deploy BUNDLE ENGINE=SITE...

``deploy`` does in one process what the roles and module engine_release do: user, programs, key, runtime, releases. A
site is a directory of Python packages with the engine; the machine's own Python has PyTorch.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pwd
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

from tests.gpu import units

ROOT = Path(__file__).parents[2]
OPT = Path("/opt/inference")
KEY_FILE = Path("/etc/inference/engine_key.env")
PROGRAMS = (
    "plugins/module_utils/instances/waiting.py",
    "plugins/module_utils/net/proxies.py",
    "roles/engine/files/instance_wait.py",
    "roles/engine/files/instance_prepare.py",
    "roles/engine/files/instance_run.py",
)
#: On a real host each has its own; here a host in namespaces gets an empty one.
OWN = (
    "/opt/inference",
    "/etc/inference",
    "/etc/systemd/system",
    "/run/inference",
    str(units.STATE),
    "/var/lib/inference",
    "/var/cache/inference",
)
_VLLM = """import sys
from vllm.entrypoints.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""


class CommandError(Exception):
    """A command on a host failed; its message has the end of what it printed."""


class Host:
    """A host: this machine, or a part of it in namespaces of its own.

    Args:
        bundle: the host's, from tests/gpu/render.yml.
        sites: of the engines.
        prefix: words before each command on it.
    """

    def __init__(self, bundle: Path, sites: t.Mapping[str, Path], prefix: t.Sequence[str] = ()) -> None:
        self.bundle = bundle
        self.instances: list[dict[str, t.Any]] = json.loads(bundle.read_text(encoding="utf-8"))["instances"]
        self.checks: list[str] = json.loads(bundle.read_text(encoding="utf-8"))["checks"]
        self._sites = sites
        self._prefix = list(prefix)

    def command(self, *words: str, given: str | None = None, timeout: float = 900) -> str:
        """Run a command on the host.

        Raises:
            CommandError: it failed.
        """
        done = subprocess.run(
            [*self._prefix, *words], input=given, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT
        )
        if done.returncode:
            raise CommandError(f"{' '.join(words[:6])}: {(done.stdout + done.stderr).strip()[-2000:]}")
        return done.stdout

    def module(self, name: str, **arguments: t.Any) -> dict[str, t.Any]:
        """The result of one of the collection's modules, also where it failed."""
        done = subprocess.run(
            [*self._prefix, sys.executable, "-m", f"ansible_collections.inference.fleet.plugins.modules.{name}"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
            cwd=ROOT,
        )
        for line in reversed(done.stdout.splitlines()):
            if line.startswith("{"):
                result: dict[str, t.Any] = json.loads(line)
                return result
        raise CommandError(f"{name}: {(done.stdout + done.stderr).strip()[-2000:]}")

    def deploy(self, without: t.Sequence[str] = (), checked: bool = True) -> None:
        """Leave on the host what site.yml leaves there.

        Args:
            without: ENGINE:OPTION that the brought version does not have.
            checked: whether the engine's own parser looks at the options, which takes an import of the engine.
        """
        sites = [f"{engine}={path}" for engine, path in self._sites.items()]
        words = [*sites, *(f"--without={option}" for option in without), *([] if checked else ["--unchecked"])]
        print(self.command(sys.executable, "-m", "tests.gpu.hosts", "deploy", str(self.bundle), *words), end="")
        made = self.module("engine_key")
        if made.get("failed"):
            raise CommandError(made["msg"])

    def start(self, instance: t.Mapping[str, t.Any]) -> None:
        self.command("systemctl", "start", instance["unit"])

    def stop(self, instance: t.Mapping[str, t.Any]) -> None:
        self.command("systemctl", "stop", instance["unit"])

    def state(self, instance: t.Mapping[str, t.Any]) -> dict[str, str]:
        shown = self.command(
            "systemctl", "show", "--property", "ActiveState,SubState,NRestarts,MainPID,Result", instance["unit"]
        )
        return dict(line.split("=", 1) for line in shown.splitlines())

    def journal(self, instance: t.Mapping[str, t.Any]) -> str:
        return self.command("journalctl", "--unit", instance["unit"])

    def key(self) -> str:
        words = self.command("cat", str(KEY_FILE)).split()
        return dict(word.split("=", 1) for word in words)["ENGINE_API_KEY"]


def deploy(bundle: Path, sites: t.Mapping[str, Path], without: t.Collection[str], checked: bool) -> None:
    """See Host.deploy; here, in the host's own namespaces."""
    from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Release, Releases

    document = json.loads(bundle.read_text(encoding="utf-8"))
    user = make_user("inference")
    for path in (*OWN, str(OPT / "libexec"), str(OPT / "runtimes"), "/var/cache/inference"):
        Path(path).mkdir(parents=True, exist_ok=True)
    os.chown("/var/cache/inference", user.pw_uid, user.pw_gid)
    for program in PROGRAMS:
        shutil.copy2(ROOT / program, OPT / "libexec" / Path(program).name)
    shutil.copy2(ROOT / "roles/sglang/files/logging.json", OPT / "libexec/sglang_logging.json")
    releases = Releases(str(OPT))
    for wanted in document["releases"]:
        version, runtime = make_runtime(wanted["engine"], sites[wanted["engine"]])
        for instance in wanted["instances"]:
            options = {
                name: value
                for name, value in instance["options"].items()
                if f"{wanted['engine']}:{name}" not in without
            }
            left_out = sorted(set(instance["options"]) - set(options))
            for path in [value for value in instance["environment"].values() if str(value).startswith("/var/cache/")]:
                Path(path).mkdir(parents=True, exist_ok=True)
                os.chown(path, user.pw_uid, user.pw_gid)
            release = Release(
                index=instance["index"],
                engine=wanted["engine"],
                version=version,
                runtime=runtime,
                model=wanted["model"],
                model_path=wanted["model_path"],
                draft_path=wanted["draft_path"],
                revision=wanted["revision"],
                served_name=instance["served_name"],
                options=options,
                environment={name: str(value) for name, value in instance["environment"].items()},
                unit=wanted["unit"],
                files=wanted["files"],
                span=instance["span"],
            )
            if not releases.exists(release.name):
                releases.stage(release, check_options=checked)
            releases.activate(instance["index"], release.name)
            print(f"{document['host']}: {release.name}, {wanted['engine']} {version}, without {left_out or 'nothing'}")


def make_user(name: str) -> pwd.struct_passwd:
    """The engines' user, as role engine makes it."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name)
    subprocess.run(["useradd", "--system", "--user-group", "--no-create-home", name], check=True)
    return pwd.getpwnam(name)


def make_runtime(engine: str, site: Path) -> tuple[str, str]:
    """A runtime around a site, in place of the one that uv installs from a lock.

    Args:
        engine: the engine.
        site: a directory with it and what it needs beside the machine's own packages.

    Returns:
        The engine's version, and the runtime's directory name.
    """
    found = [each.version for each in importlib.metadata.distributions(name=engine, path=[str(site)])]
    if not found:
        raise SystemExit(f"{site} has no {engine}")
    name = f"{engine}-{found[0]}-brought"
    place = OPT / "runtimes" / name
    if not (place / ".complete.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
        packages = next(place.glob("lib/python3*/site-packages"))
        machine = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        # First the engine's own packages, then the machine's.
        (packages / "brought.pth").write_text("".join(f"{path}\n" for path in (site, *machine)), encoding="utf-8")
        if engine == "vllm":
            program = place / "bin/vllm"
            program.write_text(f"#!{place}/bin/python\n{_VLLM}", encoding="utf-8")
            program.chmod(0o755)
        ninja = shutil.which("ninja")
        if ninja and not (place / "bin/ninja").exists():
            # The engines' locks have it.
            (place / "bin/ninja").symlink_to(ninja)
        (place / ".complete.json").write_text("{}\n", encoding="utf-8")
    return found[0], name


def main(words: list[str]) -> None:
    command, bundle, *rest = words
    if command != "deploy":
        raise SystemExit(__doc__)
    without = [word.partition("=")[2] for word in rest if word.startswith("--without=")]
    sites = {
        engine: Path(site)
        for engine, found, site in (word.partition("=") for word in rest if not word.startswith("--"))
        if found
    }
    deploy(Path(bundle), sites, without, "--unchecked" not in rest)


if __name__ == "__main__":
    main(sys.argv[1:])
