# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Problems in how a run was started: options that skip a part of it, and limits that miss hosts. Pure."""

from __future__ import annotations

import fnmatch
import re
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.beyond import NO_MEMBERS
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.names import JOINING, LEAVING, name_problem

Groups = t.Mapping[str, t.Sequence[str]]

_SUBSCRIPT = re.compile(r"^(?P<name>.+)\[(?P<first>-?\d+)(?:[:-](?P<last>\d*))?\]$")
_CONTROLLER = ("localhost", "127.0.0.1", "::1")
# A test runner passes them with every run.
_NO_TESTS = re.compile(r"^(molecule-)?(idempotence-)?notest$")


def option_problems(options: t.Mapping[str, t.Any], strategy: str) -> list[str]:
    """The options of ansible-playbook that run a part of a playbook, as they would be typed.

    Args:
        options: Ansible's parsed options.
        strategy: Ansible's default strategy.
    """
    problems = []
    tags = sorted(options.get("tags") or ["all"])
    if "all" not in tags:
        problems.append(f"--tags {','.join(tags)}")
    skipped = sorted(tag for tag in options.get("skip_tags") or [] if not _NO_TESTS.match(tag))
    if skipped:
        problems.append(f"--skip-tags {','.join(skipped)}")
    if options.get("start_at_task"):
        problems.append(f"--start-at-task {options['start_at_task']!r}")
    if options.get("step"):
        problems.append("--step")
    if strategy.rsplit(".", maxsplit=1)[-1] not in ("linear", "debug"):
        problems.append(f"strategy = {strategy}")
    return problems


def text_problems(text: str | None, limit: t.Sequence[str]) -> list[str]:
    """The parts of --limit that Ansible treats as "every host" or as less than they say, as sentences.

    Args:
        text: the option's value; None where it was not given.
        limit: the patterns in it, and in the files that it names.
    """
    if text is None:
        return []
    if not limit:
        return [
            f"--limit {text!r} names nothing, and Ansible would take every host. Name hosts, or leave it out for all; "
            "often it is a variable or a file that is empty."
        ]
    if not text.startswith("@") and text.count("[") != text.count("]"):
        return [f"--limit {text!r} has a bracket without its other one, and Ansible would pass over what is in it."]
    return []


def limit_problems(limit: t.Sequence[str], groups: Groups, tiers: t.Sequence[str]) -> list[str]:
    """The problems of the patterns of --limit, as sentences.

    Args:
        limit: the patterns, one each; none for no limit.
        groups: the inventory's.
        tiers: the groups that the playbook works on.
    """
    if not limit:
        return []
    if not tiers:
        return ["This playbook works on no host, and with --limit it would do nothing. Leave it out."]
    own = {host for tier in tiers for host in groups.get(tier, [])}
    problems = []
    chosen: set[str] = set()
    for pattern in limit:
        word = pattern.lstrip("!&")
        if word in _CONTROLLER:
            continue
        matched, problem = match(word, groups)
        if problem:
            problems.append(problem)
        elif pattern == word and matched and not own.intersection(matched):
            problems.append(_of_no_tier(word, matched, groups, tiers))
        if pattern == word:
            chosen.update(matched)
    if problems:
        return problems
    if all(pattern[0] in "!&" for pattern in limit):
        chosen = set(own)
    for pattern in limit:
        matched, _problem = match(pattern[1:], groups) if pattern[0] in "!&" else ([], "")
        if pattern.startswith("&"):
            chosen.intersection_update(matched)
        elif pattern.startswith("!"):
            chosen.difference_update(matched)
    if not own & chosen:
        return [f"--limit {','.join(limit)} leaves no host of {_listed(tiers)}."]
    return []


def match(word: str, groups: Groups) -> tuple[list[str], str]:
    """The hosts of one pattern, and its problem."""
    hosts = groups.get("all", [])
    if word in ("~", ""):
        return [], "--limit has a pattern without a word, which would be every host."
    if word.startswith("~"):
        try:
            found = _matching(re.compile(word[1:]).match, groups)
        except re.error as error:
            return [], f"--limit has the regular expression {word[1:]!r}, which is none: {error}."
        return found, "" if found else f"--limit names {word}, which matches nothing in the inventory."
    subscript = _SUBSCRIPT.match(word)
    name = subscript["name"] if subscript else word
    if name in groups:
        found = list(groups[name])
    elif name in hosts:
        found = [name]
    elif any(special in name for special in "*?["):
        found = _matching(re.compile(fnmatch.translate(name)).match, groups)
        if not found:
            return [], f"--limit names {word}, which matches nothing in the inventory."
    else:
        return [], f"--limit names {word}, which the inventory does not have. Its hosts are: {', '.join(hosts)}."
    return _slice(word, found, subscript) if subscript else (found, "")


def _matching(matches: t.Callable[[str], t.Any], groups: Groups) -> list[str]:
    names = [host for group in groups if group not in ("all", "ungrouped") and matches(group) for host in groups[group]]
    names += [host for host in groups.get("all", []) if matches(host)]
    return list(dict.fromkeys(names))


def _slice(word: str, found: list[str], subscript: re.Match[str]) -> tuple[list[str], str]:
    first, last = int(subscript["first"]), subscript["last"]
    end = first if last is None else int(last) if last else len(found) - 1
    if not -len(found) <= first < len(found) or end >= len(found):
        return [], f"--limit names {word}, and {subscript['name']} has {len(found)} hosts, counted from 0."
    return (found[first : end + 1] if last is not None else [found[first]]), ""


def _of_no_tier(word: str, matched: t.Sequence[str], groups: Groups, tiers: t.Sequence[str]) -> str:
    if set(matched) <= set(groups.get("not_running", [])):
        return f"--limit names {word}, which does not run. Start it first."
    for state in (JOINING, LEAVING):
        if set(matched) <= set(groups.get(state, [])):
            return (
                f"--limit names {word}, which is {state} (tag inference:state), so it is no member of the fleet. To "
                "treat it as one in this run: -e fleet_admit=INSTANCE_ID."
            )
    return f"--limit names {word}, which has no host of {_listed(tiers)}; this playbook works on no others."


def inventory_problems(groups: Groups, tiers: t.Sequence[str], sources: t.Sequence[str]) -> list[str]:
    """The problems of the inventory itself, for a playbook that works on ``tiers``, as sentences."""
    if not tiers:
        return []
    wanted = tiers[0]
    if not groups.get(wanted):
        return [
            f"The inventory {', '.join(sources)} has no host in the group {wanted}. On AWS a host gets there by the "
            f"tag inference:role={wanted} while it runs; `ansible-inventory -i … --graph` shows what was found."
        ]
    hosts = dict.fromkeys(host for tier in (*tiers, *NO_MEMBERS) for host in groups.get(tier, []))
    # A host without a Name has its instance id as name.
    problems = {host: name_problem(host, groups) for host in hosts}
    return [
        f"The inventory has the host {host!r}, whose name {why}. Rename it; where it is reached is in ansible_host."
        for host, why in problems.items()
        if why and "instance id" not in why
    ]


def _listed(tiers: t.Sequence[str]) -> str:
    return ", ".join(tiers)
