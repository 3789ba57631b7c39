#!/bin/sh
# Run once by busybox init before everything else (::sysinit: in /etc/inittab).
# shellcheck source=umlbuild/launcher/guest/early.sh
. /usr/lib/umlbuild/early
