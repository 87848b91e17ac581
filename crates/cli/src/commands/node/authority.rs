// SPDX-License-Identifier: Apache-2.0
//! A small certificate authority in a directory, for nodes and their clients.
//!
//! `ca.pem` and `ca-key.pem` are the authority; `NAME.pem` and `NAME-key.pem` what it has issued. Keys can be read by
//! their owner only, from the moment that their files exist. A file appears or is replaced as a whole.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustix::fs::Mode;

use crate::CommandError;

/// The name of the authority's files, which no host can have.
pub const CA: &str = "ca";
/// The name of the client's files, which no host can have.
pub const CLIENT: &str = "client";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Clocks of nodes may be late by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A node proves with it that it is the one that was meant.
    Server,
    /// A client proves with it that it may build.
    Client,
}

/// An authority that can issue.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    ends: SystemTime,
}

/// Returns the file of a certificate.
pub fn certificate_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.pem"))
}

/// Returns the file of a certificate's key.
pub fn key_file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}-key.pem"))
}

impl Authority {
    /// Opens the authority of a directory, or makes a new one where there is none; the flag tells which.
    ///
    /// # Errors
    /// When one of its two files is missing, they do not belong together, or its time is over.
    pub fn open_or_make(directory: &Path) -> Result<(Authority, bool), CommandError> {
        let (certificate, key) = (certificate_file(directory, CA), key_file(directory, CA));
        match (exists(&certificate)?, exists(&key)?) {
            (true, true) => Ok((Authority::open(directory)?, false)),
            (false, false) => Ok((Authority::make(directory)?, true)),
            (has_certificate, _) => {
                let (there, missing) = if has_certificate { (certificate, key) } else { (key, certificate) };
                Err(CommandError::usage(format!(
                    "{} is there without {}",
                    there.display(),
                    missing.display()
                ))
                .with_hint("put the missing file back, or name another directory for a new authority"))
            }
        }
    }

    fn open(directory: &Path) -> Result<Authority, CommandError> {
        let (certificate, key) = (certificate_file(directory, CA), key_file(directory, CA));
        let wrong = |path: &Path, problem: &dyn std::fmt::Display| {
            CommandError::usage(format!("can't use {}: {problem}", path.display()))
                .with_hint("put the right file back, or name another directory for a new authority")
        };
        let (text, key_text) = (read(&certificate)?, read(&key)?);
        let pair = KeyPair::from_pem(&key_text).map_err(|error| wrong(&key, &error))?;
        let der = pem_to_der(&text).map_err(|problem| wrong(&certificate, &problem))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| wrong(&certificate, &error))?;
        if !parsed.is_ca() {
            return Err(wrong(&certificate, &"it is no certificate of an authority"));
        }
        if parsed.public_key().raw != pair.subject_public_key_info() {
            return Err(wrong(&key, &format!("it is not the key of {}", certificate.display())));
        }
        let ends = end_of(&parsed);
        if ends <= SystemTime::now() {
            return Err(wrong(&certificate, &format!("it was valid until {}", day(ends))));
        }
        let issuer = Issuer::from_ca_cert_pem(&text, pair).map_err(|error| wrong(&certificate, &error))?;
        Ok(Authority { directory: directory.to_owned(), issuer, ends })
    }

    fn make(directory: &Path) -> Result<Authority, CommandError> {
        let now = SystemTime::now();
        let pair = KeyPair::generate().map_err(cannot_make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "polyarch nodes");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ends = now + CA_LIFETIME;
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = ends.into();
        let certificate = params.self_signed(&pair).map_err(cannot_make)?;
        write(&key_file(directory, CA), &pair.serialize_pem(), 0o600)?;
        write(&certificate_file(directory, CA), &certificate.pem(), 0o644)?;
        let issuer = Issuer::new(params, pair);
        Ok(Authority { directory: directory.to_owned(), issuer, ends })
    }

    /// Issues a certificate, with a key of its own, under this name; what has the name is replaced. It never outlives
    /// the authority. Returns until when it is valid.
    ///
    /// # Errors
    /// When a name is none, or the files can't be written.
    pub fn issue(
        &self,
        name: &str,
        names: &[String],
        purpose: Purpose,
        days: u32,
    ) -> Result<SystemTime, CommandError> {
        let now = SystemTime::now();
        let mut params = CertificateParams::new(names.to_vec())
            .map_err(|error| CommandError::usage(format!("{}: {error}", names.join(","))))?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let ends = (now + DAY * days).min(self.ends);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = ends.into();
        let pair = KeyPair::generate().map_err(cannot_make)?;
        let certificate = params.signed_by(&pair, &self.issuer).map_err(cannot_make)?;
        write(&key_file(&self.directory, name), &pair.serialize_pem(), 0o600)?;
        write(&certificate_file(&self.directory, name), &certificate.pem(), 0o644)?;
        Ok(ends)
    }
}

/// Returns until when a certificate that was issued is valid; `None` when there is none under this name.
///
/// # Errors
/// When it can't be read.
pub fn valid_until(directory: &Path, name: &str) -> Result<Option<SystemTime>, CommandError> {
    let path = certificate_file(directory, name);
    if !exists(&path)? && !exists(&key_file(directory, name))? {
        return Ok(None);
    }
    let der = read(&path).ok().and_then(|text| pem_to_der(&text).ok()).unwrap_or_default();
    let parsed = x509_parser::parse_x509_certificate(&der).ok();
    Ok(Some(parsed.map_or(SystemTime::UNIX_EPOCH, |(_, certificate)| end_of(&certificate))))
}

/// Writes a time as a day.
pub fn day(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).map(|time| time.strftime("%Y-%m-%d").to_string());
    time.unwrap_or_default()
}

fn end_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> SystemTime {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn pem_to_der(text: &str) -> Result<Vec<u8>, String> {
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| "it is no PEM".to_owned())?;
    match pem.label.as_str() {
        "CERTIFICATE" => Ok(pem.contents),
        label => Err(format!("it holds a {}", label.to_lowercase())),
    }
}

fn cannot_make(error: rcgen::Error) -> CommandError {
    polyarch_build::BuildError::new(
        polyarch_build::ErrorKind::Sandbox,
        format!("can't make a certificate: {error}"),
    )
    .into()
}

fn exists(path: &Path) -> Result<bool, CommandError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CommandError::io("can't look at", path, &error)),
    }
}

fn read(path: &Path) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    read.map_err(|error| CommandError::io("can't read", path, &error))?;
    Ok(text)
}

/// Writes a file whole or not at all; `mode` is its octal file mode from the beginning.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CommandError> {
    let failed = |error: io::Error| CommandError::io("can't write", path, &error);
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(std::fs::Permissions::from_mode(Mode::from_raw_mode(mode).bits()))
        .tempfile_in(directory)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
