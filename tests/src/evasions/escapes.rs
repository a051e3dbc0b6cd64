//! The program is run by a process that looks like none of the tree's.

use super::{Control, Demand, Row};
use Demand::Inconclusive;

/// The program stays in the tree.
const STAYS: Row = Row { aws_cli: Some(Demand::Violated("runs aws")), ..Row::ESCAPE };
/// Somebody outside runs the program. What the tree itself does is the same for any program.
const HANDED_OVER: Row = Row { control: Control::None, private: true, ..Row::ESCAPE };

pub(super) const ROWS: &[Row] = &[
    Row { name: "double fork and setsid", traced: "$ODD/daemon $PROGRAM --version", ..STAYS },
    Row {
        name: "CLONE_PARENT",
        traced: "$ODD/clone-parent $PROGRAM --version; wait; true",
        ..STAYS
    },
    Row { name: "vfork", traced: "$ODD/vfork-exec $PROGRAM --version", ..STAYS },
    Row { name: "subreaper", traced: "$ODD/subreaper $PROGRAM --version", ..STAYS },
    Row {
        name: "clone3 into another cgroup",
        before: "mkdir -p $CGROUP",
        traced: "$ODD/clone3-exec $CGROUP $PROGRAM --version",
        ..STAYS
    },
    Row {
        name: "moving itself to another cgroup",
        before: "mkdir -p $CGROUP",
        traced: "echo 0 > $CGROUP/cgroup.procs; $NAME --version",
        ..STAYS
    },
    Row {
        name: "clone3 into a new pid namespace",
        traced: "$ODD/clone3-exec pid $PROGRAM --version",
        ..STAYS
    },
    Row {
        name: "clone3 into a new user namespace",
        traced: "$ODD/clone3-exec user $PROGRAM --version",
        ..STAYS
    },
    Row {
        name: "all new namespaces",
        traced: "unshare --fork --pid --user --net --uts --ipc --cgroup --mount $NAME --version",
        ..STAYS
    },
    // Services that run things for others.
    Row {
        name: "Docker's socket",
        before: "mount -t tmpfs none /run",
        outside: "$ODD/serve-work /run/docker.sock",
        traced: "$ODD/hand-work /run/docker.sock $PROGRAM",
        stand_in: Some(Inconclusive("handed work to docker")),
        ..HANDED_OVER
    },
    Row {
        name: "containerd's socket",
        before: "mount -t tmpfs none /run; mkdir /run/containerd",
        outside: "$ODD/serve-work /run/containerd/containerd.sock",
        traced: "$ODD/hand-work /run/containerd/containerd.sock $PROGRAM",
        stand_in: Some(Inconclusive("handed work to containerd")),
        ..HANDED_OVER
    },
    Row {
        name: "D-Bus system bus (systemd-run)",
        before: "mount -t tmpfs none /run; mkdir /run/dbus",
        outside: "$ODD/serve-work /run/dbus/system_bus_socket",
        traced: "$ODD/hand-work /run/dbus/system_bus_socket $PROGRAM",
        stand_in: Some(Inconclusive("handed work to d-bus")),
        ..HANDED_OVER
    },
    Row {
        name: "systemd's private socket",
        before: "mount -t tmpfs none /run; mkdir /run/systemd",
        outside: "$ODD/serve-work /run/systemd/private",
        traced: "$ODD/hand-work /run/systemd/private $PROGRAM",
        stand_in: Some(Inconclusive("handed work to systemd")),
        ..HANDED_OVER
    },
    Row {
        name: "cron",
        before: "mount -t tmpfs none /var/spool; mkdir -p /var/spool/cron/crontabs",
        outside: "touch ready\n\
                  until [ -s /var/spool/cron/crontabs/root ]; do sleep 0.05; done\n\
                  sh /var/spool/cron/crontabs/root",
        traced: "echo $PROGRAM > new; mv new /var/spool/cron/crontabs/root",
        stand_in: Some(Inconclusive("handed work to cron")),
        needs: &["/var/spool"],
        ..HANDED_OVER
    },
    Row {
        name: "at",
        before: "mount -t tmpfs none /var/spool; mkdir -p /var/spool/cron/atjobs",
        outside: "touch ready\n\
                  until [ -s /var/spool/cron/atjobs/a00001 ]; do sleep 0.05; done\n\
                  sh /var/spool/cron/atjobs/a00001",
        traced: "echo $PROGRAM > /var/spool/cron/atjobs/a00001",
        stand_in: Some(Inconclusive("handed work to at")),
        needs: &["/var/spool"],
        ..HANDED_OVER
    },
    Row {
        name: "ssh agent",
        before: "mount -t tmpfs none /run; mkdir -p /run/user/0",
        outside: "$ODD/serve-work /run/user/0/ssh-agent.socket",
        traced: "$ODD/hand-work /run/user/0/ssh-agent.socket $PROGRAM",
        stand_in: Some(Inconclusive("handed work to ssh-agent")),
        ..HANDED_OVER
    },
    Row {
        name: "tmux",
        before: "mount -t tmpfs none /run; mkdir -p /run/user/0",
        outside: "export TMUX_TMPDIR=/run/user/0\n\
                  tmux -f /dev/null new-session -d 'sleep 60'; touch ready; sleep 60",
        traced: "TMUX_TMPDIR=/run/user/0 tmux run-shell $PROGRAM",
        stand_in: Some(Inconclusive("handed work to tmux")),
        needs: &["tmux"],
        ..HANDED_OVER
    },
    Row {
        name: "ssh to this machine",
        outside: "$ODD/serve-work 22",
        traced: "$ODD/hand-work 22 $PROGRAM",
        stand_in: Some(Inconclusive("handed work to ssh")),
        ..HANDED_OVER
    },
    Row {
        name: "Node inspector",
        outside: "node --inspect=127.0.0.1:9229 \
                  -e 'fs.writeFileSync(\"ready\", \"\"); setInterval(() => {}, 1000)'",
        traced: "node $NODE/inspect.mjs 9229 $PROGRAM",
        stand_in: Some(Inconclusive("handed work to node-inspector")),
        needs: &["node"],
        ..HANDED_OVER
    },
    Row {
        name: "service of no known name",
        outside: "$ODD/serve-work service",
        traced: "$ODD/hand-work service $PROGRAM",
        stand_in: Some(Inconclusive("what that does with it is not known")),
        ..HANDED_OVER
    },
    Row {
        name: "service at an abstract address",
        outside: "$ODD/serve-work @service-$CGROUP_NAME",
        traced: "$ODD/hand-work @service-$CGROUP_NAME $PROGRAM",
        stand_in: Some(Inconclusive("what that does with it is not known")),
        ..HANDED_OVER
    },
    Row {
        name: "datagram with an address, over a pair of the tree's own",
        outside: "/usr/bin/python3 -c \"import os, socket; \
                  own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); own.bind('service'); \
                  open('ready', 'w').close(); os.system(own.recv(4096).decode()); \
                  open('done', 'w').close()\"",
        traced: "/usr/bin/python3 -c \"import socket; \
                 pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); \
                 pair[0].sendto(b'$PROGRAM', 'service')\"\n\
                 until [ -e done ]; do sleep 0.05; done",
        stand_in: Some(Inconclusive("by a call that may have given it an address")),
        needs: &["/usr/bin/python3"],
        ..HANDED_OVER
    },
    Row {
        name: "ssh to an address that only a route leads here",
        before: "ip route add local 10.5.0.0/16 dev lo",
        outside: "/usr/bin/python3 -c \"import os, socket; own = socket.socket(); \
                  own.bind(('10.5.0.1', 22)); own.listen(); open('ready', 'w').close(); \
                  peer = own.accept()[0]; os.system(peer.recv(4096).decode()); peer.send(b'.')\"",
        traced: "/usr/bin/python3 -c \"import socket; own = socket.socket(); \
                 own.bind(('10.5.0.2', 0)); own.connect(('10.5.0.1', 22)); \
                 own.send(b'$PROGRAM'); own.recv(1)\"",
        stand_in: Some(Inconclusive("handed work to ssh")),
        needs: &["/usr/bin/python3", "ip"],
        ..HANDED_OVER
    },
    // Descriptors and processes.
    Row {
        name: "descriptor passed (SCM_RIGHTS)",
        outside: "$ODD/serve-work service",
        traced: "$ODD/pass-work service $PROGRAM",
        stand_in: Some(Inconclusive("what that does with it is not known")),
        ..HANDED_OVER
    },
    Row {
        name: "descriptor taken (pidfd_getfd)",
        outside: "/usr/bin/python3 -c \"import os, socket; ours, theirs = socket.socketpair(); \
                  open('new', 'w').write(f'{os.getpid()} {theirs.fileno()}'); \
                  os.rename('new', 'ready'); os.system(ours.recv(4096).decode())\"",
        traced: "read pid fd < ready || true; echo $PROGRAM | $ODD/take-work $pid $fd",
        stand_in: Some(Inconclusive("took a descriptor")),
        needs: &["/usr/bin/python3"],
        ..HANDED_OVER
    },
    Row {
        name: "ptrace of a process outside",
        outside: "exec $ODD/wait-injected",
        traced: "read pid environ < ready; $ODD/inject $pid $environ $PROGRAM",
        stand_in: Some(Inconclusive("took control of that process")),
        ..HANDED_OVER
    },
];
