# SPDX-License-Identifier: GPL-2.0
"""The body of a patch, from the comments with which its files begin."""

import re
import textwrap

WIDTH = 72


def paragraphs(name, text):
    """Return the paragraphs of the comment at the top of a file."""
    lines = []
    if name.endswith(".rs"):
        for line in text.splitlines():
            if line.startswith("//!"):
                lines.append(line[3:].strip())
            elif lines:
                break
    elif name.endswith((".c", ".h")):
        found = re.search(r"\A(?://.*\n)?/\*\n(?P<text>(?: \*.*\n)+?) \*/", text)
        lines = [line[2:].strip() for line in found["text"].splitlines()] if found else []
    elif name.endswith(".rst"):
        return []
    return [part for part in re.split(r"\n{2,}", "\n".join(lines).strip()) if part]


def plain(paragraph):
    """Turn the markup of rustdoc into plain text, and keep the items of a list apart."""
    paragraph = re.sub(r"\[(`[^`]+`|[^\]`]+)\](?:\([^)]*\)|\[[^\]]*\])?", r"\1", paragraph)
    items = re.split(r"\n(?=- |\d+\. )", paragraph.replace("`", ""))
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            WIDTH,
            subsequent_indent=" " * (len(mark[0]) if (mark := re.match(r"- |\d+\. ", item)) else 0),
        )
        for item in items
    )


def of_files(checkout, names):
    """Join the first paragraphs: of one file at most four, of several files one of each."""
    told = []
    texts = {name: paragraphs(name, (checkout / name).read_text()) for name in names}
    texts = {name: found for name, found in texts.items() if found}
    most = 4 if len(texts) == 1 else 1
    for found in texts.values():
        for part in found[:most]:
            # A heading, a table or a picture ends what is prose.
            if re.match(r"[#|]|```", part):
                break
            told.append(plain(part))
    return "\n\n".join(told[:6])
