# SPDX-License-Identifier: GPL-2.0
"""What a file says while some of the files and symbols that it names have not come yet."""

import pathlib
import re

MOD = re.compile(r"^\s*(?:pub(?:\([a-z ]+\))? )?mod (?P<name>\w+);$")
USE = re.compile(r"^\s*(?:pub(?:\([a-z ]+\))? )?use (?:self::)?(?P<name>\w+)::")
ROW = re.compile(r"^//! \| (?P<cell>[^|]*`[^|]*) \|")
LINK = re.compile(r"`(\w+)`")
CONFIG = re.compile(r"^(?:menu)?config (?P<name>\w+)$")
OBJECT = re.compile(r"^(?:obj|ccflags|CFLAGS)[\w.]*-\$\(CONFIG_(?P<name>\w+)\)")
OURS = re.compile(r"RUST_(?:IOMMU|INTEL|AMD)\w*|PAGE_WRITER\w*")


def folder_of_children(name):
    """Return the folder that holds the modules of a Rust file."""
    path = pathlib.PurePath(name)
    if path.name in ("mod.rs", "lib.rs") or path.stem == path.parent.name:
        return path.parent
    return path.with_suffix("")


def rust(name, text, names):
    """Leave out the modules whose files are missing, and what is used of them."""
    folder = folder_of_children(name)
    lines, kept, absent = text.split("\n"), [], set()
    for line in lines:
        if found := MOD.match(line):
            files = (f"{folder}/{found['name']}.rs", f"{folder}/{found['name']}/mod.rs")
            if not names.intersection(files):
                absent.add(found["name"])
    inside = False
    for line in lines:
        if inside:
            inside = not line.endswith(";")
            continue
        mod, use, row = MOD.match(line), USE.match(line), ROW.match(line)
        if (mod and mod["name"] in absent) or (use and use["name"] in absent):
            inside = not line.endswith(";")
            while kept and re.match(r"^\s*(#\[|///)", kept[-1]):
                kept.pop()
            continue
        if row and set(LINK.findall(row["cell"])) & absent:
            continue
        kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept))


def kconfig(text, names, symbols):
    """Leave out the symbols of later patches, and files of them."""
    blocks = re.split(r"(?m)^(?=(?:menu)?config |# |if |endif|source )", text)
    kept = []
    comment = ""
    for block in blocks:
        if block.startswith("# ") and not block.startswith("# SPDX"):
            comment += block
            continue
        found = CONFIG.match(block.split("\n", 1)[0])
        source = re.match(r'source "([^"]+)"', block)
        if source and source[1] not in names:
            comment = ""
            continue
        if found and found["name"] not in symbols:
            comment = ""
            continue
        kept.append(comment + block)
        comment = ""
    return "".join(kept).rstrip("\n") + "\n"


def makefile(name, text, names, symbols):
    """Leave out the objects of missing symbols and the folders that have no file yet."""
    folder, kept = pathlib.PurePath(name).parent, []
    absent_objects = set()
    for line in text.split("\n"):
        found = OBJECT.match(line)
        if found and found["name"] not in symbols and OURS.match(found["name"]):
            absent_objects.update(re.findall(r"(\w+)\.o\b", line))
            continue
        if (found := re.match(r"^(\w+)-y [:+]?=", line)) and found[1] in absent_objects:
            continue
        if line.startswith("obj-y +="):
            there = [
                word for word in line.split()[2:]
                if not word.endswith("/") or any(n.startswith(f"{folder}/{word}") for n in names)
            ]
            if not there:
                continue
            line = f"obj-y += {' '.join(there)}"
        kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept))


def selftests(text, names, folder):
    """Leave out the programs and objects whose sources are missing."""
    kept = []
    for line in text.split("\n"):
        found = re.match(r"^(?:TEST_GEN_\w+ \+= (\w+)|\w+_O [:+]= \$\(OUTPUT\)/(lib/\w+)\.o)$", line)
        if found and f"{folder}/{found[1] or found[2]}.c" not in names:
            continue
        kept.append(line)
    return "\n".join(kept)


def text_of(name, text, names, symbols):
    """Return what `name` says when the files `names` and the symbols `symbols` are there."""
    path = pathlib.PurePath(name)
    if path.suffix == ".rs":
        return rust(name, text, names)
    if path.name == "Kconfig":
        return kconfig(text, names, symbols)
    if path.name == "Makefile" and "selftests" in name:
        return selftests(text, names, path.parent)
    if path.name.startswith("Makefile"):
        return makefile(name, text, names, symbols)
    if path.name == "index.rst":
        return "".join(
            line for line in text.splitlines(keepends=True)
            if not re.match(r"^ {3}[\w-]+$", line)
            or f"{path.parent}/{line.strip()}.rst" in names
        )
    return text
