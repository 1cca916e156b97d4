//! Bodies in every encoding: whole, cut, garbled and explosive.

use super::*;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn decode(encoding: Encoding, body: &[u8], piece_len: usize) -> Result<Vec<u8>> {
    let options = CompressionOptions {
        plain_bytes_max: 8 << 20,
        ..CompressionOptions::default()
    };
    let mut decompressor = Decompressor::new(encoding, options)?;
    for piece in body.chunks(piece_len) {
        decompressor.push(piece)?;
    }
    decompressor.finish()
}

fn plain() -> Vec<u8> {
    (0..40_000_u32)
        .flat_map(|i| format!("line {} {i}\n", i.wrapping_mul(2_654_435_761)).into_bytes())
        .collect()
}

fn bodies() -> Vec<(Encoding, Vec<u8>)> {
    let plain = plain();
    let (a, b) = plain.split_at(plain.len() / 3);
    vec![
        (Encoding::Gzip, gzip(&plain)),
        (Encoding::Gzip, [gzip(a), gzip(b)].concat()),
        (Encoding::Zstd, zstd(&plain)),
        (Encoding::Zstd, [zstd(a), zstd(b)].concat()),
        (Encoding::Deflate, zlib(&plain)),
        (Encoding::Deflate, raw_deflate(&plain)),
        (Encoding::Identity, plain.clone()),
    ]
}

#[test]
fn every_encoding_gives_back_the_body_however_it_is_cut() {
    for (encoding, body) in bodies() {
        for piece_len in [1, 7, 4096, usize::MAX] {
            let decoded = decode(encoding, &body, piece_len).unwrap();
            assert!(decoded == plain(), "{encoding:?} in pieces of {piece_len}");
        }
    }
}

#[test]
fn a_cut_or_garbled_body_is_refused() {
    for (encoding, body) in bodies() {
        if encoding == Encoding::Identity {
            continue;
        }
        for cut in [1, 2, 9, body.len() / 2, body.len() - 1] {
            let error = decode(encoding, &body[..cut], 4096).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Invalid, "{encoding:?} cut at {cut}");
        }
    }
    for (encoding, mut body) in [
        (Encoding::Gzip, gzip(&plain())),
        (Encoding::Zstd, zstd(&plain())),
    ] {
        let crc_at = body.len() - if encoding == Encoding::Gzip { 6 } else { 2 };
        body[crc_at] ^= 1;
        let error = decode(encoding, &body, 4096).unwrap_err();
        assert_eq!(error.code, "invalid_compression", "{encoding:?}");
    }
    decode(Encoding::Gzip, b"{\"not\":\"gzip\"}", 4096).unwrap_err();
    decode(Encoding::Zstd, b"{\"not\":\"zstd\"}", 4096).unwrap_err();
    decode(
        Encoding::Gzip,
        &[&gzip(b"a")[..], b"garbage behind it"].concat(),
        4096,
    )
    .unwrap_err();
}

#[test]
fn an_empty_body_is_empty_in_every_encoding() {
    for encoding in [
        Encoding::Identity,
        Encoding::Gzip,
        Encoding::Zstd,
        Encoding::Deflate,
    ] {
        assert_eq!(decode(encoding, b"", 1).unwrap(), b"");
    }
    assert_eq!(decode(Encoding::Gzip, &gzip(b""), 1).unwrap(), b"");
    assert_eq!(decode(Encoding::Zstd, &zstd(b""), 1).unwrap(), b"");
}

#[test]
fn bombs_are_stopped_by_the_limit_or_by_the_ratio() {
    let zeros = vec![b'0'; 64 << 20];
    for (encoding, bomb) in [
        (Encoding::Gzip, gzip(&zeros)),
        (Encoding::Zstd, zstd(&zeros)),
        (Encoding::Deflate, zlib(&zeros)),
    ] {
        let mut decompressor = Decompressor::new(encoding, CompressionOptions::default()).unwrap();
        let error = decompressor
            .push(&bomb)
            .and_then(|()| decompressor.finish())
            .map(|plain| plain.len());
        let error = match (encoding, error) {
            // 1,028:1 is the most deflate can do: it ends near the ratio limit or at the size limit.
            (_, Err(error)) => error,
            (encoding, Ok(len)) => {
                assert_ne!(encoding, Encoding::Zstd, "{len}");
                decode(encoding, &bomb, 4096).unwrap_err()
            }
        };
        assert_eq!(error.kind, ErrorKind::TooLarge, "{encoding:?}");
    }
    let error = decode(Encoding::Identity, &zeros, 4096).unwrap_err();
    assert!(error.message.contains("8388608"), "{error}");
}

#[test]
fn a_zstd_window_over_the_limit_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&plain()).unwrap();
    let error = decode(Encoding::Zstd, &encoder.finish().unwrap(), 4096).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
}

#[test]
fn unknown_and_nested_encodings_are_refused_with_the_names_of_the_known() {
    assert_eq!(Encoding::from_header(" GZIP ").unwrap(), Encoding::Gzip);
    for value in ["br", "gzip, gzip", "snappy", "\u{1f600}"] {
        let error = Encoding::from_header(value).unwrap_err();
        assert_eq!(error.kind, ErrorKind::UnsupportedMedia);
        assert!(error.message.contains(ACCEPTED));
    }
}
