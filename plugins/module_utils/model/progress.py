# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The progress of the weights that an engine's start waits for."""

from __future__ import annotations

import glob
import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.progress import CHECKING, DOWNLOADING, EngineProgress
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import (
    RUN_DIRECTORY,
    human_size,
    read_document,
)


def restoring(directory: str = RUN_DIRECTORY) -> EngineProgress:
    """The progress of the host's restore of its weights, from the documents of the fetches.

    Args:
        directory: of these documents.
    """
    documents = [read_document(path) or {} for path in sorted(glob.glob(os.path.join(directory, "*.json")))]
    fetching = [document for document in documents if document.get("state") == "fetching"]
    if fetching:
        return _downloading(fetching)
    return EngineProgress(CHECKING, "checking that the weights are there")


def _downloading(documents: list[dict[str, t.Any]]) -> EngineProgress:
    done, total, rate = (
        sum(int(document.get(name) or 0) for document in documents) for name in ("done_bytes", "total_bytes", "rate")
    )
    text = f"downloading the weights, {human_size(done)} of {human_size(total)}, {human_size(rate)}/s"
    return EngineProgress(DOWNLOADING, text, 100 * done // total if total else None)
