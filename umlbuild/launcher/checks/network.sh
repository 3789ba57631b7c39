# What the machine's interfaces need: looked at before anything is started, since UML itself finds out when an interface
# comes up, and then panics, hangs or goes on without a filter.

network_check() {
    [ -n "$HOST_NETWORK$HOST_PATHS$CAPABILITIES$DESCRIPTORS$PACKET_SOCKETS" ] || return 0
    as=$(id -un)
    [ -z "$drop" ] || as=$run_as
    [ -z "$CAPABILITIES" ] || network_capability
    for fd in $DESCRIPTORS; do
        [ -e "/proc/self/fd/$fd" ] || refuse "descriptor $fd, which the machine's network wants, is not open" \
            "start it from a program that opens it (Machine.start(…, descriptors=[…]))"
    done
    for path in $HOST_PATHS; do
        # shellcheck disable=SC2086  # words or none
        { $drop test -r "$path" && $drop test -w "$path"; } || refuse "$path: is missing, or $as may not use it" \
            "$(case $path in /dev/net/tun) echo "chmod 0666 $path (which is what udev makes it)" ;; *) echo "start what listens there" ;; esac)"
    done
    if [ -e "$bundle/net" ] && [ -n "$HOST_NETWORK$PACKET_SOCKETS" ]; then
        problem=$(sh "$bundle/net" check --user "$as" 2>&1) || refuse \
            "this host's network is not ready for the machine: $(printf %s "$problem" | tr '\n' ';')" \
            "sudo $bundle/net up --user $as   (first look: $bundle/net up --print)"
    fi
    for row in $PACKET_SOCKETS; do check_socket "$row"; done
}

# Over the network namespace that we are in: a user namespace of the sandbox's own would not have it there.
network_capability() {
    capabilities=0
    while read -r word value; do
        [ "$word" != CapEff: ] || capabilities=$value
    done </proc/self/status
    [ $((0x$capabilities >> 13 & 1)) = 1 ] || refuse \
        "a transport of this machine needs CAP_NET_RAW in this network namespace" \
        "start it as root with --allow-root, or in a namespace of your own (unshare -Urn, then dist/NAME/net up)"
    [ -z "$drop" ] || refuse \
        "a transport of this machine needs CAP_NET_RAW, which the user $run_as has not" \
        "start it with --allow-root: UML then is root without any right but this one"
    sandbox_capability
}

# Packet sockets, a row each: DESCRIPTOR:INTERFACE:FILTER. `jail` opens one, or looks whether the one that we were
# started with is the same: behind this filter, which is locked.
take_socket() { # ROW
    fd=${1%%:*} filter=${1##*:} ifname=${1#*:}
    ifname=${ifname%:*}
    inherited=
    [ ! -e "/proc/self/fd/$fd" ] || inherited=--inherited
}

check_socket() { # ROW
    take_socket "$1"
    # shellcheck disable=SC2086  # a word or none
    problem=$("$bundle/jail" packet "$ifname" --filter "$bundle/$filter" --fd "$fd" $inherited -- true 2>&1) || refuse \
        "the machine's network: ${problem#jail: }" \
        "sudo $self --user $(id -un), which opens it as root and starts the machine as you; or, in a namespace of your own, unshare -Urn"
}
