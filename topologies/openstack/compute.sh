#!/bin/sh
# compute LOCAL REMOTE TAP MAC ADDRESS: what the agents of a compute host do for one port: a tap with its sysctls, and a line for the DHCP
# server. LOCAL and REMOTE are the ends of the cable that leads to the machine.
set -eu
local=$1 remote=$2 tap=$3 mac=$4 address=$5
ip tuntap add dev "$tap" mode tap
sysctl -q -w "net.ipv4.conf.$tap.proxy_arp=1" "net.ipv4.neigh.$tap.proxy_delay=0"
ip link set "$tap" up
socat "UDP-DATAGRAM:$remote:4790,bind=$local:4790" "TUN,tun-name=$tap,tun-type=tap,iff-no-pi" >/dev/null 2>&1 </dev/null &
mkdir -p /run/dhcp/hosts /run/dhcp/ports
echo "$tap" > "/run/dhcp/ports/$address"
echo "$mac,$address" > "/run/dhcp/hosts/$tap"
if ! ip link show ns-dhcp >/dev/null 2>&1; then
    # All ports share the gateway's address, which lies on a bridge without ports; `noprefixroute`: its subnet is everywhere, not here.
    ip link add ns-dhcp type bridge
    ip addr add 10.65.0.1/16 dev ns-dhcp noprefixroute
    ip link set ns-dhcp up
    # A request that comes in by a tap is answered as if it had come by ns-dhcp.
    dnsmasq --conf-file=/dev/null --port=0 --user=root --no-ping --leasefile-ro --dhcp-authoritative --no-hosts --no-resolv \
        --pid-file=/run/dhcp/pid --interface=ns-dhcp --bridge-interface=ns-dhcp,tap* --dhcp-range=10.65.0.0,static,255.255.0.0,1h \
        --dhcp-hostsdir=/run/dhcp/hosts --dhcp-option=option:router,10.65.0.1 --dhcp-script=/usr/local/bin/lease
fi
