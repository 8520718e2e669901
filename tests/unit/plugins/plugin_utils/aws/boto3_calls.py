"""Finds the calls of AWS's API in Python files, by their syntax.

What counts as a client: ``boto3.client("s3")`` and ``session.client("s3")``, and a function that passes its own
argument on to one of them, whose callers then name the service. What counts as a call: an attribute with the name of
an operation of such a service that is called (``self._client.get_object(…)``), and a text with that name as the first
argument (``get_paginator("list_objects_v2")``, ``aws.call("describe_secret", …)``); for ``get_waiter`` the operation
that the waiter repeats.
"""

from __future__ import annotations

import ast
import dataclasses
import typing as t
from pathlib import Path

import botocore.session
from botocore import xform_name

_FACTORIES = ("client", "resource")
_Function = t.Union[ast.FunctionDef, ast.AsyncFunctionDef]


class NotUnderstood(Exception):
    """A call whose service or method does not stand in the file."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of AWS's API: boto3's names of service and method, and where it stands."""

    service: str
    method: str
    place: str = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class _File:
    name: str
    tree: ast.Module

    def place(self, node: ast.expr) -> str:
        return f"{self.name}:{node.lineno}"

    def calls(self) -> t.Iterator[ast.Call]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))

    def texts(self) -> set[str]:
        return {str(node.value) for node in ast.walk(self.tree) if isinstance(node, ast.Constant)}

    def imported(self) -> set[str]:
        """The modules that it imports from, as boto3 would name a service: secrets_manager is secretsmanager."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom)]
        names = {name for node in nodes for name in [node.module or "", *(alias.name for alias in node.names)]}
        return {name.rpartition(".")[2].replace("_", "") for name in names}


def find(paths: t.Iterable[Path], root: Path) -> set[Call]:
    """The calls in these files.

    Raises:
        NotUnderstood: a call cannot be attributed to a service.
    """
    files = [_File(path.relative_to(root).as_posix(), ast.parse(path.read_text("utf-8"))) for path in paths]
    services = _services(files)
    operations = {service: _operations(service) for service in services}
    found = set()
    for file in files:
        for node in file.calls():
            method = _method(node, operations)
            if method:
                found.add(Call(_service(file, node, method, operations), method, file.place(node)))
    return found


def _services(files: t.Sequence[_File]) -> set[str]:
    """The services that clients are made of."""
    services: set[str] = set()
    passing: set[str] = set()
    for file in files:
        functions = [node for node in ast.walk(file.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        for node in file.calls():
            if not _makes_client(node):
                continue
            if isinstance(node.func, ast.Attribute) and node.func.attr == "resource":
                raise NotUnderstood(f"{file.place(node)}: boto3's resources hide their calls; use a client.")
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant):
                services.add(str(name.value))
            elif isinstance(name, ast.Name) and (function := _passed_on(node, name.id, functions)):
                passing.add(function)
            else:
                raise NotUnderstood(f"{file.place(node)}: name the service of this client literally.")
    for file in files:
        for node in file.calls():
            if _last(node.func) in passing:
                arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
                literal = [one.value for one in arguments if isinstance(one, ast.Constant) and _is_service(one.value)]
                if len(literal) != 1:
                    raise NotUnderstood(f"{file.place(node)}: name the service of this client literally.")
                services.add(str(literal[0]))
    return services


def _makes_client(node: ast.Call) -> bool:
    if not isinstance(node.func, ast.Attribute) or node.func.attr not in _FACTORIES:
        return False
    receiver = _last(node.func.value).lower()
    return receiver == "boto3" or "session" in receiver


def _passed_on(node: ast.Call, name: str, functions: t.Sequence[_Function]) -> str:
    """The function that passes this argument of its own on; empty for none."""
    for function in functions:
        if node in ast.walk(function) and name in [argument.arg for argument in function.args.args]:
            return function.name
    return ""


def _is_service(value: object) -> bool:
    return value in botocore.session.get_session().get_available_services()


def _operations(service: str) -> dict[str, str]:
    """The operations of a service by boto3's names of their methods."""
    model = botocore.session.get_session().get_service_model(service)
    return {xform_name(name): name for name in model.operation_names}


def _method(node: ast.Call, operations: t.Mapping[str, t.Mapping[str, str]]) -> str:
    """The method that is called, as boto3 names it; empty for none."""
    known = {method for own in operations.values() for method in own}
    first = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
    if isinstance(node.func, ast.Attribute):
        if node.func.attr == "get_waiter":
            return _waits_for(str(first), operations)
        # A class may have a method of its own with such a name.
        if node.func.attr in known and "_" in node.func.attr and _last(node.func.value) not in ("self", "cls"):
            return node.func.attr
    if isinstance(first, str) and first in known and "_" in first:
        return first
    return ""


def _waits_for(waiter: str, operations: t.Mapping[str, t.Mapping[str, str]]) -> str:
    session = botocore.session.get_session()
    for service in operations:
        try:
            model = session.get_waiter_model(service)
        except botocore.exceptions.UnknownServiceError:
            continue
        for name in model.waiter_names:
            if xform_name(name) == waiter:
                return xform_name(model.get_waiter(name).operation)
    raise NotUnderstood(f"No service has the waiter {waiter}.")


def _service(file: _File, node: ast.Call, method: str, operations: t.Mapping[str, t.Mapping[str, str]]) -> str:
    """The service of a call: the only one that has the method, or that of the receiver, or that of the file.

    A file is about a service that it names, or whose module it imports.
    """
    having = [service for service, own in operations.items() if method in own]
    if len(having) == 1:
        return having[0]
    receiver = ast.unparse(node.func).rpartition(".")[0].lower()
    named = [service for service in having if service in receiver] or [
        service for service in having if service in file.texts() | file.imported()
    ]
    if len(named) != 1:
        raise NotUnderstood(
            f"{file.place(node)}: {method} is a call of {', '.join(sorted(having))}; name its client so."
        )
    return named[0]


def _last(node: ast.expr) -> str:
    """The last name of an expression: of ``self._session`` it is _session."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.id if isinstance(node, ast.Name) else ""
