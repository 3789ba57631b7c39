"""What every stage is handed besides its spec: where to work, what to log to, how to call programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umlbuild.errors import HostError, StepFailed
from umlbuild.host import process
from umlbuild.host.downloads import Downloads, downloads_of
from umlbuild.specs.build import Build


def jobs(environ: Mapping[str, str]) -> int | None:
    """What UMLBUILD_JOBS says, if anything. Raises: HostError if that is no number from 1 on."""
    word = environ.get("UMLBUILD_JOBS")
    if not word:
        return None
    if not (word.isascii() and word.isdigit() and int(word)):
        raise HostError(f"UMLBUILD_JOBS: {word!r} is no number from 1 on", "unset it, or write it like 4")
    return int(word)


@dataclass(frozen=True)
class Context:
    """One step's surroundings; none of it may shape the bytes of the output (it is not in the key)."""

    work: Path
    """A scratch directory, removed when the step ends."""
    log: Path
    """The step's log; programs append to it."""
    sources: Mapping[str, Path] = field(default_factory=dict)
    """The user's files and trees, and tarballs that lie on this machine, by digest."""
    mirrors: Mapping[str, str] = field(default_factory=dict)
    """Archive name ("debian", "security") → base URLs, see `host.mirrors`."""
    downloads: Path | None = None
    """Where what was fetched is kept for all recipes, see `host.downloads`; None: in `work`."""
    build: Build = field(default_factory=Build)
    """How the recipe wants its kernel compiled."""
    note: Callable[[str], None] = lambda _text: None
    """Tell the reporter what is going on (one short line, e.g. "12 of 125 packages")."""

    def cores(self, more: int = 0) -> int:
        """How many compilers may run at once: UMLBUILD_JOBS, else what the recipe says, else the cores that this
        process may use and `more`. Raises: HostError.
        """
        return jobs(os.environ) or self.build.jobs or len(os.sched_getaffinity(0)) + more

    @property
    def kept_downloads(self) -> Downloads:
        """The downloads, kept or not."""
        return downloads_of(self.downloads or self.work / "downloads")

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 3600,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
        ok: Sequence[int] = (0,),
    ) -> int:
        """`process.run` with this step's log."""
        return process.run(
            argv, log=self.log, timeout_s=timeout_s, cwd=cwd, env=env, stdin=stdin, stdout=stdout, ok=ok
        )

    def pipeline(
        self,
        commands: Sequence[Sequence[str]],
        *,
        timeout_s: float = 3600,
        cwd: Path | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
    ) -> None:
        """`process.pipeline` with this step's log."""
        process.pipeline(commands, log=self.log, timeout_s=timeout_s, cwd=cwd, stdin=stdin, stdout=stdout)

    def source(self, digest: str, what: str) -> Path:
        """The path of a user's file or tree by its digest. Raises: StepFailed if it is not there any more."""
        try:
            return self.sources[digest]
        except KeyError:
            raise StepFailed(f"{what}: the file with sha256 {digest} is not there any more") from None
