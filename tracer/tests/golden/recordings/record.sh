#!/bin/bash
# Records the sessions of the newest schema version, into v<N>. Folders of older versions stay as they
# are: tracer no longer writes them, and has to read them. Needs root and `cargo xtask build`.
#
# Everything happens in mount, network and UTS namespaces of its own, so that no recording names this
# machine.
set -euo pipefail
folder=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
tracer=$(cd "$folder/../../../.." && pwd)/target/release/tracer

if [ "${1:-}" != inside ]; then
    exec unshare --mount --net --uts --propagation private "${BASH_SOURCE[0]}" inside
fi

hostname example
ip link set lo up
copy=$(mktemp)
cp "$tracer" "$copy"
trap 'rm -f "$copy"' EXIT
mount -t tmpfs tmpfs /opt
mkdir -p /opt/demo/bin
cp "$copy" /opt/tracer
chmod 755 /opt/tracer
cd /opt/demo
printf '127.0.0.1 localhost\n' > hosts
mount --bind hosts /etc/hosts
printf '#!/bin/sh\necho aws-cli/2.0.0\n' > bin/aws
chmod 755 bin/aws
own=(env -i PATH=/opt/demo/bin:/usr/bin:/bin HOME=/opt/demo LANG=C.UTF-8)

# The exit code it must have, a name, then arguments of `tracer run`.
record() {
    local expected=$1 name=$2 code=0
    shift 2
    "${own[@]}" /opt/tracer run --force -q -p no-aws-cli -o "$name.jsonl" "$@" > /dev/null 2>&1 || code=$?
    [ "$code" = "$expected" ] || { echo "$name: exit code $code, not $expected" >&2; exit 1; }
    local version
    version=$(head -c 60 "$name.jsonl" | sed 's/.*"schema":\([0-9]*\).*/\1/')
    mkdir -p "$folder/v$version"
    cat "$name.jsonl" > "$folder/v$version/$name.jsonl"
}

# Pipes, a script, a failed exec, a refused connection and a datagram.
cat > work.sh <<'END'
#!/bin/bash
ls / | sort | wc -l
/opt/demo/not-there || true
(exec 3<> /dev/tcp/127.0.0.1/9) || true
(echo hello > /dev/udp/127.0.0.1/9) || true
sh -c 'exit 3' || true
END
chmod 755 work.sh

record 0 proven --attempts -- ./work.sh
record 10 violated -- sh -c './work.sh; aws sts get-caller-identity'
record 11 inconclusive --debug-lose process=4 -- ./work.sh
