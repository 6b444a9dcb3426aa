// SPDX-License-Identifier: GPL-2.0

//! From bytes to operations.

use super::{
    Op,
    Setup, //
};
use crate::{
    pt::{
        Iova,
        Prot, //
    },
    spec::{
        apertures,
        mask,
        Spec, //
    }, //
};

/// The most leaves of one request.
const MOST_LEAVES: u64 = 1600;

/// Bytes, and zeroes behind them.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u64 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                u64::from(*byte)
            }
            None => 0,
        }
    }

    fn two(&mut self) -> u64 {
        self.byte() | self.byte() << 8
    }

    /// One of `all`.
    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.byte() as usize % all.len()]
    }
}

/// The critical addresses: the ends of the address spaces and the boundaries of the tables of
/// each level. Only a few, so that operations hit the same ones.
fn places<S: Spec>(apertures: &[(Iova, Iova)]) -> Vec<Iova> {
    let mut places = Vec::new();

    for (first, last) in apertures {
        places.extend([*first, last.wrapping_add(1)]);
        for level in 1..6 {
            let place = first.wrapping_add(1 << S::item_lg2(level));

            if place > *first && place < *last {
                places.push(place);
            }
        }
    }
    places
}

struct Decoder<'b> {
    bytes: Bytes<'b>,
    places: Vec<Iova>,
    apertures: Vec<(Iova, Iova)>,
    /// The sizes in use.
    sizes: Vec<u32>,
    /// The smallest of them.
    page: u64,
    /// Binary logarithm of the output addresses.
    output_lg2: u32,
}

impl Decoder<'_> {
    /// A leaf size; smaller ones are more frequent.
    fn size(&mut self) -> u64 {
        let byte = self.bytes.byte() as usize;
        let many = self.sizes.len();
        let among = if byte % 3 == 0 {
            many
        } else {
            many.div_ceil(2)
        };

        1 << self.sizes[byte / 3 % among]
    }

    fn iova(&mut self) -> Iova {
        let places = std::mem::take(&mut self.places);
        let place = self.bytes.pick(&places);
        let kind = self.bytes.byte();
        let amount = self.bytes.byte();
        let offset = match kind % 4 {
            0 => amount % 16 * self.page,
            1 => (amount * 7) % MOST_LEAVES * self.page,
            2 => (amount % 6).wrapping_mul(self.size()),
            _ => (amount % 6)
                .wrapping_mul(self.size())
                .wrapping_sub(amount / 64 * self.page),
        };
        let iova = if kind & 64 == 0 {
            place.wrapping_add(offset)
        } else {
            place.wrapping_sub(offset)
        };

        self.places = places;
        // Sometimes outside of the address space, or unaligned.
        match kind >> 3 {
            31 => iova,
            30 => iova + amount % 5,
            _ => self.inside(iova & !(self.page - 1)),
        }
    }

    fn inside(&self, iova: Iova) -> Iova {
        let holds = |aperture: &&(Iova, Iova)| aperture.0 <= iova && iova <= aperture.1;

        match self.apertures.iter().find(holds) {
            Some(_) => iova,
            None => iova & self.apertures[0].1,
        }
    }

    fn span(&mut self, iova: Iova) -> u64 {
        let kind = self.bytes.byte();
        let amount = self.bytes.byte();
        let len = match kind % 8 {
            0 | 1 => self.page,
            2 => (amount % 16 + 1) * self.page,
            3 => (amount * 7 % MOST_LEAVES + 1) * self.page,
            4 => self.size(),
            5 => (amount % 4 + 1).saturating_mul(self.size()),
            6 => self
                .size()
                .saturating_add(self.size())
                .saturating_add(amount % 3 * self.page),
            _ => {
                // To the end of the address space, or of its table.
                let end = self.apertures.iter().find(|aperture| aperture.1 >= iova);
                let table = iova | mask(21 + 9 * (amount as u32 % 5));

                return end.map_or(0, |aperture| aperture.1.min(table).saturating_sub(iova));
            }
        };

        match kind >> 3 {
            31 => len - 1 + amount,
            30 => u64::MAX - amount,
            _ => len - 1,
        }
    }

    /// As long as `span`, or shorter, so that the number of leaves stays small.
    fn bounded(&self, iova: Iova, phys: u64, span: u64) -> u64 {
        let mut done = 0u64;

        for _ in 0..MOST_LEAVES {
            let (at, left) = (
                iova.wrapping_add(done) | phys.wrapping_add(done),
                span - done,
            );
            let fits = |lg2: &&u32| at & mask(**lg2) == 0 && left >= mask(**lg2);
            let Some(lg2) = self.sizes.iter().rev().find(fits) else {
                // Unaligned, so that the map must fail.
                return span;
            };

            if left == mask(*lg2) {
                return span;
            }
            done += 1 << lg2;
        }
        done - 1
    }

    /// Output addresses that share as many low bits with `iova` as a leaf of some size needs.
    fn phys(&mut self, iova: Iova, span: u64) -> u64 {
        let kind = self.bytes.byte();
        let amount = self.bytes.byte();
        let low = mask(self.size().trailing_zeros());
        // Four of the highest bits, and four of the lowest.
        let phys = (amount & 0xf) << (self.output_lg2 - 5) | (amount >> 4) << 12;
        let phys = (phys & !low | iova & low) & mask(self.output_lg2 - 1);

        match kind {
            // The end of the output addresses.
            0..8 => (mask(self.output_lg2) - span.min(mask(40))) & !low,
            8 => phys | amount,
            9 => phys | amount << 56,
            _ => phys,
        }
    }

    fn prot(&mut self) -> Prot {
        match self.bytes.byte() % 16 {
            0 => Prot::NONE,
            1 => Prot::SNOOP,
            2 | 3 => Prot::READ,
            4 | 5 => Prot::WRITE,
            6 | 7 => Prot::READ | Prot::WRITE | Prot::SNOOP,
            _ => Prot::READ | Prot::WRITE,
        }
    }

    fn op(&mut self) -> Op {
        let kind = self.bytes.byte() % 24;

        match kind {
            0..7 => {
                let iova = self.iova();
                let span = self.span(iova);
                let phys = self.phys(iova, span);
                let span = self.bounded(iova, phys, span);
                let prot = self.prot();
                let scarce = self.bytes.byte();

                Op::Map {
                    iova,
                    phys,
                    span,
                    prot,
                    tables: (scarce < 40).then_some(scarce % 8),
                }
            }
            7..11 => {
                let iova = self.iova();
                let span = self.span(iova);

                Op::Unmap { iova, span }
            }
            11..17 => {
                let iova = self.iova();

                Op::Access {
                    iova,
                    count: self.bytes.byte() % 200 + 1,
                    stride: match self.bytes.byte() {
                        stride @ 0..64 => (stride % 9 + 1) * self.page / 2,
                        _ => self.size(),
                    },
                    write: kind != 11,
                }
            }
            17..22 => {
                let iova = self.iova();
                let span = self.span(iova);
                let (kind, odd) = (self.bytes.byte(), self.bytes.two());

                Op::Harvest {
                    // A query may begin and end anywhere.
                    iova: iova.wrapping_add(if kind < 32 { odd % self.page } else { 0 }),
                    span: match kind % 32 {
                        0..4 => odd,
                        4..8 => mask(48),
                        _ => span,
                    },
                    clear: kind & 32 == 0,
                }
            }
            22 => {
                let iova = self.iova();

                match self.bytes.byte() % 2 {
                    0 => Op::Translate { iova },
                    _ => Op::Mark { iova },
                }
            }
            _ => Op::Flush,
        }
    }
}

/// The hardware and the operations that `bytes` encode.
pub fn decode<S: Spec>(bytes: &[u8]) -> (Setup, Vec<Op>) {
    let mut bytes = Bytes(bytes);
    let (fewest, most) = S::LEVELS;
    let levels = fewest + bytes.byte() as u8 % (most - fewest + 1);
    let which = bytes.byte();
    let kind = bytes.byte();
    let max_levels = if S::GROWS && kind & 1 != 0 {
        most
    } else {
        levels
    };
    let upper = S::SIGNED && kind & 1 != 0;
    // A leaf lies in one table.
    let whole = S::item_lg2(u32::from(max_levels));
    let random = bytes.two() << 12 | bytes.two() << 28 | bytes.two() << 44;
    let page_sizes = match which % 4 {
        0 => u64::MAX,
        1 => S::SIZES[..S::SIZES.len().min(3)]
            .iter()
            .fold(0, |sizes, lg2| sizes | 1 << lg2),
        2 => 1 << S::SIZES[0],
        // Any size, including some that the format does not have.
        _ => random | 1 << S::SIZES[0],
    };
    let setup = Setup {
        levels,
        max_levels,
        upper,
        page_sizes,
        input_lg2: [64, 64, 36, 57][kind as usize / 2 % 4],
        output_lg2: [64, 52, 48, 52][kind as usize / 8 % 4],
        coherent: kind < 192,
    };
    let apertures = apertures::<S>(max_levels, setup.input_lg2, upper);
    let mut decoder = Decoder {
        bytes,
        places: places::<S>(&apertures),
        apertures,
        sizes: S::SIZES
            .iter()
            .copied()
            .filter(|lg2| page_sizes >> lg2 & 1 != 0 && *lg2 < whole)
            .collect(),
        page: 1 << S::PAGE_LG2,
        output_lg2: setup.output_lg2.min(S::OUTPUT_LG2),
    };
    let mut ops = Vec::new();

    while !decoder.bytes.0.is_empty() && ops.len() < 64 {
        ops.push(decoder.op());
    }
    (setup, ops)
}
