"""What guest root tries: tricks with hostfs, with the share, with the host's processes and devices. Data only."""

from __future__ import annotations

from collections.abc import Callable

from umlbuild.attack.attempt import (
    Attempt,
    ByGuest,
    Needs,
    Scene,
    changes_victim,
    makes,
    reaches,
    reads_secret,
    says,
    sees,
    spoils,
)

UP = "/.." * 20
"""From wherever hostfs begins to the root of what UML sees."""

_PRELUDE = """
for W in /run /tmp /dev/shm /dev; do
    W=$W/attack; [ ! -e "$W/spelling" ] || break
    mkdir "$W" "$W/m" "$W/n" 2>/dev/null && : >"$W/spelling" && break
done
M=$W/m; N=$W/n
hostfs() { # OPTION [DIRECTORY]: mount the host's; two spellings, of old and new kernels, which is found out once
    read -r spelling <"$W/spelling" || {
        spelling=hostfs=
        mount -t hostfs -o / none "$N" 2>/dev/null && umount "$N" && spelling=
        echo "$spelling" >"$W/spelling"
    }
    mount -t hostfs -o "$spelling$1" none "${2:-$M}" 2>/dev/null
}
show() { # OPTION [NAME]: what the host has there
    hostfs "$1" || return
    { while read -r line; do printf '%s\n' "$line"; done <"$M/${2:-secret}"; } 2>/dev/null
    cd "$M" && printf '%s\n' * .*
    cd / && umount "$M"
}
"""
_AFTER = """
while read -r _ at _; do case $at in "$W"/*) umount "$at" ;; esac; done </proc/mounts 2>/dev/null
exit 0
"""


def _script(text: str) -> Callable[[Scene], str]:
    """A script; @HOME@ and so on are filled in."""

    def make(scene: Scene) -> str:
        fillings = {
            "HOME": str(scene.canaries.home), "TOKEN": scene.canaries.token, "UP": UP,
            "RO": str(scene.share_numbers.get("ro", "")), "RW": str(scene.share_numbers.get("rw", "")),
            "ANY": str(min(scene.share_numbers.values(), default="")),
            "PID": str(scene.canaries.pid), "PORT": str(scene.canaries.port), "BUNDLE": scene.bundle,
            "MACHINE": scene.home,
        }  # fmt: skip
        whole = _PRELUDE + text + _AFTER
        for name, value in fillings.items():
            whole = whole.replace(f"@{name}@", value)
        return whole

    return make


_HOSTFS: tuple[Needs, ...] = ("hostfs",)
_SHARE: tuple[Needs, ...] = ("hostfs", "share")
_WRITABLE: tuple[Needs, ...] = ("hostfs", "writable share")


def _reads(name: str, tries: str, script: str, needs: tuple[Needs, ...] = _HOSTFS) -> Attempt:
    return ByGuest(name, "paths", tries, reads_secret, needs, script=_script(script))


_PATHS: tuple[Attempt, ...] = (
    _reads("dotdot", "mount -o /../.. up to the host's root", "show '@UP@@HOME@'"),
    _reads("dotdot-bare", "the same without a leading slash", "show '..@UP@@HOME@'"),
    _reads("dotdot-slashes", "with doubled slashes", "show '//..//..//..//..//..@UP@/@HOME@'"),
    _reads("dotdot-dots", "with /./ between", "show '/./.././.././.././..@UP@/.@HOME@'"),
    _reads("dotdot-share", "up from inside a share", "show '/@ANY@@UP@@HOME@'", needs=_SHARE),
    _reads("dotdot-encoded", "%2e%2e, octal and overlong spellings of ..",
           "for dots in '%2e%2e' '\\056\\056' '..%2f' '\\xc0\\xae\\xc0\\xae' '..;' '.. '; do\n"
           "show \"/$dots/$dots/$dots/$dots/$dots/$dots@HOME@\"; done"),
    _reads("absolute", "the canary's own path, and the root's", "show '@HOME@'; show /; show ''"),
    _reads("link-absolute", "mount an absolute symlink that lies in a share", "show /@ANY@/to-canaries", needs=_SHARE),
    _reads("link-root", "mount through a symlink to /", "show '/@ANY@/to-root@HOME@'", needs=_SHARE),
    _reads("link-relative", "mount through a symlink to ../../..", "show '/@ANY@/up@HOME@'", needs=_SHARE),
    _reads("link-chain", "mount through a chain of symlinks", "show /@ANY@/chain", needs=_SHARE),
    _reads("link-made", "make a symlink in a writable share and mount it",
           "hostfs /@RW@ && ln -s '@HOME@' \"$M/made\" && umount \"$M\"; show /@RW@/made", needs=_WRITABLE),
    _reads("link-walked", "walk through a symlink of the share",
           "hostfs /@ANY@ && cat \"$M/to-canaries/secret\" \"$M/chain/secret\"", needs=_SHARE),
    _reads("rename-cached", "swap a directory for a symlink behind a cached lookup",
           "hostfs /@RW@ && hostfs '/@RW@' \"$N\" && mkdir \"$M/swap\" && echo >\"$M/swap/secret\" && ls \"$M/swap\"\n"
           "exec 9<\"$M/swap\"; mv \"$N/swap\" \"$N/swap.old\"; ln -s '@HOME@' \"$N/swap\"\n"
           "cat \"$M/swap/secret\"; exec 9<&-", needs=_WRITABLE),
    _reads("rename-race", "rename during lookups, many times",
           "hostfs /@RW@ && hostfs '/@RW@' \"$N\" && mkdir \"$M/race\" && echo >\"$M/race/secret\"\n"
           "(i=0; while [ $i -lt 12 ]; do mv \"$N/race\" \"$N/r.old\"; ln -s '@HOME@' \"$N/race\"; rm \"$N/race\"\n"
           " mv \"$N/r.old\" \"$N/race\"; i=$((i+1)); done) 2>/dev/null &\n"
           "while kill -0 $!; do read -r line <\"$M/race/secret\" && echo \"$line\"; done 2>/dev/null; wait",
           needs=_WRITABLE),
    _reads("hard-link", "hard-link an outside file into a writable share",
           "hostfs '@UP@' && ln \"$M@HOME@/secret\" \"$M@HOME@/share-rw/stolen\"; umount \"$M\"\n"
           "show /@RW@ stolen", needs=_WRITABLE),
)  # fmt: skip


def _writes(name: str, tries: str, script: str) -> Attempt:
    return ByGuest(
        name, "paths", tries, changes_victim, _HOSTFS, script=_script("hostfs '@UP@@HOME@' || exit\n" + script)
    )


_WRITES: tuple[Attempt, ...] = (
    _writes("write-outside", "overwrite a host file by ..", 'echo changed >"$M/victim"'),
    _writes("chmod-outside", "chmod a host file by ..", 'chmod 600 "$M/victim"'),
    _writes("touch-outside", "set a host file's time by ..", 'touch -d "2001-02-03 04:05" "$M/victim"'),
    _writes("remove-outside", "remove a host file by ..", 'rm -f "$M/victim"'),
    _writes("rename-outside", "rename over a host file by ..", 'echo x >"$M/open/x" && mv "$M/open/x" "$M/victim"'),
    ByGuest(
        "create-outside", "paths", "make a file outside by ..", makes("outside"), _HOSTFS,
        script=_script("hostfs '@UP@@HOME@/open' && echo x >\"$M/@TOKEN@-outside\""),
    ),
    ByGuest(
        "read-only-write", "share", "write to a read-only share", makes("ro-write"), _SHARE,
        script=_script("hostfs '/@RO@' && echo x >\"$M/@TOKEN@-ro-write\""),
    ),
    ByGuest(
        "read-only-remount", "share", "remount a read-only share writable, and write", makes("ro-remount"),
        _SHARE, script=_script("hostfs /@RO@ && mount -o remount,rw \"$M\"; echo x >\"$M/@TOKEN@-ro-remount\""),
    ),
)  # fmt: skip


def _spoils(name: str, tries: str, script: str) -> Attempt:
    return ByGuest(
        name, "share", tries, spoils, _WRITABLE,
        script=_script("hostfs /@RW@ || exit\n" + script),
    )  # fmt: skip


_SPOILS: tuple[Attempt, ...] = (
    _spoils("block-device", "make a node of the host's disks in the share",
            'for n in 8 253 254 259; do mknod "$M/disk$n" b $n 0; done'),
    _spoils("char-device", "make /dev/mem in the share", 'mknod -m 666 "$M/mem" c 1 1'),
    _spoils("setuid", "leave a set-uid program in the share",
            'cp /bin/sh "$M/setuid" && chmod 4755 "$M/setuid"'),
    _spoils("setgid", "leave a set-gid program in the share",
            'cp /bin/sh "$M/setgid" && chmod 2755 "$M/setgid"'),
    _spoils("give-away", "give a file of the share to another user", 'echo x >"$M/given" && chown 4711 "$M/given"'),
    ByGuest("fifo-guest", "share", "write into a host's fifo in the share", reaches("fifo-guest"), _SHARE,
            script=_script("hostfs /@RO@ && (echo fifo-guest >\"$M/fifo\") & sleep 0.3; kill $! 2>/dev/null")),
)  # fmt: skip

HOST_PATHS = (
    "/", "/etc", "/home", "/root", "/usr", "/bin", "/proc", "/sys", "/dev", "/run", "/tmp", "/var", "/var/tmp",
    "/var/lib", "/opt", "/srv", "/boot", "/mnt",
)  # fmt: skip


def _listed(path: str) -> Attempt:
    return ByGuest(
        f"list-{path.strip('/').replace('/', '-') or 'slash'}", "paths", f"mount the host's {path}", sees(path),
        _HOSTFS, script=_script(f"show '@UP@{path}' .; show '{path}' ."),
    )  # fmt: skip


_LISTED = tuple(_listed(path) for path in HOST_PATHS)


def _device(name: str, tries: str, script: str, word: str) -> Attempt:
    """Of the guest's own kernel, which is the first wall."""
    return ByGuest(name, "devices", tries, says(word), script=_script(script))


_KERNEL: tuple[Attempt, ...] = (
    _device("hot-plug", "add a file of the host as a disk by /proc/mconsole",
            "[ -e /proc/mconsole ] && echo 'config ubd13=/etc/passwd' >/proc/mconsole\n"
            "for disk in /dev/ubdn /dev/ubd13; do grep -q '^root:' $disk 2>/dev/null && echo plugged; done", "plugged"),
    _device("exitcode", "write the host's exit status and environment by /proc/exitcode",
            "cat /proc/1/environ | tr '\\0' '\\n' | grep -q '^SUDO_\\|^XDG_\\|^SSH_' && echo leaked", "leaked"),
    ByGuest("unix-guest", "sockets", "write to a socket of the host that lies in a share", reaches("unix-guest"),
            _SHARE, script=_script("hostfs '/@RO@' && (echo unix-guest >\"$M/datagram.sock\") 2>/dev/null")),
    ByGuest("mem-of-uml", "processes", "read a host process by hostfs and /proc", reads_secret, _HOSTFS,
            script=_script("hostfs '@UP@/proc/@PID@' && cat \"$M/environ\"; umount \"$M\"\n"
                           "show '@UP@/proc/self/root@HOME@'")),
)  # fmt: skip

GUEST: tuple[Attempt, ...] = (*_PATHS, *_WRITES, *_SPOILS, *_LISTED, *_KERNEL)
