// SPDX-License-Identifier: GPL-2.0
/*
 * A PCI Express function that does DMA with a PASID, for tests of IOMMUs.
 *
 * Registers in BAR 0, of 8 bytes each; a write to COMMAND runs it to its end:
 *
 *   0x00 ID       read-only, PASID_DMA_ID
 *   0x08 SOURCE   where to read from
 *   0x10 TARGET   where to write to
 *   0x18 LENGTH   in bytes, at most that of the buffer
 *   0x20 PASID    of both accesses; bit 31: they carry one
 *   0x28 COMMAND  bit 0: read SOURCE into the buffer; bit 1: write it to TARGET
 *   0x30 STATUS   read-only, of the last command: bit 0: it failed, bit 1: it
 *                 was the read, bit 2: the write, bit 3: it was not tried
 *   0x1000        the buffer
 *
 * A request with a PASID is not tried unless the PASID capability is enabled and
 * as wide. Accesses are made in pieces, as TLPs are; the first that is refused
 * ends the command. What was written before stays written.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "qom/object.h"

#define TYPE_PASID_DMA "pasid-dma"
OBJECT_DECLARE_SIMPLE_TYPE(PasidDMAState, PASID_DMA)

/* Of QEMU's vendor ID, next to edu */
#define PASID_DMA_DEVICE_ID     0x11ef
#define PASID_DMA_ID            0x414d442d44534150ULL   /* "PASD-DMA" */

#define PASID_DMA_BUFFER        0x1000
#define PASID_DMA_BUFFER_SIZE   (4 * KiB)
#define PASID_DMA_BAR_SIZE      (8 * KiB)
#define PASID_DMA_PIECE         128

#define PASID_DMA_HAS_PASID     (1U << 31)
#define PASID_DMA_READ          (1U << 0)
#define PASID_DMA_WRITE         (1U << 1)
#define PASID_DMA_FAILED        (1U << 0)
#define PASID_DMA_FAILED_READ   (1U << 1)
#define PASID_DMA_FAILED_WRITE  (1U << 2)
#define PASID_DMA_NOT_TRIED     (1U << 3)

#define PASID_DMA_CAPABILITY    0x100
#define PASID_DMA_MAX_BITS      20

enum {
    PASID_DMA_REG_ID,
    PASID_DMA_REG_SOURCE,
    PASID_DMA_REG_TARGET,
    PASID_DMA_REG_LENGTH,
    PASID_DMA_REG_PASID,
    PASID_DMA_REG_COMMAND,
    PASID_DMA_REG_STATUS,
    PASID_DMA_REGS,
};

struct PasidDMAState {
    PCIDevice parent_obj;

    MemoryRegion bar;
    uint64_t regs[PASID_DMA_REGS];
    uint8_t buffer[PASID_DMA_BUFFER_SIZE];
    uint8_t pasid_bits;
};

/* The attributes of an access; false: the function may not send it. */
static bool pasid_dma_attrs(PasidDMAState *s, MemTxAttrs *attrs)
{
    uint64_t reg = s->regs[PASID_DMA_REG_PASID];
    uint32_t pasid = reg & ~PASID_DMA_HAS_PASID;
    const uint8_t *control = PCI_DEVICE(s)->config + PASID_DMA_CAPABILITY +
                             PCI_PASID_CTRL;

    *attrs = (MemTxAttrs) { .requester_id = pci_requester_id(PCI_DEVICE(s)) };
    if (!(reg & PASID_DMA_HAS_PASID)) {
        return true;
    }
    attrs->pid = pasid;
    return (pci_get_word(control) & PCI_PASID_CTRL_ENABLE) &&
           pasid && pasid < (1U << s->pasid_bits);
}

static bool pasid_dma_access(PasidDMAState *s, dma_addr_t addr,
                             DMADirection dir, MemTxAttrs attrs)
{
    uint64_t done, piece, length = s->regs[PASID_DMA_REG_LENGTH];

    for (done = 0; done < length; done += piece) {
        piece = PASID_DMA_PIECE - ((addr + done) & (PASID_DMA_PIECE - 1));
        piece = MIN(piece, length - done);
        if (pci_dma_rw(PCI_DEVICE(s), addr + done, s->buffer + done, piece, dir,
                       attrs) != MEMTX_OK) {
            return false;
        }
    }
    return true;
}

static uint64_t pasid_dma_run(PasidDMAState *s, uint64_t command)
{
    MemTxAttrs attrs;

    if (s->regs[PASID_DMA_REG_LENGTH] > PASID_DMA_BUFFER_SIZE ||
        !pasid_dma_attrs(s, &attrs)) {
        return PASID_DMA_FAILED | PASID_DMA_NOT_TRIED;
    }
    if ((command & PASID_DMA_READ) &&
        !pasid_dma_access(s, s->regs[PASID_DMA_REG_SOURCE],
                          DMA_DIRECTION_TO_DEVICE, attrs)) {
        return PASID_DMA_FAILED | PASID_DMA_FAILED_READ;
    }
    if ((command & PASID_DMA_WRITE) &&
        !pasid_dma_access(s, s->regs[PASID_DMA_REG_TARGET],
                          DMA_DIRECTION_FROM_DEVICE, attrs)) {
        return PASID_DMA_FAILED | PASID_DMA_FAILED_WRITE;
    }
    return 0;
}

static uint64_t pasid_dma_bar_read(void *opaque, hwaddr addr, unsigned size)
{
    PasidDMAState *s = opaque;

    if (addr >= PASID_DMA_BUFFER) {
        return ldq_le_p(s->buffer + addr - PASID_DMA_BUFFER);
    }
    return addr / 8 < PASID_DMA_REGS ? s->regs[addr / 8] : 0;
}

static void pasid_dma_bar_write(void *opaque, hwaddr addr, uint64_t val,
                                unsigned size)
{
    PasidDMAState *s = opaque;

    if (addr >= PASID_DMA_BUFFER) {
        stq_le_p(s->buffer + addr - PASID_DMA_BUFFER, val);
        return;
    }
    switch (addr / 8) {
    case PASID_DMA_REG_SOURCE:
    case PASID_DMA_REG_TARGET:
    case PASID_DMA_REG_LENGTH:
    case PASID_DMA_REG_PASID:
        s->regs[addr / 8] = val;
        break;
    case PASID_DMA_REG_COMMAND:
        s->regs[PASID_DMA_REG_STATUS] = pasid_dma_run(s, val);
        break;
    }
}

static const MemoryRegionOps pasid_dma_bar_ops = {
    .read = pasid_dma_bar_read,
    .write = pasid_dma_bar_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 8, .max_access_size = 8 },
    .impl = { .min_access_size = 8, .max_access_size = 8 },
};

static void pasid_dma_reset(DeviceState *dev)
{
    PasidDMAState *s = PASID_DMA(dev);

    memset(s->regs, 0, sizeof(s->regs));
    s->regs[PASID_DMA_REG_ID] = PASID_DMA_ID;
    memset(s->buffer, 0, sizeof(s->buffer));
    pci_set_word(PCI_DEVICE(s)->config + PASID_DMA_CAPABILITY + PCI_PASID_CTRL,
                 0);
}

static void pasid_dma_write_config(PCIDevice *pdev, uint32_t addr, uint32_t val,
                                   int len)
{
    pci_default_write_config(pdev, addr, val, len);
    pcie_cap_flr_write_config(pdev, addr, val, len);
}

static void pasid_dma_realize(PCIDevice *pdev, Error **errp)
{
    PasidDMAState *s = PASID_DMA(pdev);

    if (!s->pasid_bits || s->pasid_bits > PASID_DMA_MAX_BITS) {
        error_setg(errp, "pasid-bits must be from 1 to %d", PASID_DMA_MAX_BITS);
        return;
    }
    if (pcie_endpoint_cap_init(pdev, 0) < 0) {
        error_setg(errp, "pasid-dma needs a PCI Express bus");
        return;
    }
    pcie_cap_flr_init(pdev);

    pcie_add_capability(pdev, PCI_EXT_CAP_ID_PASID, 1, PASID_DMA_CAPABILITY,
                        PCI_EXT_CAP_PASID_SIZEOF);
    pci_set_word(pdev->config + PASID_DMA_CAPABILITY + PCI_PASID_CAP,
                 s->pasid_bits << 8);
    pci_set_word(pdev->wmask + PASID_DMA_CAPABILITY + PCI_PASID_CTRL,
                 PCI_PASID_CTRL_ENABLE);

    memory_region_init_io(&s->bar, OBJECT(s), &pasid_dma_bar_ops, s,
                          TYPE_PASID_DMA, PASID_DMA_BAR_SIZE);
    pci_register_bar(pdev, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->bar);
}

static void pasid_dma_exit(PCIDevice *pdev)
{
    pcie_cap_exit(pdev);
}

static const Property pasid_dma_properties[] = {
    DEFINE_PROP_UINT8("pasid-bits", PasidDMAState, pasid_bits, 16),
};

static void pasid_dma_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);

    k->realize = pasid_dma_realize;
    k->exit = pasid_dma_exit;
    k->config_write = pasid_dma_write_config;
    k->vendor_id = PCI_VENDOR_ID_QEMU;
    k->device_id = PASID_DMA_DEVICE_ID;
    k->class_id = PCI_CLASS_OTHERS;
    dc->desc = "DMA with PASIDs, for tests of IOMMUs";
    device_class_set_legacy_reset(dc, pasid_dma_reset);
    device_class_set_props(dc, pasid_dma_properties);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static const TypeInfo pasid_dma_info = {
    .name = TYPE_PASID_DMA,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(PasidDMAState),
    .class_init = pasid_dma_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void pasid_dma_register_types(void)
{
    type_register_static(&pasid_dma_info);
}

type_init(pasid_dma_register_types)
