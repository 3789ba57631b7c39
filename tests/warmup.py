"""Builds the kernel that the last tests need while the others run; those wait for it at the store's lock.

A program of its own, in the background of a whole run only: a kernel takes minutes, most tests one processor.
"""

from __future__ import annotations

import os

import bundles


def main() -> None:
    os.nice(19)
    bundles.kernel_7()


if __name__ == "__main__":
    main()
