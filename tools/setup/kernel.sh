# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The kernel: its source, the tree with this checkout laid over it, its build.

KERNEL_SERIES=7.3
DEBUG_FRAGMENTS=$TOP/tools/testing/vm/debug

kernel_version()
{
	awk -F'[ =]+' '$1 == "VERSION" { v = $2 } $1 == "PATCHLEVEL" { p = $2 }
		$1 == "SUBLEVEL" { s = $2 } $1 == "NAME" { exit }
		END { print v "." p "." s }' "$1/Makefile"
}

# The newest linux-source-7.* of the lists, the wanted series before any other.
pick_source_package()
{
	local names
	names=$(apt_private apt-cache pkgnames linux-source-7. |
		grep -xE 'linux-source-7\.[0-9]+' || true)
	if grep -qxF "linux-source-$KERNEL_SERIES" <<<"$names"; then
		printf 'linux-source-%s\n' "$KERNEL_SERIES"
	else
		sort -V <<<"$names" | tail -n1
	fi
}

step_kernel_source()
{
	local suite package='' into=$CACHE/source/linux work=$CACHE/source/work
	need_space 5
	for suite in trixie-backports sid; do
		private_lists deb "$suite"
		package=$(pick_source_package)
		[ "$package" != "linux-source-$KERNEL_SERIES" ] || break
	done
	[ -n "$package" ] ||
		die "no Debian suite has linux-source-7.*: give a kernel tree of your own" \
			"with KSRC="
	rm -rf "$work" "$into.partial"
	mkdir -p "$work" "$into.partial"
	fetch_package "$package" "$work"
	tar -C "$into.partial" --strip-components=1 -xf "$work/usr/src/$package.tar.xz"
	rm -rf "$work"
	mv "$into.partial" "$into"
}

# Sets SOURCE, the pristine tree.
provide_source()
{
	if [ -n "$KSRC" ]; then
		SOURCE=$KSRC
		return 0
	fi
	SOURCE=$CACHE/source/linux
	if [ ! -d "$SOURCE" ]; then
		run_step kernel-source "Linux $KERNEL_SERIES source, from Debian" \
			always step_kernel_source
	fi
	case $(kernel_version "$SOURCE") in
	"$KERNEL_SERIES".*) ;;
	*)
		printf 'setup: Linux %s is gone from the Debian archive, using %s: %s\n' \
			"$KERNEL_SERIES" "$(kernel_version "$SOURCE")" "KSRC= takes another"
		;;
	esac
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
	local laid=$TREE/.overlay/laid.list
	sed -nE 's/^ "(.*)": "[0-9a-f]+",?$/\/\1/p' "$TREE/.overlay/manifest.json" >"$laid"
	rsync -ai --exclude-from="$laid" --exclude='/.git' --exclude='/.overlay' \
		--exclude='*.o' --exclude='*.cmd' --exclude='*.a' --exclude='*.ko' \
		--exclude='/.config*' --exclude='/include/generated' --exclude='/include/config' \
		--exclude='/arch/*/include/generated' --exclude='/vmlinux*' \
		"$KSRC/" "$TREE/" >"$TREE/.overlay/sync.list"
	if grep -q '^>f' "$TREE/.overlay/sync.list"; then
		date +%s%N >"$TREE/.overlay/sync.serial"
	fi
}

lay_over()
{
	"$TOP/tools/overlay/overlay" --tree "$TREE" --source "$SOURCE"
}

step_tree()
{
	need_space 4
	if [ -n "$KSRC" ] && [ -d "$TREE" ]; then
		sync_ksrc
	fi
	lay_over || die "$(grep '^overlay: ' "$CACHE/log/$TREES.log" | tail -n1)"
}

# The fragments of the configuration; later ones override earlier ones.
fragments()
{
	printf '%s\n' "$TOP/tools/testing/vm/kernel.config"
	if [ -n "$DEBUG" ]; then
		printf '%s\n' "$DEBUG_FRAGMENTS/$DEBUG.config"
	fi
}

check_debug()
{
	local names
	if [ -n "$DEBUG" ] && ! [ -f "$DEBUG_FRAGMENTS/$DEBUG.config" ]; then
		names=$(cd "$DEBUG_FRAGMENTS" && printf '%s, ' *.config)
		names=${names//.config/}
		die "there is no debug kernel '$DEBUG': ${names%, } exist, and without DEBUG= the" \
			"usual one"
	fi
}

# Sets TREE, the copy of the source with this checkout on top. Each architecture has a
# separate copy: a tree holds one build.
provide_tree()
{
	TREES=${1:-tree}
	TREE=$CACHE/$TREES/linux-$(kernel_version "$SOURCE")
	if [ -n "$KSRC" ]; then
		TREE=$CACHE/$TREES/ksrc-$(printf '%s' "$KSRC" | digest)
	fi
	# A debug kernel has a separate build: neither kernel rebuilds the other.
	TREE=$TREE${DEBUG:+-$DEBUG}
	if [ ! -d "$TREE" ] || [ -n "$KSRC" ]; then
		run_step "$TREES" "copy of the source, this checkout laid over" always step_tree
	else
		local said
		said=$(lay_over 2>&1) || die "$TREES: $(tail -n1 <<<"$said")"
		case $said in
		*' 0 changed') ;;
		*) say_step "$TREES" "this checkout laid over the source" "${said##*: }" ;;
		esac
	fi
	MANIFEST=$(digest <"$TREE/.overlay/manifest.json")
}

# These fixed values make builds reproducible.
kernel_make()
{
	make -C "$TREE" LLVM="$LLVM" KBUILD_BUILD_TIMESTAMP=2026-01-01 \
		KBUILD_BUILD_USER=rust-iommu KBUILD_BUILD_HOST=rust-iommu "$@"
}

# clippy-driver compiles like rustc and has more warnings.
kmake()
{
	kernel_make CLIPPY=1 "$@"
}

# Each symbol that a fragment asks for must take effect: Kconfig silently drops one whose
# dependencies are missing.  check_config FRAGMENT [CONFIG]
check_config()
{
	local line symbol name=${1##*/} config=${2:-$TREE/.config}
	while IFS= read -r line; do
		symbol=${line%%=*}
		case $line in
		CONFIG_*=n)
			! grep -q "^$symbol=" "$config" ||
				die "$name asks for $line but something selects it"
			;;
		CONFIG_*=*)
			grep -qxF "$line" "$config" ||
				die "$name asks for $line but its dependencies are not met"
			;;
		esac
	done <"$1"
}

# configure_kernel MAKE FRAGMENT...: MAKE is the function that builds in TREE. What no
# fragment names is off: no default brings it in.
configure_kernel()
{
	local make=$1 wanted=$TREE/.overlay/wanted.config kept=$TREE/.overlay/config.key key fragment
	shift
	cat "$@" >"$wanted"
	key=$(
		{
			cat "$wanted"
			find "$TREE/drivers/iommu" "$TREE/rust" -name 'Kconfig*' -exec cat {} +
		} | digest
	)
	if [ "$(cat "$kept" 2>/dev/null)" = "$key" ] && [ -f "$TREE/.config" ]; then
		return 0
	fi
	"$make" KCONFIG_ALLCONFIG="$wanted" allnoconfig
	for fragment; do
		check_config "$fragment"
	done
	printf '%s\n' "$key" >"$kept"
}

# The compiler's messages in a log about this project's files below a folder of the tree.
our_warnings()
{
	awk -v folder="$2" '
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
	local kept=$TREE/.overlay/warnings crate
	mkdir -p "$kept"
	for crate in rust/kernel drivers/iommu/rust; do
		grep -qE "^ *(CLIPPY|RUSTC|CC) .* ${crate}[^ ]*\.o$" "$1" || continue
		our_warnings "$1" "$crate/" >"$kept/${crate//\//-}"
	done
}

step_kernel()
{
	need_space 3
	kmake rustavailable ||
		die "this toolchain cannot build Rust in the kernel: see the end of the log"
	local log=$CACHE/log/kernel-build.log list
	mapfile -t list < <(fragments)
	configure_kernel kmake "${list[@]}"
	kmake -j"$JOBS" bzImage modules 2>&1 | tee "$log" ||
		die "the kernel does not build:" \
			"$(grep -m1 -E 'error(\[E[0-9]+\])?:|Error [0-9]+' "$log" | cut -c1-160)"
	keep_warnings "$log"
	kmake -j"$JOBS" headers
	rm -rf "$TREE/.overlay/modules"
	kmake modules_install INSTALL_MOD_PATH="$TREE/.overlay/modules" INSTALL_MOD_STRIP=1
}

# The key of a kernel's inputs; the argument is the digest of this project's files.
kernel_inputs()
{
	printf '%s\n' "$1" "$SOURCE" "$LLVM" "$RUST_LIB_SRC" "$DEBUG"
	cat "$TREE/.overlay/sync.serial" 2>/dev/null || true
	rustc --version
	bindgen --version
	fragments | xargs -d '\n' cat
}

# The key of a kernel without this project's files that match a pattern.
kernel_key_without()
{
	kernel_inputs "$(grep -v "$1" "$TREE/.overlay/manifest.json" | digest)" | digest
}

provide_kernel()
{
	KERNEL_KEY=$(kernel_inputs "$MANIFEST" | digest)
	run_step "kernel${DEBUG:+-$DEBUG}" "Linux $(kernel_version "$TREE") and modules" \
		"$KERNEL_KEY" step_kernel
}
