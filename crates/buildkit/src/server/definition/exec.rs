// SPDX-License-Identifier: Apache-2.0
//! Processes of LLB in the words of the build room.

use polyarch_build::BuildError;
use polyarch_build::definition::{
    CacheSharing, Exec, ExecMountKind, ExecMountSpec, MountPermissions, VertexKind,
};
use polyarch_build::request::{NetworkMode, Resource, Ulimit};

use super::files::output;
use super::optional;
use crate::api::llb::{
    CacheSharingOpt, ExecOp, Meta, Mount, MountType, NetMode, ProxyEnv, SecurityMode, Ulimit as LlbUlimit,
};
use crate::server::attributes::wrong;

/// The most mounts of a process.
const MAX_MOUNTS: usize = 1_000;

/// Converts a process of so many inputs.
pub(super) fn exec(op: &ExecOp, inputs: usize) -> Result<VertexKind, BuildError> {
    let meta = op.meta.as_ref().ok_or_else(|| wrong("invalid exec op with no meta"))?;
    if meta.args.is_empty() {
        return Err(wrong("invalid exec op with no args"));
    }
    if let Some(device) = op.cdi_devices.iter().find(|device| !device.optional) {
        return Err(wrong(format!("device {} is requested, and this builder gives no devices", device.name)));
    }
    if op.mounts.len() > MAX_MOUNTS || op.secretenv.len() > MAX_MOUNTS {
        return Err(wrong(format!("a process has at most {MAX_MOUNTS} mounts")));
    }
    let mut mounts: Vec<ExecMountSpec> =
        op.mounts.iter().map(|it| mount(it, inputs)).collect::<Result<_, _>>()?;
    for secret in &op.secretenv {
        if secret.name.is_empty() || secret.name.contains(['=', '\0']) {
            return Err(wrong(format!("secret {}: invalid name of an environment variable", secret.id)));
        }
        mounts.push(ExecMountSpec {
            target: secret.name.clone(),
            input: None,
            selector: String::new(),
            output: None,
            read_only: true,
            kind: ExecMountKind::SecretVariable { id: secret.id.clone(), optional: secret.optional },
        });
    }
    let exec = Exec {
        mounts,
        network: match NetMode::try_from(op.network) {
            Ok(NetMode::Unset) => NetworkMode::Default,
            Ok(NetMode::Host) => NetworkMode::Host,
            Ok(NetMode::None) => NetworkMode::None,
            Err(_) => return Err(wrong(format!("invalid network mode {}", op.network))),
        },
        is_insecure: match SecurityMode::try_from(op.security) {
            Ok(SecurityMode::Sandbox) => false,
            Ok(SecurityMode::Insecure) => true,
            Err(_) => return Err(wrong(format!("invalid security mode {}", op.security))),
        },
        ..process(meta)?
    };
    Ok(VertexKind::Exec(Box::new(exec)))
}

fn process(meta: &Meta) -> Result<Exec, BuildError> {
    let hosts = meta.extra_hosts.iter().map(|host| match host.ip.parse::<std::net::IpAddr>() {
        Ok(_) if !host.host.contains(char::is_whitespace) => Ok((host.host.clone(), host.ip.clone())),
        _ => Err(wrong(format!("invalid extra host {:?} at {:?}", host.host, host.ip))),
    });
    let texts = meta.args.iter().chain(&meta.env).chain([&meta.cwd, &meta.user, &meta.hostname]);
    if texts.clone().any(|text| text.contains('\0')) {
        return Err(wrong("a process has an argument or a variable with a zero byte"));
    }
    Ok(Exec {
        args: meta.args.clone(),
        env: meta.env.clone(),
        unkeyed_env: meta.proxy_env.as_ref().map(proxies).unwrap_or_default(),
        cwd: meta.cwd.clone(),
        user: meta.user.clone(),
        hostname: Some(meta.hostname.clone()).filter(|name| !name.is_empty()),
        extra_hosts: hosts.collect::<Result<_, BuildError>>()?,
        ulimits: meta.ulimit.iter().map(ulimit).collect::<Result<_, _>>()?,
        valid_exit_codes: meta.valid_exit_codes.clone(),
        ..Exec::default()
    })
}

fn ulimit(limit: &LlbUlimit) -> Result<Ulimit, BuildError> {
    let resource = Resource::from_name(&limit.name)
        .ok_or_else(|| wrong(format!("invalid ulimit {}: there is no such limit", limit.name)))?;
    // -1 is no limit.
    let value = |value: i64| u64::try_from(value).ok();
    Ok(Ulimit { resource, soft: value(limit.soft), hard: value(limit.hard) })
}

fn proxies(proxy: &ProxyEnv) -> Vec<String> {
    let values = [
        ("HTTP_PROXY", &proxy.http_proxy),
        ("HTTPS_PROXY", &proxy.https_proxy),
        ("FTP_PROXY", &proxy.ftp_proxy),
        ("NO_PROXY", &proxy.no_proxy),
        ("ALL_PROXY", &proxy.all_proxy),
    ];
    let given = values.into_iter().filter(|(_, value)| !value.is_empty() && !value.contains('\0'));
    given
        .flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())])
        .collect()
}

fn mount(mount: &Mount, inputs: usize) -> Result<ExecMountSpec, BuildError> {
    let kind = match MountType::try_from(mount.mount_type) {
        Ok(MountType::Bind) => ExecMountKind::Bind,
        Ok(MountType::Cache) => {
            let cache = mount.cache_opt.clone().unwrap_or_default();
            ExecMountKind::Cache {
                id: cache.id,
                sharing: match CacheSharingOpt::try_from(cache.sharing) {
                    Ok(CacheSharingOpt::Shared) => CacheSharing::Shared,
                    Ok(CacheSharingOpt::Private) => CacheSharing::Private,
                    Ok(CacheSharingOpt::Locked) => CacheSharing::Locked,
                    Err(_) => return Err(wrong(format!("invalid cache sharing {}", cache.sharing))),
                },
            }
        }
        Ok(MountType::Tmpfs) => {
            let size = mount.tmpfs_opt.as_ref().map_or(0, |it| it.size);
            ExecMountKind::Tmpfs { size_bytes: u64::try_from(size).unwrap_or(0) }
        }
        Ok(MountType::Secret) => {
            let secret = mount.secret_opt.clone().ok_or_else(|| wrong("invalid secret mount options"))?;
            ExecMountKind::Secret {
                id: secret.id,
                optional: secret.optional,
                permissions: MountPermissions { uid: secret.uid, gid: secret.gid, mode: secret.mode & 0o777 },
            }
        }
        Ok(MountType::Ssh) => {
            let agent = mount.ssh_opt.clone().ok_or_else(|| wrong("invalid ssh mount options"))?;
            let id = if agent.id.is_empty() { "default".to_owned() } else { agent.id };
            ExecMountKind::Ssh {
                id,
                optional: agent.optional,
                permissions: MountPermissions { uid: agent.uid, gid: agent.gid, mode: agent.mode & 0o777 },
            }
        }
        Err(_) => return Err(wrong(format!("mount type {} is not implemented", mount.mount_type))),
    };
    if mount.dest.contains('\0') || mount.selector.contains('\0') {
        return Err(wrong("the path of a mount has a zero byte"));
    }
    Ok(ExecMountSpec {
        target: mount.dest.clone(),
        input: optional(mount.input, inputs)?,
        selector: mount.selector.clone(),
        output: output(mount.output)?,
        read_only: mount.readonly,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::llb::{CDIDevice, HostIP, SecretEnv};

    fn op() -> ExecOp {
        let meta = Meta { args: vec!["/bin/true".into()], cwd: "/".into(), ..Meta::default() };
        let root = Mount { dest: "/".into(), ..Mount::default() };
        ExecOp { meta: Some(meta), mounts: vec![root], ..ExecOp::default() }
    }

    #[test]
    fn processes_are_converted() {
        let mut op = op();
        op.secretenv = vec![SecretEnv { id: "token".into(), name: "TOKEN".into(), optional: true }];
        op.network = NetMode::None.into();
        op.mounts.push(Mount { dest: "/out".into(), input: -1, output: 1, ..Mount::default() });
        let VertexKind::Exec(exec) = exec(&op, 1).unwrap() else { panic!("not a process") };
        assert_eq!((exec.network, exec.mounts.len()), (NetworkMode::None, 3));
        assert_eq!((exec.mounts[0].input, exec.mounts[0].output), (Some(0), Some(0)));
        assert_eq!((exec.mounts[1].input, exec.mounts[1].output), (None, Some(1)));
        assert_eq!(exec.mounts[2].target, "TOKEN");
    }

    type Change = fn(&mut ExecOp);

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong: [(&str, Change); 9] = [
            ("no meta", |op| op.meta = None),
            ("no args", |op| op.meta.as_mut().expect("it has one").args.clear()),
            ("gives no devices", |op| {
                op.cdi_devices = vec![CDIDevice { name: "v/d=1".into(), optional: false }]
            }),
            ("reads input 1", |op| op.mounts[0].input = 1),
            ("invalid output", |op| op.mounts[0].output = -2),
            ("mount type 9", |op| op.mounts[0].mount_type = 9),
            ("network mode", |op| op.network = 7),
            ("invalid extra host", |op| {
                let host = HostIP { host: "a".into(), ip: "there".into() };
                op.meta.as_mut().expect("it has one").extra_hosts = vec![host];
            }),
            ("zero byte", |op| op.meta.as_mut().expect("it has one").cwd = "/\0".into()),
        ];
        for (text, change) in wrong {
            let mut op = op();
            change(&mut op);
            let error = exec(&op, 1).unwrap_err();
            assert!(error.message.contains(text), "{text}: {}", error.message);
        }
    }
}
