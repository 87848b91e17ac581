// SPDX-License-Identifier: Apache-2.0
//! Tokens for somebody else, who never sees the password.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use polyarch_oci::media_type::OCI_MANIFEST;
use polyarch_registry::{
    AuthFile, AuthScheme, Client, ClientOptions, Credential, CredentialLookup, Credentials, LentToken,
    TokenWanted,
};

use crate::fake::{Fake, Lock, client, options};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"layers":[]}"#;

async fn fake() -> Fake {
    Fake::with(Lock::Bearer { realm: None, users: vec!["ann:pass:word"], refresh: None }).await
}

fn ann(host: &str) -> Client {
    let text = format!(r#"{{"auths":{{"{host}":{{"username":"ann","password":"pass:word"}}}}}}"#);
    let credentials = Credentials::new(vec![AuthFile { origin: "test".into(), text }], Vec::new());
    Client::new(ClientOptions { credentials, ..options() })
}

/// Has nothing but what somebody else lends.
struct Borrower(Client);

impl CredentialLookup for Borrower {
    fn find<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Credential>, String>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn token<'a>(&'a self, wanted: TokenWanted<'a>) -> BoxFuture<'a, Result<Option<LentToken>, String>> {
        async move {
            assert_eq!(wanted.scopes, ["repository:team/app:pull"]);
            assert!(wanted.realm.ends_with("/token"), "{}", wanted.realm);
            let names = ["team/app".to_owned()];
            self.0.pull_token(wanted.host, &names, true).await.map_err(|error| error.to_string())
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_borrowed_token_pulls_and_the_password_stays() {
    let fake = fake().await;
    fake.put_manifest("team/app", "v1", MANIFEST, OCI_MANIFEST);
    let lookup = Arc::new(Borrower(ann(&fake.host())));
    let credentials = Credentials::of_lookup(lookup, "the client");
    let borrower = Client::new(ClientOptions { credentials, ..options() });
    borrower.get_manifest(&fake.reference("team/app:v1")).await.unwrap();
    let tokens: Vec<String> =
        fake.seen().into_iter().filter(|seen| seen.path == "/token").map(|seen| seen.query).collect();
    assert_eq!(tokens, ["service=fake&scope=repository%3Ateam%2Fapp%3Apull&client_id=polyarch"]);
}

#[tokio::test]
async fn a_token_is_lent_without_credentials_when_told_so() {
    let fake = fake().await;
    let ann = ann(&fake.host());
    assert_eq!(ann.auth_scheme(&fake.host()).await.unwrap(), AuthScheme::Token);
    let names = ["public/app".to_owned()];
    let lent = ann.pull_token(&fake.host(), &names, false).await.unwrap().unwrap();
    assert!(!lent.token.is_empty());
    assert!(!format!("{lent:?}").contains(&lent.token));
    let seen = fake.seen();
    assert!(seen.iter().all(|seen| seen.header("authorization").is_empty()), "{seen:?}");
}

#[tokio::test]
async fn hosts_that_take_no_tokens_are_known() {
    let names = ["team/app".to_owned()];
    for (lock, scheme) in [(Lock::Open, AuthScheme::Open), (Lock::Basic("ann:x"), AuthScheme::Password)] {
        let fake = Fake::with(lock).await;
        let client = client();
        assert_eq!(client.auth_scheme(&fake.host()).await.unwrap(), scheme);
        assert_eq!(client.pull_token(&fake.host(), &names, true).await.unwrap(), None);
    }
}
