// SPDX-License-Identifier: Apache-2.0
//! Digests and identifiers made of them.

use sha2::{Digest, Sha256, Sha512};

use super::super::value::Value;
use super::{Function, Kind, Parameter, function, parameter, text};

const STR: Parameter = parameter("str", Kind::Text);

pub const FUNCTIONS: &[Function] = &[
    function("md5", &[STR], |args, _| Ok(Value::String(hex::encode(md5(text(args, 0).as_bytes()))))),
    function("sha1", &[STR], |args, _| Ok(Value::String(hex::encode(sha1(text(args, 0).as_bytes()))))),
    function("sha256", &[STR], |args, _| Ok(Value::String(hex::encode(Sha256::digest(text(args, 0)))))),
    function("sha512", &[STR], |args, _| Ok(Value::String(hex::encode(Sha512::digest(text(args, 0)))))),
    function("uuidv4", &[], |_, _| {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
        Ok(Value::String(uuid(bytes, 4)))
    }),
    function("uuidv5", &[parameter("namespace", Kind::Text), parameter("name", Kind::Text)], |args, _| {
        let last = match text(args, 0) {
            "dns" => Some(0x10),
            "url" => Some(0x11),
            "oid" => Some(0x12),
            "x500" => Some(0x14),
            _ => None,
        };
        let namespace: Vec<u8> = match last {
            Some(last) => {
                let mut bytes = *b"\x6b\xa7\xb8\x10\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8";
                bytes[3] = last;
                bytes.to_vec()
            }
            None => hex::decode(text(args, 0).replace('-', ""))
                .ok()
                .filter(|bytes| bytes.len() == 16)
                .ok_or_else(|| format!("uuidv5() doesn't support namespace {}", text(args, 0)))?,
        };
        let digest = sha1(&[namespace.as_slice(), text(args, 1).as_bytes()].concat());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Ok(Value::String(uuid(bytes, 5)))
    }),
];

/// RFC 9562, section 4: the version and the variant go into fixed bits.
fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    bytes[6] = bytes[6] & 0x0f | version << 4;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

/// The message and the padding of MD5 and SHA-1: a one bit, zeros, the length in bits.
fn padded(message: &[u8], length: [u8; 8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    bytes.push(0x80);
    while bytes.len() % 64 != 56 {
        bytes.push(0);
    }
    bytes.extend(length);
    bytes
}

/// RFC 3174. Only for names: nothing is trusted because of it.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let bits = (message.len() as u64).wrapping_mul(8);
    for block in padded(message, bits.to_be_bytes()).chunks_exact(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, constant) = match at {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let next = a
                .rotate_left(5)
                .wrapping_add(mixed)
                .wrapping_add(e)
                .wrapping_add(constant)
                .wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// RFC 1321. Only for names: nothing is trusted because of it.
fn md5(message: &[u8]) -> [u8; 16] {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let bits = (message.len() as u64).wrapping_mul(8);
    for block in padded(message, bits.to_le_bytes()).chunks_exact(64) {
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        let [mut a, mut b, mut c, mut d] = state;
        for at in 0..64usize {
            let (mixed, word) = match at / 16 {
                0 => (b & c | !b & d, at),
                1 => (d & b | !d & c, (5 * at + 1) % 16),
                2 => (b ^ c ^ d, (3 * at + 5) % 16),
                _ => (c ^ (b | !d), (7 * at) % 16),
            };
            // The constants are the digits of sines: floor(2^32 * |sin(i + 1)|).
            let constant = (((at + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a.wrapping_add(mixed).wrapping_add(constant).wrapping_add(words[word]);
            let next = b.wrapping_add(sum.rotate_left(SHIFTS[at / 16][at % 4]));
            (a, d, c, b) = (d, c, b, next);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 16];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_their_standards() {
        assert_eq!(hex::encode(md5(b"")), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex::encode(md5(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex::encode(sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let long = vec![b'a'; 1000];
        assert_eq!(hex::encode(sha1(&long)), "291e9a6c66994949b57ba5e650361e98fc36b1ba");
    }
}
