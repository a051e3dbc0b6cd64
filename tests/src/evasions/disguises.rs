//! The program looks like another one.

use super::{Control, Demand, Row};
use Demand::{Caught, Inconclusive, Violated};

const ROW: Row = Row::DISGUISE;
const STAND_IN_ONLY: Row = Row { aws_cli: None, ..ROW };
/// Tricks with Python, where only the real program makes sense.
const AWS_CLI_ONLY: Row = Row { stand_in: None, control: Control::None, ..ROW };

pub(super) const ROWS: &[Row] = &[
    Row { name: "no disguise", traced: "$NAME --version", ..ROW },
    // Other names of the file.
    Row {
        name: "symbolic link",
        before: "ln -s $PROGRAM other",
        traced: "./other --version",
        ..ROW
    },
    Row { name: "hard link", before: "ln $PROGRAM other", traced: "./other --version", ..ROW },
    Row {
        name: "copy",
        traced: "cp $PROGRAM other; ./other --version",
        stand_in: Some(Violated("same content")),
        aws_cli: Some(Violated("same content")),
        ..ROW
    },
    Row { name: "rename", traced: "mv $PROGRAM other; ./other --version", ..ROW },
    Row {
        name: "copy, rename, other argv[0]",
        traced: "cp $PROGRAM copy; mv copy other; $ODD/argv0 innocent ./other --version",
        stand_in: Some(Violated("same content")),
        aws_cli: Some(Violated("same content")),
        ..ROW
    },
    Row { name: "other argv[0]", traced: "$ODD/argv0 innocent $PROGRAM --version", ..ROW },
    Row { name: "/proc/self/root", traced: "/proc/self/root$PROGRAM --version", ..ROW },
    Row { name: "relative path", traced: "cd bin; ./$NAME --version", ..ROW },
    Row { name: "path with ..", before: "mkdir bin/x", traced: "bin/x/../$NAME --version", ..ROW },
    Row {
        name: "multi-call program called by that name",
        traced: "$ODD/argv0 $NAME $ODD/multi-call",
        stand_in: Some(Violated("argv[0]")),
        control: Control::None,
        ..STAND_IN_ONLY
    },
    // Given to something that runs it.
    Row {
        name: "dynamic loader",
        traced: "/lib64/ld-linux-x86-64.so.2 $PROGRAM",
        needs: &["/lib64/ld-linux-x86-64.so.2"],
        ..STAND_IN_ONLY
    },
    Row {
        name: "dynamic loader, renamed copy",
        traced: "cp $PROGRAM other; /lib64/ld-linux-x86-64.so.2 ./other",
        stand_in: Some(Inconclusive("it mapped")),
        // Whether a file that was written only just before is still the same depends on the clock.
        control: Control::None,
        needs: &["/lib64/ld-linux-x86-64.so.2"],
        ..STAND_IN_ONLY
    },
    Row {
        name: "renamed dynamic loader, renamed copy",
        traced: "cp /lib64/ld-linux-x86-64.so.2 loader; cp $PROGRAM other; ./loader ./other",
        stand_in: Some(Inconclusive("it mapped")),
        // Whether a file that was written only just before is still the same depends on the clock.
        control: Control::None,
        needs: &["/lib64/ld-linux-x86-64.so.2"],
        ..STAND_IN_ONLY
    },
    Row {
        name: "script that runs it",
        before: "printf '#!/bin/sh\\nexec %s --version\\n' $PROGRAM > other; chmod +x other",
        traced: "./other",
        ..ROW
    },
    Row {
        name: "script with it as interpreter",
        before: "printf '#!%s\\n' $PROGRAM > other; chmod +x other",
        traced: "./other",
        ..STAND_IN_ONLY
    },
    Row { name: "env", traced: "env X=1 $NAME --version", ..ROW },
    Row { name: "nice", traced: "nice $NAME --version", ..ROW },
    Row { name: "timeout", traced: "timeout 30 $NAME --version", ..ROW },
    Row { name: "nohup", traced: "nohup $NAME --version", ..ROW },
    Row { name: "setsid", traced: "setsid --wait $NAME --version", ..ROW },
    Row { name: "xargs", traced: "echo --version | xargs $NAME", ..ROW },
    Row { name: "sudo", traced: "sudo -E $PROGRAM --version", needs: &["sudo"], ..ROW },
    Row { name: "su", traced: "su -c \"$PROGRAM --version\"", needs: &["su"], ..ROW },
    Row {
        name: "runuser",
        traced: "runuser -u root -- $PROGRAM --version",
        needs: &["runuser"],
        ..ROW
    },
    Row {
        name: "setpriv",
        traced: "setpriv --no-new-privs $NAME --version",
        needs: &["setpriv"],
        ..ROW
    },
    Row { name: "busybox env", traced: "busybox env $NAME --version", needs: &["busybox"], ..ROW },
    Row {
        name: "busybox sh",
        traced: "busybox sh -c '$NAME --version'",
        needs: &["busybox"],
        ..ROW
    },
    Row {
        name: "wrapper in wrapper",
        traced: "env nice timeout 30 nohup setsid --wait sh -c 'echo --version | xargs env $NAME'",
        ..ROW
    },
    // Python.
    Row { name: "python aws", traced: "$PYTHON $PROGRAM --version", ..AWS_CLI_ONLY },
    Row {
        name: "python -m awscli",
        traced: "$PYTHON -m awscli --version",
        aws_cli: Some(Violated("awscli")),
        ..AWS_CLI_ONLY
    },
    Row {
        name: "python -c import",
        traced: "$PYTHON -c 'import awscli.clidriver as c; c.main()' --version",
        aws_cli: Some(Violated("awscli")),
        ..AWS_CLI_ONLY
    },
    Row {
        name: "script that imports it",
        before: "echo 'import awscli.clidriver as c; c.main()' > other",
        traced: "$PYTHON other --version",
        aws_cli: Some(Inconclusive("among the modules of aws")),
        ..AWS_CLI_ONLY
    },
    Row {
        name: "python -c exec(open())",
        traced: "$PYTHON -c \"exec(open('bin/a' + 'ws').read())\" --version",
        aws_cli: Some(Inconclusive("bin/aws, which is aws")),
        ..AWS_CLI_ONLY
    },
    Row {
        name: "python -c runpy",
        traced: "$PYTHON -c \"import runpy; runpy.run_path('bin/a' + 'ws', run_name='__main__')\" --version",
        aws_cli: Some(Inconclusive("bin/aws, which is aws")),
        ..AWS_CLI_ONLY
    },
    Row {
        name: "python, program on standard input",
        traced: "$PYTHON - --version < $PROGRAM",
        aws_cli: Some(Inconclusive("bin/aws, which is aws")),
        ..AWS_CLI_ONLY
    },
    Row {
        name: "renamed python, program on standard input",
        before: "cp $(readlink -f $PYTHON) other\n\
                 $PYTHON -c 'import sys; print(sys.base_prefix, *sys.path[1:], sep=\":\")' > paths",
        traced: "IFS=: read home path < paths; PYTHONHOME=$home PYTHONPATH=$path \
                 ./other - --version < $PROGRAM",
        aws_cli: Some(Inconclusive("bin/aws, which is aws")),
        ..AWS_CLI_ONLY
    },
    Row {
        // No copy of it is known, so what tells is whom it calls.
        name: "python environment of its own",
        before: UNKNOWN_ENVIRONMENT,
        traced: "PYTHONPATH=$PWD/hidden $(readlink -f $PYTHON) other sts get-caller-identity || true",
        aws_cli: Some(Inconclusive("as a changed copy of aws would have to")),
        private: true,
        ..AWS_CLI_ONLY
    },
    Row {
        name: "shim of a version manager (pyenv)",
        before: "mkdir -p shims versions/3/bin; mv $PROGRAM versions/3/bin/$NAME\n\
                 printf '#!/usr/bin/env bash\\nexec \"$PWD/versions/3/bin/${0##*/}\" \"$@\"\\n' \
                 > $PROGRAM\n\
                 chmod +x $PROGRAM; cp $PROGRAM bin/pip",
        traced: "$NAME --version",
        needs: &["bash"],
        ..ROW
    },
    Row {
        name: "shim of a version manager (asdf), by another name",
        before: "mkdir -p installs/1/bin; cp $PROGRAM installs/1/bin/$NAME\n\
                 printf '#!/usr/bin/env bash\\n# asdf-plugin: %s\\nexec %s/installs/1/bin/%s \"$@\"\\n' \
                 $NAME $PWD $NAME > shim; chmod +x shim",
        traced: "./shim --version",
        needs: &["bash"],
        ..ROW
    },
    Row {
        name: "self-extracting bundle",
        before: "size=$(stat -c %s $PROGRAM)\n\
                 { cat $ODD/bundle $PROGRAM\n\
                 printf \"$(printf '\\\\%03o' $((size % 256)) $((size / 256 % 256)) $((size / 65536)) \
                 0 0 0 0 0)\"; } > other; chmod +x other",
        traced: "./other",
        stand_in: Some(Violated("same content")),
        ..STAND_IN_ONLY
    },
    // Without a name, or by an unusual way in. A file without a name can be read only while the process
    // runs, so what tells is the content or that it is not known.
    Row {
        name: "memfd, sealed",
        traced: "cp $PROGRAM other; $ODD/memfd ./other",
        stand_in: Some(Caught("memory file")),
        control: Control::Inconclusive("memory file"),
        ..STAND_IN_ONLY
    },
    Row {
        name: "memfd, not sealed",
        traced: "cp $PROGRAM other; $ODD/memfd-unsealed ./other",
        stand_in: Some(Caught("memory file")),
        control: Control::Inconclusive("memory file"),
        ..STAND_IN_ONLY
    },
    Row {
        name: "deleted file",
        traced: "cp $PROGRAM other; $ODD/deleted ./other",
        stand_in: Some(Caught("no name left")),
        control: Control::Inconclusive("no name left"),
        ..STAND_IN_ONLY
    },
    Row {
        name: "file that never had a name (O_TMPFILE)",
        traced: "cp $PROGRAM other; $ODD/tmpfile ./other",
        stand_in: Some(Caught("no name left")),
        control: Control::Inconclusive("no name left"),
        ..STAND_IN_ONLY
    },
    Row {
        name: "execveat of a descriptor",
        traced: "cp $PROGRAM other; $ODD/empty-path ./other",
        stand_in: Some(Violated("same content")),
        ..STAND_IN_ONLY
    },
    Row {
        name: "32-bit execve (int 0x80)",
        traced: "cp $PROGRAM other; $ODD/int80 ./other",
        stand_in: Some(Violated("same content")),
        ..STAND_IN_ONLY
    },
    Row {
        name: "exec from another thread",
        traced: "cp $PROGRAM other; $ODD/thread-exec ./other",
        stand_in: Some(Violated("same content")),
        ..STAND_IN_ONLY
    },
    Row {
        name: "binfmt_misc",
        // The format is registered in a user namespace of its own, where kernels have that.
        before: "mkdir formats; printf ODDMAGIC > other; chmod +x other\n\
                 unshare --user --map-root-user --mount mount -t binfmt_misc none formats || exit 77",
        traced: "unshare --user --map-root-user --mount sh -c 'mount -t binfmt_misc none formats\n\
                 echo \":odd:M::ODDMAGIC::$PROGRAM:\" > formats/register; ./other'",
        ..STAND_IN_ONLY
    },
    // A file system of its own.
    Row {
        name: "chroot",
        before: NEW_ROOT,
        traced: "RAN=/ran chroot root /usr/bin/$NAME; mv root/ran $RAN",
        // What it maps has paths of another root, and may be gone when it is looked up.
        control: Control::None,
        needs: &["ldd"],
        ..STAND_IN_ONLY
    },
    Row {
        name: "chroot, other name",
        before: NEW_ROOT,
        traced: "mv root/usr/bin/$NAME root/usr/bin/other\n\
                 RAN=/ran chroot root /usr/bin/other; mv root/ran $RAN",
        stand_in: Some(Violated("same content")),
        control: Control::None,
        needs: &["ldd"],
        ..STAND_IN_ONLY
    },
    Row {
        name: "mount namespace",
        traced: "unshare --mount sh -c 'mount -t tmpfs none /usr/local/bin\n\
                 cp $PROGRAM /usr/local/bin; /usr/local/bin/$NAME'",
        // The file is gone with the namespace.
        control: Control::None,
        ..STAND_IN_ONLY
    },
    Row {
        name: "bind mount under another name",
        traced: "cp $PROGRAM copy\n\
                 unshare --mount sh -c 'mount --bind copy /usr/bin/true; /usr/bin/true'",
        stand_in: Some(Caught("content of the executed file is not known")),
        // Its content is read or not, as well.
        control: Control::None,
        ..STAND_IN_ONLY
    },
    Row {
        name: "container (runc)",
        before: CONTAINER,
        traced: "runc --root state run $CGROUP_NAME; mv root/ran $RAN",
        // No path of this file system leads to what it executes, so only the name is sure to tell.
        control: Control::None,
        needs: &["runc", "ldd", "/usr/bin/python3"],
        ..STAND_IN_ONLY
    },
];

/// The AWS CLI's modules where nobody looks for them, and a script that calls AWS with them. AWS is
/// an address of this machine where nobody listens: to try is to call.
const UNKNOWN_ENVIRONMENT: &str = "from=$($PYTHON -c 'import awscli, os; print(os.path.dirname(os.path.dirname(awscli.__file__)))')\n\
     mkdir hidden; ln -s $from/* hidden; rm hidden/awscli; cp -r $from/awscli hidden\n\
     printf '127.0.0.1 localhost\\n127.10.0.2 sts.us-east-1.amazonaws.com\\n' > hosts\n\
     mount --bind hosts /etc/hosts\n\
     printf '%s\\n' 'import os, sys, awscli, awscli.clidriver as c' \
     'print(\"aws-cli/\" + awscli.__version__, flush=True)' \
     'os.environ.update(AWS_DEFAULT_REGION=\"us-east-1\", AWS_ACCESS_KEY_ID=\"x\", \
     AWS_SECRET_ACCESS_KEY=\"x\", AWS_MAX_ATTEMPTS=\"1\", AWS_EC2_METADATA_DISABLED=\"true\")' \
     'sys.exit(c.main())' > other";

/// The program and its libraries in a folder of their own.
const NEW_ROOT: &str = "mkdir -p root/usr/bin; cp $PROGRAM root/usr/bin\n\
                        cp --parents $(ldd $PROGRAM | grep -o '/[^ ]*') root";

const CONTAINER: &str = "mkdir -p root/usr/bin root/proc; cp $PROGRAM root/usr/bin\n\
                         cp --parents $(ldd $PROGRAM | grep -o '/[^ ]*') root\n\
                         runc spec\n\
                         /usr/bin/python3 -c '\
                         import json, os; spec = json.load(open(\"config.json\")); \
                         own = spec[\"process\"]; own[\"terminal\"] = False; \
                         own[\"args\"] = [\"/usr/bin/\" + os.environ[\"NAME\"]]; \
                         own[\"env\"].append(\"RAN=/ran\"); \
                         spec[\"root\"] = {\"path\": \"root\"}; \
                         spec[\"linux\"][\"cgroupsPath\"] = \"/\" + os.environ[\"CGROUP_NAME\"]; \
                         json.dump(spec, open(\"config.json\", \"w\"))'";
