// SPDX-License-Identifier: Apache-2.0
//! The client against Debian's `docker-registry`, a registry that nobody here wrote.

use bytes::Bytes;
use polyarch_oci::media_type::{Flavour, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use polyarch_oci::{Descriptor, Digest, Document, ImageIndex, Manifest, Reference};
use polyarch_registry::{AuthFile, Client, ClientOptions, Credentials, Progress, PushOutcome, RegistryError};
use polyarch_testkit::{DockerRegistry, Need, requires};

use crate::fake::{noise, options};

/// The user `ann` with the password `secret`, bcrypt.
const HTPASSWD: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

struct Registry {
    server: DockerRegistry,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry; `None`, with the reason printed, where there is no such program.
    fn start(has_users: bool) -> Option<Registry> {
        if requires(&[Need::Command("docker-registry")]).is_some() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let mut sections = String::new();
        if has_users {
            std::fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
            sections = format!("auth: {{htpasswd: {{realm: test, path: {path}/htpasswd}}}}\n");
        }
        Some(Registry { server: DockerRegistry::start_with(&sections), _directory: directory })
    }

    fn host(&self) -> String {
        self.server.host()
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.host()).parse().unwrap()
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
}

async fn push(
    client: &Client,
    target: &Reference,
    blob: &Descriptor,
    bytes: &Bytes,
    from: &[Reference],
) -> PushOutcome {
    client.push_blob(target, blob, bytes, from, &Progress::none()).await.unwrap()
}

#[tokio::test]
async fn debian_registry_takes_an_index_and_gives_it_back() {
    let Some(registry) = Registry::start(false) else { return };
    let client = Client::new(options());
    let (layer, config) =
        (Bytes::from(noise(3_000_000)), Bytes::from_static(b"{\"architecture\":\"arm64\"}"));
    let (layer_blob, config_blob) = (descriptor(OCI_LAYER, &layer), descriptor(OCI_CONFIG, &config));
    let app = registry.reference("team/app:v1");
    assert_eq!(push(&client, &app, &layer_blob, &layer, &[]).await, PushOutcome::Uploaded);
    assert_eq!(push(&client, &app, &config_blob, &config, &[]).await, PushOutcome::Uploaded);
    assert_eq!(push(&client, &app, &layer_blob, &layer, &[]).await, PushOutcome::Existed);

    let manifest =
        Document::indented(Manifest::new(Flavour::Oci, config_blob.clone(), vec![layer_blob.clone()]));
    let entry = Descriptor::new(OCI_MANIFEST, manifest.digest.clone(), manifest.size());
    let untagged = app.with_digest(manifest.digest.clone());
    client.put_manifest(&untagged, manifest.bytes.clone().into(), OCI_MANIFEST).await.unwrap();
    let index = Document::indented(ImageIndex::new(Flavour::Oci, vec![entry.clone()]));
    client.put_manifest(&app, index.bytes.clone().into(), OCI_INDEX).await.unwrap();

    let fetched = client.get_manifest(&app).await.unwrap();
    assert_eq!((&fetched.bytes[..], fetched.media_type.as_str()), (&index.bytes[..], OCI_INDEX));
    assert_eq!(client.head_manifest(&app).await.unwrap(), fetched.descriptor());
    assert_eq!(client.get_manifest(&untagged).await.unwrap().descriptor(), entry);
    let mut bytes = Vec::new();
    client.get_blob(&app, &layer_blob, &mut bytes, &Progress::none()).await.unwrap();
    assert!(bytes == layer);

    let other = registry.reference("other/app");
    let mounted = push(&client, &other, &layer_blob, &layer, std::slice::from_ref(&app)).await;
    assert_eq!(mounted, PushOutcome::Mounted { from: app.clone() });
    let nowhere = registry.reference("no/where");
    let fresh = Bytes::from(noise(1000));
    let sent = push(&client, &other, &descriptor(OCI_LAYER, &fresh), &fresh, &[nowhere]).await;
    assert_eq!(sent, PushOutcome::Uploaded, "the upload that the refused mount opened is used");

    assert_eq!(client.list_tags(&app).await.unwrap(), ["v1"]);
    let error = client.list_tags(&registry.reference("no/where")).await.unwrap_err();
    assert!(error.to_string().contains("list tags of "), "{error}");
    let error = client.get_manifest(&registry.reference("team/app:v2")).await.unwrap_err();
    assert!(matches!(error, RegistryError::ManifestUnknown { .. }), "{error}");
    let incomplete =
        Document::indented(Manifest::new(Flavour::Oci, config_blob, vec![descriptor(OCI_LAYER, b"none")]));
    let error = client.put_manifest(&app, incomplete.bytes.into(), OCI_MANIFEST).await.unwrap_err();
    assert!(error.to_string().contains("MANIFEST_BLOB_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn debian_registry_is_served_over_connections_that_break() {
    let Some(registry) = Registry::start(false) else { return };
    let proxy = crate::proxy::Proxy::start(&registry.host()).await;
    let client = Client::new(ClientOptions { piece_bytes: 300_000, ..options() });
    let content = Bytes::from(noise(2_000_000));
    let blob = descriptor(OCI_LAYER, &content);
    let target: Reference = format!("{}/app", proxy.host()).parse().unwrap();
    // Neither the first attempt, in one request, nor the second, in pieces, gets through.
    proxy.cut_up_after(&[700_000, 900_000]);
    assert_eq!(push(&client, &target, &blob, &content, &[]).await, PushOutcome::Uploaded);
    assert_eq!(proxy.cuts(), 2);
    proxy.cut_down_after(&[700_000, 900_000]);
    let mut bytes = Vec::new();
    client.get_blob(&target, &blob, &mut bytes, &Progress::none()).await.unwrap();
    assert_eq!(proxy.cuts(), 4);
    assert!(bytes == content);
}

#[tokio::test]
async fn debian_registry_with_users_lets_in_whom_it_knows() {
    let Some(registry) = Registry::start(true) else { return };
    let content = Bytes::from(noise(100_000));
    let blob = descriptor(OCI_LAYER, &content);
    let target = registry.reference("app");
    let client_of = |password: &str| {
        let text =
            format!(r#"{{"auths":{{"{}":{{"username":"ann","password":"{password}"}}}}}}"#, registry.host());
        let file = AuthFile { origin: "config.json".into(), text };
        let credentials = Credentials::new(vec![file], Vec::new());
        Client::new(ClientOptions { credentials, ..options() })
    };
    let ann = client_of("secret");
    ann.check_login(&registry.host()).await.unwrap();
    assert_eq!(push(&ann, &target, &blob, &content, &[]).await, PushOutcome::Uploaded);
    for client in [client_of("wrong"), Client::new(options())] {
        let error = client.push_blob(&target, &blob, &content, &[], &Progress::none()).await.unwrap_err();
        assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    }
}
