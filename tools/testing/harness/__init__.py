# SPDX-License-Identifier: GPL-2.0
"""Runs the tests: machines, suites, their results and the cache of results."""

import pathlib

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
