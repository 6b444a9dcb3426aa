// SPDX-License-Identifier: GPL-2.0

//! Registers and bits of the 82576 that a loopback needs, named as the kernel names them.

/// Device control (8.2.1).
pub(super) const CTRL: usize = 0x0000;
pub(super) const CTRL_FD: u32 = 1 << 0;
pub(super) const CTRL_SLU: u32 = 1 << 6;
pub(super) const CTRL_SPD_SEL: u32 = 3 << 8;
pub(super) const CTRL_SPD_1000: u32 = 2 << 8;
pub(super) const CTRL_FRCSPD: u32 = 1 << 11;
pub(super) const CTRL_FRCDPX: u32 = 1 << 12;
pub(super) const CTRL_RST: u32 = 1 << 26;

/// Device status (8.2.2).
pub(super) const STATUS: usize = 0x0008;
pub(super) const STATUS_LU: u32 = 1 << 1;

/// Extended device control (8.2.3).
pub(super) const CTRL_EXT: usize = 0x0018;
pub(super) const CTRL_EXT_LINK_MODE_MASK: u32 = 3 << 22;
pub(super) const CTRL_EXT_DRV_LOAD: u32 = 1 << 28;

/// MDI control: access to the PHY's registers (8.2.4).
pub(super) const MDIC: usize = 0x0020;
pub(super) const MDIC_REG_SHIFT: u32 = 16;
pub(super) const MDIC_PHY_SHIFT: u32 = 21;
pub(super) const MDIC_OP_WRITE: u32 = 1 << 26;
pub(super) const MDIC_READY: u32 = 1 << 28;
pub(super) const MDIC_ERROR: u32 = 1 << 30;

/// Basic mode control of the PHY (IEEE 802.3, 22.2.4.1).
pub(super) const MII_BMCR: u32 = 0;
pub(super) const BMCR_SPEED1000: u16 = 0x0040;
pub(super) const BMCR_FULLDPLX: u16 = 0x0100;
pub(super) const BMCR_ANRESTART: u16 = 0x0200;
pub(super) const BMCR_ANENABLE: u16 = 0x1000;
pub(super) const BMCR_LOOPBACK: u16 = 0x4000;

/// Interrupt masks: writing a bit switches its cause off (8.8.4, 8.8.12).
pub(super) const IMC: usize = 0x00d8;
pub(super) const EIMC: usize = 0x1528;

/// PCIe control (8.6.1).
pub(super) const GCR: usize = 0x5b00;
pub(super) const GCR_CMPL_TMOUT_RESEND: u32 = 1 << 16;

/// Receive control (8.10.1).
pub(super) const RCTL: usize = 0x0100;
pub(super) const RCTL_EN: u32 = 1 << 1;
pub(super) const RCTL_UPE: u32 = 1 << 3;
pub(super) const RCTL_MPE: u32 = 1 << 4;
pub(super) const RCTL_LBM_MAC: u32 = 1 << 6;
pub(super) const RCTL_BAM: u32 = 1 << 15;
pub(super) const RCTL_SECRC: u32 = 1 << 26;

/// Transmit control (8.12.1).
pub(super) const TCTL: usize = 0x0400;
pub(super) const TCTL_EN: u32 = 1 << 1;
pub(super) const TCTL_PSP: u32 = 1 << 3;

/// Receive ring 0 (8.10.5 to 8.10.10).
pub(super) const RDBAL: usize = 0x2800;
pub(super) const RDBAH: usize = 0x2804;
pub(super) const RDLEN: usize = 0x2808;
pub(super) const SRRCTL: usize = 0x280c;
pub(super) const RDH: usize = 0x2810;
pub(super) const RDT: usize = 0x2818;
pub(super) const RXDCTL: usize = 0x2828;
pub(super) const SRRCTL_DESCTYPE_ADV_ONEBUF: u32 = 1 << 25;

/// Transmit ring 0 (8.12.5 to 8.12.13).
pub(super) const TDBAL: usize = 0x3800;
pub(super) const TDBAH: usize = 0x3804;
pub(super) const TDLEN: usize = 0x3808;
pub(super) const TDH: usize = 0x3810;
pub(super) const TDT: usize = 0x3818;
pub(super) const TXDCTL: usize = 0x3828;

/// Queue enable, in `RXDCTL` and in `TXDCTL`.
pub(super) const DCTL_QUEUE_ENABLE: u32 = 1 << 25;

/// Second word of an advanced transmit data descriptor (7.2.2.3).
pub(super) const TXD_DTYP_DATA: u32 = 3 << 20;
pub(super) const TXD_DCMD_EOP: u32 = 1 << 24;
pub(super) const TXD_DCMD_IFCS: u32 = 1 << 25;
pub(super) const TXD_DCMD_DEXT: u32 = 1 << 29;
pub(super) const TXD_PAYLEN_SHIFT: u32 = 14;

/// Second word of an advanced receive descriptor that was written back: descriptor done (7.1.5.2).
pub(super) const RXD_STAT_DD: u64 = 1 << 0;
