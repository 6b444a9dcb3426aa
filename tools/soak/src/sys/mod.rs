// SPDX-License-Identifier: GPL-2.0

//! Everything that needs `unsafe`: ioctls, signals.
//!
//! The rest of the program is safe Rust (`unsafe_code` is denied in `Cargo.toml`).

pub(crate) mod call;
pub(crate) mod iommufd;
pub(crate) mod signal;
pub(crate) mod vfio;
