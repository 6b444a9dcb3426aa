# SPDX-License-Identifier: GPL-2.0
"""Small machines that each test one case."""
