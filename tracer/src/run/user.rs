//! Who called tracer, behind sudo.

use std::{
    ffi::{CString, OsString},
    io,
    path::PathBuf,
};

/// The user a command runs as, when that is not the user tracer runs as.
#[derive(Clone, Debug)]
pub struct CallingUser {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub name: Option<CString>,
    pub home: Option<PathBuf>,
}

impl CallingUser {
    /// From `SUDO_UID` and `SUDO_GID`, when tracer is root; none when there is nobody to return to.
    /// An error when they are there and make no sense: the command must not run as root by accident.
    pub fn from_environment() -> Result<Option<CallingUser>, String> {
        // SAFETY: geteuid cannot fail and has no precondition.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(None);
        }
        let id = |name: &str| {
            let Some(value) = std::env::var_os(name) else { return Ok(None) };
            // The highest number stands for "no change" in setresuid(2).
            let parsed = value.to_str().and_then(|value| value.parse::<u32>().ok());
            parsed.filter(|id| *id != u32::MAX).map(Some).ok_or_else(|| {
                format!(
                    "{name} is {value:?}, which is no id; nothing was started, so that \
                     the command does not run as root by accident. Unset {name}, or call tracer with sudo"
                )
            })
        };
        let (uid, gid) = (id("SUDO_UID")?, id("SUDO_GID")?);
        let Some(uid) = uid.filter(|uid| *uid != 0) else { return Ok(None) };
        let passwd = Passwd::of(uid);
        let gid = gid.or(passwd.as_ref().map(|entry| entry.gid)).ok_or_else(|| {
            format!(
                "SUDO_UID is {uid}, a user nobody knows, and there is no SUDO_GID; unset SUDO_UID"
            )
        })?;
        let groups = passwd.as_ref().map_or_else(|| vec![gid], |entry| entry.groups(gid));
        Ok(Some(CallingUser {
            uid,
            gid,
            groups,
            home: passwd.as_ref().map(|entry| entry.home.clone()),
            name: passwd.map(|entry| entry.name),
        }))
    }

    /// What sudo replaced by root's: the command gets the caller's own back.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        use std::os::unix::ffi::OsStringExt as _;
        let mut environment = Vec::new();
        if let Some(home) = &self.home {
            environment.push(("HOME", home.clone().into_os_string()));
        }
        if let Some(name) = &self.name {
            let name = OsString::from_vec(name.clone().into_bytes());
            environment.push(("USER", name.clone()));
            environment.push(("LOGNAME", name));
        }
        environment
    }

    /// Becomes this user for good. Async-signal-safe.
    pub fn assume(&self) -> io::Result<()> {
        let check = |result: libc::c_int| {
            if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        };
        // SAFETY: the pointer and the length describe one array.
        check(unsafe { libc::setgroups(self.groups.len(), self.groups.as_ptr()) })?;
        // SAFETY: no memory is involved.
        check(unsafe { libc::setresgid(self.gid, self.gid, self.gid) })?;
        // SAFETY: no memory is involved.
        check(unsafe { libc::setresuid(self.uid, self.uid, self.uid) })
    }

    /// Runs `action` with this user's rights to files. Only the calling thread changes.
    pub fn with_file_rights<T>(&self, action: impl FnOnce() -> T) -> T {
        // SAFETY: these change the calling thread's file system ids only; no memory is involved.
        let group_before = unsafe { libc::setfsgid(self.gid) };
        // SAFETY: as above.
        let before = unsafe { libc::setfsuid(self.uid) };
        let result = action();
        // SAFETY: as above.
        unsafe { libc::setfsuid(before.cast_unsigned()) };
        // SAFETY: as above.
        unsafe { libc::setfsgid(group_before.cast_unsigned()) };
        result
    }
}

/// An entry of the user database.
struct Passwd {
    gid: u32,
    name: CString,
    home: PathBuf,
}

impl Passwd {
    fn of(uid: u32) -> Option<Passwd> {
        use std::{ffi::CStr, os::unix::ffi::OsStrExt as _};
        const BUFFER_BYTES: usize = 16 * 1024;
        let mut buffer = vec![0; BUFFER_BYTES];
        // SAFETY: all zeroes is a valid passwd of null pointers.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are valid for the call and the length is that of the buffer.
        let result = unsafe {
            libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        if result != 0 || found.is_null() {
            return None;
        }
        // SAFETY: on success the strings are NUL-terminated and live in `buffer`.
        let name = unsafe { CStr::from_ptr(entry.pw_name) }.to_owned();
        // SAFETY: as above.
        let home = unsafe { CStr::from_ptr(entry.pw_dir) };
        let home = PathBuf::from(std::ffi::OsStr::from_bytes(home.to_bytes()));
        Some(Passwd { gid: entry.pw_gid, name, home })
    }

    fn groups(&self, gid: u32) -> Vec<u32> {
        const GROUPS_MAX: libc::c_int = 65_536; // NGROUPS_MAX
        let mut count = 64;
        loop {
            let mut groups = vec![0; usize::try_from(count).unwrap_or(0)];
            let mut filled = count;
            // SAFETY: the array has `filled` entries and the name is NUL-terminated.
            let result = unsafe {
                libc::getgrouplist(self.name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut filled)
            };
            if result >= 0 {
                groups.truncate(usize::try_from(filled).unwrap_or(0));
                return groups;
            }
            if count >= GROUPS_MAX {
                return vec![gid];
            }
            count *= 4;
        }
    }
}
