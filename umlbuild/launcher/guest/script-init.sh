#!/bin/sh
# Process 1 of a machine that runs one program: prepare the guest, run the program on the launcher's
# terminal, report its exit status to the host, power off.
#
# The status goes to /proc/exitcode, which is UML's own exit status (Source: uml-facts 6.4). Statuses
# over 123 mean other things to the launcher and are reported as 123.
# shellcheck source=umlbuild/launcher/guest/early.sh
. /usr/lib/umlbuild/early

# Ctrl-Alt-Del (the host asks for an orderly end) reaches process 1 as SIGINT.
echo 0 >/proc/sys/kernel/ctrl-alt-del

finish() {
    status=$1
    if [ "$status" -gt 123 ]; then
        echo "umlbuild: the program ended with status $status, reported as 123" >&2
        status=123
    fi
    echo "$status" >/proc/exitcode
    sync
    mount -o remount,ro / 2>/dev/null
    echo o >/proc/sysrq-trigger
    # Power-off happens a moment later; process 1 must not end before.
    while :; do sleep 1; done
}
trap 'kill -TERM "$program" 2>/dev/null; sleep 1; finish 0' INT

# It does nothing unless the host asked for it on the kernel command line.
/usr/lib/umlbuild/agent </dev/null >/dev/null 2>&1 &

# Output is for programs as often as for people: no carriage returns.
stty -F /dev/tty1 -onlcr 2>/dev/null || stty -onlcr </dev/tty1 2>/dev/null || :

# A session of its own makes tty1 the program's controlling terminal, so Ctrl-C reaches it.
setsid sh -c 'exec /usr/lib/umlbuild/command </dev/tty1 >/dev/tty1 2>&1' &
program=$!
while :; do
    wait "$program"
    status=$?
    # wait also returns when a trapped signal came in
    kill -0 "$program" 2>/dev/null || break
done
finish "$status"
