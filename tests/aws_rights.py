"""Writes what follows from the table of rights: ``python -m tests.aws_rights``.

That is docs/aws-iam.json, its tables in docs/aws.md, and the policies of the roles in examples/aws/fleet.yml.
"""

from __future__ import annotations

import json
import re
import sys
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ROOT / "docs" / "aws-iam.json"
PAGE = ROOT / "docs" / "aws.md"
TEMPLATE = ROOT / "examples" / "aws" / "fleet.yml"

sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.inference.fleet.plugins.plugin_utils.aws import rights  # noqa: E402

BEGIN, END = "<!-- Written by tests/aws_rights.py from here -->", "<!-- to here -->"

#: The user's words in the policies, as the template knows them.
_WORDS = {
    "REGION": "${AWS::Region}",
    "ACCOUNT": "${AWS::AccountId}",
    "PREFIX": "${KeyStorePrefix}",
    "BUCKET": "${WeightsBucket}",
    "MODELS": "${WeightsPrefix}",
    "GROUP": "${FleetName}",
    "SCALING_GROUP": "${FleetName}",
    "QUEUE": "${FleetName}-events",
}
#: The template's conditions for policies that not every fleet needs.
_CONDITIONS = {
    "controller_key_store": "KeyStoreInAws",
    "controller_sessions": "ThroughSessionManager",
    "hosts_weights": "WeightsInS3",
}
#: The template's roles, by the first word of their policies.
_ROLES = {"controller": "ControllerRole", "hosts": "HostRole"}
#: The policies that are not in the template: it makes no KMS key.
_NOT_IN_TEMPLATE = ("controller_key_store_kms", "hosts_weights_kms")


def policies() -> str:
    """The file of the policies."""
    return json.dumps(rights.documents(), indent=2) + "\n"


def written(text: str) -> str:
    """The page with its tables up to date."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{_table_of_policies()}\n\n{_table_of_rights()}\n\n{END}{after}"


def template(text: str) -> str:
    """The template with the policies of its roles up to date."""
    parts = re.compile(
        r"^(?P<space> +)# Written by tests/aws_rights\.py from here: (?P<role>\w+)\n.*?^ +# to here$",
        re.MULTILINE | re.DOTALL,
    )
    return parts.sub(lambda part: _role(part["role"], len(part["space"])), text)


def _role(role: str, depth: int) -> str:
    """The policies of a role: the one of that name, and those whose names begin with it."""
    lines = [f"# Written by tests/aws_rights.py from here: {role}"]
    for name, document in rights.documents().items():
        if name.partition("_")[0] != role or name in _NOT_IN_TEMPLATE:
            continue
        words = "".join(word.capitalize() for word in name.split("_"))
        lines += [f"{words}Policy:", "  Type: AWS::IAM::Policy"]
        if name in _CONDITIONS:
            lines.append(f"  Condition: {_CONDITIONS[name]}")
        lines += ["  Properties:", f"    PolicyName: {name}", f"    Roles: [{{Ref: {_ROLES[role]}}}]"]
        lines += ["    PolicyDocument:", *_indented(statements(document), 6)]
    return "\n".join(_indented([*lines, "# to here"], depth))


def statements(value: t.Any) -> list[str]:
    """The lines of a document in the template's style."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, t.Mapping):
        return [line for key, one in value.items() for line in _entry(key, one)]
    return [line for one in _with_gateways(value) for line in _item(statements(one))]


def _with_gateways(values: t.Iterable[t.Any]) -> t.Iterator[t.Any]:
    """The items, and beside the target group of the hosts that of the gateways."""
    for one in values:
        yield one
        if isinstance(one, str) and "targetgroup/GROUP/" in one:
            yield one.replace("/GROUP/", "/GROUP-gateways/")


def _entry(key: str, value: t.Any) -> list[str]:
    name = json.dumps(key) if ":" in key and not re.match(r"[\w-]+:[\w:/-]+$", key) else key
    lines = statements(value)
    if isinstance(value, str) and len(lines) == 1:
        return [f"{name}: {lines[0]}"]
    return [f"{name}:", *_indented(lines, 2)]


def _item(lines: list[str]) -> list[str]:
    return [f"- {lines[0]}", *_indented(lines[1:], 2)]


def _text(value: str) -> list[str]:
    shown = value
    for word, place in _WORDS.items():
        shown = re.sub(rf"\b{word}\b", lambda _word, place=place: place, shown)  # type: ignore[misc]
    unknown = [word for word in re.findall(r"(?<![\w-])[A-Z][A-Z_]+(?![\w-])", value) if word not in _WORDS]
    if unknown:
        raise ValueError(f"The template has no value for {unknown[0]} in {value}.")
    if shown != value:
        if "${" in value:
            raise ValueError(f"CloudFormation would replace what IAM is to replace in {value}.")
        return ["Fn::Sub: >-", f"  {shown}"]
    return [value if re.fullmatch(r"[A-Za-z][\w:/.-]*", value) and value != "true" else json.dumps(value)]


def _indented(lines: t.Iterable[str], depth: int) -> list[str]:
    return [" " * depth + line for line in lines]


def _table_of_policies() -> str:
    rows = [(f"`{policy.name}`", policy.to, policy.when) for policy in rights.POLICIES]
    return _table(("policy", "for", "needed"), rows)


def _table_of_rights() -> str:
    rows = [
        (f"`{action}`", f"`{right.policy.name}`", right.why, right.used_by)
        for right in rights.RIGHTS
        for action in right.actions
    ]
    return _table(("action", "policy", "for what", "by"), rows)


def _table(head: t.Sequence[str], rows: t.Iterable[t.Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> t.NoReturn:
    POLICIES.write_text(policies())
    PAGE.write_text(written(PAGE.read_text()))
    TEMPLATE.write_text(template(TEMPLATE.read_text()))
    sys.exit()


if __name__ == "__main__":
    main()
