// SPDX-License-Identifier: Apache-2.0
//! Logging in and out: at a registry that nobody here wrote, with files and helpers that docker knows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use polyarch_testkit::{DockerRegistry, Need, TestEnvironment, requires};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const NEEDS: &[Need] = &[Need::Command("docker-registry")];
/// The user `ann` with the password `secret`, bcrypt.
const HTPASSWD: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn registry(environment: &TestEnvironment) -> DockerRegistry {
    let path = environment.write("htpasswd", HTPASSWD);
    DockerRegistry::start_with(&format!("auth:\n  htpasswd:\n    realm: test\n    path: {}", path.display()))
}

fn config(environment: &TestEnvironment) -> String {
    std::fs::read_to_string(environment.home().join(".docker/config.json")).unwrap_or_default()
}

fn write_config(environment: &TestEnvironment, text: &str) {
    std::fs::create_dir_all(environment.home().join(".docker")).unwrap();
    std::fs::write(environment.home().join(".docker/config.json"), text).unwrap();
}

/// A helper that keeps what it is given in a file, one line per server.
fn install_helper(environment: &mut TestEnvironment) {
    let script = r#"#!/bin/sh
keys="$HOME/keys"; mkdir -p "$keys"; input=$(cat); echo "$1" >> "$HOME/helper.log"
name() { printf %s "$1" | tr '/:' '__'; }
case "$1" in
store) server=$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/'); printf %s "$input" > "$keys/$(name "$server")" ;;
get) cat "$keys/$(name "$input")" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
erase) rm "$keys/$(name "$input")" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
esac
"#;
    let path = environment.write("bin/docker-credential-keys", script);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let bin = environment.work().join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    environment.set("PATH", format!("{}:{path}", bin.display()));
}

#[test]
fn a_login_is_tried_kept_and_forgotten() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let registry = registry(&environment);
    let host = registry.host();
    environment.run(["login", "--get-login", &host]).assert_code(2).assert_stderr("polyarch login 127.0.0.1");
    let wrong = environment.run_with_stdin(["login", "-u", "ann", "--password-stdin", &host], "no\n");
    wrong.assert_code(5).assert_stdout("").assert_stderr("does not accept the user name \"ann\"");
    assert_eq!(config(&environment), "");

    let login = environment.run_with_stdin(["login", "-u", "ann", "--password-stdin", &host], "secret\r\n");
    login.assert_success().assert_stdout("Login Succeeded\n");
    let file = environment.home().join(".docker/config.json");
    login
        .assert_stderr(&format!("WARNING! Your credentials are stored unencrypted in '{}'.", file.display()));
    assert_eq!(
        config(&environment),
        format!(
            "{{\n\t\"auths\": {{\n\t\t\"{host}\": {{\n\t\t\t\"auth\": \"YW5uOnNlY3JldA==\"\n\t\t}}\n\t}}\n}}"
        )
    );
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    environment.run(["login", "--get-login", &format!("https://{host}/v2/")]).assert_stdout("ann\n");

    // Again without a name: what is there is tried, and nothing changes.
    let again = environment.run(["login", &host]);
    again.assert_success().assert_stdout("Login Succeeded\n").assert_stderr("[Username: ann]");
    again.assert_no_stderr("WARNING");

    let out = environment.run(["logout", &host]);
    out.assert_success().assert_stdout(&format!("Removing login credentials for {host}\n"));
    assert_eq!(config(&environment), "{\n\t\"auths\": {}\n}");
    environment.run(["logout", &host]).assert_success().assert_stderr("nobody was logged in");
    environment.run(["logout"]).assert_stdout("Removing login credentials for https://index.docker.io/v1/\n");
    assert!(!environment.store().exists(), "no store was made");
}

#[test]
fn wrong_use_is_told_before_anything_is_sent() {
    let mut environment = environment();
    let table: [(&[&str], &str); 7] = [
        (&["login"], "hint: echo \"$TOKEN\" | polyarch login -u USER --password-stdin docker.io"),
        (&["login", "r.example"], "standard input is no terminal"),
        (&["login", "-u", "a", "r.example"], "standard input is no terminal"),
        (&["login", "-u", "", "r.example"], "the user name is empty"),
        (&["login", "--password-stdin", "r.example"], "needs a user name"),
        (&["login", "-u", "a", "-p", "b", "--password-stdin"], "exclude each other"),
        (&["login", "-u", "a", "--password-stdin"], "the password is empty"),
    ];
    for (words, text) in table {
        environment.run(words).assert_code(2).assert_stdout("").assert_stderr(text);
    }
    write_config(&environment, "{\n  \"auths\": {},\n  \"credsStore\" \"x\"\n}\n");
    let broken = environment.run(["login", "-u", "a", "-p", "b", "127.0.0.1:1"]);
    broken.assert_code(2).assert_stderr("config.json").assert_stderr("line 3 column 16");
    broken.assert_stderr("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    // Who needs no credentials doesn't notice, whatever is wrong.
    environment.run(["images"]).assert_success().assert_no_stderr("config.json");
    std::fs::write(environment.home().join(".docker/config.json"), b"\xff\xfe{").unwrap();
    environment.set("REGISTRY_AUTH_FILE", "/nonexistent/auth.json");
    environment.run(["images"]).assert_success().assert_stderr("");
    environment.run(["login", "-u", "a", "-p", "b", "127.0.0.1:1"]).assert_code(2).assert_stderr("UTF-8");
}

#[test]
fn a_broken_file_is_named_when_a_registry_wants_credentials() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let registry = registry(&environment);
    write_config(&environment, "{\n  \"auths\": {,\n");
    let pull = environment.run(["pull", &registry.name("app")]);
    pull.assert_code(5).assert_stderr("config.json is not a valid credentials file");
    pull.assert_stderr("line 2 column").assert_stderr(&format!("polyarch login {}", registry.host()));
}

#[test]
fn helpers_keep_what_the_file_says_they_keep() {
    if requires(NEEDS).is_some() {
        return;
    }
    let mut environment = environment();
    let registry = registry(&environment);
    let host = registry.host();
    install_helper(&mut environment);
    write_config(&environment, "{\n\t\"credsStore\": \"keys\",\n\t\"psFormat\": \"x\"\n}\n");
    let login = environment.run_with_stdin(["login", "-u", "ann", "--password-stdin", &host], "secret");
    login.assert_success().assert_stdout("Login Succeeded\n").assert_no_stderr("unencrypted");
    assert_eq!(
        config(&environment),
        format!(
            "{{\n\t\"auths\": {{\n\t\t\"{host}\": {{}}\n\t}},\n\t\"credsStore\": \"keys\",\n\t\"psFormat\": \"x\"\n}}\n"
        )
    );
    environment.run(["login", "--get-login", &host]).assert_stdout("ann\n");
    // The registry lets the helper's user in: it knows the repository's name to be unknown.
    environment.run(["pull", &registry.name("app")]).assert_code(5).assert_stderr("not found");
    environment.run(["logout", &host]).assert_success();
    assert_eq!(
        config(&environment),
        "{\n\t\"auths\": {},\n\t\"credsStore\": \"keys\",\n\t\"psFormat\": \"x\"\n}\n"
    );
    environment.run(["login", "--get-login", &host]).assert_code(2);
    let log = std::fs::read_to_string(environment.home().join("helper.log")).unwrap();
    assert!(log.contains("store\n") && log.contains("erase\n"), "{log}");

    write_config(&environment, &format!("{{\"credHelpers\": {{\"{host}\": \"absent\"}}}}"));
    let failed = environment.run_with_stdin(["login", "-u", "ann", "--password-stdin", &host], "secret");
    failed.assert_code(2).assert_stdout("").assert_stderr("docker-credential-absent is not in PATH");
}

#[test]
fn podman_and_skopeo_find_the_login_and_we_theirs() {
    if requires(NEEDS).is_some() || requires(&[Need::Command("skopeo"), Need::Command("podman")]).is_some() {
        return;
    }
    let mut environment = environment();
    let registry = registry(&environment);
    let host = registry.host();
    environment.run(["login", "-u", "ann", "-p", "secret", &host]).assert_success();
    let mut tags = environment.program("skopeo");
    tags.args(["login", "--get-login", &host]);
    let tags = polyarch_testkit::environment::finish(tags, Vec::new());
    tags.assert_success().assert_stdout("ann\n");

    environment.run(["logout", &host]).assert_success();
    let mut login = environment.program("skopeo");
    login.args(["login", "--tls-verify=false", "-u", "ann", "-p", "secret", &host]);
    polyarch_testkit::environment::finish(login, Vec::new()).assert_success();
    environment.run(["login", "--get-login", &host]).assert_stdout("ann\n");
    environment.run(["logout", &host]).assert_success().assert_stderr("auth.json still has credentials");
    let login = environment.run(["login", "-u", "ann", "-p", "secret", &host]);
    login.assert_success().assert_stderr("is asked before");
    environment.set("XDG_RUNTIME_DIR", "/nonexistent");
    environment.run(["login", "--get-login", &host]).assert_stdout("ann\n");
}

#[test]
fn the_terminal_shows_the_user_and_not_the_password() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let registry = registry(&environment);
    let mut terminal = Terminal::new();
    let mut child = terminal.start(environment.command(["login", &registry.host()]));
    terminal.wait_for("Username: ");
    terminal.type_keys("ann\r");
    terminal.wait_for("Password: ");
    terminal.type_keys("wrong\x15secret\r");
    terminal.wait_for("Login Succeeded");
    assert!(child.wait().unwrap().success());
    assert!(terminal.shown.contains("ann") && !terminal.shown.contains("secret"), "{}", terminal.shown);

    // Ctrl-C at the password: the end, and the terminal is as it was.
    environment.run(["logout", &registry.host()]).assert_success();
    let mut terminal = Terminal::new();
    let before = terminal.modes();
    let mut child = terminal.start(environment.command(["login", "-u", "ann", &registry.host()]));
    terminal.wait_for("Password: ");
    assert_ne!(terminal.modes(), before);
    terminal.type_keys("sec\x03");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(terminal.modes(), before);
}

/// A terminal whose keys are typed, and whose screen is read, by the test.
struct Terminal {
    keyboard: File,
    line: OwnedFd,
    shown: String,
}

impl Terminal {
    fn new() -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let line = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        Terminal { keyboard: master.into(), line: line.into(), shown: String::new() }
    }

    fn start(&self, mut command: Command) -> std::process::Child {
        let line = || Stdio::from(self.line.try_clone().unwrap());
        command.stdin(line()).stdout(line()).stderr(line()).spawn().unwrap()
    }

    fn modes(&self) -> rustix::termios::LocalModes {
        rustix::termios::tcgetattr(&self.line).unwrap().local_modes
    }

    fn wait_for(&mut self, text: &str) {
        let mut bytes = [0; 1024];
        while !self.shown.contains(text) {
            let count = self.keyboard.read(&mut bytes).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }
}
