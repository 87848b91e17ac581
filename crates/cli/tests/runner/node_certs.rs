// SPDX-License-Identifier: Apache-2.0
//! `node certs`: an authority, its certificates, and that nothing is replaced unasked.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use polyarch_testkit::{Output, TestEnvironment};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn certs(environment: &TestEnvironment, arguments: &str) -> Output {
    environment.run(["node", "certs", "tls"].into_iter().chain(arguments.split_whitespace()))
}

/// Returns the files with their modes and contents.
fn files(environment: &TestEnvironment) -> BTreeMap<String, (u32, Vec<u8>)> {
    let entries = std::fs::read_dir(environment.work().join("tls")).unwrap();
    let of = |entry: std::fs::DirEntry| {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
        (entry.file_name().into_string().unwrap(), (mode, std::fs::read(entry.path()).unwrap()))
    };
    entries.map(|entry| of(entry.unwrap())).collect()
}

#[test]
fn an_authority_issues_for_hosts_and_one_client() {
    let environment = environment();
    let made = certs(&environment, "--host pi.local,192.168.1.7 --host big");
    made.assert_success().assert_stderr("node serve --listen tcp://").assert_stderr("tcp://pi.local:1234");
    let files = files(&environment);
    let modes: Vec<(&str, u32)> = files.iter().map(|(name, (mode, _))| (name.as_str(), *mode)).collect();
    let expected = ["big", "ca", "client", "pi.local"]
        .map(|name| [(format!("{name}-key.pem"), 0o600), (format!("{name}.pem"), 0o644)]);
    let mut expected: Vec<(String, u32)> = expected.into_iter().flatten().collect();
    expected.sort();
    let expected: Vec<(&str, u32)> = expected.iter().map(|(name, mode)| (name.as_str(), *mode)).collect();
    assert_eq!(modes, expected);
    let directory = environment.work().join("tls");
    assert_eq!(std::fs::metadata(directory).unwrap().permissions().mode() & 0o7777, 0o700);

    let (_, ca_pem) = parse_x509_pem(&files["ca.pem"].1).unwrap();
    let ca = ca_pem.parse_x509().unwrap();
    assert!(ca.is_ca());
    for (name, is_server) in [("pi.local", true), ("big", true), ("client", false)] {
        let (_, pem) = parse_x509_pem(&files[&format!("{name}.pem")].1).unwrap();
        let certificate = pem.parse_x509().unwrap();
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert!(!certificate.is_ca() && certificate.validity().is_valid(), "{name}");
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((usage.server_auth, usage.client_auth), (is_server, !is_server), "{name}");
        let names = certificate.subject_alternative_name().unwrap();
        let names = names.map(|names| names.value.general_names.clone()).unwrap_or_default();
        let expected = match name {
            "pi.local" => vec![GeneralName::DNSName("pi.local"), GeneralName::IPAddress(&[192, 168, 1, 7])],
            "big" => vec![GeneralName::DNSName("big")],
            _ => Vec::new(),
        };
        assert_eq!(names, expected, "{name}");
    }
}

#[test]
fn hosts_are_added_and_renewed_by_the_same_authority() {
    let environment = environment();
    certs(&environment, "--host pi").assert_success();
    let first = files(&environment);
    // Another host leaves all that is there as it is.
    certs(&environment, "--host arm").assert_success();
    let second = files(&environment);
    assert_eq!(second.len(), first.len() + 2);
    assert!(first.iter().all(|(name, file)| second[name] == *file));
    // A host that is there is refused, and nothing else is done.
    certs(&environment, "--host new --host pi")
        .assert_code(2)
        .assert_stderr("pi.pem is there already, valid until");
    assert_eq!(files(&environment), second);
    certs(&environment, "--host pi --renew").assert_success();
    let third = files(&environment);
    for (name, file) in &second {
        let is_new = name.starts_with("pi") || name.starts_with("client");
        assert_eq!(third[name] != *file, is_new, "{name}");
    }
}

#[test]
fn an_authority_that_is_not_whole_is_left_alone() {
    let environment = environment();
    certs(&environment, "--host pi").assert_success();
    certs(&environment, "--host ../up").assert_code(2).assert_stderr("neither a host's name nor an address");
    certs(&environment, "--host ca").assert_code(2).assert_stderr("name of another file");
    let key = environment.work().join("tls/ca-key.pem");
    // Another authority's key.
    let other = environment.run(["node", "certs", "other", "--host", "x"]);
    other.assert_success();
    let own = std::fs::read(&key).unwrap();
    std::fs::copy(environment.work().join("other/ca-key.pem"), &key).unwrap();
    certs(&environment, "--host arm").assert_code(2).assert_stderr("it is not the key of");
    std::fs::remove_file(&key).unwrap();
    certs(&environment, "--host arm").assert_code(2).assert_stderr("is there without");
    std::fs::write(&key, own).unwrap();
    certs(&environment, "--host arm").assert_success();
}
