// SPDX-License-Identifier: Apache-2.0
//! Who is let in, with what, and who must never see a credential.

use bytes::Bytes;
use http::Method;
use polyarch_oci::media_type::OCI_MANIFEST;
use polyarch_oci::{Descriptor, Digest};
use polyarch_registry::{
    AuthFile, Client, ClientOptions, Credential, CredentialUse, Credentials, Progress, PushOutcome,
    RegistryError,
};

use crate::fake::{Act, Fake, Lock, client, options};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"layers":[]}"#;

fn bearer() -> Lock {
    Lock::Bearer { realm: None, users: vec!["ann:pass:word"], refresh: None }
}

fn client_with(host: &str, entry: &str) -> Client {
    let file =
        AuthFile { origin: "test/config.json".into(), text: format!(r#"{{"auths":{{"{host}":{entry}}}}}"#) };
    let credentials = Credentials::new(vec![file], Vec::new());
    Client::new(ClientOptions { credentials, ..options() })
}

fn ann(host: &str) -> Client {
    client_with(host, r#"{"username":"ann","password":"pass:word"}"#)
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::of(bytes), bytes.len() as u64)
}

async fn push(
    client: &Client,
    fake: &Fake,
    repository: &str,
    bytes: &'static [u8],
    from: &str,
) -> PushOutcome {
    let from = [fake.reference(from)];
    let source = Bytes::from_static(bytes);
    let target = fake.reference(repository);
    client.push_blob(&target, &descriptor(bytes), &source, &from, &Progress::none()).await.unwrap()
}

#[tokio::test]
async fn one_token_serves_all_requests_of_the_same_scope() {
    let fake = Fake::with(bearer()).await;
    fake.put_manifest("public/app", "v1", MANIFEST, OCI_MANIFEST);
    let digest = fake.put_blob("public/app", b"layer");
    let client = client();
    let reference = fake.reference("public/app:v1");
    client.get_manifest(&reference).await.unwrap();
    let mut bytes = Vec::new();
    let blob = Descriptor::new("x", digest, 5);
    client.get_blob(&reference, &blob, &mut bytes, &Progress::none()).await.unwrap();
    client.head_manifest(&reference).await.unwrap();
    assert_eq!(bytes, b"layer");
    let tokens: Vec<String> =
        fake.seen().into_iter().filter(|seen| seen.path == "/token").map(|seen| seen.query).collect();
    assert_eq!(tokens, ["service=fake&scope=repository%3Apublic%2Fapp%3Apull&client_id=polyarch"]);
    assert_eq!(fake.lines("GET /v2/public").len(), 3, "the manifest twice, because of its 401");
}

#[tokio::test]
async fn a_mount_asks_for_permission_on_the_source_as_well() {
    let fake = Fake::with(bearer()).await;
    fake.put_blob("public/base", b"layer");
    let client = ann(&fake.host());
    let outcome = push(&client, &fake, "team/app", b"layer", "public/base").await;
    assert_eq!(outcome, PushOutcome::Mounted { from: fake.reference("public/base") });
    let scopes = |seen: &crate::fake::Seen| {
        let fields = url::form_urlencoded::parse(seen.query.as_bytes()).into_owned();
        let scopes: Vec<String> =
            fields.filter(|(name, _)| name == "scope").map(|(_, scope)| scope).collect();
        scopes.join(" ")
    };
    let asked: Vec<String> = fake.seen().iter().filter(|seen| seen.path == "/token").map(scopes).collect();
    let expected =
        ["repository:team/app:pull,push", "repository:public/base:pull repository:team/app:pull,push"];
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let fake = Fake::with(bearer()).await;
    fake.put_manifest("public/app", "v1", MANIFEST, OCI_MANIFEST);
    let client = client();
    let reference = fake.reference("public/app:v1");
    client.get_manifest(&reference).await.unwrap();
    fake.revoke_tokens();
    client.get_manifest(&reference).await.unwrap();
    assert_eq!(fake.lines("/token").len(), 2);
}

#[tokio::test]
async fn a_refusal_without_credentials_says_how_to_log_in() {
    let fake = Fake::with(bearer()).await;
    let error = client().get_manifest(&fake.reference("team/app:v1")).await.unwrap_err();
    let RegistryError::Unauthorized { refusal, credentials } = &error else { panic!("{error}") };
    assert_eq!((refusal.status, refusal.host.as_str()), (401, fake.host().as_str()));
    assert_eq!(refusal.scope, "repository:team/app:pull");
    assert_eq!(**credentials, CredentialUse::None);
    let text = error.to_string();
    assert!(text.contains(&format!("run `polyarch login {}`", fake.host())), "{text}");
    assert!(text.contains("UNAUTHORIZED: fake says UNAUTHORIZED"), "{text}");
    assert!(text.contains(&format!("pulling from {}/team/app needs some", fake.host())), "{text}");
    assert_eq!(fake.lines("/manifests/").len(), 2, "asked once more with a token, and no more");
}

#[tokio::test]
async fn a_refusal_with_credentials_says_where_they_come_from() {
    let fake = Fake::with(bearer()).await;
    let client = client_with(&fake.host(), r#"{"username":"ann","password":"wrong"}"#);
    let error = client.get_manifest(&fake.reference("team/app:v1")).await.unwrap_err();
    let RegistryError::Unauthorized { credentials, .. } = &error else { panic!("{error}") };
    assert_eq!(**credentials, CredentialUse::Sent { origin: "test/config.json".into() });
    let text = error.to_string();
    assert!(text.contains("test/config.json") && !text.contains("wrong"), "{text}");
}

#[tokio::test]
async fn credentials_that_cannot_be_had_are_mentioned_only_when_needed() {
    let fake = Fake::with(bearer()).await;
    fake.put_manifest("public/app", "v1", MANIFEST, OCI_MANIFEST);
    let file = AuthFile { origin: "test/config.json".into(), text: r#"{"credsStore":"desktop"}"#.into() };
    let credentials = Credentials::new(vec![file], Vec::new());
    let client = Client::new(ClientOptions { credentials, ..options() });
    client.get_manifest(&fake.reference("public/app:v1")).await.unwrap();
    let error = client.get_manifest(&fake.reference("team/app:v1")).await.unwrap_err().to_string();
    assert!(error.contains("docker-credential-desktop is not in PATH"), "{error}");
}

#[tokio::test]
async fn basic_credentials_are_sent_only_after_the_host_has_asked() {
    let fake = Fake::with(Lock::Basic("ann:pass:word")).await;
    fake.put_manifest("app", "v1", MANIFEST, OCI_MANIFEST);
    let client = ann(&fake.host());
    client.get_manifest(&fake.reference("app:v1")).await.unwrap();
    client.get_manifest(&fake.reference("app:v1")).await.unwrap();
    let sent: Vec<bool> = fake
        .seen()
        .iter()
        .filter(|seen| seen.path != "/v2/")
        .map(|seen| !seen.header("authorization").is_empty())
        .collect();
    assert_eq!(sent, [false, true, true]);
    client.check_login(&fake.host()).await.unwrap();
    let wrong = client_with(&fake.host(), r#"{"username":"ann","password":"no"}"#);
    let error = wrong.check_login(&fake.host()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn identity_tokens_are_exchanged_by_post_and_by_get_where_that_is_unknown() {
    let fake = Fake::with(Lock::Bearer { realm: None, users: vec![], refresh: Some("r&=efresh") }).await;
    fake.put_manifest("team/app", "v1", MANIFEST, OCI_MANIFEST);
    let client = client_with(&fake.host(), r#"{"identitytoken":"r&=efresh"}"#);
    client.get_manifest(&fake.reference("team/app:v1")).await.unwrap();
    assert_eq!(fake.lines("/token"), ["POST /token"]);

    let old = Fake::with(Lock::Bearer { realm: None, users: vec!["<token>:abc"], refresh: None }).await;
    old.put_manifest("team/app", "v1", MANIFEST, OCI_MANIFEST);
    let client = client_with(&old.host(), r#"{"identitytoken":"abc"}"#);
    client.get_manifest(&old.reference("team/app:v1")).await.unwrap();
    assert_eq!(old.lines("/token"), ["POST /token", "GET /token"]);
}

#[tokio::test]
async fn redirects_to_another_host_go_without_credentials() {
    let storage = Fake::with(bearer()).await;
    let fake = Fake::with(Lock::Basic("ann:pass:word")).await;
    let digest = fake.put_blob("app", b"layer");
    let target = format!("http://{}/v2/public/app/blobs/{digest}", storage.host());
    fake.fault(Method::GET, "/blobs/", 9, Act::Answer(307, vec![("location", target)], String::new()));
    // Credentials for the other host exist, too; a redirect is no reason to use them.
    let text = format!(
        r#"{{"auths":{{"{}":{{"username":"ann","password":"pass:word"}},"{}":{{"username":"ann","password":"pass:word"}}}}}}"#,
        fake.host(),
        storage.host()
    );
    let file = AuthFile { origin: "f".into(), text };
    let credentials = Credentials::new(vec![file], Vec::new());
    let client = Client::new(ClientOptions { credentials, ..options() });
    // Makes the client know the challenge.
    client.check_login(&fake.host()).await.unwrap();
    let mut bytes = Vec::new();
    let blob = Descriptor::new("x", digest, 5);
    let error =
        client.get_blob(&fake.reference("app:v1"), &blob, &mut bytes, &Progress::none()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    assert!(fake.seen().iter().any(|seen| !seen.header("authorization").is_empty()));
    let leaked: Vec<_> =
        storage.seen().into_iter().filter(|seen| !seen.header("authorization").is_empty()).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert!(storage.lines("/token").is_empty(), "its challenge is none of the client's business");
    assert_eq!(storage.lines("/blobs/").len(), 1);
}

#[tokio::test]
async fn what_is_written_is_not_redirected_to_another_host() {
    let other = Fake::start().await;
    let fake = Fake::start().await;
    let target = format!("http://{}/v2/app/manifests/v1", other.host());
    fake.fault(Method::PUT, "/manifests/", 9, Act::Answer(307, vec![("location", target)], String::new()));
    let manifest = Bytes::from_static(MANIFEST);
    let error = client().put_manifest(&fake.reference("app:v1"), manifest, OCI_MANIFEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn who_is_known_but_not_allowed_is_denied() {
    let fake = Fake::start().await;
    let body = r#"{"errors":[{"code":"DENIED","message":"quota used up"}]}"#.to_owned();
    fake.fault(Method::PUT, "/manifests/", 9, Act::Answer(403, vec![], body));
    let manifest = Bytes::from_static(MANIFEST);
    let error = client().put_manifest(&fake.reference("app:v1"), manifest, OCI_MANIFEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("quota used up") && text.contains("push manifest"), "{text}");
    assert!(text.contains(&format!("pushing to {}/app needs some", fake.host())), "{text}");
    assert_eq!(fake.lines("PUT").len(), 1, "not tried again");
}

#[tokio::test]
async fn an_upload_whose_token_ends_midway_gets_another() {
    let fake = Fake::with(bearer()).await;
    let client = ann(&fake.host());
    fake.fault(
        Method::PUT,
        "/uploads/",
        1,
        Act::Answer(
            401,
            vec![(
                "www-authenticate",
                format!("Bearer realm=\"http://{}/token\",service=\"fake\"", fake.host()),
            )],
            String::new(),
        ),
    );
    let outcome = push(&client, &fake, "team/app", b"layer", "team/none").await;
    assert_eq!(outcome, PushOutcome::Uploaded);
    assert_eq!(fake.lines("PUT").len(), 2);
    assert!(fake.blob("team/app", &Digest::of("layer")).is_some());
}

#[tokio::test]
async fn a_registry_too_old_for_oci_documents_is_recognised() {
    let fake = Fake::start().await;
    let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}"#;
    for (status, body) in [(400, body), (415, "")] {
        fake.fault(Method::PUT, "/manifests/", 1, Act::Answer(status, vec![], body.to_owned()));
        let manifest = Bytes::from_static(MANIFEST);
        let error =
            client().put_manifest(&fake.reference("app:v1"), manifest, OCI_MANIFEST).await.unwrap_err();
        assert!(matches!(error, RegistryError::MediaTypeRefused { .. }), "{error}");
        assert!(error.to_string().contains(OCI_MANIFEST) && error.status() == Some(status), "{error}");
    }
    fake.fault(Method::PUT, "/manifests/", 1, Act::Answer(400, vec![], body.to_owned()));
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let error = client()
        .put_manifest(&fake.reference("app:v1"), Bytes::from_static(MANIFEST), docker)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_login_may_get_an_identity_token_instead_of_the_password() {
    let lock = Lock::Bearer { realm: None, users: vec!["ann:pass:word"], refresh: Some("long-lived") };
    let fake = Fake::with(lock).await;
    fake.put_manifest("team/app", "v1", MANIFEST, OCI_MANIFEST);
    let credentials = Credentials::of_user(&fake.host(), "ann", "pass:word", "the command line");
    for wants_identity_token in [true, false] {
        let options = ClientOptions { credentials: credentials.clone(), wants_identity_token, ..options() };
        let login = Client::new(options).check_login(&fake.host()).await.unwrap();
        let token = wants_identity_token.then(|| Credential::IdentityToken { token: "long-lived".into() });
        assert!(login.was_asked && login.identity_token == token, "{wants_identity_token}");
    }
    let open = Fake::start().await;
    assert!(!Client::new(options()).check_login(&open.host()).await.unwrap().was_asked);
}
