#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Find circles of imports between the Rust files of a folder.

A file imports another if its code names an item of it, in a 'use' or by a path. Comments,
strings and code for tests or for rustdoc do not count. A name that a file only re-exports
belongs to the file that defines it.
"""

import pathlib
import re
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent.parent

# Each folder, and its name in a path. Inside another of these folders it counts as one file.
ROOMS = {
    "rust/kernel/iommu": ("kernel", "iommu"),
    "rust/kernel/iommu/pt": ("kernel", "iommu", "pt"),
    "drivers/iommu/rust/vtd": ("crate",),
    "drivers/iommu/rust/amdvi": ("crate",),
}
# What macros define in the root of a crate, so that its modules have to name the root.
BY_MACRO = {"module_parameters"}

NOT_CODE = re.compile(
    r'//[^\n]*|/\*.*?\*/|b?"(?:\\.|[^"\\])*"|(?<![\w])b?\'(?:\\.|[^\'\\])\'', re.DOTALL
)
HIDDEN = re.compile(
    r"#\[cfg\((?:doc|test|any\(test[^\]]*|[^\]]*KUNIT_TEST[^\]]*)\)\]\s*(?:#\[[^\]]*\]\s*)*"
)
USE = re.compile(r"(?m)^\s*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
MOD = re.compile(r"(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+);")
PATH = re.compile(r"(?<![\w:])((?:super|self|crate|kernel)(?:\s*::\s*\w+)+)")


def without_hidden(text):
    """Drop each item that follows a #[cfg] for tests or rustdoc; return the modules among them."""
    hidden, is_use = set(), re.compile(r"(?:pub\S*\s+)?use\b")
    while match := HIDDEN.search(text):
        end, depth = match.end(), 0
        while end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
            if depth == 0 and text[end - 1] in ";}":
                # A 'use' ends behind its braces.
                if text[end - 1] == ";" or not is_use.match(text, match.end()):
                    break
        item = text[match.end() : end]
        hidden |= set(MOD.findall(item))
        text = text[: match.start()] + text[end:]
    return text, hidden


def leaves(tree):
    """Return the paths of a 'use', each a tuple, with the name that it has in the file."""
    found, prefixes, path = [], [], ()
    for token in re.findall(r"\w+(?:\s+as\s+\w+)?|[{},*]", tree):
        if token == "{":
            prefixes.append(path)
        elif token in ",}":
            if path and path != (prefixes[-1] if prefixes else ()):
                found.append(path)
            path = prefixes[-1] if prefixes else ()
            if token == "}":
                prefixes.pop()
                path = ()
        else:
            path += (token.split()[0],)
    if path:
        found.append(path)
    return [path[:-1] if path[-1] == "self" and len(path) > 1 else path for path in found]


class Room:
    """The files of a folder, by their module path below it."""

    def __init__(self, folder):
        self.folder, self.name = folder, ROOMS[folder]
        self.code, self.uses, self.children, self.files = {}, {}, {}, {}
        inner = [other for other in ROOMS if other.startswith(folder + "/")]
        self.closed = {tuple(other[len(folder) + 1 :].split("/")) for other in inner}
        root = CHECKOUT / folder
        roots = (root / "mod.rs", root / f"{root.name}.rs")
        self.root = next(path for path in roots if path.is_file())
        self.read((), self.root)

    def read(self, module, path):
        """Read a file and those of its modules."""
        text, hidden = without_hidden(NOT_CODE.sub(" ", path.read_text()))
        self.files[module] = path.relative_to(CHECKOUT)
        self.children[module] = set(MOD.findall(text)) - hidden
        self.uses[module] = [
            (bool(use[1]), leaf) for use in USE.finditer(text) for leaf in leaves(use[2])
        ]
        self.code[module] = USE.sub(" ", text)
        is_root = path in (self.root, path.parent / "mod.rs")
        folder = path.parent if is_root else path.with_suffix("")
        for child in self.children[module]:
            known = [folder / f"{child}.rs", folder / child / "mod.rs"]
            found = next((file for file in known if file.is_file()), None)
            if (*module, child) in self.closed:
                self.files[(*module, child)] = (folder / child).relative_to(CHECKOUT)
                self.children[(*module, child)] = set()
                self.uses[(*module, child)], self.code[(*module, child)] = [], ""
            elif found:
                self.read((*module, child), found)

    def absolute(self, module, path):
        """Return a path of `module` from the top of the room, None if it leads out of it."""
        named = path[: len(self.name)]
        if named == self.name or (len(named) > 1 and ("kernel", *named[1:]) == self.name):
            return path[len(self.name) :]
        if path[0] == "self":
            return module + path[1:]
        ups = 0
        while ups < len(path) and path[ups] == "super":
            ups += 1
        if ups:
            return module[: len(module) - ups] + path[ups:] if ups <= len(module) else None
        return module + path if path[0] in self.children[module] else None

    def home(self, path, depth=0):
        """Return the file that defines what a path from the top names."""
        module = path
        while module not in self.files:
            module = module[:-1]
        rest = path[len(module) :]
        if not rest or depth > 8:
            return module
        for public, leaf in self.uses[module]:
            target = self.absolute(module, leaf)
            if public and target and leaf[-1] == rest[0]:
                return self.home(target + rest[1:], depth + 1)
        return module

    def imports(self):
        """Return for each file those that it imports, with the names."""
        found = {}
        for module, code in self.code.items():
            named = found.setdefault(module, {})
            below = "|".join(sorted(self.children[module]))
            paths = [tuple(re.split(r"\s*::\s*", path)) for path in PATH.findall(code)]
            if below:
                inner = re.findall(rf"(?<![\w:.])((?:{below})(?:\s*::\s*\w+)+)", code)
                paths += [tuple(re.split(r"\s*::\s*", path)) for path in inner]
            for public, leaf in self.uses[module]:
                if not public or re.search(rf"\b{leaf[-1]}\b", code):
                    paths.append(leaf)
            for path in paths:
                target = self.absolute(module, path)
                home = self.home(target) if target is not None else module
                if home != module and not BY_MACRO & set(path):
                    named.setdefault(home, set()).add(path[-1])
        return found


def shortest(graph, start):
    """Return the shortest way from `start` back to it, None if there is none."""
    ways, seen = [[start]], set()
    for way in ways:
        for target in sorted(graph[way[-1]]):
            if target == start:
                return way
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return None


def circles(room):
    """Return a line for each step of each circle; no file is in two of the circles."""
    graph, said = room.imports(), []
    found = sorted(filter(None, (shortest(graph, module) for module in graph)), key=len)
    done = set()
    for circle in found:
        if done.isdisjoint(circle):
            done |= set(circle)
            said.append(f"{room.folder}: a circle of {len(circle)} files")
            for here, there in zip(circle, circle[1:] + circle[:1]):
                names = ", ".join(sorted(graph[here][there]))
                said.append(f"  {room.files[here]} -> {room.files[there]}: {names}")
    return said


def check():
    """Return what is wrong, as lines."""
    said = []
    for folder in ROOMS:
        if not (CHECKOUT / folder).is_dir():
            said.append(f"{folder}: does not exist: remove it from ROOMS in tools/lint/circles.py")
            continue
        said += circles(Room(folder))
    return said


if __name__ == "__main__":
    LINES = check()
    print("\n".join(LINES) or "no circle of imports")
    sys.exit(1 if LINES else 0)
