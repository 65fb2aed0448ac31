"""Patterns of paths, and what a build's context leaves out."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from banger._glob import Ignored, expression
from banger._pack import pack_content


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("*.env", ["a.env"], ["a/b.env", "a.envy"]),
        ("**/*.env", ["a.env", "a/b/c.env"], ["a"]),
        ("target/**", ["target/a", "target/a/b"], ["target", "other/a"]),
        ("a/**/b", ["a/b", "a/x/y/b"], ["ab", "a/xb"]),
        ("[ab]?.{c,d}", ["ax.c", "bx.d"], ["cx.c", "a/.c"]),
        ("[!a]", ["b"], ["a", "/"]),
        ("a\\*", ["a*"], ["ab"]),
        ("a+(b)", ["a+(b)"], ["aab"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], others: list[str]) -> None:
    found = expression(pattern)
    assert all(found.fullmatch(one) for one in fits)
    assert not any(found.fullmatch(one) for one in others)


@pytest.mark.parametrize("pattern", ["[a", "{a", "[z-a]"])
def test_what_is_no_pattern_is_told(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"no pattern|open"):
        expression(pattern)


def test_what_is_ignored_may_be_taken_back(tmp_path: Path) -> None:
    for name in ("keep/in", "keep/out", "node_modules/x/y", "a.log", "b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    ignored = Ignored("# words\n/node_modules/\n*.log\nkeep\n!keep/in\n")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack_content(tmp_path, ignored)))) as tar:
        assert tar.getnames() == ["b", "keep/in"]
