"""The words of recipes that have a grammar of their own: names, paths, addresses, modes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field


def _matching(pattern: str, what: str) -> AfterValidator:
    """A validator that tells what is wanted in words; pydantic would quote the pattern."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


def _guest_path(value: str) -> str:
    if not value.startswith("/") or (value != "/" and value.endswith("/")):
        raise ValueError(f"{value!r} is not an absolute path in the guest (like /etc/motd)")
    if any(part in ("", ".", "..") for part in value[1:].split("/")) and value != "/":
        raise ValueError(f"{value!r} has an empty part, '.' or '..' in it")
    if any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError(f"{value!r} has a control character in it")
    return value


def _interface_address(value: str) -> str:
    try:
        ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError(f"{value!r} is not an address with a prefix length (like 192.168.4.2/24)") from None
    if "/" not in value:
        raise ValueError(f"{value!r} has no prefix length (like /24)")
    return value


def _prefix(value: str) -> str:
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is not a network (like 10.0.0.0/8)") from None
    if "/" not in value or value != str(network):
        raise ValueError(f"{value!r} is not a network; its own spelling is {network}")
    if network.prefixlen == 0:
        raise ValueError(f"{value!r} is the default route: say gateway or gateway6")
    return value


def _mac_address(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", value):
        raise ValueError(f"{value!r} is not a MAC address: six bytes in lower case (like 02:00:00:00:00:01)")
    if int(value[1], 16) % 2:
        raise ValueError(f"{value!r} is a multicast address (its first byte is odd), which no interface can have")
    if value == "00:00:00:00:00:00":
        raise ValueError(f"{value!r} is nobody's address: UML would take a random one")
    return value


def _or_word(check: Callable[[str], str], *words: str) -> Callable[[str], str]:
    """A validator that also takes some words."""

    def checked(value: str) -> str:
        if value in words:
            return value
        try:
            return check(value)
        except ValueError as error:
            raise ValueError(f"{error}; or one of {', '.join(words)}") from None

    return checked


def _address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{value!r} is not an IPv4 or IPv6 address") from None
    return value


RecipeName = Annotated[str, _matching(
    r"[a-z0-9][a-z0-9-]{0,31}", "a name: 1 to 32 of a-z, 0-9 and '-' (it becomes a directory and UML's umid)"
)]  # fmt: skip
ReleaseVersion = Annotated[str, _matching(
    r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}",
    "a version: 1 to 64 of letters, digits and . + ~ _ -, a letter or digit first (in quotation marks)",
)]  # fmt: skip
Hostname = Annotated[str, Field(max_length=64), _matching(
    r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", "a host name: letters, digits and '-', at most 63"
)]  # fmt: skip
Domain = Annotated[str, _matching(
    r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*",
    "a domain name",
)]  # fmt: skip
Account = Annotated[str, _matching(
    r"[a-z_][a-z0-9_-]{0,31}", "a user or group name: at most 32 of a-z, 0-9, '_' and '-', no digit first"
)]  # fmt: skip
PackageName = Annotated[str, _matching(r"[a-z0-9][a-z0-9+.-]+", "a name of a Debian package")]
Suite = Annotated[str, _matching(r"[a-z][a-z0-9-]*", "a name of a Debian suite (like bookworm)")]
Component = Annotated[str, _matching(r"[a-z][a-z0-9-]*", "a component (like main)")]
ModuleName = Annotated[str, _matching(r"[A-Za-z0-9_-]{1,55}", "a name of a kernel module")]
Symbol = Annotated[str, _matching(r"[A-Za-z0-9_]+", "a Kconfig symbol")]
Service = Annotated[str, _matching(r"[A-Za-z0-9_.@:\\-]{1,255}", "a name of a service")]
FileMode = Annotated[str, _matching(r"[0-7]{3,4}", "a file mode in octal digits (like \"0644\")")]
Digest = Annotated[str, _matching(r"[0-9a-f]{64}", "a sha256 in 64 lower-case hexadecimal digits")]
Locale = Annotated[str, _matching(r"[A-Za-z0-9_.@-]+", "a locale (like de_DE.UTF-8)")]
Timezone = Annotated[str, _matching(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", "a time zone (like Europe/Berlin)")]
EnvName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "a name of an environment variable")]
CryptHash = Annotated[str, _matching(
    r"\$[0-9a-z]+\$[!-9;-~]+", "a password hash of crypt(5) (like $y$…; `mkpasswd` makes one)"
)]  # fmt: skip
CmdlineWord = Annotated[str, _matching(
    r'[!#-~]+', "one word of the kernel command line: printable, no space, no quotation mark"
)]  # fmt: skip
GuestPath = Annotated[str, AfterValidator(_guest_path)]
MacAddress = Annotated[str, AfterValidator(_mac_address)]
Prefix = Annotated[str, AfterValidator(_prefix)]
HostAddress = Annotated[str, AfterValidator(_interface_address)]
Address4 = Annotated[str, AfterValidator(_or_word(_interface_address, "dhcp", "none"))]
Address6 = Annotated[str, AfterValidator(_or_word(_interface_address, "auto", "none"))]
Address = Annotated[str, AfterValidator(_address)]
