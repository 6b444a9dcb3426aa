# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The kernel: its source, the tree with this checkout laid over it, its build.

# The series that this is written for and tested with.
KERNEL_SERIES=7.3
DEBUG_FRAGMENTS=$TOP/tools/testing/vm/debug

kernel_version()
{
	awk -F'[ =]+' '$1 == "VERSION" { v = $2 } $1 == "PATCHLEVEL" { p = $2 }
		$1 == "SUBLEVEL" { s = $2 } $1 == "NAME" { exit }
		END { print v "." p "." s }' "$1/Makefile"
}

# The series of Linux that the lists have the source of, one a line, in any order.
listed_series()
{
	apt_private apt-cache pkgnames linux-source- |
		sed -nE 's/^linux-source-([0-9]+\.[0-9]+)$/\1/p'
}

step_kernel_source()
{
	local into=$1 suite listed='' found='' work=$CACHE/source/work
	local package=linux-source-$KERNEL_SERIES
	need_space 5
	for suite in trixie-backports sid experimental; do
		private_lists deb "$suite"
		listed=$({ printf '%s\n' "$listed"; listed_series; } | grep . | sort -uV)
		if grep -qxF "$KERNEL_SERIES" <<<"$listed"; then
			found=$suite
			break
		fi
	done
	[ -n "$found" ] ||
		die "Debian has no source of Linux $KERNEL_SERIES any more (it has" \
			"${listed//$'\n'/, }), and this is for $KERNEL_SERIES only:" \
			"give such a tree with KSRC="
	rm -rf "$work" "$into.partial"
	mkdir -p "$work" "$into.partial"
	fetch_package "$package" "$work"
	tar -C "$into.partial" --strip-components=1 -xf "$work/usr/src/$package.tar.xz"
	rm -rf "$work"
	mv "$into.partial" "$into"
}

# Where the pristine tree is.
kernel_source()
{
	printf '%s\n' "${KSRC:-$CACHE/source/linux}"
}

provide_source()
{
	local source
	if [ -n "$KSRC" ]; then
		return 0
	fi
	source=$(kernel_source)
	if [ ! -d "$source" ]; then
		run_step kernel-source "Linux $KERNEL_SERIES source, from Debian" always \
			step_kernel_source "$source"
	fi
}

check_ksrc()
{
	local version
	if ! [ -f "$KSRC/Kbuild" ] || ! [ -f "$KSRC/Makefile" ]; then
		die "KSRC=$KSRC is not a Linux source tree: name its top directory"
	fi
	version=$(kernel_version "$KSRC")
	case $version in
	"$KERNEL_SERIES".*) ;;
	*)
		die "KSRC=$KSRC is Linux $version and this needs $KERNEL_SERIES: check out that" \
			"version, or leave KSRC out"
		;;
	esac
}

# Copies what has changed in KSRC. It does not touch the files of the overlay (the overlay
# itself follows changes of the files that it replaced or added a line to), and skips build
# output in KSRC.
sync_ksrc()
{
	local tree=$1 laid=$1/.overlay/laid.list
	sed -nE 's/^ "(.*)": "[0-9a-f]+",?$/\/\1/p' "$tree/.overlay/manifest.json" >"$laid"
	rsync -ai --exclude-from="$laid" --exclude='/.git' --exclude='/.overlay' \
		--exclude='*.o' --exclude='*.cmd' --exclude='*.a' --exclude='*.ko' \
		--exclude='/.config*' --exclude='/include/generated' --exclude='/include/config' \
		--exclude='/arch/*/include/generated' --exclude='/vmlinux*' \
		"$KSRC/" "$tree/" >"$tree/.overlay/sync.list"
	if grep -q '^>f' "$tree/.overlay/sync.list"; then
		date +%s%N >"$tree/.overlay/sync.serial"
	fi
}

lay_over()
{
	"$TOP/tools/overlay/overlay" --tree "$1" --source "$(kernel_source)"
}

step_tree()
{
	local tree=$1 log=$2
	need_space 4
	if [ -n "$KSRC" ] && [ -d "$tree" ]; then
		sync_ksrc "$tree"
	fi
	lay_over "$tree" || die "$(grep '^overlay: ' "$log" | tail -n1)"
}

# The files of the debug kernel that DEBUG names: what several find may be found by one.
debug_fragments()
{
	local name
	for name in ${DEBUG//,/ }; do
		printf '%s\n' "$DEBUG_FRAGMENTS/$name.config"
	done
}

check_debug()
{
	local names fragment
	while IFS= read -r fragment; do
		[ -f "$fragment" ] && continue
		names=$(cd "$DEBUG_FRAGMENTS" && printf '%s, ' *.config)
		names=${names//.config/}
		die "there is no debug kernel '$(basename "$fragment" .config)':" \
			"${names%, } exist, also several with commas, and without DEBUG= the usual one"
	done < <(debug_fragments)
}

# tree_of KIND [DEBUG]: where the copy of the source is that has this checkout on top. A tree
# holds one build: each architecture and each debug kernel has its own, and none rebuilds
# another.
tree_of()
{
	local source name
	source=$(kernel_source)
	name=linux-$(kernel_version "$source")
	if [ -n "$KSRC" ]; then
		name=ksrc-$(printf '%s' "$KSRC" | digest)
	fi
	# Makefiles take commas apart.
	printf '%s\n' "$CACHE/$1/$name${2:+-${2//,/-}}"
}

provide_tree()
{
	local tree=$1 said kind
	kind=$(basename "$(dirname "$tree")")
	if [ ! -d "$tree" ] || [ -n "$KSRC" ]; then
		run_step "$kind" "copy of the source, this checkout laid over" always \
			step_tree "$tree" "$CACHE/log/$kind.log"
		return 0
	fi
	said=$(lay_over "$tree" 2>&1) || die "$kind: $(tail -n1 <<<"$said")"
	case $said in
	*' 0 changed') ;;
	*) say_step "$kind" "this checkout laid over the source" "${said##*: }" ;;
	esac
}

# kernel_make TREE ARGUMENT...: the fixed values make builds reproducible.
kernel_make()
{
	local tree=$1
	shift
	make -C "$tree" LLVM="$LLVM" KBUILD_BUILD_TIMESTAMP=2026-01-01 \
		KBUILD_BUILD_USER=rust-iommu KBUILD_BUILD_HOST=rust-iommu "$@"
}

# check_config WANTED CONFIG: each symbol that is asked for must take effect. Kconfig silently
# drops one whose dependencies are missing.
check_config()
{
	local line symbol
	while IFS= read -r line; do
		symbol=${line%%=*}
		case $line in
		CONFIG_*=n)
			! grep -q "^$symbol=" "$2" ||
				die "$1 asks for $line but something selects it"
			;;
		CONFIG_*=*)
			grep -qxF "$line" "$2" ||
				die "$1 asks for $line but its dependencies are not met"
			;;
		esac
	done <"$1"
}

# configure_kernel TREE OUT WANTED ARGUMENT...: with the arguments, make builds in OUT. What
# the file does not name is off: no default brings it in.
configure_kernel()
{
	local tree=$1 out=$2 wanted=$3 kept=$2/.config.key key
	shift 3
	kernel_make "$tree" "$@" rustavailable ||
		die "this toolchain cannot build Rust in the kernel: see the end of the log"
	key=$(
		{
			cat "$wanted"
			find "$tree/drivers/iommu" "$tree/rust" -name 'Kconfig*' -exec cat {} +
		} | digest
	)
	if [ "$(cat "$kept" 2>/dev/null)" = "$key" ] && [ -f "$out/.config" ]; then
		return 0
	fi
	kernel_make "$tree" "$@" KCONFIG_ALLCONFIG="$wanted" allnoconfig
	check_config "$wanted" "$out/.config"
	printf '%s\n' "$key" >"$kept"
}

# build_kernel LOG TREE ARGUMENT...: the log is kept apart, for what the compilers say.
build_kernel()
{
	local log=$1
	shift
	kernel_make "$@" -j"$JOBS" 2>&1 | tee "$log" ||
		die "it does not build:" \
			"$(grep -m1 -E 'error(\[E[0-9]+\])?:|Error [0-9]+' "$log" | cut -c1-160)"
}

# What rustc and the C compiler say in a log about this project's files below a folder of
# the tree.
our_warnings()
{
	awk -v folder="$2" '
		/^[^ ]*iommu[^ ]*: warning: / { if (index($1, folder)) print; next }
		/^(warning|error)/ { text = ""; ours = 0; inside = 1 }
		inside { text = text $0 "\n" }
		inside && / --> / && index($0, folder) && /iommu/ { ours = 1 }
		inside && /^$/ { if (ours) printf "%s", text; inside = 0 }
	' "$1"
}

# The compiler warns only when it compiles: the set-up keeps its messages about this
# project's files for 'make lint', until their crate is compiled again.
keep_warnings()
{
	local kept=$1/.overlay/warnings log=$2 crate
	mkdir -p "$kept"
	for crate in rust/kernel rust/helpers drivers/iommu/rust; do
		grep -qE "^ *(CLIPPY|RUSTC|CC) .* ${crate}[^ ]*\.(o|bc)$" "$log" || continue
		our_warnings "$log" "$crate/" >"$kept/${crate//\//-}"
	done
}

# The usual kernel's configuration, and what a debug kernel's has beside it.
vm_config()
{
	local fragments
	mapfile -t fragments < <(debug_fragments)
	cat "$TOP/tools/testing/vm/kernel.config" "${fragments[@]}"
}

step_kernel()
{
	local tree=$1 log=$CACHE/log/kernel-build.log wanted=$1/.overlay/wanted.config
	need_space 3
	vm_config >"$wanted"
	# clippy-driver compiles like rustc and has more warnings.
	configure_kernel "$tree" "$tree" "$wanted" CLIPPY=1
	build_kernel "$log" "$tree" CLIPPY=1 bzImage modules
	keep_warnings "$tree" "$log"
	kernel_make "$tree" CLIPPY=1 -j"$JOBS" headers
	rm -rf "$tree/.overlay/modules"
	kernel_make "$tree" CLIPPY=1 modules_install INSTALL_MOD_STRIP=1 \
		INSTALL_MOD_PATH="$tree/.overlay/modules"
}

# What each build depends on, besides its configuration and this project's files.
build_inputs()
{
	printf '%s\n' "$(kernel_source)" "$LLVM" "$RUST_LIB_SRC"
	cat "$1/.overlay/sync.serial" 2>/dev/null || true
	rustc --version
	bindgen --version
}

# kernel_key TREE [PATTERN]: the key of a kernel, without this project's files that match the
# pattern.
kernel_key()
{
	{
		build_inputs "$1"
		vm_config
		grep -v "${2:-^$}" "$1/.overlay/manifest.json"
	} | digest
}

provide_kernel()
{
	run_step "kernel${DEBUG:+-$DEBUG}" "Linux $(kernel_version "$1") and modules" \
		"$(kernel_key "$1")" step_kernel "$1"
}
