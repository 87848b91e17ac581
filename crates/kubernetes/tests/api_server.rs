// SPDX-License-Identifier: Apache-2.0
//! The requests that reach an API server, and what becomes of its answers.

mod fake_cluster;

use fake_cluster::{ApiServer, DEPLOYMENTS, PODS};
use polyarch_kubernetes::{Cluster, ClusterError, NodeState, PodOptions};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn options(pairs: &[(&str, &str)]) -> PodOptions {
    let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    PodOptions::parse("fleet0", &pairs).expect("the tests' options are valid")
}

#[tokio::test]
async fn a_node_is_made_once_waited_for_listed_and_removed() {
    let (server, kubeconfig) = ApiServer::default().start().await;
    let cluster = Cluster::open(&[kubeconfig.path().to_owned()], None).await.unwrap();
    let mut pods = options(&[("replicas", "2")]);
    pods.files.insert("buildkitd.toml".to_owned(), "debug = true".to_owned());
    assert_eq!(cluster.state(&pods).await.unwrap(), NodeState::Absent);
    cluster.create(&pods).await.unwrap();
    assert_eq!(
        server.log(),
        [
            format!("GET {DEPLOYMENTS}/fleet0"),
            format!("GET {DEPLOYMENTS}/fleet0"),
            "POST /api/v1/namespaces/ci/configmaps".to_owned(),
            format!("POST {DEPLOYMENTS}"),
        ]
    );
    assert_eq!(server.object(&format!("{DEPLOYMENTS}/fleet0"))["spec"]["replicas"], 2);
    let mut reports = Vec::new();
    cluster.wait(&pods, |ready| reports.push(ready)).await.unwrap();
    assert_eq!(reports, [0, 1, 2]);
    cluster.create(&pods).await.unwrap();
    assert!(!server.log().iter().any(|line| line.starts_with("POST")), "what is there is left alone");
    let NodeState::Running(running) = cluster.state(&pods).await.unwrap() else { panic!("it runs") };
    let names: Vec<&str> = running.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(names, ["fleet0-a", "fleet0-b"]);
    assert_eq!((running[0].container.as_str(), running[0].platforms.as_str()), ("buildkitd", "linux/arm64"));
    assert!(server.log().contains(&format!("GET {PODS}?&labelSelector=app%3Dfleet0")));
    cluster.remove(&pods).await.unwrap();
    cluster.remove(&pods).await.unwrap();
    assert_eq!(cluster.state(&pods).await.unwrap(), NodeState::Absent);
    assert_eq!(server.object("/api/v1/namespaces/ci/configmaps/fleet0-config"), Value::Null);
}

#[tokio::test]
async fn a_daemon_in_a_pod_is_talked_to() {
    let (server, kubeconfig) = ApiServer::default().start().await;
    let cluster = Cluster::open(&[kubeconfig.path().to_owned()], Some("ci")).await.unwrap();
    let pods = options(&[]);
    let mut connection = cluster.connect(&pods, "/src/app").await.unwrap();
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut connection);
    let mut back = vec![0; data.len()];
    let write = async {
        writer.write_all(&data).await.unwrap();
        writer.flush().await.unwrap();
    };
    let ((), read) = tokio::join!(write, reader.read_exact(&mut back));
    read.unwrap();
    assert!(back == data, "every byte comes back");
    assert_eq!(connection.said(), "buildctl here");
    let log = server.log();
    let exec = log.iter().find(|line| line.contains("/exec?")).unwrap();
    assert!(
        exec.contains("container=buildkitd") && exec.contains("command=buildctl&command=dial-stdio"),
        "{exec}"
    );
    // The same context goes to the same pod.
    drop(connection);
    cluster.connect(&pods, "/src/app").await.unwrap();
    let again = server.log();
    let pod = |line: &str| line.split('?').next().map(str::to_owned);
    assert_eq!(again.iter().find(|line| line.contains("/exec?")).and_then(|line| pod(line)), pod(exec));
}

#[tokio::test]
async fn what_the_cluster_refuses_is_told_in_its_words() {
    let (_server, kubeconfig) = ApiServer::forbidding().start().await;
    let cluster = Cluster::open(&[kubeconfig.path().to_owned()], None).await.unwrap();
    let error = cluster.create(&options(&[])).await.unwrap_err();
    assert_eq!(error.to_string(), "can't look for fleet0");
    let ClusterError::Api { source, .. } = error else { panic!("the API refused") };
    assert!(source.to_string().contains("ask the owner of the cluster"), "{source}");
}

#[tokio::test]
async fn a_file_that_names_no_cluster_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "clusters: []").unwrap();
    let Err(error) = Cluster::open(&[file.path().to_owned()], None).await else {
        panic!("there is no cluster")
    };
    assert!(error.to_string().starts_with("can't read the cluster's address from "), "{error}");
}

#[tokio::test]
async fn what_a_program_says_before_it_fails_is_told() {
    let server = ApiServer::default().with_program(|| {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", "echo 'no daemon listens here' >&2; exit 1"]);
        command
    });
    let (_server, kubeconfig) = server.start().await;
    let cluster = Cluster::open(&[kubeconfig.path().to_owned()], None).await.unwrap();
    let mut connection = cluster.connect(&options(&[]), "/src/app").await.unwrap();
    let error = connection.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.to_string(), "no daemon listens here");
}
