# SPDX-License-Identifier: GPL-2.0
"""Firmware tables for a test machine, which replace those of its emulator.

The kernel takes tables from kernel/firmware/acpi/ of an uncompressed archive in front
of the initramfs (Documentation/admin-guide/acpi/initrd_table_override.rst). One
replaces a table of the firmware if signature and OEM names are the same and its
OEM revision is higher; else it is added.

Records are bytes that a test may change before it puts them into a table: this module does
not validate them.
"""

import struct
import uuid

# QEMU's names of its tables; its revision is 1.
OEM = b"BOCHS BXPC    " + struct.pack("<I4sI", 2, b"TEST", 1)

# The addresses of the registers of QEMU's units.
VTD_BASE = 0xFED90000
AMDVI_BASE = 0xFED80000
# An address without a device: reads are zero.
NO_REGISTERS = 0xFED70000
# The address of the edu device's registers. Undefined ones read as ones, like a unit that
# firmware names but the machine does not have.
ONES = 0xFE900000

# QEMU's AMD-Vi unit as a PCI function: 00:01.0, and where its capability is.
AMDVI_FUNCTION = 0x0008
AMDVI_CAPABILITY = 0x40

# The requester ID of the I/O APIC there.
IO_APIC = 0x00A0

ENDPOINT = 1
BRIDGE = 2
IO_APIC_SCOPE = 3
# A device that is not on a PCI bus and has a name in ACPI.
NAMESPACE = 5

# The requester ID of the I/O APIC in QEMU's machine with a VT-d unit.
VTD_IO_APIC = 0xFF00

# Flags of a DMAR table.
INTR_REMAP = 1 << 0
X2APIC_OPT_OUT = 1 << 1
REMAP_OPT_OUT = 1 << 3


def table(signature, body, revision=1):
    """Return an ACPI table with a good header around `body`."""
    length = 36 + len(body)
    header = signature + struct.pack("<IBB", length, revision, 0) + OEM
    whole = bytearray(header + body)
    whole[9] = -sum(whole) & 0xFF
    return bytes(whole)


def bdf(device, function=0, bus=0):
    """Return the requester ID of a PCI function."""
    return bus << 8 | device << 3 | function


# DMAR (VT-d specification, chapter 8)


def dmar(*records, width=39, flags=0):
    """Return a DMAR table for machines with host addresses of `width` bits."""
    return table(b"DMAR", struct.pack("<BB10x", width - 1, flags) + b"".join(records))


def dmar_record(kind, body):
    """Return a record of the table, with its length."""
    return struct.pack("<HH", kind, 4 + len(body)) + body


def scope(source, kind=ENDPOINT):
    """Return a device scope of one step."""
    return struct.pack("<BBHBBBB", kind, 8, 0, 0, source >> 8, source >> 3 & 31, source & 7)


def drhd(base=VTD_BASE, *scopes, include_all=True, segment=0):
    """Return a remapping unit."""
    fixed = struct.pack("<BBHQ", include_all, 0, segment, base)
    return dmar_record(0, fixed + b"".join(scopes))


def rmrr(first, last, *scopes, segment=0):
    """Return memory that the devices of `scopes` must reach untranslated."""
    return dmar_record(1, struct.pack("<HHQQ", 0, segment, first, last) + b"".join(scopes))


def rhsa(base, proximity):
    """Return the record of a unit's proximity domain (RHSA)."""
    return dmar_record(3, struct.pack("<IQI", 0, base, proximity))


def satc(*scopes, required=True, segment=0):
    """Return devices that do not work without their translation caches, or do."""
    return dmar_record(5, struct.pack("<BBH", required, 0, segment) + b"".join(scopes))


# IVRS (AMD I/O Virtualization specification, 5.2)


def ivrs(*blocks, info=0x00203042):
    """Return an IVRS table; `info` is QEMU's, 48 bits of addresses."""
    return table(b"IVRS", struct.pack("<I8x", info) + b"".join(blocks))


def ivhd_all():
    """Return a device entry for all requester IDs."""
    return struct.pack("<BHB", 0x01, 0, 0)


def ivhd_one(source):
    """Return a device entry for one requester ID."""
    return struct.pack("<BHB", 0x02, source, 0)


def ivhd_range(first, last):
    """Return the device entries for a range of requester IDs."""
    return struct.pack("<BHBBHB", 0x03, first, 0, 0x04, last, 0)


def ivhd_alias(source, alias):
    """Return a device entry for one requester ID whose requests carry another."""
    return struct.pack("<BHBBHB", 0x42, source, 0, 0, alias, 0)


def ivhd_io_apic(source=IO_APIC):
    """Return a device entry for the I/O APIC, whose interrupts pass the unit too."""
    return struct.pack("<BHBBHB", 0x48, 0, 0, 0, source, 1)


def ivhd_timer(source):
    """Return a device entry for an HPET, whose interrupts do the same."""
    return struct.pack("<BHBBHB", 0x48, 0, 0, 0, source, 2)


def ivhd(
    *entries,
    kind=0x11,
    function=AMDVI_FUNCTION,
    capability=AMDVI_CAPABILITY,
    base=AMDVI_BASE,
    features=0,
    length=None,
):
    """Return a remapping unit; `length` overrides the true length.

    `features` are the features of the unit according to firmware: the old block has a
    separate format, others hold an image of the extended feature register.
    """
    body = struct.pack("<HHQHH", function, capability, base, 0, 0)
    body += struct.pack("<I", features) if kind == 0x10 else struct.pack("<IQQ", 0, features, 0)
    body += b"".join(entries)
    return struct.pack("<BBH", kind, 0, length or 4 + len(body)) + body


def ivmd(source, first, size, flags=0b111):
    """Return memory that a function must reach untranslated: UNITY, readable and
    writable."""
    return struct.pack("<BBHHHH6xQQ", 0x21, flags, 32, source, 0, 0, first, size)


def ivrs_unknown(kind=0x55, size=12):
    """Return a block of an unknown type."""
    return struct.pack("<BBH", kind, 0xAA, size) + b"\xaa" * (size - 4)


# AML (ACPI specification, chapter 20), only what one property needs

EXTERNAL_FACING = uuid.UUID("efcc06cc-73ac-4bc3-bff0-76143807c389")


def _package_length(size):
    """Return a package length in AML's encoding, including its own bytes."""
    if size < 63:
        return bytes([size + 1])
    return bytes([0x40 | (size + 2) & 15, (size + 2) >> 4])


def _package(*elements):
    body = bytes([len(elements)]) + b"".join(elements)
    return b"\x12" + _package_length(len(body)) + body


def _buffer(content):
    body = bytes([0x0A, len(content)]) + content
    return b"\x11" + _package_length(len(body)) + body


def external_facing_port(path):
    """Return an SSDT that marks the port at `path` as external.

    `path` has a name of four characters for each level below the root.
    """
    word = b"\x0dExternalFacingPort\0"
    properties = _package(_buffer(EXTERNAL_FACING.bytes_le), _package(_package(word, b"\x01")))
    body = b"\\\x2f" + bytes([len(path)]) + "".join(path).encode()
    body += b"\x08_DSD" + properties
    return table(b"SSDT", b"\x10" + _package_length(len(body)) + body, revision=2)
