# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What is prepared but does not run yet: links that protect it from removal in the meantime.

Layout under the root (``/opt/inference``)::

    staged/<i>               the release that waits for the turn of instance <i>; removed once it is activated
    staged/runtime-<engine>  the runtime that the engine's next releases need; removed once one of them is staged

A later staging replaces the link, so what an interrupted run left is kept until then, and no longer.
"""

from __future__ import annotations

import contextlib
import os

from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories

DIRECTORY = "staged"


def runtime_link(engine: str) -> str:
    """The name of the link to an engine's runtime."""
    return f"runtime-{engine}"


class Staging:
    """The links of one host.

    Args:
        root: ``/opt/inference`` on a real host.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._directory = os.path.join(root, DIRECTORY)

    def target(self, link: str) -> str | None:
        """The name of a link's target; None where there is no such link."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.path.basename(os.readlink(os.path.join(self._directory, link)))
        return None

    def indexes(self) -> list[int]:
        """The instances for which a release is staged."""
        return sorted(int(name) for name in self._links() if name.isdigit())

    def releases(self) -> set[str]:
        return {name for name in map(self.target, filter(str.isdigit, self._links())) if name}

    def runtimes(self) -> set[str]:
        links = (name for name in self._links() if name.startswith(runtime_link("")))
        return {name for name in map(self.target, links) if name}

    def keep(self, link: str, kind: str, name: str) -> None:
        """Point the link to what is prepared.

        Args:
            link: the link's name.
            kind: the directory of the target: ``releases`` or ``runtimes``.
            name: its own name there.
        """
        if self.target(link) == name:
            return
        make_directories(self._directory)
        temporary = os.path.join(self._directory, f".{link}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(os.path.join("..", kind, name), temporary)
        os.replace(temporary, os.path.join(self._directory, link))

    def drop(self, link: str, name: str | None = None) -> bool:
        """Remove a link; with ``name`` only where it points to that. True when there was one to remove."""
        if self.target(link) is None or name not in (None, self.target(link)):
            return False
        os.unlink(os.path.join(self._directory, link))
        return True

    def _links(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(self._directory) if name[0] != ".")
        return []
