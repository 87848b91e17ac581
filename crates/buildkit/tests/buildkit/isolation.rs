// SPDX-License-Identifier: Apache-2.0
//! What clients of one server have of each other: nothing but what each could have by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use polyarch_buildkit::api::gateway::{
    EvaluateRequest, PingRequest, ReadFileRequest, Ref, ResolveImageConfigRequest, Result as FrontendResult,
    ResultRefs, ReturnRequest, SolveRequest, StatFileRequest,
};
use polyarch_buildkit::api::llb;
use polyarch_buildkit::api::methods::{bridge, daemon};
use polyarch_testkit::{DockerRegistry, Image, Need, PlatformImage, hello_rootfs, requires};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::server::{Running, of_build, solve};

/// Begins a build whose frontend is the test.
async fn begin(channel: &Channel, name: &'static str) {
    let building = channel.clone();
    tokio::spawn(async move { daemon::SOLVE.call(&building, solve(name, "")).await });
    bridge::PING.call(channel, of_build(PingRequest {}, name)).await.unwrap();
}

/// Serves a text to whoever asks for anything.
fn serve_text(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/Dockerfile", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let length = text.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_for_the_calls_of_its_own_build() {
    let server = Running::start();
    let channel = server.channel().await;
    begin(&channel, "one").await;
    begin(&channel, "two").await;
    let request = SolveRequest {
        frontend: "dockerfile.v0".to_owned(),
        frontend_opt: [
            ("context".to_owned(), serve_text("FROM scratch\nLABEL a=b\n")),
            // What a URL leads to has this name.
            ("filename".to_owned(), "context".to_owned()),
        ]
        .into(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..SolveRequest::default()
    };
    let solved = bridge::SOLVE.call(&channel, of_build(request, "one")).await.unwrap();
    let Some(ResultRefs::Ref(tree)) = solved.result.and_then(|result| result.result) else { panic!() };
    assert!(!tree.id.is_empty());

    let stat = StatFileRequest { r#ref: tree.id.clone(), path: "/".to_owned(), ..StatFileRequest::default() };
    bridge::STAT_FILE.call(&channel, of_build(stat.clone(), "one")).await.unwrap();
    let refused = |answer: Result<(), Status>| {
        let status: Status = answer.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, &*format!("no such ref {}", tree.id)));
    };
    refused(bridge::STAT_FILE.call(&channel, of_build(stat, "two")).await.map(drop));
    let read =
        ReadFileRequest { r#ref: tree.id.clone(), file_path: "/a".to_owned(), ..ReadFileRequest::default() };
    refused(bridge::READ_FILE.call(&channel, of_build(read, "two")).await.map(drop));
    let evaluate = EvaluateRequest { r#ref: tree.id.clone() };
    refused(bridge::EVALUATE.call(&channel, of_build(evaluate, "two")).await.map(drop));
    let result = ResultRefs::Ref(Ref { id: tree.id.clone(), def: None });
    let result = FrontendResult { result: Some(result), ..FrontendResult::default() };
    let give_back = ReturnRequest { result: Some(result), error: None };
    refused(bridge::RETURN.call(&channel, of_build(give_back, "two")).await.map(drop));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_had_only_from_a_repository_that_gives_it() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let image =
        Image::new(vec![PlatformImage::new("linux/amd64", hello_rootfs("amd64", "private"), &["/hello"])]);
    let digest = registry.push("private", "v1", &image);
    registry.push("other", "v1", &Image::new(vec![PlatformImage::new("linux/amd64", Vec::new(), &["/x"])]));
    let (by_tag, by_digest) = (registry.name("private:v1"), registry.name(&format!("private@{digest}")));

    let server = Running::start();
    let channel = server.channel().await;
    for name in ["one", "two", "three"] {
        begin(&channel, name).await;
    }
    let resolve = async |build: &'static str, name: &str| {
        let platform = llb::Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            ..llb::Platform::default()
        };
        let request = ResolveImageConfigRequest {
            r#ref: name.to_owned(),
            platform: Some(platform),
            ..ResolveImageConfigRequest::default()
        };
        bridge::RESOLVE_IMAGE_CONFIG.call(&channel, of_build(request, build)).await
    };
    assert_eq!(resolve("one", &by_tag).await.unwrap().digest, digest.to_string());
    for name in [registry.name(&format!("other@{digest}")), format!("127.0.0.1:1/private@{digest}")] {
        resolve("two", &name).await.unwrap_err();
    }
    // Who may ask the repository gets it, and what is here already need not come again.
    let count = |what: &str| registry.log().iter().filter(|line| line.contains(what)).count();
    let gets = count("http.request.method=GET");
    assert_eq!(resolve("two", &by_digest).await.unwrap().digest, digest.to_string());
    assert_eq!(count("http.request.method=GET"), gets);

    drop(registry);
    resolve("three", &by_tag).await.unwrap_err();
    resolve("three", &by_digest).await.unwrap_err();
}
