// SPDX-License-Identifier: Apache-2.0
//! `bake --allow`: a bake file may come from elsewhere, so what reaches beyond the working directory is told
//! and must be granted.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use polyarch_bake::{Resolved, Target};

use super::super::flag_values::go_bool;
use crate::visible_text::visible_line;
use crate::{CommandError, Environment};

/// What is granted, or what is still needed.
#[derive(Debug, Default)]
struct Privileges {
    network_host: bool,
    security_insecure: bool,
    ssh: bool,
    read: BTreeSet<String>,
    write: BTreeSet<String>,
}

/// Refuses targets that ask for more than was granted.
///
/// # Errors
/// What is asked for, and the flags that grant it; or a value of `--allow` that is not known.
pub fn check(resolved: &Resolved, allowed: &[String], environment: &Environment) -> Result<(), CommandError> {
    let mut granted = parse(allowed)?;
    granted.network_host |= resolved.granted.network_host;
    granted.security_insecure |= resolved.granted.security_insecure;
    let checks_files = match environment.text("BUILDX_BAKE_ENTITLEMENTS_FS") {
        None => true,
        Some(value) => go_bool(value).map_err(|_| {
            CommandError::usage(format!("BUILDX_BAKE_ENTITLEMENTS_FS={value:?} is neither true nor false"))
        })?,
    };
    granted.read.extend(resolved.granted.read.iter().cloned());
    granted.write.extend(resolved.granted.write.iter().cloned());
    let here = ".".to_owned();
    granted.read.insert(here.clone());
    granted.write.insert(here);
    let mut needed = Privileges::default();
    for target in resolved.targets.values() {
        gather(target, &mut needed);
    }
    needed.network_host &= !granted.network_host;
    needed.security_insecure &= !granted.security_insecure;
    needed.ssh &= !granted.ssh && checks_files;
    needed.read = missing(&needed.read, &granted.read, environment);
    needed.write = missing(&needed.write, &granted.write, environment);
    if !checks_files {
        needed.read.clear();
        needed.write.clear();
    }
    refuse(&needed)
}

fn parse(allowed: &[String]) -> Result<Privileges, CommandError> {
    let mut granted = Privileges::default();
    for text in allowed {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        match key {
            "network.host" => granted.network_host = true,
            "security.insecure" => granted.security_insecure = true,
            "ssh" => granted.ssh = true,
            "fs.read" => granted.read.extend([value.to_owned()]),
            "fs.write" => granted.write.extend([value.to_owned()]),
            "fs" => {
                granted.read.insert(value.to_owned());
                granted.write.insert(value.to_owned());
            }
            "image.push" | "image.load" | "image" | "device" | "buildx.local.delete" => {}
            key => return Err(CommandError::usage(format!("unknown entitlement key {key:?}"))),
        }
    }
    Ok(granted)
}

fn gather(target: &Target, needed: &mut Privileges) {
    for entitlement in target.entitlements.iter().flatten() {
        needed.network_host |= entitlement == "network.host";
        needed.security_insecure |= entitlement == "security.insecure";
    }
    let is_local = |path: &&str| {
        let schemes = ["target:", "docker-image:", "oci-layout:", "git@", "github.com/"];
        !path.is_empty() && !path.contains("://") && !schemes.iter().any(|scheme| path.starts_with(scheme))
    };
    let context = target.context.as_deref().unwrap_or(".");
    let mut reads = vec![context.to_owned()];
    let dockerfile = target.dockerfile.as_deref().unwrap_or("Dockerfile");
    if target.dockerfile_inline.is_none() && is_local(&context) {
        reads.push(match dockerfile.strip_prefix("cwd://") {
            Some(path) => path.to_owned(),
            None => Path::new(context).join(dockerfile).to_string_lossy().into_owned(),
        });
    }
    reads.extend(target.contexts.values().map(|path| path.strip_prefix("cwd://").unwrap_or(path).to_owned()));
    reads.extend(target.secrets.iter().flatten().map(|secret| secret.file.clone()));
    for ssh in target.ssh.iter().flatten() {
        needed.ssh |= ssh.paths.is_empty();
        reads.extend(ssh.paths.iter().cloned());
    }
    for cache in target.cache_from.iter().flatten().filter(|cache| cache.kind == "local") {
        reads.extend(cache.attributes.get("src").cloned());
    }
    needed.read.extend(reads.into_iter().filter(|path| is_local(&path.as_str())));
    for cache in target.cache_to.iter().flatten().filter(|cache| cache.kind == "local") {
        needed.write.extend(cache.attributes.get("dest").cloned());
    }
    let places = target.outputs.iter().flatten().map(|output| output.destination.clone());
    needed.write.extend(places.filter(|place| !place.is_empty() && place != "-"));
}

/// The paths that lie below none of those that are granted.
fn missing(
    paths: &BTreeSet<String>,
    granted: &BTreeSet<String>,
    environment: &Environment,
) -> BTreeSet<String> {
    if granted.contains("*") {
        return BTreeSet::new();
    }
    let granted: Vec<PathBuf> =
        granted.iter().map(|path| real(&environment.resolve(Path::new(path)))).collect();
    let is_free = |path: &&String| {
        let path = real(&environment.resolve(Path::new(path)));
        granted.iter().any(|root| path.starts_with(root))
    };
    paths.iter().filter(|path| !is_free(path)).cloned().collect()
}

/// The path without links, as far as it is there.
fn real(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                // What `..` leaves behind may be a link.
                cleaned = cleaned.canonicalize().unwrap_or(cleaned);
                cleaned.pop();
            }
            Component::CurDir => {}
            other => cleaned.push(other),
        }
    }
    let mut rest = Vec::new();
    let mut there = cleaned.as_path();
    loop {
        if let Ok(real) = there.canonicalize() {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { return cleaned };
        rest.push(name.to_owned());
        there = parent;
    }
}

fn refuse(needed: &Privileges) -> Result<(), CommandError> {
    let mut asked = Vec::new();
    let mut flags = Vec::new();
    let mut ask = |what: String, flag: String| {
        asked.push(what);
        flags.push(format!("--allow={flag}"));
    };
    if needed.network_host {
        ask("the host's network for steps".to_owned(), "network.host".to_owned());
    }
    if needed.security_insecure {
        ask("steps with privileges".to_owned(), "security.insecure".to_owned());
    }
    if needed.ssh {
        ask("your SSH agent".to_owned(), "ssh".to_owned());
    }
    for path in &needed.read {
        let path = visible_line(path.as_bytes());
        ask(format!("reading {path}"), format!("fs.read={path}"));
    }
    for path in &needed.write {
        let path = visible_line(path.as_bytes());
        ask(format!("writing {path}"), format!("fs.write={path}"));
    }
    if asked.is_empty() {
        return Ok(());
    }
    Err(CommandError::usage(format!(
        "additional privileges requested: the bake file asks for {}",
        asked.join(", ")
    ))
    .with_hint(format!("grant them, if you trust the file: {}", flags.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_outside_of_the_working_directory_are_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let environment =
            Environment { current_directory: directory.path().to_path_buf(), ..Environment::default() };
        std::os::unix::fs::symlink("/etc", directory.path().join("link")).unwrap();
        let target = |context: &str| {
            let mut target = Target::default();
            target.context = Some(context.to_owned());
            target
        };
        let mut resolved = Resolved::default();
        resolved.targets.insert("inside".to_owned(), target("sub/../other"));
        resolved.targets.insert("remote".to_owned(), target("https://example.com/x.git"));
        assert!(check(&resolved, &[], &environment).is_ok());
        for outside in ["..", "link", "/usr"] {
            resolved.targets.insert("outside".to_owned(), target(outside));
            let error = check(&resolved, &[], &environment).unwrap_err().render();
            assert!(error.contains(&format!("--allow=fs.read={outside}")), "{error}");
            assert!(check(&resolved, &[format!("fs.read={outside}")], &environment).is_ok());
            assert!(check(&resolved, &["fs=*".to_owned()], &environment).is_ok());
        }
    }

    #[test]
    fn the_hosts_network_is_asked_for() {
        let mut resolved = Resolved::default();
        let mut target = Target::default();
        target.entitlements = Some(vec!["network.host".to_owned()]);
        resolved.targets.insert("a".to_owned(), target);
        let environment = Environment::default();
        assert!(check(&resolved, &[], &environment).is_err());
        assert!(check(&resolved, &["network.host".to_owned()], &environment).is_ok());
        assert!(check(&resolved, &["nonsense".to_owned()], &environment).is_err());
    }
}
