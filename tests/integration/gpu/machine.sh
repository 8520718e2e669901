#!/bin/sh
# Runs a command on this machine as one with two GPUs, as tests/gpu/several.py needs; only that command sees the
# changes.
#
#   unshare --mount --net machine.sh DIRECTORY COMMAND...
#
# Its ports are its own. DIRECTORY keeps the changes, and has the stand-in for nvidia-smi in bin.
set -eu

place=$1
shift
mount --make-rprivate /
ip link set lo up
mount -t tmpfs changes "$place/changes"
for directory in /etc /usr/local/bin /opt /run /var/lib /var/cache; do
    upper="$place/changes/$(echo "$directory" | tr / _)"
    mkdir -p "$upper/new" "$upper/work"
    mount -t overlay -o "lowerdir=$directory,upperdir=$upper/new,workdir=$upper/work" changes "$directory"
done
cp "$place"/bin/* /usr/local/bin/
/usr/bin/python3 -m tests.gpu.units install /usr/local/bin
/usr/bin/python3 -m tests.gpu.model /opt/models/random-8b
exec "$@"
