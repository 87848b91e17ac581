// SPDX-License-Identifier: Apache-2.0
//! Compression of layer streams: the same bytes for any number of threads.
//!
//! gzip is written as independent members of 1 MiB of input each (RFC 1952, 2.2 allows any number of
//! members), zstd by the library's own multi-threaded mode, whose frame does not depend on the number
//! of its workers. Both choices are part of what a layer's digest depends on: changing them, the
//! default levels or the codec versions changes digests.

use std::io::{self, BufReader, Read, Write};

use polyarch_oci::media_type::Compression;

use crate::gzip_members::GzipMembers;

/// Level of gzip when none is asked for: as small as zlib's default, at more than twice the speed.
const DEFAULT_GZIP_LEVEL: i32 = 3;
/// Level of zstd when none is asked for: the library's own default.
const DEFAULT_ZSTD_LEVEL: i32 = 3;
/// Most memory that an xz stream may ask for.
const XZ_MEMORY_LIMIT: u64 = 256 << 20;
/// Largest zstd window that is accepted, as a power of two (128 MiB, what the reference tool accepts).
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const INPUT_BUFFER_BYTES: usize = 128 << 10;

/// A compressed form that is recognised by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Codec {
    /// Returns the form that a layer's media type declares; `None` when it is not compressed.
    pub fn of_layer(compression: Compression) -> Option<Codec> {
        match compression {
            Compression::Uncompressed => None,
            Compression::Gzip => Some(Codec::Gzip),
            Compression::Zstd => Some(Codec::Zstd),
        }
    }
}

/// Recognises a compressed form by the first bytes (six are enough); `None` for anything else.
pub fn detect(head: &[u8]) -> Option<Codec> {
    const MAGIC: [(&[u8], Codec); 4] = [
        (&[0x1f, 0x8b, 0x08], Codec::Gzip),
        (&[0x28, 0xb5, 0x2f, 0xfd], Codec::Zstd),
        (b"BZh", Codec::Bzip2),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0x00], Codec::Xz),
    ];
    MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, codec)| *codec)
}

/// A writer that compresses; it must be [finished](Compressor::finish), dropping it loses the end.
pub struct Compressor<W: Write>(Inner<W>);

enum Inner<W: Write> {
    Plain(W),
    Gzip(GzipMembers<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// Writes what is pending and the end of the compressed stream, and gives the output back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::Plain(out) => Ok(out),
            Inner::Gzip(members) => members.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(out) => out.write(bytes),
            Inner::Gzip(members) => members.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing to what is pending: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a compressor; the bytes depend on the input, the form and the level alone.
///
/// `level` `None` is the form's default (gzip 3, which is as small as zlib's 6; zstd 3). gzip knows
/// 0 to 12, zstd 1 to 22; other levels are refused.
pub fn compressor<W: Write>(
    compression: Compression,
    level: Option<i32>,
    threads: usize,
    out: W,
) -> io::Result<Compressor<W>> {
    let inner = match compression {
        Compression::Uncompressed => Inner::Plain(out),
        Compression::Gzip => {
            let level = checked_level("gzip", level.unwrap_or(DEFAULT_GZIP_LEVEL), 0, 12)?;
            Inner::Gzip(GzipMembers::new(level, threads, out)?)
        }
        Compression::Zstd => {
            let level = checked_level("zstd", level.unwrap_or(DEFAULT_ZSTD_LEVEL), 1, 22)?;
            let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
            // At least one worker, also for one thread: without workers the frame is laid out differently.
            encoder.multithread(u32::try_from(threads.clamp(1, 64)).unwrap_or(1))?;
            Inner::Zstd(encoder)
        }
    };
    Ok(Compressor(inner))
}

fn checked_level(form: &str, level: i32, least: i32, most: i32) -> io::Result<i32> {
    if (least..=most).contains(&level) {
        return Ok(level);
    }
    let text = format!("{form} compression level {level} is not between {least} and {most}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Makes a reader that decompresses; `None` passes the bytes on.
///
/// Several gzip members, zstd frames, bzip2 or xz streams in a row are one content. A truncated or
/// damaged stream is an error of the reader.
pub fn decompressor<'a, R: Read + Send + 'a>(
    input: R,
    codec: Option<Codec>,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, input);
    Ok(match codec {
        None => Box::new(input),
        Some(Codec::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Some(Codec::Zstd) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Some(Codec::Bzip2) => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Some(Codec::Xz) => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_LIMIT, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compressed(compression: Compression, threads: usize, chunk: usize, bytes: &[u8]) -> Vec<u8> {
        let mut writer = compressor(compression, None, threads, Vec::new()).unwrap();
        for piece in bytes.chunks(chunk) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap()
    }

    fn decompressed(codec: Option<Codec>, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        decompressor(bytes, codec)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// Several MiB that neither compress to nothing nor not at all.
    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8 & 0x1f
            })
            .collect()
    }

    #[test]
    fn bytes_do_not_depend_on_threads_or_on_how_they_come() {
        let content = sample(5 * (1 << 20) + 4321);
        for compression in [Compression::Gzip, Compression::Zstd, Compression::Uncompressed] {
            let reference = compressed(compression, 1, 65_536, &content);
            for (threads, chunk) in [(1, content.len()), (2, 1000), (3, 1 << 20), (8, 777_777)] {
                assert_eq!(compressed(compression, threads, chunk, &content), reference, "{compression:?}");
            }
            assert_eq!(decompressed(Codec::of_layer(compression), &reference).unwrap(), content);
        }
    }

    #[test]
    fn nothing_compresses_to_a_valid_stream() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let bytes = compressed(compression, 2, 1, b"");
            assert_eq!(detect(&bytes), Codec::of_layer(compression));
            assert_eq!(decompressed(Codec::of_layer(compression), &bytes).unwrap(), b"");
        }
    }

    #[test]
    fn truncated_and_damaged_streams_are_errors() {
        let content = sample(300_000);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let codec = Codec::of_layer(compression);
            let bytes = compressed(compression, 1, 1 << 16, &content);
            assert!(decompressed(codec, &bytes[..bytes.len() - 3]).is_err(), "{compression:?}");
            assert!(decompressed(codec, b"no such thing at all").is_err(), "{compression:?}");
        }
        let mut damaged = compressed(Compression::Gzip, 1, 1 << 16, &content);
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        assert!(decompressed(Some(Codec::Gzip), &damaged).is_err());
    }

    #[test]
    fn several_members_frames_and_streams_are_one_content() {
        let mut bzip2 = Vec::new();
        let mut xz = Vec::new();
        for word in ["first ", "second"] {
            bzip2::read::BzEncoder::new(word.as_bytes(), bzip2::Compression::fast())
                .read_to_end(&mut bzip2)
                .unwrap();
            liblzma::read::XzEncoder::new(word.as_bytes(), 0).read_to_end(&mut xz).unwrap();
        }
        let zstd =
            [zstd::encode_all(&b"first "[..], 1).unwrap(), zstd::encode_all(&b"second"[..], 1).unwrap()];
        for (codec, bytes) in [(Codec::Bzip2, bzip2), (Codec::Xz, xz), (Codec::Zstd, zstd.concat())] {
            assert_eq!(detect(&bytes), Some(codec));
            assert_eq!(decompressed(Some(codec), &bytes).unwrap(), b"first second", "{codec:?}");
        }
        assert_eq!(detect(b"plain text"), None);
    }

    #[test]
    fn gzip_names_neither_time_nor_file() {
        let bytes = compressed(Compression::Gzip, 1, 10, b"content");
        assert_eq!(bytes[3], 0, "flags");
        assert_eq!(bytes[4..8], [0; 4], "mtime");
    }

    #[test]
    fn levels_out_of_range_are_refused() {
        for (compression, level) in
            [(Compression::Gzip, 13), (Compression::Gzip, -1), (Compression::Zstd, 23)]
        {
            assert!(compressor(compression, Some(level), 1, Vec::new()).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_is_compressed_comes_back(content in proptest::collection::vec(any::<u8>(), 0..20_000), chunk in 1usize..4096) {
            for compression in [Compression::Gzip, Compression::Zstd] {
                let bytes = compressed(compression, 2, chunk, &content);
                prop_assert_eq!(&decompressed(Codec::of_layer(compression), &bytes).unwrap(), &content);
            }
        }
    }
}
