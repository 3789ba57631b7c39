"""Named sets of Kconfig symbols, as the kinds contribute them. Pure data.

A set holds what its owner needs *and* the symbols those depend on, so that it sticks on `tinyconfig`,
where everything is off. `*_OPTIONAL` sets hold symbols that only some kernel versions know; they are
asked for only where the tree knows them.

Source: resolved with olddefconfig on 6.1 and 7.3 trees; what is really needed was found by booting
(lists of the project's kernel notes), not by copying a distribution's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


def _set(yes: str = "", no: str = "", **values: str) -> Mapping[str, str]:
    """A read-only set: words that are y, words that are n, and other values."""
    symbols = dict.fromkeys(yes.split(), "y") | dict.fromkeys(no.split(), "n") | values
    return MappingProxyType(dict(sorted(symbols.items())))


# Every bundle. Source: arch/um/Kconfig, arch/um/drivers/Kconfig, init/Kconfig.
_BASE_YES = (
    # tinyconfig on an x86 host asks for 32 bit if not told otherwise (arch/x86/um/Kconfig).
    "64BIT "
    # tinyconfig hides much behind EXPERT; it shows it, it does not turn anything on.
    "EXPERT "
    # Processes: users and groups, programs, scripts, the system calls every libc uses.
    "MULTIUSER BINFMT_ELF BINFMT_SCRIPT POSIX_TIMERS FUTEX EPOLL EVENTFD SIGNALFD TIMERFD AIO "
    "ADVISE_SYSCALLS MEMBARRIER FILE_LOCKING SHMEM HIGH_RES_TIMERS NO_HZ_IDLE "
    # Messages, and panics that say where: `%pS` needs symbol names, BUG gives file and line.
    "PRINTK BUG KALLSYMS "
    # tinyconfig compiles for size and takes the allocator for 16 MB machines: both cost speed in every
    # system call. The kernel's own defaults are these (mm/Kconfig, init/Kconfig).
    "SLUB CC_OPTIMIZE_FOR_PERFORMANCE "
    # The disk, and the file systems that the kernel itself offers.
    "BLOCK BLK_DEV BLK_DEV_UBD PROC_FS SYSFS SYSCTL DEVTMPFS DEVTMPFS_MOUNT TMPFS "
    "TMPFS_POSIX_ACL TMPFS_XATTR INOTIFY_USER "
    # A stop that is clean goes through mconsole (cad, sysrq).
    "MCONSOLE MAGIC_SYSRQ "
    # Consoles: standard error for the kernel, lines on descriptors, ptys inside the guest.
    "STDERR_CONSOLE SSL NULL_CHAN UNIX98_PTYS "
    # Sockets between the guest's own processes: every init and logger wants them.
    "NET UNIX "
    # /dev/urandom is seeded from the host, so nothing waits for entropy at boot.
    "HW_RANDOM UML_RANDOM"
)
_BASE_NO = (
    # With SMP, `transport=tap` panics the guest (vector_reset_stats locks a queue that is NULL), and
    # every boot makes 5000 times as many rt_sigprocmask calls.
    "SMP "
    # A host directory inside the guest is the share kind's business; hostfs is no boundary.
    "HOSTFS "
    # Channels that open terminals or sockets on the host.
    "PORT_CHAN XTERM_CHAN PTY_CHAN TTY_CHAN "
    # 256 BSD ptys cost 43 ms of every boot and nobody opens them.
    "LEGACY_PTYS "
    "SLUB_TINY "
    # The release must not depend on the state of a git tree.
    "LOCALVERSION_AUTO "
    # Warnings of a newer compiler than the kernel knows must not end a build.
    "WERROR "
    # Each write of the guest would be O_SYNC on the host; the disk's `s` flag says so where it is wanted.
    "BLK_DEV_UBD_SYNC"
)
BASE = _set(
    _BASE_YES,
    _BASE_NO,
    # 100 MB of DWARF that would be stripped again, and two minutes of compiling.
    DEBUG_INFO_NONE="y",
    # The main console is the launcher's terminal; all other lines go nowhere unless the launcher says so.
    CON_ZERO_CHAN='"fd:0,fd:1"',
    CON_CHAN='"null"',
    SSL_CHAN='"null"',
)
BASE_OPTIONAL = _set(
    # 6.1 has /proc/sys behind a symbol of its own; later it is SYSCTL.
    "PROC_SYSCTL",
    # Measuring RAID algorithms takes 0.85 s of each boot; hidden where nothing needs them.
    "RAID6_PQ_BENCHMARK",
)

# A host directory in the guest. Built in, since `hostfs=` is a kernel parameter. Source: arch/um/Kconfig.
HOSTFS = _set("HOSTFS")

# What systemd needs for no failed unit, a login session (logind, user slices, FHANDLE for /run/user) and
# for the confinement of units that costs nothing: memory and task limits, seccomp, private mounts.
# BPF_SYSCALL and CGROUP_BPF are left out: the verifier is the largest attack surface of a guest kernel.
# Units that ask for IPAddressDeny= or device policies say so once in the journal; request both if wanted.
# Source: systemd's README, "REQUIREMENTS"; booted without them;
# autofs is asked for by proc-sys-fs-binfmt_misc.automount, which every Debian has.
SYSTEMD = _set(
    "CGROUPS CGROUP_SCHED FAIR_GROUP_SCHED CGROUP_FREEZER CGROUP_PIDS MEMCG "
    "NAMESPACES UTS_NS IPC_NS PID_NS NET_NS USER_NS "
    "FANOTIFY FHANDLE SYSVIPC POSIX_MQUEUE SECCOMP KEYS COREDUMP ELF_CORE AUTOFS_FS INET PACKET"
)
SYSTEMD_OPTIONAL = _set()

# Debian's boot scripts: udev (netlink, inotify), sockets of syslog and cron's locks.
# Source: systemd's README for udev ("fhandle", "inotify"); sysvinit needs nothing itself.
SYSVINIT = _set("SYSVIPC FHANDLE INET PACKET COREDUMP ELF_CORE")
SYSVINIT_OPTIONAL = _set()

# One static binary needs no more than BASE; loopback and udhcpc are the network's.
BUSYBOX = _set("INET")
BUSYBOX_OPTIONAL = _set()

# Any program as process 1; it may listen on 127.0.0.1.
SCRIPT = _set("INET")
SCRIPT_OPTIONAL = _set()

# File systems. The discards of all of them reach the host's file through ubd without a symbol of its own
# (arch/um/drivers/ubd_kern.c: REQ_OP_DISCARD punches a hole in the backing file).

# Security labels carry file capabilities (ping, newuidmap). Source: fs/ext4/Kconfig.
EXT4 = _set("EXT4_FS EXT4_FS_POSIX_ACL EXT4_FS_SECURITY")
EXT4_OPTIONAL = _set()

# Without SQUASHFS_XATTR file capabilities are lost without an error. Source: fs/squashfs/Kconfig.
SQUASHFS = _set("MISC_FILESYSTEMS SQUASHFS SQUASHFS_XATTR SQUASHFS_ZSTD")
SQUASHFS_OPTIONAL = _set()

# LZ4 (lz4hc is only the compressor's effort) comes with EROFS_FS_ZIP; the image kind adds the symbol of
# another compression. LZMA is on by default where LZ4 is. Source: fs/erofs/Kconfig.
EROFS = _set("MISC_FILESYSTEMS EROFS_FS EROFS_FS_XATTR EROFS_FS_POSIX_ACL EROFS_FS_SECURITY EROFS_FS_ZIP")
EROFS_OPTIONAL = _set()

# BTRFS selects RAID6_PQ, whose benchmark is 0.85 s of every boot. Source: fs/btrfs/Kconfig, lib/.
BTRFS = _set("BTRFS_FS BTRFS_FS_POSIX_ACL", "RAID6_PQ_BENCHMARK")
BTRFS_OPTIONAL = _set()

# Source: fs/xfs/Kconfig. v5 file systems only: v4 is deprecated.
XFS = _set("XFS_FS XFS_POSIX_ACL")
XFS_OPTIONAL = _set("", "XFS_SUPPORT_V4")

# Writes over a read-only root. Source: fs/overlayfs/Kconfig.
OVERLAY = _set("OVERLAY_FS")
OVERLAY_OPTIONAL = _set()

# Vector network devices. Source: arch/um/drivers/Kconfig: 7.3 asks for NET only, 6.1 also for UML_NET,
# the menu of the obsolete transports (of which none is switched on).
NETWORK = _set("NETDEVICES INET PACKET UML_NET_VECTOR")
NETWORK_OPTIONAL = _set("UML_NET")

# Source: net/ipv6/Kconfig; off in both UML default configurations. IPV6_SIT is a tunnel that is on by
# default and adds a `sit0` device to every network namespace.
IPV6 = _set("IPV6", "IPV6_SIT")
IPV6_OPTIONAL = _set()
