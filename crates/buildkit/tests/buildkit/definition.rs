// SPDX-License-Identifier: Apache-2.0
//! Definitions that clients have written (LLB), solved by our server; nothing here needs a process.

use polyarch_buildkit::api::control::SolveRequest;
use polyarch_buildkit::api::gateway::{
    ReadDirRequest, ReadFileRequest, ResultRefs, SolveRequest as FrontendRequest, StatFileRequest,
};
use polyarch_buildkit::api::llb::{
    ChownOpt, Definition, DiffOp, FileAction, FileActionCopy, FileActionKind, FileActionMkDir,
    FileActionMkFile, FileActionRm, FileActionSymlink, FileOp, Input, LowerDiffInput, MergeInput, MergeOp,
    Op, OpKind, SourceOp, UpperDiffInput, UserOpt, UserOptUser,
};
use polyarch_buildkit::api::methods::{bridge, daemon};
use polyarch_oci::Digest;
use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::server::{Running, of_build};

/// A graph that is being written; vertices are named by their digests.
#[derive(Default)]
struct Graph(Vec<Vec<u8>>);

impl Graph {
    fn add(&mut self, inputs: &[&str], op: OpKind) -> String {
        let inputs = inputs.iter().map(|digest| Input { digest: (*digest).to_owned(), index: 0 });
        let bytes = Op { inputs: inputs.collect(), op: Some(op), ..Op::default() }.encode_to_vec();
        let digest = Digest::of(&bytes).to_string();
        self.0.push(bytes);
        digest
    }

    /// Adds a file operation whose actions work one upon the other.
    fn files(&mut self, inputs: &[&str], actions: Vec<(i64, FileActionKind)>) -> String {
        let (count, last) = (inputs.len(), actions.len() - 1);
        let first = if count == 0 { -1 } else { 0 };
        let actions = actions.into_iter().enumerate().map(|(number, (from, action))| FileAction {
            input: if number == 0 { first } else { i64::try_from(count + number - 1).unwrap() },
            secondary_input: from,
            output: if number == last { 0 } else { -1 },
            action: Some(action),
        });
        let op = FileOp { actions: actions.collect() };
        self.add(inputs, OpKind::File(op))
    }

    fn of(mut self, result: &str) -> Definition {
        let inputs = vec![Input { digest: result.to_owned(), index: 0 }];
        self.0.push(Op { inputs, ..Op::default() }.encode_to_vec());
        Definition { def: self.0, ..Definition::default() }
    }
}

fn file(path: &str, text: &str) -> (i64, FileActionKind) {
    let data = text.as_bytes().to_vec();
    let file = FileActionMkFile { path: path.into(), mode: 0o644, data, timestamp: -1, ..Default::default() };
    (-1, FileActionKind::Mkfile(file))
}

fn directory(path: &str) -> (i64, FileActionKind) {
    let directory = FileActionMkDir {
        path: path.into(),
        mode: 0o750,
        make_parents: true,
        timestamp: 1_000_000_000_000_000_000,
        ..Default::default()
    };
    (-1, FileActionKind::Mkdir(directory))
}

fn copy(src: &str, dest: &str) -> FileActionCopy {
    FileActionCopy { src: src.into(), dest: dest.into(), mode: -1, timestamp: -1, ..Default::default() }
}

fn copied(from: i64, copy: FileActionCopy) -> (i64, FileActionKind) {
    (from, FileActionKind::Copy(copy))
}

/// A build that lasts until it is dropped, and what its frontend asks.
struct Frontend {
    channel: Channel,
    _server: Running,
}

impl Frontend {
    async fn start() -> Frontend {
        let server = Running::start();
        let channel = server.channel().await;
        let build = SolveRequest { r#ref: "build".to_owned(), ..SolveRequest::default() };
        let waiting = channel.clone();
        tokio::spawn(async move { daemon::SOLVE.call(&waiting, Request::new(build)).await });
        Frontend { channel, _server: server }
    }

    async fn solve(&self, definition: Definition) -> Result<String, Status> {
        let request = FrontendRequest {
            definition: Some(definition),
            evaluate: true,
            allow_result_return: true,
            allow_result_array_ref: true,
            ..FrontendRequest::default()
        };
        let answer = bridge::SOLVE.call(&self.channel, of_build(request, "build")).await?;
        match answer.result.and_then(|result| result.result) {
            Some(ResultRefs::Ref(reference)) => Ok(reference.id),
            other => panic!("{other:?}"),
        }
    }

    async fn read(&self, reference: &str, path: &str) -> Result<String, Status> {
        let request =
            ReadFileRequest { r#ref: reference.into(), file_path: path.into(), ..ReadFileRequest::default() };
        let answer = bridge::READ_FILE.call(&self.channel, of_build(request, "build")).await?;
        Ok(String::from_utf8(answer.data).unwrap())
    }

    async fn names(&self, reference: &str, path: &str) -> Vec<String> {
        let request =
            ReadDirRequest { r#ref: reference.into(), dir_path: path.into(), ..ReadDirRequest::default() };
        let answer = bridge::READ_DIR.call(&self.channel, of_build(request, "build")).await.unwrap();
        answer.entries.into_iter().map(|entry| entry.path).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_made_copied_and_removed() {
    let frontend = Frontend::start().await;
    let mut graph = Graph::default();
    let base = graph.files(&[], vec![directory("/a/b"), file("/a/b/one", "1"), file("/a/two", "2")]);
    let mut contents = copy("/a", "/contents");
    (contents.dir_copy_contents, contents.create_dest_path) = (true, true);
    let mut matched = copy("/a/b/o*", "/");
    matched.allow_wildcard = true;
    let link = FileActionSymlink {
        oldpath: "/a/two".into(),
        newpath: "/link".into(),
        timestamp: -1,
        ..Default::default()
    };
    let rm = FileActionRm { path: "/contents/t*".into(), allow_wildcard: true, ..Default::default() };
    let owned = FileActionCopy {
        owner: Some(ChownOpt { user: Some(UserOpt { user: Some(UserOptUser::ByID(7)) }), group: None }),
        ..copy("/a/two", "/owned")
    };
    let result = graph.files(
        &[&base, &base],
        vec![
            copied(1, copy("/a", "/whole")),
            copied(1, copy("/a", "/whole")),
            copied(1, contents),
            copied(1, matched),
            copied(1, owned),
            (-1, FileActionKind::Symlink(link)),
            (-1, FileActionKind::Rm(rm)),
        ],
    );
    let result = frontend.solve(graph.of(&result)).await.unwrap();
    assert_eq!(frontend.names(&result, "/").await, ["a", "contents", "link", "one", "owned", "whole"]);
    // The second copy finds a directory at its destination, and goes into it.
    assert_eq!(frontend.names(&result, "/whole").await, ["a", "b", "two"]);
    assert_eq!(frontend.names(&result, "/contents").await, ["b"]);
    assert_eq!(frontend.read(&result, "/link").await.unwrap(), "2");
    let request = StatFileRequest { r#ref: result.clone(), path: "/owned".into(), ..Default::default() };
    let stat = bridge::STAT_FILE.call(&frontend.channel, of_build(request, "build")).await.unwrap();
    let stat = stat.stat.unwrap();
    assert_eq!((stat.uid, stat.gid), (7, 7));
    let request = StatFileRequest { r#ref: result, path: "/a/b".into(), ..Default::default() };
    let stat = bridge::STAT_FILE.call(&frontend.channel, of_build(request, "build")).await.unwrap();
    assert_eq!(stat.stat.unwrap().mode & 0o777, 0o750);
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_are_merged_and_compared() {
    let frontend = Frontend::start().await;
    let mut graph = Graph::default();
    let base = graph.files(&[], vec![file("/kept", "base"), file("/gone", "x"), file("/changed", "old")]);
    let rm = FileActionRm { path: "/gone".into(), ..Default::default() };
    let upper = graph
        .files(&[&base], vec![(-1, FileActionKind::Rm(rm)), file("/changed", "new one"), file("/made", "m")]);
    let diff = |lower, upper| {
        OpKind::Diff(DiffOp {
            lower: Some(LowerDiffInput { input: lower }),
            upper: Some(UpperDiffInput { input: upper }),
        })
    };
    let merge = |count| {
        let inputs = (0..count).map(|input| MergeInput { input });
        OpKind::Merge(MergeOp { inputs: inputs.collect() })
    };
    let above = graph.add(&[&base, &upper], diff(0, 1));
    let other = graph.files(&[], vec![file("/gone", "other"), file("/own", "o")]);
    let merged = graph.add(&[&other, &above], merge(2));
    // Of two trees that have nothing in common, the whole way from one to the other.
    let unlike = graph.add(&[&other, &upper], diff(0, 1));
    let applied = graph.add(&[&other, &unlike], merge(2));
    let both = graph.files(
        &[&merged, &applied],
        vec![copied(
            1,
            FileActionCopy { create_dest_path: true, dir_copy_contents: true, ..copy("/", "/applied") },
        )],
    );
    let both = frontend.solve(graph.of(&both)).await.unwrap();
    assert_eq!(frontend.names(&both, "/").await, ["applied", "changed", "made", "own"]);
    assert_eq!(frontend.read(&both, "/changed").await.unwrap(), "new one");
    assert_eq!(frontend.names(&both, "/applied").await, ["changed", "kept", "made"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_definition_names_must_be_there() {
    let frontend = Frontend::start().await;
    let failure = |build: fn(&mut Graph) -> String| {
        let mut graph = Graph::default();
        let result = build(&mut graph);
        frontend.solve(graph.of(&result))
    };
    let source =
        |identifier: &str| OpKind::Source(SourceOp { identifier: identifier.into(), ..Default::default() });
    for (text, build) in [
        (
            "no such file or directory",
            (|graph| graph.files(&[], vec![file("/no/such", "x")])) as fn(&mut Graph) -> String,
        ),
        ("not found", |graph| graph.files(&[], vec![copied(-1, copy("/missing", "/"))])),
        ("failed to stat /no/such", |graph| {
            let one = graph.files(&[], vec![file("/one", "1")]);
            graph.files(&[&one, &one], vec![copied(1, copy("/one", "/no/such"))])
        }),
        ("file exists", |graph| {
            let link = FileActionSymlink {
                oldpath: "x".into(),
                newpath: "/one".into(),
                timestamp: -1,
                ..Default::default()
            };
            graph.files(&[], vec![file("/one", "1"), (-1, FileActionKind::Symlink(link))])
        }),
        ("missing input digest", |graph| {
            graph.files(
                &["sha256:0000000000000000000000000000000000000000000000000000000000000000"],
                vec![file("/a", "")],
            )
        }),
    ] {
        let error = failure(build).await.unwrap_err();
        assert!(error.message().contains(text), "{text}: {error}");
    }
    for (identifier, text) in [
        ("polyarch-result://guessed", "has ended"),
        ("ftp://example.com", "scheme ftp"),
        ("local://context", "session"),
        ("nonsense", "failed to parse source identifier"),
    ] {
        let mut graph = Graph::default();
        let vertex = graph.add(&[], source(identifier));
        let error = frontend.solve(graph.of(&vertex)).await.unwrap_err();
        assert!(error.message().contains(text), "{identifier}: {error}");
        assert_ne!(error.code(), Code::Internal);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_fails_when_somebody_looks_at_it() {
    let frontend = Frontend::start().await;
    let mut graph = Graph::default();
    let result = graph.files(&[], vec![file("/no/such", "x")]);
    let request = FrontendRequest {
        definition: Some(graph.of(&result)),
        allow_result_return: true,
        ..FrontendRequest::default()
    };
    let answer = bridge::SOLVE.call(&frontend.channel, of_build(request, "build")).await.unwrap();
    let Some(ResultRefs::RefDeprecated(id)) = answer.result.and_then(|result| result.result) else {
        panic!("there is no ref")
    };
    let error = frontend.read(&id, "/a").await.unwrap_err();
    assert!(error.message().contains("open /no/such: no such file or directory"), "{error}");
}
