// SPDX-License-Identifier: Apache-2.0
//! A root file system in an archive becomes an image of one layer and one platform.
//!
//! The archive is read once: decompressed whatever it is compressed with, looked at entry by entry, and
//! compressed again the way a build compresses its layers, so that equal trees give equal layers.

use std::io::{self, BufReader, Read, Write};

use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Replaced, Services, change_config, error::chain_of};
use polyarch_contents::{ImageContents, ImagePath, LayerContents, Scope, Severity, judge};
use polyarch_oci::media_type::{Compression, Flavour};
use polyarch_oci::{
    Descriptor, DiffId, Document, Hasher, History, ImageConfig, Manifest, Platform, Reference, RootFs,
};
use polyarch_snapshot::{ApplyLimits, Compressor, SnapshotError, compressor, decompressor, detect};

/// How many bytes tell the form of a compressed file.
const HEAD_BYTES: u64 = 16;

/// What the image will be.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// Its name.
    pub name: Option<Reference>,
    /// The platform that its programs are of.
    pub platform: Platform,
    /// Instructions that change its config.
    pub changes: Vec<String>,
    /// What its history says.
    pub message: String,
    /// When it was made.
    pub created: jiff::Timestamp,
}

/// An image that was imported.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Its manifest.
    pub root: Descriptor,
    /// What the name meant before, when that was another document.
    pub replaced: Option<Replaced>,
    /// What is odd about the files.
    pub notes: Vec<String>,
}

/// Makes an image of an archive, called `source`.
///
/// # Errors
/// When the archive is none, is damaged or empty, or a change makes no sense; no name has changed then.
pub fn import(
    services: &Services,
    source: &str,
    archive: impl Read + Send,
    request: &ImportRequest,
) -> Result<Imported, BuildError> {
    let mut config = ImageConfig { created: Some(request.created.to_string()), ..ImageConfig::default() };
    config.set_platform(&request.platform);
    // Before anything is read, so that a mistake costs no time.
    change_config(&mut config, &request.changes)?;
    let layer = read_layer(services, source, archive)?;
    config.rootfs = RootFs { diff_ids: vec![layer.diff_id], ..RootFs::default() };
    config.history = vec![History {
        created: config.created.clone(),
        comment: request.message.clone(),
        ..History::default()
    }];
    let notes = notes(&layer.contents, &config, source);

    let store = services.store();
    let put = |bytes: &[u8]| store.put(bytes).map_err(|error| storage_error(&error));
    let config = Document::compact(config);
    put(&config.bytes)?;
    let config = Descriptor::new(Flavour::Oci.config(), config.digest.clone(), config.size());
    let manifest = Document::indented(Manifest::new(Flavour::Oci, config, vec![layer.descriptor]));
    put(&manifest.bytes)?;
    let root = Descriptor::new(Flavour::Oci.manifest(), manifest.digest.clone(), manifest.size());
    let mut replaced = None;
    if let Some(name) = &request.name {
        replaced = services.replaced_by(name, &root)?;
        store.set_ref(name, &root).map_err(|error| storage_error(&error))?;
    }
    Ok(Imported { root, replaced, notes })
}

struct Layer {
    descriptor: Descriptor,
    diff_id: DiffId,
    contents: LayerContents,
}

/// Reads the archive and writes it into the store as a layer.
fn read_layer(services: &Services, source: &str, mut archive: impl Read + Send) -> Result<Layer, BuildError> {
    let unreadable = |error: &io::Error| {
        BuildError::new(ErrorKind::Usage, format!("can't import {source}: {}", chain_of(error)))
            .with_hint("the archive may be truncated: make it again, or copy it again")
    };
    let unwritable = |error: &io::Error| {
        let message = format!("can't write the layer into the store: {}", chain_of(error));
        BuildError::new(ErrorKind::Storage, message)
    };
    let mut head = Vec::new();
    (&mut archive).take(HEAD_BYTES).read_to_end(&mut head).map_err(|error| unreadable(&error))?;
    let codec = detect(&head);
    let input = decompressor(head.as_slice().chain(BufReader::new(archive)), codec)
        .map_err(|error| unreadable(&error))?;
    let compression = Compression::Gzip;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let blob = services.store().writer().map_err(|error| storage_error(&error))?;
    let out = compressor(compression, None, threads, blob).map_err(|error| unwritable(&error))?;
    let mut tee = Tee {
        input,
        out,
        hasher: Hasher::sha256(),
        total: 0,
        limit: ApplyLimits::default().max_bytes,
        write_error: None,
    };
    let read = LayerContents::read_tar(&mut tee);
    if let Some(error) = &tee.write_error {
        return Err(unwritable(error));
    }
    let contents = read.map_err(|error| no_archive(source, &error, codec.is_some()))?;
    // What follows the last entry belongs to the layer as well.
    let drained = io::copy(&mut tee, &mut io::sink());
    if let Some(error) = &tee.write_error {
        return Err(unwritable(error));
    }
    drained.map_err(|error| unreadable(&error))?;
    if contents.entries.len() <= 1 {
        let message = format!("can't import {source}: it is empty");
        return Err(BuildError::new(ErrorKind::Usage, message)
            .with_hint("an image without files is built: FROM scratch in a Dockerfile"));
    }
    let diff_id = DiffId(tee.hasher.finish());
    let blob = tee.out.finish().map_err(|error| unwritable(&error))?;
    let (digest, size) = blob.commit(None).map_err(|error| storage_error(&error))?;
    let descriptor = Descriptor::new(compression.layer_media_type(Flavour::Oci), digest, size);
    Ok(Layer { descriptor, diff_id, contents })
}

fn no_archive(source: &str, error: &SnapshotError, is_compressed: bool) -> BuildError {
    let problem = match error {
        // What the parser saw in a header is of no use to people.
        SnapshotError::Archive { entry: 0, .. } => match is_compressed {
            true => "what is compressed in it is no tar archive".to_owned(),
            false => "it is no tar archive".to_owned(),
        },
        SnapshotError::Archive { entry, .. } => format!("the tar archive is damaged after {entry} entries"),
        other => chain_of(other),
    };
    BuildError::new(ErrorKind::Usage, format!("can't import {source}: {problem}")).with_hint(
        "import takes a tar archive, plain or compressed with gzip, zstd, bzip2 or xz; one that is cut short must be \
         made again",
    )
}

/// Says what people probably did not mean.
fn notes(contents: &LayerContents, config: &ImageConfig, source: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let has = |name: &str| contents.entries.contains_key(&ImagePath::clean(name));
    if has("oci-layout") || (has("manifest.json") && has("repositories")) {
        notes.push(format!(
            "{source} looks like a saved image; its images come with: polyarch load -i {source}"
        ));
    }
    let mut image = ImageContents::default();
    if image.add(contents).is_err() {
        return notes;
    }
    let platform = config.platform();
    let judgement = judge(&image, &platform, &config.config, Scope::Part);
    let foreign: Vec<_> = judgement
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error && finding.rule.ends_with("-foreign"))
        .collect();
    if let Some(first) = foreign.first() {
        let path = first.path.as_ref().map(ToString::to_string).unwrap_or_default();
        let more = match foreign.len() - 1 {
            0 => String::new(),
            count => format!(" (and {count} more)"),
        };
        notes.push(format!(
            "{path} {}{more}; the image says {platform}: import it again with --platform if that is wrong",
            first.message
        ));
    }
    notes
}

/// Passes on what is read, and writes it compressed and hashed as well.
struct Tee<R, W: Write> {
    input: R,
    out: Compressor<W>,
    hasher: Hasher,
    total: u64,
    limit: u64,
    /// Why writing failed: an error of `read` can't tell.
    write_error: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(bytes)?;
        let read = &bytes[..count];
        self.total = self.total.saturating_add(count as u64);
        if self.total > self.limit {
            return Err(io::Error::other(format!("it has more than {} bytes", self.limit)));
        }
        self.hasher.update(read);
        if let Err(error) = self.out.write_all(read) {
            let text = error.to_string();
            self.write_error = Some(error);
            return Err(io::Error::other(text));
        }
        Ok(count)
    }
}
