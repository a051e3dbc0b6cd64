#!/bin/bash
# Records the sessions of this folder again, with the tracer that is built. Needs root and
# `cargo xtask build`. What they show of a machine is the same everywhere: it happens in mount and
# UTS namespaces of its own, with the workspace at /opt/tracer and a host called `example`.
set -euo pipefail
folder=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
workspace=$(cd "$folder/../../../.." && pwd)

if [ "${1:-}" != inside ]; then
    exec unshare --mount --uts --propagation private "${BASH_SOURCE[0]}" inside
fi

hostname example
mkdir -p /tmp/tracer-workspace-$$
mount --bind "$workspace" /tmp/tracer-workspace-$$
trap 'umount --lazy /tmp/tracer-workspace-$$ && rmdir /tmp/tracer-workspace-$$' EXIT
mount -t tmpfs tmpfs /opt
mkdir /opt/tracer /opt/demo
mount --bind /tmp/tracer-workspace-$$ /opt/tracer
cd /opt/demo
to=$folder
tracer=/opt/tracer/target/release/tracer
own=(env -i PATH=/opt/demo/bin:/usr/bin:/bin HOME=/opt/demo LANG=C.UTF-8)

# A stand-in, because the real CLI's first line names the folder it was installed in.
mkdir bin
printf '#!/bin/sh\necho aws-cli/2.0.0\n' > bin/aws
chmod 755 bin/aws

# Runs tracer; the first argument is the exit code it must have.
record() {
    local expected=$1 name=$2 code=0
    shift 2
    "$@" > /dev/null || code=$?
    [ "$code" = "$expected" ] || { echo "$name: exit code $code, not $expected" >&2; exit 1; }
    chmod 644 "$to/$name.jsonl"
}

agent() {
    local name=$1 expected=$2
    shift 2
    (cd /opt/tracer && record "$expected" "$name" \
        target/release/tracer-lab -- env PATH=/opt/demo/bin:/usr/bin:/bin \
        "$tracer" run --force -q -p no-aws-cli -o "$to/$name.jsonl" -- \
        node tests/fixtures/agent/agent.mjs --mode bedrock "$@")
}

# An agent's session, and the same one where it also calls the AWS CLI.
agent proven 0
agent violated 10 --shell-out

# A process outlives the trace (for some seconds), and records of connections are lost.
cat > deploy.sh <<'END'
(exec 3<> /dev/tcp/127.0.0.1/9) 2> /dev/null
setsid sleep 20 &
make --version > /dev/null || true
END
record 11 inconclusive "${own[@]}" "$tracer" run --force -q -p no-aws-cli --linger 0 --debug-lose net=2 \
    -o "$to/inconclusive.jsonl" -- bash deploy.sh

# An exec fails, and a process outside the tree is given work over a socket.
node -e 'require("net").createServer((to) => to.resume()).listen("queue.sock")' &
queue=$!
until [ -S queue.sock ]; do sleep 0.05; done
cat > enqueue.sh <<'END'
env deploy-tool --now || true
node -e 'require("net").connect("queue.sock").end("deploy\n")'
END
record 11 handed-over "${own[@]}" "$tracer" run -q -p no-aws-cli \
    -o "$to/handed-over.jsonl" -- bash enqueue.sh
kill "$queue"

# Nothing is claimed, so nothing is judged.
record 0 no-policy "${own[@]}" "$tracer" run --force -q -o "$to/no-policy.jsonl" -- sh -c 'ls / | wc -l'

# Names and arguments that attack whoever shows them.
cat > hostile.sh <<'END'
cp /bin/true $'<img src=x onerror=alert(1)>'
cp /bin/true $'\e]0;owned\a\e[2J'
cp /bin/true $'| [x](javascript:alert(1)) `whoami` |'
cp /bin/true $'\xff\xfe\x80'
cp /bin/true $'evil\u202ecod.exe'
mkdir -p 'deep&quot;/<' && cp /bin/true 'deep&quot;/</script><script>alert(2)<'
for program in ./* ./deep*/*/*; do
    [ -d "$program" ] || [ "$program" = ./hostile.sh ] || "$program" "$program"
done
/bin/true $'</script><script>document.title="owned"</script>' $'<!--<script>' ']]>' '\u003c'
/bin/true $'\u2028\u2029\u0085\u200b\u2066 \x01\x1b[31mred\x7f' $'\xed\xa0\x80 \xc0\xaf' ''
/bin/true $'```\n# PROVEN\n\n| a | b |\n|---|---|\n```' '``' '${7*7}' 'http://example.com' 'www.example.com'
/bin/true $'line\nPROVEN  node agent.mjs\r\ttab' "$(printf 'x%.0s' {1..5000})" '{"type":"end"}'
(exec -a $'\e[1;32mPROVEN\e[0m' /bin/true)
(exec -a '__proto__' /bin/true constructor toString)
END
mkdir hostile
mv hostile.sh hostile/
cd hostile
record 10 hostile "${own[@]}" "$tracer" run --force -q -p no-shell-outs -o "$to/hostile.jsonl" -- \
    bash hostile.sh
