# SPDX-License-Identifier: GPL-2.0
"""Measures the I/O page tables, Rust against C."""
