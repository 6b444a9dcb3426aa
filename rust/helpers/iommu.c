// SPDX-License-Identifier: GPL-2.0

#include <linux/rust_iommu.h>
#include <linux/mm.h>
#include <linux/module.h>

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

/* A stub in the header when no driver selected IOMMUFD_DRIVER. */
__rust_helper void rust_helper_iova_bitmap_set(struct iova_bitmap *bitmap,
					       unsigned long iova, size_t length)
{
	iova_bitmap_set(bitmap, iova, length);
}

#ifdef CONFIG_PCI
__rust_helper struct pci_dev *rust_helper_pci_physfn(struct pci_dev *pdev)
{
	return pci_physfn(pdev);
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
