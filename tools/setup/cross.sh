# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The kernel crate compiled for other architectures than the host's. The result
# does not run: it must compile without a warning about this project's files.

CROSS_CONFIGS=$TOP/tools/testing/cross

cross_make()
{
	kernel_make O="$CROSS_OUT" ARCH="$CROSS" "$@"
}

step_cross()
{
	local log=$CACHE/log/cross-$CROSS-build.log said there
	local fragment=$CROSS_CONFIGS/$CROSS.config
	need_space 1
	mkdir -p "$CROSS_OUT"
	cross_make rustavailable ||
		die "this toolchain cannot build Rust in the kernel: see the end of the log"
	cross_make KCONFIG_ALLCONFIG="$fragment" allnoconfig
	check_config "$fragment" "$CROSS_OUT/.config"
	# Of the whole kernel, the crates and the helpers only.
	cross_make -j"$JOBS" rust/ 2>&1 | tee "$log" ||
		die "the kernel crate does not build for $CROSS:" \
			"$(grep -m1 -E 'error(\[E[0-9]+\])?:|Error [0-9]+' "$log" | cut -c1-160)"
	said=$(our_warnings "$log" rust/; grep -E '^[^ ]*iommu[^ ]*: warning: ' "$log" || true)
	if [ -n "$said" ]; then
		rm -f "$CROSS_OUT"/rust/{kernel,helpers/helpers}.o
		die "$(grep -m1 . <<<"$said")"
	fi
	# Optional, depending on the configuration.
	there=0
	! grep -q 'rust/kernel/iommu/pt/mod.rs' "$CROSS_OUT/rust/.kernel.o.cmd" || there=1
	[ "$there" = "$(grep -c '^CONFIG_RUST_IOMMU=y$' "$CROSS_OUT/.config")" ] ||
		die "RUST_IOMMU does not decide for $CROSS what the kernel crate has of ours"
}

# provide_cross ARCH: the kernel's name of the architecture, and the name of
# its fragment.
provide_cross()
{
	# There is no debug kernel of this kind.
	# shellcheck disable=SC2034 # provide_tree reads it
	local key DEBUG=
	CROSS=$1
	provide_tree cross
	CROSS_OUT=$TREE/.overlay/$CROSS
	key=$(
		{
			printf '%s\n' "$SOURCE" "$LLVM" "$RUST_LIB_SRC"
			grep -E '"(rust|include)/|Kconfig|Makefile' "$TREE/.overlay/manifest.json"
			cat "$TREE/.overlay/sync.serial" 2>/dev/null || true
			rustc --version
			bindgen --version
			cat "$CROSS_CONFIGS/$CROSS.config" "$HERE/cross.sh"
		} | digest
	)
	if [ -n "${FRESH:-}" ]; then
		rm -rf "$CROSS_OUT" "$CACHE/stamps/cross-$CROSS"
	fi
	run_step "cross-$CROSS" "the kernel crate for $CROSS" "$key" step_cross
}
