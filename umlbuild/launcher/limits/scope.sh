# A cgroup of its own, where systemd runs the host: what all processes of the machine take together is limited. Without
# one, code in UML's process could take any amount of memory that it does not take as a file.

SCOPE_SLACK_MIB=128 # UML's own memory, bubblewrap, and the page cache that disk I/O is charged to

# Prints the words that put a command into a scope; none where there is no systemd that we may ask.
scope_words() {
    if [ "$uid" = 0 ]; then manager='' socket=/run/systemd/private; else
        manager=--user socket=${XDG_RUNTIME_DIR:-/nonexistent}/systemd/private
    fi
    [ -z "$no_scope" ] && [ -S "$socket" ] && [ -w "$socket" ] && command -v systemd-run >/dev/null || return 0
    printf '%s\n' "systemd-run $manager --scope --quiet --collect -p MemorySwapMax=0 \
-p MemoryMax=$((memory_mib + SCOPE_SLACK_MIB))M -p TasksMax=$((PROCESSES + 16))"
}
