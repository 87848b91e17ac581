// SPDX-License-Identifier: Apache-2.0
//! Images made by code.

use std::path::Path;

use polyarch_oci::media_type::{Compression, Flavour, OCI_INDEX};
use polyarch_oci::{
    Descriptor, DiffId, Digest, Document, ImageConfig, ImageIndex, Manifest, Platform, RootFs,
};

use crate::program::hello_program;
use crate::tar::TarBuilder;

/// Programs of busybox that tests use.
const APPLETS: [&str; 32] = [
    "sh", "cat", "echo", "ls", "id", "uname", "env", "true", "false", "test", "mkdir", "rm", "mv", "cp",
    "ln", "chmod", "chown", "touch", "head", "tail", "grep", "sed", "sort", "wc", "stat", "date", "sleep",
    "ps", "tar", "find", "seq", "kill",
];

/// An image of one platform.
#[derive(Debug, Clone)]
pub struct PlatformImage {
    /// The platform.
    pub platform: Platform,
    /// The config, without the layers, which are added.
    pub config: ImageConfig,
    /// The layers as tar archives, lowest first.
    pub layers: Vec<Vec<u8>>,
}

/// An image, all its documents and blobs made.
#[derive(Debug, Clone)]
pub struct Image {
    /// The index.
    pub index: Document<ImageIndex>,
    /// The manifests, in the order of the index.
    pub manifests: Vec<Document<Manifest>>,
    /// Configs and layers.
    pub blobs: Vec<Vec<u8>>,
}

impl PlatformImage {
    /// Makes an image of one layer whose command is `command`.
    pub fn new(platform: &str, layer: Vec<u8>, command: &[&str]) -> PlatformImage {
        let platform: Platform = platform.parse().expect("the test names a platform");
        let mut config = ImageConfig::default();
        config.set_platform(&platform);
        config.config.cmd = Some(command.iter().map(|word| (*word).to_owned()).collect());
        config.config.env = vec!["PATH=/bin:/usr/bin:/sbin:/usr/sbin".to_owned()];
        PlatformImage { platform, config, layers: vec![layer] }
    }
}

impl Image {
    /// Makes the documents of an image for one or more platforms, with layers as they are.
    pub fn new(platforms: Vec<PlatformImage>) -> Image {
        let mut manifests = Vec::new();
        let mut entries = Vec::new();
        let mut blobs = Vec::new();
        for PlatformImage { platform, mut config, layers } in platforms {
            config.rootfs = RootFs {
                diff_ids: layers.iter().map(|layer| DiffId(Digest::of(layer))).collect(),
                ..RootFs::default()
            };
            let config = Document::compact(config);
            let media_type = Compression::Uncompressed.layer_media_type(Flavour::Oci);
            let describe =
                |layer: &Vec<u8>| Descriptor::new(media_type, Digest::of(layer), layer.len() as u64);
            let config_descriptor =
                Descriptor::new(Flavour::Oci.config(), config.digest.clone(), config.size());
            let manifest =
                Manifest::new(Flavour::Oci, config_descriptor, layers.iter().map(describe).collect());
            let manifest = Document::indented(manifest);
            entries.push(
                Descriptor::new(Flavour::Oci.manifest(), manifest.digest.clone(), manifest.size())
                    .with_platform(platform),
            );
            manifests.push(manifest);
            blobs.push(config.bytes);
            blobs.extend(layers);
        }
        Image { index: Document::indented(ImageIndex::new(Flavour::Oci, entries)), manifests, blobs }
    }

    /// Writes the image as an OCI layout (image-spec, image-layout.md), under a name.
    pub fn write_layout(&self, directory: &Path, name: &str) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("directories can be made");
        let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).expect("a file can be written");
        let documents = self.manifests.iter().map(|manifest| &*manifest.bytes).chain([&*self.index.bytes]);
        for bytes in self.blobs.iter().map(Vec::as_slice).chain(documents) {
            write(&blobs.join(Digest::of(bytes).hex()), bytes);
        }
        let mut root = Descriptor::new(OCI_INDEX, self.index.digest.clone(), self.index.size());
        root.annotations.insert("org.opencontainers.image.ref.name".to_owned(), name.to_owned());
        let index = Document::compact(ImageIndex::new(Flavour::Oci, vec![root]));
        write(&directory.join("index.json"), &index.bytes);
        write(&directory.join("oci-layout"), b"{\"imageLayoutVersion\":\"1.0.0\"}");
    }
}

/// Makes the tar archive of a small root directory of the machine's own architecture, with a shell.
///
/// It is made of `/bin/busybox`, which must be static (Debian's busybox-static): see
/// [`Need::File`](crate::Need::File).
pub fn busybox_rootfs() -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("the test requires /bin/busybox");
    let mut tar = skeleton().file("bin/busybox", 0o755, busybox);
    for applet in APPLETS {
        tar = tar.symlink(&format!("bin/{applet}"), "busybox");
    }
    tar.finish()
}

/// Makes the tar archive of a root directory whose only program, `/bin/hello`, writes a text.
///
/// For architectures see [`hello_program`]; panics for others.
pub fn hello_rootfs(architecture: &str, text: &str) -> Vec<u8> {
    let program = hello_program(architecture, text, 0);
    let program = program.unwrap_or_else(|| panic!("there is no program for {architecture}"));
    skeleton().file("bin/hello", 0o755, program).finish()
}

fn skeleton() -> TarBuilder {
    TarBuilder::new()
        .directory("bin", 0o755)
        .directory("etc", 0o755)
        .file(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n",
        )
        .file("etc/group", 0o644, "root:x:0:\nuser:x:1000:\n")
        .directory("root", 0o700)
        .directory("home", 0o755)
        .directory("home/user", 0o755)
        .directory("tmp", 0o1777)
}
