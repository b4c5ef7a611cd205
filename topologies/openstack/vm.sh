#!/bin/sh
# vm LOCAL REMOTE MAC: a virtual machine's network card at the end of a cable, and its DHCP client.
set -eu
local=$1 remote=$2 mac=$3
ip tuntap add dev eth0 mode tap
ip link set eth0 address "$mac"
ip link set eth0 up
socat "UDP-DATAGRAM:$remote:4790,bind=$local:4790" TUN,tun-name=eth0,tun-type=tap,iff-no-pi >/dev/null 2>&1 </dev/null &
cat > /run/udhcpc.script <<'S'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
ip route replace default via "$router" dev "$interface"
S
chmod +x /run/udhcpc.script
udhcpc -i eth0 -s /run/udhcpc.script -t 10 -T 1 -A 1 -b -S >/dev/null 2>&1 </dev/null &
