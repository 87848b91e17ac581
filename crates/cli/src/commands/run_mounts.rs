// SPDX-License-Identifier: Apache-2.0
//! The flags of `polyarch run` that bring files in: -v, --mount and --tmpfs.

use std::path::Path;

use polyarch_sandbox::Mount;

use super::flag_values::{parse_size, split_csv};
use crate::{CommandError, Environment};

/// Reads the values of `--volume`: `SOURCE:TARGET[:OPTIONS]`.
pub fn volume(text: &str, environment: &Environment) -> Result<Mount, CommandError> {
    let wrong = |problem: &str| CommandError::usage(format!("--volume {text:?}: {problem}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        // A target alone is an anonymous volume: empty, and gone with the program.
        [target] => return tmpfs_at(target, 0, "--volume"),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(wrong("write SOURCE:TARGET[:ro]")),
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // Labels of SELinux and consistency of other systems change nothing here.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "rprivate" | "private" => {}
            _ => return Err(wrong(&format!("the option {option:?} is not known (ro, rw)"))),
        }
    }
    if !source.contains('/') && !matches!(source, "." | "..") {
        return Err(wrong("there are no named volumes, because nothing is kept between runs")
            .with_hint(format!("name a directory: -v ./{source}:{target}")));
    }
    bind(source, target, read_only, "--volume", environment)
}

/// Reads the values of `--mount`: `type=bind,source=…,target=…[,readonly]` or `type=tmpfs,target=…`.
pub fn mount(text: &str, environment: &Environment) -> Result<Mount, CommandError> {
    let wrong = |problem: String| CommandError::usage(format!("--mount {text:?}: {problem}"));
    let (mut kind, mut source, mut target) = ("volume".to_owned(), None, None);
    let (mut read_only, mut size_bytes) = (false, 0);
    for field in split_csv(text).map_err(wrong)? {
        let (key, value) = field.split_once('=').unwrap_or((&field, ""));
        match key {
            "type" => kind = value.to_owned(),
            "source" | "src" => source = Some(value.to_owned()),
            "target" | "dst" | "destination" => target = Some(value.to_owned()),
            "readonly" | "ro" => {
                read_only = value.is_empty() || super::flag_values::go_bool(value).map_err(wrong)?;
            }
            "tmpfs-size" => size_bytes = parse_size(value).map_err(wrong)?,
            "tmpfs-mode" | "bind-propagation" | "consistency" | "bind-recursive" => {}
            _ => return Err(wrong(format!("the key {key:?} is not known (type, source, target, readonly)"))),
        }
    }
    let target = target.ok_or_else(|| wrong("target is missing".to_owned()))?;
    match (kind.as_str(), source) {
        ("bind", Some(source)) => bind(&source, &target, read_only, "--mount", environment),
        ("bind", None) => Err(wrong("source is missing".to_owned())),
        ("tmpfs", None) => tmpfs_at(&target, size_bytes, "--mount"),
        ("tmpfs", Some(_)) => Err(wrong("a tmpfs has no source".to_owned())),
        ("volume", _) => Err(wrong("there are no volumes, because nothing is kept between runs".to_owned())
            .with_hint("mount a directory: type=bind,source=DIR,target=…, or type=tmpfs,target=…")),
        (kind, _) => Err(wrong(format!("the type {kind:?} is not known (bind, tmpfs)"))),
    }
}

/// Reads the values of `--tmpfs`: `TARGET[:OPTIONS]`.
pub fn tmpfs(text: &str) -> Result<Mount, CommandError> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut size_bytes = 0;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        if let Some(size) = option.strip_prefix("size=") {
            size_bytes = parse_size(size)
                .map_err(|problem| CommandError::usage(format!("--tmpfs {text:?}: {problem}")))?;
        }
    }
    tmpfs_at(target, size_bytes, "--tmpfs")
}

fn tmpfs_at(target: &str, size_bytes: u64, flag: &str) -> Result<Mount, CommandError> {
    check_target(target, flag)?;
    Ok(Mount::Tmpfs { target: target.into(), size_bytes })
}

fn bind(
    source: &str,
    target: &str,
    read_only: bool,
    flag: &str,
    environment: &Environment,
) -> Result<Mount, CommandError> {
    check_target(target, flag)?;
    let source = environment.resolve(Path::new(source));
    match std::fs::metadata(&source) {
        Ok(_) => Ok(Mount::Bind { source, target: target.into(), read_only }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("{flag}: {} is not there", source.display());
            Err(CommandError::usage(message)
                .with_hint(format!("make it first: mkdir -p {}", source.display())))
        }
        Err(error) => Err(CommandError::io(&format!("{flag}: can't look at"), &source, &error)),
    }
}

fn check_target(target: &str, flag: &str) -> Result<(), CommandError> {
    let path = Path::new(target);
    if path.is_absolute() && path.parent().is_some() && !target.split('/').any(|part| part == "..") {
        return Ok(());
    }
    Err(CommandError::usage(format!("{flag}: the target {target:?} is not an absolute path below /")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment { current_directory: "/".into(), ..Environment::default() }
    }

    #[test]
    fn volumes_and_mounts_are_dockers() {
        let bind = |read_only| Mount::Bind { source: "/tmp".into(), target: "/data".into(), read_only };
        let table = [
            ("/tmp:/data", false),
            ("./tmp:/data", false),
            ("/tmp:/data:ro", true),
            ("/tmp:/data:rw,z", false),
        ];
        for (text, read_only) in table {
            assert_eq!(volume(text, &environment()).unwrap(), bind(read_only), "{text}");
        }
        let table = [
            ("type=bind,source=/tmp,target=/data", false),
            ("type=bind,src=/tmp,dst=/data,readonly", true),
            ("type=bind,src=/tmp,destination=/data,ro=true", true),
        ];
        for (text, read_only) in table {
            assert_eq!(mount(text, &environment()).unwrap(), bind(read_only), "{text}");
        }
        let empty = |size_bytes| Mount::Tmpfs { target: "/data".into(), size_bytes };
        assert_eq!(volume("/data", &environment()).unwrap(), empty(0));
        assert_eq!(mount("type=tmpfs,target=/data,tmpfs-size=1m", &environment()).unwrap(), empty(1 << 20));
        assert_eq!(tmpfs("/data:rw,size=64m").unwrap(), empty(64 << 20));
    }

    #[test]
    fn what_can_not_be_mounted_is_told() {
        let refused = |text: &str| volume(text, &environment()).unwrap_err().render();
        assert!(refused("data:/data").contains("there are no named volumes"));
        assert!(refused("/absent/dir:/data").contains("hint: make it first: mkdir -p /absent/dir"));
        assert!(refused("/tmp:data").contains("absolute path below /"));
        assert!(refused("/tmp:/").contains("absolute path below /"));
        assert!(refused("/tmp:/data/../..").contains("absolute path below /"));
        assert!(refused("/tmp:/data:rx").contains("\"rx\""));
        assert!(refused("a:b:c:d").contains("SOURCE:TARGET"));
        let refused = |text: &str| mount(text, &environment()).unwrap_err().render();
        assert!(refused("target=/data").contains("there are no volumes"));
        assert!(refused("type=bind,source=/tmp").contains("target is missing"));
        assert!(refused("type=bind,target=/data").contains("source is missing"));
        assert!(refused("type=bind,source=/tmp,target=/data,mode=1").contains("\"mode\""));
    }
}
