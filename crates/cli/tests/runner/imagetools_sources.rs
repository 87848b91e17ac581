// SPDX-License-Identifier: Apache-2.0
//! The sources of the tests of `imagetools`: images that are the same bytes everywhere and always.
//!
//! `testfiles/imagetools` holds what `docker buildx imagetools` makes of them and says about them.

use std::collections::BTreeMap;

use polyarch_oci::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, Flavour, OCI_INDEX, OCI_MANIFEST};
use polyarch_oci::{Descriptor, Digest, Document, ImageIndex, Manifest};
use polyarch_testkit::DockerRegistry;
use serde_json::json;

const IN_TOTO: &str = "application/vnd.in-toto+json";
const ATTESTATION: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// The sources in a registry: name of the repository below `s/`, and its document.
pub struct Sources {
    pub documents: BTreeMap<&'static str, Descriptor>,
}

/// What is changed of an index before it is pushed.
type Change<'a> = &'a dyn Fn(&mut ImageIndex);

/// A manifest with its blobs.
struct Made {
    descriptor: Descriptor,
    bytes: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

impl Sources {
    /// Pushes all sources, each as `s/NAME:1`.
    pub fn push(registry: &DockerRegistry) -> Sources {
        let mut sources = Sources { documents: BTreeMap::new() };
        let docker = |platform: &str| image(Flavour::Docker, platform);
        let oci = |platform: &str| image(Flavour::Oci, platform);
        for (name, made) in [
            ("docker-amd64", docker("linux/amd64")),
            // The config says v8, which is what arm64 without a variant means.
            ("docker-arm64", docker("linux/arm64/v8")),
            ("oci-amd64", oci("linux/amd64")),
            ("oci-arm64", oci("linux/arm64")),
            // No variant, which is what arm/v7 may leave out.
            ("oci-arm", oci("linux/arm")),
            ("oci-armv6", oci("linux/arm/v6")),
            ("oci-upper", oci("Linux/AMD64/v1")),
            ("oci-windows", oci("windows/amd64//10.0.20348.1")),
        ] {
            sources.push_all(registry, name, vec![made], None);
        }
        let entries = |platforms: &[&str]| platforms.iter().map(|name| placed(Flavour::Oci, name)).collect();
        sources.push_index(registry, "index", entries(&["linux/amd64", "linux/arm64"]), |_| ());
        sources.push_index(registry, "overlapping", entries(&["linux/arm64", "linux/riscv64"]), |index| {
            let annotations = &mut index.manifests[0].annotations;
            annotations.insert("org.example.from".into(), "<overlapping> & more".into());
            index.annotations.insert("org.example.index".into(), "lost when flattened".into());
            index.manifests[1].rest.insert("x-unknown".into(), json!(["not", "of", "image-spec"]));
        });
        let list: Vec<Made> =
            ["linux/amd64", "linux/arm64"].iter().map(|name| placed(Flavour::Docker, name)).collect();
        sources.push_all(registry, "list", list, Some((Flavour::Docker, &|_| ())));
        let mut attested: Vec<Made> = entries(&["linux/amd64", "linux/arm64"]);
        let attestations: Vec<Made> = attested.iter().map(|image| attestation(&image.descriptor)).collect();
        attested.extend(attestations);
        sources.push_index(registry, "attested", attested, |index| {
            index.annotations.insert("org.example.kept".into(), "while nothing is rewritten".into());
        });
        let mut windows: Vec<Made> = entries(&["windows/amd64//10.0.17763.1", "windows/amd64//10.0.20348.1"]);
        windows[1].descriptor.platform.as_mut().expect("it has a platform").os_features =
            vec!["win32k".into()];
        windows.push(placed(Flavour::Oci, "linux/amd64"));
        sources.push_index(registry, "windows", windows, |_| ());
        sources.push_referred(registry);
        sources
    }

    /// Pushes an image whose attestation is beside it, under the tag that stands for the referrers.
    fn push_referred(&mut self, registry: &DockerRegistry) {
        let image = placed(Flavour::Oci, "linux/s390x");
        let subject = image.descriptor.digest.clone();
        let mut beside = attestation(&image.descriptor);
        beside.descriptor.platform = None;
        beside.descriptor.annotations = BTreeMap::new();
        beside.descriptor.artifact_type = Some(ATTESTATION.to_owned());
        self.push_index(registry, "referred", vec![image], |_| ());
        push_made(registry, "referred", &beside);
        let index = ImageIndex::new(Flavour::Oci, vec![beside.descriptor]);
        let index = Document::indented(index);
        let tag = format!("sha256-{}", subject.hex());
        registry.put_manifest("s/referred", &tag, OCI_INDEX, &index.bytes);
    }

    fn push_index(
        &mut self,
        registry: &DockerRegistry,
        name: &'static str,
        entries: Vec<Made>,
        change: impl Fn(&mut ImageIndex),
    ) {
        self.push_all(registry, name, entries, Some((Flavour::Oci, &change)));
    }

    fn push_all(
        &mut self,
        registry: &DockerRegistry,
        name: &'static str,
        entries: Vec<Made>,
        index: Option<(Flavour, Change<'_>)>,
    ) {
        for entry in &entries {
            push_made(registry, name, entry);
        }
        let repository = format!("s/{name}");
        let Some((flavour, change)) = index else {
            let made = &entries[0];
            registry.put_manifest(&repository, "1", &made.descriptor.media_type, &made.bytes);
            self.documents.insert(name, made.descriptor.clone());
            return;
        };
        let mut index = ImageIndex::new(flavour, entries.into_iter().map(|made| made.descriptor).collect());
        change(&mut index);
        let document = Document::indented(index);
        let media_type = if flavour == Flavour::Oci { OCI_INDEX } else { DOCKER_INDEX };
        registry.put_manifest(&repository, "1", media_type, &document.bytes);
        let descriptor = Descriptor::new(media_type, document.digest.clone(), document.size());
        self.documents.insert(name, descriptor);
    }
}

fn push_made(registry: &DockerRegistry, name: &str, made: &Made) {
    let repository = format!("s/{name}");
    for blob in &made.blobs {
        registry.push_blob(&repository, blob);
    }
    let digest = made.descriptor.digest.to_string();
    registry.put_manifest(&repository, &digest, &made.descriptor.media_type, &made.bytes);
}

/// Makes an image of one layer; its descriptor has no platform, its config has the one written.
fn image(flavour: Flavour, platform: &str) -> Made {
    let mut words = platform.split('/');
    let mut word = || words.next().unwrap_or_default();
    let (os, architecture, variant, os_version) = (word(), word(), word(), word());
    let layer = format!("not really a layer, but bytes of {platform}\n").into_bytes();
    let mut config = json!({
        "architecture": architecture,
        "config": {
            "Cmd": ["/bin/hello", "<&>"],
            "Env": ["PATH=/bin", format!("PLATFORM={platform}")],
            "Labels": {"org.example.label": "a"},
            "WorkingDir": "/",
        },
        "created": "2024-02-29T12:34:56.780000000Z",
        "history": [{"created": "2024-02-29T12:34:56Z", "created_by": "COPY hello /bin/", "comment": "made"}],
        "os": os,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).to_string()]},
    });
    for (key, value) in [("variant", variant), ("os.version", os_version)] {
        if !value.is_empty() {
            config[key] = json!(value);
        }
    }
    let config = serde_json::to_vec(&config).expect("it is JSON");
    let describe =
        |media_type: &str, bytes: &[u8]| Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
    let layer_type = polyarch_oci::media_type::Compression::Gzip.layer_media_type(flavour);
    let manifest =
        Manifest::new(flavour, describe(flavour.config(), &config), vec![describe(layer_type, &layer)]);
    let manifest = Document::indented(manifest);
    let media_type = if flavour == Flavour::Oci { OCI_MANIFEST } else { DOCKER_MANIFEST };
    let descriptor = Descriptor::new(media_type, manifest.digest.clone(), manifest.size());
    Made { descriptor, bytes: manifest.bytes, blobs: vec![config, layer] }
}

/// Makes an image as an entry of an index, with its platform.
fn placed(flavour: Flavour, platform: &str) -> Made {
    let mut made = image(flavour, platform);
    let words: Vec<&str> = platform.split('/').collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default().to_owned();
    made.descriptor.platform = Some(polyarch_oci::Platform {
        os: word(0),
        architecture: word(1),
        variant: word(2),
        os_version: word(3),
        os_features: Vec::new(),
    });
    made
}

/// Makes BuildKit's attestation of an image: a bill of materials and provenance.
fn attestation(image: &Descriptor) -> Made {
    let statement = |kind: &str, predicate: serde_json::Value| {
        json!({
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": kind,
            "subject": [{"name": "_", "digest": {"sha256": image.digest.hex()}}],
            "predicate": predicate,
        })
    };
    let platform = image.platform.as_ref().map(ToString::to_string).unwrap_or_default();
    let spdx = "https://spdx.dev/Document";
    let slsa = "https://slsa.dev/provenance/v1";
    let statements = [
        (spdx, statement(spdx, json!({"spdxVersion": "SPDX-2.3", "name": platform, "packages": []}))),
        (slsa, statement(slsa, json!({"runDetails": {"builder": {"id": ""}}, "buildType": "<test>"}))),
    ];
    let mut blobs = vec![b"{}".to_vec()];
    let mut layers = Vec::new();
    for (kind, statement) in statements {
        let bytes = serde_json::to_vec(&statement).expect("it is JSON");
        let mut layer = Descriptor::new(IN_TOTO, Digest::of(&bytes), bytes.len() as u64);
        layer.annotations.insert("in-toto.io/predicate-type".into(), kind.into());
        layers.push(layer);
        blobs.push(bytes);
    }
    let config = Descriptor::new(polyarch_oci::media_type::OCI_EMPTY, Digest::of(b"{}"), 2);
    let mut manifest = Manifest::new(Flavour::Oci, config, layers);
    manifest.artifact_type = Some(ATTESTATION.to_owned());
    manifest.subject = Some(Descriptor::new(&image.media_type, image.digest.clone(), image.size));
    let manifest = Document::indented(manifest);
    let mut descriptor = Descriptor::new(OCI_MANIFEST, manifest.digest.clone(), manifest.size());
    descriptor.platform = Some(polyarch_oci::Platform {
        os: "unknown".into(),
        architecture: "unknown".into(),
        ..polyarch_oci::Platform::default()
    });
    descriptor.annotations = BTreeMap::from([
        ("vnd.docker.reference.digest".to_owned(), image.digest.to_string()),
        ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
    ]);
    Made { descriptor, bytes: manifest.bytes, blobs }
}
