#!/bin/sh
# Starts the User Mode Linux machine of the bundle that this file lies in. Made by umlbuild.
#
# It never writes into the bundle, never lets a path of yours reach UML's command line (UML's parser
# cannot carry commas, colons or spaces: everything is reached through links in a private directory),
# and leaves nothing behind: a janitor in its own session ends the machine and removes that directory
# even if this script is killed with SIGKILL. Needs a POSIX shell, coreutils, util-linux, and what its sandbox needs.
#
# Descriptors: 3, 4, 5 UML's stdin, stdout, stderr; 6 "we live", read by the janitor (its 8);
# 7 the terminal to restore; 8 the lifeline; 9 the lock of the machine's state.
# The sandbox gets: 3 the filter of system calls, 4 where it says that it stands.

# shellcheck disable=SC2015,SC2317,SC3045
# (`A && B || refuse` is meant so, functions are called through traps and "$@", dash has ulimit -c)

# The settings block below fills in the names in capitals.
# shellcheck disable=SC2153
set -u
umask 077

#@SETTINGS@

help() {
    cat <<END
Usage: run [options] [-- extra kernel arguments]

Starts the machine "$NAME" (Linux $KERNEL_VERSION). Its first terminal is this one; kernel messages go to
stderr. A piped or redirected stdin is typed into that terminal, with Ctrl-D at its end.

  --memory SIZE     the guest's memory, e.g. 256M or 1G (default ${MEMORY_MIB}M)
  --cow FILE        keep the guest's writes in FILE (data disks in FILE.disk<N>.img)
  --ephemeral       forget the guest's writes at the end
  --name NAME       keep the writes under this name (default $NAME):
                    \${XDG_STATE_HOME:-~/.local/state}/umlbuild/NAME/
  --timeout S       end the machine after S seconds
  --no-reboot       a reboot of the guest ends the machine
  --log FILE        append kernel messages to FILE instead of stderr
  --dry-run         print UML's command, one quoted word a line; start and write nothing
  --share DIR=PATH  give the guest the host's directory PATH at DIR, instead of the one that the recipe names
  --port OLD=NEW    forward the host's port NEW instead of OLD, which the recipe names
  --user NAME       as whom UML runs when root starts it (default nobody)
  --allow-root      let UML run as root when you are root (or UMLBUILD_ALLOW_ROOT=1)
  --no-scope        in the caller's cgroup, where systemd would give the machine one of its own
  --no-sandbox      without confinement, where the bundle was built with launch.sandbox = "none"
  --help            this text

For programs that drive a machine:
  --runtime DIR     an empty private directory (0700) to work in; removed at the end
  --agent FD        an inherited descriptor (20 or above); give it three times: the guest's ttyS1 (control),
                    ttyS2 (data, stdout), ttyS3 (stderr) of its agent
  --notify SOCKET   a bound datagram socket for mconsole's notifications
  --lifeline        end the machine when stdin reaches its end; nothing is typed into the guest

Environment: UMLBUILD_MEMORY_DIR, where the guest's memory lives (default: a tmpfs).

Exit status: 0-123 the guest's own (what its init wrote to /proc/exitcode), 124 timeout, 125 refused or
could not start, 126 the guest's kernel panicked, 128+N ended by signal N (130 INT, 143 TERM).
A signal ends the machine as pulling the plug would; for a clean end power the guest off.
END
}

say() { printf '%s: %s\n' "$NAME" "$1" >&2; }

refuse() {
    say "$1"
    [ $# -lt 2 ] || printf '  fix: %s\n' "$2" >&2
    exit 125
}

# --- the end ------------------------------------------------------------------------------------------

# Every process of the machine (6.1's helpers leave the process group and outlive UML) and each of our own
# helpers has the instance directory as its working directory; nobody else has.
strays() {
    # shellcheck disable=SC2012  # names in /proc are digits
    ls -l /proc/[0-9]*/cwd 2>/dev/null | sed -n "s#^.* /proc/\([0-9]*\)/cwd -> $1\$#\1#p"
}

# clean_up INSTANCE SCRATCH TERMINAL-SETTINGS; the terminal is on descriptor 7.
# SCRATCH is ours alone, and so is the directory that the link `memory` names.
clean_up() {
    tries=0
    while pids=$(strays "$1") && [ -n "$pids" ] && [ "$tries" -lt 50 ]; do
        # shellcheck disable=SC2086  # a list of numbers
        kill -KILL $pids 2>/dev/null
        tries=$((tries + 1))
        [ "$tries" -lt 2 ] || sleep 0.1
    done
    if [ -n "$3" ]; then
        trap '' TTOU # we may be in the background of that terminal
        stty "$3" <&7 2>/dev/null
    fi
    [ ! -L "$1/memory" ] || rm -rf -- "$(readlink "$1/memory")"
    rm -rf -- ${2:+"$2"} "$1" # the last one's absence says that nothing is left
}

if [ "${1-}" = --janitor ]; then # --janitor INSTANCE SCRATCH TERMINAL-SETTINGS
    trap '' INT TERM HUP QUIT USR1
    { exec 8<"$2/alive"; } 2>/dev/null || exit 0
    exec 6>&- </dev/null >/dev/null 2>&1
    cd / || exit 1
    word=
    read -r word <&8 || :
    [ "$word" = over ] || clean_up "$2" "$3" "$4"
    exit 0
fi

# --- functions: the sandbox, filters, limits, checks, COW files, the uplink -------------------------------

#@FUNCTIONS@

# --- what was asked for -------------------------------------------------------------------------------

# Started with closed descriptors (a daemon's child)? The next file opened would take their place.
[ -e /proc/self/fd/0 ] || exec 0</dev/null
[ -e /proc/self/fd/1 ] || exec 1>/dev/null
[ -e /proc/self/fd/2 ] || exec 2>/dev/null

memory=${MEMORY_MIB}M cow='' timeout_s=$TIMEOUT_S log='' runtime='' agent='' notify=''
ephemeral=$EPHEMERAL reboot=1 dry_run='' lifeline='' allow_root=${UMLBUILD_ALLOW_ROOT:-}
no_sandbox='' no_scope='' probing='' ports='' run_as=nobody drop='' locked='' uid=$(id -u)

# Of share number N: "ro" or "rw" in SHARE_MODES, its directory in the guest, SHARE_AT_N, and the host's, SHARE_OF_N.
share_instead() { # DIR=PATH
    share=0
    for _ in $SHARE_MODES; do
        eval "at=\$SHARE_AT_$share"
        # shellcheck disable=SC2154  # eval
        if [ "$at" = "${1%%=*}" ]; then
            eval "SHARE_OF_$share=\${1#*=}"
            return
        fi
        share=$((share + 1))
    done
    refuse "--share $1: this machine has no share at ${1%%=*}" "declare it in the recipe ([[share]])"
}

while [ $# -gt 0 ]; do
    case $1 in
        --) shift; break ;;
        --*=*)
            option=${1%%=*} value=${1#*=}
            shift
            set -- "$option" "$value" "$@"
            continue
            ;;
        -h | --help) help; exit 0 ;;
        --ephemeral) ephemeral=1 cow='' ;;
        --no-reboot) reboot='' ;;
        --dry-run) dry_run=1 ;;
        --allow-root) allow_root=1 ;;
        --lifeline) lifeline=1 ;;
        --no-sandbox) no_sandbox=1 ;;
        --no-scope) no_scope=1 ;;
        --memory | --cow | --name | --timeout | --log | --share | --port | --user | --runtime | --agent | --notify)
            [ $# -ge 2 ] || refuse "$1: a value is missing" "run --help"
            case $1 in
                --memory) memory=$2 ;;
                --cow) cow=$2 ephemeral='' ;;
                --name) NAME=$2 ;;
                --timeout) timeout_s=$2 ;;
                --log) log=$2 ;;
                --share) share_instead "$2" ;;
                --port) ports="$ports $2" ;;
                --user) run_as=$2 ;;
                --runtime) runtime=$2 ;;
                --agent) agent="$agent $2" ;;
                --notify) notify=$2 ;;
            esac
            shift
            ;;
        *) refuse "unknown argument \"$1\"" "run --help; kernel arguments come after --" ;;
    esac
    shift
done

# --- checks that write nothing ------------------------------------------------------------------------

number() { case $1 in '' | *[!0-9]* | 0?* | ????????*) return 1 ;; esac; }

absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s/%s\n' "$(pwd)" "$1" ;; esac; }

# Words that UML's parser leaves alone, short enough for a socket's path (107 bytes) below them.
plain_path() { case $1 in *[!A-Za-z0-9/_.-]*) return 1 ;; esac && [ "${#1}" -le 60 ]; }

case $memory in
    *[gG]) factor=1024 ;;
    *[mM]) factor=1 ;;
    *) factor=0 ;;
esac
{ number "${memory%?}" && [ "$factor" -gt 0 ]; } ||
    refuse "--memory $memory: not a size" "say a number with M or G, e.g. --memory 256M"
memory_mib=$((${memory%?} * factor))
[ "$memory_mib" -ge 16 ] || refuse "--memory $memory: no Linux boots in that" "use at least 16M"

[ -z "$timeout_s" ] || number "$timeout_s" || refuse "--timeout $timeout_s: not a number of seconds"
case $NAME in '' | [!a-z0-9]* | *[!a-z0-9._-]*)
    refuse "--name $NAME: not a name" "use a-z, 0-9, dot, dash and underscore" ;;
esac

self=$(readlink -f -- "$0") || refuse "$0: cannot find the bundle that I am in"
bundle=${self%/*}

[ -x "$bundle/linux" ] || refuse "$bundle/linux: no kernel that I may execute" \
    "copy the bundle whole (cp -a), to a place that is not mounted noexec"
image=$bundle/root.img
[ "${#image}" -lt 1000 ] || refuse "$image: this path is too long for a COW file" "move the bundle"
[ -r "$image" ] || refuse "$image: cannot be read" "copy the bundle whole (cp -a), or chmod a+r that file"
facts=$(stat -L -c '%s %Y' -- "$image")
image_size=${facts% *} image_mtime=${facts#* }
[ "$image_size" = "$IMAGE_SIZE" ] || refuse \
    "$image: is damaged: it has $image_size bytes and should have $IMAGE_SIZE" "copy or build the bundle again"

[ -z "$PIN" ] || taskset -c "$PIN" true 2>/dev/null ||
    refuse "this host has no CPUs $PIN that we may use (launch.pin)" "change launch.pin, or install util-linux"
[ -z "$NUMA" ] || numactl "--membind=$NUMA" true 2>/dev/null ||
    refuse "this host has no NUMA node $NUMA that we may use (launch.numa)" "change launch.numa, or install numactl"

scope=0
[ ! -r /proc/sys/kernel/yama/ptrace_scope ] || read -r scope </proc/sys/kernel/yama/ptrace_scope
if [ "$scope" = 3 ] || { [ "$scope" = 2 ] && { [ "$uid" != 0 ] || [ -z "$allow_root" ]; }; }; then
    refuse "this host forbids ptrace (kernel.yama.ptrace_scope = $scope), which UML runs its processes with" \
        "sysctl kernel.yama.ptrace_scope=1 (3 can only be left by rebooting the host)"
fi

# free_in DIRECTORY: in KiB; nothing if that is not known.
free_in() {
    facts=$(stat -f -c '%a %S' -- "$1" 2>/dev/null) || return 0
    echo $((${facts% *} * ${facts#* } / 1024))
}

memory_dir=${UMLBUILD_MEMORY_DIR:-}
check_memory_dir() {
    if [ -z "$memory_dir" ]; then
        memory_dir=/dev/shm
        { [ -d /dev/shm ] && [ -w /dev/shm ]; } || memory_dir=/tmp
    fi
    { [ -d "$memory_dir" ] && [ -w "$memory_dir" ]; } || refuse \
        "$memory_dir: the guest's memory cannot live there: not a writable directory" \
        "set UMLBUILD_MEMORY_DIR to a writable directory, best a tmpfs"
    case ,$(findmnt -n -o OPTIONS -T "$memory_dir" 2>/dev/null | tail -n 1), in
        *,noexec,*)
            refuse "$memory_dir: the guest's memory cannot live there: it is mounted noexec" \
                "mount -o remount,exec $memory_dir, or set UMLBUILD_MEMORY_DIR to another directory"
            ;;
    esac
    # An image of memory_mib is only touched page by page: too small a tmpfs would kill the guest later.
    free_kib=$(free_in "$memory_dir")
    if [ -n "$free_kib" ] && [ "$free_kib" -lt $((memory_mib * 1024)) ]; then
        refuse "$memory_dir: has $((free_kib / 1024)) MiB free, the guest's memory needs $memory_mib MiB" \
            "use a smaller --memory, enlarge it (container: --shm-size), or set UMLBUILD_MEMORY_DIR=/var/tmp"
    fi
}
sandbox_check
for port in $ports; do
    [ -n "$UPLINK" ] || refuse "--port $port: this machine has no network with transport = \"user\""
    port_instead "$port"
done
[ -z "$UPLINK" ] || uplink_check

share=0
for _ in $SHARE_MODES; do
    eval "check_share \"\$SHARE_OF_$share\""
    share=$((share + 1))
done

[ -n "$dry_run" ] || network_check

for fd in $agent; do
    { number "$fd" && [ "$fd" -ge 20 ] && [ -e "/proc/self/fd/$fd" ]; } ||
        refuse "--agent $fd: not an inherited descriptor of 20 or above"
done

if [ -n "$runtime" ]; then
    plain_path "$runtime" || refuse "--runtime $runtime: must be short and of plain characters"
    case $runtime in /*) ;; *) refuse "--runtime $runtime: must be absolute" ;; esac
    [ "$(stat -c '%a %u' -- "$runtime" 2>/dev/null)" = "700 $(id -u)" ] ||
        refuse "--runtime $runtime: must be a directory of yours with mode 0700"
    base=
else
    base=${XDG_RUNTIME_DIR:-}
    case $base in /*) ;; *) base='' ;; esac
    { [ -z "$drop" ] && [ -n "$base" ] && [ -d "$base" ] && [ -w "$base" ] && plain_path "$base"; } || base=/tmp
fi

# --- where the guest's writes go ----------------------------------------------------------------------

stateful=
[ -n "$ROOT_READ_ONLY" ] || stateful=1
for disk in $DISKS; do
    case $disk in *:copy:*) stateful=1 ;; esac
done

state='' # directory and start of the names of COW file and disks
if [ -n "$ephemeral" ] || [ -z "$stateful" ]; then
    ephemeral=1
elif [ -n "$cow" ]; then
    cow=$(absolute "$cow")
    [ -d "${cow%/*}/" ] || refuse "--cow $cow: there is no directory ${cow%/*}" "mkdir -p that directory first"
    state=$cow. lock=$cow.lock
else
    home=${XDG_STATE_HOME:-}
    case $home in /*) ;; *) home=${HOME:+$HOME/.local/state} ;; esac
    [ -z "$drop" ] || home=/var/lib # root's own home is closed to others
    [ -n "$home" ] || refuse "no place for the guest's writes: HOME is not set" \
        "set XDG_STATE_HOME, or use --cow FILE or --ephemeral"
    state=$home/umlbuild/$NAME/
    cow=$state$IMAGE_ID.cow lock=${state}lock
fi

if [ -z "$ROOT_READ_ONLY" ] && [ -z "$ephemeral" ] && [ -e "$cow" ]; then check_cow; fi

cache=${XDG_CACHE_HOME:-}
case $cache in /*) ;; *) cache=${HOME:+$HOME/.cache} ;; esac
check_filters
check_bundle

# --- lpj: loops per jiffy, measured once per host and kernel; it halves the time to init ---------------

lpj='' lpj_file='' host=$(uname -nm)
if [ -n "$cache" ]; then
    while read -r model; do
        case $model in 'model name'*) break ;; esac
    done </proc/cpuinfo
    lpj_key=$(printf '%s\n' "$host" "$model" "$KERNEL_VERSION" | cksum)
    lpj_file=$cache/umlbuild/lpj-${lpj_key%% *}
    [ ! -r "$lpj_file" ] || read -r lpj <"$lpj_file" || :
    case $lpj in '' | *[!0-9]* | ???????????*) lpj='' ;; esac
fi

# --- UML's command line ---------------------------------------------------------------------------------

inst=${runtime:-$base/uml-XXXXXXXX}
no_aslr=
if [ -n "$SETARCH" ]; then
    # Without it 6.1 takes up to a gigabyte of address space for memory; some containers forbid it.
    no_aslr="setarch ${host##* } -R"
    $no_aslr true 2>/dev/null || no_aslr=
fi

# command_to ACTION WORD...: call ACTION with the whole command; the words are extra kernel arguments.
command_to() {
    action=$1
    shift
    eval "set -- $CMDLINE \"\$@\" $INIT_ARGS"
    [ -z "$lpj" ] || set -- "lpj=$lpj" "$@"
    [ -z "$notify" ] || set -- "mconsole=notify:$inst/notify" "$@"
    [ -n "$reboot" ] || set -- noreboot "$@"
    # shellcheck disable=SC2086  # numbers
    if [ -n "$agent" ]; then
        set -- umlbuild.agent=ttyS1 "$@"
        line=1
        for fd in $agent; do
            set -- "ssl$line=fd:$fd" "$@"
            line=$((line + 1))
        done
    fi
    for disk in $DISKS; do
        unit=${disk%%:*} flags=${disk##*:}
        set -- "ubd$unit$flags=$inst/disk$unit" "$@"
    done
    if [ -n "$ROOT_READ_ONLY" ]; then
        set -- "ubd0rd=$inst/root.img" "$@"
    else
        set -- "ubd0=$inst/root.cow,$inst/root.img" "$@"
    fi
    [ -z "$SHARE_MODES" ] || set -- "hostfs=$inst/share" "$@"
    [ -z "$UPLINK" ] || set -- "vec$UPLINK:transport=bess,dst=$inst/net/uml,$UPLINK_VECTOR" "$@"
    set -- "mem=${memory_mib}M" umid=m "uml_dir=$inst/u/" quiet \
        con=null ssl=null con0=null,fd:2 con1=fd:0,fd:1 "$@"
    perform=$action
    enter place "$inst/linux" "$@"
}

# On the processors, and with memory of the NUMA node, that the recipe names; with the packet sockets that it wants.
place() {
    for row in $PACKET_SOCKETS; do
        take_socket "$row"
        # shellcheck disable=SC2086  # a word or none
        set -- "$bundle/jail" packet "$ifname" --filter "$inst/$filter" --fd "$fd" $inherited -- "$@"
    done
    [ -z "$NUMA" ] || set -- numactl "--cpunodebind=$NUMA" "--membind=$NUMA" "$@"
    [ -z "$PIN" ] || set -- taskset -c "$PIN" "$@"
    "$perform" "$@"
}

if [ -n "$dry_run" ]; then
    show() {
        for word; do
            case $word in
                '' | *[!A-Za-z0-9_./=:,+@%-]*)
                    printf "'%s'\n" "$(printf '%s\n' "$word" | sed "s/'/'\\\\''/g")" ;;
                *) printf '%s\n' "$word" ;;
            esac
        done
    }
    command_to show "$@"
    exit 0
fi

# --- a private directory, and who removes it -----------------------------------------------------------

ended='' uml='' scratch='' terminal=''

end() { # a signal: end UML with its process group; `finish` gets what is left
    ended=$1
    [ -z "$uml" ] || kill -KILL "-$uml" "$uml" 2>/dev/null
}

finish() {
    clean_up "$inst" "$scratch" "$terminal"
    # The janitor may be gone already; that must not end us by SIGPIPE.
    trap '' PIPE
    { echo over >&6; } 2>/dev/null || :
}

if [ -z "$runtime" ]; then
    inst=$(mktemp -d "$base/uml-XXXXXXXX") || refuse "$base: cannot make a directory there" "set XDG_RUNTIME_DIR"
fi
inst=$(cd "$inst" && pwd -P) # as /proc shows it
plain_path "$inst" || refuse "$inst: must be short and of plain characters"

for tty in 0 1 2; do
    if [ -t "$tty" ]; then
        # shellcheck disable=SC2261  # one of three
        case $tty in 0) exec 7<&0 ;; 1) exec 7<&1 ;; 2) exec 7<&2 ;; esac
        terminal=$(stty -g <&7 2>/dev/null) || terminal=''
        break
    fi
done

if [ -n "$ephemeral" ] && [ -n "$stateful" ]; then
    # It can grow as large as the disks: not in a tmpfs, if that can be helped.
    place=${TMPDIR:-/var/tmp}
    { [ -d "$place" ] && [ -w "$place" ]; } || place=/tmp
    scratch=$(mktemp -d "$place/umlbuild-XXXXXXXX") || {
        rm -rf -- "$inst"
        refuse "$place: cannot make a directory for the guest's writes" "set TMPDIR"
    }
    state=$scratch/ cow=${scratch}/root.cow
fi

mkfifo "$inst/alive"
exec 6<>"$inst/alive"
detach=setsid
command -v setsid >/dev/null || detach=
$detach sh "$self" --janitor "$inst" "$scratch" "$terminal" 9>&- &

trap finish EXIT
trap 'end 129' HUP
trap 'end 130' INT
trap 'end 131' QUIT
trap 'end 143' TERM
trap 'end 124' USR1

# Not yet where the directory is going to be nobody's (the user's): root still makes files there.
[ -z "$UPLINK" ] || [ -n "$drop" ] || uplink_start

# --- the guest's disks -----------------------------------------------------------------------------------

if [ -n "$stateful" ] && [ -z "$ephemeral" ]; then
    mkdir -p -- "${state%/*}" 2>/dev/null && (: >>"$lock") 2>/dev/null || refuse \
        "${state%/*}: the guest's writes cannot be kept there: not writable" \
        "set XDG_STATE_HOME, or use --cow FILE or --ephemeral"
    exec 9<>"$lock"
    flock -n 9 || {
        holder=
        read -r holder <&9 || :
        refuse "$cow: is in use by another start of this machine${holder:+ (process $holder)}" \
            "end that one, or use another --name, --cow FILE or --ephemeral"
    }
    # It lasts as long as anything of the machine lives.
    echo "$$" >"$lock"
    locked=1
fi

if [ -z "$ROOT_READ_ONLY" ]; then
    if [ -e "$cow" ]; then
        check_cow
        # The bundle may have been moved.
        { backing; printf '\0'; } | dd of="$cow" bs=4096 oflag=seek_bytes seek=32 conv=notrunc 2>/dev/null
    else
        make_cow
    fi
    ln -s -- "$cow" "$inst/root.cow"
fi
ln -s -- "$image" "$bundle/linux" "$inst"
mkdir -p "$inst/box" # what is handed to the guest as a disk
[ -z "$notify" ] || [ "$notify" = "$inst/notify" ] || ln -s -- "$(absolute "$notify")" "$inst/notify"

for disk in $DISKS; do # UNIT:FILE:copy|shared:ID:FLAGS
    unit=${disk%%:*} rest=${disk#*:}
    file=${rest%%:*} rest=${rest#*:}
    if [ "${rest%%:*}" = copy ]; then
        rest=${rest#*:}
        own=${state}disk$unit-${rest%%:*}.img
        [ -e "$own" ] || {
            cp --sparse=always --reflink=auto -- "$bundle/$file" "$own.new" && chmod 600 -- "$own.new" &&
                mv -f -- "$own.new" "$own" || refuse "$own: cannot be made" "free some space there"
        }
        ln -s -- "$own" "$inst/disk$unit"
    else
        ln -s -- "$bundle/$file" "$inst/disk$unit"
    fi
done

if [ -n "$SHARE_MODES" ]; then
    mkdir "$inst/share"
    share=0
    for _ in $SHARE_MODES; do
        eval "ln -s -- \"\$SHARE_OF_$share\" \"\$inst/share/\$share\""
        share=$((share + 1))
    done
fi

put_filters
sandbox_prepare
if [ -n "$drop" ]; then
    for file in "$inst" "$inst/box" "$inst/share" "$inst/notify" "$inst/memory" "$inst/u" "${state%/*}" "$inst/root.cow" "$inst"/disk*; do
        [ ! -e "$file" ] || chown "$drop_uid:$drop_gid" "$file"
    done
fi

if [ -n "$UPLINK" ]; then
    [ -z "$drop" ] || uplink_start
    uplink_await
fi

# --- start -----------------------------------------------------------------------------------------------

# No core dumps; no file grows beyond the largest that the machine has a right to; descriptors enough for 14 disks.
largest_kib=$((memory_mib * 1024)) size_kib=$((image_size / 1024 + 1))
[ "$size_kib" -le "$largest_kib" ] || largest_kib=$size_kib
for file in "$inst"/disk*; do
    [ -e "$file" ] || continue
    size_kib=$(($(stat -L -c %s -- "$file") / 1024 + 1))
    [ "$size_kib" -le "$largest_kib" ] || largest_kib=$size_kib
done
limit() { ulimit -c 0 && ulimit -f $((largest_kib * 2)) && ulimit -n 4096; } 2>/dev/null

# UML sets O_NONBLOCK on what it is given and leaves it so: give it descriptions of its own where they can be
# had (the trial is by $$: in the subshell, 2 is /dev/null). A pipe at its end would hang the guest's terminal up (and panic 7.x): it is fed through a fifo.
if [ -n "$lifeline" ]; then
    exec 8<&0 3</dev/null
    (
        cd "$inst" || exit
        exec 6>&- 9>&- >/dev/null 2>&1
        while read -r _ <&8; do :; done
        kill -TERM $$
    ) &
    exec 8<&-
elif [ -t 0 ]; then
    if (: <>/proc/$$/fd/0) 2>/dev/null; then exec 3<>/proc/self/fd/0; else exec 3<&0; fi
elif [ -c /dev/stdin ]; then
    exec 3<&0
else
    mkfifo "$inst/in"
    exec 3<>"$inst/in" 8<&0
    (
        cd "$inst" || exit
        exec 6>&- 9>&- 3>&- 2>/dev/null >"$inst/in"
        cat <&8
        printf '\004\004' # the first ends an unfinished line
    ) &
    exec 8<&-
fi
exec 4>&1 5>&2
if [ -t 1 ]; then
    if (: <>/proc/$$/fd/1) 2>/dev/null; then exec 4<>/proc/self/fd/1; fi
elif [ -p /proc/self/fd/1 ]; then
    if (: >/proc/$$/fd/1) 2>/dev/null; then exec 4>/proc/self/fd/1; fi
fi
pump=
if [ -n "$log" ]; then
    (: >>"$log") 2>/dev/null || refuse "--log $log: cannot be written"
    mkfifo "$inst/log"
    # shellcheck disable=SC2094  # the fifo and the file have different names
    ( # a guest that prints for ever does not fill the disk
        cd "$inst" || exit
        trap '' INT TERM HUP QUIT
        exec 6>&- 9>&- <log >>"$log" 2>/dev/null
        head -c $((LOG_MIB << 20))
        [ "$(head -c 1 | wc -c)" = 0 ] || echo "[this log is full: $LOG_MIB MiB]"
        exec cat >/dev/null
    ) &
    pump=$!
    exec 5>"$inst/log"
elif [ -t 2 ]; then
    if (: <>/proc/$$/fd/2) 2>/dev/null; then exec 5<>/proc/self/fd/2; fi
elif [ -p /proc/self/fd/2 ]; then
    if (: >/proc/$$/fd/2) 2>/dev/null; then exec 5>/proc/self/fd/2; fi
fi

await() { # the real status of process $uml, however often a signal wakes us
    while :; do
        wait "$uml" 2>/dev/null # dash would say "Aborted"
        status=$?
        kill -0 "$uml" 2>/dev/null || break
    done
}

probe() {
    (
        probing=1
        cd "$inst/probe" || exit
        exec </dev/null >"$inst/probe.log" 2>&1 6>&- 7>&- 9>&-
        limit
        sandbox_exec timeout -s KILL 15 "$@"
    ) &
    uml=$!
}

# A boot without a root file system gets as far as the measurement, and no further; what it says is in probe.log.
probe_host() {
    command -v timeout >/dev/null && mkdir -p "$inst/probe" || return
    was_locked=$locked locked=
    enter probe "$inst/linux" mem=32M umid=p "uml_dir=$inst/u/" con=null ssl=null con0=null,fd:1 root=/dev/ubda noreboot
    locked=$was_locked
    await
    uml=
}

# In what a healthy start says, ptrace is "OK".
refuse_without_ptrace() {
    grep -qsE 'check_ptrace|ptrace.*not permitted' "$inst/probe.log" || return 0
    tail -n 5 "$inst/probe.log" >&2
    refuse "this host does not let UML use ptrace" \
        "in a container: --cap-add SYS_PTRACE or --security-opt seccomp=unconfined"
}

if [ -n "$lpj_file" ] && [ -z "$lpj" ] && probe_host; then
    lpj=$(sed -n 's/.*lpj=\([0-9]\{1,10\}\).*/\1/p' "$inst/probe.log" | head -n 1)
    if [ -n "$lpj" ] && [ -z "$ended" ]; then
        { mkdir -p "${lpj_file%/*}" && echo "$lpj" >"$lpj_file.$$" && mv -f "$lpj_file.$$" "$lpj_file"; } 2>/dev/null || :
    elif [ -z "$ended" ]; then
        refuse_without_ptrace
    fi
fi

start() {
    (
        cd "$inst" || exit 125
        # shellcheck disable=SC2046  # words or none
        set -- $(scope_words) "$@"
        exec <&3 >&4 2>&5 3>&- 4>&- 5>&- 6>&- 7>&- 8>&-
        limit
        sandbox_exec "$@"
    ) &
    uml=$!
}

[ -z "$ended" ] || exit "$ended"
sandbox_watch
command_to start "$@"
exec 3>&- 4>&- 5>&-
if [ -n "$timeout_s" ]; then
    (
        cd "$inst" || exit
        exec 6>&- 9>&- </dev/null >/dev/null 2>&1
        sleep "$timeout_s"
        kill -USR1 $$
    ) &
fi
[ -z "$ended" ] || end "$ended" # a signal came while it was being started
await
[ -z "$pump" ] || wait "$pump"

if [ -n "$ended" ]; then
    [ "$ended" != 124 ] || say "ended after $timeout_s s (--timeout)"
    exit "$ended"
fi
case $status in
    134)
        say "the guest's kernel panicked"
        exit 126
        ;;
    1 | 121 | 125) # the latter two are the helper's
        if ! booted; then
            sandbox_explain
            probe_host
            refuse_without_ptrace
            refuse "UML could not start; what it said is above" \
                "look for ptrace (containers), memory (--memory) or arguments that it does not know"
        fi
        ;;
    137) booted || sandbox_explain ;;
esac
case $status in 124 | 125 | 126 | 127) exit 123 ;; esac # those have a meaning of their own
exit "$status"
