# What all sandboxes that confine have in common.

confined_check() {
    [ -z "$no_sandbox" ] || refuse "--no-sandbox: this machine has a sandbox" \
        "build it with launch.sandbox = \"none\" if you trust the guest that much"
    [ "$uid" != 0 ] || [ -n "$allow_root" ] || drop_root
}

# Root starts machines as somebody without rights: what comes out of the guest shall not be root's.
drop_root() {
    drop_uid=$(id -u "$run_as" 2>/dev/null) && drop_gid=$(id -g "$run_as") && [ "$drop_uid" != 0 ] ||
        refuse "--user $run_as: there is no such unprivileged user" "give another --user NAME"
    drop="setpriv --reuid=$drop_uid --regid=$drop_gid --clear-groups --inh-caps=-all --bounding-set=-all"
    $drop true 2>/dev/null || refuse "we cannot become $run_as here: root of a user namespace with too few users?" \
        "say --allow-root: root of such a namespace is an ordinary user outside (or UMLBUILD_ALLOW_ROOT=1)"
    for file in "$bundle/linux" "$image"; do
        $drop test -r "$file" 2>/dev/null || refuse \
            "$file: user $run_as, as whom root starts machines, cannot read it" \
            "put the bundle where everybody can reach it (/srv, /var/lib), or give another --user"
    done
}
