// SPDX-License-Identifier: GPL-2.0

//! Everything that needs `unsafe`: memory that a device changes meanwhile, registers, and the calls of
//! vfio.
//!
//! The rest of the program is safe Rust (`unsafe_code` is denied in `Cargo.toml`).

pub(crate) mod vfio;
pub(crate) mod window;
