# The sandbox of Landlock, for hosts without user namespaces: UML can open its kernel (and the host's C library for a
# dynamic one), its disks and shares, and a private directory for its memory. A filter of system calls takes what
# Landlock has no right for: sockets, and changing modes, owners and times. So there is no mconsole either; what is
# handed to the guest lies in a disk that is there from the start. The helper `jail` stays as UML's parent and ends
# whatever UML leaves.

sandbox_check() {
    confined_check
    [ -x "$bundle/jail" ] || refuse "$bundle/jail: is not there, or not to be executed" "copy the bundle whole (cp -a)"
    said=$("$bundle/jail" check 2>&1) || refuse "${said#jail: }" \
        "use a newer kernel, boot it with landlock in lsm=, or build the machine with launch.sandbox = \"bwrap\""
    check_libraries
    check_memory_dir
    notify='' # there is nobody to send it
}

# A dynamic kernel finds only the host's C library, since nothing can be mounted over it. The bundle's own says which
# files that are.
check_libraries() {
    libraries=
    [ -n "$INTERPRETER" ] || return 0
    own="launch.sandbox = \"bwrap\" (there the machine has a C library of its own), or a kernel from 7.0 on (it has none)"
    for file in "$bundle"/lib/*; do
        name=${file##*/} found=
        [ "$name" != xstate.so ] || continue # the bundle's own
        for place in "${INTERPRETER%/*}" /lib/x86_64-linux-gnu /usr/lib/x86_64-linux-gnu /lib64 /usr/lib64 /lib /usr/lib; do
            [ -z "$found" ] && [ -e "$place/$name" ] && found=$place/$name
        done
        [ -n "$found" ] || refuse "this host has no $name, with which the machine's kernel runs" "use $own"
        libraries="$libraries --rx $found"
    done
    [ ! -e /etc/ld.so.cache ] || libraries="$libraries --ro /etc/ld.so.cache"
    # Only the loader runs here, nothing of the kernel.
    wrong=$(env -i LC_ALL=C "$INTERPRETER" --list "$bundle/linux" 2>&1 | grep -F 'not found' | head -n 1)
    [ -z "$wrong" ] || refuse "this host's C library is too old for the machine's kernel: ${wrong##*: }" "use $own"
}

# enter ACTION PROGRAM WORD...: call ACTION with the words that run PROGRAM in the sandbox.
enter() {
    action=$1 program=$2
    shift 2
    [ -z "$agent" ] || set -- "ubd15rd=$inst/box/mail" "$@"
    set -- -- "$program" "$@"
    for disk in $DISKS; do
        case $disk in
            *:copy:*) set -- --rw "$inst/disk${disk%%:*}" "$@" ;;
            *) set -- --ro "$inst/disk${disk%%:*}" "$@" ;;
        esac
    done
    [ -n "$ROOT_READ_ONLY" ] || set -- --rw "$inst/root.cow" "$@"
    share=0
    for mode in $SHARE_MODES; do
        set -- "--$mode" "$inst/share/$share" "$@"
        share=$((share + 1))
    done
    for file in $FILTERS; do set -- --ro "$inst/$file" "$@"; done
    for path in $HOST_PATHS; do set -- --dev "$path" "$@"; done
    [ -z "$locked" ] || set -- --hold 9 "$@"
    [ -z "$INTERPRETER" ] || set -- --rx "$bundle/lib/xstate.so" "$@"
    # shellcheck disable=SC2086  # words or none
    "$action" env -i PATH=/usr/bin:/bin "TERM=${TERM:-linux}" "TMPDIR=$inst/memory" \
        ${INTERPRETER:+LD_PRELOAD=lib/xstate.so} $drop $no_aslr \
        "$bundle/jail" landlock --filter "$bundle/seccomp.bpf" --rx "$inst/linux" $libraries --ro "$inst/root.img" \
        --ro "$inst/box" --rw "$inst/u" --rwx "$inst/memory" --rw /dev/null --ro /dev/random "$@"
}

# The name by which UML knows the image: a COW file with another would be rewritten by it.
backing() { printf %s "$inst/root.img"; }

MAILBOX=4G # most that is handed to the guest at once; without content it takes no space

sandbox_prepare() {
    mkdir "$inst/u"
    [ -z "$INTERPRETER" ] || ln -s -- "$bundle/lib" "$inst/lib"
    memory=$(mktemp -d "$memory_dir/umlbuild-XXXXXXXX") || refuse "$memory_dir: cannot make a directory there"
    ln -s -- "$memory" "$inst/memory"
    [ -z "$agent" ] || { truncate -s "$MAILBOX" "$inst/box/mail" && chmod 644 "$inst/box/mail"; } ||
        refuse "$inst: cannot make a sparse file there" "set XDG_RUNTIME_DIR to a directory of another file system"
}

sandbox_explain() {
    [ "$status" = 1 ] || refuse "the sandbox cannot be made; what jail said is above"
}
