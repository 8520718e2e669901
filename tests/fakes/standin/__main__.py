"""Prepare a lab for the stand-in, and say how to deploy it."""

from __future__ import annotations

import argparse

from lab import state
from tests.fakes.standin import lab, wheels


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fakes.standin",
        description="Make wheels and locks of the stand-in engine for a lab. Run it again when the stand-in changed.",
    )
    parser.add_argument("--lab", default=state.DEFAULT_NAME, metavar="NAME", help="default: %(default)s")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu", help="the fleet's; default: cpu")
    options = parser.parse_args()
    place = lab.prepare(options.lab, options.accelerator)
    print(f"{place}: {'; '.join(f'{engine} ' + ', '.join(found) for engine, found in wheels.VERSIONS.items())}\n")
    print(f'eval "$(python -m lab env --name {options.lab})"')
    print("ansible-playbook -i inventories/lab -i tests/fakes/fleet site.yml -e engine=vllm")


if __name__ == "__main__":
    main()
