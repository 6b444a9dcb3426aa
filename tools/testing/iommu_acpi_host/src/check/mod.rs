// SPDX-License-Identifier: GPL-2.0

//! The required result of the parsers for any bytes: a second implementation of the
//! specifications.
//!
//! Shares no code with the parsers: this module splits a table by slices, checks it as a whole,
//! and compares the parser's result: whether it accepts the table, and the content. Panics if
//! they differ. Property tests and fuzz targets call it for every table.

mod dmar;
mod ivrs;

pub use dmar::dmar;
pub use ivrs::ivrs;

/// Bytes of the fixed part of both tables.
const FIXED: usize = 48;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16_at(bytes, at))
        | u64::from(u16_at(bytes, at + 2)) << 16
        | u64::from(u16_at(bytes, at + 4)) << 32
        | u64::from(u16_at(bytes, at + 6)) << 48
}

/// Splits records that follow each other: `header` bytes at the start of each hold its type and
/// length, which `read` returns. Nothing if a length extends past the end or ends inside the
/// header.
fn split(
    mut rest: &[u8],
    header: usize,
    read: impl Fn(&[u8]) -> (u16, usize),
) -> Option<Vec<(u16, &[u8])>> {
    let mut records = Vec::new();

    while !rest.is_empty() {
        if rest.len() < header {
            return None;
        }
        let (kind, len) = read(rest);
        if len < header || len > rest.len() {
            return None;
        }
        records.push((kind, &rest[..len]));
        rest = &rest[len..];
    }
    Some(records)
}

/// A table of `signature`: the start of `bytes` becomes the first significant bytes of the fixed
/// part, whose other bytes are zero; the rest of `bytes` follows the fixed part.
///
/// So a fuzzer need not find the fixed part first.
pub fn with_fixed_part(signature: &[u8; 4], bytes: &[u8]) -> Vec<u8> {
    let (own, rest) = bytes.split_at(bytes.len().min(4));
    let mut table = signature.to_vec();

    table.resize(36, 0);
    table.extend(own);
    table.resize(FIXED, 0);
    table.extend(rest);
    table
}
