// SPDX-License-Identifier: Apache-2.0
//! Lists that come in pages: tags, and what refers to a document.

use http::Method;
use polyarch_oci::media_type::{Flavour, OCI_MANIFEST};
use polyarch_oci::{Descriptor, Digest, Document, ImageIndex};
use polyarch_registry::RegistryError;

use crate::fake::{Act, Fake, client};

fn tags(fake: &Fake, times: usize, link: &str, names: &str) {
    let link = (!link.is_empty()).then(|| ("link", link.to_owned()));
    let body = format!(r#"{{"name":"app","tags":{names}}}"#);
    fake.fault(Method::GET, "/v2/app/tags/list", times, Act::Answer(200, link.into_iter().collect(), body));
}

fn referrers(fake: &Fake, times: usize, link: &str, names: &[&str]) {
    let entries =
        names.iter().map(|name| Descriptor::new(OCI_MANIFEST, Digest::of(name), name.len() as u64)).collect();
    let body = String::from_utf8(Document::compact(ImageIndex::new(Flavour::Oci, entries)).bytes).unwrap();
    let link = (!link.is_empty()).then(|| ("link", link.to_owned()));
    fake.fault(Method::GET, "/v2/app/referrers/", times, Act::Answer(200, link.into_iter().collect(), body));
}

#[tokio::test]
async fn all_pages_of_a_list_of_tags_are_read_from_the_host_that_was_asked() {
    let fake = Fake::start().await;
    tags(&fake, 1, r#"</v2/app/tags/list?last=b&n=2>; rel="next""#, r#"["a","b"]"#);
    tags(&fake, 1, r#"<https://elsewhere.example/v2/app/tags/list?last=c>; rel="next""#, r#"["c"]"#);
    tags(&fake, 1, "", "null");
    assert_eq!(client().list_tags(&fake.reference("app")).await.unwrap(), ["a", "b", "c"]);
    let asked: Vec<String> =
        fake.seen().into_iter().filter(|it| it.path == "/v2/app/tags/list").map(|it| it.query).collect();
    assert_eq!(asked, ["", "last=b&n=2", "last=c"]);
}

#[tokio::test]
async fn a_list_of_tags_without_end_is_cut() {
    let fake = Fake::start().await;
    for _ in 0..60 {
        tags(&fake, 1, r#"</v2/app/tags/list?last=a>; rel="next""#, r#"["a"]"#);
        tags(&fake, 1, r#"</v2/app/tags/list?last=b>; rel="next""#, r#"["b"]"#);
    }
    assert_eq!(client().list_tags(&fake.reference("app")).await.unwrap().len(), 100);
    assert_eq!(fake.lines("/tags/list").len(), 100);
    let fake = Fake::start().await;
    tags(&fake, 9, r#"</v2/app/tags/list>; rel="next""#, r#"["a"]"#);
    let error = client().list_tags(&fake.reference("app")).await.unwrap_err();
    assert!(error.to_string().contains("names itself as the next"), "{error}");
    let fake = Fake::start().await;
    let long = format!("[{:?}]", "x".repeat(1 << 20));
    for page in 0..6 {
        tags(&fake, 1, &format!(r#"</v2/app/tags/list?page={page}>; rel="next""#), &long);
    }
    let error = client().list_tags(&fake.reference("app")).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit_bytes: 4_194_304, .. }), "{error}");
    assert_eq!(fake.lines("/tags/list").len(), 4);
}

#[tokio::test]
async fn all_pages_of_referrers_are_read_and_none_is_lost_in_silence() {
    let fake = Fake::start().await;
    let subject = fake.reference("app").with_digest(Digest::of("subject"));
    referrers(&fake, 1, r#"<?page=2>; rel="next""#, &["a", "b"]);
    referrers(&fake, 1, "", &["c"]);
    let found = client().get_referrers(&subject).await.unwrap();
    let digests: Vec<Digest> = found.into_iter().map(|it| it.digest).collect();
    assert_eq!(digests, ["a", "b", "c"].map(Digest::of));
    // The second page is not there.
    referrers(&fake, 1, r#"<?page=2>; rel="next""#, &["a"]);
    let error = client().get_referrers(&subject).await.unwrap_err();
    assert!(error.to_string().contains("does not have the next page"), "{error}");
    let fake = Fake::start().await;
    let subject = fake.reference("app").with_digest(Digest::of("subject"));
    for page in 0..120 {
        referrers(&fake, 1, &format!(r#"<?page={page}>; rel="next""#), &["a"]);
    }
    let error = client().get_referrers(&subject).await.unwrap_err();
    assert!(error.to_string().contains("more than 100 pages"), "{error}");
    // Without the list there is the tag that stands for it, and without both there is nothing.
    let fake = Fake::start().await;
    let subject = fake.reference("app").with_digest(Digest::of("subject"));
    assert!(client().get_referrers(&subject).await.unwrap().is_empty());
    assert_eq!(fake.lines("/v2/app/").len(), 2, "{:?}", fake.lines(""));
}
