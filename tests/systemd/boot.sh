#!/bin/sh
# The first process of the machine that tests/systemd/run.py makes: builds a root of its own and
# becomes systemd in it. Runs in namespaces of its own, all seven of them; the cgroup namespace is
# rooted in a fresh group. $1: an empty folder, $2: the binary, $3: the source tree.
#
# Nothing here can reach the machine around it: mounts are private, /proc/sys and /sys are read-only
# (a first process raises fs.file-max otherwise), and what sets the clock, loads modules or
# reboots is gone from the bounding set.
set -eu
work=$1 binary=$2 source=$3
mount --make-rprivate /
root=$work/root
mkdir -p "$root" "$work/store"
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir -p usr etc/systemd/system etc/floortape var/lib/floortape var/log var/tmp run tmp proc sys dev root \
    test .upper .work
chmod 1777 tmp var/tmp
ln -s ../run var/run
ln -s usr/bin usr/sbin usr/lib usr/lib64 .
[ -d /usr/lib64 ] || rm lib64

# The host's programs, with our own files on top.
mount -t overlay -o "lowerdir=/usr,upperdir=$root/.upper,workdir=$root/.work" overlay usr
install -m 755 "$binary" usr/bin/floortape
units=usr/lib/systemd/system
keep="basic.target exit.target final.target local-fs.target local-fs-pre.target network.target
 network-online.target nss-lookup.target paths.target shutdown.target slices.target sockets.target
 swap.target sysinit.target systemd-exit.service systemd-journald.service systemd-journald.socket
 systemd-journald-dev-log.socket time-set.target time-sync.target timers.target umount.target"
mkdir .units
for unit in $keep; do cp "/$units/$unit" .units/; done
mount -t tmpfs tmpfs "$units"
mv .units/* "$units/"
rmdir .units
mkdir "$units/sysinit.target.wants" "$units/sockets.target.wants"
ln -s ../systemd-journald.service "$units/sysinit.target.wants/"
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket "$units/sockets.target.wants/"
mount -t tmpfs tmpfs usr/lib/systemd/system-generators
mount -t tmpfs tmpfs usr/lib/sysusers.d
mount -t tmpfs tmpfs usr/lib/tmpfiles.d
# The package, as a packager would lay it out.
install -m 644 "$source/appliance/systemd/floortape.service" "$units/"
install -m 644 "$source/appliance/systemd/floortape.sysusers.conf" usr/lib/sysusers.d/floortape.conf
install -D -m 644 "$source/appliance/systemd/xdp.conf" usr/share/floortape/xdp.conf
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' \
    > "$units/multi-user.target"

echo 'root:x:0:0:root:/root:/bin/sh' > etc/passwd
printf 'root:x:0:\nnogroup:x:65534:\n' > etc/group
echo 'passwd: files' > etc/nsswitch.conf
echo '127.0.0.1 localhost' > etc/hosts
: > etc/fstab
cp /etc/ld.so.cache etc/
[ ! -d /etc/alternatives ] || cp -a /etc/alternatives etc/
[ ! -f /etc/localtime ] || cp -L /etc/localtime etc/localtime
cp "$work/floortape.toml" etc/floortape/
if [ -f "$work/drop-in.conf" ]; then
    mkdir etc/systemd/system/floortape.service.d
    cp "$work/drop-in.conf" etc/systemd/system/floortape.service.d/
fi
echo 5f10a57a9e000000000000000000feed > etc/machine-id

mount --bind "$work/store" var/lib/floortape
mount --bind "$source/tests" test
mount -o remount,bind,ro test
mount -t tmpfs -o mode=755 tmpfs run
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup 2>/dev/null || true
umount sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/shm dev/pts
for node in null zero full random urandom tty; do
    : > "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mkdir .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
systemd-sysusers
systemctl enable --quiet floortape.service
hostname recorder
exec env -i container=floortape-test PATH=/usr/sbin:/usr/bin \
    setpriv --bounding-set -sys_time,-sys_boot,-sys_module,-sys_rawio,-syslog,-wake_alarm,-audit_control,-audit_read,-mac_admin,-mac_override \
    /usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=journal \
    --show-status=no --default-standard-output=journal
