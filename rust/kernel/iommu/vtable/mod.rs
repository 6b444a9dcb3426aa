// SPDX-License-Identifier: GPL-2.0

//! The tables of callbacks that C calls.

pub(super) mod device;
pub(super) mod dirty;
pub(super) mod domain;
pub(super) mod static_domains;
