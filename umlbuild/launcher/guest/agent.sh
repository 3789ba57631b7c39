#!/bin/sh
# The guest's side of `umlbuild exec`: runs commands for the host over serial lines, without a network.
#
# Started by every init; without `umlbuild.agent=ttyS<N>` on the kernel's command line it ends at once.
# Needs a POSIX shell with cat, dd, head, mkfifo, rm, stty, tr, uname (coreutils or busybox) and, if it is there, setsid.
#
# Three serial lines, raw, eight bits:
#   ttyS<N>    control: short text lines, both ways
#   ttyS<N+1>  data: to the guest the script that a request announced, to the host stdout of the running command
#   ttyS<N+2>  to the host the stderr of the running command
#
# The agent says            `umlbuild-agent 1 ready RELEASE` once, when it can be talked to.
# The host says, and gets:
#   exec ID FROM SIZE INPUT END  run SIZE bytes of shell script in a session of its own. FROM is `line`: they
#                           come on the data line, at most 2048 (UML's serial lines go deaf once the terminal's
#                           buffer of 4096 has been full), stdin is /dev/null and INPUT `-`; or the name of a
#                           disk, plugged in by the host: the script is at its start, and INPUT bytes of stdin
#                           (`-`: /dev/null) at the next multiple of 65536. Answer `exited ID STATUS` when it has
#                           ended (128+n: by signal n); stdout and stderr each end with the bytes END, a random
#                           word of the host's choice; answer `done ID` after both, with the disk closed.
#                           One at a time: a second one is answered `busy ID`.
#   kill ID SIGNAL          signal the session of ID
#   drop ID                 do not wait for background processes that still hold the streams of ID
#   ping ID                 answer `pong ID`
#   poweroff ID             answer `poweroff ID`, and do it
# Everything else is garbage and is ignored. Each answer is one write, so answers never mix.

PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
HOME=${HOME:-/root}
export PATH HOME
set -f

tty=
{ read -r words </proc/cmdline; } 2>/dev/null || exit 0
for word in $words; do
    case $word in
        umlbuild.agent=ttyS*) tty=${word#umlbuild.agent=ttyS} ;;
    esac
done
case $tty in '' | *[!0-9]*) exit 0 ;; esac
control=/dev/ttyS$tty data=/dev/ttyS$((tty + 1)) errors=/dev/ttyS$((tty + 2))

# The lines stay open: closing the last descriptor of one could drop what is under way.
exec 3<>"$control" 6>"$errors"
exec 4<"$data"
exec 5>"$data"
for line in "$control" "$data" "$errors"; do
    stty raw -echo clocal -hupcl <"$line" || exit 1
done

# The root may be read-only; /dev (devtmpfs) is always writable.
work=
for place in /run /dev/shm /tmp /dev; do
    work=$place/.umlbuild-agent
    rm -rf "$work" 2>/dev/null
    (umask 077 && mkdir "$work") 2>/dev/null && break
    work=
done
[ -n "$work" ] || exit 1

session=setsid
command -v setsid >/dev/null 2>&1 || session=

answer() { printf '%s\n' "$1" >&3; }

# run ID DISK SIZE INPUT END: in the background; the script is in $work/ID/script.
run() {
    dir=$work/$1
    mkfifo "$dir/out" "$dir/err" "$dir/in"
    cat <"$dir/out" >&5 2>/dev/null 3>&- 4>&- 6>&- &
    out=$!
    cat <"$dir/err" >&6 2>/dev/null 3>&- 4>&- 5>&- &
    err=$!
    echo "$out $err" >"$dir/cats"
    # Pipes are opened by children only: this shell's opening would fail when a child ends meanwhile (EINTR).
    in=/dev/null
    if [ "$4" != - ]; then
        in=$dir/in
        dd if="/dev/$2" bs=65536 skip=$((($3 + 65535) / 65536)) 2>/dev/null 3>&- 4>&- 5>&- 6>&- |
            head -c "$4" >"$in" 2>/dev/null 3>&- 4>&- 5>&- 6>&- &
    fi
    $session sh "$dir/script" <"$in" >"$dir/out" 2>"$dir/err" 3>&- 4>&- 5>&- 6>&- &
    pid=$!
    echo "$pid" >"$dir/pid"
    wait "$pid"
    status=$?
    answer "exited $1 $status"
    wait # for the feeder and both streams
    printf %s "$5" >&5
    printf %s "$5" >&6
    rm -rf "$dir"
    answer "done $1"
}

power_off() {
    init=$(tr '\0' '\n' </proc/1/cmdline | head -n 1)
    case ${init##*/} in
        systemd* | init*) poweroff && return ;;
    esac
    # Process 1 is a program (a script has its shell's name there) that knows nothing of powering off.
    sync
    mount -o remount,ro / 2>/dev/null
    poweroff -f || { echo o >/proc/sysrq-trigger; }
}

answer "umlbuild-agent 1 ready $(uname -r)"

while IFS=' ' read -r verb id a b c rest <&3; do
    case $id in '' | *[!0-9]*) continue ;; esac
    dir=$work/$id
    case $verb in
        ping) answer "pong $id" ;;
        poweroff)
            answer "poweroff $id"
            power_off </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- &
            ;;
        kill)
            pid=
            case $a in '' | *[!A-Z0-9]*) continue ;; esac
            { read -r pid <"$dir/pid"; } 2>/dev/null
            [ -z "$pid" ] || kill "-$a" "-$pid" 2>/dev/null || kill "-$a" "$pid" 2>/dev/null
            ;;
        drop)
            pids=
            { read -r pids <"$dir/cats"; } 2>/dev/null
            # shellcheck disable=SC2086  # two numbers
            [ -z "$pids" ] || kill $pids 2>/dev/null
            ;;
        exec) # ID FROM SIZE INPUT END
            case $b in '' | *[!0-9]*) continue ;; esac
            case $c in '' | *[!0-9]*) [ "$c" = - ] || continue ;; esac
            case $a-$rest in *[!A-Za-z0-9-]* | *-) continue ;; esac
            set +f
            set -- "$work"/*/script
            set -f
            if [ -e "$1" ] || ! mkdir "$dir"; then
                answer "busy $id"
                continue
            fi
            if [ "$a" = line ]; then
                head -c "$b" <&4 >"$dir/script"
            else
                head -c "$b" <"/dev/$a" >"$dir/script"
            fi
            run "$id" "$a" "$b" "$c" "$rest" &
            ;;
    esac
done
