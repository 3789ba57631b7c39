# Filters of frames. UML says one line and goes on unfiltered if it cannot read one, or the kernel refuses it; and it
# reads them each time that the guest brings an interface up. So all that can go wrong is refused here, and UML gets
# a private copy that nobody changes.

sum_of() { printf '%s\n' "$SUMS" | sed -n "s#^\([0-9]* [0-9]*\) $1\$#\1#p"; }

check_filter() { # NAME FILE: is FILE what was built as NAME?
    [ -f "$2" ] || refuse "$2: the filter is not there, and UML would let every frame pass" \
        "copy the bundle whole (cp -a)"
    [ -r "$2" ] || refuse "$2: the filter cannot be read, and UML would let every frame pass" "chmod a+r that file"
    filter_size=$(stat -L -c %s -- "$2")
    { [ "$filter_size" -gt 0 ] && [ "$filter_size" -le 32768 ] && [ $((filter_size % 8)) = 0 ]; } || refuse \
        "$2: is no filter ($filter_size bytes), and UML would let every frame pass" "copy or build the bundle again"
    # The kernel charges what it makes of the program to this limit (20480 before Linux 6.7): up to 14 instructions of
    # 8 bytes for a load from the packet, up to 3 for any other.
    most=$(cat /proc/sys/net/core/optmem_max 2>/dev/null) # `read` would have one digit of it: sysctls end after a byte
    loads=$(od -A n -v -t u2 -w8 -- "$2" | grep -cE '^ *(32|40|48|64|72|80|177) ')
    [ $((8 * (11 * loads + 3 * (filter_size / 8)) + 256)) -le "${most:-1048576}" ] || refuse \
        "$2: this host's kernel may refuse so long a filter (net.core.optmem_max = $most), and let every frame pass" \
        "sysctl net.core.optmem_max=131072, or a shorter filter"
    [ -z "$SUMS" ] || [ "$(cksum <"$2")" = "$(sum_of "$1")" ] || refuse \
        "$2: is not the filter that was built" "copy or build the bundle again"
}

# check_egress INTERFACE DEVICE: what the guest sends comes in at DEVICE; are our rules the only ones there?
check_egress() {
    (PATH=$PATH:/usr/sbin:/sbin && command -v tc >/dev/null) || refuse \
        "tc is not installed: nobody can tell whether what the guest sends is filtered" "apt-get install iproute2"
    "$bundle/filters/egress" show "$1" "$2" >/dev/null 2>&1 || refuse \
        "$2: what the guest sends is not filtered there" "as root: $bundle/filters/egress on $1 $2"
}

check_filters() {
    for name in $FILTERS; do check_filter "$name" "$bundle/$name"; done
    for fd in $FILTERED_FDS; do
        [ -S "/proc/self/fd/$fd" ] || refuse \
            "descriptor $fd is not a socket: UML cannot filter there, and would let every frame pass" \
            "give run a socket (a socketpair, or a bound packet socket) as descriptor $fd"
    done
    for row in $EGRESS; do check_egress "${row%%:*}" "${row#*:}"; done
}

put_filters() {
    [ -n "$FILTERS" ] || return 0
    mkdir -m 0755 "$inst/filters"
    for name in $FILTERS; do
        cp -- "$bundle/$name" "$inst/$name" && chmod 0444 "$inst/$name" || refuse "$inst/$name: cannot be made"
        check_filter "$name" "$inst/$name"
    done
}
