#!/bin/sh
# Runs the module gpu_info on a machine with real NVIDIA GPUs and prints its results, one JSON object a line.
#
#   tests/gpu/verify.sh COUNT NAME MEMORY_MIB        for example: tests/gpu/verify.sh 1 H200 143771
#
# Needs python3 >= 3.9 and the package ansible-core somewhere: installed, in .venv, or in the directory ANSIBLE_SITE
# Needs python3 >= 3.9 and the package ansible-core: installed, in .venv, or in the directory ANSIBLE_SITE (only its
# folder "ansible" is used). Run it as root on an idle machine. It changes nothing except in the last step, in which its
# own process holds 1 GiB on GPU 0 for a few seconds.
# Exits with 0 when every step had the expected verdict; the steps are on stderr.
set -eu

cd "$(dirname "$0")/../.."
count=${1:-1} name=${2:-} memory=${3:-0}
set -- .venv/lib/python3*/site-packages
collections=$(mktemp -d)
trap 'rm -rf "$collections"' EXIT
mkdir -p "$collections/ansible_collections/inference"
ln -s "$PWD" "$collections/ansible_collections/inference/fleet"
export PYTHONPATH="$collections:${ANSIBLE_SITE:-$1}" PYTHONDONTWRITEBYTECODE=1
expected="\"expected_count\": $count, \"expected_name\": \"$name\", \"expected_memory\": $memory"
failures=0

# step NAME VERDICT CHECK ARGUMENTS: CHECK must be among the reasons, "-" is any; "a|b" is a or b.
step() {
    result=$(echo "{\"ANSIBLE_MODULE_ARGS\": {$4}}" |
        python3 -m ansible_collections.inference.fleet.plugins.modules.gpu_info | tail -n 1) || true
    printf '%s\n' "$result"
    if printf '%s' "$result" | python3 -c '
import json, sys
result = json.load(sys.stdin)
checks = [reason["check"] for reason in result.get("reasons", [])]
print("   ", result.get("summary", result.get("msg")), file=sys.stderr)
for line in result.get("report", []):
    print("   ", line, file=sys.stderr)
expected = sys.argv[2].split("|")
sys.exit(not (result.get("verdict") in sys.argv[1].split("|") and (expected == ["-"] or set(expected) & set(checks))))
' "$2" "$3"; then
        echo "as it should be: $1" >&2
    else
        echo "NOT as it should be: $1 (expected $2, check $3)" >&2
        failures=$((failures + 1))
    fi
}

step "an idle machine with the GPUs that it has" "ok|degraded" - "$expected"
step "a GPU too few" failed gpu_count "\"expected_count\": $((count + 1))"
step "another kind of GPU" failed gpu_name "\"expected_count\": $count, \"expected_name\": \"L4\""
step "less memory than expected" failed gpu_memory "\"expected_count\": $count, \"expected_memory\": 9999999"
step "a driver that is too old" failed driver_version "$expected, \"min_driver\": \"9999\""
step "a host without GPUs to use" ok - '"accelerator": "cpu"'

python3 tests/gpu/hold_memory.py 1024 60 &
holder=$!
trap 'kill "$holder" 2>/dev/null || true; rm -rf "$collections"' EXIT
sleep 5
# In a container nvidia-smi may not show the process: then its memory has no owner.
step "a process that has no business on the GPU" failed "gpu_process|gpu_orphan" "$expected, \"allowed_units\": []"

exit "$failures"
