// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's KUnit suite of IOMMU page tables, on those of VT-d second stage in Rust.
 */
#define PT_FMT vtdss
#define PT_FMT_VARIANT rust
#define PT_SUPPORTED_FEATURES                                            \
	(BIT(PT_FEAT_FLUSH_RANGE) | BIT(PT_FEAT_VTDSS_FORCE_COHERENCE) | \
	 BIT(PT_FEAT_VTDSS_FORCE_WRITEABLE) | BIT(PT_FEAT_DMA_INCOHERENT))

#include "../../../../generic_pt/fmt/vtdss.h"
#include "template.h"
