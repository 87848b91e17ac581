// SPDX-License-Identifier: Apache-2.0
//! Files that matter: settings, credentials, name servers, and the store with its disk.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use polyarch_build::error::chain_of;
use polyarch_snapshot::DiskUsage;
use rustix::fs::statvfs;

use super::{Check, Outcome};
use crate::config::read_text;
use crate::credential_files::docker_file;
use crate::progress::format::size;
use crate::{CommandError, Environment};

/// Less free space than an ordinary build needs.
const SCARCE_BYTES: u64 = 2_000_000_000;
/// With less nothing can be built.
const FULL_BYTES: u64 = 50_000_000;
/// Permissions of the group and of others.
const OTHERS: u32 = 0o077;

/// Tells what is wrong with the settings.
pub(super) fn settings(broken: &[CommandError]) -> Vec<Check> {
    if broken.is_empty() {
        return vec![Check::ok("settings", "read")];
    }
    let line = |error: &CommandError| {
        let text = format!("{}; the checks below go without it", error.error.message);
        let check = Check::new("settings", Outcome::Problem, text);
        match error.error.hints.first() {
            Some(hint) => check.with_fix(hint.clone()),
            None => check,
        }
    };
    broken.iter().map(line).collect()
}

/// Reads the name servers that builds and registries use.
pub(super) fn network() -> Check {
    name_servers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn name_servers(resolv_conf: &str) -> Check {
    let servers: Vec<&str> = resolv_conf
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.split_ascii_whitespace().next())
        .filter(|address| {
            address.split_once('%').map_or(*address, |(address, _)| address).parse::<IpAddr>().is_ok()
        })
        .collect();
    if servers.is_empty() {
        return Check::new(
            "name servers",
            Outcome::Warning,
            "/etc/resolv.conf names none: hosts are not found by name",
        )
        .with_fix("add a line `nameserver ADDRESS` to /etc/resolv.conf");
    }
    Check::ok("name servers", servers.join(", "))
}

/// Looks at each file of credentials: can it be read, and by whom else.
pub(super) fn credentials(environment: &Environment) -> Vec<Check> {
    let named = environment.path("REGISTRY_AUTH_FILE");
    let podman = environment.path("XDG_RUNTIME_DIR").map(|runtime| runtime.join("containers/auth.json"));
    let paths: Vec<PathBuf> =
        [named.or(podman), docker_file(environment).ok()].into_iter().flatten().collect();
    let checks: Vec<Check> = paths.iter().filter_map(|path| credential_file(path)).collect();
    if !checks.is_empty() {
        return checks;
    }
    vec![Check::ok("credentials", "no file: registries are asked without")]
}

fn credential_file(path: &Path) -> Option<Check> {
    let name = format!("credentials {}", path.display());
    let metadata = match path.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Check::new(name, Outcome::Warning, format!("can't be read: {error}"))),
    };
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) => return Some(Check::new(name, Outcome::Warning, error.error.message.clone())),
    };
    let content: serde_json::Value =
        match serde_json::from_str(if text.trim().is_empty() { "{}" } else { &text }) {
            Ok(content) => content,
            Err(error) => {
                return Some(
                    Check::new(name, Outcome::Problem, format!("is not JSON: {error}"))
                        .with_fix("mend the file, or move it away and run `polyarch login`"),
                );
            }
        };
    let has_secrets = content["auths"].as_object().is_some_and(|auths| {
        auths
            .values()
            .any(|entry| ["auth", "password", "identitytoken"].iter().any(|key| entry.get(key).is_some()))
    });
    let mode = metadata.mode() & 0o777;
    if has_secrets && mode & OTHERS != 0 {
        let text = format!("holds passwords, and its mode {mode:03o} lets others at them");
        return Some(
            Check::new(name, Outcome::Warning, text).with_fix(format!("chmod 600 {}", path.display())),
        );
    }
    Some(Check::ok(name, format!("mode {mode:03o}{}", if has_secrets { "" } else { ", no passwords in it" })))
}

/// Tells the hosts that a file of credentials has entries for.
pub(super) fn hosts_with_credentials(environment: &Environment) -> Vec<String> {
    let text = docker_file(environment).ok().and_then(|path| read_text(&path).ok()).unwrap_or_default();
    let content: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let keys = content["auths"].as_object().into_iter().flatten().map(|(key, _)| key);
    keys.map(|key| polyarch_registry::credentials::host_of_server(key)).collect()
}

/// Tells how large the store is, and how much room its disk has.
pub(super) fn store(root: &Path) -> Vec<Check> {
    let existing = root.ancestors().find(|directory| directory.is_dir()).unwrap_or(Path::new("/"));
    let used = if existing == root {
        match DiskUsage::default().add(root) {
            Ok(bytes) => size(bytes),
            Err(error) => format!("of unknown size: {}", chain_of(&error)),
        }
    } else {
        "not made yet".to_owned()
    };
    let disk = match statvfs(existing) {
        Ok(disk) => disk,
        Err(errno) => {
            return vec![Check::new("store", Outcome::Problem, format!("{}: {errno}", root.display()))];
        }
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let total = disk.f_blocks.saturating_mul(disk.f_frsize);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let kind = std::fs::canonicalize(existing).ok().and_then(|path| file_system(&mounts, &path));
    let text = format!(
        "{}: {used}; {} of {} free{}",
        root.display(),
        size(free),
        size(total),
        kind.map_or(String::new(), |kind| format!(" ({kind})"))
    );
    let fix = "polyarch prune -a, or a larger disk: --root DIR";
    vec![match free {
        0..FULL_BYTES => Check::new("store", Outcome::Problem, text).with_fix(fix),
        FULL_BYTES..SCARCE_BYTES => Check::new("store", Outcome::Warning, text).with_fix(fix),
        _ => Check::ok("store", text),
    }]
}

/// Finds the type of the file system that a path is on (proc(5), `/proc/pid/mountinfo`).
fn file_system(mounts: &str, path: &Path) -> Option<String> {
    let mount = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let point = PathBuf::from(left.split(' ').nth(4)?.replace("\\040", " "));
        let kind = right.split(' ').next()?.to_owned();
        path.starts_with(&point).then(|| (point.components().count(), kind))
    };
    // Of two mounts on one directory the later one is seen.
    mounts.lines().filter_map(mount).max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn name_servers_are_addresses() {
        let check =
            name_servers("# no\nnameserver 10.0.0.1\nnameserver\tfe80::1%eth0\nnameserver x\nsearch a\n");
        assert_eq!((check.status, check.text.as_str()), (Outcome::Ok, "10.0.0.1, fe80::1%eth0"));
        assert_eq!(name_servers("search a\n").status, Outcome::Warning);
    }

    #[test]
    fn the_nearest_mount_tells_the_file_system() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /var/lib rw shared:1 - xfs /dev/b rw\n\
                      3 1 0:6 / /my\\040disk rw - btrfs /dev/c rw\n4 1 0:7 / /var/lib rw - tmpfs none rw\n";
        let kind = |path: &str| file_system(mounts, Path::new(path)).unwrap();
        assert_eq!(
            [kind("/var/lib/polyarch"), kind("/var/library"), kind("/my disk/x")],
            ["tmpfs", "ext4", "btrfs"]
        );
    }

    #[test]
    fn files_of_passwords_are_their_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        assert_eq!(credential_file(&path), None);
        let judge = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            credential_file(&path).unwrap()
        };
        let secret = r#"{"auths": {"r.example": {"auth": "dTpw"}}}"#;
        assert_eq!(judge(secret, 0o600).status, Outcome::Ok);
        let open = judge(secret, 0o644);
        assert_eq!(open.status, Outcome::Warning);
        assert!(open.fix.unwrap().starts_with("chmod 600 "));
        assert_eq!(judge(r#"{"auths": {"r.example": {}}, "credsStore": "pass"}"#, 0o644).status, Outcome::Ok);
        assert_eq!(judge("", 0o644).status, Outcome::Ok);
        assert_eq!(judge("{\"auths\": ", 0o600).status, Outcome::Problem);
    }

    #[test]
    fn the_size_of_the_store_is_that_of_df() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), vec![1; 100_000]).unwrap();
        let bytes = DiskUsage::default().add(directory.path()).unwrap();
        assert!(bytes > 100_000);
        let text = store(directory.path()).remove(0).text;
        assert!(text.starts_with(&format!("{}: {}; ", directory.path().display(), size(bytes))), "{text}");
        let text = store(&directory.path().join("absent")).remove(0).text;
        assert!(text.contains("/absent: not made yet; "), "{text}");
    }
}
