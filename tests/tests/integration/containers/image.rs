//! From `deploy/` to a bundle of runc's: what the recipe of the image copies, and what the manifests ask
//! for. Nothing of these is repeated here, so they cannot differ from what was tried.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tracer_tests::{evasions::tools, fixtures, skip};

use super::{
    field,
    runc::{Bundle, Runc},
};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(super) fn deploy() -> PathBuf {
    workspace().join("deploy")
}

/// Documents of a manifest, which Kubernetes' schema allows.
pub(super) struct Manifest {
    pub(super) documents: Vec<Value>,
}

impl Manifest {
    pub(super) fn read(name: &str) -> Result<Manifest> {
        Manifest::of(&deploy().join("kubernetes").join(name))
    }

    pub(super) fn of(path: &Path) -> Result<Manifest> {
        let python = tools().join("python/bin/python3");
        if !python.is_file() {
            return skip(
                "there is no Python with kubernetes-validate; `cargo xtask setup` installs it",
            );
        }
        let checker = fixtures().join("kubernetes/manifests.py");
        let output = Command::new(python).arg(checker).arg(path).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Manifest { documents: serde_json::from_slice(&output.stdout)? })
    }
}

/// What an image starts.
struct Image {
    entrypoint: Vec<String>,
}

/// Puts the image of `deploy/Containerfile` together, from what `cargo xtask build --static` leaves.
fn image(root: &Path) -> Result<Image> {
    let context = workspace().join("target/image");
    if !context.join("tracer").is_file() {
        return skip("there is no static tracer; `cargo xtask build --static` makes it");
    }
    let recipe = fs::read_to_string(deploy().join("Containerfile"))?;
    let mut entrypoint = None;
    let mut from = None;
    for line in recipe.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (instruction, rest) = line.split_once(' ').with_context(|| line.to_owned())?;
        match instruction {
            "FROM" => from = Some(rest.to_owned()),
            "COPY" => {
                let (source, to) = rest.split_once(' ').with_context(|| line.to_owned())?;
                let to = root.join(to.trim_start_matches('/'));
                fs::copy(context.join(source), &to).with_context(|| line.to_owned())?;
            }
            "ENTRYPOINT" => entrypoint = Some(serde_json::from_str(rest)?),
            "CMD" => {}
            _ => bail!("this test does not know {instruction}"),
        }
    }
    ensure!(from.as_deref() == Some("scratch"), "the image is more than tracer: {from:?}");
    Ok(Image { entrypoint: entrypoint.context("no entry point")? })
}

/// A container of a pod.
pub(super) struct Deployed<'a> {
    pub(super) pod: &'a Value,
    pub(super) container: &'a Value,
    /// The pod's.
    pub(super) uid: &'a str,
    /// What is mounted for its empty directory.
    pub(super) empty: &'a Path,
}

impl Deployed<'_> {
    /// As a runtime of Kubernetes would have it.
    pub(super) fn bundle(&self, runc: &Runc<'_>, name: &str, pod: Option<u32>) -> Result<Bundle> {
        let mut bundle = runc.bundle(name)?;
        let Image { entrypoint } = image(&bundle.root())?;
        let variables = self.variables()?;
        let list = |field: &str| self.container[field].as_array().into_iter().flatten();
        let command = list("command").map(|word| word.as_str().map(str::to_owned));
        let command: Vec<String> = command.collect::<Option<_>>().context("command")?;
        let mut words = if command.is_empty() { entrypoint } else { command };
        for word in list("args") {
            let mut word = word.as_str().context("a word")?.to_owned();
            for (name, value) in &variables {
                word = word.replace(&format!("$({name})"), value);
            }
            words.push(word);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bundle.arguments(&words);
        if let Some(all) = bundle.spec["process"]["env"].as_array_mut() {
            all.extend(variables.iter().map(|(name, value)| json!(format!("{name}={value}"))));
        }
        match pod {
            Some(pid) => bundle.share(pid),
            None => bundle.namespace("pid", None),
        }
        bundle.namespace("cgroup", Some(json!({"type": "cgroup"})));
        self.secure(&mut bundle)?;
        let mounts = self.mounts(&bundle.root())?;
        if let Some(all) = bundle.spec["mounts"].as_array_mut() {
            all.extend(mounts);
        }
        Ok(bundle)
    }

    fn variables(&self) -> Result<Vec<(String, String)>> {
        let variables = self.container["env"].as_array().into_iter().flatten();
        variables
            .map(|variable| {
                let name = field(variable, "name")?.to_owned();
                if let Some(value) = variable["value"].as_str() {
                    return Ok((name, value.to_owned()));
                }
                let path = &variable["valueFrom"]["fieldRef"]["fieldPath"];
                ensure!(*path == json!("metadata.uid"), "this test does not know {variable}");
                Ok((name, self.uid.to_owned()))
            })
            .collect()
    }

    fn secure(&self, bundle: &mut Bundle) -> Result<()> {
        let context = &self.container["securityContext"];
        let added = context["capabilities"]["add"].as_array().context("capabilities")?;
        ensure!(context["capabilities"]["drop"] == json!(["ALL"]), "{context}");
        let names = added.iter().map(|name| Some(format!("CAP_{}", name.as_str()?)));
        let names: Vec<String> = names.collect::<Option<_>>().context("names")?;
        bundle.spec["process"]["capabilities"] =
            json!({"bounding": names, "effective": names, "permitted": names});
        bundle.spec["process"]["user"] = json!({"uid": context["runAsUser"], "gid": 0});
        bundle.spec["process"]["noNewPrivileges"] =
            json!(context["allowPrivilegeEscalation"] == json!(false));
        bundle.spec["root"]["readonly"] = context["readOnlyRootFilesystem"].clone();
        // What a runtime adds without these is not here to be tried.
        for profile in ["seccompProfile", "appArmorProfile"] {
            ensure!(context[profile]["type"] == json!("Unconfined"), "{profile}: {context}");
        }
        Ok(())
    }

    fn mounts(&self, root: &Path) -> Result<Vec<Value>> {
        let volumes = self.pod["volumes"].as_array().context("volumes")?;
        let mounts = self.container["volumeMounts"].as_array().context("volumeMounts")?;
        mounts
            .iter()
            .map(|mount| {
                let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
                let volume = volume.with_context(|| format!("no volume for {mount}"))?;
                let source = match volume["hostPath"]["path"].as_str() {
                    Some(path) => PathBuf::from(path),
                    None => {
                        ensure!(volume["emptyDir"].is_object(), "this test does not know {volume}");
                        self.empty.to_owned()
                    }
                };
                let to = field(mount, "mountPath")?;
                // runc makes the directory, unless it is on a file system that is mounted before.
                if !to.starts_with("/sys/") {
                    fs::create_dir_all(root.join(to.trim_start_matches('/')))?;
                }
                let access = if mount["readOnly"] == json!(true) { "ro" } else { "rw" };
                Ok(json!({
                    "destination": to, "type": "bind", "source": source,
                    "options": ["rbind", "rprivate", access],
                }))
            })
            .collect()
    }
}
