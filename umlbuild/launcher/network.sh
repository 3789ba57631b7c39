# What the machine's interfaces need: looked at before anything is started, since UML itself finds out when an interface
# comes up, and then panics, hangs or goes on without a filter.

network_check() {
    as=$(id -un)
    [ -z "$drop" ] || as=$run_as
    [ -z "$CAPABILITIES" ] || network_capability
    # PACKET_SOCKETS: FD:INTERFACE:FILTER; they are opened by whoever starts this.
    for fd in $DESCRIPTORS $PACKET_SOCKETS; do
        [ -e "/proc/self/fd/${fd%%:*}" ] || refuse \
            "descriptor ${fd%%:*}, which the machine's network wants, is not open" \
            "start it from a program that opens it (Machine.start(…, descriptors=[…]))"
    done
    for file in $FILTER_FILES; do
        size=$(stat -L -c %s -- "$file" 2>/dev/null) || size=0
        # UML would go on without a filter.
        { [ -r "$file" ] && [ "$size" -gt 0 ] && [ $((size % 8)) = 0 ] && [ "$size" -le 32768 ]; } || refuse \
            "$file: is no filter program (an array of struct sock_filter, 1 to 4096 of 8 bytes), or cannot be read" \
            "compile it again"
    done
    for path in $HOST_PATHS; do
        # shellcheck disable=SC2086  # words or none
        { $drop test -r "$path" && $drop test -w "$path"; } || refuse "$path: is missing, or $as may not use it" \
            "$(case $path in /dev/net/tun) echo "chmod 0666 $path (which is what udev makes it)" ;; *) echo "start what listens there" ;; esac)"
    done
    [ -e "$bundle/net" ] && [ -n "$HOST_NETWORK" ] || return 0
    problem=$(sh "$bundle/net" check --user "$as" 2>&1) || refuse \
        "this host's network is not ready for the machine: $(printf %s "$problem" | tr '\n' ';')" \
        "sudo $bundle/net up --user $as   (first look: $bundle/net up --print)"
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
