// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's KUnit suite of IOMMU page tables, on those of x86-64 in Rust.
 */
#define PT_FMT x86_64
#define PT_FMT_VARIANT rust
#define PT_SUPPORTED_FEATURES                                  \
	(BIT(PT_FEAT_SIGN_EXTEND) | BIT(PT_FEAT_FLUSH_RANGE) | \
	 BIT(PT_FEAT_FLUSH_RANGE_NO_GAPS) |                    \
	 BIT(PT_FEAT_X86_64_AMD_ENCRYPT_TABLES) | BIT(PT_FEAT_DMA_INCOHERENT))

#include "../../../../generic_pt/fmt/x86_64.h"
#include "template.h"
