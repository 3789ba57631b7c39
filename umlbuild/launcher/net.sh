#!/bin/sh
# Makes, looks at and removes what a machine's interfaces need on this host. Made by umlbuild, beside `run`.
#
# Needs iproute2, and ethtool where a veth pair must compute checksums itself. It changes only interfaces that the recipe
# names, and removes only those that it made: they have the alias "umlbuild:NAME". It looks with `ip`, not in /sys, which
# may be another network namespace's.

# shellcheck disable=SC2015,SC2086,SC2317
set -uf
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C

# LINKS: a line for each interface: kind, name, peer, bridge, address, address6, mtu, create, user, computes, and the
# arguments of a tunnel; "-" is nothing.
#@SETTINGS@

help() {
    cat <<END
Usage: net up [--print] [--user NAME] | down [--print] | status [--user NAME] | print-interfaces | print-networkd

What the machine "$NAME" needs of this host's network.

  up                make what is missing; again and again does no harm
  down              remove what up has made
  status            say what is missing or in the way (exit status 1); needs no privilege
  print-interfaces  the same as text for /etc/network/interfaces
  print-networkd    the same as files for /etc/systemd/network
  --print           print the commands, and why each of them needs privilege, instead of running them
  --user NAME       whose taps are (default: the recipe's, or who called sudo, or who calls this)

Changing interfaces needs CAP_NET_ADMIN in this network namespace, so usually root.
END
}

fail() {
    printf '%s: net: %s\n' "$NAME" "$1" >&2
    [ $# -lt 2 ] || printf '  fix: %s\n' "$2" >&2
    exit 125
}

# iproute2's, also where the shell (busybox) has an ip of its own, which knows less.
iproute=
for place in /usr/local/sbin /usr/sbin /sbin /usr/bin /bin; do
    if [ -z "$iproute" ] && [ -x "$place/ip" ]; then iproute=$place/ip; fi
done
ip() { "$iproute" "$@"; }

# --- what is there ------------------------------------------------------------------------------------

there() { ip -o link show dev "$1" >/dev/null 2>&1; }

line_of() { ip -d -o link show dev "$1" 2>/dev/null; }

is_kind() { [ -n "$(ip -o link show dev "$1" type "$2" 2>/dev/null)" ]; }

is_ours() { case "$(line_of "$1") " in *"alias umlbuild:$NAME "*) return 0 ;; esac; return 1; }

# A bridge may be that of several machines: whoever leaves it last removes it.
is_made() { case "$(line_of "$1") " in *"alias umlbuild:"*) return 0 ;; esac; return 1; }

# After a word in `ip -d link`: word_of LINE WORD
word_of() {
    set -- "$2" $1
    wanted=$1
    shift
    while [ $# -gt 1 ]; do
        [ "$1" != "$wanted" ] || { printf '%s\n' "$2"; return; }
        shift
    done
}

# How `ip` and people call the kind of a link.
iproute_kind() { case $1 in tap) echo tun ;; *) echo "$1" ;; esac; }

# Sets the variables of one line of LINKS.
take() {
    kind=$1 ifname=$2 peer=${3#-} bridge=${4#-} address=${5#-} address6=${6#-} mtu=$7 create=${8#-}
    shift 8
    user=${1#-} computes=${2#-}
    shift 2
    tunnel='' session='' part=tunnel
    for word; do
        case $word in
            /) part=session ;;
            *) eval "$part=\"\${$part:+\$$part }\$word\"" ;;
        esac
    done
    end=${peer:-$ifname} # what the host uses
    [ "$kind" != any ] || end=
    at=${bridge:-$end} # what has the addresses
    [ "$kind" != tap ] || [ -n "$user" ] || user=$owner
}

# --- what is wrong ------------------------------------------------------------------------------------

wrong() {
    printf '%s\n' "$1"
    found=$((found + 1))
}

# What nobody here can mend but the user: something else has that name, owner or address. Prints and counts.
conflicts() {
    if there "$ifname" && [ "$kind" != any ]; then
        line=$(line_of "$ifname")
        if ! is_kind "$ifname" "$(iproute_kind "$kind")"; then
            wrong "$ifname: is there, but is no $kind"
        elif [ "$kind" = tap ]; then
            case $line in *" tun type tap "*) ;; *) wrong "$ifname: is a tun, not a tap" ;; esac
            holder=$(word_of "$line" user)
            [ -z "$holder" ] || [ "$holder" = "$user" ] || [ "$holder" = "$user_id" ] ||
                wrong "$ifname: belongs to $holder, not to $user"
        elif [ "$kind" = veth ]; then
            case "$line" in *" $ifname@$peer:"*) ;; *) wrong "$ifname: is a veth, but its peer is not $peer" ;; esac
        fi
    elif [ -n "$peer" ] && there "$peer"; then
        wrong "$peer: is there, but $ifname, whose peer it should be, is not"
    fi
    if [ -n "$bridge" ] && there "$bridge" && ! is_kind "$bridge" bridge; then
        wrong "$bridge: is there, but is no bridge"
    fi
    for one in $address $address6; do
        # Addresses of its network on other interfaces: the host would not know where its packets go.
        others=$(ip -o addr show to "$one" 2>/dev/null | while read -r _ device _ theirs _; do
            [ "$device" = "$at" ] || printf '%s (%s) ' "$device" "$theirs"
        done)
        [ -z "$others" ] || wrong "$one: this address or its network is in use on ${others% }"
    done
}

missing() {
    if ! there "$ifname"; then
        wrong "$ifname: there is no such interface"
        return
    fi
    line=$(line_of "$ifname")
    case $line in *[\<,]UP[,\>]*) ;; *) wrong "$ifname: is down" ;; esac
    [ "$(word_of "$line" mtu)" = "$mtu" ] || wrong "$ifname: has the mtu $(word_of "$line" mtu), not $mtu"
    [ -n "$end" ] || return
    line=$(line_of "$end")
    if [ -n "$peer" ]; then
        case $line in *[\<,]UP[,\>]*) ;; *) wrong "$peer: is down" ;; esac
        [ "$(word_of "$line" mtu)" = "$mtu" ] || wrong "$peer: has the mtu $(word_of "$line" mtu), not $mtu"
    fi
    if [ -n "$bridge" ]; then
        there "$bridge" || wrong "$bridge: there is no such bridge"
        [ "$(word_of "$line" master)" = "$bridge" ] || wrong "$end: is not in the bridge $bridge"
    fi
    for one in $address $address6; do
        has_address "$at" "$one" || wrong "$at: has not the address $one"
    done
    [ -z "$computes" ] || [ -z "$peer" ] || ! computes_not "$peer" ||
        wrong "$peer: leaves checksums to the machine, which cannot know (ethtool -K $peer tx off tso off gso off)"
}

has_address() {
    ip -o addr show dev "$1" 2>/dev/null | while read -r _ _ _ has _; do printf '%s\n' "$has"; done | grep -qxF -- "$2"
}

computes_not() { ethtool -k "$1" 2>/dev/null | grep -q '^tx-checksumming: on'; }

# What `run` wants to know before it starts; cheap, and without the addresses, which the machine can live without.
check_link() {
    case $kind in gretap | ip6gretap | l2tp) return ;; esac
    if ! there "$ifname"; then
        wrong "$ifname: there is no such interface on this host"
        return
    fi
    address='' address6='' bridge=''
    conflicts
}

# each FUNCTION: for every link.
each() {
    while read -r row; do
        take $row
        "$1"
    done <<END
$LINKS
END
}

# --- changing it --------------------------------------------------------------------------------------

quoted() {
    for word; do
        case $word in
            '' | *[!A-Za-z0-9_./:=@%+,-]*) printf "'%s' " "$(printf %s "$word" | sed "s/'/'\\\\''/g")" ;;
            *) printf '%s ' "$word" ;;
        esac
    done
}

# step REASON COMMAND...
step() {
    reason=$1
    shift
    changed=1
    if [ -n "$print" ]; then
        text=$(quoted "$@")
        printf '# %s\n%s\n' "$reason" "${text% }"
        return
    fi
    "$@" >/dev/null || fail "this failed: $*" "to $reason; does this kernel have what it takes (gretap, l2tp: modprobe ip_gre, l2tp_eth)?"
}

ADMIN="changes this network namespace: CAP_NET_ADMIN"

mark() { step "remember that $1 was made for this machine; $ADMIN" ip link set dev "$1" alias "umlbuild:$NAME"; }

make_link() {
    case $kind in
        tap)
            step "make the tap $ifname, for $user; $ADMIN, and /dev/net/tun" ip tuntap add dev "$ifname" mode tap user "$user"
            ;;
        veth)
            step "make the pair $ifname (the machine's) and $peer (the host's); $ADMIN" \
                ip link add name "$ifname" type veth peer name "$peer"
            ;;
        gretap | ip6gretap)
            step "make the tunnel $ifname to the machine; $ADMIN (root, if its module is not loaded)" \
                ip link add name "$ifname" type "$kind" $tunnel
            ;;
        l2tp)
            step "make the tunnel to the machine; $ADMIN (root, if its module is not loaded)" ip l2tp add tunnel $tunnel
            step "make its session, the interface $ifname; $ADMIN" ip l2tp add session $session
            ;;
    esac
    mark "$ifname"
}

bring_up() {
    if [ -n "$bridge" ] && ! there "$bridge"; then
        case " $made " in *" $bridge "*) ;; *)
            made="$made $bridge"
            step "make the bridge $bridge; $ADMIN" ip link add name "$bridge" type bridge
            mark "$bridge"
            step "switch it on; $ADMIN" ip link set dev "$bridge" up
            ;;
        esac
    fi
    if ! there "$ifname"; then
        [ -n "$create" ] || fail "$ifname: there is no such interface, and the recipe says that it is there (host.create)"
        make_link
    fi
    line=$(line_of "$ifname")
    is_up=
    case $line in *[\<,]UP[,\>]*) is_up=1 ;; esac
    if [ "$kind" != any ] && [ "$(word_of "$line" mtu)" != "$mtu" ]; then
        step "packets of $mtu bytes; $ADMIN" ip link set dev "$ifname" mtu "$mtu"
    fi
    if [ "$kind" = veth ]; then
        # This end is the machine's alone: this host shall not answer there.
        case $line in *NOARP*PROMISC* | *PROMISC*NOARP*) ;; *)
            step "$ifname takes all frames, and this host says nothing there; $ADMIN" \
                ip link set dev "$ifname" arp off promisc on addrgenmode none
            ;;
        esac
    elif [ "$kind" = any ]; then
        case $line in *PROMISC*) ;; *) step "$ifname takes all frames; $ADMIN" ip link set dev "$ifname" promisc on ;; esac
    fi
    [ -n "$is_up" ] || step "switch $ifname on; $ADMIN" ip link set dev "$ifname" up
    [ -n "$end" ] || return 0
    line=$(line_of "$end")
    if [ -n "$peer" ]; then
        [ "$(word_of "$line" mtu)" = "$mtu" ] || step "packets of $mtu bytes; $ADMIN" ip link set dev "$peer" mtu "$mtu"
        if [ -n "$computes" ] && { [ -z "$line" ] || computes_not "$peer"; }; then
            command -v ethtool >/dev/null || [ -n "$print" ] || fail "ethtool is not installed" "apt-get install ethtool"
            step "the machine cannot see what is left to a network card: compute it before; $ADMIN" \
                ethtool -K "$peer" tx off tso off gso off
        fi
        case $line in *[\<,]UP[,\>]*) ;; *) step "switch $peer on; $ADMIN" ip link set dev "$peer" up ;; esac
    fi
    if [ -n "$bridge" ] && [ "$(word_of "$line" master)" != "$bridge" ]; then
        step "put $end into $bridge; $ADMIN" ip link set dev "$end" master "$bridge"
    fi
    for one in $address $address6; do
        has_address "$at" "$one" || step "this host's address; $ADMIN" ip addr replace "$one" dev "$at"
    done
}

take_down() {
    if [ -n "$create" ] && there "$ifname" && is_ours "$ifname"; then
        case $kind in
            tap) step "remove the tap (refused while a machine has it); $ADMIN" ip tuntap del dev "$ifname" mode tap ;;
            l2tp)
                tunnel_id=$(word_of "$tunnel" tunnel_id)
                step "remove the session; $ADMIN" \
                    ip l2tp del session tunnel_id "$tunnel_id" session_id "$(word_of "$session" session_id)"
                step "remove its tunnel; $ADMIN" ip l2tp del tunnel tunnel_id "$tunnel_id"
                ;;
            *) step "remove $ifname${peer:+ and $peer}; $ADMIN" ip link del dev "$ifname" ;;
        esac
        gone="$gone $end"
    fi
    if [ -n "$bridge" ] && there "$bridge" && is_made "$bridge"; then
        ports=$(ip -o link show master "$bridge" | while read -r _ port _; do
            port=${port%:}
            case " $gone " in *" ${port%%@*} "*) ;; *) printf '%s ' "$port" ;; esac
        done)
        if [ -z "$ports" ]; then
            step "remove the bridge, which has no interface any more; $ADMIN" ip link del dev "$bridge"
            return
        fi
    fi
    [ -n "$at" ] || return 0
    case " $gone " in *" $at "*) return 0 ;; esac
    for one in $address $address6; do
        ! has_address "$at" "$one" || step "remove this host's address; $ADMIN" ip addr del "$one" dev "$at"
    done
}

may_change() {
    [ -z "$print" ] || return 0
    capabilities=0
    while read -r word value; do
        [ "$word" != CapEff: ] || capabilities=$value
    done </proc/self/status
    [ $((0x$capabilities >> 12 & 1)) = 1 ] || fail "changing interfaces needs CAP_NET_ADMIN here" "sudo $0 $verb"
}

# --- what was asked for -------------------------------------------------------------------------------

verb=${1-} print='' owner=''
[ $# -eq 0 ] || shift
while [ $# -gt 0 ]; do
    case $1 in
        --print) print=1 ;;
        --user)
            [ $# -ge 2 ] || fail "--user: a value is missing" "net --help"
            owner=$2
            shift
            ;;
        *) fail "unknown argument \"$1\"" "net --help" ;;
    esac
    shift
done
case $verb in
    up | down | status | check | print-interfaces | print-networkd) ;;
    -h | --help | help) help; exit 0 ;;
    *) help >&2; exit 125 ;;
esac

# Who starts the machine: root's own machines run as nobody, unless they need a capability. In a user namespace with one
# user there is no nobody.
if [ -z "$owner" ]; then
    owner=$(id -un)
    if [ "$(id -u)" = 0 ]; then
        owner=root
        read -r _ _ users </proc/self/uid_map
        [ -n "$ROOT" ] || [ "$users" -lt 65536 ] || owner=${SUDO_USER:-nobody}
    fi
fi
case $owner in *[!A-Za-z0-9_.-]* | -*) fail "--user $owner: not a name" ;; esac
user_id=$(id -u "$owner" 2>/dev/null) || user_id=$owner

case $verb in
    print-interfaces) printf '%s' "$INTERFACES" | sed "s/@USER@/$owner/g"; exit 0 ;;
    print-networkd) printf '%s' "$NETWORKD" | sed "s/@USER@/$owner/g"; exit 0 ;;
esac
[ -n "$iproute" ] || fail "ip is not installed" "apt-get install iproute2"

found=0 changed='' made='' gone=''
case $verb in
    check)
        each check_link
        [ "$found" = 0 ]
        exit
        ;;
    status)
        look() { before=$found; conflicts; [ "$found" != "$before" ] || missing; }
        each look
        [ "$found" -gt 0 ] || echo "$NAME: all that its network needs is there"
        [ "$found" = 0 ]
        exit
        ;;
    up)
        may_change
        each conflicts >&2
        [ "$found" = 0 ] || fail "nothing was changed" "remove what is in the way, or change the recipe"
        each bring_up
        ;;
    down)
        may_change
        each take_down
        ;;
esac
[ -n "$changed" ] || echo "$NAME: nothing to do"
