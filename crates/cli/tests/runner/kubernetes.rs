// SPDX-License-Identifier: Apache-2.0
//! The driver kubernetes from `create` to `rm`: the cluster is an API server of ours, and its pods run this program
//! under BuildKit's name.

#[path = "../../../kubernetes/tests/fake_cluster/mod.rs"]
mod fake_cluster;

use std::os::unix::fs::symlink;

use fake_cluster::{ApiServer, DEPLOYMENTS};
use polyarch_testkit::{Need, TestEnvironment, busybox_rootfs, requires};
use serde_json::{Value, json};

#[test]
fn pods_are_made_built_in_shown_and_removed() {
    if requires(&[Need::UserNamespaces]).is_some() {
        return;
    }
    let pod = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let buildctl = pod.work().join("buildctl");
    symlink(env!("CARGO_BIN_EXE_polyarch"), &buildctl).unwrap();
    let dial = pod.program(&buildctl);
    let variables: Vec<_> =
        dial.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    let server = ApiServer::default().with_program(move || {
        let mut command = tokio::process::Command::new(&buildctl);
        command.arg("dial-stdio").env_clear().envs(variables.clone());
        command
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (server, kubeconfig) = runtime.block_on(server.start());

    let mut client = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    client.set("KUBECONFIG", kubeconfig.path().display().to_string());
    client.write("rootfs.tar", busybox_rootfs());
    client.write("Dockerfile", "FROM scratch AS make\nADD rootfs.tar /\nRUN echo in a pod > /made\nFROM scratch\nCOPY --from=make /made /\n");
    let create = ["buildx", "create", "--name", "far", "--driver", "kubernetes"];
    let options = [
        "--driver-opt",
        "replicas=2,image=mirror.example/buildkit:1,\"labels=team=ci,app.kubernetes.io/name=x\"",
    ];
    let refused = client.run(create.iter().chain(&["--driver-opt", "replica=2"]));
    refused.assert_code(2).assert_stderr("replica");
    let refused = client.run(create.iter().chain(&["tcp://127.0.0.1:1"]));
    refused.assert_code(2).assert_stderr("takes no endpoint").assert_stderr("KUBECONFIG");
    let created = client.run(create.iter().chain(&options));
    created.assert_success().assert_stderr("are made with the first build");
    assert_eq!(created.stdout, "far\n");
    assert!(server.log().is_empty(), "nothing is asked of the cluster before it is needed");

    let built = client.run(["build", "--builder", "far", "--progress", "plain", "-o", "out", "."]);
    built.assert_success().assert_stderr("[internal] booting far0").assert_stderr("RUN echo in a pod");
    assert_eq!(std::fs::read_to_string(client.work().join("out/made")).unwrap(), "in a pod\n");
    let deployment = server.object(&format!("{DEPLOYMENTS}/far0"));
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["metadata"]["labels"]["team"], "ci");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "mirror.example/buildkit:1");
    assert_eq!(container["args"], json!(["--allow-insecure-entitlement=network.host"]));

    server.log();
    let inspected = client.run(["buildx", "inspect", "--bootstrap", "far"]);
    inspected.assert_success();
    assert!(
        inspected.stdout.contains("running")
            && inspected.stdout.contains("kubernetes:///far?deployment=far0")
    );
    assert!(!server.log().iter().any(|line| line.starts_with("POST")), "what is there is left alone");
    client.run(["buildx", "rm", "far"]).assert_success();
    assert_eq!(server.object(&format!("{DEPLOYMENTS}/far0")), Value::Null);
}

#[test]
fn what_the_cluster_refuses_is_told() {
    let server = ApiServer::forbidding();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_server, kubeconfig) = runtime.block_on(server.start());
    let mut client = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    client.set("KUBECONFIG", kubeconfig.path().display().to_string());
    let create = ["buildx", "create", "--name", "far", "--driver", "kubernetes", "--bootstrap"];
    let refused = client.run(create);
    assert_ne!(refused.code, 0);
    refused.assert_stderr("ask the owner of the cluster").assert_stderr("kubectl get pods -l app=far0");
    client.set("KUBECONFIG", "/nonexistent/config");
    let create = ["buildx", "create", "--name", "other", "--driver", "kubernetes", "--bootstrap"];
    client.run(create).assert_stderr("/nonexistent/config").assert_stderr("KUBECONFIG=FILE");
    // What was kept is taken away without the cluster that nobody reaches.
    assert_ne!(client.run(["buildx", "rm", "other"]).assert_stderr("--keep-daemon").code, 0);
    client.run(["buildx", "rm", "--keep-daemon", "other"]).assert_success();
}
