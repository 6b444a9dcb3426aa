# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh
#
# What the kernel that is tested runs first: it runs /job and ends the kernel.

busybox=/bin/busybox
for place in proc sys dev tmp; do
	$busybox mkdir -p "/$place"
done
$busybox mount -t proc none /proc
$busybox mount -t sysfs none /sys
$busybox mount -t devtmpfs none /dev
$busybox mount -t debugfs none /sys/kernel/debug
$busybox sh /job
$busybox poweroff -f
