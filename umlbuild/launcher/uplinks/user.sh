# The uplink of the interface with `transport = "user"`: slirp4netns in a sandbox of its own, and between it and UML a
# program in perl (`uplinks/user.pl`, here in UPLINK_PROGRAM), which keeps the one connection that slirp4netns takes, and
# the bundle's helper, which moves the frames.
# UML itself stays in an empty network namespace: all that it gets is the socket net/uml.

UPLINK_START_S=20

# forwards ACTION: call ACTION with PROTOCOL ADDRESS PORT of each port of the host.
forwards() {
    for forward in $UPLINK_FORWARDS; do
        protocol=${forward%%:*} rest=${forward#*:}
        address=${rest%%:*} rest=${rest#*:}
        "$1" "$protocol" "$address" "${rest%%:*}"
    done
}

port_instead() { # PORT=PORT: another one of the host for forwards that the recipe has at the first
    { [ "$1" != "${1%=*}" ] && number "${1%%=*}" && number "${1#*=}" && [ "${1#*=}" -ge 1 ] && [ "${1#*=}" -le 65535 ]; } 2>/dev/null ||
        refuse "--port $1: not two ports" "write it like --port 8080=8081"
    new='' found=''
    for forward in $UPLINK_FORWARDS; do
        rest=${forward#*:*:}
        if [ "${rest%%:*}" = "${1%%=*}" ]; then
            forward=${forward%"$rest"}${1#*=}:${rest#*:} found=1
        fi
        new="$new $forward"
    done
    [ -n "$found" ] || refuse "--port $1: this machine forwards no port ${1%%=*}" "see transport.forward in its recipe.toml"
    UPLINK_FORWARDS=${new# }
}

uplink_check() {
    slirp=$(command -v slirp4netns) || refuse \
        "slirp4netns is not installed, and this machine has a network with transport = \"user\"" \
        "apt-get install slirp4netns"
    command -v perl >/dev/null || refuse \
        "perl is not installed, and this machine has a network with transport = \"user\"" "apt-get install perl-base"
    [ -x "$bundle/jail" ] || refuse "$bundle/jail: is not there, or not to be executed" "copy the bundle whole (cp -a)"
    case $("$slirp" --help 2>/dev/null) in *--target-type=*bess*) ;; *)
        refuse "$slirp: is too old for UML: it has no --target-type=bess" "install slirp4netns 1.2.0 or newer" ;;
    esac
    [ -n "$UPLINK_FORWARDS" ] || return 0
    # (A shell's `read` takes one byte at a time, and of a sysctl there is only one.)
    first=$(cat /proc/sys/net/ipv4/ip_unprivileged_port_start 2>/dev/null) || first=1024
    forwards check_port
}

check_port() { # PROTOCOL ADDRESS PORT
    [ "$3" -ge "$first" ] || refuse "the port $2:$3 cannot be forwarded: ports below $first need a privilege on this host" \
        "use another one (--port $3=$(($3 + 8000))), or sysctl net.ipv4.ip_unprivileged_port_start=$3"
}

# holder PROTOCOL PORT: who has it, as far as we may know.
# shellcheck disable=SC2012,SC2013  # numbers
holder() {
    hex=$(printf :%04X "$2")
    for inode in $(awk -v port="$hex" '{ at = length($2) - 4 } substr($2, at) == port && ($4 == "0A" || $4 == "07") { print $10 }' \
        "/proc/net/$1" "/proc/net/${1}6" 2>/dev/null); do
        for process in $(ls -l /proc/[0-9]*/fd 2>/dev/null |
            sed -n -e 's#^/proc/\([0-9]*\)/fd:$#\1#' -e "/^[0-9]*\$/h" -e "/ socket:\[$inode\]\$/{g;p;}"); do
            printf ' by process %s (%s)' "$process" "$(cat "/proc/$process/comm" 2>/dev/null)"
            return
        done
        printf ' by another user'
        return
    done
}

# Starts slirp4netns, which takes longer than what else there is to prepare.
uplink_start() {
    mkdir "$inst/net" "$inst/net/slirp"
    : >"$inst/net/resolv.conf"
    [ -z "$drop" ] || chown "$drop_uid:$drop_gid" "$inst/net" "$inst/net/slirp" "$inst/net/resolv.conf"
    set -- "$inst/net/slirp/frames"
    [ -z "$UPLINK_FORWARDS" ] || set -- --api-socket "$inst/net/slirp/api" "$@"
    (
        cd "$inst" || exit
        exec 6>&- 7>&- 9>&- </dev/null >/dev/null
        # Each connection of the guest is a descriptor.
        { ulimit -c 0 && ulimit -n 1024; } 2>/dev/null
        # shellcheck disable=SC2086  # words
        uplink_jail "$slirp" --target-type=bess --enable-seccomp $UPLINK_OPTIONS "$@"
    ) &
    uplink=$!
}

# Returns when slirp4netns runs and has all ports; refuses if that cannot be had.
uplink_await() {
    tries=0
    while [ ! -e "$inst/net/ready" ] && [ ! -e "$inst/net/why" ] && [ -z "$ended" ]; do
        tries=$((tries + 1))
        { [ "$tries" -lt $((UPLINK_START_S * 100)) ] && kill -0 "$uplink" 2>/dev/null; } ||
            { [ -e "$inst/net/why" ] || echo "slirp4netns cannot be started" >"$inst/net/why"; }
        sleep 0.01
    done
    [ -e "$inst/net/why" ] || return 0
    read -r why <"$inst/net/why"
    case $why in
        taken\ *)
            # shellcheck disable=SC2086  # four words
            set -- $why
            refuse "the port $3:$4 ($2) is in use$(holder "$2" "$4"), so it cannot be forwarded to the guest" \
                "end that, or use another port: --port $4=PORT"
            ;;
    esac
    refuse "no network: $why" "try it by hand: slirp4netns --version; or build the machine with another transport"
}

# uplink_exec WORD...: become the program between UML and slirp4netns, which starts the latter by these words.
uplink_exec() {
    # shellcheck disable=SC2086  # words or none
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin $drop perl -e "$UPLINK_PROGRAM" \
        "$NAME" "$UPLINK" "$inst/net" "$UPLINK_LOOPBACK" "$UPLINK_FORWARDS" "$bundle/jail" "$@"
}
