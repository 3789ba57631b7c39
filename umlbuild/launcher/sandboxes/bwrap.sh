# The sandbox of bubblewrap: user, mount, pid, ipc, uts and cgroup namespaces of its own, a network namespace unless
# a transport needs the host's, no capability, no new privileges, a filter of system calls, an empty environment. UML
# sees an empty, read-only root with its kernel, the bundle's C library, its disks and shares, and one tmpfs of
# limited size for its memory and its sockets. There is no /proc: by /proc/PID/mem guest root could write the memory
# of its own kernel through a share. Files have the names that they have outside.

MEMORY_SLACK_MIB=16 # UML's sockets, and what Linux wants of a tmpfs that is full

sandbox_check() {
    [ -z "$no_sandbox" ] || refuse "--no-sandbox: this machine has a sandbox" \
        "build it with launch.sandbox = \"none\" if you trust the guest that much"
    bwrap=$(command -v bwrap) || refuse "bwrap is not installed, and this machine runs in its sandbox only" \
        "apt-get install bubblewrap"
    [ "$uid" != 0 ] || [ -n "$allow_root" ] || drop_root
    if [ -n "$memory_dir" ]; then
        check_memory_dir
        return
    fi
    # A tmpfs of its own, whatever the size of /dev/shm; the host's memory is the limit, or our cgroup's.
    free_kib=0
    while read -r word value _; do
        case $word in MemAvailable: | SwapFree:) free_kib=$((free_kib + value)) ;; esac
    done </proc/meminfo
    value=max
    [ ! -r /sys/fs/cgroup/memory.max ] || read -r value </sys/fs/cgroup/memory.max
    case $value in
        *[!0-9]* | ???????????????????*) ;;
        *) [ $((value / 1024)) -ge "$free_kib" ] || free_kib=$((value / 1024)) ;;
    esac
    [ "$free_kib" -ge $((memory_mib * 1024)) ] || refuse \
        "this host has $((free_kib / 1024)) MiB free, the guest's memory needs $memory_mib MiB" \
        "use a smaller --memory, or set UMLBUILD_MEMORY_DIR=/var/tmp to have it in a file"
}

# Root starts machines as somebody without rights: what comes out of the guest shall not be root's.
drop_root() {
    drop_uid=$(id -u "$run_as" 2>/dev/null) && drop_gid=$(id -g "$run_as") && [ "$drop_uid" != 0 ] ||
        refuse "--user $run_as: there is no such unprivileged user" "give another --user NAME"
    drop="setpriv --reuid=$drop_uid --regid=$drop_gid --clear-groups --inh-caps=-all --bounding-set=-all"
    for file in "$bundle/linux" "$image"; do
        $drop test -r "$file" 2>/dev/null || refuse \
            "$file: user $run_as, as whom root starts machines, cannot read it" \
            "put the bundle where everybody can reach it (/srv, /var/lib), or give another --user"
    done
}

# With CAPABILITIES there is no user namespace: whoever can make the others stays root, keeps these and nothing else.
# What bwrap itself needs is inheritable, so that the bounding set can be cut before it; it does not cut root's, and then
# UML's execve would look like a gain of rights, which turns address space randomisation on again.
sandbox_capability() {
    [ "$uid" = 0 ] && [ $((0x$capabilities >> 21 & 1)) = 1 ] || refuse \
        "the sandbox can keep CAP_NET_RAW only for root with CAP_SYS_ADMIN" \
        "start it as root with --allow-root, or in a namespace of your own (unshare -Urn)"
}

# enter ACTION WORD...: call ACTION with the words that run these in the sandbox. Built from the end: what comes
# first here is mounted last.
enter() {
    action=$1
    shift
    set -- --chdir "$inst" --remount-ro / -- "$@"
    for disk in $DISKS; do
        file=$inst/disk${disk%%:*}
        case $disk in
            *:copy:*) set -- --bind "$file" "$file" "$@" ;;
            *) set -- --ro-bind "$file" "$file" "$@" ;;
        esac
    done
    [ -n "$ROOT_READ_ONLY" ] || set -- --bind "$inst/root.cow" "$inst/root.cow" "$@"
    [ -z "$notify" ] || set -- --bind "$inst/notify" "$inst/notify" "$@"
    share=0
    for mode in $SHARE_MODES; do
        case $mode in
            rw) set -- --bind "$inst/share/$share" "$inst/share/$share" "$@" ;;
            *) set -- --ro-bind "$inst/share/$share" "$inst/share/$share" "$@" ;;
        esac
        share=$((share + 1))
    done
    for path in $FILTER_FILES; do set -- --ro-bind "$path" "$path" "$@"; done
    for path in $HOST_PATHS; do set -- --dev-bind "$path" "$path" "$@"; done
    if [ -n "$memory_dir" ]; then
        set -- --bind "$inst/memory" /dev/shm --dir /dev/shm/u "$@"
    else
        set -- --size "$(((memory_mib + MEMORY_SLACK_MIB) << 20))" --tmpfs /dev/shm --dir /dev/shm/u "$@"
    fi
    if [ -n "$INTERPRETER" ]; then
        set -- --ro-bind "$inst/lib" /lib --ro-bind "$inst/lib/${INTERPRETER##*/}" "$INTERPRETER" "$@"
    fi
    for file in linux root.img box; do set -- --ro-bind "$inst/$file" "$inst/$file" "$@"; done
    set -- --symlink /dev/shm/u "$inst/u" --dev-bind /dev/null /dev/null --dev-bind /dev/random /dev/random "$@"
    [ -n "$HOST_NETWORK" ] || set -- --unshare-net "$@"
    # Root of a user namespace would get back, at its execve, what 7.x takes away (it would start itself for ever).
    [ "$uid" != 0 ] || [ -n "$drop$CAPABILITIES" ] || set -- --uid 65534 --gid 65534 "$@"
    [ -z "$locked" ] || set -- --sync-fd 9 "$@" # held, and not handed on
    keep=
    if [ -n "$CAPABILITIES" ]; then # net_raw
        keep="setpriv --inh-caps=-all,+sys_admin,+dac_override,+$CAPABILITIES setpriv --bounding-set=-all,+$CAPABILITIES"
        set -- --cap-add CAP_NET_RAW "$@"
    else
        set -- --unshare-user "$@"
    fi
    # shellcheck disable=SC2086  # words or none
    "$action" env -i PATH=/usr/bin:/bin "TERM=${TERM:-linux}" TMPDIR=/dev/shm $drop $keep $no_aslr "$bwrap" \
        --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try --hostname "$NAME" \
        --die-with-parent --new-session --cap-drop ALL --seccomp 3 --info-fd 4 "$@"
}

# The name by which UML knows the image: a COW file with another would be rewritten by it.
backing() { printf %s "$inst/root.img"; }

sandbox_prepare() {
    [ -z "$INTERPRETER" ] || ln -s -- "$bundle/lib" "$inst/lib"
    if [ -n "$memory_dir" ]; then
        memory=$(mktemp -d "$memory_dir/umlbuild-XXXXXXXX") || refuse "$memory_dir: cannot make a directory there"
        ln -s -- "$memory" "$inst/memory"
    fi
}

# Waits until the sandbox stands (UML's sockets are inside, mconsole's clients outside) and UML runs in it.
sandbox_watch() {
    rm -f "$inst/info" # the lpj measurement's
    (
        cd "$inst" || exit
        exec 6>&- 9>&- >/dev/null 2>&1
        tries=0
        while [ ! -e u/m/pid ] && [ "$tries" -lt 1000 ]; do
            tries=$((tries + 1))
            sleep 0.01
            [ ! -L u ] && [ -s info ] || continue
            while read -r word value; do
                [ "$word" != '"child-pid":' ] || ln -s "/proc/${value%,}/root/dev/shm/u" u
            done <info
        done
        [ ! -e u/m/pid ] || touch booted
    ) &
}

sandbox_exec() { exec "$@" 3<"$bundle/seccomp.bpf" 4>"$inst/info"; }

booted() { [ -e "$inst/booted" ]; }

# sysctl NAME WRONG: whether the host has this setting.
sysctl_is() { [ "$(cat "/proc/sys/$(printf %s "$1" | tr . /)" 2>/dev/null)" = "$2" ]; }

sandbox_explain() {
    grep -q child-pid "$inst/info" 2>/dev/null && return # it stands; UML itself failed
    for setting in user.max_user_namespaces=0=15000 kernel.unprivileged_userns_clone=0=1 \
        kernel.apparmor_restrict_unprivileged_userns=1=0; do
        name=${setting%%=*} values=${setting#*=}
        if sysctl_is "$name" "${values%=*}"; then
            refuse "the sandbox cannot be made: this host forbids user namespaces ($name = ${values%=*})" \
                "sysctl $name=${values#*=}"
        fi
    done
    refuse "the sandbox cannot be made; what bwrap said is above" \
        "in a container: allow user namespaces and mounts (--security-opt seccomp=unconfined, --privileged)"
}
