# SPDX-License-Identifier: GPL-2.0
"""Archives in the 'newc' format that the kernel unpacks as its root.

The kernel unpacks several archives in one file in sequence: the runner
appends a job to the image that every guest shares.
"""


def _entry(name, mode, content):
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    record = header + encoded
    record += b"\0" * (-len(record) % 4)
    return record + content + b"\0" * (-len(content) % 4)


def archive(files):
    """Return an archive of executable files, given as name to content."""
    records = [_entry(name, 0o100755, content) for name, content in files.items()]
    return b"".join(records) + _entry("TRAILER!!!", 0, b"")
