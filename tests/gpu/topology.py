"""How a machine's GPUs are linked, from ``nvidia-smi topo -m``."""

from __future__ import annotations

import re

_STYLE = re.compile(r"\x1b\[\d*m")


def links(text: str) -> dict[str, str]:
    """The link of each two GPUs: ``NV18`` is 18 NVLinks, ``PHB``, ``NODE``, ``SYS``… are paths over PCIe.

    Args:
        text: what the driver's tool prints, also into a pipe with its styles for a terminal.
    """
    lines = [line.split("\t") for line in _STYLE.sub("", text).splitlines()]
    columns = [cell.strip() for cell in lines[0]] if lines else []
    found = {}
    for line in lines[1:]:
        name = line[0].strip()
        if not re.fullmatch(r"GPU\d+", name):
            continue
        for column, cell in zip(columns, line):
            if re.fullmatch(r"GPU\d+", column) and int(column[3:]) > int(name[3:]):
                found[f"{name}-{column}"] = cell.strip()
    return found
