# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Packages of the host and the Rust tools: checks which exist and installs the
# missing ones.

RUSTC_MIN=1.85.0
BINDGEN_MIN=0.71.1
BINDGEN_SUITE=trixie

# Needed on every release.  Firmware for QEMU comes with seabios and
# qemu-system-data; the rest builds the kernel, QEMU and the test programs.
base_packages()
{
	printf '%s\n' make gcc libc6-dev pkg-config python3 python3-venv perl \
		git ca-certificates xz-utils bzip2 cpio rsync kmod bc flex bison \
		libelf-dev libssl-dev libcap-dev uuid-dev busybox-static \
		ninja-build libglib2.0-dev libpixman-1-dev libfdt-dev zlib1g-dev patch \
		seabios qemu-system-data shellcheck pyflakes3
	case $LLVM in
	-*)
		printf '%s\n' "clang$LLVM" "lld$LLVM" "llvm$LLVM" "libclang$LLVM-dev"
		;;
	esac
}

# Prints the version of a tool as X.Y.Z, or nothing.
version_of()
{
	"$@" 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n1 || true
}

# Debian 13 has every Rust tool as a package; Debian 12's are too old, and
# users install rustc there with rustup.
rust_packages()
{
	local have release
	have=$(version_of rustc --version)
	release=$(os_release VERSION_ID)
	if [ -n "$have" ] && version_at_least "$have" "$RUSTC_MIN" &&
		! installed rustc; then
		return 0
	fi
	if [ "${release%%.*}" -ge 13 ]; then
		printf '%s\n' rustc cargo rustfmt rust-clippy rust-src bindgen
	elif [ -n "$have" ]; then
		die "rustc is $have and this needs $RUSTC_MIN or later: run 'rustup update stable'"
	else
		die "there is no rustc: install one of $RUSTC_MIN or later with rustup," \
			"and have it in PATH"
	fi
}

check_rust_tools()
{
	local tool
	for tool in cargo rustfmt clippy-driver; do
		"$tool" --version >/dev/null 2>&1 ||
			die "$tool does not run: install it beside rustc, for instance with" \
				"'rustup component add rustfmt clippy'"
	done
}

# provide_packages LEVEL: those of the level of tools/setup/setup.
provide_packages()
{
	local wanted missing
	wanted=$(base_packages) || exit 1
	wanted="$wanted $(rust_packages)" || exit 1
	wanted="$wanted $(deb_packages "$1")" || exit 1
	# shellcheck disable=SC2086 # a list of words
	mapfile -t missing < <(missing_packages $wanted)
	if [ ${#missing[@]} -eq 0 ]; then
		return 0
	fi
	if [ "$(id -u)" -ne 0 ] && [ -t 0 ] && command -v sudo >/dev/null; then
		sudo -v || die "packages are missing and sudo was refused; as root, run:" \
			"apt-get install ${missing[*]}"
	fi
	run_step packages "${#missing[@]} packages of Debian" always \
		install_packages "${missing[@]}"
}

# The library source must have exactly the version of the compiler.
step_rust_src()
{
	local rustc=$1 into=$2 suite version
	need_space 1
	for suite in "$(os_release VERSION_CODENAME)" trixie trixie-backports sid; do
		private_lists deb "$suite"
		version=$(apt_private apt-cache madison rust-src |
			awk -v want="$rustc" 'index($3, want) == 1 { print $3; exit }')
		[ -n "$version" ] || continue
		rm -rf "$into.partial"
		mkdir -p "$into.partial"
		fetch_package "rust-src=$version" "$into.partial"
		mv "$into.partial/usr/src/rustc-$rustc" "$into"
		rm -rf "$into.partial"
		return 0
	done
	if command -v rustup && rustup component add rust-src; then
		return 0
	fi
	die "no Debian suite has rust-src $rustc: install the library source of this" \
		"rustc, for instance with 'rustup component add rust-src'"
}

# Exports RUST_LIB_SRC to the kernel's build, and runs the step if needed.
provide_rust_src()
{
	local own rustc into
	own=$(rustc --print sysroot)/lib/rustlib/src/rust/library
	if [ ! -e "$own/core/src/lib.rs" ]; then
		rustc=$(version_of rustc --version)
		into=$CACHE/rust-src/$rustc
		if [ ! -d "$into" ]; then
			run_step rust-src "library source of rustc $rustc" always \
				step_rust_src "$rustc" "$into"
		fi
		if [ -d "$into" ]; then
			own=$into/library
		fi
	fi
	export RUST_LIB_SRC=$own
}

# That of a later release of Debian, with the C library that it needs: to compile one takes
# minutes.
step_bindgen()
{
	local into=$1 package libraries=$1/usr/lib/x86_64-linux-gnu
	need_space 1
	private_lists deb "$BINDGEN_SUITE"
	rm -rf "$into.partial"
	mkdir -p "$into.partial/bin"
	for package in bindgen libc6 libgcc-s1; do
		fetch_package "$package" "$into.partial"
	done
	cat >"$into.partial/bin/bindgen" <<-END
		#!/bin/sh
		exec $libraries/ld-linux-x86-64.so.2 --library-path $libraries \
			$into/usr/bin/bindgen "\$@"
	END
	chmod +x "$into.partial/bin/bindgen"
	mv "$into.partial" "$into"
	"$into/bin/bindgen" --version || {
		rm -rf "$into"
		die "the bindgen of Debian $BINDGEN_SUITE does not run here: install bindgen" \
			"$BINDGEN_MIN or later"
	}
}

# Puts a bindgen that is new enough into PATH.
provide_bindgen()
{
	local have into=$CACHE/bindgen/$BINDGEN_SUITE
	have=$(version_of bindgen --version)
	if [ -n "$have" ] && version_at_least "$have" "$BINDGEN_MIN"; then
		return 0
	fi
	if [ ! -x "$into/bin/bindgen" ]; then
		run_step bindgen "bindgen, from Debian $BINDGEN_SUITE" always step_bindgen "$into"
	fi
	export PATH=$into/bin:$PATH
}
