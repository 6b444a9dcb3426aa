# SPDX-License-Identifier: GPL-2.0
"""Errors that the commands show to the user, each as one sentence."""


class MachineError(Exception):
    """A machine could not be run."""


class UnknownName(Exception):
    """The user named a suite or a configuration that does not exist."""


class ListsDiffer(Exception):
    """A list that the suites must agree with names something else."""
