# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The kernel crate, and the crate of the tests on top of it, compiled for other
# architectures than the host's. The result does not run: it must compile without
# a warning about this project's files.

step_cross()
{
	local arch=$1 tree=$2 out=$3 fragment=$4 log=$CACHE/log/cross-$1-build.log said there
	need_space 1
	mkdir -p "$out"
	configure_kernel "$tree" "$out" "$fragment" O="$out" ARCH="$arch"
	# Of the whole kernel, the crates and the helpers only.
	build_kernel "$log" "$tree" O="$out" ARCH="$arch" rust/ drivers/iommu/rust/
	said=$(our_warnings "$log" rust/)
	if [ -n "$said" ]; then
		rm -f "$out"/rust/{kernel,helpers/helpers}.o
		find "$out/drivers/iommu/rust" -name '*.o' -delete
		die "$(grep -m1 . <<<"$said")"
	fi
	# Optional, depending on the configuration.
	there=0
	! grep -q 'rust/kernel/iommu/pt/mod.rs' "$out/rust/.kernel.o.cmd" || there=1
	[ "$there" = "$(grep -c '^CONFIG_RUST_IOMMU=y$' "$out/.config")" ] ||
		die "RUST_IOMMU does not decide for $arch what the kernel crate has of ours"
}

# provide_cross ARCH TREE: the kernel's name of the architecture is the name of its fragment.
provide_cross()
{
	local arch=$1 tree=$2 out=$2/.overlay/$1 fragment=$TOP/tools/testing/cross/$1.config key
	key=$(
		{
			build_inputs "$tree"
			grep -E '"(rust|include|drivers/iommu/rust/testing)/|Kconfig|Makefile' \
				"$tree/.overlay/manifest.json"
			cat "$fragment" "$HERE/cross.sh"
		} | digest
	)
	if [ -n "${FRESH:-}" ]; then
		rm -rf "$out" "$CACHE/stamps/cross-$arch"
	fi
	run_step "cross-$arch" "the kernel crate for $arch" "$key" \
		step_cross "$arch" "$tree" "$out" "$fragment"
}
