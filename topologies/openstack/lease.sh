#!/bin/sh
# dnsmasq calls this with add, old or del, a MAC address and an IP address. The route in the kernel is all that margay reads.
set -eu
case $1 in
add | old) ip route replace "$3/32" dev "$(cat "/run/dhcp/ports/$3")" scope link ;;
del) ip route del "$3/32" || true ;;
esac
