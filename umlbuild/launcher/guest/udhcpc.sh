#!/bin/sh
# What busybox udhcpc runs when it has an address, loses it or renews it (a bare root has no Debian package with it).
# Source: busybox examples/udhcp/simple.script, "udhcpc --help"; the variables are udhcpc's.
# shellcheck disable=SC2154
PATH=/usr/sbin:/usr/bin:/sbin:/bin

case $1 in
    deconfig)
        ip -4 addr flush dev "$interface"
        ip link set dev "$interface" up
        ;;
    bound | renew)
        ip -4 addr flush dev "$interface"
        ip addr add "$ip/${mask:-24}" dev "$interface"
        for gateway in $router; do
            ip route add default via "$gateway" dev "$interface" && break
        done
        # Written whole and moved: a reader never sees half of it.
        {
            [ -z "$domain" ] || echo "search $domain"
            for server in $dns; do echo "nameserver $server"; done
        } >/etc/resolv.conf.new && mv -f /etc/resolv.conf.new /etc/resolv.conf
        ;;
esac
exit 0
