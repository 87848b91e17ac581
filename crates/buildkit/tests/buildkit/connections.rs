// SPDX-License-Identifier: Apache-2.0
//! The ways to a daemon: sockets, mutual TLS, and a program's standard input and output.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use polyarch_buildkit::api::control::PruneRequest;
use polyarch_buildkit::client::{ConnectOptions, Endpoint, Node, TlsFiles, platforms_of};
use polyarch_oci::Platform;
use polyarch_testkit::{Buildkitd, program_of};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::foreign::options;

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_tells_workers_version_and_cache() {
    let Some(daemon) = Buildkitd::start() else { return };
    let (node, workers) = Node::connect(&Endpoint::Unix(daemon.socket()), &options()).await.unwrap();
    let platforms = platforms_of(&workers[0]);
    assert_eq!(platforms[0].architecture, Platform::host().architecture);
    let version = node.version().await.unwrap().unwrap();
    assert_eq!(version.package, "github.com/moby/buildkit");
    assert!(node.disk_usage(Vec::new(), 0).await.unwrap().is_empty());
    let mut removed = 0;
    node.prune(PruneRequest { all: true, ..PruneRequest::default() }, |_| removed += 1).await.unwrap();
    assert_eq!(removed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_an_error_of_the_node() {
    let endpoint = Endpoint::Unix("/nonexistent/buildkitd.sock".into());
    let Err(error) = Node::connect(&endpoint, &options()).await else { panic!("nothing listens there") };
    assert!(error.is_of_node(), "{error:?}");
    assert!(error.to_string().contains("unix:///nonexistent/buildkitd.sock"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_connection_to_another_machine_is_refused() {
    let endpoint: Endpoint = "tcp://192.0.2.1:1234".parse().unwrap();
    let Err(error) = Node::connect(&endpoint, &options()).await else { panic!("it is not even tried") };
    assert!(error.to_string().contains("use certificates"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_a_connection() {
    let Some(buildctl) = program_of("POLYARCH_TEST_BUILDCTL") else { return };
    let Some(daemon) = Buildkitd::start() else { return };
    let directory = tempfile::tempdir().unwrap();
    let ssh = directory.path().join("ssh");
    // The other end gives one line to a shell.
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {0}/arguments\nwhile [ \"$1\" != -- ]; do shift; done; shift 2\n\
         PATH={1}:$PATH exec sh -c \"$*\"\n",
        directory.path().display(),
        buildctl.parent().unwrap().display(),
    );
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).unwrap();
    let endpoint: Endpoint = format!("ssh://me@pi:2222{}", daemon.socket().display()).parse().unwrap();
    let options = ConnectOptions { ssh_program: ssh, ..options() };
    let (node, _) = Node::connect(&endpoint, &options).await.unwrap();
    assert!(node.version().await.unwrap().is_some());
    let arguments = std::fs::read_to_string(directory.path().join("arguments")).unwrap();
    assert!(
        arguments
            .starts_with("-o ServerAliveInterval=10 -o ServerAliveCountMax=3 -l me -p 2222 -- pi sh -c "),
        "{arguments}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ssh_says_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let ssh = directory.path().join("ssh");
    // Another process writes it: what is open for writing here could be held open by a child that another test forks,
    // and can't be executed then.
    let script = r#"printf '#!/bin/sh\necho "Host key verification failed." >&2\nexit 255\n' > "$1" && chmod 755 "$1""#;
    let written = std::process::Command::new("sh").args(["-c", script, "write"]).arg(&ssh).status();
    assert!(written.unwrap().success());
    let options = ConnectOptions { ssh_program: ssh, ..options() };
    let Err(error) = Node::connect(&"ssh://pi".parse().unwrap(), &options).await else { panic!("it can't") };
    let text = format!("{error}: {:?}", std::error::Error::source(&error));
    assert!(text.contains("Host key verification failed."), "{text}");
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `NAME.pem` and `NAME-key.pem`.
    fn write(&self, directory: &Path, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_lets_in_who_has_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let file = |name: &str| directory.path().join(name);
    std::fs::write(file("ca.pem"), &authority.pem).unwrap();
    std::fs::write(file("other-ca.pem"), Authority::new().pem).unwrap();
    authority.write(directory.path(), "server", "builder.example");
    authority.write(directory.path(), "client", "client");
    let daemon = Buildkitd::start_with(|_| {
        let path = |name: &str| file(name).display().to_string();
        let tls = [("tlscacert", "ca.pem"), ("tlscert", "server.pem"), ("tlskey", "server-key.pem")];
        let tls = tls.map(|(flag, name)| format!("--{flag}={}", path(name)));
        ["--addr".to_owned(), "tcp://127.0.0.1:0".to_owned()].into_iter().chain(tls).collect()
    });
    let Some(daemon) = daemon else { return };
    let endpoint: Endpoint = format!("tcp://{}", daemon.address()).parse().unwrap();
    let with = |ca: &str, client: bool, server_name: &str| ConnectOptions {
        tls: Some(TlsFiles {
            ca: file(ca),
            client: client.then(|| (file("client.pem"), file("client-key.pem"))),
            server_name: Some(server_name.to_owned()),
        }),
        ..options()
    };
    let (node, _) = Node::connect(&endpoint, &with("ca.pem", true, "builder.example")).await.unwrap();
    assert!(node.version().await.unwrap().is_some());
    let wrong = [
        ("other-ca.pem", true, "builder.example"),
        ("ca.pem", false, "builder.example"),
        ("ca.pem", true, "other.example"),
    ];
    for (ca, client, server_name) in wrong {
        let refused = Node::connect(&endpoint, &with(ca, client, server_name)).await;
        let Err(error) = refused else { panic!("{ca} {client} {server_name} were let in") };
        assert!(error.is_of_node(), "{error:?}");
    }
    let Err(error) = Node::connect(&endpoint, &options()).await else { panic!("plain was let in") };
    assert!(error.is_of_node(), "{error:?}");
}
