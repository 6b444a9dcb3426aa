// SPDX-License-Identifier: GPL-2.0

//! Everything that needs `unsafe`: three ioctls.
//!
//! The rest of the program is safe Rust (`unsafe_code` is denied in `Cargo.toml`).

pub(crate) mod ioctl;
