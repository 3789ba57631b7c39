# No sandbox: whoever breaks out of the guest is the user who started it. Asked for twice: in the recipe, and with
# --no-sandbox at each start.

sandbox_check() {
    [ -n "$no_sandbox" ] || refuse "this machine has no sandbox: guest root could read and write all your files" \
        "say --no-sandbox if you trust the guest, or build it with launch.sandbox = \"bwrap\""
    say "warning: no sandbox: guest root can reach all that you can reach"
    [ "$uid" != 0 ] || [ -n "$allow_root" ] || refuse \
        "you are root, and whoever breaks out of the guest would be, too" \
        "start it as an ordinary user, or say --allow-root (UMLBUILD_ALLOW_ROOT=1)"
    check_memory_dir
}

sandbox_capability() { :; } # UML has whatever we have

# enter ACTION WORD...: call ACTION with the words that run these in the sandbox.
enter() {
    action=$1
    shift
    # shellcheck disable=SC2086  # three words or none
    "$action" env -i PATH=/usr/bin:/bin "TERM=${TERM:-linux}" "TMPDIR=$memory_dir" \
        ${INTERPRETER:+LD_PRELOAD=lib/xstate.so} $no_aslr "$@"
}

# uplink_jail WORD...: run these words of slirp4netns, which then has a filter of system calls, and nothing else.
uplink_jail() { uplink_exec setpriv --pdeathsig KILL --no-new-privs "$@"; }

# The name by which UML knows the image: a COW file with another would be rewritten by it.
backing() { printf %s "$image"; }

sandbox_prepare() {
    mkdir "$inst/u"
    [ -z "$INTERPRETER" ] || ln -s -- "$bundle/lib" "$inst/lib"
}

sandbox_explain() { :; }
