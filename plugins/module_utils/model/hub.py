# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A Hugging Face hub's data about a model: the commit of a revision, and its files.

Two small requests with only what every host has: they also run on a bare host, before anything is installed.
"""

from __future__ import annotations

import json
import platform
import re
import time
import typing as t
import urllib.error
import urllib.parse

from ansible.module_utils.urls import open_url
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import File, one_line

_TRIES = 3
_NEXT = re.compile(r'<([^>]+)>\s*;[^,]*rel="next"')
_INSTEAD = "model_endpoint names a mirror, model_source: s3 or path does without a hub"


class HubAnswer(Exception):
    """The hub refused.

    Args:
        status: of HTTP.
        code: the hub's own error code, such as RepoNotFound.
        said: its message.
    """

    def __init__(self, status: int, code: str, said: str) -> None:
        super().__init__(f"{status} {code} {said}".strip())
        self.status = status
        self.code = code
        self.said = said


class Hub:
    """One model on a hub.

    Args:
        endpoint: the hub's base URL.
        repository: the model's name.
        token: sent as a Bearer token; empty for none.
    """

    def __init__(self, endpoint: str, repository: str, token: str) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._repository = repository
        self._token = token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag or commit.

        Raises:
            FleetError: there is no such model or revision, it may not be read, or the hub does not answer.
        """
        try:
            body, _headers = self._get(
                f"/api/models/{self._repository}/revision/{urllib.parse.quote(revision, safe='')}"
            )
            commit = str(json.loads(body)["sha"])
            if json.loads(body).get("gated"):
                self._knock(commit)
        except HubAnswer as answer:
            raise self._explained(answer, revision) from answer
        except (KeyError, TypeError, ValueError) as error:
            raise FleetError(
                f"What answers at {self._endpoint} is no Hugging Face hub ({one_line(error)}). Correct model_endpoint."
            ) from error
        return commit

    def files(self, commit: str) -> tuple[File, ...]:
        """The files of a commit.

        Raises:
            FleetError: the hub does not answer.
        """
        url = f"/api/models/{self._repository}/tree/{commit}?recursive=true&expand=false"
        found = []
        try:
            while url:
                body, headers = self._get(url)
                found += [self._file(entry) for entry in json.loads(body) if entry["type"] == "file"]
                following = _NEXT.search(headers.get("link", ""))
                url = self._relative(following.group(1)) if following else ""
        except HubAnswer as answer:
            raise self._explained(answer, commit) from answer
        except (KeyError, TypeError, ValueError) as error:
            raise FleetError(
                f"{self._endpoint} lists the files of {self._repository} in a way that is not a hub's "
                f"({one_line(error)}). Correct model_endpoint."
            ) from error
        return tuple(found)

    def _knock(self, commit: str) -> None:
        """Request a file: the hub describes a gated model to everybody, but serves its files only with access."""
        try:
            self._get(f"/{self._repository}/resolve/{commit}/config.json", method="HEAD")
        except HubAnswer as answer:
            if answer.code != "EntryNotFound":
                raise

    @staticmethod
    def _file(entry: dict[str, t.Any]) -> File:
        large = entry.get("lfs")
        return File(
            path=entry["path"],
            size=int(large["size"] if large else entry["size"]),
            sha256=str(large["oid"]) if large else "",
            git_sha1="" if large else str(entry["oid"]),
            xet=str(entry.get("xetHash") or ""),
        )

    def _relative(self, url: str) -> str:
        """A further page, at the same endpoint: a mirror may name the hub that it mirrors."""
        parts = urllib.parse.urlsplit(url)
        return f"{parts.path}?{parts.query}"

    def _get(self, path: str, method: str = "GET") -> tuple[bytes, dict[str, str]]:
        url = self._endpoint + path
        for attempt in range(1, _TRIES + 1):
            try:
                with open_url(
                    url,
                    method=method,
                    unredirected_headers=list(self._headers),
                    headers=self._headers,
                    timeout=30,
                    http_agent="inference.fleet",
                    follow_redirects="none" if method == "HEAD" else "safe",
                    use_netrc=False,
                ) as answer:
                    return answer.read(), {name.lower(): value for name, value in answer.headers.items()}
            except urllib.error.HTTPError as error:
                if 300 <= error.code < 400:
                    return b"", {}
                if error.code in (429, 500, 502, 503, 504) and attempt < _TRIES:
                    time.sleep(attempt)
                    continue
                headers: t.Any = error.headers or {}
                raise HubAnswer(
                    error.code, headers.get("X-Error-Code", ""), headers.get("X-Error-Message", "")
                ) from error
            except Exception as error:  # open_url has a family of its own beside OSError
                if attempt < _TRIES:
                    time.sleep(attempt)
                    continue
                raise FleetError(
                    f"Host {platform.node()} cannot reach the model hub at {url}: {one_line(error)}. Let the host out "
                    f"(a proxy goes into model_environment); {_INSTEAD}."
                ) from error
        raise AssertionError("unreachable")

    def _explained(self, answer: HubAnswer, revision: str) -> FleetError:
        name, where = self._repository, f"{self._endpoint} (asked from host {platform.node()})"
        with_token = "the token in model_token_file" if self._token else "no token (model_token_file is not set)"
        if answer.code == "RevisionNotFound":
            return FleetError(
                f"The model {name} (fleet_model) has no revision {revision!r} (fleet_model_revision) on {where}."
                f"{self._known_revisions()} Correct it; a branch gives its newest commit."
            )
        if answer.code == "GatedRepo" or (answer.status == 403 and not answer.code):
            return FleetError(
                f"The model {name} (fleet_model) is gated on {where}, and {with_token} was not let in: "
                f"{answer.said or answer.status}. Ask for access at {self._endpoint}/{name} and put a token of that "
                "account into the file that model_token_file names."
            )
        if answer.status == 401 and "credentials" in answer.said.lower():
            return FleetError(
                f"{where} refuses the token in model_token_file ({answer.said}). Make a new one, with read access."
            )
        if answer.status in (401, 403, 404):
            return FleetError(
                f"There is no model {name} (fleet_model) on {where}, or {with_token} may not see it: HTTP "
                f"{answer.status} {answer.code}. Correct the name (organisation/model), or give a token that may read "
                "it."
            )
        return FleetError(
            f"{where} answered HTTP {answer.status} for {name} at {revision}: {answer.said or 'no reason given'}. Try "
            f"again later; {_INSTEAD}."
        )

    def _known_revisions(self) -> str:
        try:
            body, _headers = self._get(f"/api/models/{self._repository}/refs")
            refs = json.loads(body)
            names = [str(one["name"]) for kind in ("branches", "tags") for one in refs.get(kind, ())]
        except (HubAnswer, FleetError, KeyError, TypeError, ValueError):
            return ""
        return f" It has {', '.join(names[:10])}." if names else ""
