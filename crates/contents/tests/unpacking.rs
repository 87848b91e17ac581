// SPDX-License-Identifier: Apache-2.0
//! What streams tell is what unpacking gives.

#![cfg(test)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polyarch_contents::{EntryKind, ImageContents, LayerContents};
use polyarch_oci::media_type::Compression;
use polyarch_oci::{Algorithm, DiffId, Digest};
use polyarch_snapshot::{ApplyLimits, Kind, SnapshotError, SnapshotOptions, Snapshots, TreeRoot};
use polyarch_testkit::TarBuilder;
use proptest::prelude::*;

/// One entry of a random layer.
#[derive(Debug, Clone)]
enum Step {
    Directory(String, u32),
    File(String, String),
    Symlink(String, String),
    HardLink(String, String),
}

fn archive(steps: &[Step]) -> Vec<u8> {
    let mut tar = TarBuilder::new();
    for step in steps {
        tar = match step {
            Step::Directory(path, mode) => tar.directory(path, *mode),
            Step::File(path, content) => tar.file(path, 0o644, content),
            Step::Symlink(path, target) => tar.symlink(path, target),
            Step::HardLink(path, target) => tar.hard_link(path, target),
        };
    }
    tar.finish()
}

/// Describes a tree, path by path.
type Described = BTreeMap<PathBuf, String>;

fn told(layers: &[Vec<u8>]) -> Option<Described> {
    let read = |layer: &Vec<u8>| {
        let (contents, diff_id) =
            LayerContents::read(layer.as_slice(), Compression::Uncompressed, Algorithm::Sha256).ok()?;
        assert_eq!(diff_id.0, Digest::of(layer));
        Some(contents)
    };
    let contents: Option<Vec<LayerContents>> = layers.iter().map(read).collect();
    let image = ImageContents::of_layers(&contents?).ok()?;
    if !image.broken_links().is_empty() {
        return None;
    }
    let describe = |kind: &EntryKind, mode: u32| match kind {
        EntryKind::File(facts) => format!("file {mode:o} {} {}", facts.size_bytes, facts.sha256),
        EntryKind::Directory => format!("directory {mode:o}"),
        EntryKind::Symlink(target) => format!("symlink {target}"),
        other => format!("{other:?}"),
    };
    let entries = image.entries().filter(|(path, _)| !path.is_root());
    Some(
        entries
            .map(|(path, placed)| {
                let path = PathBuf::from(path.to_string().trim_start_matches('/'));
                (path, describe(&placed.entry.kind, placed.entry.mode))
            })
            .collect(),
    )
}

fn unpacked(layers: &[Vec<u8>]) -> Result<Described, SnapshotError> {
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(directory.path(), SnapshotOptions { force_copy: true })?;
    let mut ids = Vec::new();
    for layer in layers {
        let diff_id = DiffId(Digest::of(layer));
        let limits = ApplyLimits::default();
        let id = snapshots.apply(&diff_id, layer.as_slice(), Compression::Uncompressed, &ids, &limits)?;
        ids.push(id);
    }
    let tree = snapshots.view(&ids)?;
    let mut found = Described::new();
    walk(&tree, Path::new(""), &mut found);
    Ok(found)
}

fn walk(tree: &TreeRoot, directory: &Path, found: &mut Described) {
    for (name, kind) in tree.read_dir(directory).unwrap() {
        let path = directory.join(name);
        let metadata = tree.symlink_metadata(&path).unwrap().unwrap();
        let mode = metadata.mode & 0o7777;
        let text = match kind {
            Kind::Directory => format!("directory {mode:o}"),
            Kind::Symlink => format!("symlink {}", tree.read_link(&path).unwrap().display()),
            Kind::File => {
                let content = tree.read(&path, 1 << 20).unwrap();
                format!("file {mode:o} {} {}", content.len(), Digest::of(&content).hex())
            }
            other => format!("{other:?}"),
        };
        found.insert(path.clone(), text);
        if kind == Kind::Directory {
            walk(tree, &path, found);
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq", "..", "."]);
    prop::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (path(), prop::sample::select(vec![0o755, 0o700]))
            .prop_map(|(path, mode)| Step::Directory(path, mode)),
        (path(), "[xyz]{0,3}").prop_map(|(path, text)| Step::File(path, text)),
        (path(), path()).prop_map(|(path, target)| Step::Symlink(path, target)),
        (path(), path()).prop_map(|(path, target)| Step::HardLink(path, target)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_layers_are_told_as_they_are_unpacked(
        layers in prop::collection::vec(prop::collection::vec(step(), 0..7), 1..4)
    ) {
        let layers: Vec<Vec<u8>> = layers.iter().map(|steps| archive(steps)).collect();
        match unpacked(&layers) {
            Ok(expected) => prop_assert_eq!(told(&layers), Some(expected)),
            Err(error) => prop_assert_eq!(told(&layers), None, "unpacking says: {}", error),
        }
    }
}
