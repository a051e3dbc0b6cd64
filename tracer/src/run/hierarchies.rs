//! Where cgroups are, and which of them is a container's.
//!
//! A container is found by the directory that its runtime made for it, in any mounted hierarchy:
//!
//! ```text
//! docker               docker/ID                   docker-ID.scope
//! containerd (CRI)     kubepods/.../ID             cri-containerd-ID.scope
//! CRI-O                kubepods/.../crio-ID        crio-ID.scope
//! podman               libpod_parent/libpod-ID     libpod-ID.scope
//! runc, crun           ID                          runc-ID.scope, crun-ID.scope
//! ```
//!
//! The left column is what the cgroupfs driver makes, the right one systemd's. IDs are 64 hexadecimal
//! digits, but for plain runc and crun, where whoever starts the container chooses a name. A pod of
//! Kubernetes has a directory above those of its containers:
//!
//! ```text
//! kubepods/.../podUID                             kubepods[-CLASS]-podUID_WITH_UNDERSCORES.slice
//! ```

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Component, Path, PathBuf},
};

/// A hierarchy of cgroups that is mounted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// What of the hierarchy is mounted.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) is_v2: bool,
}

/// From `/proc/self/mountinfo` (proc(5)), the ones that show most first. Where tracer's cgroup is the root
/// of a namespace, as in a container, the host's hierarchy has the root `/../..`, and the container's
/// own mount shows the container alone.
pub(super) fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    let mount = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = fields.nth(3)?;
        let point = fields.next()?;
        // Optional fields end with a dash; then comes the type.
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let is_v2 = match fields.next()? {
            b"cgroup2" => true,
            b"cgroup" => false,
            _ => return None,
        };
        Some(Mount { root: unescape(root), point: unescape(point), is_v2 })
    };
    let mut mounts: Vec<Mount> = mountinfo.split(|byte| *byte == b'\n').filter_map(mount).collect();
    mounts.sort_by_key(|mount| {
        let above = mount.root.components().filter(|part| *part == Component::ParentDir).count();
        (Reverse(above), mount.root.components().count() - above)
    });
    mounts
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', left @ ..]) => {
                path.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = left;
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

/// From `/proc/PID/cgroup`: the line of the v2 hierarchy is `0::PATH`.
pub(super) fn v2_path(cgroups: &[u8]) -> Option<PathBuf> {
    let mut lines = cgroups.split(|byte| *byte == b'\n');
    let path = lines.find_map(|line| line.strip_prefix(b"0::"))?;
    Some(PathBuf::from(OsString::from_vec(path.to_vec())))
}

/// The directory of the v2 cgroup of that path, as [`v2_path`] gives it.
pub(super) fn v2_directory(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    let directories = mounts.iter().filter(|mount| mount.is_v2).filter_map(|mount| {
        let inside = path.strip_prefix(&mount.root).ok()?;
        // An empty rest would add a slash.
        let whole = inside.as_os_str().is_empty();
        Some(if whole { mount.point.clone() } else { mount.point.join(inside) })
    });
    directories.into_iter().find(|directory| directory.join(PROCESSES).exists())
}

/// The directory of the v2 cgroup of a process, by looking through all of them: paths of other cgroup
/// namespaces lead nowhere here.
pub(super) fn v2_directory_of(mounts: &[Mount], pid: u32) -> Option<PathBuf> {
    let pid = pid.to_string();
    let mut found = None;
    for mount in mounts.iter().filter(|mount| mount.is_v2) {
        walk(&mount.point, &mut |directory, _| {
            let has = |processes: String| processes.lines().any(|line| line == pid);
            if found.is_none() && fs::read_to_string(directory.join(PROCESSES)).is_ok_and(has) {
                found = Some(directory.to_owned());
            }
        });
    }
    found
}

/// The file that lists the processes of a cgroup.
pub(super) const PROCESSES: &str = "cgroup.procs";

/// Process ids in a cgroup and below it. 0 stands for one that this pid namespace does not have.
pub(super) fn processes(directory: &Path) -> io::Result<Vec<u32>> {
    let mut pids: Vec<u32> = match fs::read_to_string(directory.join(PROCESSES)) {
        Ok(text) => text.lines().filter_map(|line| line.trim().parse().ok()).collect(),
        // A threaded cgroup: its processes are listed by the one above.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Vec::new(),
        Err(error) => return Err(error),
    };
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            match processes(&entry.path()) {
                Ok(below) => pids.extend(below),
                // It was removed, so it was empty.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound)
                        || error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(pids)
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoContainer {
    #[error(
        "no container's cgroup has an ID that begins with `{0}` in any mounted hierarchy. Is the container \
         running, and does tracer see the host's cgroups? --cgroup takes a directory instead"
    )]
    Unknown(String),
    #[error("several containers have an ID that begins with `{asked}`: {}. Give more of it", .ids.join(", "))]
    Ambiguous { asked: String, ids: Vec<String> },
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "no mounted cgroup is that of a pod with the UID `{0}`. Does tracer see the host's cgroups? In a pod, \
     mount the host's /sys/fs/cgroup (hostPath). The UID is what \
     `kubectl get pod NAME -o jsonpath={{.metadata.uid}}` prints"
)]
pub struct NoPod(String);

/// The directories of a pod of Kubernetes, one for each hierarchy it has one in.
pub(super) fn pod(mounts: &[Mount], uid: &str) -> Result<Vec<PathBuf>, NoPod> {
    let mut found = BTreeSet::new();
    for mount in mounts {
        walk(&mount.point, &mut |directory, name| {
            if is_pod(name, uid) {
                found.insert(directory.to_owned());
            }
        });
    }
    if found.is_empty() { Err(NoPod(uid.into())) } else { Ok(found.into_iter().collect()) }
}

/// Whether a cgroup of that name is a pod's (pkg/kubelet/cm of Kubernetes: `GetPodContainerName`, and
/// `CgroupName.ToSystemd`, which escapes dashes).
fn is_pod(name: &str, uid: &str) -> bool {
    if let Some(slice) = name.strip_suffix(".slice") {
        let own = slice.strip_prefix("kubepods-").map(|rest| {
            ["burstable-", "besteffort-"]
                .iter()
                .find_map(|of| rest.strip_prefix(of))
                .unwrap_or(rest)
        });
        let own = own.and_then(|rest| rest.strip_prefix("pod"));
        return own.is_some_and(|own| !uid.is_empty() && *own == uid.replace('-', "_"));
    }
    !uid.is_empty() && name.strip_prefix("pod") == Some(uid)
}

/// A container's ID and its cgroups.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) directories: Vec<PathBuf>,
}

/// Finds a container by the beginning of its ID.
pub(super) fn container(mounts: &[Mount], asked: &str) -> Result<Container, NoContainer> {
    let mut found: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    let lower = asked.to_ascii_lowercase();
    for mount in mounts {
        walk(&mount.point, &mut |directory, name| {
            let Some(id) = container_id(name) else { return };
            let is_asked = if is_id(id) {
                id.starts_with(&lower)
            } else {
                // A runtime's folder of containers is none.
                id.starts_with(asked) && !has_containers(directory)
            };
            if is_asked {
                found.entry(id.to_owned()).or_default().insert(directory.to_owned());
            }
        });
    }
    // A name that somebody chose can be any folder's; an ID is nothing else.
    if found.keys().any(|id| is_id(id)) {
        found.retain(|id, _| is_id(id));
    }
    // The whole name is meant when it is there, also when others begin with it.
    if let Some((id, directories)) =
        found.remove_entry(asked).or_else(|| found.remove_entry(&lower))
    {
        return Ok(Container { id, directories: directories.into_iter().collect() });
    }
    match (found.pop_first(), found.len()) {
        (Some((id, directories)), 0) if !asked.is_empty() => {
            Ok(Container { id, directories: directories.into_iter().collect() })
        }
        (None, _) => Err(NoContainer::Unknown(asked.into())),
        (Some((id, _)), _) => {
            let ids = std::iter::once(id).chain(found.into_keys()).collect();
            Err(NoContainer::Ambiguous { asked: asked.into(), ids })
        }
    }
}

fn walk(directory: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if let Some(name) = entry.file_name().to_str() {
            see(&path, name);
        }
        walk(&path, see);
    }
}

fn has_containers(directory: &Path) -> bool {
    let mut has = false;
    walk(directory, &mut |_, name| has |= container_id(name).is_some_and(is_id));
    has
}

fn is_id(name: &str) -> bool {
    const ID_DIGITS: usize = 64;
    name.len() == ID_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The ID of the container that a cgroup of that name is of.
fn container_id(name: &str) -> Option<&str> {
    const PREFIXES: [&str; 6] =
        ["docker-", "cri-containerd-", "crio-", "libpod-", "runc-", "crun-"];
    let scope = name.strip_suffix(".scope");
    let bare = scope.unwrap_or(name);
    let own = PREFIXES.iter().find_map(|prefix| bare.strip_prefix(prefix));
    // As containerd writes what is for systemd where systemd does not manage cgroups: SLICE:cri-containerd:ID.
    let own = own.or_else(|| Some(bare.rsplit_once(':')?.1));
    if let Some(id) = own.filter(|id| is_id(id)) {
        return Some(id);
    }
    // Names that somebody chose: as a scope of runc's or crun's own, or as they are. Those that systemd
    // gives have a suffix.
    match (scope, own) {
        (Some(_), Some(id)) if bare.starts_with("runc-") || bare.starts_with("crun-") => Some(id),
        (None, None) if !name.contains('.') && !name.starts_with("tracer-") => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aa11111111111111111111111111111111111111111111111111111111111111";
    const B: &str = "aa22222222222222222222222222222222222222222222222222222222222222";
    const C: &str = "bb33333333333333333333333333333333333333333333333333333333333333";

    #[test]
    fn hierarchies_are_found() {
        let info = b"22 1 0:21 / /sys rw shared:1 - sysfs sysfs rw\n\
            41 31 0:38 / /sys/fs/cgroup/un\\040ified rw,relatime - cgroup2 cgroup2 rw\n\
            42 31 0:39 /a /sys/fs/cgroup/pids rw shared:2 master:3 - cgroup cgroup rw,pids\n";
        let mount = |root: &str, point: &str, is_v2| Mount {
            root: root.into(),
            point: point.into(),
            is_v2,
        };
        let expected = [
            mount("/", "/sys/fs/cgroup/un ified", true),
            mount("/a", "/sys/fs/cgroup/pids", false),
        ];
        assert_eq!(mounts(info), expected);
        assert_eq!(mounts(b"broken\n\n1 2 3"), []);
    }

    #[test]
    fn the_v2_line_says_where_a_process_is() {
        assert_eq!(v2_path(b"4:memory:/a\n0::/user.slice/x\n"), Some("/user.slice/x".into()));
        assert_eq!(v2_path(b"4:memory:/a\n"), None, "v1 only");
    }

    #[test]
    fn every_layout_has_its_id() {
        let check =
            |name: &str, expected: Option<&str>| assert_eq!(container_id(name), expected, "{name}");
        for prefix in ["docker-", "cri-containerd-", "crio-", "libpod-", "runc-", "crun-"] {
            check(&format!("{prefix}{A}.scope"), Some(A));
        }
        check(&format!("libpod-{A}"), Some(A));
        check(&format!("crio-{A}"), Some(A));
        check(A, Some(A));
        check("runc-web.scope", Some("web"));
        check("web", Some("web"));
        check(&format!("kubepods-burstable-pod1.slice:cri-containerd:{A}"), Some(A));
        // The processes that look after a container are not in it.
        check(&format!("crio-conmon-{A}.scope"), None);
        check(&format!("libpod-conmon-{A}.scope"), None);
        check("user.slice", None);
        check("ssh.service", None);
        check("session-1.scope", None);
    }

    fn tree(directories: &[&str]) -> (tempfile::TempDir, Vec<Mount>) {
        let folder = tempfile::tempdir().unwrap();
        for directory in directories {
            fs::create_dir_all(folder.path().join(directory)).unwrap();
        }
        let mount = Mount { root: "/".into(), point: folder.path().into(), is_v2: true };
        (folder, vec![mount])
    }

    #[test]
    fn a_container_is_found_by_the_beginning_of_its_id() {
        let pod = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        let docker = format!("system.slice/docker-{A}.scope");
        let (v1_docker, kubernetes) =
            (format!("memory/docker/{A}"), format!("{pod}/cri-containerd-{C}.scope"));
        let (_folder, mounts) =
            tree(&[&docker, &v1_docker, &kubernetes, "web", "web2", "user.slice"]);
        let found = container(&mounts, "aa").unwrap();
        assert_eq!(
            (found.id.as_str(), found.directories.len()),
            (A, 2),
            "one container, two hierarchies"
        );
        assert_eq!(container(&mounts, C).unwrap().directories, [mounts[0].point.join(&kubernetes)]);
        assert_eq!(container(&mounts, "web").unwrap().directories, [mounts[0].point.join("web")]);
        assert_eq!(container(&mounts, "cc"), Err(NoContainer::Unknown("cc".into())));
        assert_eq!(container(&mounts, "AA").unwrap().id, A, "digits are digits");
        // A folder of containers is none.
        assert_eq!(container(&mounts, "doc"), Err(NoContainer::Unknown("doc".into())));
    }

    #[test]
    fn the_mount_that_shows_most_comes_first() {
        let info = b"40 31 0:38 / /sys/fs/cgroup ro - cgroup2 cgroup ro\n\
            41 31 0:38 /../../.. /host/cgroup rw - cgroup2 cgroup rw\n\
            42 31 0:38 /../.. /pod rw - cgroup2 cgroup rw\n\
            43 31 0:38 /below /part rw - cgroup2 cgroup rw\n";
        let points: Vec<PathBuf> = mounts(info).into_iter().map(|mount| mount.point).collect();
        assert_eq!(points, ["/host/cgroup", "/pod", "/sys/fs/cgroup", "/part"].map(PathBuf::from));
    }

    #[test]
    fn a_pod_is_found_by_its_uid() {
        const UID: &str = "0f2b1c1e-9d2e-4a7c-8f52-3a1f6a1c0d11";
        let escaped = UID.replace('-', "_");
        for layout in [
            format!("kubepods.slice/kubepods-pod{escaped}.slice"),
            format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice"
            ),
            format!(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{escaped}.slice"
            ),
            format!("kubelet/kubepods/burstable/pod{UID}"),
            format!("memory/kubepods/pod{UID}"),
        ] {
            let others = format!("kubepods/pod{}2", &UID[..UID.len() - 1]);
            let (_folder, mounts) = tree(&[&format!("{layout}/cri-containerd-{A}.scope"), &others]);
            assert_eq!(pod(&mounts, UID), Ok(vec![mounts[0].point.join(&layout)]), "{layout}");
        }
        let (_folder, mounts) = tree(&["kubepods/pod", "kubepods.slice/kubepods-pod.slice"]);
        assert_eq!(pod(&mounts, UID), Err(NoPod(UID.into())));
        assert!(pod(&mounts, "").is_err(), "no UID is nobody's");
    }

    #[test]
    fn the_cgroup_of_a_process_is_found_without_its_path() {
        let (_folder, mounts) = tree(&["pod/a", "pod/b"]);
        let at = |name: &str| mounts[0].point.join("pod").join(name);
        fs::write(at("a").join(PROCESSES), "7\n17\n").unwrap();
        fs::write(at("b").join(PROCESSES), "1\n").unwrap();
        assert_eq!(v2_directory_of(&mounts, 17), Some(at("a")));
        assert_eq!(v2_directory_of(&mounts, 1), Some(at("b")));
        assert_eq!(v2_directory_of(&mounts, 71), None);
    }

    #[test]
    fn a_beginning_that_several_share_is_an_error_that_lists_them() {
        let (_folder, mounts) =
            tree(&[&format!("docker/{A}"), &format!("docker/{B}"), &format!("docker/{C}")]);
        let error = container(&mounts, "aa").unwrap_err();
        assert_eq!(
            error,
            NoContainer::Ambiguous { asked: "aa".into(), ids: vec![A.into(), B.into()] }
        );
        assert!(error.to_string().contains(A) && error.to_string().contains(B), "{error}");
        assert!(container(&mounts, "").is_err());
    }
}
