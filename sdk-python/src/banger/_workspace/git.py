"""Runs git, so that it does what it is told and nothing else; as `workspace/src/command` in Rust.

git takes orders from many places: the environment, the system's and the user's configuration, the repository's, hooks,
helpers. Here the environment is made from nothing, the configuration of system and user is not read, and what of the
repository's could start programs or hide changes is set on the command line, which comes before it. Output is bounded,
and every command has a deadline.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import IO, BinaryIO

COMMAND_SECONDS = 1800.0
"""How long one command may take: the largest repositories take minutes where the processor is slow."""
OUTPUT_MAX_BYTES = 64 << 20
_COMPLAINT_MAX_BYTES = 4 << 10
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ENVIRONMENT = {
    "PATH": _SEARCH_PATH,
    "HOME": "/",
    "LC_ALL": "C",
    "TZ": "UTC",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "false",
    "SSH_ASKPASS": "false",
    "GIT_SSH_COMMAND": "false",
    "GIT_EDITOR": "false",
    "GIT_SEQUENCE_EDITOR": "false",
    "GIT_PAGER": "cat",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    # No name of a protocol: none is allowed.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_ADVICE": "0",
}

# Settings that come before those of the repository.
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.sshCommand=false",
    "core.gitProxy=",
    "core.askPass=false",
    "core.pager=cat",
    "core.editor=false",
    "core.alternateRefsCommand=true",
    "core.quotePath=false",
    "core.splitIndex=false",
    "core.ignoreStat=false",
    "core.trustctime=true",
    "core.checkStat=default",
    "core.sparseCheckout=false",
    "core.safecrlf=false",
    "core.warnAmbiguousRefs=false",
    "credential.helper=",
    "protocol.allow=never",
    "diff.external=",
    "diff.ignoreSubmodules=none",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "uploadpack.packObjectsHook=",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "log.showSignature=false",
    "checkout.workers=0",
    "safe.directory=*",
)

Argument = str | bytes
Feed = Callable[[BinaryIO], None]


class GitError(Exception):
    """A command did not do what it was for."""


class GitMissing(GitError):
    """There is no git."""

    def __init__(self) -> None:
        super().__init__("git was not found")


class GitFailed(GitError):
    """A command ended badly."""

    def __init__(self, command: str, code: int, complaint: str) -> None:
        how = f"ended with {code}" if code >= 0 else f"was ended by signal {-code}"
        super().__init__(f"`git {command}` {how}: {complaint}")
        self.code = code
        self.complaint = complaint


def lines(ids: Iterable[str]) -> Feed:
    """Feeds a command a line for each."""

    def feed(to: BinaryIO) -> None:
        for text in ids:
            to.write(text.encode() + b"\n")

    return feed


class Git:
    """git, at a place. It looks for a repository there and nowhere above."""

    def __init__(self, directory: bytes, *, within: float = COMMAND_SECONDS) -> None:
        self.directory = directory
        self._within = within
        self._environment: dict[str, str | bytes] = {"GIT_CEILING_DIRECTORIES": os.path.dirname(directory)}
        self._settings: list[bytes] = []

    def _copy(self) -> Git:
        made = Git(self.directory, within=self._within)
        made._environment = dict(self._environment)
        made._settings = list(self._settings)
        return made

    def with_env(self, **variables: str | bytes) -> Git:
        """The same with more variables in its environment."""
        made = self._copy()
        made._environment.update(variables)
        return made

    def with_setting(self, setting: bytes) -> Git:
        """The same with one more setting, `name=value`."""
        made = self._copy()
        made._settings.append(setting)
        return made

    def run(self, *arguments: Argument, feed: Feed | None = None) -> bytes:
        """Runs a command that must succeed, and returns its output.

        Raises:
            GitError: If it fails, says more than `OUTPUT_MAX_BYTES`, or takes too long.
        """
        with self.pipe(*arguments, feed=feed) as output:
            kept = output.read(OUTPUT_MAX_BYTES + 1)
            if len(kept) > OUTPUT_MAX_BYTES:
                raise GitError(f"`git {_text(arguments[0])}` has more than {OUTPUT_MAX_BYTES} bytes of output")
        return kept

    def line(self, *arguments: Argument) -> str:
        """The same as one line of text, without its end."""
        return self.run(*arguments).decode(errors="replace").rstrip("\n")

    def test(self, *arguments: Argument) -> bool:
        """Whether a command succeeds."""
        try:
            self.run(*arguments)
        except GitFailed as error:
            if error.code < 0:
                raise
            return False
        return True

    def optional(self, *arguments: Argument) -> bytes | None:
        """The output of a command that says no by ending with 1; None then."""
        try:
            return self.run(*arguments)
        except GitFailed as error:
            if error.code != 1:
                raise
            return None

    @contextlib.contextmanager
    def pipe(self, *arguments: Argument, feed: Feed | None = None) -> Iterator[IO[bytes]]:
        """Runs a command that must succeed, and gives its output to read while `feed` writes its input. Whoever has
        enough of it early ends it.
        """
        command = _text(arguments[0])
        program = shutil.which("git", path=_SEARCH_PATH)
        if program is None:
            raise GitMissing
        words: list[Argument] = [program, "--no-pager"]
        settings: list[Argument] = [*_SETTINGS, *self._settings]
        for setting in settings:
            words += ["-c", setting]
        words += arguments
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env={**_ENVIRONMENT, **self._environment},
            # Its group is ended as a whole, and the terminal's Ctrl-C is not its.
            start_new_session=True,
        )
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(self._within, end)
        timer.daemon = True
        timer.start()
        talk = _Talk(process, feed)
        try:
            assert process.stdout is not None
            yield process.stdout
            talk.end()
            code = process.wait()
        except BaseException as error:
            _kill(process)
            process.wait()
            talk.end()
            if late.is_set():
                raise GitError(f"`git {command}` took longer than {self._within:g} s") from error
            raise
        finally:
            timer.cancel()
        if late.is_set():
            raise GitError(f"`git {command}` took longer than {self._within:g} s")
        # A broken pipe is how a command looks that has ended; anything else is why it has.
        if talk.failed is not None and (code == 0 or not isinstance(talk.failed, BrokenPipeError)):
            raise talk.failed
        if code != 0:
            raise GitFailed(command, code, talk.complaint)


class _Talk:
    """A command's input and complaints, each in a thread."""

    def __init__(self, process: subprocess.Popen[bytes], feed: Feed | None) -> None:
        self._process = process
        self._feed = feed
        self.failed: BaseException | None = None
        self.complaint = ""
        self._threads = [
            threading.Thread(target=run, name="banger-git", daemon=True) for run in (self._give, self._hear)
        ]
        for thread in self._threads:
            thread.start()

    def _give(self) -> None:
        to = self._process.stdin
        assert to is not None
        try:
            with contextlib.closing(to):
                if self._feed is not None:
                    self._feed(to)  # type: ignore[arg-type]
        except BaseException as error:
            self.failed = error

    def _hear(self) -> None:
        heard = self._process.stderr
        assert heard is not None
        with heard:
            kept = heard.read(_COMPLAINT_MAX_BYTES)
            while heard.read(1 << 16):
                pass
        self.complaint = kept.decode(errors="replace").strip().replace("\n", "; ")

    def end(self) -> None:
        """Reads the rest, which nobody wants, so that the command can end."""
        out = self._process.stdout
        assert out is not None
        with contextlib.suppress(ValueError, OSError):
            out.close()
        for thread in self._threads:
            thread.join()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _text(argument: Argument) -> str:
    return argument if isinstance(argument, str) else argument.decode(errors="replace")


def fields(answer: bytes) -> list[bytes]:
    """The fields of an answer in which each ends with a zero byte."""
    return [field for field in answer.split(b"\0") if field]
