//! Kernel struct fields the probes read.
//!
//! rustc cannot emit CO-RE relocations, so the collector looks each field up in the running
//! kernel's BTF and hands its offset to the probes as a frozen global of the same name. The list
//! is written once, here, and expanded on both sides.

/// Offset of a field this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// One field: the global's name and where to look, best spelling first.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the global in the eBPF object.
    pub global: &'static str,
    /// `(struct, dotted member path)`, tried in order: fields were renamed between kernels.
    pub spellings: &'static [(&'static str, &'static str)],
}

/// Calls `$callback!` with the list `GLOBAL: "struct" "path", "struct" "path"...;`.
#[macro_export]
macro_rules! kernel_fields {
    ($callback:ident) => {
        $callback! {
            TASK_MM: "task_struct" "mm";
            TASK_TGID: "task_struct" "tgid";
            TASK_FLAGS: "task_struct" "flags";
            TASK_REAL_PARENT: "task_struct" "real_parent";
            TASK_GROUP_LEADER: "task_struct" "group_leader";
            TASK_START_BOOTTIME: "task_struct" "start_boottime";
            TASK_SIGNAL: "task_struct" "signal";
            TASK_EXIT_CODE: "task_struct" "exit_code";
            TASK_EXEC_ID: "task_struct" "self_exec_id";
            TASK_THREAD_PID: "task_struct" "thread_pid";
            TASK_PID_LINKS: "task_struct" "pid_links";
            TASK_CRED: "task_struct" "cred";
            TASK_FS: "task_struct" "fs";
            TASK_WORKS: "task_struct" "task_works";
            TASK_IO_URING: "task_struct" "io_uring";
            TASK_FILES: "task_struct" "files";
            TASK_CGROUPS: "task_struct" "cgroups";
            CSS_SET_DEFAULT: "css_set" "dfl_cgrp";
            CGROUP_NODE: "cgroup" "kn";
            CGROUP_LEVEL: "cgroup" "level";
            CGROUP_ANCESTORS: "cgroup" "ancestors";
            CGROUP_ROOT: "cgroup" "root";
            CGROUP_HIERARCHY: "cgroup_root" "hierarchy_id";
            KERNFS_ID: "kernfs_node" "id";
            FILES_TABLE: "files_struct" "fdt";
            TABLE_SLOTS: "fdtable" "max_fds";
            TABLE_FILES: "fdtable" "fd";
            SIGNAL_LIVE: "signal_struct" "live";
            SIGNAL_FLAGS: "signal_struct" "flags";
            SIGNAL_GROUP_EXIT_CODE: "signal_struct" "group_exit_code";
            PID_COUNT: "pid" "count";
            PID_LEVEL: "pid" "level";
            PID_TASKS: "pid" "tasks";
            PID_NUMBERS: "pid" "numbers";
            UPID_NR: "upid" "nr";
            UPID_NS: "upid" "ns";
            PID_NS_INUM: "pid_namespace" "ns.inum";
            CRED_UID: "cred" "uid";
            CRED_GID: "cred" "gid";
            CRED_EUID: "cred" "euid";
            CRED_EGID: "cred" "egid";
            MM_ARG_START: "mm_struct" "arg_start";
            MM_ARG_END: "mm_struct" "arg_end";
            MM_ENV_START: "mm_struct" "env_start";
            MM_ENV_END: "mm_struct" "env_end";
            MM_FLAGS: "mm_struct" "flags";
            BINPRM_FILENAME: "linux_binprm" "filename";
            BINPRM_INTERP: "linux_binprm" "interp";
            BINPRM_FILE: "linux_binprm" "file";
            BINPRM_ARGC: "linux_binprm" "argc";
            BINPRM_EXECUTABLE: "linux_binprm" "executable";
            FILE_FLAGS: "file" "f_flags";
            FILE_TASK_WORK: "file" "f_task_work", "file" "f_rcuhead";
            FILE_INODE: "file" "f_inode";
            FILE_PRIVATE: "file" "private_data";
            FILE_DENTRY: "file" "f_path.dentry";
            FILE_MOUNT: "file" "f_path.mnt";
            FS_PWD_DENTRY: "fs_struct" "pwd.dentry";
            FS_PWD_MOUNT: "fs_struct" "pwd.mnt";
            DENTRY_INODE: "dentry" "d_inode";
            DENTRY_PARENT: "dentry" "d_parent";
            DENTRY_NAME: "dentry" "d_name.name";
            MOUNT_VFS: "mount" "mnt";
            MOUNT_PARENT: "mount" "mnt_parent";
            MOUNT_MOUNTPOINT: "mount" "mnt_mountpoint";
            VFSMOUNT_ROOT: "vfsmount" "mnt_root";
            INODE_NUMBER: "inode" "i_ino";
            INODE_PRIVATE: "inode" "i_private";
            INODE_SUPER: "inode" "i_sb";
            INODE_MODE: "inode" "i_mode";
            INODE_DEVICE: "inode" "i_rdev";
            INODE_LINKS: "inode" "i_nlink";
            INODE_SIZE: "inode" "i_size";
            INODE_MTIME_S: "inode" "i_mtime_sec", "inode" "__i_mtime.tv_sec", "inode" "i_mtime.tv_sec";
            INODE_MTIME_NS: "inode" "i_mtime_nsec", "inode" "__i_mtime.tv_nsec", "inode" "i_mtime.tv_nsec";
            INODE_CTIME_S: "inode" "i_ctime_sec", "inode" "__i_ctime.tv_sec", "inode" "i_ctime.tv_sec";
            INODE_CTIME_NS: "inode" "i_ctime_nsec", "inode" "__i_ctime.tv_nsec", "inode" "i_ctime.tv_nsec";
            SUPER_DEVICE: "super_block" "s_dev";
            SUPER_MAGIC: "super_block" "s_magic";
            SOCK_FAMILY: "sock" "__sk_common.skc_family";
            SOCK_DPORT: "sock" "__sk_common.skc_dport";
            SOCK_SPORT: "sock" "__sk_common.skc_num";
            SOCK_V4_SOURCE: "sock" "__sk_common.skc_rcv_saddr";
            SOCK_V4_DESTINATION: "sock" "__sk_common.skc_daddr";
            SOCK_V6_SOURCE: "sock" "__sk_common.skc_v6_rcv_saddr";
            SOCK_V6_DESTINATION: "sock" "__sk_common.skc_v6_daddr";
            INET_SOURCE: "inet_sock" "inet_saddr";
            SOCK_COOKIE: "sock" "__sk_common.skc_cookie";
            SOCK_NET: "sock" "__sk_common.skc_net.net";
            SOCK_ERROR: "sock" "sk_err";
            SOCK_PROTOCOL: "sock" "sk_protocol";
            SOCK_TYPE: "sock" "sk_type";
            SOCK_CGROUP: "sock" "sk_cgrp_data.cgroup";
            SOCK_FLAGS: "sock" "__sk_common.skc_flags";
            SOCK_ROUTE: "sock" "sk_dst_cache";
            ROUTE_OPERATIONS: "dst_entry" "ops";
            ROUTE_FAMILY: "dst_ops" "family";
            ROUTE_V4_FLAGS: "rtable" "rt_flags";
            ROUTE_V6_FLAGS: "rt6_info" "rt6i_flags";
            NET_INUM: "net" "ns.inum";
            TCP_SEGMENTS_SENT: "tcp_sock" "segs_out";
            TCP_BYTES_SENT: "tcp_sock" "bytes_sent";
            TCP_BYTES_RETRANSMITTED: "tcp_sock" "bytes_retrans";
            TCP_BYTES_RECEIVED: "tcp_sock" "bytes_received";
            SOCK_SOCKET: "sock" "sk_socket";
            SOCK_PEER_PID: "sock" "sk_peer_pid";
            SOCK_PEER_CRED: "sock" "sk_peer_cred";
            SOCK_UID: "sock" "sk_uid";
            SOCKET_SOCK: "socket" "sk";
            SOCKET_FILE: "socket" "file";
            UNIX_PEER: "unix_sock" "peer";
            UNIX_ADDRESS: "unix_sock" "addr";
            UNIX_ADDRESS_LEN: "unix_address" "len";
            UNIX_ADDRESS_NAME: "unix_address" "name";
            REGS_ARGUMENT_1: "pt_regs" "di";
            REGS_ARGUMENT_2: "pt_regs" "si";
            REGS_ARGUMENT_3: "pt_regs" "dx";
            REGS_ARGUMENT_5: "pt_regs" "r8";
            REGS_ARGUMENT_6: "pt_regs" "r9";
            REGS_NUMBER: "pt_regs" "orig_ax";
            REGS_RESULT: "pt_regs" "ax";
            REGS_STACK: "pt_regs" "sp";
        }
    };
}

macro_rules! table {
    ($($global:ident: $($structure:literal $path:literal),+;)*) => {
        /// All fields, for the collector.
        pub const FIELDS: &[Field] = &[
            $(Field { global: stringify!($global), spellings: &[$(($structure, $path)),+] },)*
        ];
    };
}

kernel_fields!(table);
