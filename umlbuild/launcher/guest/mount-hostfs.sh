#!/bin/sh
# mount.hostfs SOURCE DIRECTORY [-o OPTIONS]: called by mount(8) for hostfs, where each share is a mount of its own.
#
# Which directory of the host's is meant is told by an option that is just its path (/0) to old kernels, and to all
# by mount(2); a mount(8) that uses the calls of Linux 5.2 has to say hostfs=/0 to kernels that know them for hostfs.
# Source: mount(8), "external helpers"; measured with 6.1 and 7.3, util-linux 2.38 and 2.41.

source=$1 directory=$2 words='' spelled=''
shift 2
while getopts o:sfnvt: option; do
    [ "$option" != o ] || words=$OPTARG
done
IFS=,
set -f
for word in $words; do
    case $word in /*) word=hostfs=$word ;; esac
    spelled=$spelled${spelled:+,}$word
done
mount -i -t hostfs -o "${words:-rw}" "$source" "$directory" 2>/dev/null ||
    exec mount -i -t hostfs -o "${spelled:-rw}" "$source" "$directory"
