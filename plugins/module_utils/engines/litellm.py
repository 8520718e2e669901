# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""LiteLLM, which runs on gateways. A host cannot select it as its engine."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.module_utils.core.progress import SERVING
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import (
    AnswerCache,
    Engine,
    Journal,
    Launch,
    OptionTable,
    Phase,
    RoleVariables,
)

# It has no parser and ignores unknown names. So this finds the names in its sources without importing them, which
# would take longer than its start.
_CHECK = """
import ast, importlib.util, json, pathlib, re, sys
import yaml
place = pathlib.Path(importlib.util.find_spec("litellm").origin).parent
router = ast.parse((place / "router.py").read_text())
start = next(f for c in router.body if isinstance(c, ast.ClassDef) and c.name == "Router"
             for f in c.body if isinstance(f, ast.FunctionDef) and f.name == "__init__")
names = {"router_settings": {a.arg for a in [*start.args.args[1:], *start.args.kwonlyargs]}}
own = ast.parse((place / "__init__.py").read_text()).body
targets = [t for n in own for t in (n.targets if isinstance(n, ast.Assign) else [getattr(n, "target", None)])]
names["litellm_settings"] = {t.id for t in targets if isinstance(t, ast.Name)}
text = "".join(path.read_text() for path in (place / "proxy").rglob("*.py"))
names["litellm_settings"] |= set(re.findall(r'key == "(\\w+)"', text)) | {"cache_params"}
names["litellm_settings"] |= set(re.findall(r'litellm_settings(?:\\.get\\(|\\[)"(\\w+)"', text))
names["general_settings"] = set(re.findall(r'general_settings(?:\\.get\\(|\\[)\\s*"(\\w+)"', text))
known = sorted(f"{section}.{name}" for section in names for name in names[section])
given = yaml.safe_load(open(sys.argv[1]))
unknown = [f"{s}.{n}" for s in names for n in given.get(s) or {} if n not in names[s]]
print(json.dumps(known))
if unknown:
    sys.exit("error: unrecognized arguments: " + " ".join("--" + name for name in unknown))
"""

#: Its provider for servers with the engines' API.
PROVIDER = "hosted_vllm"

ENGINE = Engine(
    name="litellm",
    title="LiteLLM",
    documentation="https://docs.litellm.ai",
    launch=Launch(
        command=("bin/litellm", "--config"),
        check_program=_CHECK,
        # It gets the key from its environment.
        key_options={},
        first_port=4001,
        # Whatever happens to its database.
        health_path="/health/liveliness",
    ),
    options=OptionTable(
        # It has no limit; the edge limits requests.
        default_limit=100_000,
        nested=True,
    ),
    journal=Journal(
        host_advice="Use an instance type with more memory, or lower litellm_instances.",
        programs=r"litellm",
        phases=(Phase(SERVING, r"Application startup complete\.", "serves", 100),),
    ),
    variables=RoleVariables(
        times=("cache_ttl", "shutdown_timeout", "stream_timeout", "timeout"),
        fractions=("stream_timeout", "timeout"),
    ),
    # Only a cached answer has the header.
    cache=AnswerCache({"cache": {"no-cache": True, "no-store": True}}, "x-litellm-cache-key"),
)
