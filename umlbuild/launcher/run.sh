#!/bin/sh
# Starts the User Mode Linux machine of the bundle that this file lies in. Made by umlbuild.
#
# It never writes into the bundle, never lets a path of yours reach UML's command line (UML's parser
# cannot carry commas, colons or spaces: everything is reached through links in a private directory),
# and leaves nothing behind: a janitor in its own session ends the machine and removes that directory
# even if this script is killed with SIGKILL. Needs a POSIX shell, coreutils and util-linux.
#
# Descriptors: 3, 4, 5 UML's stdin, stdout, stderr; 6 "we live", read by the janitor (its 8);
# 7 the terminal to restore; 8 the lifeline; 9 the lock of the machine's state.

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
  --allow-root      start although you are root (or UMLBUILD_ALLOW_ROOT=1)
  --help            this text

For programs that drive a machine:
  --runtime DIR     an empty private directory (0700) to work in; removed at the end
  --agent FD        an inherited descriptor (20 or above); give it three times: the guest's ttyS1 (control),
                    ttyS2 (data, stdout), ttyS3 (stderr) of its agent
  --notify SOCKET   a bound datagram socket for mconsole's notifications
  --lifeline        end the machine when stdin reaches its end; nothing is typed into the guest

Environment: UMLBUILD_MEMORY_DIR, where the guest's memory lives (default /dev/shm).

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
    [ -z "$2" ] || rm -rf -- "$2"
    rm -rf -- "$1" # last: its absence says that nothing is left
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

# --- what was asked for -------------------------------------------------------------------------------

# Started with closed descriptors (a daemon's child)? The next file opened would take their place.
[ -e /proc/self/fd/0 ] || exec 0</dev/null
[ -e /proc/self/fd/1 ] || exec 1>/dev/null
[ -e /proc/self/fd/2 ] || exec 2>/dev/null

memory=${MEMORY_MIB}M cow='' timeout_s=$TIMEOUT_S log='' runtime='' agent='' notify=''
ephemeral=$EPHEMERAL reboot=1 dry_run='' lifeline='' allow_root=${UMLBUILD_ALLOW_ROOT:-}

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
        --memory | --cow | --name | --timeout | --log | --runtime | --agent | --notify)
            [ $# -ge 2 ] || refuse "$1: a value is missing" "run --help"
            case $1 in
                --memory) memory=$2 ;;
                --cow) cow=$2 ephemeral='' ;;
                --name) NAME=$2 ;;
                --timeout) timeout_s=$2 ;;
                --log) log=$2 ;;
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

if [ "$(id -u)" = 0 ] && [ -z "$allow_root" ]; then
    refuse "you are root, and whoever breaks out of the guest would be, too" \
        "start it as an ordinary user, or say --allow-root (UMLBUILD_ALLOW_ROOT=1)"
fi

[ -x "$bundle/linux" ] || refuse "$bundle/linux: no kernel that I may execute" \
    "copy the bundle whole (cp -a), to a place that is not mounted noexec"
image=$bundle/root.img
[ "${#image}" -lt 1000 ] || refuse "$image: this path is too long for a COW file" "move the bundle"
[ -r "$image" ] || refuse "$image: cannot be read" "copy the bundle whole (cp -a), or chmod a+r that file"
image_size=$(stat -L -c %s -- "$image")
image_mtime=$(stat -L -c %Y -- "$image")
[ "$image_size" = "$IMAGE_SIZE" ] || refuse \
    "$image: is damaged: it has $image_size bytes and should have $IMAGE_SIZE" "copy or build the bundle again"

scope=0
[ ! -r /proc/sys/kernel/yama/ptrace_scope ] || read -r scope </proc/sys/kernel/yama/ptrace_scope
if [ "$scope" = 3 ] || { [ "$scope" = 2 ] && [ "$(id -u)" != 0 ]; }; then
    refuse "this host forbids ptrace (kernel.yama.ptrace_scope = $scope), which UML runs its processes with" \
        "sysctl kernel.yama.ptrace_scope=1 (3 can only be left by rebooting the host)"
fi

memory_dir=${UMLBUILD_MEMORY_DIR:-}
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
free_kib=$(df -Pk -- "$memory_dir" 2>/dev/null |
    sed -n '2s/.* \([0-9]\{1,\}\) \{1,\}[0-9-]\{1,\}%\{0,1\} .*/\1/p')
if [ -n "$free_kib" ] && [ "$free_kib" -lt $((memory_mib * 1024)) ]; then
    refuse "$memory_dir: has $((free_kib / 1024)) MiB free, the guest's memory needs $memory_mib MiB" \
        "use a smaller --memory, enlarge it (container: --shm-size), or set UMLBUILD_MEMORY_DIR=/var/tmp"
fi

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
    { [ -n "$base" ] && [ -d "$base" ] && [ -w "$base" ] && plain_path "$base"; } || base=/tmp
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
    [ -n "$home" ] || refuse "no place for the guest's writes: HOME is not set" \
        "set XDG_STATE_HOME, or use --cow FILE or --ephemeral"
    state=$home/umlbuild/$NAME/
    cow=$state$IMAGE_ID.cow lock=${state}lock
fi

# A COW file keeps only what differs from the image that it was made for; on another one it is garbage.
check_cow() {
    [ -f "$cow" ] || refuse "$cow: is not a file" "give another --cow FILE"
    { [ -r "$cow" ] && [ -w "$cow" ]; } || refuse "$cow: cannot be read and written" "chmod u+rw that file"
    # shellcheck disable=SC2046  # 32 numbers
    set -- $(od -A n -v -t u1 -N 32 -- "$cow")
    [ $# -eq 32 ] && [ "$1 $2 $3 $4 $5 $6 $7 $8" = "79 79 79 77 0 0 0 3" ] ||
        refuse "$cow: is not a COW file of UML" "give another --cow FILE, or remove this one"
    mtime=$((($9 << 24) + (${10} << 16) + (${11} << 8) + ${12}))
    size=$(((${13} << 56) + (${14} << 48) + (${15} << 40) + (${16} << 32) + (${17} << 24) + (${18} << 16) + (${19} << 8) + ${20}))
    if [ "$size" != "$image_size" ]; then
        refuse "$cow: belongs to another image ($size bytes; $image has $image_size)" \
            "start that image's bundle, give another --cow FILE, or remove it: what was written is lost"
    fi
    if [ "$mtime" != "$image_mtime" ]; then
        [ "$mtime" = "$IMAGE_MTIME" ] && refuse \
            "$image: lost its time stamp, by which $cow knows it" \
            "touch -d @$IMAGE_MTIME that image (copy bundles with cp -a)"
        refuse "$cow: belongs to another image (of time $mtime; $image is of $image_mtime)" \
            "start that image's bundle, give another --cow FILE, or remove it: what was written is lost"
    fi
}

if [ -z "$ROOT_READ_ONLY" ] && [ -z "$ephemeral" ] && [ -e "$cow" ]; then check_cow; fi

# --- lpj: loops per jiffy, measured once per host and kernel; it halves the time to init ---------------

cache=${XDG_CACHE_HOME:-}
case $cache in /*) ;; *) cache=${HOME:+$HOME/.cache} ;; esac
lpj='' lpj_file=''
if [ -n "$cache" ]; then
    lpj_key=$({ uname -nm; sed -n '/^model name/{p;q;}' /proc/cpuinfo; printf '%s\n' "$KERNEL_VERSION"; } | cksum)
    lpj_file=$cache/umlbuild/lpj-${lpj_key%% *}
    [ ! -r "$lpj_file" ] || read -r lpj <"$lpj_file" || :
    case $lpj in '' | *[!0-9]* | ???????????*) lpj='' ;; esac
fi

# --- UML's command line ---------------------------------------------------------------------------------

inst=${runtime:-$base/uml-XXXXXXXX}
no_aslr=
if [ -n "$SETARCH" ]; then
    # Without it 6.1 takes up to a gigabyte of address space for memory; some containers forbid it.
    no_aslr="setarch $(uname -m) -R"
    $no_aslr true 2>/dev/null || no_aslr=
fi

# uml ACTION: call ACTION with the whole command. "$@" of this script are the extra kernel arguments.
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
    set -- "mem=${memory_mib}M" umid=m "uml_dir=$inst/u/" quiet \
        con=null ssl=null con0=null,fd:2 con1=fd:0,fd:1 "$@"
    # shellcheck disable=SC2086  # three words or none
    set -- env -i PATH=/usr/bin:/bin "TERM=${TERM:-linux}" "TMPDIR=$memory_dir" $no_aslr "$inst/linux" "$@"
    "$action" "$@"
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
    # The lock is UML's, too: it lasts as long as anything of the machine lives.
    echo "$$" >"$lock"
fi

big_endian() { # VALUE BYTES
    shift_by=$((($2 - 1) * 8))
    while [ "$shift_by" -ge 0 ]; do
        printf '%b' "\\0$(printf %o $((($1 >> shift_by) & 255)))"
        shift_by=$((shift_by - 8))
    done
}

# COW format 3: header (4128 bytes), bitmap at 8192, data behind it. UML could make it, too, but puts
# uninitialised memory into it, and a path that is gone tomorrow.
make_cow() {
    bitmap=$(((image_size + 4095) / 4096))
    data=$(((8192 + bitmap + 4095) / 4096 * 4096))
    {
        printf OOOM
        big_endian 3 4
        big_endian "$image_mtime" 4
        big_endian "$image_size" 8
        big_endian 512 4
        big_endian 4096 4
        big_endian 0 4
        printf %s "$image"
    } >"$cow.new" && truncate -s $((data + image_size)) -- "$cow.new" && mv -f -- "$cow.new" "$cow" ||
        refuse "$cow: cannot be made" "free some space there, or use --cow FILE"
}

if [ -z "$ROOT_READ_ONLY" ]; then
    if [ -e "$cow" ]; then
        check_cow
        # The bundle may have been moved.
        { printf %s "$image"; printf '\0'; } | dd of="$cow" bs=4096 oflag=seek_bytes seek=32 conv=notrunc 2>/dev/null
    else
        make_cow
    fi
    ln -s -- "$cow" "$inst/root.cow"
fi
ln -s -- "$image" "$inst/root.img"
ln -s -- "$bundle/linux" "$inst/linux"
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

# --- start -----------------------------------------------------------------------------------------------

ulimit -c 0

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
if [ -n "$log" ]; then
    (: >>"$log") 2>/dev/null || refuse "--log $log: cannot be written"
    exec 5>>"$log"
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

if [ -n "$lpj_file" ] && [ -z "$lpj" ] && command -v timeout >/dev/null; then
    # A boot without a root file system gets as far as the measurement, and no further.
    mkdir "$inst/p" "$inst/probe"
    (
        cd "$inst/probe" || exit
        # shellcheck disable=SC2086  # three words or none
        exec timeout -s KILL 15 env -i PATH=/usr/bin:/bin "TMPDIR=$memory_dir" $no_aslr "$inst/linux" mem=32M \
            umid=p "uml_dir=$inst/p/" con=null ssl=null con0=null,fd:1 root=/dev/ubda noreboot
    ) </dev/null >"$inst/probe.log" 2>&1 6>&- 7>&- 9>&- &
    uml=$!
    await
    uml=
    lpj=$(sed -n 's/.*lpj=\([0-9]\{1,10\}\).*/\1/p' "$inst/probe.log" | head -n 1)
    if [ -n "$lpj" ] && [ -z "$ended" ]; then
        { mkdir -p "${lpj_file%/*}" && echo "$lpj" >"$lpj_file.$$" && mv -f "$lpj_file.$$" "$lpj_file"; } 2>/dev/null || :
    elif [ -z "$ended" ] && grep -qi ptrace "$inst/probe.log"; then
        tail -n 5 "$inst/probe.log" >&2
        refuse "this host does not let UML use ptrace" \
            "in a container: --cap-add SYS_PTRACE or --security-opt seccomp=unconfined"
    fi
fi

start() {
    (
        cd "$inst" || exit 125
        exec "$@" <&3 >&4 2>&5 3>&- 4>&- 5>&- 6>&- 7>&- 8>&-
    ) &
    uml=$!
}

mkdir "$inst/u"
touch -t 200001010000 "$inst/u" # UML makes its directory there when it boots: that changes this time
untouched=$(stat -c %Y "$inst/u")
[ -z "$ended" ] || exit "$ended"
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

if [ -n "$ended" ]; then
    [ "$ended" != 124 ] || say "ended after $timeout_s s (--timeout)"
    exit "$ended"
fi
case $status in
    134)
        say "the guest's kernel panicked"
        exit 126
        ;;
    1)
        if [ "$(stat -c %Y "$inst/u")" = "$untouched" ]; then
            refuse "UML could not start; what it said is above" \
                "look for ptrace (containers), memory (--memory) or arguments that it does not know"
        fi
        exit 1
        ;;
    124 | 125 | 126 | 127) exit 123 ;; # those have a meaning of their own
esac
exit "$status"
