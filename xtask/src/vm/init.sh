#!/bin/busybox sh
# Process 1 of the kernel under test. Prints for people on the first serial port, and on the second what xtask reads:
# lines that begin with `@@`, and between `@@ replay` and `@@ replayed` what keyfence printed.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
exec </dev/null >/dev/ttyS0 2>&1 3>/dev/ttyS1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
stty -F /dev/ttyS1 raw

say() { echo "@@ $*" >&3; echo "$*"; }
seconds() { cut -d' ' -f1 /proc/uptime; }
# Waits for a state; fails where it does not come.
await() {
    left=100
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        usleep 100000
    done
}

# ---- The vectors -----------------------------------------------------------------------------------------------------

vectors() {
    for folder in /vectors/*; do
        cd "$folder"
        addresses=
        while read -r address; do addresses="$addresses --host-address $address"; done <host-addresses
        say replay "${folder##*/}"
        keyfence replay --json --policy policy.toml $addresses *.pcap >&3
        say replayed $?
    done
    cd /
}

# ---- Live: a plain device, VLAN devices, a bond and a bridge --------------------------------------------------------

# On the other end of each cable, .7 is listed and .9 is a stranger.
LISTED=7
STRANGER=9

client() { nsenter -t "$CLIENT" -n "$@"; }

# cable NAME: NAME here, NAMEp at the client.
cable() {
    ip link add "$1" type veth
    ip link set veth0 name "$1p"
    ip link set "$1p" netns "$CLIENT"
    ip link set "$1" up
    client ip link set "$1p" up
}

# addresses NET DEVICE-HERE DEVICE-THERE
addresses() {
    ip address add "10.$1.0.1/24" dev "$2"
    ip link set "$2" up
    client ip address add "10.$1.0.$LISTED/24" dev "$3"
    client ip address add "10.$1.0.$STRANGER/24" dev "$3"
    client ip link set "$3" up
}

# tagged PARENT ID in|beside: the tag is in the frame, or beside it as a card's offload leaves it.
tagged() {
    reorder=on
    [ "$3" = in ] && reorder=off
    ip link add link cable2 name "here$2" type vlan id "$2"
    client ip link add link cable2p name "there$2" type vlan id "$2" reorder_hdr $reorder
    addresses "$2" "here$2" "there$2"
}

network() {
    unshare -n sleep 100000 &
    CLIENT=$!
    ip link set lo up
    apart() { [ "$(readlink "/proc/$CLIENT/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }
    await apart
    cable cable1
    addresses 1 cable1 cable1p
    cable cable2
    tagged cable2 2 beside
    tagged cable2 3 in
    cable cable4
    ip link set cable4 down
    echo +bond0 >/sys/class/net/bonding_masters
    echo active-backup >/sys/class/net/bond0/bonding/mode
    echo 100 >/sys/class/net/bond0/bonding/miimon
    echo +cable4 >/sys/class/net/bond0/bonding/slaves
    cable cable6
    ip link set cable6 down
    echo +cable6 >/sys/class/net/bond0/bonding/slaves
    addresses 4 bond0 cable4p
    cable cable5
    ip link add bridge0 type bridge
    ip link set cable5 master bridge0
    addresses 5 bridge0 cable5p
    mkdir -p /www && echo reached >/www/index.html
    httpd -p 443 -h /www
}

# from SOURCE NET: whom the client's connections come from.
from() { client ip route replace "10.$2.0.1/32" dev "$(device "$2")" src "10.$2.0.$1"; }
device() {
    case $1 in
    2 | 3) echo "there$1" ;;
    *) echo "cable$1p" ;;
    esac
}
connects() { printf 'GET / HTTP/1.0\r\n\r\n' | client nc -w "$2" "10.$1.0.1" 443 2>/dev/null | grep -q reached; }
pings() { client ping -c 1 -W "$2" -I "10.$1.0.$3" "10.$1.0.1"; }

# mode DEVICE: how the filter sits on it.
mode() {
    for mode in native generic; do
        [ "$(metric "keyfence_filter_attached{interface=\"$1\",mode=\"$mode\"}")" = 1 ] && echo $mode
    done
}

# check NAME pass|drop COMMAND…
check() {
    local name="$1" wanted="$2" became=drop
    shift 2
    if "$@" >/dev/null 2>&1; then became=pass; fi
    say live $wanted $became "$name"
}

metric() { wget -q -O - http://127.0.0.1:9469/metrics | grep -F "$1" | sed 's/.* //'; }

ready() { wget -q -O /dev/null http://127.0.0.1:9469/readyz; }
ended() { ! kill -0 $daemon; }

# starts NAME PROGRAM: the daemon, until it is ready; fails where it is not.
starts() {
    if ! starts_or_ends "$1" "$2" run --policy /run/live.toml; then
        say live ready missing "$1, daemon"
        cat /run/daemon.log
        return 1
    fi
}

# starts_or_ends NAME COMMAND…: until it is ready; fails where it has ended instead, with `status`.
starts_or_ends() {
    local name="$1"
    shift
    "$@" >/run/daemon.log 2>&1 &
    daemon=$!
    ready_or_ended() { ready || ended; }
    if await ready_or_ended && ready; then
        say ready "$name $(seconds)"
        return
    fi
    kill -9 $daemon 2>/dev/null
    wait $daemon
    status=$?
    return 1
}

# ---- Doctor on VLAN devices and a bond -------------------------------------------------------------------------------

# finds ID TEXT: in what doctor told last, a finding of a line.
finds() { tr -d '\n' </run/doctor.json | tr '{' '\n' | grep -F "\"id\": \"$1\"" | grep -qF "$2"; }
# asks POLICY
asks() {
    keyfence doctor --json --policy "$1" >/run/doctor.json
    cat /run/doctor.json
}

doctor() {
    asks /run/live.toml
    check "doctor: a VLAN device above a filtered one is judged" drop finds unfiltered-interface here2
    check "doctor: a filtered bond's members are judged" drop finds unfiltered-interface cable4
    check "doctor: tags that travel beside the frame are told" pass finds tag-stripped "cable2, which here"
    check "doctor: the bridge is named" pass finds bridge-inside bridge0
    check "doctor: a tunnel that is down is not named" drop finds unwraps tunl0
    # What the modules have made: packets to this host without a tunnel of their own.
    ip link set tunl0 up
    ip link set gre0 up
    asks /run/live.toml
    check "doctor: an IPIP tunnel is named" pass finds unwraps "tunl0 (ipip)"
    check "doctor: a GRE tunnel is named" pass finds unwraps "gre0 (gre)"
    ip link set tunl0 down
    ip link set gre0 down
    sed 's/^interfaces.*/interfaces = ["cable4", "cable2", "here2"]/' /run/live.toml >/run/other.toml
    asks /run/other.toml
    check "doctor: a bond with a member that is not filtered is named" pass finds bond-partial \
        "cable4 of bond0 (bond) is filtered, and cable6 is not"
    check "doctor: a VLAN device on a filtered one is refused" pass finds interface-unfilterable here2
    sed 's/^interfaces.*/interfaces = ["cable1"]/' /run/live.toml >/run/other.toml
    asks /run/other.toml
    check "doctor: VLAN devices come in by the one below" pass finds unfiltered-interface "by cable2,"
    check "doctor: and are not told of again" drop finds unfiltered-interface "by here2,"
    check "doctor: a bond that is not filtered is a way in" pass finds unfiltered-interface "by bond0,"
}

# ---- The way back of --confirm-within, and the next layout ------------------------------------------------------------

# answered SOURCE FILE: how many of its pings came back.
answered() { sed -n 's/.* \([0-9]*\) packets received.*/\1/p' "$1"; }
PINGS=200

lifetimes() {
    sed "s/ATTACH/auto/" /live.toml >/run/live.toml
    sed "s/10\.1\.0\.7\"/&, \"10.1.0.$STRANGER\"/" /run/live.toml >/run/wider.toml
    starts "lifetimes" keyfence || return
    from $STRANGER 1
    check "trial: before it a stranger connects" drop connects 1 1
    keyfence apply /run/wider.toml --confirm-within 4s || say live applied refused "trial"
    check "trial: meanwhile" pass connects 1 5
    kill -9 $daemon
    wait $daemon
    usleep 4500000
    check "trial: after it, with the daemon dead" drop connects 1 1
    from $LISTED 1
    check "trial: after it a listed source connects" pass connects 1 5

    starts "before the upgrade" keyfence || return
    pinging upgrade
    kill $daemon
    wait $daemon
    starts "after the upgrade" keyfence-next
    pinged upgrade
    kill $daemon
    wait $daemon
    pinging downgrade
    goes_back && pinged downgrade
    kill $daemon
    wait $daemon
    keyfence detach --policy /run/live.toml --yes
    rm -rf /run/keyfence /var/lib/keyfence
}

# pinging NAME: both ping without a pause while the daemon becomes another one with another layout.
pinging() {
    client ping -q -i 0.1 -c $PINGS -W 5 -I 10.1.0.$LISTED 10.1.0.1 >/run/listed &
    listed=$!
    client ping -q -i 0.1 -c $PINGS -W 1 -I 10.1.0.$STRANGER 10.1.0.1 >/run/stranger &
    stranger=$!
    began=$(seconds)
}

pinged() {
    say "$1d" "$began $(seconds)"
    # All of them, so that none came when all was over.
    kill -0 $stranger || say live traffic over "$1"
    wait $listed
    wait $stranger
    say live $PINGS "$(answered /run/listed)" "$1: a listed source's pings are answered"
    say live 0 "$(answered /run/stranger)" "$1: a stranger's are not"
    from $LISTED 1
    check "$1: a listed source connects" pass connects 1 5
    from $STRANGER 1
    check "$1: a stranger connects" drop connects 1 1
}

# Starts the older build, which refuses with 1 and names what is to be done, until that is done.
goes_back() {
    local options= way
    for try in 1 2 3 4 5; do
        if starts_or_ends "after the downgrade" keyfence run --policy /run/live.toml $options; then
            [ $try -gt 1 ] || say live refused started "downgrade: without being told to"
            return
        fi
        say live 1 $status "downgrade: how start $try ends"
        if grep -q "keyfence run --downgrade" /run/daemon.log; then
            options=--downgrade
        else
            way=$(tr '`' '\n' </run/daemon.log | grep '^mv ' | head -1)
            sh -ec "${way:-false}" || say live way none "downgrade: what start $try names"
        fi
    done
    say live started refused "downgrade"
    cat /run/daemon.log
    return 1
}

# live auto|generic
live() {
    sed "s/ATTACH/$1/" /live.toml >/run/live.toml
    starts "$1" keyfence || return
    for device in cable1 cable2 bond0 bridge0; do
        say attached "$1 $device $(mode $device)"
    done
    [ "$1" = auto ] && doctor
    say verified $(cat /proc/$daemon/fdinfo/* | grep verified_insns | cut -f2 | sort -n | tail -1)
    for net in 1 2 3 4 5; do
        case $net in
        1) name="plain device" judge=cable1 ;;
        2) name="VLAN device, tag beside the frame" judge=cable2 ;;
        3) name="VLAN device, tag in the frame" judge=cable2 ;;
        4) name="bond" judge=bond0 ;;
        5) name="bridge" judge=bridge0 ;;
        esac
        from $LISTED $net
        check "$1, $name: a listed source connects" pass connects $net 5
        check "$1, $name: a listed source pings" pass pings $net 5 $LISTED
        before=$(metric "keyfence_interface_packets_total{interface=\"$judge\",verdict=\"drop\"}")
        from $STRANGER $net
        check "$1, $name: a stranger connects" drop connects $net 1
        check "$1, $name: a stranger pings" drop pings $net 1 $STRANGER
        after=$(metric "keyfence_interface_packets_total{interface=\"$judge\",verdict=\"drop\"}")
        if [ "$after" -gt "$before" ]; then became=counted; else became=uncounted; fi
        say live counted $became "$1, $name: a stranger's packets are counted at $judge"
    done
    kill $daemon
    wait $daemon
    keyfence detach --policy /run/live.toml --yes
    check "$1, detached: a stranger connects" pass connects 4 5
    rm -rf /run/keyfence /var/lib/keyfence
}

say kernel "$(uname -r)" "$(seconds)"
say btf "$(wc -c </sys/kernel/btf/vmlinux)"
for setting in kernel/unprivileged_bpf_disabled net/core/bpf_jit_enable; do
    say setting "$setting" "$(cat /proc/sys/$setting)"
done
vectors
say vectors-done "$(seconds)"
for module in $(cat /modules/order); do
    insmod "/modules/$module" || say live loaded refused "$module"
done
network
live auto
live generic
lifetimes
say end "$(seconds)"
exec 3>&-
poweroff -f
