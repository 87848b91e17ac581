// SPDX-License-Identifier: Apache-2.0
//! File operations of LLB in the words of the build room.

use polyarch_build::BuildError;
use polyarch_build::definition::{CopyChange, FileChange, FileInput, FileStep, VertexKind};

use crate::api::llb::{ChownOpt, FileActionCopy, FileActionKind, FileOp, UserOpt, UserOptUser};
use crate::server::attributes::wrong;

/// The most changes of one operation.
const MAX_ACTIONS: usize = 10_000;
/// The most patterns of a copy.
const MAX_PATTERNS: usize = 10_000;
/// The largest number of an output.
const MAX_OUTPUT: usize = 10_000;

/// Converts a file operation of so many inputs.
pub(super) fn file(op: &FileOp, inputs: usize) -> Result<VertexKind, BuildError> {
    if op.actions.is_empty() || op.actions.len() > MAX_ACTIONS {
        return Err(wrong(format!("a file operation has 1 to {MAX_ACTIONS} actions")));
    }
    let steps = op.actions.iter().enumerate().map(|(number, action)| {
        let kind = action
            .action
            .as_ref()
            .ok_or_else(|| wrong("a file operation has an action of an unknown kind"))?;
        Ok(FileStep {
            base: input(action.input, inputs, number)?,
            from: input(action.secondary_input, inputs, number)?,
            output: output(action.output)?,
            change: change(kind)?,
        })
    });
    Ok(VertexKind::File(steps.collect::<Result<_, BuildError>>()?))
}

/// Returns what people read of a file operation that has no name.
pub(super) fn name(op: &FileOp) -> String {
    let names = op.actions.iter().filter_map(|action| action.action.as_ref()).map(|action| match action {
        FileActionKind::Mkdir(it) => format!("mkdir {}", it.path),
        FileActionKind::Mkfile(it) => format!("mkfile {}", it.path),
        FileActionKind::Symlink(it) => format!("symlink {} -> {}", it.newpath, it.oldpath),
        FileActionKind::Rm(it) => format!("rm {}", it.path),
        FileActionKind::Copy(it) => format!("copy {} {}", it.src, it.dest),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// Reads what an action reads: -1 is nothing, then come the inputs of the operation, then earlier actions.
fn input(number: i64, inputs: usize, action: usize) -> Result<Option<FileInput>, BuildError> {
    if number == -1 {
        return Ok(None);
    }
    let wrong_number =
        || wrong(format!("action {action} of a file operation reads {number}, which is not there"));
    let number = usize::try_from(number).map_err(|_| wrong_number())?;
    match number.checked_sub(inputs) {
        None => Ok(Some(FileInput::Input(number))),
        Some(step) if step < action => Ok(Some(FileInput::Step(step))),
        Some(_) => Err(wrong_number()),
    }
}

/// Reads the number of an output; -1 is none.
pub(super) fn output(number: i64) -> Result<Option<usize>, BuildError> {
    match usize::try_from(number) {
        Ok(output) if output <= MAX_OUTPUT => Ok(Some(output)),
        Err(_) if number == -1 => Ok(None),
        _ => Err(wrong(format!("invalid output {number}"))),
    }
}

fn change(action: &FileActionKind) -> Result<FileChange, BuildError> {
    Ok(match action {
        FileActionKind::Mkdir(it) => FileChange::Mkdir {
            path: absolute(&it.path)?,
            mode: permissions(it.mode),
            parents: it.make_parents,
            owner: owner(it.owner.as_ref()),
            time: time(it.timestamp),
        },
        FileActionKind::Mkfile(it) => FileChange::Mkfile {
            path: absolute(&it.path)?,
            mode: permissions(it.mode),
            data: it.data.as_slice().into(),
            owner: owner(it.owner.as_ref()),
            time: time(it.timestamp),
        },
        FileActionKind::Symlink(it) => FileChange::Symlink {
            target: text(&it.oldpath)?,
            path: absolute(&it.newpath)?,
            owner: owner(it.owner.as_ref()),
            time: time(it.timestamp),
        },
        FileActionKind::Rm(it) => {
            let path = absolute(&it.path)?;
            if path == "/" {
                return Err(wrong("rm: the root of a tree can't be removed"));
            }
            FileChange::Remove { path, must_exist: !it.allow_not_found, has_wildcards: it.allow_wildcard }
        }
        FileActionKind::Copy(it) => FileChange::Copy(Box::new(copy(it)?)),
    })
}

fn copy(it: &FileActionCopy) -> Result<CopyChange, BuildError> {
    let patterns = [&it.include_patterns, &it.exclude_patterns, &it.required_paths];
    if patterns.iter().any(|list| list.len() > MAX_PATTERNS) {
        return Err(wrong(format!("a copy has at most {MAX_PATTERNS} patterns")));
    }
    let mut destination = absolute(&it.dest)?;
    if it.dest.ends_with('/') && destination != "/" {
        destination.push('/');
    }
    let mode = match (it.mode_str.as_str(), it.mode) {
        ("", -1) => None,
        ("", mode) => Some(format!("{:o}", mode & 0o7777)),
        (text, _) => Some(text.to_owned()),
    };
    Ok(CopyChange {
        source: absolute(&it.src)?,
        destination,
        owner: owner(it.owner.as_ref()),
        mode,
        follows_links: it.follow_symlink,
        only_contents: it.dir_copy_contents,
        unpack: it.attempt_unpack_docker_compatibility,
        makes_destination: it.create_dest_path,
        has_wildcards: it.allow_wildcard,
        may_match_nothing: it.allow_empty_wildcard,
        time: time(it.timestamp),
        include: it.include_patterns.clone(),
        exclude: it.exclude_patterns.clone(),
        required: it.required_paths.clone(),
    })
}

/// Returns a path below the root of its tree, whatever is written.
fn absolute(path: &str) -> Result<String, BuildError> {
    let mut parts: Vec<&str> = Vec::new();
    let path = text(path)?;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

fn text(text: &str) -> Result<String, BuildError> {
    match text.contains('\0') {
        true => Err(wrong("a path has a zero byte")),
        false => Ok(text.to_owned()),
    }
}

/// Returns the permissions of a mode, which clients write as a signed number.
fn permissions(mode: i32) -> u32 {
    u32::try_from(mode & 0o777).unwrap_or(0)
}

/// Reads a time in nanoseconds since 1970; -1 is now.
fn time(timestamp: i64) -> Option<i64> {
    (timestamp != -1).then_some(timestamp)
}

/// Writes an owner as `user[:group]`. Names are those of the tree that is changed.
fn owner(owner: Option<&ChownOpt>) -> Option<String> {
    let name = |user: Option<&UserOpt>| {
        user.and_then(|user| user.user.as_ref()).map(|user| match user {
            UserOptUser::ByName(named) => named.name.clone(),
            UserOptUser::ByID(id) => id.to_string(),
        })
    };
    let (user, group) = (name(owner?.user.as_ref()), name(owner?.group.as_ref()));
    match (user, group) {
        (None, None) => None,
        (Some(user), None) => Some(user),
        (user, Some(group)) => Some(format!("{}:{group}", user.as_deref().unwrap_or("0"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::llb::{FileAction, FileActionMkDir, FileActionRm, NamedUserOpt};

    fn action(input: i64, output: i64, action: FileActionKind) -> FileAction {
        FileAction { input, secondary_input: -1, output, action: Some(action) }
    }

    #[test]
    fn actions_read_inputs_and_earlier_actions() {
        let mkdir = |path: &str| {
            FileActionKind::Mkdir(FileActionMkDir {
                path: path.into(),
                mode: 0o755,
                timestamp: -1,
                ..Default::default()
            })
        };
        let op = FileOp { actions: vec![action(0, -1, mkdir("a/../../b")), action(1, 0, mkdir("/b/c"))] };
        let VertexKind::File(steps) = file(&op, 1).unwrap() else { panic!("not a file operation") };
        assert_eq!((steps[0].base, steps[0].output), (Some(FileInput::Input(0)), None));
        assert_eq!((steps[1].base, steps[1].output), (Some(FileInput::Step(0)), Some(0)));
        let FileChange::Mkdir { path, mode, time, .. } = &steps[0].change else { panic!("not a mkdir") };
        assert_eq!((path.as_str(), *mode, *time), ("/b", 0o755, None));
        let ahead = FileOp { actions: vec![action(1, 0, mkdir("/a"))] };
        assert!(file(&ahead, 1).is_err());
        assert!(file(&FileOp { actions: vec![action(-2, 0, mkdir("/a"))] }, 1).is_err());
        assert!(file(&FileOp { actions: vec![action(0, -2, mkdir("/a"))] }, 1).is_err());
        assert!(file(&FileOp::default(), 1).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let rm = |path: &str| {
            let rm = FileActionRm { path: path.into(), ..FileActionRm::default() };
            file(&FileOp { actions: vec![action(0, 0, FileActionKind::Rm(rm))] }, 1)
        };
        assert!(rm("/a").is_ok());
        assert!(rm("/..").is_err());
        assert!(rm("/a\0").is_err());
    }

    #[test]
    fn owners_are_names_or_numbers() {
        let user = |user| Some(UserOpt { user: Some(user) });
        let named = |name: &str| user(UserOptUser::ByName(NamedUserOpt { name: name.into(), input: 0 }));
        assert_eq!(owner(None), None);
        let both = ChownOpt { user: named("a"), group: user(UserOptUser::ByID(5)) };
        assert_eq!(owner(Some(&both)).as_deref(), Some("a:5"));
        let group = ChownOpt { user: None, group: named("g") };
        assert_eq!(owner(Some(&group)).as_deref(), Some("0:g"));
        let alone = ChownOpt { user: user(UserOptUser::ByID(7)), group: None };
        assert_eq!(owner(Some(&alone)).as_deref(), Some("7"));
    }
}
