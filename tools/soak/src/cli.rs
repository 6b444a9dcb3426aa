// SPDX-License-Identifier: GPL-2.0

//! The command line.

use clap::Parser;

use crate::op::Episode;

/// Use an IOMMU at random and from several threads at once, and check every report of dirty pages
/// against a model.
///
/// Two functions write by themselves (page-writer of this project's QEMU, 1234:11f1), a third one
/// by PASID where it has PASIDs (pasid-dma, 1234:11ef). Meanwhile threads move them between page
/// tables, reset them, switch tracking on and off, query it in any shape, map and unmap, and move
/// interrupts; allocations fail and signals interrupt calls. All of it follows from a seed, in
/// episodes after each of which nothing may be left.
///
/// Ends with one line, "soak passed: ...", and exit code 0. A failing sequence is shortened and
/// printed, with the options that repeat it; anything but success is exit code 1. So is a run that
/// shows nothing: no write was tracked, nothing was reported, moved or mapped.
#[derive(Clone, Debug, Parser)]
#[command(name = "iommu-soak", version)]
pub(crate) struct Options {
    /// The number that everything follows from.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// How long, by the machine's clock.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,

    /// How long at most, by its real-time clock, which in an emulated machine may be the host's
    /// [default: no limit].
    #[arg(long)]
    pub(crate) wall: Option<u64>,

    /// Multiply all pauses between steps, and divide the rates of the devices.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) pace: u64,

    /// Play only this episode, once.
    #[arg(long)]
    pub(crate) episode: Option<u64>,

    /// Of that episode, play only the steps of these numbers: 3,17,22.
    #[arg(long, value_delimiter = ',', requires = "episode")]
    pub(crate) keep: Vec<usize>,

    /// The driver's parameter `split` in each episode: 0, 1 or the size of a leaf [default: it
    /// follows from the seed].
    #[arg(long)]
    pub(crate) split: Option<u32>,

    /// Seconds by the machine's clock in which to shorten what fails.
    #[arg(long, default_value_t = 120)]
    pub(crate) shorten: u64,

    /// Fail if no function has PASIDs.
    #[arg(long)]
    pub(crate) pasids: bool,

    /// Print progress and result as JSON, an object in each line.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// The episode of a seed.
    pub(crate) fn episode_of(&self, seed: u64, pasids: bool) -> Episode {
        let episode = Episode::new(seed, pasids, self.pace);
        Episode {
            split: self.split.unwrap_or(episode.split),
            ..episode
        }
    }

    /// The options that repeat an episode, or those of its steps.
    pub(crate) fn repeat(&self, seed: u64, keep: &[usize]) -> String {
        let mut words = vec![format!("--episode {seed}")];
        if self.pace != 1 {
            words.push(format!("--pace {}", self.pace));
        }
        if let Some(split) = self.split {
            words.push(format!("--split {split}"));
        }
        if !keep.is_empty() {
            let numbers: Vec<_> = keep.iter().map(usize::to_string).collect();
            words.push(format!("--keep {}", numbers.join(",")));
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_an_episode_is_understood() -> Result<(), clap::Error> {
        let plain = Options::try_parse_from(["iommu-soak"])?;
        assert_eq!(plain.repeat(7, &[]), "--episode 7");
        let slow = Options::try_parse_from(["iommu-soak", "--pace", "3", "--split", "1"])?;
        let words = slow.repeat(u64::MAX, &[3, 17]);
        let again = ["iommu-soak"].into_iter().chain(words.split(' '));
        let again = Options::try_parse_from(again)?;
        assert_eq!(again.episode, Some(u64::MAX));
        assert_eq!(again.pace, 3);
        assert_eq!(again.split, Some(1));
        assert_eq!(again.keep, [3, 17]);
        Ok(())
    }
}
