// SPDX-License-Identifier: Apache-2.0
//! What provenance tells of a client's graph: its operations in the JSON that BuildKit writes of LLB, and where
//! they stand in source files.
//!
//! Fields that say nothing are left out. So are what tells of one run of the client (sessions) and what could give
//! access to something (proxies, and the user of a URL).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_build::BuildError;
use polyarch_build::definition::{ToldDefinition, ToldFile, ToldStep};
use polyarch_build::remote::redacted;
use serde_json::{Map, Value, json};

use super::graph::{self, CheckedVertex};
use crate::api::llb::{
    ChownOpt, Definition, ExecOp, FileAction, FileActionCopy, FileActionKind, FileOp, Locations, Meta, Mount,
    Op, OpKind, Platform, Position, SourceOp, UserOpt, UserOptUser,
};

/// Attributes of sources that tell of one run.
const OF_RUN: [&str; 3] = ["local.session", "local.unique", "oci.session"];
/// The most source files that are told.
const MAX_FILES: usize = 100;
/// The largest source file that is told, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// Tells a graph whose vertices are in order.
pub(super) fn told(
    definition: &Definition,
    vertices: &[CheckedVertex],
) -> Result<ToldDefinition, BuildError> {
    let source = definition.source.clone().unwrap_or_default();
    let files = source.infos.iter().filter(|info| info.data.len() <= MAX_FILE_BYTES).take(MAX_FILES);
    let files = files.map(|info| {
        let read = match &info.definition {
            Some(read) if !read.def.is_empty() => steps(&graph::check(read)?, None),
            _ => Vec::new(),
        };
        let (name, language) = (info.filename.clone(), info.language.clone());
        Ok(ToldFile { name, language, data: info.data.clone(), read })
    });
    Ok(ToldDefinition {
        steps: steps(vertices, Some(&source.locations)),
        files: files.collect::<Result<_, BuildError>>()?,
    })
}

fn steps(
    vertices: &[CheckedVertex],
    places: Option<&std::collections::BTreeMap<String, Locations>>,
) -> Vec<ToldStep> {
    let steps = vertices.iter().map(|vertex| ToldStep {
        digest: vertex.digest.clone(),
        op: op(&vertex.op),
        inputs: vertex.inputs.iter().map(|edge| (edge.vertex, edge.output)).collect(),
        location: places.and_then(|places| places.get(&vertex.digest)).map(locations),
    });
    steps.collect()
}

/// The fields of a message that say something.
#[derive(Default)]
struct Words(Map<String, Value>);

impl Words {
    fn text(self, key: &str, text: &str) -> Words {
        self.value(key, !text.is_empty(), text.into())
    }

    fn texts(self, key: &str, texts: &[String]) -> Words {
        self.value(key, !texts.is_empty(), texts.into())
    }

    fn number(self, key: &str, number: impl Into<i64>) -> Words {
        let number = number.into();
        self.value(key, number != 0, number.into())
    }

    fn flag(self, key: &str, is_set: bool) -> Words {
        self.value(key, is_set, true.into())
    }

    fn list(self, key: &str, list: impl Iterator<Item = Value>) -> Words {
        let list: Vec<Value> = list.collect();
        self.value(key, !list.is_empty(), list.into())
    }

    fn message(self, key: &str, message: Option<Value>) -> Words {
        let is_there = message.is_some();
        self.value(key, is_there, message.unwrap_or_default())
    }

    fn value(mut self, key: &str, is_told: bool, value: Value) -> Words {
        if is_told {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    fn end(self) -> Value {
        self.0.into()
    }
}

fn op(op: &Op) -> Value {
    let kind = match &op.op {
        None => json!({}),
        Some(OpKind::Source(source)) => json!({ "source": self::source(source) }),
        Some(OpKind::Exec(exec)) => json!({ "exec": self::exec(exec) }),
        Some(OpKind::File(file)) => json!({ "file": self::file(file) }),
        Some(OpKind::Merge(merge)) => {
            let inputs = merge.inputs.iter().map(|it| Words::default().number("input", it.input).end());
            json!({ "merge": Words::default().list("inputs", inputs).end() })
        }
        Some(OpKind::Diff(diff)) => {
            let input = |input: i64| Words::default().number("input", input).end();
            let lower = diff.lower.as_ref().map(|it| input(it.input));
            let upper = diff.upper.as_ref().map(|it| input(it.input));
            json!({ "diff": Words::default().message("lower", lower).message("upper", upper).end() })
        }
        // These are refused.
        Some(OpKind::Build(_)) => json!({ "build": {} }),
        Some(OpKind::Passthrough(_)) => json!({ "passthrough": {} }),
    };
    let constraints = op.constraints.as_ref().map(|it| Words::default().texts("filter", &it.filter).end());
    Words(Map::from_iter([("Op".to_owned(), kind)]))
        .message("platform", op.platform.as_ref().map(platform))
        .message("constraints", constraints)
        .end()
}

fn platform(platform: &Platform) -> Value {
    Words::default()
        .text("Architecture", &platform.architecture)
        .text("OS", &platform.os)
        .text("Variant", &platform.variant)
        .text("OSVersion", &platform.os_version)
        .texts("OSFeatures", &platform.os_features)
        .end()
}

fn source(source: &SourceOp) -> Value {
    let attributes = source.attrs.iter().filter(|(key, _)| !OF_RUN.contains(&key.as_str()));
    let attributes: Map<String, Value> = attributes
        .map(|(key, value)| {
            let value = if key == "git.fullurl" { redacted(value) } else { value.clone() };
            (key.clone(), value.into())
        })
        .collect();
    Words::default()
        .text("identifier", &redacted(&source.identifier))
        .value("attrs", !attributes.is_empty(), attributes.into())
        .end()
}

fn exec(exec: &ExecOp) -> Value {
    let secrets = exec.secretenv.iter().map(|secret| {
        Words::default()
            .text("ID", &secret.id)
            .text("name", &secret.name)
            .flag("optional", secret.optional)
            .end()
    });
    let devices = exec
        .cdi_devices
        .iter()
        .map(|device| Words::default().text("name", &device.name).flag("optional", device.optional).end());
    Words::default()
        .message("meta", exec.meta.as_ref().map(meta))
        .list("mounts", exec.mounts.iter().map(mount))
        .number("network", exec.network)
        .number("security", exec.security)
        .list("secretenv", secrets)
        .list("cdiDevices", devices)
        .end()
}

fn meta(meta: &Meta) -> Value {
    let hosts = meta
        .extra_hosts
        .iter()
        .map(|host| Words::default().text("Host", &host.host).text("IP", &host.ip).end());
    let limits = meta.ulimit.iter().map(|limit| {
        let words = Words::default().text("Name", &limit.name);
        words.number("Soft", limit.soft).number("Hard", limit.hard).end()
    });
    Words::default()
        .texts("args", &meta.args)
        .texts("env", &meta.env)
        .text("cwd", &meta.cwd)
        .text("user", &meta.user)
        .list("extraHosts", hosts)
        .text("hostname", &meta.hostname)
        .list("ulimit", limits)
        .text("cgroupParent", &meta.cgroup_parent)
        .flag("removeMountStubsRecursive", meta.remove_mount_stubs_recursive)
        .list("validExitCodes", meta.valid_exit_codes.iter().map(|code| (*code).into()))
        .end()
}

fn mount(mount: &Mount) -> Value {
    let permitted = |id: &str, (uid, gid, mode): (u32, u32, u32), optional: bool| {
        let words = Words::default().text("ID", id).number("uid", uid).number("gid", gid);
        words.number("mode", mode).flag("optional", optional).end()
    };
    let cache = mount.cache_opt.as_ref();
    let cache = cache.map(|it| Words::default().text("ID", &it.id).number("sharing", it.sharing).end());
    let secret = mount.secret_opt.as_ref();
    let secret = secret.map(|it| permitted(&it.id, (it.uid, it.gid, it.mode), it.optional));
    let agent = mount.ssh_opt.as_ref();
    let agent = agent.map(|it| permitted(&it.id, (it.uid, it.gid, it.mode), it.optional));
    Words::default()
        .number("input", mount.input)
        .text("selector", &mount.selector)
        .text("dest", &mount.dest)
        .number("output", mount.output)
        .flag("readonly", mount.readonly)
        .number("mountType", mount.mount_type)
        .message(
            "TmpfsOpt",
            mount.tmpfs_opt.as_ref().map(|it| Words::default().number("size", it.size).end()),
        )
        .message("cacheOpt", cache)
        .message("secretOpt", secret)
        .message("SSHOpt", agent)
        .number("contentCache", mount.content_cache)
        .end()
}

fn file(file: &FileOp) -> Value {
    Words::default().list("actions", file.actions.iter().map(action)).end()
}

fn action(action: &FileAction) -> Value {
    let kind = match &action.action {
        None => json!({}),
        Some(FileActionKind::Copy(copy)) => json!({ "copy": self::copy(copy) }),
        Some(FileActionKind::Mkfile(file)) => {
            let words = Words::default().text("path", &file.path).number("mode", file.mode);
            let words = words.text("data", &STANDARD.encode(&file.data));
            json!({ "mkfile": owned(words, file.owner.as_ref(), file.timestamp) })
        }
        Some(FileActionKind::Mkdir(directory)) => {
            let words = Words::default().text("path", &directory.path).number("mode", directory.mode);
            let words = words.flag("makeParents", directory.make_parents);
            json!({ "mkdir": owned(words, directory.owner.as_ref(), directory.timestamp) })
        }
        Some(FileActionKind::Symlink(link)) => {
            let words = Words::default().text("oldpath", &link.oldpath).text("newpath", &link.newpath);
            json!({ "symlink": owned(words, link.owner.as_ref(), link.timestamp) })
        }
        Some(FileActionKind::Rm(rm)) => {
            let words = Words::default().text("path", &rm.path).flag("allowNotFound", rm.allow_not_found);
            json!({ "rm": words.flag("allowWildcard", rm.allow_wildcard).end() })
        }
    };
    json!({
        "input": action.input,
        "secondaryInput": action.secondary_input,
        "output": action.output,
        "Action": kind,
    })
}

fn owned(words: Words, owner: Option<&ChownOpt>, time: i64) -> Value {
    words.message("owner", owner.map(self::owner)).number("timestamp", time).end()
}

fn copy(copy: &FileActionCopy) -> Value {
    let words = Words::default()
        .text("src", &copy.src)
        .text("dest", &copy.dest)
        .number("mode", copy.mode)
        .flag("followSymlink", copy.follow_symlink)
        .flag("dirCopyContents", copy.dir_copy_contents)
        .flag("attemptUnpackDockerCompatibility", copy.attempt_unpack_docker_compatibility)
        .flag("createDestPath", copy.create_dest_path)
        .flag("allowWildcard", copy.allow_wildcard)
        .flag("allowEmptyWildcard", copy.allow_empty_wildcard)
        .texts("include_patterns", &copy.include_patterns)
        .texts("exclude_patterns", &copy.exclude_patterns)
        .flag("alwaysReplaceExistingDestPaths", copy.always_replace_existing_dest_paths)
        .text("modeStr", &copy.mode_str)
        .texts("required_paths", &copy.required_paths);
    owned(words, copy.owner.as_ref(), copy.timestamp)
}

fn owner(owner: &ChownOpt) -> Value {
    let user = |user: &UserOpt| match &user.user {
        None => json!({ "User": null }),
        Some(UserOptUser::ByID(id)) => json!({ "User": { "byId": id } }),
        Some(UserOptUser::ByName(name)) => {
            let words = Words::default().text("name", &name.name).number("input", name.input);
            json!({ "User": { "byName": words.end() } })
        }
    };
    Words::default()
        .message("user", owner.user.as_ref().map(user))
        .message("group", owner.group.as_ref().map(user))
        .end()
}

fn locations(locations: &Locations) -> Value {
    let position = |position: &Position| {
        Words::default().number("line", position.line).number("character", position.character).end()
    };
    let locations = locations.locations.iter().map(|location| {
        let ranges = location.ranges.iter().map(|range| {
            Words::default()
                .message("start", range.start.as_ref().map(position))
                .message("end", range.end.as_ref().map(position))
                .end()
        });
        Words::default().number("sourceIndex", location.source_index).list("ranges", ranges).end()
    });
    Words::default().list("locations", locations).end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::llb::{ProxyEnv, SecretOpt};

    #[test]
    fn sources_are_told_without_what_gives_access() {
        let attrs =
            [("local.session", "s"), ("git.fullurl", "https://u:p@h/r.git"), ("git.keepgitdir", "true")];
        let attrs = attrs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let source = SourceOp { identifier: "https://u:p@h/f".into(), attrs: attrs.into() };
        let told = op(&Op { op: Some(OpKind::Source(source)), ..Op::default() });
        let attrs = json!({ "git.fullurl": "https://xxxxx:xxxxx@h/r.git", "git.keepgitdir": "true" });
        let source = json!({ "identifier": "https://xxxxx:xxxxx@h/f", "attrs": attrs });
        assert_eq!(told, json!({ "Op": { "source": source } }));
    }

    #[test]
    fn processes_are_told_without_what_says_nothing() {
        let proxy_env = Some(ProxyEnv { http_proxy: "http://u:p@proxy".into(), ..ProxyEnv::default() });
        let meta = Meta { args: vec!["true".into()], cwd: "/".into(), proxy_env, ..Meta::default() };
        let root = Mount { dest: "/".into(), ..Mount::default() };
        let secret_opt = Some(SecretOpt { id: "token".into(), mode: 0o400, ..SecretOpt::default() });
        let secret = Mount { input: -1, output: -1, mount_type: 1, secret_opt, ..Mount::default() };
        let exec = ExecOp { meta: Some(meta), mounts: vec![root, secret], network: 2, ..ExecOp::default() };
        assert_eq!(
            self::exec(&exec),
            json!({
                "meta": { "args": ["true"], "cwd": "/" },
                "mounts": [
                    { "dest": "/" },
                    { "input": -1, "output": -1, "mountType": 1, "secretOpt": { "ID": "token", "mode": 0o400 } },
                ],
                "network": 2,
            })
        );
    }

    #[test]
    fn changes_of_files_are_told_with_their_inputs() {
        let user = UserOpt { user: Some(UserOptUser::ByID(0)) };
        let copy = FileActionCopy {
            src: "/a".into(),
            dest: "/".into(),
            mode: -1,
            owner: Some(ChownOpt { user: Some(user), group: None }),
            ..FileActionCopy::default()
        };
        let action =
            FileAction { secondary_input: 1, action: Some(FileActionKind::Copy(copy)), ..Default::default() };
        let told = file(&FileOp { actions: vec![action] });
        let copy =
            json!({ "src": "/a", "dest": "/", "mode": -1, "owner": { "user": { "User": { "byId": 0 } } } });
        let action = json!({ "input": 0, "secondaryInput": 1, "output": 0, "Action": { "copy": copy } });
        assert_eq!(told, json!({ "actions": [action] }));
    }
}
