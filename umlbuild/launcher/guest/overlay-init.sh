#!/bin/sh
# Process 1 of a machine whose root is read-only (squashfs, erofs): lay an overlay over it, make that the
# root, hand over to the real init. Writes go where the kernel command line says:
#
#   umlbuild.overlay=tmpfs        memory, gone at power-off (the default)
#   umlbuild.overlay=/dev/ubdX    a disk with an ext4 on it, kept
#   umlbuild.init=/sbin/init      the real init (the default)
#
# Afterwards the image is seen through the overlay only.
# Runs with dash and with busybox; needs mount, mkdir and pivot_root, and /proc as an empty directory.
# Source: pivot_root(2) (after it the old root is unmounted lazily, the shell still runs from it);
# Documentation/filesystems/overlayfs.rst (upper and work on one file system).

PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

fail() {
    echo "umlbuild: overlay root: $1" >&2
    # Process 1 ends, the kernel panics, and the launcher tells it apart from an orderly end.
    exit 1
}

# applet NAME ARGUMENT…: a small root has busybox without links to it. (No redirection to /dev/null in here:
# /dev is moved away halfway, and a command whose redirection fails is not run.)
applet() {
    if [ -n "$(command -v "$1")" ]; then "$@"; else /bin/busybox "$@"; fi
}

mounted() {
    while read -r _ at _; do
        [ "$at" = "$1" ] && return 0
    done </proc/mounts
    return 1
}

[ -e /proc/self ] || applet mount -t proc -o nosuid,nodev,noexec proc /proc || fail "/proc cannot be mounted"
writes=tmpfs init=/sbin/init
set -f # words are taken as they are, not as patterns
read -r words </proc/cmdline
for word in $words; do
    case $word in
        --) break ;;
        umlbuild.overlay=*) writes=${word#*=} ;;
        umlbuild.init=*) init=${word#*=} ;;
    esac
done

# A place for mount points; nothing below / can be made, so it is a tmpfs on a directory that every root has.
base=/run
[ -d "$base" ] || base=/tmp
[ -d "$base" ] || fail "there is neither /run nor /tmp in the image"
applet mount -t tmpfs -o mode=0755,nosuid,nodev umlbuild "$base" || fail "$base: no tmpfs"
applet mkdir -p "$base/writes" "$base/root" || fail "$base: no directories"
case $writes in
    tmpfs) applet mount -t tmpfs -o mode=0755 umlbuild "$base/writes" || fail "no tmpfs for the writes" ;;
    /dev/*)
        [ -b "$writes" ] || fail "$writes: no such disk"
        applet mount -t ext4 -o discard "$writes" "$base/writes" || fail "$writes: cannot be mounted"
        ;;
    *) fail "umlbuild.overlay=$writes: must be tmpfs or a disk" ;;
esac
applet mkdir -p "$base/writes/upper" "$base/writes/work" || fail "$writes: no directories"
applet mount -t overlay -o "lowerdir=/,upperdir=$base/writes/upper,workdir=$base/writes/work" \
    umlbuild "$base/root" || fail "the kernel refuses the overlay"

[ -e "$base/root$init" ] || [ -L "$base/root$init" ] || fail "$init: no such init"
applet mkdir -p "$base/root/proc" "$base/root/dev" "$base/root/mnt" || fail "no mount points in the overlay"
# The kernel mounts devtmpfs (DEVTMPFS_MOUNT); a guest without it has its own nodes in the image.
if mounted /dev; then
    applet mount --move /dev "$base/root/dev" || fail "/dev cannot be moved"
fi
applet mount --move /proc "$base/root/proc" || fail "/proc cannot be moved"

cd "$base/root" || fail "the overlay cannot be entered"
# The old root goes where the overlay can hold it; busybox and util-linux both take relative names here.
applet pivot_root . mnt || fail "pivot_root"
# Detached, not unmounted: this shell still runs from it, and the overlay keeps its layers by itself.
applet umount -l /mnt || echo "umlbuild: overlay root: the image is still mounted at /mnt" >&2

# The console that the kernel opened belongs to the old /dev, which moved along.
exec "$init" "$@"
