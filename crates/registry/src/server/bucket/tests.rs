// SPDX-License-Identifier: Apache-2.0
//! A bucket in memory whose store goes away before, or answers no more after, any of its operations.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use polyarch_oci::media_type::OCI_MANIFEST;
use polyarch_oci::{Algorithm, Digest};

use super::super::gc::CollectOptions;
use super::super::index::ManifestEntry;
use super::super::names::{RepositoryName, Tag};
use super::super::repository::{Change, Needed, Outcome};
use super::super::scrub::{DamageKind, ScrubOptions};
use super::super::storage::StorageError;
use super::super::upload::{Receive as _, UploadError};
use super::{Bucket, BucketOptions, WholeBlob};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A store that fails from its nth operation on.
#[derive(Debug)]
struct Failing {
    inner: Arc<InMemory>,
    left: AtomicUsize,
    /// Whether the first failure comes after the operation was made.
    loses_answer: bool,
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("failing")
    }
}

fn gone() -> StoreError {
    StoreError::Generic { store: "test", source: "the store is gone".into() }
}

impl Failing {
    /// Counts an operation: whether it is made, and whether it is answered.
    fn step(&self) -> (bool, bool) {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(1), Ordering::Relaxed);
        (left > 1 || (left == 1 && self.loses_answer), left > 1)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, key: &Key, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let (is_made, is_answered) = self.step();
        if !is_made {
            return Err(gone());
        }
        let result = self.inner.put_opts(key, payload, options).await;
        if is_answered { result } else { Err(gone()) }
    }

    async fn put_multipart_opts(
        &self,
        _: &Key,
        _: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Err(gone())
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> StoreResult<GetResult> {
        if !self.step().1 {
            return Err(gone());
        }
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, StoreResult<Key>>,
    ) -> BoxStream<'static, StoreResult<Key>> {
        let (is_made, is_answered) = self.step();
        if !is_made {
            return futures_util::stream::iter([Err(gone())]).boxed();
        }
        let deleted = self.inner.delete_stream(keys);
        if is_answered { deleted } else { deleted.map(|_| Err(gone())).boxed() }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        if !self.step().1 {
            return futures_util::stream::iter([Err(gone())]).boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, _: Option<&Key>) -> StoreResult<ListResult> {
        Err(gone())
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> StoreResult<()> {
        if !self.step().1 {
            return Err(gone());
        }
        self.inner.copy_opts(from, to, options).await
    }
}

fn open(store: Arc<dyn ObjectStore>) -> Bucket {
    let options =
        BucketOptions { bucket: "images".to_owned(), prefix: "here".to_owned(), ..BucketOptions::default() };
    Bucket::over(store, &options, true).unwrap()
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::new(text).unwrap()
}

/// Bytes of several pieces that begin with a name.
fn large(name: &str) -> Bytes {
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend((0..10_000_u32).flat_map(u32::to_le_bytes));
    bytes.into()
}

fn storage_error(error: UploadError) -> StorageError {
    match error {
        UploadError::Storage(error) => error,
        other => panic!("{other}"),
    }
}

fn put_blob(bucket: &Bucket, repository: &str, bytes: &Bytes) -> Result<Digest, StorageError> {
    let digest = Digest::of(bytes);
    let repository = bucket.repository(&name(repository));
    let mut blob = WholeBlob::start(bucket, &repository, Algorithm::Sha256)?;
    // As they come: a few at a time.
    for start in (0..bytes.len()).step_by(5_000) {
        blob.append(&[bytes.slice(start..bytes.len().min(start + 5_000))]).map_err(storage_error)?;
    }
    blob.finish(&digest).map_err(storage_error)?;
    Ok(digest)
}

fn put_image(bucket: &Bucket, repository: &str, tag: &str, layer: &Bytes) -> Result<Digest, StorageError> {
    let config = put_blob(bucket, repository, &Bytes::from_static(b"{}"))?;
    let layer = put_blob(bucket, repository, layer)?;
    let text = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":2}},"layers":[{{"digest":"{layer}","size":5}}]}}"#
    );
    let digest = Digest::of(&text);
    let entry = ManifestEntry {
        media_type: OCI_MANIFEST.to_owned(),
        size: text.len() as u64,
        subject: None,
        is_sparse: false,
    };
    let tags = vec![Tag::new(tag).unwrap()];
    let change = Change::Put {
        digest: digest.clone(),
        entry,
        tags,
        needed: Needed { blobs: vec![config, layer], may_lack: false },
    };
    let repository = bucket.repository(&name(repository));
    match repository.put_manifest(bucket, &digest, &text.into(), change) {
        Ok(outcome) => assert_eq!(outcome, Outcome::Done),
        Err(error) => return Err(StorageError::Shared(error)),
    }
    Ok(digest)
}

fn read(bucket: &Bucket, repository: &str, digest: &Digest) -> Option<Bytes> {
    let content = bucket.repository(&name(repository)).open(bucket, digest).unwrap()?;
    Some(content.read(u64::MAX).unwrap())
}

/// What the registry said it had done.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(&'static str, Digest)>,
    tags: HashMap<(&'static str, &'static str), Digest>,
}

/// Pushes in all ways: whole, in pieces, mounted; a tag is set twice, one is removed, and what is old is collected.
fn work(bucket: &Bucket, done: &mut Acknowledged) -> Result<(), StorageError> {
    for layer in ["first", "second"] {
        let manifest = put_image(bucket, "a", "v1", &large(layer))?;
        done.blobs.extend([("a", Digest::of(large(layer))), ("a", manifest.clone())]);
        done.tags.insert(("a", "v1"), manifest);
    }
    let repository = bucket.repository(&name("a"));
    let whole = large("in several requests");
    let id = bucket.start_upload(&name("a"), Algorithm::Sha256, 10).map_err(storage_error)?;
    for range in [0..100, 100..25_000, 25_000..25_100] {
        let mut upload = bucket.open_upload(&repository, &id).map_err(storage_error)?;
        upload.append(&[whole.slice(range)]).map_err(storage_error)?;
        upload.keep().map_err(storage_error)?;
    }
    let mut upload = bucket.open_upload(&repository, &id).map_err(storage_error)?;
    upload.append(&[whole.slice(25_100..)]).map_err(storage_error)?;
    upload.finish(&Digest::of(&whole)).map_err(storage_error)?;
    done.blobs.push(("a", Digest::of(&whole)));

    let first = Digest::of(large("first"));
    assert!(bucket.repository(&name("b/c")).mount(bucket, Some(&name("a")), &first)?);
    done.blobs.push(("b/c", first));
    put_image(bucket, "b/c", "gone", &large("first"))?;
    let removed =
        bucket.repository(&name("b/c")).change(bucket, Change::RemoveTag(Tag::new("gone").unwrap()));
    removed.map_err(StorageError::Shared)?;
    // Two days later nothing is under way any more; blobs that no manifest leads to go.
    done.blobs.retain(|(_, digest)| *digest != Digest::of(&whole));
    for days in 2..5 {
        bucket.collect(&CollectOptions::default(), SystemTime::now() + DAY * days)?;
    }
    Ok(())
}

/// Checks what must hold at any time.
fn check(store: &Arc<InMemory>, done: &Acknowledged, when: &str) {
    let bucket = open(store.clone());
    let scrubbed = bucket.scrub(&ScrubOptions::default(), |_| {}).unwrap();
    assert!(scrubbed.damage.is_empty(), "{when}: {:?}", scrubbed.damage);
    for (repository, digest) in &done.blobs {
        assert!(read(&bucket, repository, digest).is_some(), "{when}: an acknowledged blob is lost");
    }
    for ((repository, tag), digest) in &done.tags {
        let index = bucket.repository(&name(repository)).index(&bucket).unwrap().unwrap();
        assert!(index.tags.contains_key(&Tag::new(tag).unwrap()), "{when}: an acknowledged tag is lost");
        assert!(index.find(digest).is_some(), "{when}: an acknowledged manifest is lost");
    }
}

#[test]
fn a_store_that_goes_away_loses_nothing_that_was_acknowledged() {
    for loses_answer in [false, true] {
        let mut steps = 1;
        loop {
            let when = format!("before operation {steps}, answer lost: {loses_answer}");
            let store = Arc::new(InMemory::new());
            // Made before, so that it is the work that fails.
            drop(open(store.clone()));
            let failing =
                Arc::new(Failing { inner: store.clone(), left: AtomicUsize::new(usize::MAX), loses_answer });
            let bucket = open(failing.clone());
            failing.left.store(steps, Ordering::Relaxed);
            let mut done = Acknowledged::default();
            let is_complete = work(&bucket, &mut done).is_ok();
            drop(bucket);
            check(&store, &done, &when);
            // Whatever happened, the same work succeeds afterwards, at another server.
            let bucket = open(store.clone());
            let mut again = Acknowledged::default();
            work(&bucket, &mut again).unwrap();
            check(&store, &again, &when);
            // And nothing is left that nobody needs.
            for days in 5..10 {
                bucket.collect(&CollectOptions::default(), SystemTime::now() + DAY * days).unwrap();
            }
            check(&store, &again, &when);
            let live: usize = bucket.objects().list("uploads").unwrap().len();
            assert_eq!(live, 0, "{when}");
            let lists = bucket.objects().list("blobs").unwrap();
            let owners = lists.iter().filter(|object| object.name.ends_with(".pieces")).count();
            let mut pieces: Vec<String> =
                bucket.objects().list("pieces").unwrap().into_iter().map(|piece| piece.name).collect();
            pieces.dedup_by_key(|name| name.split('/').next().unwrap().to_owned());
            assert_eq!(pieces.len(), owners, "{when}");
            if is_complete {
                break;
            }
            steps += 1;
        }
        assert!(steps > 80, "only {steps} operations were interrupted");
    }
}

#[test]
fn servers_that_push_to_one_repository_at_the_same_time_lose_nothing() {
    let store = Arc::new(InMemory::new());
    let servers: Vec<Bucket> = (0..4).map(|_| open(store.clone())).collect();
    std::thread::scope(|scope| {
        for (number, bucket) in servers.iter().enumerate() {
            for part in 0..2 {
                scope.spawn(move || {
                    for tag in 0..10 {
                        let layer = Bytes::from(format!("layer {number} {part} {tag}"));
                        put_image(bucket, "app", &format!("v{number}-{part}-{tag}"), &layer).unwrap();
                    }
                });
            }
        }
    });
    for bucket in &servers {
        let index = bucket.repository(&name("app")).index(bucket).unwrap().unwrap();
        assert_eq!((index.tags.len(), index.manifests.len()), (80, 80));
    }
    check(&store, &Acknowledged::default(), "afterwards");
}

#[test]
fn an_upload_goes_on_at_another_server_and_two_at_once_do_not() {
    let store = Arc::new(InMemory::new());
    let (one, two) = (open(store.clone()), open(store.clone()));
    let whole = large("at two servers");
    let id = one.start_upload(&name("app"), Algorithm::Sha256, 10).unwrap();
    let mut upload = one.open_upload(&one.repository(&name("app")), &id).unwrap();
    upload.append(&[whole.slice(..9_000)]).unwrap();
    upload.keep().unwrap();
    assert_eq!(two.upload_bytes(&name("app"), &id).unwrap(), 9_000);
    assert!(matches!(two.upload_bytes(&name("other"), &id), Err(UploadError::Unknown)));

    let mut first = one.open_upload(&one.repository(&name("app")), &id).unwrap();
    let mut second = two.open_upload(&two.repository(&name("app")), &id).unwrap();
    second.append(&[whole.slice(9_000..10_000)]).unwrap();
    second.keep().unwrap();
    first.append(&[whole.slice(9_000..30_000)]).unwrap();
    assert!(matches!(first.keep(), Err(UploadError::Busy)));
    drop(first);
    assert_eq!(one.upload_bytes(&name("app"), &id).unwrap(), 10_000);

    let mut upload = one.open_upload(&one.repository(&name("app")), &id).unwrap();
    upload.append(&[whole.slice(10_000..)]).unwrap();
    assert_eq!(upload.finish(&Digest::of(&whole)).unwrap(), whole.len() as u64);
    assert_eq!(read(&two, "app", &Digest::of(&whole)).unwrap(), whole);
    assert!(matches!(two.upload_bytes(&name("app"), &id), Err(UploadError::Unknown)));
    assert!(matches!(one.start_upload(&name("app"), Algorithm::Sha256, 0), Err(UploadError::TooMany)));
}

#[test]
fn what_nothing_leads_to_goes_after_its_time_and_what_is_used_again_stays() {
    let store = Arc::new(InMemory::new());
    let bucket = open(store.clone());
    let start = SystemTime::now();
    put_image(&bucket, "app", "v1", &large("layer")).unwrap();
    let lonely = large("lonely");
    let digest = put_blob(&bucket, "app", &lonely).unwrap();
    let collect = |days: u32| bucket.collect(&CollectOptions::default(), start + DAY * days).unwrap();
    assert_eq!(collect(0).blobs, 0, "what is young stays");
    bucket.objects().put("uploads/torn", [Bytes::from_static(b"{")]).unwrap();
    let dry = CollectOptions { is_dry_run: true, ..CollectOptions::default() };
    assert_eq!(bucket.collect(&dry, start + DAY * 2).unwrap().blobs, 1);
    assert!(read(&bucket, "app", &digest).is_some());
    let first = collect(2);
    assert_eq!((first.blobs, first.bytes), (1, 0), "the content is only marked");
    assert_eq!(first.unfinished, 1);
    assert!(read(&bucket, "app", &digest).is_none());
    // Nobody finds it, but a server may have found it a moment ago.
    assert!(!bucket.repository(&name("other")).mount(&bucket, None, &digest).unwrap());
    let later = put_blob(&bucket, "other", &lonely).unwrap();
    let removed = collect(4);
    assert_eq!((removed.blobs, removed.bytes), (1, lonely.len() as u64));
    let again = collect(6);
    assert_eq!((again.blobs, again.bytes), (0, lonely.len() as u64), "the other repository's had grown old");
    assert!(read(&bucket, "other", &later).is_none());
    check(&store, &Acknowledged::default(), "afterwards");
}

#[test]
fn content_that_was_marked_and_is_held_again_stays() {
    let store = Arc::new(InMemory::new());
    let bucket = open(store.clone());
    let start = SystemTime::now();
    let layer = large("layer");
    let digest = put_blob(&bucket, "app", &layer).unwrap();
    let held = bucket.repository(&name("app")).find(&bucket, &digest).unwrap().unwrap();
    bucket.collect(&CollectOptions::default(), start + DAY * 2).unwrap();
    // A mount that had found it before it was marked.
    bucket
        .repository(&name("slow"))
        .hold(&bucket, &digest, super::repository::Held { since: u64::MAX, ..held })
        .unwrap();
    for days in 4..6 {
        bucket.collect(&CollectOptions::default(), start + DAY * days).unwrap();
    }
    assert_eq!(read(&bucket, "slow", &digest).unwrap(), layer);
    let marks = bucket.objects().list("blobs").unwrap();
    assert!(!marks.iter().any(|object| object.name.ends_with(".going")), "{marks:?}");
}

#[test]
fn damage_is_found_put_aside_and_mended_by_a_push() {
    let store = Arc::new(InMemory::new());
    let bucket = open(store.clone());
    let layer = large("layer");
    put_image(&bucket, "a", "v1", &layer).unwrap();
    let digest = put_blob(&bucket, "c", &layer).unwrap();
    let clean = bucket.scrub(&ScrubOptions::default(), |_| {}).unwrap();
    assert_eq!(
        (clean.repositories, clean.blobs, clean.damage.len()),
        (2, 3, 0),
        "shared content is read once"
    );
    // Not one of the second push, which go because the first one's are used.
    let held = bucket.repository(&name("c")).find(&bucket, &digest).unwrap().unwrap();
    let piece = bucket.content(&digest, &held).unwrap().objects.remove(1);
    bucket.objects().put(&piece.0, [Bytes::from(vec![0; piece.1 as usize])]).unwrap();
    let found = bucket.scrub(&ScrubOptions { quarantines: true }, |_| {}).unwrap();
    let kinds: Vec<_> =
        found.damage.iter().map(|damage| (damage.repository.as_deref().unwrap(), damage.kind)).collect();
    assert_eq!(kinds, [("a", DamageKind::Content), ("c", DamageKind::Content)]);
    assert!(found.damage[0].quarantined.is_some());
    for repository in ["a", "c"] {
        put_blob(&bucket, repository, &layer).unwrap();
    }
    check(&store, &Acknowledged::default(), "after a push");
    assert_eq!(read(&bucket, "c", &digest).unwrap(), layer);
}

#[test]
fn what_is_no_registry_is_refused() {
    let store = Arc::new(InMemory::new());
    let options = BucketOptions { bucket: "images".to_owned(), ..BucketOptions::default() };
    let error =
        |store: &Arc<InMemory>, makes| Bucket::over(store.clone(), &options, makes).unwrap_err().to_string();
    assert_eq!(error(&store, false), "there is no registry in s3://images");
    let other = futures_util::FutureExt::now_or_never(store.put_opts(
        &Key::from("letter"),
        "x".into(),
        PutOptions::default(),
    ));
    other.expect("memory answers at once").unwrap();
    assert_eq!(error(&store, true), "s3://images is not empty and holds no registry");
}
