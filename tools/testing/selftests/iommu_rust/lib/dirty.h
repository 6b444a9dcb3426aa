/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Dirty tracking on real DMA: the common code of the tests.
 *
 * libvfio owns the IOAS, the device and its DMA engine. This adds what libvfio
 * has no call for: page tables allocated by hand (the only way to ask for dirty
 * tracking), the dirty ioctls, and an area mapped with leaves of one size.
 *
 * __fn() returns a negative errno, fn() ends the test when that is not 0.
 */
#ifndef SELFTESTS_IOMMU_RUST_LIB_DIRTY_H
#define SELFTESTS_IOMMU_RUST_LIB_DIRTY_H

#include <stdbool.h>

#include <linux/iommufd.h>
#include <linux/sizes.h>
#include <linux/types.h>

#include <libvfio.h>

/* The granularity of every page number in these tests. */
#define PAGE_4K SZ_4K

/* Bytes that one DMA write stores in a page: an Ethernet frame, for igb. */
#define STAMP_SIZE 128

/*
 * Whether the hardware can stop setting D. A second stage has such a switch
 * (SSADE, HAD); a first stage has none, so D is live while tracking is off.
 */
enum dirty_switch {
	DIRTY_SWITCHED,
	DIRTY_LIVE,
	DIRTY_SWITCH_UNKNOWN,
};

/**
 * struct dirty_dev - A device that writes where a test tells it to
 * @pci: libvfio's device; its rings have a separate IOVA area
 * @id: the device's object in iommufd
 * @local: one page that the device reads stamps from, one that it discards
 *         into; never part of a query
 * @stamp: number of the last stamp
 */
struct dirty_dev {
	struct vfio_pci_device *pci;
	u32 id;
	struct dma_region local;
	u64 stamp;
};

/**
 * struct dirty_area - Memory that a device writes and a test queries
 * @region: where it is; naturally aligned to its size in IOVA
 * @leaf: size of the leaves that map it
 * @nr_pages: its size in 4K pages
 */
struct dirty_area {
	struct dma_region region;
	u64 leaf;
	u64 nr_pages;
};

/**
 * struct page_set - Pages of an area
 * @nr: size of the area
 * @in: one byte per page, 1 if the page is in the set
 */
struct page_set {
	u64 nr;
	u8 *in;
};

/**
 * struct dirty_env - The environment of nearly every test
 * @iommu: the IOAS
 * @iova: allocator of its IOVAs
 * @dev: the device
 * @hwpt: page table with dirty tracking, off; @dev is attached to it
 * @area: memory to write to
 * @written: pages of @area written and not yet reported
 * @none: no page of @area
 * @seed: of the random numbers
 */
struct dirty_env {
	struct iommu *iommu;
	struct iova_allocator *iova;
	struct dirty_dev dev;
	u32 hwpt;
	struct dirty_area area;
	struct page_set written;
	struct page_set none;
	u64 seed;
};

/* ioctls, in uapi.c */
int __hw_info(int iommufd, u32 dev_id, struct iommu_hw_info *info,
	      struct iommu_hw_info_vtd *vtd);
int __ioas_huge_pages(int iommufd, u32 ioas_id, bool enable);
int __hwpt_alloc(int iommufd, u32 dev_id, u32 ioas_id, u32 flags, u32 *hwpt);
u32 hwpt_alloc(struct dirty_env *env, u32 flags);
int __hwpt_set_dirty(int iommufd, u32 hwpt, u32 flags);
void hwpt_set_dirty(struct dirty_env *env, u32 hwpt, bool enable);
int __hwpt_get_dirty(int iommufd, struct iommu_hwpt_get_dirty_bitmap *cmd);
int __iommufd_destroy(int iommufd, u32 id);
void iommufd_destroy(struct dirty_env *env, u32 id);
int __device_attach(struct dirty_dev *dev, u32 pt_id);
void device_attach(struct dirty_dev *dev, u32 pt_id);
int __device_detach(struct dirty_dev *dev);
void device_detach(struct dirty_dev *dev);

/* Sets of pages, in report.c */
struct page_set page_set_alloc(struct dirty_area *area);
void page_set_free(struct page_set *set);
void page_set_clear(struct page_set *set);
void page_set_add(struct page_set *set, u64 page);
u64 page_set_add_random(struct page_set *set, u64 *seed);

/* Environment and DMA, in dirty.c */
const char *dirty_env_open(struct dirty_env *env, const char *bdf, u64 leaf);
void dirty_env_close(struct dirty_env *env);
void dirty_dev_open(struct dirty_env *env, struct dirty_dev *dev,
		    const char *bdf);
void dirty_dev_close(struct dirty_env *env, struct dirty_dev *dev);
const char *dirty_area_map(struct dirty_env *env, struct dirty_area *area,
			   u64 leaf, u64 size);
void dirty_area_remap(struct dirty_env *env, struct dirty_area *area);
void dirty_area_unmap(struct dirty_env *env, struct dirty_area *area);
void *dirty_area_page(struct dirty_area *area, u64 page);
int __dirty_write(struct dirty_dev *dev, struct dirty_area *area, u64 page);
void dirty_write(struct dirty_dev *dev, struct dirty_area *area, u64 page);
void dirty_read(struct dirty_dev *dev, struct dirty_area *area, u64 page);

bool dirty_capable(struct dirty_env *env, struct dirty_dev *dev);
enum dirty_switch dirty_switch(struct dirty_env *env);
bool dirty_driver_is_c_vtd(const char *bdf);
bool dirty_driver_is_c_amd(const char *bdf);
bool dirty_walker_is_generic_pt(const char *bdf);

/* Deterministic: a failure can be repeated. */
u64 dirty_random(u64 *state);

#endif /* SELFTESTS_IOMMU_RUST_LIB_DIRTY_H */
