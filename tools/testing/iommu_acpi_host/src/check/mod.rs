// SPDX-License-Identifier: GPL-2.0

//! What the parsers must make of any bytes, written from the specifications a second time.
//!
//! Shares no code with the parsers: a table is split here by slices, judged as a whole, and then
//! compared with what a parser says of it, whether it takes the table and what is in it. Panics
//! where they differ. Property tests and fuzz targets call it for every table.

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
/// length, which `read` returns. Nothing if a length leads past the end or into the header.
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

/// A table of `signature` whose fixed part has its first bytes that matter, the others zero, from
/// the start of `bytes`, and all that follows in `bytes` behind it.
///
/// So a fuzzer does not have to find the fixed part first.
pub fn with_fixed_part(signature: &[u8; 4], bytes: &[u8]) -> Vec<u8> {
    let (own, rest) = bytes.split_at(bytes.len().min(4));
    let mut table = signature.to_vec();

    table.resize(36, 0);
    table.extend(own);
    table.resize(FIXED, 0);
    table.extend(rest);
    table
}
