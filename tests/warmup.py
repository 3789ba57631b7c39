"""Builds the kernels that the last tests need while the others run; those wait for it at the store's lock.

A program of its own, in the background of a whole run only: two kernels take minutes, most tests one processor.
"""

from __future__ import annotations

import os
import shutil

import bundles


def main() -> None:
    os.nice(19)
    bundles.kernel_7()
    project = bundles.CACHE / "tests" / "router"
    ignored = shutil.ignore_patterns("*.lock.toml")
    shutil.copytree(bundles.PROJECT / "recipes", project, ignore=ignored, dirs_exist_ok=True)
    bundles.output_of_build(project / "router.toml", project, "kernel")


if __name__ == "__main__":
    main()
