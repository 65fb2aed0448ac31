"""Patterns of paths: `*` and `?` stop at slashes, `**` stands for any number of directories."""

from __future__ import annotations

import re


def expression(pattern: str) -> re.Pattern[str]:
    """What fits a pattern, for `fullmatch`.

    Raises:
        ValueError: If it is no pattern.
    """
    out, at, depth = [], 0, 0
    while at < len(pattern):
        letter = pattern[at]
        begins_name = at == 0 or pattern[at - 1] == "/"
        if begins_name and pattern.startswith("**/", at):
            out.append("(?:[^/]+/)*")
            at += 3
            continue
        if begins_name and pattern[at:] == "**":
            out.append(".+" if at else ".*")
            break
        if letter == "*":
            out.append("[^/]*")
        elif letter == "?":
            out.append("[^/]")
        elif letter == "[":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise ValueError(f"`{pattern}` has an open bracket")
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            is_negated = inside[0] in "!^"
            out.append(f"(?!/)[{'^' if is_negated else ''}{inside[1:] if is_negated else inside}]")
            at = end
        elif letter == "{":
            depth += 1
            out.append("(?:")
        elif letter == "}" and depth:
            depth -= 1
            out.append(")")
        elif letter == "," and depth:
            out.append("|")
        elif letter == "\\" and at + 1 < len(pattern):
            at += 1
            out.append(re.escape(pattern[at]))
        else:
            out.append(re.escape(letter))
        at += 1
    if depth:
        raise ValueError(f"`{pattern}` has an open brace")
    try:
        return re.compile("".join(out), re.S)
    except re.error as error:
        raise ValueError(f"`{pattern}` is no pattern: {error}") from None


class Ignored:
    """What `.dockerignore` names, by Docker's rules: what matches a directory matches all in it; of several patterns
    the last one that matches counts, and one with `!` takes a path back in.
    """

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[re.Pattern[str], bool]] = []
        for line in text.removeprefix("\ufeff").splitlines():
            line = line.strip()
            if line.startswith("#"):
                continue
            takes_back = line.startswith("!")
            names = [name for name in line.removeprefix("!").strip().split("/") if name not in ("", ".")]
            if names:
                self._rules.append((expression("/".join(names)), takes_back))
        self.takes_back = any(takes_back for _, takes_back in self._rules)
        """Whether something in an ignored directory may be taken back."""

    def __contains__(self, path: str) -> bool:
        names = path.split("/")
        above = ["/".join(names[:depth]) for depth in range(1, len(names) + 1)]
        ignored = False
        for rule, takes_back in self._rules:
            if takes_back == ignored and any(rule.fullmatch(one) for one in above):
                ignored = not takes_back
        return ignored
