// SPDX-License-Identifier: GPL-2.0

//! Everything that needs `unsafe`: three ioctls, and memory that a device changes behind our back.
//!
//! The rest of the program is safe Rust (`unsafe_code` is denied in `Cargo.toml`).

pub(crate) mod ioctl;
pub(crate) mod mapping;

pub(crate) use mapping::Mapping;
