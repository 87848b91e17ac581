// SPDX-License-Identifier: Apache-2.0
//! `polyarch registry`: other people's clients against it, users and TLS, what lies in its directory, how it ends.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use polyarch_testkit::{Image, Need, Output, PlatformImage, TestEnvironment, hello_rootfs, requires};

/// The user `ann` with the password `secret`, bcrypt.
const HTPASSWD: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry; it ends with the value.
pub struct Registry {
    child: Child,
    host: String,
    log: Arc<Mutex<String>>,
}

impl Registry {
    /// Starts one in an environment, on a free port.
    pub fn start(environment: &TestEnvironment, flags: &[&str]) -> Registry {
        let mut command = environment.command(["registry", "serve", "--listen", "127.0.0.1:0"]);
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary is there");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let mut said = String::new();
        let host = loop {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.kill();
                panic!("the registry did not start:\n{said}");
            };
            if let Some((_, address)) = line.rsplit_once("://") {
                break address.trim().to_owned();
            }
            said.push_str(&line);
        };
        let log = Arc::new(Mutex::new(said));
        let sink = log.clone();
        // A full pipe would stop it.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sink.lock().expect("nobody panics with it").push_str(&format!("{line}\n"));
            }
        });
        Registry { child, host, log }
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }

    fn signal(&mut self, signal: rustix::process::Signal) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the process is ours");
        self.child.wait().expect("the process is ours")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

/// Writes an image for two platforms as a layout, and returns its directory.
pub fn layout(environment: &TestEnvironment) -> (PathBuf, Image) {
    let platform = |name: &str, architecture: &str| {
        PlatformImage::new(name, hello_rootfs(architecture, &format!("{architecture}\n")), &["/bin/hello"])
    };
    let image = Image::new(vec![platform("linux/amd64", "amd64"), platform("linux/arm64", "arm64")]);
    let directory = environment.work().join("layout");
    image.write_layout(&directory, "v1");
    (directory, image)
}

pub fn run(environment: &TestEnvironment, program: &str, arguments: &[&str]) -> Output {
    let mut command = environment.program(program);
    command.args(arguments);
    polyarch_testkit::environment::finish(command, Vec::new())
}

/// What skopeo needs to be told of a registry that speaks plain HTTP.
const NO_TLS: [&str; 1] = ["--dest-tls-verify=false"];

/// Makes the command by which skopeo pushes the whole image, byte for byte.
fn copying(environment: &TestEnvironment, layout: &Path, target: &str, flags: &[&str]) -> Command {
    let mut command = environment.program("skopeo");
    command.args(["--insecure-policy", "copy", "--all", "--preserve-digests"]).args(flags);
    command.arg(format!("oci:{}:v1", layout.display())).arg(target);
    command
}

fn copy(environment: &TestEnvironment, layout: &Path, target: &str, flags: &[&str]) -> Output {
    polyarch_testkit::environment::finish(copying(environment, layout, target, flags), Vec::new())
}

#[test]
fn skopeo_pushes_and_pulls_and_the_directory_is_layouts() {
    if requires(&[Need::Command("skopeo")]).is_some() {
        return;
    }
    let environment = environment();
    let (layout, image) = layout(&environment);
    let mut registry = Registry::start(&environment, &[]);
    let target = format!("docker://{}", registry.name("team/app:v1"));
    copy(&environment, &layout, &target, &NO_TLS).assert_success();
    let raw = run(&environment, "skopeo", &["inspect", "--raw", "--tls-verify=false", &target]);
    assert_eq!(raw.assert_success().stdout.as_bytes(), image.index.bytes, "byte for byte");
    let kept = environment.store().join("registry/repositories/team+app");
    let inspected = run(&environment, "skopeo", &["inspect", "--raw", &format!("oci:{}:v1", kept.display())]);
    assert_eq!(inspected.assert_success().stdout.as_bytes(), image.index.bytes);
    // Our own client, too.
    let name = registry.name("team/app:v1");
    environment.run(["pull", "--platform", "linux/amd64,linux/arm64", &name]).assert_success();
    environment.run(["tag", &name, &registry.name("other/app:v2")]).assert_success();
    environment.run(["push", &registry.name("other/app:v2")]).assert_success();
    assert!(registry.signal(rustix::process::Signal::TERM).success(), "it was asked to end");
    let log = registry.log.lock().unwrap();
    assert!(log.contains("PUT /v2/team/app/manifests/v1 201"), "{log}");

    let scrub = environment.run(["registry", "scrub"]);
    scrub.assert_success();
    assert!(
        scrub.stdout.starts_with("2 repositories, ") && scrub.stdout.contains("nothing is damaged"),
        "{scrub}"
    );
    let gc = environment.run(["registry", "gc", "--grace", "0", "--format", "json"]);
    let collected: serde_json::Value = serde_json::from_str(&gc.assert_success().stdout).unwrap();
    assert_eq!((&collected["blobs"], &collected["manifests"]), (&0.into(), &0.into()));
}

/// A registry with TLS and the user `ann`, where everybody may read `public`; and its certificate, in a directory of its
/// own as the tools of containers want it.
fn protected(environment: &TestEnvironment) -> (Registry, PathBuf) {
    let htpasswd = environment.write("htpasswd", HTPASSWD);
    let made = rcgen_pair();
    let (certificate, key) =
        (environment.write("certs/ca.crt", made.0), environment.write("key.pem", made.1));
    let path = |path: &PathBuf| path.display().to_string();
    let flags = [
        "--htpasswd",
        &path(&htpasswd),
        "--tls-cert",
        &path(&certificate),
        "--tls-key",
        &path(&key),
        "--anonymous-read",
        "public",
    ];
    (Registry::start(environment, &flags), certificate)
}

#[test]
fn buildah_and_podman_push_and_pull_with_users_and_tls() {
    let needs = [Need::Command("buildah"), Need::Command("podman"), Need::Command("skopeo"), Need::Root];
    if requires(&needs).is_some() {
        return;
    }
    let environment = environment();
    let (layout, image) = layout(&environment);
    let (registry, certificate) = protected(&environment);
    let directory = certificate.parent().expect("it is in a directory").display().to_string();
    let users = environment.work().join("auth.json").display().to_string();
    let login = ["login", "--authfile", &users, "--cert-dir", &directory, "-u", "ann", "-p", "secret"];
    run(&environment, "skopeo", &[&login[..], &[&registry.host]].concat()).assert_success();
    let target = |name: &str| format!("docker://{}", registry.name(name));
    let as_ann = ["--dest-cert-dir", &directory, "--dest-authfile", &users];
    for name in ["public/app:v1", "secret/app:v1"] {
        copy(&environment, &layout, &target(name), &as_ann).assert_success();
    }
    let refused = copy(&environment, &layout, &target("public/app:v2"), &as_ann[..2]);
    assert!(refused.code != 0 && refused.stderr.contains("unauthorized"), "{refused}");
    let refused = copy(&environment, &layout, &target("public/app:v2"), &as_ann[2..]);
    assert!(refused.code != 0 && refused.stderr.contains("x509"), "{refused}");
    let storage = environment.work().join("storage").display().to_string();
    let run_root = environment.work().join("run").display().to_string();
    let known = ["--root", &storage, "--runroot", &run_root, "--storage-driver", "vfs"];
    let anonymous = ["--cert-dir", &directory];
    let ann = ["--cert-dir", &directory, "--authfile", &users];
    for program in ["buildah", "podman"] {
        let run = |command: &[&str], flags: &[&str], names: &[&str]| {
            run(&environment, program, &[&known[..], command, flags, names].concat())
        };
        let (secret, own) = (registry.name("secret/app:v1"), registry.name(&format!("{program}/app:v1")));
        run(&["pull"], &anonymous, &[&registry.name("public/app:v1")]).assert_success();
        assert!(run(&["pull", "--policy=always"], &anonymous, &[&secret]).code != 0, "{program}");
        run(&["pull"], &ann, &[&secret]).assert_success();
        run(&["tag"], &[], &[&secret, &own]).assert_success();
        run(&["push"], &ann, &[&own]).assert_success();
        run(&["rmi"], &[], &[&own]).assert_success();
        run(&["pull"], &ann, &[&own]).assert_success();
    }
    // Our own client: an authority that is not the server's is no help, the right one and a user are.
    let name = registry.name("secret/app:v1");
    let trusting = |authority: &Path| {
        let text = format!("[registry.\"{}\"]\nca = [\"{}\"]\n", registry.host, authority.display());
        environment.write_config(&text);
    };
    trusting(&environment.write("other.pem", rcgen_pair().0));
    let refused = environment.run(["pull", &name]);
    assert!(refused.code != 0 && refused.stderr.contains("certificate not trusted"), "{refused}");
    trusting(&certificate);
    environment.run(["pull", &registry.name("public/app:v1")]).assert_success();
    let refused = environment.run(["pull", &name]);
    assert!(refused.code != 0 && refused.stderr.contains("unauthorized"), "{refused}");
    let login = ["login", "-u", "ann", "--password-stdin", &registry.host];
    environment.run_with_stdin(login, "secret").assert_success();
    environment.run(["pull", "--platform", "linux/amd64,linux/arm64", &name]).assert_success();
    environment.run(["tag", &name, &registry.name("own/app:v1")]).assert_success();
    environment.run(["push", &registry.name("own/app:v1")]).assert_success();
    let source = target("own/app:v1");
    let inspect = ["inspect", "--raw", "--cert-dir", &directory, "--authfile", &users, &source];
    let raw = run(&environment, "skopeo", &inspect);
    assert_eq!(raw.assert_success().stdout.as_bytes(), image.index.bytes, "byte for byte");
}

#[test]
fn docker_uses_it_with_users_and_reads_what_is_for_everybody() {
    if requires(&[Need::Command("docker"), Need::Command("skopeo")]).is_some() {
        return;
    }
    let environment = environment();
    let (layout, image) = layout(&environment);
    let htpasswd = environment.write("htpasswd", HTPASSWD).display().to_string();
    // Without TLS, because docker pushes manifests to this machine's own addresses without it.
    let registry = Registry::start(&environment, &["--htpasswd", &htpasswd, "--anonymous-read", "public"]);
    let as_ann = ["--dest-tls-verify=false", "--dest-creds", "ann:secret"];
    for name in ["public/app:v1", "secret/app:v1"] {
        copy(&environment, &layout, &format!("docker://{}", registry.name(name)), &as_ann).assert_success();
    }
    let docker = |arguments: &[&str]| run(&environment, "docker", arguments);
    // What `docker login` writes, which without a daemon it can't.
    let log_in = |pair: &str| {
        let text = format!(r#"{{"auths":{{"{}":{{"auth":"{pair}"}}}}}}"#, registry.host);
        let directory = environment.home().join(".docker");
        std::fs::create_dir_all(&directory).expect("a directory can be made");
        std::fs::write(directory.join("config.json"), text).expect("a file can be written");
    };
    let inspect = |name: &str| docker(&["manifest", "inspect", "--insecure", &registry.name(name)]);
    log_in("YW5vbnltb3VzOmFub255bW91cw==");
    assert!(inspect("public/app:v1").assert_success().stdout.contains("arm64"));
    assert!(inspect("secret/app:v1").code != 0);
    log_in("YW5uOnNlY3JldA==");
    let list = registry.name("secret/app:list");
    let member = |number: usize| registry.name(&format!("secret/app@{}", image.manifests[number].digest));
    docker(&["manifest", "create", "--insecure", &list, &member(0), &member(1)]).assert_success();
    docker(&["manifest", "push", "--insecure", &list]).assert_success();
    assert!(inspect("secret/app:list").assert_success().stdout.contains("arm64"));
}

/// Makes a certificate for 127.0.0.1 and its key (PEM).
fn rcgen_pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a key can be made");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn dockers_manifest_command_works_with_it() {
    if requires(&[Need::Command("docker"), Need::Command("skopeo")]).is_some() {
        return;
    }
    let environment = environment();
    let (layout, image) = layout(&environment);
    let registry = Registry::start(&environment, &[]);
    let target = format!("docker://{}", registry.name("app:v1"));
    copy(&environment, &layout, &target, &NO_TLS).assert_success();
    let list = registry.name("app:list");
    let member = |number: usize| registry.name(&format!("app@{}", image.manifests[number].digest));
    let create = ["manifest", "create", "--insecure", &list, &member(0), &member(1)];
    run(&environment, "docker", &create).assert_success();
    run(&environment, "docker", &["manifest", "push", "--insecure", &list]).assert_success();
    let inspected = run(&environment, "docker", &["manifest", "inspect", "--insecure", &list]);
    assert!(inspected.assert_success().stdout.contains("arm64"), "{inspected}");
}

#[test]
fn a_copy_is_served_when_its_registry_is_gone() {
    if requires(&[Need::Command("skopeo")]).is_some() {
        return;
    }
    let (origin, copies) = (environment(), environment());
    let (layout, image) = layout(&origin);
    let mut upstream = Registry::start(&origin, &[]);
    let target = format!("docker://{}", upstream.name("team/app:v1"));
    copy(&origin, &layout, &target, &NO_TLS).assert_success();
    let registry = Registry::start(&copies, &["--mirror", &format!("reg.example=http://{}", upstream.host)]);
    let name = registry.name("reg.example/team/app:v1");
    copies.run(["pull", "--platform", "linux/arm64", &name]).assert_success();
    upstream.signal(rustix::process::Signal::TERM);
    let inspect = ["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")];
    let raw = run(&copies, "skopeo", &inspect);
    assert_eq!(raw.assert_success().stdout.as_bytes(), image.index.bytes);
    let kept = copies.store().join("registry/repositories/reg.example+team+app/blobs/sha256");
    assert!(kept.join(image.manifests[1].digest.hex()).exists());
    assert!(!kept.join(image.manifests[0].digest.hex()).exists(), "nobody asked for the other platform");
    let log = registry.log.lock().unwrap();
    assert!(log.contains(&format!("(served by: {})", upstream.host)), "{log}");
    assert!(log.contains("(served by: this registry)"), "{log}");
}

#[test]
fn an_open_address_and_bad_files_are_refused() {
    let environment = environment();
    let serve = |flags: &[&str]| environment.run([&["registry", "serve"], flags].concat());
    let refused = serve(&["--listen", "0.0.0.0:0"]);
    refused
        .assert_code(2)
        .assert_stderr("without TLS and without users")
        .assert_stderr("--allow-unprotected");
    environment.write("users", "bob:plain\n");
    let users = serve(&["--htpasswd", "users"]);
    users.assert_code(2).assert_stderr("the password of \"bob\" in line 1 is not bcrypt's");
    serve(&["--listen", "nonsense"]).assert_code(2).assert_stderr("--listen 127.0.0.1:5000");
    serve(&["--mirror", "docker.io=ftp://x.y"])
        .assert_code(2)
        .assert_stderr("there are only http:// and https://");
    environment.write("full/of/things", "");
    let foreign = serve(&["--root", "full"]);
    foreign.assert_code(2).assert_stderr("is not empty and holds no registry");
    let gc = environment.run(["registry", "gc", "--root", "nothing"]);
    gc.assert_code(2).assert_stderr("there is no registry in").assert_stderr("--root DIR");
    assert!(!environment.work().join("nothing").exists());
}

#[test]
fn a_killed_registry_loses_nothing_that_it_acknowledged() {
    if requires(&[Need::Command("skopeo")]).is_some() {
        return;
    }
    let environment = environment();
    let (layout, image) = layout(&environment);
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let mut registry = Registry::start(&environment, &[]);
        for number in 0..3 {
            let name = format!("app-{round}:v{number}");
            let target = format!("docker://{}", registry.name(&name));
            if number < 2 {
                copy(&environment, &layout, &target, &NO_TLS).assert_success();
                acknowledged.push(name);
                continue;
            }
            // The last push is under way when the end comes.
            let mut command = copying(&environment, &layout, &target, &NO_TLS);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut push = command.spawn().expect("skopeo is there");
            registry.signal(rustix::process::Signal::KILL);
            let _ = push.wait();
        }
    }
    environment.run(["registry", "scrub"]).assert_success();
    let registry = Registry::start(&environment, &[]);
    for name in acknowledged {
        let target = format!("docker://{}", registry.name(&name));
        let raw = run(&environment, "skopeo", &["inspect", "--raw", "--tls-verify=false", &target]);
        assert_eq!(raw.assert_success().stdout.as_bytes(), image.index.bytes, "{name}");
    }
}
