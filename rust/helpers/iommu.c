// SPDX-License-Identifier: GPL-2.0

#ifdef CONFIG_RUST_IOMMU

#include <linux/rust_iommu.h>
#include <linux/crash_dump.h>
#include <linux/kexec.h>
#include <linux/mm.h>
#include <linux/mem_encrypt.h>
#include <linux/module.h>
#include <linux/ratelimit.h>
#ifdef CONFIG_RUST_IOMMU_PT_ABI
#include "../../drivers/iommu/iommu-pages.h"
#endif

/*
 * Puts a detached table on a free list.  The private struct ioptdesc of
 * drivers/iommu overlays struct page, and iommu-pages.c asserts at build time
 * that its list element is at the place of page->lru.
 */
__rust_helper void rust_helper_iommu_pages_list_add(struct iommu_pages_list *list,
						    void *virt)
{
	list_add_tail(&virt_to_head_page(virt)->lru, &list->pages);
}

/* Takes the first table off such a list, NULL if there is none. */
__rust_helper void *
rust_helper_iommu_pages_list_pop(struct iommu_pages_list *list)
{
	struct page *page = list_first_entry_or_null(&list->pages, struct page, lru);

	if (!page)
		return NULL;
	list_del(&page->lru);
	return page_address(page);
}

__rust_helper phys_addr_t rust_helper_virt_to_phys(void *virt)
{
	return virt_to_phys(virt);
}

__rust_helper void *rust_helper_phys_to_virt(phys_addr_t phys)
{
	return phys_to_virt(phys);
}

#ifndef CONFIG_MODULE_UNLOAD
__rust_helper bool rust_helper_try_module_get(struct module *module)
{
	return try_module_get(module);
}

__rust_helper void rust_helper_module_put(struct module *module)
{
	module_put(module);
}
#endif

#ifndef CONFIG_IOMMUFD_DRIVER
/* A stub in the header then. */
__rust_helper void rust_helper_iova_bitmap_set(struct iova_bitmap *bitmap,
					       unsigned long iova, size_t length)
{
	iova_bitmap_set(bitmap, iova, length);
}
#endif

#ifdef CONFIG_RUST_IOMMU_PT_ABI
__rust_helper void
rust_helper_iommu_pages_flush_incoherent(struct device *dma_dev, void *virt,
					 size_t offset, size_t len)
{
	iommu_pages_flush_incoherent(dma_dev, virt, offset, len);
}

__rust_helper void
rust_helper_iommu_pages_list_splice(struct iommu_pages_list *from,
				    struct iommu_pages_list *to)
{
	iommu_pages_list_splice(from, to);
}

__rust_helper void
rust_helper_iommu_pages_stop_incoherent_list(struct iommu_pages_list *list,
					     struct device *dma_dev)
{
	iommu_pages_stop_incoherent_list(list, dma_dev);
}

__rust_helper void rust_helper_iommu_pages_free_incoherent(void *virt,
							   struct device *dma_dev)
{
	iommu_pages_free_incoherent(virt, dma_dev);
}

__rust_helper void
rust_helper_iommu_iotlb_sync(struct iommu_domain *domain,
			     struct iommu_iotlb_gather *gather)
{
	iommu_iotlb_sync(domain, gather);
}

#endif /* CONFIG_RUST_IOMMU_PT_ABI */

__rust_helper u64 rust_helper___sme_set(u64 addr)
{
	return __sme_set(addr);
}

/*
 * Rust has no atomic type of 128 bits, and hardware reads some entries that
 * wide at once.
 */
__rust_helper bool rust_helper_rust_iommu_can_store128(void)
{
#if defined(CONFIG_X86_64) && !defined(CONFIG_UML)
	return system_has_cmpxchg128();
#else
	return false;
#endif
}

__rust_helper void rust_helper_rust_iommu_store128(u64 *ptr, u64 low, u64 high)
{
#if defined(CONFIG_X86_64) && !defined(CONFIG_UML)
	u128 *word = (u128 *)ptr;
	u128 new = (u128)high << 64 | low;
	u128 old = (u128)READ_ONCE(ptr[1]) << 64 | READ_ONCE(ptr[0]);

	/* The first try fails only if another CPU wrote in between. */
	while (!arch_try_cmpxchg128(word, &old, new))
		;
#endif
}

__rust_helper void
rust_helper_ratelimit_default_init(struct ratelimit_state *state)
{
	ratelimit_default_init(state);
}

#ifdef CONFIG_ACPI
__rust_helper int rust_helper_pxm_to_online_node(int pxm)
{
	return pxm_to_online_node(pxm);
}
#endif

/* Vendor, family and model of the CPU; 0 where there is no such number. */
__rust_helper u32 rust_helper_rust_iommu_processor(void)
{
#if defined(CONFIG_X86_64) && !defined(CONFIG_UML)
	return boot_cpu_data.x86_vfm;
#else
	return 0;
#endif
}

#ifdef CONFIG_IOMMU_API
/*
 * Waits for the probe of a device that may have found the operations of a
 * driver before the last of its units was unregistered: iommu_init_device()
 * holds this lock, and nothing else, from there to its last use of them.
 */
__rust_helper void rust_helper_rust_iommu_wait_for_probes(void)
{
	mutex_lock(&iommu_probe_device_lock);
	mutex_unlock(&iommu_probe_device_lock);
}

__rust_helper bool rust_helper_rust_iommu_has_driver(struct device *dev)
{
	return device_is_bound(dev);
}

/* Whether pci_dma_configure() counts the driver. The caller holds the device's lock. */
static inline bool rust_iommu_driver_counts(struct device *dev)
{
#ifdef CONFIG_PCI
	return dev_is_pci(dev) && device_is_bound(dev) &&
	       !to_pci_driver(dev->driver)->driver_managed_dma;
#else
	return false;
#endif
}

/* Returns -ENODEV if no driver is bound that counts. */
__rust_helper int rust_helper_rust_iommu_count_driver(struct device *dev)
{
	guard(device)(dev);
	return rust_iommu_driver_counts(dev) ? iommu_device_use_default_domain(dev) : -ENODEV;
}

/* Returns whether such a driver is bound. */
__rust_helper bool rust_helper_rust_iommu_uncount_driver(struct device *dev)
{
	guard(device)(dev);
	if (!rust_iommu_driver_counts(dev))
		return false;
	iommu_device_unuse_default_domain(dev);
	return true;
}

__rust_helper bool rust_helper_rust_iommu_is_killed(void)
{
	return fatal_signal_pending(current);
}

__rust_helper bool rust_helper_rust_iommu_is_kexec(void)
{
	return kexec_in_progress;
}

__rust_helper bool rust_helper_rust_iommu_is_crash_kernel(void)
{
	return is_kdump_kernel();
}

/* Whether only the loader of the module holds a reference to it. */
__rust_helper bool rust_helper_rust_iommu_module_is_idle(struct module *module)
{
	if (!module)
		return true;
#ifdef CONFIG_MODULE_UNLOAD
	return module_refcount(module) <= 1;
#else
	/* References are not counted. */
	return false;
#endif
}
#endif /* CONFIG_IOMMU_API */

__rust_helper bool rust_helper_rust_iommu_device_trylock(struct device *dev)
{
	return device_trylock(dev);
}

__rust_helper void rust_helper_rust_iommu_device_unlock(struct device *dev)
{
	device_unlock(dev);
}

__rust_helper void rust_helper_rust_iommu_raw_spin_lock_init(raw_spinlock_t *lock,
							     const char *name,
							     struct lock_class_key *key)
{
#ifdef CONFIG_DEBUG_SPINLOCK
	__raw_spin_lock_init(lock, name, key, LD_WAIT_SPIN);
#else
	raw_spin_lock_init(lock);
#endif
}

__rust_helper unsigned long rust_helper_rust_iommu_raw_spin_lock(raw_spinlock_t *lock)
{
	unsigned long flags;

	raw_spin_lock_irqsave(lock, flags);
	return flags;
}

__rust_helper bool rust_helper_rust_iommu_raw_spin_trylock(raw_spinlock_t *lock,
							   unsigned long *flags)
{
	return raw_spin_trylock_irqsave(lock, *flags);
}

__rust_helper void rust_helper_rust_iommu_raw_spin_unlock(raw_spinlock_t *lock,
							  unsigned long flags)
{
	raw_spin_unlock_irqrestore(lock, flags);
}

__rust_helper void rust_helper_rust_iommu_raw_spin_assert_is_held(raw_spinlock_t *lock)
{
	lockdep_assert_held(lock);
}

#ifdef CONFIG_PCI
/* Rust would also read the bits next to these, which C code writes. */
__rust_helper bool rust_helper_rust_iommu_pci_is_untrusted(struct pci_dev *pdev)
{
	return pdev->untrusted;
}

/*
 * While a function sleeps, its command register is the saved one: takes Bus Master
 * Enable from that. Returns whether it was there.
 */
__rust_helper bool rust_helper_rust_iommu_pci_stop_saved(struct pci_dev *pdev)
{
	u32 *saved = &pdev->saved_config_space[PCI_COMMAND / 4];

	if (!pdev->state_saved || !(*saved & PCI_COMMAND_MASTER))
		return false;
	*saved &= ~PCI_COMMAND_MASTER;
	return true;
}

/* Any context: MSI-X, whose vectors a mutex guards, is left to the PCI core. */
__rust_helper void rust_helper_rust_iommu_pci_restore_msi(struct pci_dev *pdev)
{
	if (pdev->msi_enabled)
		pci_restore_msi_state(pdev);
}

#ifdef CONFIG_PCI_PASID
__rust_helper bool rust_helper_rust_iommu_pci_pasid_enabled(struct pci_dev *pdev)
{
	return pdev->pasid_enabled;
}
#endif

__rust_helper struct pci_dev *rust_helper_pci_physfn(struct pci_dev *pdev)
{
	return pci_physfn(pdev);
}

/*
 * Whether Access Control Services could isolate the function from others, and are off: the
 * flags that pci_device_group() asks for.
 */
__rust_helper bool rust_helper_rust_iommu_pci_acs_is_off(struct pci_dev *pdev)
{
	u16 wanted = PCI_ACS_SV | PCI_ACS_RR | PCI_ACS_CR | PCI_ACS_UF, has, on;

	/* A function by itself is isolated by the port above it. */
	if (!pdev->acs_cap || !(pdev->multifunction || pci_is_bridge(pdev)) ||
	    pci_read_config_word(pdev, pdev->acs_cap + PCI_ACS_CAP, &has) ||
	    pci_read_config_word(pdev, pdev->acs_cap + PCI_ACS_CTRL, &on))
		return false;
	return has & wanted & ~on;
}

__rust_helper int rust_helper_pci_domain_nr(struct pci_bus *bus)
{
	return pci_domain_nr(bus);
}

__rust_helper bool rust_helper_pci_is_root_bus(struct pci_bus *bus)
{
	return pci_is_root_bus(bus);
}

__rust_helper bool rust_helper_pci_is_bridge(struct pci_dev *pdev)
{
	return pci_is_bridge(pdev);
}

__rust_helper bool rust_helper_pci_is_pcie(struct pci_dev *pdev)
{
	return pci_is_pcie(pdev);
}

__rust_helper int rust_helper_pci_pcie_type(const struct pci_dev *pdev)
{
	return pci_pcie_type(pdev);
}
#endif /* CONFIG_PCI */

#ifdef CONFIG_X86
#include "iommu_dmar.c"
#include "iommu_irq.c"
#endif

#endif /* CONFIG_RUST_IOMMU */
