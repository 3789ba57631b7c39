#!/bin/sh
# Filters what a guest of this bundle sends, where it comes in on the host: a tap itself, or the other end of a veth.
#
#   egress on INTERFACE DEVICE     what the rules do not allow is dropped; again: the same
#   egress off INTERFACE DEVICE    all may leave again
#   egress show INTERFACE DEVICE   is it in force, and how much was dropped?
#
# INTERFACE is the guest's (vec0). Two filters of the kernel's traffic control (cls_bpf, classic BPF) at DEVICE's
# ingress: the first lets pass what the rules match, the second drops all else. Needs tc (iproute2) and, but for
# `show`, CAP_NET_ADMIN in DEVICE's network namespace. Stateless: answers of the guest need a rule, too. A device that
# is made anew has no rules.
set -u

refuse() {
    echo "egress: $1" >&2
    exit 1
}

[ $# = 3 ] || refuse "usage: egress on|off|show INTERFACE DEVICE"
PATH=$PATH:/usr/sbin:/sbin
rules=$(dirname -- "$(readlink -f -- "$0")")/$2.egress
[ -s "$rules" ] || refuse "$rules: there are no rules for $2"
command -v tc >/dev/null || refuse "tc is not installed (apt-get install iproute2)"

# A load beyond a frame's end makes a program's value 0. So it must not be the verdict (with direct-action, 0 is "let it
# pass"), but whether the filter matches.
# As the kernel shows them; with anything else among them this is not what was asked for.
rows() {
    echo "filter protocol all pref 1 bpf chain 0 handle 0x1 bytecode '$(cat "$rules")'"
    echo "filter protocol all pref 2 bpf chain 0 handle 0x1 direct-action bytecode '1,6 0 0 2'"
}

in_force() {
    [ "$(tc filter show dev "$1" ingress | sed -e 's/ *$//' -e '/ chain 0$/d' -e 's/ not_in_hw / /')" = "$(rows)" ]
}

add() { # DEVICE PREFERENCE WORD...
    device=$1 pref=$2
    shift 2
    tc filter replace dev "$device" ingress pref "$pref" handle 1 protocol all bpf "$@"
}

case $1 in
    on)
        # A qdisc of its kind may be there already; then the filters decide.
        tc qdisc add dev "$3" clsact 2>/dev/null
        add "$3" 2 direct-action bytecode '1,6 0 0 2' && add "$3" 1 bytecode-file "$rules"
        in_force "$3" ||
            refuse "$3: the rules are NOT in force (are there others? tc filter show dev $3 ingress)"
        ;;
    off)
        tc filter del dev "$3" ingress pref 2 2>/dev/null
        tc filter del dev "$3" ingress pref 1 || refuse "$3: has no rules of ours"
        ;;
    show)
        in_force "$3" || refuse "$3: the rules are not in force"
        tc -s filter show dev "$3" ingress
        tc -s qdisc show dev "$3" clsact
        ;;
    *) refuse "usage: egress on|off|show INTERFACE DEVICE" ;;
esac
