// SPDX-License-Identifier: GPL-2.0

//! Intel 82576 (`-device igb` of QEMU) as a DMA engine.
//!
//! The device sends frames to itself: the transmit ring names a frame in our window, the receive ring
//! names the place in memory where the loopback shall put it. One frame is one write.
//!
//! Section numbers are those of the "Intel 82576EB Gigabit Ethernet Controller Datasheet".

mod regs;

use std::{
    ops::RangeInclusive,
    thread::sleep,
    time::Duration, //
};

use anyhow::{
    bail,
    ensure,
    Result, //
};
use device_memory::Registers;

use self::regs::*;
use super::{
    wait_for,
    Engine,
    Model,
    Window, //
};
use crate::pattern::Write;

pub(super) const MODEL: Model = Model {
    id: (0x8086, 0x10c9),
    name: "igb",
    bar_size: 0x2_0000,
    window_size: FRAMES + BATCH * FRAME_SIZE,
    last_iova: u64::MAX,
    start: |bar, window| {
        let mut igb = Igb {
            bar,
            window,
            tail: 0,
        };
        igb.reset()?;
        igb.set_loopback()?;
        igb.start_rings()?;
        Ok(Box::new(igb))
    },
};

/// Descriptors in each ring: a multiple of 8 (8.10.7, RDLEN).
const RING: usize = 256;
/// Bytes of a descriptor, of either kind.
const DESCRIPTOR: usize = 16;
/// Frames given to the device at once. A ring must never be full: then it would look empty.
const BATCH: usize = 64;
/// Room for one frame.
const FRAME_SIZE: usize = 1024;

/// Where in the window the parts are: both rings, then the frames.
const TX_RING: usize = 0;
const RX_RING: usize = TX_RING + RING * DESCRIPTOR;
const FRAMES: usize = RX_RING + RING * DESCRIPTOR;

/// An Ethernet header: two locally administered addresses and the EtherType for local experiments,
/// so that nothing on the way takes the bytes for a VLAN tag, a pause frame or a time stamp.
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];

/// How long the device may take for anything: a thousand times what the slowest emulation takes.
const LIMIT: Duration = Duration::from_secs(10);

/// # Invariants
///
/// `tail` is the index of the next free descriptor of both rings.
struct Igb {
    bar: Registers,
    window: Window,
    tail: usize,
}

impl Igb {
    fn read(&self, register: usize) -> Result<u32> {
        Ok(self.bar.read32(register)?)
    }

    fn write(&self, register: usize, value: u32) -> Result<()> {
        Ok(self.bar.write32(register, value)?)
    }

    fn update(&self, register: usize, clear: u32, set: u32) -> Result<()> {
        self.write(register, (self.read(register)? & !clear) | set)
    }

    fn wait(&self, register: usize, mask: u32, value: u32) -> Result<bool> {
        wait_for(LIMIT, || Ok(self.read(register)? & mask == value))
    }

    /// Global reset (4.2.1.6.1): rings off, registers at their defaults, no interrupts.
    fn reset(&self) -> Result<()> {
        self.update(CTRL, 0, CTRL_RST)?;
        // Registers may not be touched for one millisecond.
        sleep(Duration::from_millis(2));
        if !self.wait(CTRL, CTRL_RST, 0)? {
            bail!(
                "igb does not come out of reset; unbind it from vfio-pci, reset it and try again"
            );
        }
        self.write(IMC, u32::MAX)?;
        self.write(EIMC, u32::MAX)
    }

    fn write_phy(&self, register: u32, value: u16) -> Result<()> {
        self.write(
            MDIC,
            u32::from(value) | (register << MDIC_REG_SHIFT) | (1 << MDIC_PHY_SHIFT) | MDIC_OP_WRITE,
        )?;
        let done = self.wait(MDIC, MDIC_READY, MDIC_READY)?;
        ensure!(
            done && self.read(MDIC)? & MDIC_ERROR == 0,
            "igb cannot reach its PHY; unbind it from vfio-pci, reset it and try again"
        );
        Ok(())
    }

    /// PHY internal loopback at 1 Gb/s with the link forced up (3.5.6.3.1).
    fn set_loopback(&self) -> Result<()> {
        self.update(CTRL_EXT, CTRL_EXT_LINK_MODE_MASK, CTRL_EXT_DRV_LOAD)?;
        // QEMU raises the link only when autonegotiation ends; hardware has no time to begin it.
        self.write_phy(MII_BMCR, BMCR_ANENABLE | BMCR_ANRESTART)?;
        self.write_phy(MII_BMCR, BMCR_LOOPBACK | BMCR_SPEED1000 | BMCR_FULLDPLX)?;
        // The kernel's igb driver found that hardware needs this pause.
        sleep(Duration::from_millis(50));
        self.update(
            CTRL,
            CTRL_SPD_SEL,
            CTRL_FRCSPD | CTRL_FRCDPX | CTRL_SPD_1000 | CTRL_FD | CTRL_SLU,
        )?;
        if !self.wait(STATUS, STATUS_LU, STATUS_LU)? {
            bail!("igb does not bring up its loopback link; try another function of the device");
        }
        Ok(())
    }

    fn start_rings(&mut self) -> Result<()> {
        // A read that the IOMMU refuses shall not be repeated for ever (8.6.1).
        self.update(GCR, GCR_CMPL_TMOUT_RESEND, 0)?;

        let ring_bytes = (RING * DESCRIPTOR) as u32;
        for (base_low, base_high, length, head, tail, ring) in [
            (TDBAL, TDBAH, TDLEN, TDH, TDT, TX_RING),
            (RDBAL, RDBAH, RDLEN, RDH, RDT, RX_RING),
        ] {
            let iova = self.window.iova + ring as u64;
            // CAST: The two halves of the address.
            self.write(base_low, iova as u32)?;
            self.write(base_high, (iova >> 32) as u32)?;
            self.write(length, ring_bytes)?;
            self.write(head, 0)?;
            self.write(tail, 0)?;
        }
        // The advanced format, the only one that is written back (7.1.5.2). Buffers are 2 KiB by
        // default, more than a frame has.
        self.write(SRRCTL, SRRCTL_DESCTYPE_ADV_ONEBUF)?;
        self.write(TXDCTL, DCTL_QUEUE_ENABLE)?;
        self.write(RXDCTL, DCTL_QUEUE_ENABLE)?;

        // MAC loopback does not exist in hardware (3.5.6.2), but it is the one that QEMU knows.
        // Without the checksum stripped, four bytes more than the frame would be written.
        self.write(
            RCTL,
            RCTL_EN | RCTL_UPE | RCTL_MPE | RCTL_BAM | RCTL_LBM_MAC | RCTL_SECRC,
        )?;
        self.write(TCTL, TCTL_EN | TCTL_PSP)?;
        let enabled = self.wait(TXDCTL, DCTL_QUEUE_ENABLE, DCTL_QUEUE_ENABLE)?
            && self.wait(RXDCTL, DCTL_QUEUE_ENABLE, DCTL_QUEUE_ENABLE)?;
        ensure!(
            enabled,
            "igb does not start its queues; unbind it from vfio-pci, reset it and try again"
        );
        // INVARIANT: Head and tail of both rings were set to 0 above.
        self.tail = 0;
        Ok(())
    }

    /// Fills in one descriptor of either kind.
    fn describe(&self, ring: usize, index: usize, words: [u64; 2]) -> Result<()> {
        let mut bytes = [0; DESCRIPTOR];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        Ok(self
            .window
            .memory
            .copy_in(ring + index * DESCRIPTOR, &bytes)?)
    }
}

impl Engine for Igb {
    fn prefix(&self) -> &'static [u8] {
        &HEADER
    }

    /// From the shortest Ethernet frame, to not be padded, to the room that we have.
    fn lengths(&self) -> RangeInclusive<usize> {
        64..=FRAME_SIZE
    }

    fn batch(&self) -> usize {
        BATCH
    }

    fn dma_write(&mut self, iova: u64, writes: &[Write]) -> Result<()> {
        ensure!(
            writes.len() <= BATCH
                && writes
                    .iter()
                    .all(|w| self.lengths().contains(&w.data.len())),
            "igb was asked for {} frames at once or for one of a wrong length",
            writes.len()
        );
        let mut index = self.tail;
        let mut last = None;
        for (i, write) in writes.iter().enumerate() {
            let frame = FRAMES + i * FRAME_SIZE;
            self.window.memory.copy_in(frame, &write.data)?;
            // Read format: address of the buffer, no header buffer (7.1.5.1).
            self.describe(RX_RING, index, [iova + write.offset as u64, 0])?;
            // Read format: address, then length and command below the payload length (7.2.2.3).
            // CAST: A frame has at most FRAME_SIZE bytes.
            let length = write.data.len() as u64;
            let command = length
                | u64::from(TXD_DTYP_DATA | TXD_DCMD_DEXT | TXD_DCMD_IFCS | TXD_DCMD_EOP)
                | (length << (32 + TXD_PAYLEN_SHIFT));
            self.describe(TX_RING, index, [self.window.iova + frame as u64, command])?;
            last = Some(index);
            index = (index + 1) % RING;
        }
        let Some(last) = last else { return Ok(()) };

        // Buffers first, then what goes into them. CAST: An index is below RING.
        self.write(RDT, index as u32)?;
        self.write(TDT, index as u32)?;
        self.tail = index;

        // Frames arrive in order, so the last descriptor written back (7.1.5.2) speaks for all. Its
        // status is in the word that was 0 above.
        let status = RX_RING + last * DESCRIPTOR + 8;
        let done = wait_for(LIMIT, || {
            Ok(self.window.memory.load(status)? & RXD_STAT_DD != 0)
        })?;
        ensure!(
            done,
            "igb did not write {} frames within {LIMIT:?}; look for DMA faults in the kernel's log",
            writes.len()
        );
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.write(RCTL, 0)?;
        self.write(TCTL, 0)?;
        self.reset()
    }
}
