// SPDX-License-Identifier: Apache-2.0
//! Both ends of a session in one process: what a client serves, as a daemon has it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polyarch_build::secrets::FixedSecrets;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::session::{ArchiveTarget, Attachments, ContentStore, Session, SharedDirectory};

const KEY: &str = "a key that nobody guesses";

async fn session_of(attachments: Attachments) -> ClientSession {
    Session::new(attachments, KEY).unwrap().join(&Sessions::new()).await.unwrap()
}

async fn sharing(directory: &Path) -> ClientSession {
    let shared = SharedDirectory::open(directory).unwrap();
    let directories = BTreeMap::from([("context".to_owned(), shared)]);
    session_of(Attachments { directories, ..Attachments::default() }).await
}

fn everything() -> ReceiveRequest {
    ReceiveRequest { name: "context".to_owned(), ..ReceiveRequest::default() }
}

/// Describes each path of a tree: what it is, its mode, time and content.
fn describe(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, path: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = if metadata.is_symlink() {
                path.read_link().unwrap().display().to_string()
            } else if metadata.is_file() {
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()
            } else {
                String::new()
            };
            let time = (metadata.mtime(), metadata.mtime_nsec());
            let name = path.strip_prefix(root).unwrap().display().to_string();
            out.insert(name, format!("{:o} {time:?} {content}", metadata.mode()));
            if metadata.is_dir() {
                walk(root, &path, out);
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(root, root, &mut out);
    out
}

fn sample(root: &Path) {
    for (path, content) in [("a/b/c", "1"), ("a.txt", ""), ("a/x", "23"), ("deep/er/still/file", "4567")] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::write(root.join("large"), vec![b'l'; 3 << 20]).unwrap();
    fs::set_permissions(root.join("a/x"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("deep"), fs::Permissions::from_mode(0o1755)).unwrap();
    symlink("../../etc/passwd", root.join("a/link")).unwrap();
    for number in 0..300 {
        fs::write(root.join(format!("many-{number}")), number.to_string()).unwrap();
    }
}

#[tokio::test]
async fn a_directory_arrives_as_it_is_and_again_only_with_what_changed() {
    let (source, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let session = sharing(source.path()).await;
    let kept = KeptDirectories::new(place.path());
    let into = kept.lease(&session, "context").unwrap();
    let seen = Arc::new(Mutex::new(Received::default()));
    let last = seen.clone();
    let progress = move |received| *last.lock().unwrap() = received;
    let received = session.receive_directory(&everything(), &into, progress).await.unwrap();
    assert_eq!(describe(into.path()), describe(source.path()));
    assert_eq!((received.files, received.bytes), (305, (3 << 20) + 7 + 10 + 180 + 600));
    assert_eq!(*seen.lock().unwrap(), received);

    fs::write(source.path().join("a/x"), "new").unwrap();
    fs::remove_dir_all(source.path().join("deep")).unwrap();
    fs::remove_file(source.path().join("a.txt")).unwrap();
    fs::create_dir(source.path().join("a.txt")).unwrap();
    fs::remove_dir_all(source.path().join("a/b")).unwrap();
    symlink("x", source.path().join("a/b")).unwrap();
    drop(into);
    let into = kept.lease(&session, "context").unwrap();
    let received = session.receive_directory(&everything(), &into, |_| ()).await.unwrap();
    assert_eq!(describe(into.path()), describe(source.path()));
    assert_eq!((received.files, received.bytes), (1, 3));
}

#[tokio::test]
async fn patterns_choose_what_comes_and_the_rest_goes() {
    let (source, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(source.path());
    let session = sharing(source.path()).await;
    let into = KeptDirectories::new(place.path()).lease(&session, "context").unwrap();
    fs::create_dir_all(into.path().join("old/of/before")).unwrap();
    let request = ReceiveRequest {
        include: vec!["a".to_owned(), "l*".to_owned()],
        exclude: vec!["a/b".to_owned()],
        ..everything()
    };
    session.receive_directory(&request, &into, |_| ()).await.unwrap();
    let names: Vec<String> = describe(into.path()).into_keys().collect();
    assert_eq!(names, ["a", "a/link", "a/x", "large"]);
    let request =
        ReceiveRequest { follow_paths: vec!["caf\u{e9}".to_owned(), "a.txt".to_owned()], ..everything() };
    session.receive_directory(&request, &into, |_| ()).await.unwrap();
    assert_eq!(describe(into.path()).into_keys().collect::<Vec<_>>(), ["a.txt"]);
}

#[tokio::test]
async fn what_is_not_offered_is_refused() {
    let (source, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let session = sharing(source.path()).await;
    let into = KeptDirectories::new(place.path()).lease(&session, "context").unwrap();
    let request = ReceiveRequest { name: "home".to_owned(), ..everything() };
    let error = session.receive_directory(&request, &into, |_| ()).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(session.secret("any").await.unwrap(), None);
    assert!(matches!(session.send_archive(0, &BTreeMap::new()), Err(CallerError::NotOffered { .. })));
    assert!(matches!(session.agent("", place.path()).await, Err(CallerError::NotOffered { .. })));
    assert!(matches!(session.content("oci:0"), Err(CallerError::NotOffered { .. })));
}

#[tokio::test]
async fn an_archive_arrives_whole_or_not_at_all() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let take = |told: tokio::sync::mpsc::UnboundedSender<Result<usize, String>>| {
        ArchiveTarget::new(move |archive| {
            let text = |error: std::io::Error| error.to_string();
            told.send(archive.read(&mut [0]).map_err(text)).unwrap();
            let mut bytes = Vec::new();
            told.send(archive.read_to_end(&mut bytes).map_err(text)).unwrap();
            Ok(())
        })
    };
    let archives = vec![take(told.clone()), take(told)];
    let session = session_of(Attachments { archives, ..Attachments::default() }).await;
    let about = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:0".to_owned())]);
    let write = |exporter| {
        let mut archive = session.send_archive(exporter, &about).unwrap();
        tokio::task::spawn_blocking(move || {
            (0..5).for_each(|_| archive.write_all(&vec![7; 1 << 20]).unwrap());
            archive.write_all(b"end").unwrap();
            archive
        })
    };
    write(0).await.unwrap().finish().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), Ok(1));
    assert_eq!(heard.recv().await.unwrap(), Ok((5 << 20) + 2));
    assert!(session.send_archive(0, &about).unwrap().finish().await.is_err());
    let given_up = write(1).await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), Ok(1));
    drop(given_up);
    let heard = heard.recv().await.unwrap();
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn secrets_are_those_of_the_session() {
    let secrets = BTreeMap::from([("token".to_owned(), b"1234".to_vec())]);
    let secrets = FixedSecrets { secrets, ..FixedSecrets::default() };
    let one = session_of(Attachments { secrets: Some(Arc::new(secrets)), ..Attachments::default() }).await;
    assert_eq!(one.secret("token").await.unwrap().as_deref(), Some(&b"1234"[..]));
    assert_eq!(one.secret("other").await.unwrap(), None);
}

#[tokio::test]
async fn an_agent_is_reached_through_a_socket() {
    let place = tempfile::tempdir().unwrap();
    let real = place.path().join("real");
    let listener = tokio::net::UnixListener::bind(&real).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut question = [0; 4];
            stream.read_exact(&mut question).await.unwrap();
            stream.write_all(b"answer to ").await.unwrap();
            stream.write_all(&question).await.unwrap();
        }
    });
    let agents = BTreeMap::from([("default".to_owned(), real)]);
    let secrets = FixedSecrets { agents, ..FixedSecrets::default() };
    let session =
        session_of(Attachments { secrets: Some(Arc::new(secrets)), ..Attachments::default() }).await;
    let absent = session.agent("other", place.path()).await.unwrap_err();
    assert!(absent.to_string().contains("unset ssh forward key other"), "{absent}");
    let socket = session.agent("", place.path()).await.unwrap();
    assert_eq!(fs::metadata(socket.path().parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    for question in ["one ", "two "] {
        let mut stream = tokio::net::UnixStream::connect(socket.path()).await.unwrap();
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, format!("answer to {question}"));
    }
    let path = socket.path().to_owned();
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn sessions_are_found_by_their_ids_and_gone_when_they_end() {
    let sessions = Sessions::new();
    let client = Session::new(Attachments::default(), "").unwrap();
    let soon = tokio::spawn({
        let (sessions, id) = (sessions.clone(), client.id().to_owned());
        async move { sessions.find(&id, Duration::from_secs(60)).await }
    });
    let session = client.join(&sessions).await.unwrap();
    assert_eq!(soon.await.unwrap().unwrap().id(), client.id());
    // Whoever comes second with an id that is taken does not get in the way of the first.
    assert_eq!(client.join(&sessions).await.unwrap_err().code(), tonic::Code::AlreadyExists);
    assert!(!session.has_ended());
    session.end();
    session.ended().await;
    while sessions.find(client.id(), Duration::ZERO).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let error = session.receive_directory(&everything(), &lease(&session), |_| ()).await.unwrap_err();
    assert!(matches!(error, CallerError::NotOffered { .. }), "{error}");
}

fn lease(session: &ClientSession) -> KeptDirectory {
    let place = tempfile::tempdir().unwrap().keep();
    KeptDirectories::new(&place).lease(session, "context").unwrap()
}

#[tokio::test]
async fn a_client_that_goes_away_ends_what_waits_for_it() {
    let sessions = Sessions::new();
    let mut headers = tonic::metadata::MetadataMap::new();
    for (key, value) in [
        ("x-docker-expose-session-uuid", "id"),
        ("x-docker-expose-session-grpc-method", "/moby.buildkit.secrets.v1.Secrets/GetSecret"),
    ] {
        headers.insert(key, value.parse().unwrap());
    }
    // A client that never answers, and then is gone.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let incoming = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let (session, _answer) = sessions.accept_stream(&headers, incoming).await.unwrap();
    let waiting = tokio::spawn({
        let session = session.clone();
        async move { session.secret("any").await }
    });
    drop::<tokio::sync::mpsc::Sender<Result<crate::api::control::BytesMessage, Status>>>(sender);
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, CallerError::Ended { .. }), "{error}");
    assert!(session.has_ended());
}

#[tokio::test]
async fn sessions_without_an_id_are_refused() {
    let incoming = tokio_stream::empty();
    let refused = Sessions::new().accept_stream(&tonic::metadata::MetadataMap::new(), incoming).await;
    assert_eq!(refused.err().unwrap().code(), tonic::Code::InvalidArgument);
}

/// A client that answers every question for its files with silence.
async fn silent() -> ClientSession {
    use crate::api::methods::client;
    let (outgoing, messages) = crate::session::pipe::outgoing();
    let mut headers = tonic::metadata::MetadataMap::new();
    headers.insert("x-docker-expose-session-uuid", "silent".parse().unwrap());
    headers.insert("x-docker-expose-session-grpc-method", client::FILE_SYNC.path().parse().unwrap());
    let messages = futures_util::StreamExt::map(messages, Ok);
    let (session, answer) = Sessions::new().accept_stream(&headers, messages).await.unwrap();
    let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
        let request = request.map(tonic::body::Body::new);
        let silence = || std::future::ready(Ok(tonic::Response::new(futures_util::stream::pending())));
        let answer = client::FILE_SYNC.exchange(request, |_| silence()).await;
        Ok::<http::Response<tonic::body::Body>, std::convert::Infallible>(answer)
    });
    let connection = hyper_util::rt::TokioIo::new(outgoing.join(answer));
    let executor = hyper_util::rt::TokioExecutor::new();
    tokio::spawn(hyper::server::conn::http2::Builder::new(executor).serve_connection(connection, service));
    session
}

#[test]
fn a_client_that_sends_nothing_holds_no_thread_of_others() {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).max_blocking_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let (source, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        sample(source.path());
        let kept = KeptDirectories::new(place.path());
        let hostile = silent().await;
        let stalled: Vec<_> = (0..MAX_TRANSFERS + 4)
            .map(|number| {
                let (session, into) = (hostile.clone(), kept.lease(&hostile, &number.to_string()).unwrap());
                tokio::spawn(async move { session.receive_directory(&everything(), &into, |_| ()).await })
            })
            .collect();
        while hostile.0.transfers.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let session = sharing(source.path()).await;
        let into = kept.lease(&session, "context").unwrap();
        let request = everything();
        let receiving = session.receive_directory(&request, &into, |_| ());
        let received = tokio::time::timeout(Duration::from_secs(60), receiving).await;
        assert_eq!(received.expect("the others hold up nobody").unwrap().files, 305);
        // They end with their session.
        hostile.end();
        for stalled in stalled {
            assert!(stalled.await.unwrap().is_err());
        }
    });
}

#[tokio::test]
async fn blobs_go_to_a_store_of_the_client_and_come_back() {
    let place = tempfile::tempdir().unwrap();
    let store = polyarch_store::Store::open(&place.path().join("store")).unwrap();
    let content = Arc::new(ContentStore::new(store.clone(), []));
    let contents = BTreeMap::from([("local:cache".to_owned(), content)]);
    let session = session_of(Attachments { contents, ..Attachments::default() }).await;
    let client = session.content("local:cache").unwrap();
    // Several pieces, the last one short.
    let bytes: Vec<u8> = (0..(3 << 20) + 5).map(|at: u32| (at % 251) as u8).collect();
    let digest = polyarch_oci::Digest::of(&bytes);
    let path = place.path().join("blob");
    fs::write(&path, &bytes).unwrap();
    let open = || fs::File::open(&path).unwrap();
    assert!(client.size(&digest).await.is_err());
    for _ in 0..2 {
        client.write(&digest, bytes.len() as u64, open()).await.unwrap();
    }
    assert_eq!(client.size(&digest).await.unwrap(), bytes.len() as u64);
    assert!(client.read(&digest, 4 << 20).await.unwrap() == bytes);
    // What has another digest is not taken, and nothing is had of other stores.
    let other = polyarch_oci::Digest::of("other");
    client.write(&other, bytes.len() as u64, open()).await.unwrap_err();
    assert!(!store.contains(&other));
    assert!(session.content("local:other").unwrap().size(&digest).await.is_err());
}
