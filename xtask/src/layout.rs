//! Where things are: the one place that knows the paths the tasks share.

use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn of_workspace() -> Self {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self { root: xtask.parent().unwrap_or(xtask).to_path_buf() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Always this folder, also where `CARGO_TARGET_DIR` says otherwise: the eBPF object, the tools
    /// and the README's commands all name it.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// The kernel side has a target folder of its own, because another compiler builds it.
    pub(crate) fn bpf_target(&self) -> PathBuf {
        self.target().join("bpf-build")
    }

    /// Where `tracer/build.rs` looks for the eBPF object.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.target().join("bpf").join("tracer-probes")
    }

    pub(crate) fn release(&self, program: &str) -> PathBuf {
        self.target().join("release").join(program)
    }

    pub(crate) fn tests(&self) -> PathBuf {
        self.root.join("tests")
    }

    pub(crate) fn fixtures(&self) -> PathBuf {
        self.tests().join("fixtures")
    }

    pub(crate) fn awscli(&self) -> PathBuf {
        self.tools().join("awscli")
    }
}
