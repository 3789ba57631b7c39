# The sandbox of bubblewrap: user, mount, pid, ipc, uts and cgroup namespaces of its own, a network namespace unless
# a transport needs the host's, no capability, no new privileges, a filter of system calls, an empty environment. UML
# sees an empty, read-only root with its kernel, the bundle's C library, its disks and shares, and one tmpfs of
# limited size for its memory and its sockets. There is no /proc: by /proc/PID/mem guest root could write the memory
# of its own kernel through a share. Files have the names that they have outside.

MEMORY_SLACK_MIB=16 # UML's sockets, and what Linux wants of a tmpfs that is full

sandbox_check() {
    confined_check
    bwrap=$(command -v bwrap) || refuse "bwrap is not installed, and this machine runs in its sandbox only" \
        "apt-get install bubblewrap"
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
    for file in $FILTERS; do set -- --ro-bind "$inst/$file" "$inst/$file" "$@"; done
    [ -z "$UPLINK" ] || set -- --ro-bind "$inst/net/uml" "$inst/net/uml" "$@"
    for path in $HOST_PATHS; do set -- --dev-bind "$path" "$path" "$@"; done
    if [ -n "$memory_dir" ]; then
        set -- --bind "$inst/memory" /dev/shm --dir /dev/shm/u "$@"
    else
        set -- --size "$(((memory_mib + MEMORY_SLACK_MIB) << 20))" --tmpfs /dev/shm --dir /dev/shm/u "$@"
    fi
    if [ -n "$INTERPRETER" ]; then
        set -- --ro-bind "$inst/lib" /lib --ro-bind "$inst/lib/${INTERPRETER##*/}" "$INTERPRETER" \
            --setenv LD_PRELOAD /lib/xstate.so "$@"
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
    "$action" $drop $keep $no_aslr "$bwrap" --clearenv --setenv PATH /usr/bin:/bin --setenv TERM "${TERM:-linux}" \
        --setenv TMPDIR /dev/shm \
        --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try --hostname "$NAME" \
        --die-with-parent --new-session --cap-drop ALL --seccomp 3 --info-fd 4 --block-fd 8 "$@"
}

# uplink_jail WORD...: run these words of slirp4netns in a sandbox of its own (its parser meets the guest's frames). It
# needs the host's network, and sees its program with libraries, its sockets, and a copy of the host's resolv.conf.
uplink_jail() {
    program=$1
    set -- --chdir "$inst" --remount-ro / -- "$@"
    # What ldd would do, without its four processes. Source: ld.so(8).
    for file in "$program" $(LD_TRACE_LOADED_OBJECTS=1 "$program" 2>/dev/null); do
        case $file in /*) set -- --ro-bind "$file" "$file" "$@" ;; esac
    done
    set -- --ro-bind-try /etc/ld.so.cache /etc/ld.so.cache --ro-bind "$inst/net/resolv.conf" /etc/resolv.conf \
        --bind "$inst/net/slirp" "$inst/net/slirp" --dev-bind /dev/null /dev/null --dev-bind /dev/urandom /dev/urandom "$@"
    [ "$uid" != 0 ] || [ -n "$drop" ] || set -- --uid 65534 --gid 65534 "$@"
    uplink_exec "$bwrap" --unshare-user --unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try \
        --hostname uplink --die-with-parent --new-session --cap-drop ALL "$@"
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

# Waits until the sandbox stands and lets UML go once the number of its processes is limited: in the user namespace
# the count begins at none, before it all processes of the user would count. Then waits until UML runs (its sockets are
# inside, mconsole's clients outside).
sandbox_watch() {
    mkfifo "$inst/info" "$inst/go"
    (
        cd "$inst" || exit
        exec 6>&- 9>&- >/dev/null 2>&1
        pid=
        while read -r word value; do
            [ "$word" != '"child-pid":' ] || pid=${value%,}
        done <info
        [ -n "$pid" ] || exit
        ln -s "/proc/$pid/root/dev/shm/u" u
        $drop prlimit --pid "$pid" "--nproc=$PROCESSES:$PROCESSES" || {
            touch unlimited
            kill -KILL "$pid"
        }
        echo go >go
        tries=0
        while [ ! -e u/m/pid ] && [ "$tries" -lt 500 ]; do
            tries=$((tries + 1))
            sleep 0.02
        done
        [ ! -e u/m/pid ] || touch booted
    ) &
}

sandbox_exec() {
    if [ -z "$probing" ]; then
        exec "$@" 3<"$bundle/seccomp.bpf" 4>"$inst/info" 8<>"$inst/go"
    else # nobody waits for it, and it has no processes
        exec "$@" 3<"$bundle/seccomp.bpf" 4>/dev/null 8</dev/null
    fi
}

booted() { [ -e "$inst/booted" ]; }

# sysctl NAME WRONG: whether the host has this setting.
sysctl_is() { [ "$(cat "/proc/sys/$(printf %s "$1" | tr . /)" 2>/dev/null)" = "$2" ]; }

sandbox_explain() {
    [ ! -e "$inst/unlimited" ] || refuse "the number of its processes cannot be limited: prlimit failed" \
        "apt-get install util-linux"
    [ ! -L "$inst/u" ] || return # it stands; UML itself failed
    "$bwrap" --help 2>/dev/null | grep -q -e '--size ' || refuse \
        "this host's bwrap is too old: it has no --size, which limits what UML may write" \
        "use Debian 12 or newer, or build it with launch.sandbox = \"landlock\" (Linux 6.12)"
    for setting in user.max_user_namespaces=0=15000 kernel.unprivileged_userns_clone=0=1 \
        kernel.apparmor_restrict_unprivileged_userns=1=0; do
        name=${setting%%=*} values=${setting#*=}
        if sysctl_is "$name" "${values%=*}"; then
            refuse "the sandbox cannot be made: this host forbids user namespaces ($name = ${values%=*})" \
                "sysctl $name=${values#*=}, or build it with launch.sandbox = \"landlock\", which needs none (Linux 6.12)"
        fi
    done
    refuse "the sandbox cannot be made; what bwrap said is above" \
        "in a container: allow user namespaces and mounts (--security-opt seccomp=unconfined, --privileged)"
}
