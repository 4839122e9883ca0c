#!/bin/busybox sh
# /init of the lab's dom0: starts what `xl` needs, then does what it is told on the port "control".
#
# A request is a line: a number and a shell command. The answer, when the command has ended, is a
# line with that number, the exit status and the length of what the command wrote (both outputs),
# and then that. Commands run side by side, so a later one may be answered earlier.

/bin/busybox --install -s /bin
xen=$(echo /usr/lib/xen-*/bin)
export PATH=$xen:/usr/bin:/usr/sbin:/bin:/sbin HOME=/

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /dev/pts /run/xen /run/xenstored /run/answers /run/lab
mount -t devpts devpts /dev/pts

for module in /modules/*.ko; do
    insmod "$module" || echo "lab: $module was refused"
done
mount -t xenfs xenfs /proc/xen

xenstored
until xenstore-read / >/dev/null 2>&1; do sleep 0.1; done
xen-init-dom0
xenconsoled

# What udev would do: the ports by their names.
mkdir /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
    ln -s "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done

answer() {
    (eval "$2") >"/run/answers/$1" 2>&1 </dev/null 3<&-
    status=$?
    until mkdir /run/answers/lock 2>/dev/null; do sleep 0.01; done # one answer at a time
    echo "$1 $status $(wc -c <"/run/answers/$1")" >&3
    cat "/run/answers/$1" >&3
    rmdir /run/answers/lock
    rm "/run/answers/$1"
}

exec 3<>/dev/virtio-ports/control
echo ready >&3
while read -r number command <&3; do
    answer "$number" "$command" &
done
