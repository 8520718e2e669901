"""What the hosts inherit from this machine: proxies, certificates, package indexes, resolvers.

Without a proxy, a private index or an own certificate on this machine the hosts get none.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
import re
import shlex
import subprocess
import urllib.parse
from pathlib import Path

HOST_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")

# pip's options and uv's names for them; both read the environment.
UV_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "no-index": "UV_NO_INDEX",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
# pip's configuration files, in ascending precedence.
PIP_CONFIG = (
    *(Path(base) / "pip/pip.conf" for base in reversed((os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"))),
    Path("/etc/pip.conf"),
    Path.home() / ".pip/pip.conf",
    Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pip/pip.conf",
)
PIP_OPTIONS = (*UV_NAMES, "proxy")
# uv's own settings on this machine, which override those derived from pip's.
UV_KEPT = (*sorted(set(UV_NAMES.values())), "UV_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_INDEX_STRATEGY")


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches ``address``."""
    return address.startswith("127.") or address in ("localhost", "::1", "[::1]")


@dataclasses.dataclass(frozen=True)
class Forward:
    """A port that is only on this machine's loopback and that the hosts need: relayed on the bridge."""

    protocol: str
    port: int
    target: str


@dataclasses.dataclass
class Inherited:
    """Everything that is passed on, in the form that a host needs."""

    proxies: dict[str, str]
    pip: dict[str, str]
    uv: dict[str, str]
    directories: list[str]
    resolv_conf: str
    forwards: list[Forward]


def pip_options() -> dict[str, str]:
    """pip's options on this machine: from its configuration files, overridden by the environment."""
    candidates = list(PIP_CONFIG)
    chosen = os.environ.get("PIP_CONFIG_FILE")
    if chosen:
        candidates = [] if chosen == os.devnull else [*candidates, Path(chosen)]
    options: dict[str, str] = {}
    for path in candidates:
        parser = configparser.RawConfigParser()
        parser.read(path, encoding="utf-8")
        for section in ("global", "install"):
            if parser.has_section(section):
                options.update({key.replace("_", "-"): " ".join(value.split()) for key, value in parser.items(section)})
    for name in PIP_OPTIONS:
        value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
        if value:
            options[name] = value
    return {name: options[name] for name in PIP_OPTIONS if options.get(name)}


def uv_options(pip: dict[str, str]) -> dict[str, str]:
    """The same indexes for uv."""
    options = {UV_NAMES[name]: value for name, value in pip.items() if name in UV_NAMES}
    if "extra-index-url" in pip:
        # pip takes the best version of all indexes, uv by default only looks at the first that has the name.
        options["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    # uv separates links by commas where pip has spaces.
    if "UV_FIND_LINKS" in options:
        options["UV_FIND_LINKS"] = ",".join(options["UV_FIND_LINKS"].split())
    options.update({name: os.environ[name] for name in UV_KEPT if os.environ.get(name)})
    return options


def local_directories(values: list[str]) -> list[str]:
    """The directories of this machine that options name, as paths or file: URLs."""
    found = []
    for word in (word for value in values for word in re.split(r"[\s,]+", value)):
        path = urllib.parse.unquote(urllib.parse.urlparse(word).path) if word.startswith("file:") else word
        if path.startswith("/") and Path(path).is_dir() and path not in found:
            found.append(path)
    return found


def proxies(gateway: str, subnet: str) -> tuple[dict[str, str], list[Forward]]:
    """Proxy variables for the hosts; a proxy on our loopback is reached through the bridge."""
    found: dict[str, str] = {}
    forwards = []
    for name in PROXIES:
        value = os.environ.get(name) or os.environ.get(name.upper())
        if not value:
            continue
        url = urllib.parse.urlparse(value if "//" in value else f"http://{value}")
        if is_loopback(url.hostname or "") and url.port:
            forwards.append(Forward("tcp", url.port, f"127.0.0.1:{url.port}"))
            value = url._replace(netloc=url.netloc.replace(url.hostname or "", gateway)).geturl()
        found[name] = found[name.upper()] = value
    if found:
        given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        beyond = ",".join(dict.fromkeys([*filter(None, given.split(",")), "localhost", "127.0.0.1", subnet]))
        found["no_proxy"] = found["NO_PROXY"] = beyond
    return found, forwards


def resolv_conf(text: str, upstream: str, gateway: str) -> tuple[str, list[Forward]]:
    """A resolv.conf that works on a host.

    Args:
        text: this machine's /etc/resolv.conf.
        upstream: systemd-resolved's list of its upstream servers, or nothing.
        gateway: the bridge's address, where a resolver on our loopback is relayed.
    """
    options = [line for line in text.splitlines() if line.split()[:1] in (["search"], ["options"], ["domain"])]
    own = _nameservers(text)
    for servers in (own, _nameservers(upstream)):
        outside = [server for server in servers if not is_loopback(server) and ":" not in server]
        if outside:
            return "\n".join([*(f"nameserver {server}" for server in outside), *options, ""]), []
    if not own:
        return "\n".join([*options, ""]), []
    forwards = [Forward(protocol, 53, f"{own[0]}:53") for protocol in ("udp", "tcp")]
    return "\n".join([f"nameserver {gateway}", *options, ""]), forwards


def _nameservers(text: str) -> list[str]:
    lines = (line.split() for line in text.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def inherited(gateway: str, subnet: str) -> Inherited:
    """Read this machine's settings."""
    proxy, forwards = proxies(gateway, subnet)
    pip = pip_options()
    uv = uv_options(pip)
    upstream = Path("/run/systemd/resolve/resolv.conf")
    resolvers, relayed = resolv_conf(
        Path("/etc/resolv.conf").read_text(encoding="utf-8"),
        upstream.read_text(encoding="utf-8") if upstream.exists() else "",
        gateway,
    )
    # An index directory often links to its files beside it: the parent of a "simple" directory belongs to it.
    directories = [
        str(Path(path).parent) if Path(path).name == "simple" and path.count("/") > 2 else path
        for path in local_directories([*pip.values(), *uv.values()])
    ]
    return Inherited(proxy, pip, uv, directories, resolvers, [*forwards, *relayed])


def apt_settings() -> list[str]:
    """This machine's apt settings for downloads: proxies, certificates, verification."""
    wanted = re.compile(r"^Acquire::(http|https|Check-Valid-Until|Check-Date|Retries)\b.*\"\S+\";$", re.IGNORECASE)
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return [line for line in dump.splitlines() if wanted.match(line)]


def certificates() -> list[str]:
    """The certificates that this machine trusts, as PEM blocks."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
    bundles = [os.environ[name] for name in names if os.environ.get(name)] + [HOST_BUNDLE]
    blocks: dict[str, None] = {}
    for bundle in dict.fromkeys(bundles):
        path = Path(bundle)
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            found = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL)
            blocks.update(dict.fromkeys(found))
    return list(blocks)


if __name__ == "__main__":
    # For script/lib: this machine's indexes as shell exports, before an environment exists.
    for option, setting in uv_options(pip_options()).items():
        print(f"export {option}={shlex.quote(setting)}")
