# shellcheck shell=sh
# The first minutes of a guest whose init is busybox or one program: kernel file systems, fstab, host
# name, modules, sysctls, network. Sourced, never run. Needs only sh and mount; uses what else is there.
#
# Everything that can fail without harm is allowed to fail: a guest that is up and says what is missing
# is better than one that is not up.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

have() { command -v "$1" >/dev/null 2>&1; }

mounted() {
    while read -r _ umlbuild_at _; do
        [ "$umlbuild_at" = "$1" ] && return 0
    done </proc/mounts
    return 1
}

[ -e /proc/self ] || mount -t proc -o nosuid,nodev,noexec proc /proc
mounted /sys || mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mounted /dev || mount -t devtmpfs -o mode=0755,nosuid devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mounted /dev/pts || mount -t devpts -o gid=5,mode=620,ptmxmode=666,nosuid,noexec devpts /dev/pts
mounted /dev/shm || mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm
mounted /run || mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs /run
mkdir -p /run/lock

# The root is mounted as the kernel command line says; fstab has the last word.
mount -o remount / 2>/dev/null || mount -o remount,rw / 2>/dev/null || :
mount -a 2>/dev/null || echo "umlbuild: not everything in /etc/fstab could be mounted" >&2

if [ -r /etc/hostname ]; then
    read -r umlbuild_name </etc/hostname && printf '%s' "$umlbuild_name" >/proc/sys/kernel/hostname
fi

if [ -r /etc/modules-load.d/umlbuild.conf ]; then
    while read -r umlbuild_module; do
        modprobe "$umlbuild_module" || echo "umlbuild: module $umlbuild_module cannot be loaded" >&2
    done </etc/modules-load.d/umlbuild.conf
fi

for umlbuild_conf in /etc/sysctl.d/*.conf; do
    [ -r "$umlbuild_conf" ] || continue
    while IFS='= ' read -r umlbuild_key umlbuild_value; do
        case $umlbuild_key in '' | '#'* | ';'*) continue ;; esac
        umlbuild_file=/proc/sys/$(printf '%s' "${umlbuild_key#-}" | tr . /)
        # A sysctl that this kernel does not have is no fault of the guest's.
        if [ -w "$umlbuild_file" ]; then
            printf '%s\n' "$umlbuild_value" >"$umlbuild_file" 2>/dev/null || :
        fi
    done <"$umlbuild_conf"
done

if have ip; then ip link set lo up; elif have ifconfig; then ifconfig lo up; fi
if [ -s /etc/network/interfaces ] && have ifup; then
    mkdir -p /run/network
    ifup -a || echo "umlbuild: not every interface came up" >&2
fi
