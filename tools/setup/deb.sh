# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Debian packages: the kernel with this checkout laid over it, by its own bindeb-pkg, and the
# tools of an operator. The tree keeps what is compiled, so an interrupted build goes on.

DEB_SUITES="trixie-backports sid experimental"
# Part of the kernel's release, so that it stands beside Debian's own kernels.
DEB_RELEASE=-rust-iommu
DEB_TOOLS=rust-iommu-tools
# The clean root that the suite 'deb' installs them in: what any host has, but its boot loader.
DEB_ROOT_SUITE=trixie
DEB_ROOT_PACKAGES=systemd-sysv,udev,kmod,initramfs-tools

# What one object costs, with all that follows from it: time of a processor, and room in the
# cache. Debugging information makes it more. Documentation/driver-api/rust-iommu/install.rst
# says what they were measured on.
OBJECT_MS=1600
OBJECT_KIB=430
OBJECT_DEBUG_MS=2000
OBJECT_DEBUG_KIB=1300
# The copy of the source, and the packages.
DEB_GIB=3

# deb_packages LEVEL: what a level of tools/setup/setup needs besides the usual packages.
deb_packages()
{
	case $1 in
	deb*) printf '%s\n' debhelper dpkg-dev libdw-dev openssl dwarves zstd ;;
	esac
	case $1 in
	deb-small) printf '%s\n' mmdebstrap e2fsprogs ;;
	esac
}

check_deb_config()
{
	if [ -n "$CONFIG" ] && ! grep -qs '^CONFIG_' "$CONFIG"; then
		die "CONFIG=$CONFIG is not a kernel configuration: name a file such as" \
			"/boot/config-$(uname -r), or leave CONFIG out for Debian's"
	fi
}

# debian_config INTO: the configuration of Debian's own kernel of this series.
debian_config()
{
	local suite package=linux-config-$KERNEL_SERIES work=$CACHE/source/work-config
	for suite in $DEB_SUITES; do
		private_lists deb "$suite"
		apt_private apt-cache pkgnames "$package" | grep -qxF "$package" || continue
		rm -rf "$work"
		mkdir -p "$work"
		fetch_package "$package" "$work"
		xz -dc "$work/usr/src/$package/config.amd64_none_amd64.xz" >"$1"
		rm -rf "$work"
		return 0
	done
	die "Debian has no $package any more: name a configuration with CONFIG="
}

# small_config TREE INTO: for the suite 'deb', the configuration of the test machines with what
# a Debian root needs.
small_config()
{
	local wanted=$1/.overlay/small.config
	{
		cat "$TOP/tools/testing/vm/kernel.config"
		cat "$TOP/tools/testing/vm/debian.config"
	} >"$wanted"
	kernel_make "$1" KCONFIG_CONFIG="$2" KCONFIG_ALLCONFIG="$wanted" allnoconfig
	check_wanted "$TOP/tools/testing/vm/debian.config" "$2"
}

# check_wanted WANTED CONFIG: Kconfig silently drops what has an unmet dependency.
check_wanted()
{
	local line symbol reason=
	while IFS= read -r line; do
		symbol=${line%%=*}
		case $line in
		'# '*) reason=${line#\# } ;;
		CONFIG_*=n)
			! grep -q "^$symbol=" "$2" ||
				die "the configuration cannot be used: it has $symbol, and" \
					"$reason; switch off what selects it"
			;;
		CONFIG_*=[ym])
			# Built in serves where a module is asked for.
			grep -qxE "$line|$symbol=y" "$2" ||
				die "the configuration cannot be used: $symbol is not set, and" \
					"$reason; see in Kconfig what it depends on"
			;;
		esac
	done <"$1"
}

# step_small_tree TREE BUILT: a copy of the test machines' kernel, as it is built.
step_small_tree()
{
	need_space 5
	rm -rf "$1.partial"
	mkdir -p "$1.partial"
	rsync -a --exclude=/.overlay/modules "$2/" "$1.partial/"
	mv "$1.partial" "$1"
	# Each object depends on the time of objtool, which another path makes compile again.
	kernel_make "$1" tools/objtool
	find "$1/tools/objtool" -type f -newer "$1/vmlinux" \
		-exec touch -r "$2/tools/objtool/objtool" {} +
}

provide_small_tree()
{
	local tree=$1 built
	built=$(tree_of tree)
	if [ ! -d "$tree" ] && [ -f "$built/vmlinux" ]; then
		run_step deb-small "copy of the test machines' kernel" always \
			step_small_tree "$tree" "$built"
	fi
	provide_tree "$tree"
}

# step_deb_config TREE INTO: the user's configuration, Debian's, or the suite's, with what the
# drivers need.
step_deb_config()
{
	local tree=$1 into=$2 wanted=$HERE/deb.config base=$2.base line
	kernel_make "$tree" rustavailable ||
		die "this toolchain cannot build Rust in the kernel: see the end of the log"
	if [ -n "$CONFIG" ]; then
		cp "$CONFIG" "$base"
	elif [ "$(basename "${tree%/*}")" = deb-small ]; then
		small_config "$tree" "$base"
	else
		debian_config "$base"
	fi
	cp "$base" "$into.new"
	# The last line about a symbol counts.
	grep '^CONFIG_' "$wanted" | while IFS= read -r line; do
		grep -qx "${line%=m}=y" "$base" || printf '%s\n' "$line"
	done >>"$into.new"
	kernel_make "$tree" KCONFIG_CONFIG="$into.new" olddefconfig
	check_wanted "$wanted" "$into.new"
	mv "$into.new" "$into"
}

provide_deb_config()
{
	local tree=$1 kind=$2 config=$3 key what="Debian's configuration"
	if [ -n "$CONFIG" ]; then
		what=$CONFIG
	elif [ "$kind" = deb-small ]; then
		what="the test machines' configuration"
	fi
	key=$(
		{
			build_inputs "$tree"
			printf '%s\n' "$tree"
			cat ${CONFIG:+"$CONFIG"} "$HERE/deb.config" "$HERE/deb.sh"
			cat "$TOP/tools/testing/vm/debian.config"
			find "$tree/drivers/iommu" "$tree/rust" -name 'Kconfig*' -exec cat {} +
		} | digest
	)
	[ -f "$config" ] || key=always
	run_step "$kind-config" "$what, for the drivers" "$key" \
		step_deb_config "$tree" "$config"
}

# deb_forecast TREE KIND CONFIG: says what the build will take, and stops if there is less room.
deb_forecast()
{
	local tree=$1 config=$3 all left ms=$OBJECT_MS kib=$OBJECT_KIB at_once minutes gib
	local list=$1/.overlay/objects.list
	# It reads Kbuild's files outside of a build, and they complain.
	make -s -C "$tree" -f "$HERE/objects.mk" config="$config" >"$list" 2>/dev/null || true
	all=$(wc -l <"$list")
	[ "$all" -gt 0 ] ||
		die "the objects of $config cannot be counted: see tools/setup/objects.mk"
	left=$(cd "$tree" && while IFS= read -r object; do
		[ -e "$object" ] || printf '.'
	done <"$list" | wc -c)
	if grep -q '^CONFIG_DEBUG_INFO=y' "$config"; then
		ms=$OBJECT_DEBUG_MS
		kib=$OBJECT_DEBUG_KIB
	fi
	at_once=$(nproc)
	[ "$JOBS" -ge "$at_once" ] || at_once=$JOBS
	minutes=$((left * ms / 60000 / at_once + 1))
	gib=$((left * kib / 1048576 + DEB_GIB))
	say_step "$2" "$left of $all objects to compile" \
		"about $((minutes / 60)) h $((minutes % 60)) min with $at_once jobs, $gib GiB"
	need_space "$gib"
}

# step_deb_kernel TREE CONFIG CLIPPY: dpkg-buildpackage leaves the packages in the folder above.
step_deb_kernel()
{
	local tree=$1
	cmp -s "$2" "$tree/.config" || cp "$2" "$tree/.config"
	rm -f "$tree"/../linux-*.deb
	# The debugging symbols are several GiB, and headers of C programs are Debian's own.
	DEB_BUILD_PROFILES=pkg.linux-upstream.nokerneldbg KDEB_COMPRESS=zstd \
		KDEB_CHANGELOG_DIST=$DEB_ROOT_SUITE \
		build_kernel "$CACHE/log/deb-build.log" "$tree" ${3:+CLIPPY=1} \
		LOCALVERSION="$DEB_RELEASE" bindeb-pkg
	rm -f "$tree"/../linux-libc-dev_*.deb
}

# step_deb_tools FOLDER VERSION
step_deb_tools()
{
	local staging=$CACHE/programs/$DEB_TOOLS
	rm -rf "$staging" "$1/${DEB_TOOLS}"_*.deb
	install -d -m 755 "$staging/DEBIAN"
	install -D -m 755 "$CACHE/programs/iommu-migrate" "$staging/usr/sbin/iommu-migrate"
	install -D -m 755 "$TOP/tools/observe/dirty-rate" "$staging/usr/sbin/dirty-rate"
	install -D -m 644 "$TOP/LICENSES/preferred/GPL-2.0" \
		"$staging/usr/share/doc/$DEB_TOOLS/copyright"
	cat >"$staging/DEBIAN/control" <<-EOF
	Package: $DEB_TOOLS
	Version: $2
	Architecture: amd64
	Maintainer: rust-iommu <rust-iommu@rust-iommu>
	Depends: mawk | gawk
	Section: kernel
	Priority: optional
	Description: see what devices write, by iommufd and the dirty bits of an IOMMU
	 iommu-migrate migrates memory while a PCI device writes to it, and checks each report.
	 dirty-rate shows what the devices of each domain write in a second.
	EOF
	dpkg-deb --root-owner-group -Zzstd --build "$staging" "$1"
	rm -rf "$staging"
}

# step_deb_root INTO: a clean Debian, from the archive that this machine's apt uses.
step_deb_root()
{
	local archive uri keys
	need_space 2
	archive=$(archive_of_machine "$(os_release VERSION_CODENAME)") ||
		die "apt has no source for Debian main: add the archive to /etc/apt/sources.list.d"
	read -r uri keys <<<"$archive"
	mmdebstrap --variant=minbase --include="$DEB_ROOT_PACKAGES" \
		${keys:+--keyring="${keys%%,*}"} \
		"$DEB_ROOT_SUITE" "$1.partial.tar" "deb $uri $DEB_ROOT_SUITE main" ||
		die "mmdebstrap could not make a root: $(grep '^E: ' "$CACHE/log/deb-root.log" |
			tail -n1)"
	mv "$1.partial.tar" "$1"
}

# make_debs LEVEL: 'deb' makes what the user asks for, 'deb-small' what the suite 'deb' installs.
make_debs()
{
	local kind=${1%-config} tree config key place into=$TOP/build/deb clippy=
	tree=$(tree_of "$kind")
	place=${tree%/*}
	config=$tree/.overlay/deb.config
	if [ "$kind" = deb-small ]; then
		into=$TOP/build/check/deb
		# As the kernel of the test machines is built.
		clippy=1
		provide_small_tree "$tree"
	else
		provide_tree "$tree"
	fi
	provide_deb_config "$tree" "$kind" "$config"
	deb_forecast "$tree" "$kind" "$config"
	if [ "$1" = deb-config ]; then
		return 0
	fi
	key=$(
		{
			build_inputs "$tree"
			printf '%s\n' "$DEB_RELEASE"
			cat "$config" "$tree/.overlay/manifest.json"
		} | digest
	)
	compgen -G "$place/linux-image-*.deb" >/dev/null || rm -f "$CACHE/stamps/$kind-kernel"
	run_step "$kind-kernel" "packages of Linux $(kernel_version "$tree")$DEB_RELEASE" "$key" \
		step_deb_kernel "$tree" "$config" "$clippy"
	provide_migrate
	compgen -G "$place/$DEB_TOOLS*.deb" >/dev/null || rm -f "$CACHE/stamps/$kind-tools"
	key=$({ program_key migrate; digest_of "$TOP/tools/observe" "$HERE/deb.sh"; } | digest)
	run_step "$kind-tools" "package of the tools" "$key" \
		step_deb_tools "$place" "$(kernel_version "$tree").$(date -u +%Y%m%d.%H%M%S)"
	rm -rf "$into"
	mkdir -p "$into"
	cp "$place"/*.deb "$into"
	if [ "$kind" = deb-small ]; then
		run_step deb-root "a clean Debian $DEB_ROOT_SUITE, by mmdebstrap" \
			"$DEB_ROOT_SUITE $DEB_ROOT_PACKAGES" step_deb_root "$place/root.tar"
		name_qemu
		provide_qemu
		printf '%s\n' "$place/root.tar" >"$into/root"
		printf '%s\n' "$QEMU" >"$into/qemu"
		cp "$config" "$into/config"
	else
		printf 'setup: the packages are in %s\n' "$into"
	fi
}
