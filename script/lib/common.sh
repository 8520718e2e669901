# shellcheck shell=bash
# Shared by script/demo and script/test: installs what they need. Sourced from the repository's root.

FLEET_INVOCATION=("$0" "$@")
export PATH="$PWD/.venv/bin:$PATH"

step() { printf '\n\033[1m== %s\033[0m\n' "$*" >&2; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Runs a command as root.
as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# Starts the script again as root, if necessary, with the settings that the lab passes on to its hosts.
ensure_root() {
  ((EUID == 0)) && return
  command -v sudo > /dev/null || fail "hosts are made by root: run this as root, or install sudo"
  local keep
  keep=$(compgen -e | grep -Ei '^(.*_proxy|pip_.*|uv_.*|ssl_cert_.*|requests_ca_bundle|curl_ca_bundle|inference_fleet_.*|lab_.*|engine|ci)$' | paste -sd,)
  exec sudo ${keep:+--preserve-env="$keep"} "${FLEET_INVOCATION[@]}"
}

# Installs the distribution's packages that the lab needs, and those that are named in addition.
ensure_packages() {
  local package missing=() wanted=(systemd-container mmdebstrap haproxy nftables iproute2 openssh-client ca-certificates)
  (($# == 0)) || wanted+=("$@")
  for package in "${wanted[@]}"; do
    has_package "$package" || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  install_packages "${missing[@]}"
}

has_package() {
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2> /dev/null) == installed ]]
}

install_packages() {
  command -v apt-get > /dev/null || fail "this needs $*, and there is no apt-get: Debian 12, Ubuntu 22.04 and 24.04 are supported"
  step "Install the distribution's packages: $*"
  local install=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --quiet=2)
  # The lists may be missing or old.
  as_root "${install[@]}" "$@" && return
  as_root apt-get update --quiet=2
  as_root "${install[@]}" "$@"
}

# Unpacks the distribution's packages into .cache/debian/PACKAGE, for tests that use their programs: installed, they would
# start services on this machine. Does nothing for a package that is installed.
ensure_unpacked() {
  local package missing=() work
  for package in "$@"; do
    has_package "$package" || [[ -d .cache/debian/$package ]] || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  step "Unpack the distribution's packages, without their services: ${missing[*]}"
  mkdir -p .cache/debian
  for package in "${missing[@]}"; do
    work=$(mktemp -d)
    # The lists may be missing or old.
    (cd "$work" && apt-get download --quiet=2 "$package") ||
      { as_root apt-get update --quiet=2; (cd "$work" && apt-get download --quiet=2 "$package"); }
    dpkg-deb --extract "$work"/*.deb "$work/root"
    # Complete, or not there.
    mv "$work/root" ".cache/debian/$package"
    rm -rf "$work"
  done
}

# Makes .venv match requirements/dev.txt, with verified hashes. Does nothing when it does.
ensure_controller() {
  local lock=requirements/dev.txt stamp=.venv/.lock-sha256 wanted python
  wanted=$(sha256sum < "$lock")
  [[ -x .venv/bin/python && -f $stamp && $(< "$stamp") == "$wanted" ]] && return
  step "Make the controller's environment, .venv, from $lock"
  use_package_indexes
  ensure_uv
  if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2> /dev/null; then
    python=$(find_python)
    echo "Python: $python" >&2
    "$FLEET_UV" venv --quiet --clear --python "$python" .venv
  fi
  rm -f "$stamp"
  "$FLEET_UV" pip sync --quiet --require-hashes --python .venv/bin/python "$lock"
  echo "$wanted" > "$stamp"
}

# Makes .cache/llamaindex, for the example with LlamaIndex, which does not run beside the release of OpenAI's client in
# .venv. uv does nothing where it is complete.
ensure_llamaindex() {
  use_package_indexes
  [[ -x .cache/llamaindex/bin/python ]] || .venv/bin/uv venv --quiet --clear --python .venv/bin/python .cache/llamaindex
  .venv/bin/uv pip sync --quiet --require-hashes --python .cache/llamaindex/bin/python requirements/llamaindex.txt
}

# uv reads neither pip's configuration nor, by itself, this machine's certificates.
use_package_indexes() {
  local settings
  has_python3
  settings=$(python3 -m lab.controller)
  eval "$settings"
  [[ -n ${SSL_CERT_FILE:-} || ! -f /etc/ssl/certs/ca-certificates.crt ]] || export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
}

has_python3() {
  command -v python3 > /dev/null || install_packages python3
}

# Sets FLEET_UV: the environment's own uv, or one in .cache that creates the environment.
ensure_uv() {
  local version bootstrap=.cache/bootstrap
  version=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/controller.in)
  for FLEET_UV in .venv/bin/uv "$bootstrap/bin/uv"; do
    [[ $("$FLEET_UV" --version 2> /dev/null) == "uv $version"* ]] && return
  done
  echo "uv $version: into $bootstrap" >&2
  if ! python3 -c 'import ensurepip, venv' 2> /dev/null; then
    install_packages python3-venv
  fi
  rm -rf "$bootstrap"
  mkdir -p .cache
  python3 -m venv "$bootstrap"
  "$bootstrap/bin/pip" install --quiet --disable-pip-version-check "uv==$version"
}

# Prints a Python that ansible-core runs on: one of this machine, else one from uv or the distribution.
find_python() {
  local candidate
  shopt -s nullglob
  for candidate in python3.14 python3.13 python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python3; do
    is_recent "$candidate" && return
  done
  shopt -u nullglob
  candidate=$("$FLEET_UV" python find --quiet --no-python-downloads '>=3.12' 2> /dev/null) && is_recent "$candidate" && return
  echo "No Python 3.12 or later here; asking uv for one" >&2
  if "$FLEET_UV" python install --quiet 3.12 >&2; then
    candidate=$("$FLEET_UV" python find --quiet 3.12) && is_recent "$candidate" && return
  fi
  if apt-cache show python3.12 > /dev/null 2>&1; then
    install_packages python3.12 >&2
    is_recent python3.12 && return
  fi
  fail "the controller needs Python 3.12 or later: none is on PATH or in pyenv, uv could not download one, and this" \
    "distribution has no package python3.12. Install one, then run this again."
}

# Prints the path of the interpreter if it runs (a pyenv shim may not) and is recent enough.
is_recent() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12) or print(sys.executable))' 2> /dev/null
}

# The wheels of the engines' CPU builds, shared by all hosts.
ensure_wheels() {
  step "Engines' CPU wheels"
  .venv/bin/python -m lab.wheels.build --output "${INFERENCE_FLEET_CACHE:-/var/cache/inference-fleet}/wheelhouse"
}
