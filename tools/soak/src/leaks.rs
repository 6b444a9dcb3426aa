// SPDX-License-Identifier: GPL-2.0

//! What an episode must not leave behind: pages of tables, groups, interrupts, descriptors.

use std::{fmt, fs, thread::sleep, time::Duration};

use anyhow::{
    bail,
    Context,
    Result, //
};

use crate::function::tell;

/// How often and how far apart to look again: what is freed late is freed within a second.
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// How many there are in the whole machine, or in this program.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pages: u64,
    groups: usize,
    interrupts: usize,
    descriptors: usize,
}

impl Counts {
    /// Counts.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(crate) fn now() -> Result<Self> {
        tell("/proc/sys/vm/stat_refresh", "1")?;
        let pages = fs::read_to_string("/proc/vmstat")?
            .lines()
            .find_map(|line| line.strip_prefix("nr_iommu_pages ")?.parse().ok())
            .context("/proc/vmstat has no nr_iommu_pages")?;
        Ok(Self {
            pages,
            groups: entries("/sys/kernel/iommu_groups")?,
            interrupts: entries("/proc/irq")?,
            descriptors: entries("/proc/self/fd")?,
        })
    }

    /// Waits until nothing more is there than in `self`.
    ///
    /// # Errors
    ///
    /// Something stays.
    pub(crate) fn check(&self) -> Result<()> {
        for _ in 0..ROUNDS {
            if Self::now()?.is_within(self) {
                return Ok(());
            }
            sleep(PAUSE);
        }
        bail!(
            "before there were {self}, and now there are {}",
            Self::now()?
        )
    }

    /// Whether there are no more of anything than in `other`. There may be fewer: something may
    /// have been freed late that was there before.
    fn is_within(&self, other: &Self) -> bool {
        self.pages <= other.pages
            && self.groups <= other.groups
            && self.interrupts <= other.interrupts
            && self.descriptors <= other.descriptors
    }
}

fn entries(folder: &str) -> Result<usize> {
    Ok(fs::read_dir(folder)
        .with_context(|| format!("cannot list {folder}"))?
        .count())
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pages of tables, {} groups, {} interrupts, {} descriptors",
            self.pages, self.groups, self.interrupts, self.descriptors
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_of_anything_is_too_much() {
        let before = Counts {
            pages: 7,
            groups: 5,
            interrupts: 3,
            descriptors: 9,
        };
        let fewer = Counts {
            pages: 6,
            ..before.clone()
        };
        assert!(before.is_within(&before) && fewer.is_within(&before));
        assert!(!before.is_within(&fewer));
        let more = [
            Counts {
                groups: 6,
                ..fewer.clone()
            },
            Counts {
                interrupts: 4,
                ..fewer.clone()
            },
            Counts {
                descriptors: 10,
                ..fewer
            },
        ];
        assert!(more.iter().all(|counts| !counts.is_within(&before)));
    }
}
